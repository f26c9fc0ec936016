"""(model, data, training data) -> its most confident mistakes, and what they have in common."""

import dataclasses

import keras
import numpy as np

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.diagnosis.batches import LabelledData, check_labels, labelled_batches
from cnnviz.diagnosis.features import picture_features
from cnnviz.grad_cam import GradCAM, Method, grad_cam


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """The n most confident mistakes of a model, the worst first.

    Attributes:
        images: (n, H, W, C) float32.
        image_index: (n,) int, their places in the data.
        labels: (n,) int32, what they are said to be.
        predicted: (n,) int32, what the model takes them for.
        probabilities: (n, classes) float32.
        evidence: Two GradCAM: for the label, and for the predicted class; None if n is 0.
        neighbours: (n, k, H, W, C) float32, the nearest pictures of the training data in the
            network's own features, the nearest first; k is 0 where none were given.
        neighbour_labels: (n, k) int32.
        neighbour_index: (n, k) int, their places in the training data.
        similarity: (n, k) float32, cosine of the angle between the features, up to 1.
    """

    images: np.ndarray
    image_index: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    evidence: tuple[GradCAM, GradCAM] | None
    neighbours: np.ndarray
    neighbour_labels: np.ndarray
    neighbour_index: np.ndarray
    similarity: np.ndarray


def confident_mistakes(
    model: keras.Model,
    data: LabelledData,
    training_data: LabelledData | None = None,
    *,
    count: int = 6,
    neighbours: int = 4,
    method: Method = "hires-cam",
) -> Mistakes:
    """Find what a model is wrong about and sure of, and the training pictures that are like it.

    A picture whose nearest training pictures bear the model's answer was taken for one of them:
    look at what they share. If the nearest bear its own label, the last layer is at fault.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        data: tf.data.Dataset of batches (images, labels) in a fixed order, or a pair of arrays.
            Labels are class indices, or one-hot.
        training_data: The same, of what the model was trained on; None looks for no neighbours.
        count: Mistakes at most, 1 or more.
        neighbours: Training pictures for each.
        method: Of `grad_cam`, for the evidence.

    Returns:
        Mistakes: fewer than `count` if the model makes fewer; maybe none.

    Raises:
        ValueError: If the data or an argument is not as said here.

    Warns:
        UserWarning: If the data come in another order each time, so that places mean nothing.
    """
    for name, number in (("count", count), ("neighbours", neighbours)):
        check_integer(name, number, 1)
    worst = _worst(model, data, count)
    images, index, labels, probabilities = (worst[name] for name in _COLUMNS)
    predicted = probabilities.argmax(axis=1).astype(np.int32)
    evidence = None
    if len(images):
        evidence = tuple(
            grad_cam(model, images, class_index=classes, method=method)
            for classes in (labels, predicted)
        )
    if training_data is None or not len(images):
        near = _no_neighbours(images)
    else:
        near = _nearest(model, images, training_data, neighbours)
    return Mistakes(images, index, labels, predicted, probabilities, evidence, *near)


_COLUMNS = ("images", "index", "labels", "probabilities")


def _worst(model, data, count):
    """The mistakes whose answer has the highest probability, in one pass and in little memory.

    Of equals it is those whose label has the lowest.
    """
    kept, start = None, 0
    for images, labels in labelled_batches(model, data, "mistakes", in_order=True):
        probabilities = layers.class_probabilities(model, images)
        check_labels(labels, probabilities.shape[1])
        wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
        index = start + np.arange(len(images))
        new = dict(zip(_COLUMNS, (images, index, labels, probabilities), strict=True))
        new = {name: values[wrong] for name, values in new.items()}
        if kept is not None:
            new = {name: np.concatenate([kept[name], new[name]]) for name in new}
        given = new["probabilities"][np.arange(len(new["labels"])), new["labels"]]
        first = np.lexsort((given, -new["probabilities"].max(axis=1)))[:count]
        kept = {name: values[first] for name, values in new.items()}
        start += len(images)
    return kept


def _no_neighbours(images):
    count = len(images)
    empty = np.zeros((count, 0), np.int32)
    return (
        np.zeros((count, 0, *images.shape[1:]), np.float32),
        empty,
        empty.astype(int),
        empty.astype(np.float32),
    )


def _nearest(model, images, training_data, count):
    """The most similar training pictures of each picture, in one pass and in little memory."""
    wanted = _directions(model, images)
    near, start = _no_neighbours(images), 0
    batches = labelled_batches(model, training_data, "neighbours", "training_data", in_order=True)
    for batch, batch_labels in batches:
        if batch.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"`training_data` (pictures of {batch.shape[1:]}) must be of the size of `data`, "
                f"{images.shape[1:]}"
            )
        similarity = np.concatenate([near[3], wanted @ _directions(model, batch).T], axis=1)
        best = (-similarity).argsort(axis=1, kind="stable")[:, :count]
        new = [batch, batch_labels, start + np.arange(len(batch))]
        merged = [_chosen(one, other, best) for one, other in zip(near, new, strict=False)]
        near = *merged, np.take_along_axis(similarity, best, axis=1)
        start += len(batch)
    return near


def _chosen(near, new, best):
    """Of what each mistake has, (n, k, ...), and of what is new to all, (B, ...), the best places.

    Only what is chosen is copied: pictures are large.
    """
    known = near.shape[1]
    chosen = np.empty((*best.shape, *new.shape[1:]), new.dtype)
    old = best < known
    rows = np.nonzero(old)[0]
    chosen[old], chosen[~old] = near[rows, best[old]], new[best[~old] - known]
    return chosen


def _directions(model, images):
    features = picture_features(model, images)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
