"""Compare two states of one model, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from cnnviz import layers
from cnnviz.grad_cam import GradCAM, grad_cam
from cnnviz.results import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ModelChanges(Result):
    """What changed between two states of a model with L layers that have weights.

    Attributes:
        layer_names: L layers, in the model's order; a block or model that holds weights beside
            those of its layers is one too.
        weights: (L,) float64, how far each layer's weights moved, relative to their size:
            |after - before| / |before|; 0 where they are the same, inf if all were 0.
        probabilities: Two (N, classes) arrays, before and after.
        maps: Two GradCAM of the same classes, those that were predicted before.
        images: (N, H, W, C) float32.
        class_names, value_range: As given to `compare_models`.
    """

    layer_names: tuple[str, ...]
    weights: np.ndarray
    probabilities: tuple[np.ndarray, np.ndarray]
    maps: tuple[GradCAM, GradCAM]
    images: np.ndarray
    class_names: Sequence[str] = ()
    value_range: tuple[float, float] | None = None

    _draw, _html = "draw_changes", ("plot",)

    def __str__(self) -> str:
        moved, most = np.count_nonzero(self.weights), self.weights.argmax()
        before, after = (each.argmax(axis=1) for each in self.probabilities)
        text = f"The weights of {moved} of {len(self.weights)} layers changed"
        if moved:
            text += f", most in '{self.layer_names[most]}' ({self.weights[most]:.1%} of their size)"
        return f"{text}; {(before != after).sum()} of {len(before)} predictions changed"

    def _columns(self):
        return {"layer": self.layer_names, "weights": self.weights}


def compare_models(
    before: keras.Model,
    after: keras.Model,
    images: layers.ImageData,
    *,
    class_names: Sequence[str] = (),
    value_range: tuple[float, float] | None = None,
) -> ModelChanges:
    """Compare two states of one model: weights, and on the same images predictions and evidence.

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
    models = before, after
    owners = [layers.weights_by_owner(model) for model in models]
    shapes = [[[weight.shape for weight in weights] for _, weights in each] for each in owners]
    if shapes[0] != shapes[1]:
        both = f"`before` (='{before.name}') and `after` (='{after.name}')"
        raise ValueError(f"{both} must be of one architecture, with weights of the same shapes")
    # Layers are paired by their order: the names that Keras gives differ from model to model.
    moved = [_moved(old, new) for (_, old), (_, new) in zip(*owners, strict=True)]
    names = tuple(name for name, _ in owners[0])
    with layers.warn_once():
        probabilities = tuple(layers.class_probabilities(model, inputs) for model in models)
        classes = probabilities[0].argmax(axis=1)
        maps = tuple(grad_cam(model, inputs, class_index=classes) for model in models)
    found = names, np.array(moved), probabilities, maps, images
    return ModelChanges(*found, tuple(class_names), value_range)


def _moved(before, after):
    """How far the weights of a layer moved, relative to their size."""
    old, new = (np.concatenate([np.ravel(w).astype(float) for w in ws]) for ws in (before, after))
    moved, size = np.linalg.norm(new - old), np.linalg.norm(old)
    if moved and not size:
        return np.inf
    return moved / size if moved else 0.0
