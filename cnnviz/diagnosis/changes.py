"""Compare two states of one model, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from cnnviz import layers
from cnnviz.activations import extract_activations
from cnnviz.grad_cam import GradCAM, grad_cam
from cnnviz.results import Result

AT_ONCE = 4  # images whose feature maps are held in memory, those of all layers of both models


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ModelChanges(Result):
    """What changed between two states of a model with L layers that have weights.

    Attributes:
        layer_names: L layers, in the model's order; a block or model that holds weights beside
            those of its layers is one too.
        weights: (L,) float64, how far each layer's weights moved, relative to their size:
            |after - before| / |before|; exactly 0 where they are the same.
        activations: (L,) float64, the same of the layer's outputs; NaN if it is no feature map.
        probabilities: Two (N, classes) arrays, before and after.
        maps: Two GradCAM of the same classes, those that were predicted before.
        images: (N, H, W, C) float32.
        class_names, value_range: As given to `compare_models`.
    """

    layer_names: tuple[str, ...]
    weights: np.ndarray
    activations: np.ndarray
    probabilities: tuple[np.ndarray, np.ndarray]
    maps: tuple[GradCAM, GradCAM]
    images: np.ndarray
    class_names: Sequence[str] = ()
    value_range: tuple[float, float] | None = None

    @property
    def _html(self):
        return ("plot",) if self.images.ndim == 4 else ("to_frame",)  # of signals and volumes

    _draw = "draw_changes"

    def __str__(self) -> str:
        moved, most = np.count_nonzero(self.weights), self.weights.argmax()
        before, after = (each.argmax(axis=1) for each in self.probabilities)
        text = f"The weights of {moved} of {len(self.weights)} layers changed"
        if moved:
            text += f", most in '{self.layer_names[most]}' ({self.weights[most]:.1%} of their size)"
        return f"{text}; {(before != after).sum()} of {len(before)} predictions changed"

    def _columns(self):
        return {"layer": self.layer_names, "weights": self.weights, "activations": self.activations}


def compare_models(
    before: keras.Model,
    after: keras.Model,
    images: layers.ImageData,
    *,
    class_names: Sequence[str] = (),
    value_range: tuple[float, float] | None = None,
) -> ModelChanges:
    """Compare two states of one model on the same images: weights, outputs, predictions, evidence.

    Args:
        before, after: keras.Models of one architecture, such as two checkpoints of a training.
        images: (N, H, W, C) in the models' input range, or what else `grad_cam` takes; 1 or more.
        class_names: The names of the classes, by index, for the figure.
        value_range: Lowest and highest pixel value, for the figure; None finds them.

    Raises:
        ValueError: If the models differ in their layers or weight shapes.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.compare_models(model, model, image).weights.max().item()
        0.0
    """
    inputs = layers.all_images(before, layers.all_images(after, images), fewest=1)
    images = layers.image_of(before, inputs)
    models, sums = (before, after), []
    owners = [layers.weights_by_owner(model) for model in models]
    shapes = [[[weight.shape for weight in weights] for _, weights in each] for each in owners]
    if shapes[0] != shapes[1]:
        both = f"`before` (='{before.name}') and `after` (='{after.name}')"
        raise ValueError(f"{both} must be of one architecture, with weights of the same shapes")
    # Layers are paired by their order: the names that Keras gives differ from model to model.
    (names, weights), (new_names, new_weights) = (zip(*each, strict=True) for each in owners)
    moved = _relative(_squares(weights, new_weights))
    with layers.warn_once():
        for start in range(0, len(images), AT_ONCE):
            part = layers.take(inputs, slice(start, start + AT_ONCE))
            old, new = (extract_activations(model, part) for model in models)
            maps = ([old.get(path)] for path in names), ([new.get(path)] for path in new_names)
            sums.append(_squares(*maps))
        probabilities = tuple(layers.class_probabilities(model, inputs) for model in models)
        classes = probabilities[0].argmax(axis=1)
        maps = tuple(grad_cam(model, inputs, class_index=classes) for model in models)
    options = _relative(np.sum(sums, axis=0)), probabilities, maps, images, tuple(class_names)
    return ModelChanges(names, moved, *options, value_range)


def _squares(before, after):
    """(L, 2) sums of squares: of how far the arrays of each layer moved, and of the arrays."""
    sums = []
    for old, new in zip(before, after, strict=True):
        old, new = ([np.asarray(x, np.float64) for x in arrays] for arrays in (old, new))
        moved = sum(np.sum((y - x) ** 2) for x, y in zip(old, new, strict=True))
        sums.append((moved, sum(np.sum(x**2) for x in old)))
    return sums


def _relative(squares):
    """(L, 2) sums of squares -> (L,) how far each moved, relative to its size."""
    moved, size = np.transpose(squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(moved == 0, 0, np.sqrt(moved / size))
