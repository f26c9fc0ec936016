"""(a model) -> the size of its pictures, and whether it has channels first.

Pictures and feature maps are (N, H, W, C) everywhere but inside a model whose layers have channels
first: what such a model receives is turned before, and what its layers put out is turned back.
"""

from cnnviz.layers.names import leaf_layers

CHANNELS = (1, 3, 4)  # that pictures have: by these the layout of pictures is told
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # turn (N, C, H, W) to channels last, and back


def input_shape(model):
    """(None, H, W, C) with None for what is free; None where a subclassed model does not say."""
    shape = own_input_shape(model)
    return tuple(shape[i] for i in LAST) if shape and takes_channels_first(model) else shape


def own_input_shape(model):
    """The same in the model's own layout."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError):
        return None
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
    # A subclassed model knows at least what it was built with.
    built = (model.get_build_config() or {}).get("input_shape")
    shape = own_input_shape(model) or built or (None,) * 4
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
    is_for_pictures = any("2D" in kind.__name__ for kind in type(layer).__mro__)
    return getattr(layer, "data_format", None) if is_for_pictures else None
