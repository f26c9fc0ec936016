"""(model, pictures or what came of them) -> the form that every method works on, or an error."""

import keras
import numpy as np
import tensorflow as tf

from cnnviz.layers.layout import CHANNELS, LAST, input_shape, own_input_shape, takes_channels_first
from cnnviz.layers.names import weights_by_owner


def check_images(model, images, *, fewest=0):
    """Bring pictures into the form that every method works on.

    Args:
        model: The keras.Model that they are for.
        images: (N, H, W, C) or (H, W, C), numbers; for a model that takes (N, C, H, W) they may be
            of that layout; for one of grey pictures also (N, H, W).
        fewest: How many there must be: 0 or 1.

    Returns:
        (N, H, W, C) float32 array.

    Raises:
        ValueError: If the rank, the size, the channels or the values cannot be right for `model`,
            there are fewer than `fewest`, or `model` is not built or has several inputs.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` (of type {type(model).__name__}) must be a keras.Model")
    if not model.built:
        raise ValueError(f"`model` (='{model.name}') is not built; call it once on a picture")
    try:
        images = np.asarray(images)
    except ValueError:
        raise ValueError(
            "`images` (of different shapes) must all have one size; "
            "`load_image(path, image_size=...)` resizes"
        ) from None
    if images.dtype.kind not in "fiub" and images.dtype.name != "bfloat16":
        raise ValueError(f"`images` (of dtype {images.dtype}) must be numbers")
    with np.errstate(over="ignore"):  # infinity is told below
        images = images.astype(np.float32, copy=False)
    given = images.shape
    if images.ndim == 3:
        is_stack = given[2] != 1 and input_shape(model)[3] == 1
        images = images[..., None] if is_stack else images[None]  # grey pictures, or one picture
    if images.ndim != 4:
        raise ValueError(f"`images` (of shape {given}) must be (N, H, W, C) or (H, W, C)")
    if 0 in images.shape[1:]:
        raise ValueError(f"`images` (of shape {images.shape}) must have pixels")
    if len(images) < fewest:
        raise ValueError(f"`images` (of shape {images.shape}) must hold one picture or more")
    if not _all_finite(images):
        raise ValueError("`images` holds NaN or infinity; every value must be a finite float32")
    if takes_channels_first(model):
        own = own_input_shape(model)
        is_own = own[1] is not None or images.shape[1] in CHANNELS
        images = images.transpose(LAST) if is_own and _fit(images.shape, own) else images
    expected = input_shape(model)
    if not _fit(images.shape, expected):
        raise ValueError(
            f"`images` (of shape {given}) must be {_shape_text(expected)} for model '{model.name}'"
        )
    return images


def _fit(shape, expected):
    """Whether pictures of a shape can be what is expected, with None for what is free."""
    sizes = zip(expected[1:], shape[1:], strict=True)
    return all(size is None or size == given for size, given in sizes)


def _shape_text(shape):
    names = ("N", "H", "W", "C")
    return (
        "(" + ", ".join(n if s is None else str(s) for n, s in zip(names, shape, strict=True)) + ")"
    )


def check_finite(model, *results, squares=()):
    """Raise a ValueError that says where to look if NaN or infinity is in the model or came out.

    `squares` are as `broken_layer` takes them.
    """
    broken = broken_layer(model, squares)
    if broken:
        raise ValueError(
            f"`model` (='{model.name}') computes with NaN or infinity: the weights of its layer "
            f"'{broken}' hold it"
        )
    if not all(_all_finite(result) for result in results):
        raise ValueError(
            f"`model` (='{model.name}') gives NaN or infinity for pictures it was shown: its "
            "weights are finite; extract_activations shows where it begins"
        )


def broken_layer(model, squares=()):
    """Path of the first layer whose own weights hold NaN or infinity, the model's name, or None.

    Its output need not tell: on some processors TensorFlow computes a convolution and its ReLU at
    once, and makes zeros of NaN. Where a traced function gave `squares` of `squared_weights`, each
    weight is looked at only if they are not finite.
    """
    if len(squares) and np.isfinite(squares).all():
        return None
    for path, weight in _float_weights(model):
        if not _all_finite(np.asarray(tf.convert_to_tensor(weight))):  # NumPy copies no tensor
            return path
    return None


def squared_weights(model):
    """The sum of the squares of all weights, (1,), in a graph: not finite if one of them is not.

    There it costs next to nothing; to look at them one by one takes a twentieth of a call.
    """
    squares = [tf.nn.l2_loss(tf.cast(weight, tf.float32)) for _, weight in _float_weights(model)]
    return tf.reshape(tf.add_n([tf.constant(0.0), *squares]), (1,))


def _all_finite(array):
    """Whether every number of an array is finite.

    The sum of the squares tells in half the time that it takes to look at each, unless the numbers
    are so large that it overflows.
    """
    numbers = array.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.dot(numbers, numbers)
    return bool(np.isfinite(squares) or np.isfinite(numbers).all())


def _float_weights(model):
    """(path of its layer, weight) of all that hold floating-point numbers."""
    held = [(path, weight) for path, weights in weights_by_owner(model) for weight in weights]
    return [(path, weight) for path, weight in held if "float" in str(weight.dtype)]
