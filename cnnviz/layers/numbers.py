"""Check the numbers that go into a model and come out of it: their range, NaN and infinity."""

import numpy as np
import tensorflow as tf

from cnnviz.layers.inputs import takes_integers
from cnnviz.layers.names import weights_by_owner
from cnnviz.layers.warn import warn

LARGE = 50  # what reaches the first kernel of a network trained on rescaled images is less


def check_finite(model, squares, results):
    """Raise a ValueError if NaN or infinity is in the results, or in the sum `squared_weights`."""
    broken = None if np.isfinite(squares) else broken_layer(model)
    if broken:
        raise ValueError(
            f"`model` (='{model.name}') computes with NaN or infinity: the weights of its layer "
            f"'{broken}' hold it"
        )
    floats = [array for array in tf.nest.flatten(results) if array.dtype.kind == "f"]
    if not all(np.isfinite(array).all() for array in floats):
        raise ValueError(
            f"`model` (='{model.name}') gives NaN or infinity for these images, and its weights "
            "are finite; extract_activations shows where it begins"
        )


def broken_layer(model):
    """Path of the first layer whose own weights hold NaN or infinity, the model's name, or None."""
    for path, weights in weights_by_owner(model):
        if not all(np.isfinite(weight).all() for weight in _floats(weights)):
            return path
    return None


def squared_weights(model):
    """The sum of the squares of all weights, in a graph: not finite if one of them is not.

    The model's output may hide it: a fused convolution and ReLU turns NaN into 0 on some
    processors.
    """
    squares = [tf.nn.l2_loss(w) for _, weights in weights_by_owner(model) for w in _floats(weights)]
    return tf.add_n([tf.constant(0.0), *squares])


def _floats(weights):
    return [tf.cast(weight, tf.float32) for weight in weights if "float" in str(weight.dtype)]


def measure_range(images, received):
    """(6,) tensor: lowest, highest, and largest difference within a channel, for `warn_of_range`.

    Of the images, and of what the first layer with a kernel received, if that is known; zeros for
    other inputs than images.
    """
    if images.shape.rank != 4:
        return tf.zeros(6)
    found = []
    for tensor in (images, images if received is None else received):
        tensor = tf.cast(tensor, tf.float32)
        others = list(range(tensor.shape.rank - 1))
        low, high = tf.reduce_min(tensor, others), tf.reduce_max(tensor, others)
        found += [tf.reduce_min(low), tf.reduce_max(high), tf.reduce_max(high - low)]
    return tf.stack(found)


def warn_of_range(model, ranges, name="images"):
    """Warn if the value range of the images cannot be the one that the model was trained on.

    What the model does to the images before its first kernel tells. A model that makes them far
    smaller takes 0..255; one that leaves numbers up to 255 as they are was hardly trained on them.
    `ranges` is what `measure_range` returned for each batch, `name` that of the argument.
    """
    if not len(ranges):
        return
    lows, highs, spreads, firsts, lasts, spreads_then = np.transpose(ranges)
    low, high, first, last = lows.min(), highs.max(), firsts.min(), lasts.max()
    if spreads.max() == 0:  # of one color
        return
    gain = spreads_then.max() / spreads.max()
    given = f"`{name}` (in {low:.3g}..{high:.3g})"
    if -1 <= low and high <= 1 and 0 < gain < 1 / LARGE:
        warn(
            f"{given} look too small for model '{model.name}', which divides them by "
            f"{1 / gain:.0f} before its first weights: it takes images in 0..255"
        )
    # A gain of 1 with values below 0: the mean was subtracted, as VGG and ResNet want it.
    elif low >= 0 and last > LARGE and (gain >= 1.5 or (gain > 0.5 and first >= 0)):
        warn(
            f"{given} look too large for model '{model.name}', whose first weights receive "
            f"{first:.3g}..{last:.3g}: rescale them as for its training, to 0..1 perhaps; if there "
            "was no rescaling, all is well"
        )
    elif gain == 0 and takes_integers(model):
        warn(f"{given} are all the same to model '{model.name}', which takes integers: in 0..255")
