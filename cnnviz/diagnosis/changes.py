"""(model before, model after, pictures) -> what changed between them, layer by layer."""

import dataclasses
import math

import keras
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.activations import extract_activations
from cnnviz.checks import check_integer
from cnnviz.filter_ascent import PIXELS_AT_ONCE, FilterImages, ascend_filters
from cnnviz.grad_cam import GradCAM, grad_cam

NO_SUCH_LAYER = "`layer_name` (='{}') must be a layer with weights that puts out feature maps"


@dataclasses.dataclass(frozen=True)
class ModelChanges:
    """What changed between two states of one network of L layers with weights.

    Attributes:
        layer_names: L layers, in the model's order; a block that holds weights beside those of its
            layers is one too, and the model itself, if it does, the last.
        weights: (L,) float64, how far each layer's weights moved, as a share of their own size:
            |after - before| / |before|; exactly 0 where they are the same.
        activations: (L,) float64, the same of what the layer puts out for the pictures; NaN of a
            layer that puts out no feature map (N, h, w, C).
        probabilities: Two (N, classes) arrays, before and after.
        maps: Two GradCAM of the same classes, those that were predicted before.
        layer_name: The layer that the next three are of.
        filters: (F,) int, its filters that changed most in what they put out.
        feature_maps: Two (N, h, w, F) arrays of them.
        filter_images: Two FilterImages of them, ascended from the same noise.
    """

    layer_names: tuple[str, ...]
    weights: np.ndarray
    activations: np.ndarray
    probabilities: tuple[np.ndarray, np.ndarray]
    maps: tuple[GradCAM, GradCAM]
    layer_name: str
    filters: np.ndarray
    feature_maps: tuple[np.ndarray, np.ndarray]
    filter_images: tuple[FilterImages, FilterImages]

    def __str__(self) -> str:
        width = max(map(len, self.layer_names))
        lines = [f"{'layer':{width}}  {'weights':>9}  {'activations':>11}"]
        for row in zip(self.layer_names, self.weights, self.activations, strict=True):
            lines.append("{:{}}  {:9.3f}  {:11.3f}".format(row[0], width, *row[1:]))
        before, after = (each.argmax(axis=1) for each in self.probabilities)
        answers = int((before != after).sum())
        return "\n".join([*lines, f"{answers} of {len(before)} answers changed"])


def compare_models(
    before: keras.Model,
    after: keras.Model,
    images: ArrayLike,
    *,
    layer_name: str | None = None,
    count: int = 6,
    steps: int = 30,
    value_range: tuple[float, float] = (0, 255),
    seed: int = 0,
) -> ModelChanges:
    """Put two states of one network side by side: same pictures, same seed, same places.

    Args:
        before, after: keras.Models of one architecture, such as two checkpoints of a training or a
            network before and after fine-tuning; they are left as they were.
        images: (N, H, W, C) pictures in the models' input range.
        layer_name: The layer whose filters are looked at, which has weights and puts out feature
            maps; None takes the convolution whose weights moved most.
        count: How many of its filters, 1 or more: those whose output changed most.
        steps, value_range, seed: Of `ascend_filters`.

    Returns:
        ModelChanges

    Raises:
        ValueError: If the two differ in their layers or the shapes of their weights, or an argument
            is not as said here.
    """
    check_integer("count", count, 1)
    models = before, after
    images = layers.check_images(before, layers.check_images(after, images), fewest=1)
    names, other_names, weights = _weight_changes(before, after)
    place = _layer_to_look_at(before, layer_name, names, weights)
    paths = names[place], other_names[place]
    sums, kept = {}, ([], [])
    for part in _in_parts(images):
        put_out = [extract_activations(model, part) for model in models]
        if paths[0] not in put_out[0]:
            raise ValueError(NO_SUCH_LAYER.format(paths[0]))
        for one, other in zip(names, other_names, strict=True):
            if one in put_out[0]:
                squares = _squares(put_out[0][one], put_out[1][other])
                sums[one] = sums.get(one, 0) + np.array(squares)
        for parts, maps, path in zip(kept, put_out, paths, strict=True):
            parts.append(maps[path])
    activations = [_ratio(*sums[name]) if name in sums else np.nan for name in names]
    maps = [np.concatenate(parts) for parts in kept]
    moved = np.linalg.norm((maps[1] - maps[0]).reshape(-1, maps[0].shape[-1]), axis=0)
    filters = np.sort((-moved).argsort(kind="stable")[:count])
    options = {"image_size": images.shape[1:3], "value_range": value_range}
    options |= {"steps": steps, "seed": seed}
    probabilities = tuple(layers.class_probabilities(model, images) for model in models)
    classes = probabilities[0].argmax(axis=1)
    return ModelChanges(
        layer_names=tuple(names),
        weights=weights,
        activations=np.array(activations),
        probabilities=probabilities,
        maps=tuple(grad_cam(model, images, class_index=classes) for model in models),
        layer_name=names[place],
        filters=filters,
        feature_maps=tuple(each[..., filters] for each in maps),
        filter_images=tuple(
            ascend_filters(model, path, filters, **options)
            for model, path in zip(models, paths, strict=True)
        ),
    )


def _weight_changes(before, after):
    """-> (paths of the layers with weights before, those after, (L,) change of each).

    Layers belong together by their place: names that Keras gives differ from model to model.
    """
    pairs = [
        [
            (path, [keras.ops.convert_to_numpy(weight) for weight in weights])
            for path, weights in layers.weights_by_owner(model)
        ]
        for model in (before, after)
    ]
    shapes = [[[weight.shape for weight in weights] for _, weights in each] for each in pairs]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`before` (='{before.name}', {len(shapes[0])} layers with weights) and `after` "
            f"(='{after.name}', {len(shapes[1])}) must be of one architecture, weights of the same "
            "shapes in the same order"
        )
    names, other_names = ([path for path, _ in each] for each in pairs)
    changes = [
        _ratio(*_squares(_flat(one), _flat(other)))
        for (_, one), (_, other) in zip(*pairs, strict=True)
    ]
    return names, other_names, np.array(changes)


def _flat(weights):
    return np.concatenate([np.ravel(weight) for weight in weights])


def _in_parts(images):
    """As many pictures at a time as filter ascent takes: all maps of two models are large."""
    count = max(1, PIXELS_AT_ONCE // math.prod(images.shape[1:3]))
    return (images[start : start + count] for start in range(0, len(images), count))


def _squares(before, after):
    """The sums of the squares of how far an array moved, and of the array."""
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    return np.sum((after - before) ** 2), np.sum(before**2)


def _ratio(moved, size):
    """How far something moved, as a share of its size; 0 if it did not, also if it is all zero."""
    return 0.0 if moved == 0 else float((moved / size) ** 0.5) if size > 0 else float("inf")


def _layer_to_look_at(model, layer_name, names, weights):
    """The place among `names` of the layer that was asked for, or whose weights moved most."""
    if layer_name is not None:
        path, _ = layers.find_layer(model, layer_name)
        if path not in names:
            raise ValueError(NO_SUCH_LAYER.format(path))
        return names.index(path)
    places = [names.index(name) for name in layers.convolution_layers(model) if name in names]
    if not places:
        raise ValueError(
            f"`layer_name` (=None) found no convolution in model '{model.name}'; name a layer"
        )
    return max(places, key=lambda place: weights[place])
