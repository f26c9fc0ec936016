"""List the layers of a model with their shapes, inputs and parameters: its architecture."""

from __future__ import annotations

import dataclasses
import math

import keras
import tensorflow as tf

from cnnviz.layers.inputs import image_shape
from cnnviz.layers.names import leaves, own_weights
from cnnviz.layers.run import traced

IMAGE = "image"  # the name of what goes in


@dataclasses.dataclass(frozen=True, eq=False)
class LayerShape:
    """One layer of an architecture.

    Attributes:
        name: The layer's path, as `named_layers` gives it; the first, if it has several.
        kind: The name of its class, such as "Conv2D"; "Input" for the image.
        shape: What it outputs for one image: (h, w, C), or (units,).
        inputs: Names of the layers whose outputs it takes in, in any of its calls, each once.
        parameters: How many numbers its own weights hold that no layer before it shares.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    parameters: int


def layer_shapes(
    model: keras.Model, *, image_size: int | tuple[int, int] | None = None
) -> list[LayerShape]:
    """List the layers of a model with their shapes, in the order in which the model calls them.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        image_size: Side length of the image in pixels, or (height, width); None takes the model's
            own, or 96.

    Returns:
        list[LayerShape]: the image, then every layer that is called in inference mode and outputs
        one tensor. Layers that only hold others are left out.

    Raises:
        ValueError: If the model does not take images of this size.

    Example:
        >>> from cnnviz.layers import layer_shapes
        >>> layer_shapes(cnnviz.load_pretrained(), image_size=64)[0].shape
        (64, 64, 3)
    """
    shape = None, *image_shape(model, image_size)
    return list(traced(model, shape, _shapes, "shapes", _computing, []).facts)


def _computing(named):
    """Of all layers those that compute something themselves, each once."""
    found, inner = {}, leaves(named)
    for path, layer in named.items():
        if (path in inner or own_weights(layer)) and layer not in found.values():
            found[path] = layer
    return found


def _shapes(call):
    outputs = dict(call.recorded)
    if own_weights(call.model):
        outputs[call.model.name] = tf.nest.flatten(call.output)
    makers = {y.name: path for path in reversed(outputs) for y in outputs[path]}
    makers[call.images.name] = IMAGE
    found, seen = [LayerShape(IMAGE, "Input", tuple(call.images.shape[1:]), (), 0)], set()
    for path, tensors in outputs.items():
        layer = call.named.get(path, call.model)
        inputs = dict.fromkeys(name for y in tensors for name in _inputs(path, y, makers))
        weights = {id(weight): math.prod(weight.shape) for weight in own_weights(layer)}
        new = sum(number for key, number in weights.items() if key not in seen)
        seen.update(weights)
        shape = tuple(tensors[-1].shape[1:])
        found.append(LayerShape(path, type(layer).__name__, shape, tuple(inputs), new))
    return call.images, found


def _inputs(path, tensor, makers):
    """The layers that made what a layer's output is computed from, found back along the graph."""
    found, seen, ahead = [], {tensor.name}, [tensor]
    while ahead:
        before = ahead.pop(0)
        maker = makers.get(before.name, path)
        if maker != path or (before is not tensor and before.name in makers):
            found.append(maker)  # the layer itself, if it is called on its own output
        else:
            ahead += [y for y in before.op.inputs if y.name not in seen]
            seen.update(y.name for y in before.op.inputs)
    return found
