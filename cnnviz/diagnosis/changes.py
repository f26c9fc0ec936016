"""Compare two states of one model, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

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

    def _columns(self):
        columns = {"layer": self.layer_names, "weights": self.weights}
        return columns | {"activations": self.activations}

    def plot(self, **options: Any) -> figures.DescribedFigure:
        """Draw the changes and both heat maps; options of `figures.draw_changes`."""
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
        before, after: keras.Models of one architecture, such as two checkpoints of a training; they
            are left as they were.
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
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.compare_models(model, model, image).weights.max().item()
        0.0
    """
    images = layers.check_images(before, layers.check_images(after, images), fewest=1)
    models, sums = (before, after), []
    names, weights = _weight_changes(before, after)
    with layers.warn_once():
        for start in range(0, len(images), AT_ONCE):
            part = images[start : start + AT_ONCE]
            one, other = (extract_activations(model, part) for model in models)
            pairs = ((one.get(path), other.get(same)) for path, same in zip(*names, strict=True))
            sums.append([_squares(*pair) for pair in pairs])
        probabilities = tuple(layers.class_probabilities(model, images) for model in models)
        classes = probabilities[0].argmax(axis=1)
        maps = tuple(grad_cam(model, images, class_index=classes) for model in models)
    activations = _relative(np.sum(sums, axis=0))
    options = tuple(class_names), value_range
    return ModelChanges(names[0], weights, activations, probabilities, maps, images, *options)


def _weight_changes(before, after):
    """-> ((paths before, paths after), (L,) change) of the layers with weights.

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
    names, weights = zip(*(zip(*each, strict=True) for each in owners), strict=True)
    flat = (
        [np.concatenate([np.ravel(keras.ops.convert_to_numpy(w)) for w in one]) for one in each]
        for each in weights
    )
    return names, _relative([_squares(*pair) for pair in zip(*flat, strict=True)])


def _squares(before, after):
    """The sums of the squares of how far an array moved, and of the array; NaN if there is none."""
    if before is None:
        return np.nan, np.nan
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    return np.sum((after - before) ** 2), np.sum(before**2)


def _relative(squares):
    """(L, 2) sums of squares -> (L,) how far each moved, relative to its size."""
    moved, size = np.transpose(squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(moved == 0, 0, np.sqrt(moved / size))
