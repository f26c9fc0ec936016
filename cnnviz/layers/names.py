"""(any Keras 3 model) -> its layers by name, those inside nested models too."""

import difflib
import functools

import keras
import numpy as np


def named_layers(model: keras.Model) -> dict[str, keras.Layer | keras.Operation]:
    """List every layer of a model, those inside nested models and composite layers too.

    Args:
        model: keras.Model of any kind.

    Returns:
        dict[str, keras.layers.Layer or keras.Operation]: by path, such as
        "backbone/block_13_expand"; a nested model comes before its own layers.

    Raises:
        ValueError: If `model` is no keras.Model.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` (of type {type(model).__name__}) must be a keras.Model")
    found = {}

    def visit(parent, prefix, above):
        for layer in _children(parent):
            if layer in above:  # a layer that holds its parent
                continue
            path = prefix + layer.name
            while path in found:  # only subclassed models can use a name twice
                path += "'"
            found[path] = layer
            visit(layer, path + "/", [*above, layer])

    visit(model, "", [model])
    return found


def _children(parent):
    """The layers and operations directly inside a model or a composite layer."""
    if isinstance(parent, keras.Sequential):
        return parent.layers
    if isinstance(parent, keras.Model) and hasattr(parent, "operations"):  # functional
        return [op for op in parent.operations if not isinstance(op, keras.layers.InputLayer)]
    if isinstance(parent, keras.Layer) and not isinstance(parent, keras.layers.RNN):
        inside = list(parent._flatten_layers(include_self=False, recursive=False))
        # An activation alone, as that of a convolution, is part of what its layer puts out.
        return [] if inside == [getattr(parent, "activation", None)] else inside
    return []  # the cells of a recurrent layer are called in a loop of TensorFlow's


def convolution_layers(model: keras.Model, *, pooling: bool = False) -> list[str]:
    """Names of the convolution layers of a model, in the model's order.

    Args:
        model: keras.Model of any kind.
        pooling: Whether pooling layers that leave a feature map belong to them.

    Returns:
        list[str]: paths, as `named_layers` gives them.
    """
    kinds = ("Conv", "Pool") if pooling else ("Conv",)
    return [
        path
        for path, layer in leaf_layers(model).items()
        if any(map(functools.partial(is_a, layer), kinds))
        and (not is_a(layer, "Global") or getattr(layer, "keepdims", False))
    ]


def is_a(layer, word):
    """Whether the name of its class, or of one that it descends from, holds a word."""
    return any(word in kind.__name__ for kind in type(layer).__mro__)


def leaf_layers(model):
    """As `named_layers`, without those that only hold other layers."""
    return {path: layer for path, layer in named_layers(model).items() if not _children(layer)}


def own_weights(layer):
    """The weights of a layer, or of an operation, without those of the layers inside it."""
    if _children(layer):
        return layer._trainable_variables + layer._non_trainable_variables
    return list(getattr(layer, "weights", ()))


def weights_by_owner(model):
    """[(path, weights)] of all that hold weights themselves, the model last, under its name."""
    owners = [*named_layers(model).items(), (model.name, model)]
    return [(path, weights) for path, owner in owners if (weights := own_weights(owner))]


def find_layers(model, names):
    """{path: layer} of one name or a sequence, as `find_layer` finds them for `layer_names`."""
    names = [names] if isinstance(names, str) or not np.iterable(names) else names
    return dict(find_layer(model, name, "layer_names") for name in names)


def find_layer(model, name, argument="layer_name"):
    """Find one layer by its path or, while that is unambiguous, by its bare name.

    Args:
        model: keras.Model of any kind.
        name: "backbone/block_13_expand" or "block_13_expand".
        argument: Of the public function, for the error.

    Returns:
        (path, layer).

    Raises:
        ValueError: If no layer or more than one answers to `name`; the nearest names are offered.
    """
    layers = named_layers(model)
    name = str(name)
    if name in layers:
        return name, layers[name]
    paths = [path for path in layers if path.endswith(f"/{name}")]
    if len(paths) == 1:
        return paths[0], layers[paths[0]]
    if paths:
        raise ValueError(f"`{argument}` (='{name}') is ambiguous in model '{model.name}': {paths}")
    nearest = difflib.get_close_matches(name, layers, n=3, cutoff=0.3) or list(layers)[-3:]
    raise ValueError(
        f"`{argument}` (={name!r}) is no layer of model '{model.name}'; the nearest are "
        + ", ".join(f"'{path}'" for path in nearest)
    )
