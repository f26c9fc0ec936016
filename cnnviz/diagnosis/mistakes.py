"""Find the most confident mistakes of a model, and the training images that are like them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from sklearn.preprocessing import normalize

from cnnviz import figures, layers
from cnnviz.checks import check_integer
from cnnviz.diagnosis.measures import mean_features, predictions
from cnnviz.grad_cam import GradCAM, Method, grad_cam
from cnnviz.results import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Mistakes(Result):
    """The n most confident mistakes of a model, the worst first.

    Attributes:
        images, image_index: (n, H, W, C) float32, and (n,) int, their indices in the test data.
        labels, predicted, probabilities: (n,) int32, (n,) int32, and (n, classes) float32.
        evidence: Two GradCAM: for the label, and for the predicted class; None if n is 0.
        neighbors: (n, k, H, W, C) float32, the most similar training images, the nearest first.
        neighbor_labels, neighbor_index: (n, k) int, their labels and indices in the training data.
        similarity: (n, k) float32, cosine of the angle between the model's features, up to 1.
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

    _draw, _html = "draw_mistakes", ("plot",)

    def __str__(self) -> str:
        text = f"{len(self.images)} mistakes, the most confident first"
        if self.neighbors.size:
            share = np.mean(self.neighbor_labels == self.predicted[:, None])
            text += f"; {share:.0%} of the nearest training images have the predicted class"
        return text

    def _columns(self):
        columns = {"index": self.image_index}
        for name, classes in (("label", self.labels), ("predicted", self.predicted)):
            columns[name] = [figures.class_name(self.class_names, index) for index in classes]
        return columns | {"probability": self.probabilities.max(axis=1, initial=0)}


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

    If these have the predicted class, the model took the image for one of them: look at what they
    share. If they have the image's own label, the last layer is at fault.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        test: Dataset of batches (images, labels), or a pair of arrays; labels are class indices or
            one-hot. A warning says if the data are shuffled, as indices then mean nothing.
        train: The same, of what the model was trained on; None looks for no neighbors.
        n_mistakes, n_neighbors: Mistakes, and training images for each, at most; 1 or more.
        method: Of `grad_cam`, for the evidence.
        class_names: The names of the classes, by index, for tables and figures.

    Raises:
        ValueError: If the data do not fit the model, or a number is below 1.

    Example:
        >>> pets, model = cnnviz.drawn_pets(8), cnnviz.load_pretrained()
        >>> len(cnnviz.confident_mistakes(model, (pets.images, 1 - pets.labels)).images)
        6
    """
    check_integer("n_mistakes", n_mistakes, 1)
    check_integer("n_neighbors", n_neighbors, 1)
    with layers.warn_once():
        inputs, index, labels, found = _worst(model, test, n_mistakes)
        images, predicted = layers.image_of(model, inputs), found.argmax(axis=1).astype(np.int32)
        evidence, near = None, [images[:, None][:, :0]]
        near += [np.empty((len(images), 0), kind) for kind in (np.int32, int, np.float32)]
        if len(images):
            classes, options = (labels, predicted), {"method": method}
            evidence = tuple(grad_cam(model, inputs, class_index=one, **options) for one in classes)
            near = near if train is None else _nearest(model, inputs, train, near, n_neighbors)
    return Mistakes(images, index, labels, predicted, found, evidence, *near, tuple(class_names))


def _worst(model, test, n_mistakes):
    """Inputs, indices, labels and probabilities; of equals, the least probable label."""
    worst, start = [], 0
    options = {"name": "test", "description": "mistakes"}
    for inputs, labels, found, _ in predictions(model, test, **options):
        layers.check_labels(labels, found.shape[1], "test")
        wrong = np.flatnonzero(found.argmax(axis=1) != labels)
        new = [layers.take(inputs, wrong), start + wrong, labels[wrong], found[wrong]]
        if worst:
            new = tf.nest.map_structure(lambda *both: np.concatenate(both), worst, new)
        worst = new
        given = np.take_along_axis(worst[3], worst[2][:, None], axis=1)[:, 0]
        order = np.lexsort((given, -worst[3].max(axis=1)))[:n_mistakes]
        worst = layers.take(worst, order)
        start += len(labels)
    layers.warn_if_shuffled(test, "test")
    return worst


def _nearest(model, inputs, train, near, n_neighbors):
    """Add training images to `near`: (n, k) images, labels, indices and similarities."""
    options = {"key": "features", "record": layers.every_layer}
    wanted, _ = layers.run(model, inputs, mean_features, **options)
    shape, rows, start = near[0].shape[2:], np.arange(len(wanted))[:, None], 0
    options |= {"name": "train", "description": "neighbors", "labels": True}
    for batch, labels, features, _ in layers.stream(model, train, mean_features, **options):
        batch = layers.image_of(model, batch)
        if batch.shape[1:] != shape:
            raise ValueError(f"`train` (images of {batch.shape[1:]}) must fit `test`, {shape}")
        similar = normalize(wanted) @ normalize(features).T
        best = (-similar).argsort(axis=1, kind="stable")[:, :n_neighbors]
        new = batch[best], labels[best], start + best, similar[rows, best]
        near = [np.concatenate(both, axis=1) for both in zip(near, new, strict=True)]
        order = (-near[3]).argsort(axis=1, kind="stable")[:, :n_neighbors]
        near = [each[rows, order] for each in near]
        start += len(labels)
    layers.warn_if_shuffled(train, "train")
    return near
