"""Rank images by how likely their label is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnviz import figures, layers
from cnnviz.diagnosis.measures import image_features, pick
from cnnviz.results import Result

MOST_IMAGES = 24  # that are kept, to be drawn


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SuspectLabels(Result):
    """N images, ranked by how likely their label is wrong.

    Attributes:
        ranking: (N,) int, indices of the images in the data, the most suspect first.
        labels: (N,) int32, the labels as given, in the order of the data, as in the next two.
        given: (N,) float64, the probability of the label, by a fit that had not seen the image.
        predicted: (N,) int32, the most probable class.
        images: (n, H, W, C) float32, the first `MOST_IMAGES` of the ranking; None of shuffled data,
            signals and volumes.
        class_names: The names of the classes, by index; may be empty.
        file_paths: The images' files, in the order of the data, if a dataset tells them; or empty.
    """

    ranking: np.ndarray
    labels: np.ndarray
    given: np.ndarray
    predicted: np.ndarray
    images: np.ndarray | None
    class_names: Sequence[str] = ()
    file_paths: Sequence[str] = ()

    _draw = "draw_suspects"

    @property
    def _html(self):
        return ("to_frame",) if self.images is None else ("plot", "to_frame")

    def __str__(self) -> str:
        doubted = (self.predicted != self.labels).sum()
        text = "A last layer that was fitted without them predicts another class than the label for"
        return (
            f"{text} {doubted:,} of {len(self.labels):,} images; the ranking begins with the worst"
        )

    def _columns(self):
        order, columns = self.ranking, {"index": self.ranking}
        for name, classes in (("label", self.labels), ("most likely", self.predicted)):
            columns[name] = [figures.class_name(self.class_names, one) for one in classes[order]]
        columns["probability of label"] = self.given[order]
        if len(self.file_paths):
            columns["file"] = [self.file_paths[index] for index in order]
        return columns


def suspect_labels(
    model: keras.Model,
    data: layers.LabeledData,
    *,
    n_folds: int = 5,
    class_names: Sequence[str] = (),
) -> SuspectLabels:
    """Rank images by how likely their label is wrong.

    A logistic regression on the model's features is fitted in cross-validation, so that no label
    speaks for itself. The less probable a label is then, the more suspect it is, as in confident
    learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068). A model that was trained on
    these labels may have memorized the errors: give images that it was not trained on.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        data: Dataset of batches (images, labels), read twice, or a pair of arrays. Labels are class
            indices, or one-hot. A warning says if the data are shuffled, as indices then mean
            nothing.
        n_folds: Folds of the cross-validation, 2 or more; each class needs as many images.
        class_names: The names of the classes, by index, for tables and figures.

    Raises:
        ValueError: If the data do not fit, or a class has fewer than `n_folds` images.

    Example:
        >>> pets, model = cnnviz.drawn_pets(40), cnnviz.load_pretrained()
        >>> cnnviz.suspect_labels(model, (pets.images, pets.labels)).ranking.shape
        (40,)
    """
    options = {"labels": True, "name": "data", "description": "features"}
    parts = [part[1:] for part in image_features(model, data, **options)]
    labels, features = (np.concatenate(both) for both in zip(*parts, strict=True))
    classes, columns, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < n_folds:
        given = f"`data` (classes {classes}, {counts} images) must have two classes or more, with"
        raise ValueError(f"{given} at least `n_folds` (={n_folds}) images of each")
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    fit = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    probabilities = cross_val_predict(fit, features, labels, cv=folds, method="predict_proba")
    given = probabilities[np.arange(len(labels)), columns]
    predicted, ranking = classes[probabilities.argmax(axis=1)], given.argsort(kind="stable")
    ordered = not layers.warn_if_shuffled(data)
    are_images = len(layers.input_shape(model)) == 4
    images = pick(model, data, ranking[:MOST_IMAGES])[0] if ordered and are_images else None
    paths = tuple(getattr(data, "file_paths", ()) if ordered else ())
    return SuspectLabels(ranking, labels, given, predicted, images, tuple(class_names), paths)
