"""(model) -> what each layer puts out and takes in: the architecture, in numbers."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers

PICTURE = "picture"  # the name of what goes in


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """One layer of an architecture.

    Attributes:
        name: The layer's path, as `named_layers` gives it; of one with several paths the first.
        kind: The name of its class, such as "Conv2D"; "Input" of the picture.
        shape: What it puts out for one picture: (h, w, C), or (units,) where there are no places.
        inputs: Names of the layers that it takes in, in any of its calls, each once.
        parameters: How many numbers its own weights are; none of those of a layer before it.
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
        image_size: Side length of the picture in pixels, or (height, width); None takes the model's
            own, or 96.

    Returns:
        list[LayerShape]: the picture, then every layer that is called in inference mode and puts
        out one tensor; what only holds other layers, and no weights of its own, is opened.

    Raises:
        ValueError: If the model does not take pictures of this size.
    """
    image = np.zeros(layers.picture_shape(model, image_size), np.float32)
    image = layers.check_images(model, image)
    called = _counted(model)
    found, seen = [LayerShape(PICTURE, "Input", image.shape[1:], (), 0)], set()

    @tf.function(autograph=False, input_signature=[layers.image_spec(image)])
    def call(batch):
        _, outputs = layers.call_and_record(model, batch, called)
        makers = {batch.name: PICTURE}
        for path, tensors in outputs.items():
            for tensor in tensors:
                makers.setdefault(tensor.name, path)
        for path, tensors in outputs.items():
            inputs = dict.fromkeys(n for y in tensors for n in _inputs(path, y, makers))
            new = {id(w): w for w in layers.own_weights(called[path]) if id(w) not in seen}
            seen.update(new)
            parameters = sum(math.prod(weight.shape) for weight in new.values())
            kind, shape = type(called[path]).__name__, tuple(tensors[-1].shape[1:])
            found.append(LayerShape(path, kind, shape, tuple(inputs), parameters))
        return batch

    call.get_concrete_function()
    return found


def _counted(model):
    """{path: layer}, each layer once: leaves, and what has weights of its own besides them."""
    found, leaves = {}, layers.leaf_layers(model)
    for path, layer in [*layers.named_layers(model).items(), (model.name, model)]:
        if (path in leaves or layers.own_weights(layer)) and layer not in found.values():
            found.setdefault(path, layer)
    return found


def _inputs(path, tensor, makers):
    """The layers that made what a layer's output is computed from, found back along the graph."""
    if makers[tensor.name] != path:  # it passes on what it takes in
        return (makers[tensor.name],)
    found, seen, ahead = [], set(), list(tensor.op.inputs)
    while ahead:
        before = ahead.pop(0)
        if before.name in makers:
            found.append(makers[before.name])
        elif before.name not in seen:
            ahead.extend(before.op.inputs)
        seen.add(before.name)
    return tuple(dict.fromkeys(found))
