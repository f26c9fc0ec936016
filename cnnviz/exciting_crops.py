"""(model, images, layer, filters) -> the pieces of real pictures that excite each filter most."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.checks import check_indices, check_integer
from cnnviz.receptive_field import boxes_in


@dataclasses.dataclass(frozen=True)
class ExcitingCrops:
    """Where real pictures excite the filters of one layer, F of them.

    Attributes:
        crops: (F, count, h, w, C) float32, of each filter's strongest pictures the part that the
            feature map depends on at the strongest position, in the model's input range. They are
            as large as the largest such part in the layer; what lies outside the picture has the
            value half-way between the lowest and the highest of all pictures.
        activations: (F, count) float32, the filter's activation at that position, highest first.
        image_index: (F, count) int, the picture, a different one for each crop.
        positions: (F, count, 2) int, row and column in the feature map.
        mean_activations: (F,) float32, the highest mean over the feature map that any picture
            reaches; with it `FilterImages.activations`, of pictures of this size, can be compared.
        filters: (F,) int, the filters' indices.
        layer_name: The layer.
    """

    crops: np.ndarray
    activations: np.ndarray
    image_index: np.ndarray
    positions: np.ndarray
    mean_activations: np.ndarray
    filters: np.ndarray
    layer_name: str


def exciting_crops(
    model: keras.Model,
    images: ArrayLike,
    layer_name: str,
    filters: int | Sequence[int] | np.ndarray | None = None,
    *,
    count: int = 4,
) -> ExcitingCrops:
    """Find what in real pictures excites filters most (Zeiler & Fergus 2014).

    Gradient ascent shows what a filter could react to; this shows what it does react to. Each
    picture gives at most one crop to a filter, that of its strongest position.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        images: (N, H, W, C) in the model's input range, `count` of them or more; the more there
            are, the clearer what the crops have in common.
        layer_name: A layer that outputs feature maps (N, h, w, F); any name `grad_cam` takes.
        filters: The filters' indices, an integer or a sequence; None takes all of the layer, whose
            crops together may take much memory in a layer that sees the whole picture.
        count: Crops for each filter.

    Returns:
        ExcitingCrops

    Raises:
        ValueError: If the images, the layer, a filter or `count` is not as said here, or NaN comes
            out.

    Warns:
        UserWarning: If the range of the images cannot be the one that the model was trained on.
    """
    images = layers.check_images(model, images)
    check_integer("count", count, 1)
    if len(images) < count:
        raise ValueError(
            f"`images` (={len(images)} of them) must be at least `count` (={count}): each gives a "
            "filter one crop"
        )
    path, layer = layers.find_layer(model, layer_name)
    boxes = boxes_in(model, images, layer_name)
    function = _traced(model, images, path, layer)
    layers.check_range(model, images)
    strongest, places, means = layers.in_batches(function, images)
    layers.check_finite(model, means)
    filters = check_indices("filters", filters, strongest.shape[1], f"layer '{path}'")
    best = np.argsort(-strongest[:, filters], axis=0, kind="stable")[:count].T
    rows, columns = np.divmod(places[best, filters[:, None]], boxes.shape[1])
    return ExcitingCrops(
        crops=_cut(images, best, boxes[rows, columns], _largest(boxes)),
        activations=strongest[best, filters[:, None]],
        image_index=best,
        positions=np.stack([rows, columns], axis=-1),
        mean_activations=means.max(axis=0)[filters],
        filters=filters,
        layer_name=path,
    )


def _traced(model, images, path, layer):
    """-> function from pictures to the maximum, its place and the mean of each feature map."""

    def make(get_model):
        @tf.function(autograph=False, input_signature=[layers.image_spec(images)])
        def strongest(batch):
            _, outputs = layers.call_and_record(get_model(), batch, {path: layer})
            maps = tf.cast(layers.required_output(outputs, path), tf.float32)
            flat = tf.reshape(maps, (tf.shape(maps)[0], -1, maps.shape[3]))
            maximum, place = tf.reduce_max(flat, 1), tf.argmax(flat, 1, tf.int32)
            return maximum, place, tf.reduce_mean(flat, 1)

        return strongest.get_concrete_function()

    return layers.traced(model, ("exciting crops", path, images.shape[1:]), make)


def _largest(boxes):
    """(h, w, 4) boxes -> (height, width) of the largest."""
    return np.maximum((boxes[..., 2:] - boxes[..., :2]).max((0, 1)), 1)


def _cut(images, image_index, boxes, size):
    """Cut (F, count) boxes out of pictures; those that an edge cut off are filled up beyond it."""
    grey = (images.min() + images.max()) / 2
    crops = np.full((*image_index.shape, *size, images.shape[3]), grey, np.float32)
    for place in np.ndindex(image_index.shape):
        top, left, bottom, right = box = boxes[place]
        extent = box[2:] - box[:2]
        y, x = np.where(box[:2] == 0, size - extent, 0)  # the upper or left edge cut it off
        piece = images[image_index[place], top:bottom, left:right]
        crops[place][y : y + extent[0], x : x + extent[1]] = piece
    return crops
