"""Find the patches of real images that excite each filter most."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.checks import check_indices, check_integer
from cnnviz.results import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TopPatches(Result):
    """Where real images excite F filters of one layer most.

    Attributes:
        patches: (F, n, h, w, C) float32, for each filter the patch of its n strongest images around
            the position with the highest activation, all of one size, in the model's input range.
        activations: (F, n) float32, the filter's activation at that position, highest first.
        image_index: (F, n) int, the image, a different one for each patch of a filter.
        positions: (F, n, 2) int, row and column in the feature map.
        boxes: (F, n, 4) int, top, left, bottom and right of the pixels where the gradient of this
            activation is not zero; four zeros if there are none.
        mean_activations: (F,) float32, the highest mean over the feature map that any image
            reaches, to compare with `FilterImages.activations`.
        filters: (F,) int, the filters' indices.
        layer_name: The layer.
    """

    patches: np.ndarray
    activations: np.ndarray
    image_index: np.ndarray
    positions: np.ndarray
    boxes: np.ndarray
    mean_activations: np.ndarray
    filters: np.ndarray
    layer_name: str

    _html = ("plot",)
    _draw = "draw_patches"

    def _columns(self):
        columns = {"filter": np.repeat(self.filters, self.activations.shape[1])}
        columns |= {"image": self.image_index.ravel(), "activation": self.activations.ravel()}
        row, column = self.positions.reshape(-1, 2).T
        return columns | {"row": row, "column": column}


def top_patches(
    model: keras.Model,
    images: layers.ImageData,
    layer_name: str,
    filters: int | Sequence[int] | np.ndarray | None = None,
    *,
    n_patches: int = 4,
    input_name: str | int | None = None,
) -> TopPatches:
    """Find the patches of real images that excite filters most (Zeiler & Fergus 2014).

    Gradient ascent shows what a filter could react to; this shows what it does react to. Each image
    gives at most one patch to a filter: the one at its strongest position
    (https://arxiv.org/abs/1311.2901).

    Args:
        model: keras.Model of any kind that takes images; it is left as it was.
        images: (N, H, W, C) in the model's input range, or what else `grad_cam` takes; `n_patches`
            of them or more.
        layer_name: A layer that outputs feature maps (N, h, w, F); any name `grad_cam` takes. A
            convolution without an activation is looked at after the activation that follows it.
        filters: The filters' indices, an integer or a sequence; None takes all of the layer.
        n_patches: Patches for each filter.
        input_name: Of several inputs, the one to cut from; see `grad_cam`.

    Raises:
        ValueError: If an argument is out of range, the layer does not depend on the image, or NaN
            comes out.

    Warns:
        UserWarning: If the value range is hardly that of the training, or the layer is used twice.

    Example:
        >>> images = cnnviz.drawn_pets(8, seed=0).images
        >>> found = cnnviz.top_patches(cnnviz.load_pretrained(), images, "block1_conv1", [0, 1])
        >>> found.activations.shape
        (2, 4)
    """
    inputs = layers.all_images(model, images)
    images = layers.only_image_of(model, inputs, input_name)
    check_integer("n_patches", n_patches, 1)
    if len(images) < n_patches:
        raise ValueError(
            f"`images` (={len(images)} of them) must be at least `n_patches` (={n_patches}): each "
            "gives a filter one patch"
        )
    path, _ = layers.find_layer(model, layer_name)
    options = {"record": layers.one_layer(path), "input_name": input_name}
    with layers.warn_once():
        filters, width, found = _strongest(model, inputs, path, filters, options)
        strongest, positions, means = found
        best = np.argsort(-strongest[:, filters], axis=0, kind="stable")[:n_patches].T
        positions, every = positions[best, filters[:, None]], np.repeat(filters, n_patches)
        boxes = _boxes(model, layers.take(inputs, best.ravel()), path, every, positions, options)
    boxes = boxes.reshape(*best.shape, 4)
    return TopPatches(
        patches=_cut(images, best, boxes),
        activations=strongest[best, filters[:, None]],
        image_index=best,
        positions=np.stack(np.divmod(positions, width), axis=-1),
        boxes=boxes,
        mean_activations=means.max(axis=0)[filters],
        filters=filters,
        layer_name=path,
    )


def _strongest(model, images, path, filters, options):
    """-> (filters, width of the map, (maximum, its flat position, mean) of each map: (N, F))."""

    def compute(call):
        maps = tf.cast(layers.filter_map(call, path, "a patch"), tf.float32)
        flat = tf.reshape(maps, (tf.shape(maps)[0], -1, maps.shape[3]))
        found = tf.reduce_max(flat, 1), tf.argmax(flat, 1, tf.int32), tf.reduce_mean(flat, 1)
        return found, tuple(maps.shape[2:])

    options = options | {"key": ("top patches", path)}
    found, (width, n_filters) = layers.run(model, images, compute, **options)
    return check_indices("filters", filters, n_filters, f"layer '{path}'"), width, found


def _boxes(model, images, path, filters, positions, options):
    """(M, 4) boxes of the pixels on which one position of one filter depends, for M images."""

    def compute(call, filters, positions):
        maps = tf.cast(layers.filter_map(call, path, "a patch"), tf.float32)
        height, width, n_filters = maps.shape[1:]
        one_hot = tf.one_hot(positions * n_filters + filters, height * width * n_filters)
        one_hot = tf.reshape(one_hot, tf.shape(maps))
        gradient = layers.gradients(maps, call.images, one_hot)
        if gradient is None:
            raise ValueError(f"`layer_name` (='{path}') does not depend on the image")
        return [tf.reduce_any(gradient != 0, axes) for axes in ((2, 3), (1, 3))], None

    arrays = [filters.astype(np.int32), positions.ravel().astype(np.int32)]
    options = options | {"key": ("patch boxes", path), "per_image": arrays}
    (rows, columns), _ = layers.run(model, images, compute, **options)
    starts = [side.argmax(1) for side in (rows, columns)]
    ends = [side.shape[1] - side[:, ::-1].argmax(1) for side in (rows, columns)]
    return np.stack([*starts, *ends], 1) * rows.any(1)[:, None]


def _cut(images, image_index, boxes):
    """Cut patches of one size around (F, n, 4) boxes, moved to lie within the image."""
    size = np.maximum((boxes[..., 2:] - boxes[..., :2]).max((0, 1)), 1)
    corners = (boxes[..., :2] + boxes[..., 2:] - size) // 2
    corners = np.clip(corners, 0, np.array(images.shape[1:3]) - size)
    patches = np.empty((*image_index.shape, *size, images.shape[3]), np.float32)
    for index in np.ndindex(image_index.shape):
        top, left = corners[index]
        patches[index] = images[image_index[index], top : top + size[0], left : left + size[1]]
    return patches
