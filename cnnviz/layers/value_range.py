"""Warn if a model can hardly have been trained on images in the value range that it gets."""

import numpy as np
import tensorflow as tf

from cnnviz.layers.inputs import takes_integers
from cnnviz.layers.warn import warn

LARGE = 50  # what reaches the first kernel of a network trained on rescaled images is less


def measure_range(images, received):
    """(6,) tensor: lowest, highest, and largest difference within a channel, of the images and of
    what the first layer with a kernel received, if it is known; zeros for other than images."""
    if images.shape.rank != 4:
        return tf.zeros(6)
    return tf.concat([_span(images), _span(images if received is None else received)], 0)


def _span(tensor):
    tensor = tf.cast(tensor, tf.float32)
    others = list(range(tensor.shape.rank - 1))
    low, high = tf.reduce_min(tensor, others), tf.reduce_max(tensor, others)
    return tf.stack([tf.reduce_min(low), tf.reduce_max(high), tf.reduce_max(high - low)])


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
    spread, gain = spreads.max(), spreads_then.max() / spreads.max() if spreads.max() else 1.0
    if spread == 0:
        return
    given = f"`{name}` (in {low:.3g}..{high:.3g})"
    # A gain of 1 with values below 0: the mean was subtracted, as VGG and ResNet want it.
    as_they_are = 0.5 < gain < 1.5 and first >= 0
    if -1 <= low and high <= 1 and 0 < gain < 1 / LARGE:
        warn(
            f"{given} look too small for model '{model.name}', which divides them by "
            f"{1 / gain:.0f} before its first weights: it takes images in 0..255"
        )
    elif low >= 0 and last > LARGE and (as_they_are or gain >= 1.5):
        warn(
            f"{given} look too large for model '{model.name}', whose first weights receive "
            f"{first:.3g}..{last:.3g}: rescale them as for its training, to 0..1 perhaps; if there "
            "was no rescaling, all is well"
        )
    elif gain == 0 and takes_integers(model):
        warn(f"{given} are all the same to model '{model.name}', which takes integers: in 0..255")
