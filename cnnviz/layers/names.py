"""Find the layers of any Keras 3 model by name, those inside nested models too."""

import difflib

import keras
import numpy as np

from cnnviz.keras_internals import own_variables, sublayers

IN_LOOPS = (keras.layers.RNN, keras.layers.TimeDistributed)  # they call their layers in a loop


def named_layers(model: keras.Model) -> dict[str, keras.Layer | keras.Operation]:
    """List every layer of a model by its path, such as "backbone/block_13_expand".

    A nested model, or a composite layer, comes before its own layers.

    Raises:
        ValueError: If `model` is not a keras.Model.

    Example:
        >>> import keras
        >>> from cnnviz.layers import named_layers
        >>> inner = keras.Sequential([keras.layers.Conv2D(2, 3, name="c")], name="backbone")
        >>> list(named_layers(keras.Sequential([inner, keras.layers.Flatten(name="flat")])))
        ['backbone', 'backbone/c', 'flat']
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` (of type {type(model).__name__}) must be a keras.Model")
    found = {}

    def visit(parent, prefix, above):
        for layer in _children(parent):
            if layer in above:  # a layer that holds its parent
                continue
            path, same_name = prefix + layer.name, 0
            while path in found:  # only subclassed models can use a name twice
                same_name += 1
                path = f"{prefix}{layer.name}_{same_name}"
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
    if isinstance(parent, keras.Layer) and not isinstance(parent, IN_LOOPS):
        inside = sublayers(parent)
        # An activation alone, as that of a convolution, is part of what its layer outputs.
        return [] if inside == [getattr(parent, "activation", None)] else inside
    return []


def convolution_layers(model: keras.Model) -> list[str]:
    """Paths of the convolution layers of a model, in the model's order.

    Example:
        >>> from cnnviz.layers import convolution_layers
        >>> convolution_layers(cnnviz.load_pretrained())[0]
        'block1_conv1'
    """
    return [path for path, layer in leaves(named_layers(model)).items() if is_a(layer, "Conv")]


def is_a(layer, word):
    """Whether the name of its class, or of one that it descends from, holds a word."""
    if isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    return any(word in kind.__name__ for kind in type(layer).__mro__)


def leaves(named):
    """Of the layers that `named_layers` returns, those that hold no other layers."""
    parents = {path.rpartition("/")[0] for path in named}
    return {path: layer for path, layer in named.items() if path not in parents}


def own_weights(layer):
    """The weights of a layer, or of an operation, without those of the layers inside it."""
    if _children(layer):
        return own_variables(layer)
    return list(getattr(layer, "weights", ()))


def has_kernel(layer):
    """Whether a layer itself has weights of two or more axes."""
    return any(len(weight.shape) >= 2 for weight in own_weights(layer))


def weights_by_owner(model):
    """[(path, weights)] of all that hold weights themselves, the model last, under its name."""
    owners = [*named_layers(model).items(), (model.name, model)]
    return [(path, weights) for path, owner in owners if (weights := own_weights(owner))]


def as_names(names):
    """A tuple of one name or of a sequence of names; None stays None."""
    if names is None:
        return None
    return (names,) if isinstance(names, str) or not np.iterable(names) else tuple(names)


def find_layers(named, names):
    """{path: layer} of one name or a sequence, as `find_layer` finds them for `layer_names`."""
    return dict(find_layer(named, name, "layer_names") for name in as_names(names))


def find_layer(named, name, argument="layer_name"):
    """(path, layer) by the path or, if that is unambiguous, by the bare name.

    `named` is a keras.Model, or what `named_layers` returns; `argument` is for the ValueError,
    which offers the nearest names.
    """
    named, name = named if isinstance(named, dict) else named_layers(named), str(name)
    if name in named:
        return name, named[name]
    paths = [path for path in named if path.endswith(f"/{name}")]
    if len(paths) == 1:
        return paths[0], named[paths[0]]
    if paths:
        raise ValueError(f"`{argument}` (='{name}') is ambiguous: choose one of {paths}")
    nearest = difflib.get_close_matches(name, named, n=3, cutoff=0.3) or list(named)[-3:]
    raise ValueError(
        f"`{argument}` (={name!r}) is not a layer of this model; the nearest are "
        f"{', '.join(map(repr, nearest))}"
    )
