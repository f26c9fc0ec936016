"""Compare two states of one model, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import figures, layers
from cnnviz.activations import extract_activations
from cnnviz.grad_cam import GradCAM, grad_cam
from cnnviz.results import Result

AT_ONCE = 4  # images whose feature maps are held in memory, those of all layers of both models


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ModelChanges(Result):
    """What changed between two states of a model with L layers that have weights.

    Attributes:
        layer_names: L layers, in the model's order; a block that holds weights beside those of its
            layers is one too, and the model itself, if it does, the last.
        weights: (L,) float64, how far each layer's weights moved, relative to their size:
            |after - before| / |before|; exactly 0 where they are the same.
        activations: (L,) float64, the same of the layer's outputs for the images; NaN for a layer
            that outputs no feature map (N, h, w, C).
        probabilities: Two (N, classes) arrays, before and after.
        maps: Two GradCAM of the same classes, those that were predicted before.
        images: (N, H, W, C) float32, the images.
        class_names: The names of the classes, by index; may be empty.
        value_range: Lowest and highest pixel value, or None if unknown.
    """

    layer_names: tuple[str, ...]
    weights: np.ndarray
    activations: np.ndarray
    probabilities: tuple[np.ndarray, np.ndarray]
    maps: tuple[GradCAM, GradCAM]
    images: np.ndarray
    class_names: Sequence[str] = ()
    value_range: tuple[float, float] | None = None

    _html = ("plot",)

    def __str__(self) -> str:
        moved, most = np.count_nonzero(self.weights), self.weights.argmax()
        before, after = (each.argmax(axis=1) for each in self.probabilities)
        text = f"The weights of {moved} of {len(self.weights)} layers changed"
        if moved:
            text += f", most in '{self.layer_names[most]}' ({self.weights[most]:.1%} of their size)"
        return f"{text}; {(before != after).sum()} of {len(before)} predictions changed"

    def to_frame(self):
        """A pandas.DataFrame with one row for each layer: how far weights and outputs moved."""
        import pandas

        columns = {"layer": self.layer_names, "weights": self.weights}
        return pandas.DataFrame(columns | {"activations": self.activations})

    def plot(self, **options):
        """The figure of `figures.draw_changes`, with its options."""
        return figures.draw_changes(self, **options)


def compare_models(
    before: keras.Model,
    after: keras.Model,
    images: ArrayLike,
    *,
    class_names: Sequence[str] = (),
    value_range: tuple[float, float] | None = None,
) -> ModelChanges:
    """Compare two states of one model on the same images: weights, outputs, predictions, evidence.

    Args:
        before, after: keras.Models of one architecture, such as two checkpoints of a training or a
            model before and after fine-tuning; they are left as they were.
        images: (N, H, W, C) in the models' input range, one or more.
        class_names: The names of the classes, by index, for the figure.
        value_range: Lowest and highest pixel value, for the figure; None finds them.

    Returns:
        ModelChanges

    Raises:
        ValueError: If the two differ in their layers or the shapes of their weights, or the images
            do not fit.

    Warns:
        UserWarning: As `grad_cam` and `extract_activations`.

    Example:
        >>> import cnnviz
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.compare_models(model, model, image).weights.max()
        0.0
    """
    images = layers.check_images(before, layers.check_images(after, images), fewest=1)
    names, weights = _weight_changes(before, after)
    with layers.warn_once():
        activations = _activation_changes(before, after, images, names)
        probabilities = [layers.class_probabilities(model, images) for model in (before, after)]
        classes = probabilities[0].argmax(axis=1)
        maps = [grad_cam(model, images, class_index=classes) for model in (before, after)]
    return ModelChanges(
        tuple(path for path, _ in names), weights, activations, tuple(probabilities), tuple(maps),
        images, tuple(class_names), value_range,
    )  # fmt: skip


def _weight_changes(before, after):
    """-> ([path before, path after], (L,) change) of the layers with weights.

    Layers are paired by their order: the names that Keras gives differ from model to model.
    """
    owners = [layers.weights_by_owner(model) for model in (before, after)]
    shapes = [[[weight.shape for weight in weights] for _, weights in each] for each in owners]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`before` (='{before.name}', {len(shapes[0])} layers with weights) and `after` "
            f"(='{after.name}', {len(shapes[1])}) must be of one architecture, weights of the same "
            "shapes in the same order"
        )
    names, changes = [], []
    for (path, one), (other_path, other) in zip(*owners, strict=True):
        one, other = (
            np.concatenate([np.ravel(keras.ops.convert_to_numpy(weight)) for weight in weights])
            for weights in (one, other)
        )
        names.append((path, other_path))
        changes.append(_ratio(*_squares(one, other)))
    return names, np.array(changes)


def _activation_changes(before, after, images, names):
    """(L,) change of the outputs of each pair of layers; NaN if these are no feature maps."""
    sums = {}
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE]
        one, other = (extract_activations(model, part) for model in (before, after))
        for path, other_path in names:
            if path in one:
                sums[path] = sums.get(path, 0) + _squares(one[path], other[other_path])
    return np.array([_ratio(*sums[path]) if path in sums else np.nan for path, _ in names])


def _squares(before, after):
    """(2,): the sums of the squares of how far an array moved, and of the array."""
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    return np.array([np.sum((after - before) ** 2), np.sum(before**2)])


def _ratio(moved, size):
    """How far something moved, relative to its size; 0 if it did not, also if it is all zero."""
    return 0.0 if moved == 0 else float((moved / size) ** 0.5) if size > 0 else float("inf")
