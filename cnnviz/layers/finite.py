"""Find NaN and infinity in the weights of a model and in what comes out of it."""

import numpy as np
import tensorflow as tf

from cnnviz.layers.inputs import all_finite
from cnnviz.layers.names import weights_by_owner


def check_finite(model, squares, results):
    """Raise a ValueError that says where to look if NaN or infinity is in the model or came out.

    `squares` is what the traced function returned: the sum of the squares of all weights.
    """
    broken = None if np.isfinite(squares) else broken_layer(model)
    if broken:
        raise ValueError(
            f"`model` (='{model.name}') computes with NaN or infinity: the weights of its layer "
            f"'{broken}' hold it"
        )
    floats = (array for array in tf.nest.flatten(results) if array.dtype.kind == "f")
    if not all(map(all_finite, floats)):
        raise ValueError(
            f"`model` (='{model.name}') gives NaN or infinity for these images, and its weights "
            "are finite; extract_activations shows where it begins"
        )


def broken_layer(model):
    """Path of the first layer whose own weights hold NaN or infinity, the model's name, or None."""
    for path, weight in _float_weights(model):
        if not all_finite(np.asarray(tf.convert_to_tensor(weight), np.float32)):
            return path
    return None


def squared_weights(model):
    """The sum of the squares of all weights, in a graph: not finite if one of them is not.

    The model's output may hide it: a fused convolution and ReLU turns NaN into 0 on some
    processors.
    """
    squares = [tf.nn.l2_loss(tf.cast(weight, tf.float32)) for _, weight in _float_weights(model)]
    return tf.add_n([tf.constant(0.0), *squares])


def _float_weights(model):
    """(path of its layer, weight) of all that hold floating-point numbers."""
    held = [(path, weight) for path, weights in weights_by_owner(model) for weight in weights]
    return [(path, weight) for path, weight in held if "float" in str(weight.dtype)]
