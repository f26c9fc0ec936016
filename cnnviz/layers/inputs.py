"""Check a model, and bring its images into the form that every method works on."""

import numpy as np

from cnnviz.checks import check_integer
from cnnviz.layers.names import is_a, leaf_layers, leaves, named_layers

DEFAULT_IMAGE_SIZE = 96  # pixels, for a model that takes any size


def check_model(model):
    """Check that a model is built and has channels last; return its `named_layers`."""
    named = named_layers(model)
    if not model.built:
        raise ValueError(f"`model` (='{model.name}') is not built; call it once on an image")
    for path, layer in leaves(named).items():
        if is_a(layer, "2D") and getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f"`model` (='{model.name}') has channels first in layer '{path}'; build it with "
                'data_format="channels_last", and with axis=-1 in BatchNormalization, and give it '
                "the same weights by `set_weights`"
            )
    return named


def check_images(model, images, *, fewest=0, name="images"):
    """(N, H, W, C) float32 images for a model, of (N, H, W, C), (H, W, C), or gray (N, H, W).

    Raises:
        ValueError: If rank, size, channels or values do not fit the model, or there are fewer
            images than `fewest`, 0 or 1.
    """
    kind = type(images).__name__
    try:
        images = np.asarray(images)
    except ValueError:
        raise ValueError(
            f"`{name}` (of different shapes) must all have one size; "
            "`load_image(path, image_size=...)` resizes"
        ) from None
    if images.dtype.kind not in "fiub" and images.dtype.name != "bfloat16":
        raise ValueError(
            f"`{name}` (a {kind} of dtype {images.dtype}) must be an array of numbers, (N, H, W, C)"
        )
    with np.errstate(over="ignore"):  # infinity is reported below
        images = images.astype(np.float32, copy=False)
    given, expected = images.shape, input_shape(model)
    if images.ndim == 3:
        is_stack = given[2] != 1 and expected[3] == 1
        images = images[..., None] if is_stack else images[None]  # gray images, or one image
    if images.ndim != 4:
        raise ValueError(f"`{name}` (of shape {given}) must be (N, H, W, C) or (H, W, C)")
    if 0 in images.shape[1:]:
        raise ValueError(f"`{name}` (of shape {images.shape}) must have pixels")
    if len(images) < fewest:
        raise ValueError(f"`{name}` (of shape {images.shape}) must hold one image or more")
    if not all_finite(images):
        raise ValueError(f"`{name}` holds NaN or infinity; every value must be a finite float32")
    sizes = zip(expected[1:], images.shape[1:], strict=True)
    if any(size not in (None, own) for size, own in sizes):
        wanted = ", ".join(
            n if s is None else str(s) for n, s in zip("NHWC", expected, strict=True)
        )
        raise ValueError(f"`{name}` (of shape {given}) must be ({wanted}) for model '{model.name}'")
    return images


def all_finite(array):
    """Whether every number of an array is finite.

    The sum of the squares tells faster, unless it overflows.
    """
    numbers = array.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.dot(numbers, numbers)
    return bool(np.isfinite(squares) or np.isfinite(numbers).all())


def input_shape(model):
    """(None, H, W, C) that a model takes; None where a size is free or unknown."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError):
        return (None,) * 4
    if isinstance(shape, (list, dict)):
        raise ValueError(f"`model` (='{model.name}') has several inputs; it must have one image")
    if len(shape) != 4:
        raise ValueError(f"`model` (='{model.name}') takes shape {shape}, not images (N, H, W, C)")
    return shape


def image_shape(model, image_size=None):
    """(height, width, channels) of an image for a model.

    `image_size` is a side in pixels, or (height, width). None takes the model's own size, or the
    size that a subclassed model was first called with, or 96.
    """
    own = input_shape(model)
    built = (getattr(model, "get_build_config", dict)() or {}).get("input_shape")
    called_with = built if np.shape(built) == (4,) else (None,) * 4
    channels = own[3] or called_with[3] or 3
    if image_size is None:
        sides = (own[axis] or called_with[axis] or DEFAULT_IMAGE_SIZE for axis in (1, 2))
        return *sides, channels
    size = tuple(image_size) if np.shape(image_size) == (2,) else (image_size, image_size)
    for side in size:
        check_integer("image_size", side, 1)
    if any(fixed not in (None, side) for fixed, side in zip(own[1:3], size, strict=True)):
        raise ValueError(
            f"`image_size` (={image_size}) must be {own[1]}x{own[2]} for model '{model.name}', "
            "which takes no other"
        )
    return *size, channels


def takes_integers(model):
    """Whether Keras rounds the images before the model gets them."""
    return any("int" in str(one.dtype) for one in getattr(model, "inputs", None) or ())


def computes_in_float16(model):
    """Whether a layer of the model computes in float16."""
    dtypes = (getattr(layer, "compute_dtype", None) for layer in leaf_layers(model).values())
    return "float16" in dtypes
