"""List the layers of a model with their shapes and parameters: its architecture."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np

from cnnviz.layers.inputs import image_shape, input_shape, with_zeros
from cnnviz.layers.names import leaves, own_weights
from cnnviz.layers.run import traced


@dataclasses.dataclass(frozen=True, eq=False)
class LayerShape:
    """One layer of an architecture.

    Attributes:
        name: The layer's path, as `named_layers` gives it; the first, if it has several.
        kind: The name of its class, such as "Conv2D"; "Input" for the image.
        shape: What it outputs for one image: (h, w, C), or (units,).
        parameters: How many numbers its weights hold.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def layer_shapes(
    model: keras.Model, *, image_size: int | tuple[int, int] | None = None
) -> list[LayerShape]:
    """List the layers of a model with their shapes, in the order in which the model calls them.

    First comes the image. Layers that hold others are left out.

    Args:
        model: keras.Model of any kind; it is left as it was.
        image_size: Side of the image in pixels, or (height, width); None takes the model's own. A
            size that the model does not take is a ValueError.

    Example:
        >>> cnnviz.layers.layer_shapes(cnnviz.load_pretrained(), image_size=64)[0].shape
        (64, 64, 3)
    """
    shape = input_shape(model)
    sizes = (
        image_shape(model, image_size) if len(shape) == 4 else [size or 16 for size in shape[1:]]
    )
    inputs = with_zeros(model, np.zeros((1, *sizes), np.float32))
    return list(traced(model, inputs, _shapes, "shapes", _each_once, []).facts)


def _each_once(named):
    """The layers that hold no others, each under its first path."""
    paths = {layer: path for path, layer in reversed(leaves(named).items())}
    return {path: layer for layer, path in paths.items()}


def _shapes(call):
    found = [LayerShape("image", "Input", tuple(call.images.shape[1:]), 0)]
    for path, tensors in call.recorded.items():
        layer, shape = call.named[path], tuple(tensors[-1].shape[1:])
        parameters = sum(math.prod(weight.shape) for weight in own_weights(layer))
        found.append(LayerShape(path, type(layer).__name__, shape, parameters))
    return call.images, found
