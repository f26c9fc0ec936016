"""(a model) -> the size of its pictures, and whether it has channels first.

Pictures and feature maps are (N, H, W, C) everywhere but inside a model whose layers have channels
first: what such a model receives is turned before, and what its layers put out is turned back.
"""

import numpy as np

from cnnviz.checks import check_integer
from cnnviz.layers.names import is_a, leaf_layers

DEFAULT_IMAGE_SIZE = 96  # pixels, of pictures for a model that takes any size
CHANNELS = (1, 3, 4)  # that pictures have: by these the layout of pictures is told
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # turn (N, C, H, W) to channels last, and back
NOT_SAID = (None,) * 4  # the shape of pictures of which nothing is known


def input_shape(model):
    """(None, H, W, C), with None for what is free, too, or what a subclassed model does not say."""
    return _turned(model, own_input_shape(model))


def _turned(model, shape):
    """A shape in the model's own layout -> the same as (N, H, W, C)."""
    return tuple(shape[i] for i in LAST) if takes_channels_first(model) else shape


def _built_shape(model):
    """What a subclassed model was first called with, in its own layout; four None of others."""
    built = (getattr(model, "get_build_config", dict)() or {}).get("input_shape")
    return built if own_input_shape(model) == NOT_SAID and np.shape(built) == (4,) else NOT_SAID


def picture_shape(model, image_size=None):
    """The shape of a picture for a model.

    Args:
        model: keras.Model.
        image_size: Side length in pixels, or (height, width); None takes the model's own, or that
            of the pictures that a subclassed model was first called with, or 96.

    Returns:
        (height, width, channels).

    Raises:
        ValueError: If `image_size` is no size in pixels, or another than the model's own.
    """
    _, height, width, channels = input_shape(model)
    called_with = _turned(model, _built_shape(model))
    channels = channels or called_with[3] or 3
    if image_size is None:
        sides = (height, called_with[1]), (width, called_with[2])
        return *(own or called or DEFAULT_IMAGE_SIZE for own, called in sides), channels
    size = tuple(image_size) if np.shape(image_size) == (2,) else (image_size, image_size)
    for side in size:
        check_integer("image_size", side, 1)
    if any(own not in (None, side) for own, side in zip((height, width), size, strict=True)):
        raise ValueError(
            f"`image_size` (={image_size}) must be {height}x{width} for model '{model.name}', "
            "which takes no other"
        )
    return *size, channels


def takes_integers(model):
    """Whether Keras rounds the pictures before the model gets them."""
    return any("int" in str(one.dtype) for one in getattr(model, "inputs", None) or ())


def own_input_shape(model):
    """The same in the model's own layout."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError):
        return NOT_SAID
    if isinstance(shape, (list, dict)):
        raise ValueError(f"`model` (='{model.name}') has several inputs; it must have one picture")
    if len(shape) != 4:
        raise ValueError(
            f"`model` (='{model.name}') takes shape {shape}, not pictures (N, H, W, C)"
        )
    return shape


def takes_channels_first(model):
    """Whether it takes pictures (N, C, H, W); it may also turn them itself."""
    if _layouts(model) != {"channels_first"}:
        return False
    shapes = own_input_shape(model), _built_shape(model)
    shape = [own or built for own, built in zip(*shapes, strict=True)]
    return not (shape[3] in CHANNELS and shape[1] not in CHANNELS)


def with_channels_first(layers, model):
    """Of some layers of a model, the paths of those that put out (N, C, h, w).

    A layer for pictures says so itself; one that says nothing, such as an activation, does as all
    the others of its model do, if they agree.
    """
    first = {"channels_first"}
    turned = {*first, None} if _layouts(model) == first else first
    return {path for path, layer in layers.items() if _data_format(layer) in turned}


def _layouts(model):
    """The layouts that the layers for pictures of a model work in."""
    return {_data_format(layer) for layer in leaf_layers(model).values()} - {None}


def _data_format(layer):
    """The layout that a layer for pictures works in; None of other layers, which may name one."""
    return getattr(layer, "data_format", None) if is_a(layer, "2D") else None
