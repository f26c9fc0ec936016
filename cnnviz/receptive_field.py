"""(model, layer) -> (h, w, 4) boxes: the pixels that each position of a feature map depends on."""

import functools

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers, reach


def receptive_field(
    model: keras.Model, layer_name: str, *, image_size: int | tuple[int, int] | None = None
) -> np.ndarray:
    """Find the part of the picture that each position of a feature map depends on.

    Nothing is measured: the boxes are read off the operations that TensorFlow traces, so that any
    kind of model will do. They are exact and end at the picture's edges. The one number that papers
    give for a layer is the side of a box that no edge cuts off: ask for an `image_size` that is
    large enough.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        layer_name: A layer that outputs feature maps (N, h, w, C); any name `grad_cam` takes.
        image_size: Side length of the picture in pixels, or (height, width); None takes the
            model's own, or 96.

    Returns:
        (h, w, 4) int32 array: top, left, bottom and right of the smallest box that holds all
        pixels on which any channel depends at that position, `image[top:bottom, left:right]`; four
        zeros where there are none. An operation that is not known here, such as one of a person's
        own making, counts as looking at all that is put into it.

    Raises:
        ValueError: If the layer is unknown, puts out no feature maps or does not depend on the
            picture, or if the model does not take pictures of this size.
    """
    image = np.zeros(layers.picture_shape(model, image_size), np.float32)
    return boxes_in(model, layers.check_images(model, image), layer_name)


def boxes_in(model, images, layer_name):
    """As `receptive_field`, for pictures (N, H, W, C) at hand that were checked."""
    path, layer = layers.find_layer(model, layer_name)
    make = functools.partial(_boxes, shape=(1, *images.shape[1:]), path=path, layer=layer)
    return layers.traced(model, ("receptive field", path, images.shape[1:]), make).copy()


def _boxes(get_model, shape, path, layer):
    traced = _trace(get_model, shape, path, layer)
    image, feature_map = traced.inputs[0], traced.outputs[0]
    shape = feature_map.shape
    if shape.rank != 4 or not shape.is_fully_defined():
        raise ValueError(
            f"`layer_name` (='{path}') outputs shape {(None, *shape[1:])}; a receptive field needs "
            "feature maps (N, h, w, filters)"
        )
    sides = reach.follow(image, feature_map)
    if sides is None:
        raise ValueError(f"`layer_name` (='{path}') does not depend on the picture")
    return reach.boxes([np.broadcast_to(side, shape).min((0, 3)) for side in sides])


def _trace(get_model, shape, path, layer):
    """-> The concrete function from one picture of this shape to the layer's output."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.float32)])
    def output(image):
        _, outputs = layers.call_and_record(get_model(), image, {path: layer}, in_line=True)
        return layers.required_output(outputs, path)

    return output.get_concrete_function()
