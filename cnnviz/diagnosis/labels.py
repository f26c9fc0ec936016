"""Rank images by how likely their label is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnviz import figures, layers
from cnnviz.checks import check_integer
from cnnviz.diagnosis.features import image_features, pick
from cnnviz.results import Result

MOST_IMAGES = 24  # that are kept, to be drawn


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SuspectLabels(Result):
    """N images, ranked by how likely their label is wrong.

    Attributes:
        ranking: (N,) int, the images' indices in the data, the most suspect first.
        labels: (N,) int32, the labels as given, in the order of the data.
        probabilities: (N, classes) float32, what a fit that had not seen the image gives its
            classes, in the order of the data.
        class_index: (classes,) int32, the class of each column.
        images: (n, H, W, C) float32, the first `MOST_IMAGES` of the ranking; None of shuffled data.
        class_names: The names of the classes, by index; may be empty.
        file_paths: The images' files, in the order of the data, if a dataset tells them; or empty.
    """

    ranking: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    class_index: np.ndarray
    images: np.ndarray | None
    class_names: Sequence[str] = ()
    file_paths: Sequence[str] = ()

    @property
    def _html(self):
        return ("to_frame",) if self.images is None else ("plot", "to_frame")

    @property
    def given(self) -> np.ndarray:
        """(N,) float32, the probability of the label as given, in the order of the data."""
        columns = np.searchsorted(self.class_index, self.labels)
        return self.probabilities[np.arange(len(self.labels)), columns]

    def __str__(self) -> str:
        doubted = (self.class_index[self.probabilities.argmax(axis=1)] != self.labels).sum()
        return (
            f"A last layer that was fitted without them predicts another class than the label for "
            f"{doubted:,} of {len(self.labels):,} images; look at the first of the ranking"
        )

    def _columns(self):
        def names(indices):
            return [figures.class_name(self.class_names, index) for index in indices[self.ranking]]

        likely = self.class_index[self.probabilities.argmax(axis=1)]
        columns = {"index": self.ranking, "label": names(self.labels)}
        columns |= {"probability of label": self.given[self.ranking], "most likely": names(likely)}
        if len(self.file_paths):
            columns["file"] = [self.file_paths[index] for index in self.ranking]
        return columns

    def plot(self, **options: Any) -> figures.DescribedFigure:
        """Draw the most suspect images; options of `figures.draw_suspects`."""
        return figures.draw_suspects(self, **options)


def suspect_labels(
    model: keras.Model,
    data: layers.LabeledData,
    *,
    n_folds: int = 5,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> SuspectLabels:
    """Rank images by how likely their label is wrong.

    A logistic regression on the model's features is fitted in cross-validation, so that no label
    speaks for itself; a label is the more suspect, the less probable it is then, as in confident
    learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068). A model that was trained on
    these labels may have memorized the errors: give images that it was not trained on.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        data: Dataset of batches (images, labels), not shuffled, or a pair of arrays. It is read
            twice. Labels are class indices, or one-hot.
        n_folds: Folds of the cross-validation, 2 or more.
        seed: Seed of the folds.
        class_names: The names of the classes, by index, for tables and figures.

    Returns:
        SuspectLabels

    Raises:
        ValueError: If a class has fewer images than `n_folds`, or the data do not fit.

    Warns:
        UserWarning: If the data come in another order in each pass, so that indices mean nothing.

    Example:
        >>> pets = cnnviz.drawn_pets(40, seed=0)
        >>> data = pets.images, pets.labels
        >>> cnnviz.suspect_labels(cnnviz.load_pretrained(), data).ranking.shape
        (40,)
    """
    check_integer("n_folds", n_folds, 2)
    options = {"labels": True, "name": "data", "description": "features"}
    parts = [part[1:] for part in image_features(model, data, **options)]
    labels, features = (np.concatenate(both) for both in zip(*parts, strict=True))
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < n_folds:
        raise ValueError(
            f"`data` (classes {classes.tolist()}, {counts.tolist()} images) must have two classes "
            f"or more, with at least `n_folds` (={n_folds}) images of each"
        )
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    last_layer = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    probabilities = cross_val_predict(
        last_layer, features, labels, cv=folds, method="predict_proba"
    )
    given = probabilities[np.arange(len(labels)), np.searchsorted(classes, labels)]
    ranking = given.argsort(kind="stable")
    ordered = not layers.warn_if_shuffled(data)
    images = pick(model, data, ranking[:MOST_IMAGES])[0] if ordered else None
    paths = tuple(getattr(data, "file_paths", ()) if ordered else ())
    return SuspectLabels(
        ranking, labels, probabilities.astype(np.float32), classes.astype(np.int32), images,
        tuple(class_names), paths,
    )  # fmt: skip
