"""Find the most confident mistakes of a model, and the training images that are like them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from sklearn.preprocessing import normalize

from cnnviz import figures, layers
from cnnviz.checks import check_integer
from cnnviz.diagnosis.features import image_features
from cnnviz.grad_cam import GradCAM, Method, grad_cam
from cnnviz.results import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Mistakes(Result):
    """The n most confident mistakes of a model, the worst first.

    Attributes:
        images: (n, H, W, C) float32.
        image_index: (n,) int, the images' indices in the test data.
        labels: (n,) int32.
        predicted: (n,) int32, the predicted classes.
        probabilities: (n, classes) float32.
        evidence: Two GradCAM: for the label, and for the predicted class; None if n is 0.
        neighbors: (n, k, H, W, C) float32, the nearest images of the training data in the model's
            own features, the nearest first; k is 0 if none were given.
        neighbor_labels: (n, k) int32.
        neighbor_index: (n, k) int, their indices in the training data.
        similarity: (n, k) float32, cosine of the angle between the features, up to 1.
        class_names: The names of the classes, by index; may be empty.
    """

    images: np.ndarray
    image_index: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    evidence: tuple[GradCAM, GradCAM] | None
    neighbors: np.ndarray
    neighbor_labels: np.ndarray
    neighbor_index: np.ndarray
    similarity: np.ndarray
    class_names: Sequence[str] = ()

    _html = ("plot",)

    def __str__(self) -> str:
        text = f"{len(self.images)} mistakes, the most confident first"
        if not self.neighbors.size:
            return text
        share = np.mean(self.neighbor_labels == self.predicted[:, None])
        return (
            f"{text}; {share:.0%} of the nearest training images have the predicted class as their "
            "label. " + ("The last layer is at fault" if share < 0.5 else "Look at what they share")
        )

    def _columns(self):
        columns = {"index": self.image_index}
        for name, classes in (("label", self.labels), ("predicted", self.predicted)):
            columns[name] = [figures.class_name(self.class_names, index) for index in classes]
        return columns | {"probability": self.probabilities.max(axis=1, initial=0)}

    def plot(self, **options: Any) -> figures.DescribedFigure:
        """Draw mistakes, their evidence and neighbors; options of `figures.draw_mistakes`."""
        return figures.draw_mistakes(self, self.class_names, **options)


def confident_mistakes(
    model: keras.Model,
    test: layers.LabeledData,
    train: layers.LabeledData | None = None,
    *,
    n_mistakes: int = 6,
    n_neighbors: int = 4,
    method: Method = "hires-cam",
    class_names: Sequence[str] = (),
) -> Mistakes:
    """Find the mistakes that a model is most confident of, and the training images like them.

    If the nearest training images have the predicted class, the model took the image for one of
    them: look at what they share. If they have the image's own label, the last layer is at fault.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        test: Dataset of batches (images, labels), not shuffled, or a pair of arrays. Labels are
            class indices, or one-hot.
        train: The same, of what the model was trained on; None looks for no neighbors.
        n_mistakes: Mistakes at most, 1 or more.
        n_neighbors: Training images for each mistake, 1 or more.
        method: Of `grad_cam`, for the evidence.
        class_names: The names of the classes, by index, for tables and figures.

    Returns:
        Mistakes: fewer than `n_mistakes` if the model makes fewer; maybe none.

    Raises:
        ValueError: If the data do not fit, or an argument is out of range.

    Warns:
        UserWarning: If the data come in another order in each pass, so that indices mean nothing.

    Example:
        >>> pets = cnnviz.drawn_pets(8, seed=0)
        >>> test = pets.images, 1 - pets.labels
        >>> len(cnnviz.confident_mistakes(cnnviz.load_pretrained(), test, n_mistakes=2).images)
        2
    """
    check_integer("n_mistakes", n_mistakes, 1)
    check_integer("n_neighbors", n_neighbors, 1)
    with layers.warn_once():
        images, index, labels, found = _worst(model, test, n_mistakes)
        predicted = found.argmax(axis=1).astype(np.int32)
        evidence, near = None, _stacked([[]] * len(images), images.shape[1:])
        if len(images):
            evidence = tuple(
                grad_cam(model, images, class_index=classes, method=method)
                for classes in (labels, predicted)
            )
            if train is not None:
                near = _nearest(model, images, train, n_neighbors)
    names = tuple(class_names)
    return Mistakes(images, index, labels, predicted, found, evidence, *near, names)


def _worst(model, test, n_mistakes):
    """Those with the most probable predicted class; of equals, with the least probable label."""

    def compute(call):
        output = layers.pick_output(call.model, call.output, None)
        return (call.images, layers.probabilities(output)), None

    worst, start = [], 0
    options = {"key": "mistakes", "name": "test", "description": "mistakes", "labels": True}
    for labels, (images, found), _ in layers.stream(model, test, compute, **options):
        layers.check_labels(labels, found.shape[1], "test")
        for row in np.flatnonzero(found.argmax(axis=1) != labels):
            order = -found[row].max(), found[row, labels[row]]
            worst.append((order, images[row].copy(), start + row, labels[row], found[row]))
        worst = sorted(worst, key=lambda one: one[0])[:n_mistakes]
        start += len(labels)
    layers.warn_if_shuffled(test, "test")
    _, kept, index, given, rows = zip(*worst, strict=True) if worst else [()] * 5
    return (
        np.array(kept, np.float32).reshape(-1, *images.shape[1:]),
        np.array(index, int),
        np.array(given, np.int32),
        np.array(rows, np.float32).reshape(-1, found.shape[1]),
    )


def _nearest(model, images, train, n_neighbors):
    """The most similar training images of each image."""
    wanted = np.concatenate([normalize(part) for *_, part in image_features(model, images)])
    near, start = [[] for _ in images], 0
    options = {"name": "train", "description": "neighbors", "labels": True}
    for batch, labels, features in image_features(model, train, **options):
        if batch.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"`train` (images of shape {batch.shape[1:]}) must have the shape of `test`, "
                f"{images.shape[1:]}"
            )
        for kept, similar in zip(near, wanted @ normalize(features).T, strict=True):
            best = (-similar).argsort(kind="stable")[:n_neighbors]
            kept += [(batch[i].copy(), labels[i], start + i, similar[i]) for i in best]
            kept.sort(key=lambda one: -one[3])
            del kept[n_neighbors:]
        start += len(labels)
    layers.warn_if_shuffled(train, "train")
    return _stacked(near, images.shape[1:])


def _stacked(near, shape):
    """n lists of k tuples -> images, labels, indices and similarities, with first axes (n, k)."""
    n, k = len(near), len(near[0]) if near else 0
    columns = ([[one[column] for one in kept] for kept in near] for column in range(4))
    types = np.float32, np.int32, int, np.float32
    images, *others = map(np.array, columns, types)
    return images.reshape(n, k, *shape), *(other.reshape(n, k) for other in others)
