"""(model, labelled pictures) -> the pictures whose label is most likely wrong."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnviz import layers
from cnnviz.augmentation import can_be_varied
from cnnviz.checks import check_integer
from cnnviz.diagnosis.batches import LabelledData, labelled_batches
from cnnviz.diagnosis.features import picture_features
from cnnviz.training import train

BATCH_SIZE = 32  # of the trainings


@dataclasses.dataclass(frozen=True)
class SuspectLabels:
    """N pictures, ranked by how sure it is that their label is wrong.

    Attributes:
        ranking: (N,) int, the pictures' places in the data, the most suspect first.
        labels: (N,) int32, the labels as given, in the order of the data.
        probabilities: (N, classes) float32, what a model that had not seen the picture's label
            gives its classes, in the order of the data.
        class_index: (classes,) int32, the class of each column.
    """

    ranking: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    class_index: np.ndarray

    @property
    def given(self) -> np.ndarray:
        """(N,) float32, the probability of the label as given, in the order of the data."""
        return _given(self.probabilities, self.class_index, self.labels)


def _given(probabilities, class_index, labels):
    """(N, classes) probabilities -> (N,) those of the labels."""
    return probabilities[np.arange(len(labels)), np.searchsorted(class_index, labels)]


def suspect_labels(
    model: keras.Model,
    data: LabelledData,
    *,
    folds: int = 5,
    epochs: int | None = None,
    seed: int = 0,
) -> SuspectLabels:
    """Rank pictures by how sure a model is that their label is wrong.

    The pictures are dealt into folds; what is said of a fold's labels comes from the others alone,
    so that no label speaks for itself (confident learning, Northcutt et al. 2021, ranks by the same
    probability of the label as given). By default only a last layer is fitted anew for each fold,
    a logistic regression on the network's features, which takes seconds. Features of a network that
    has learned these very labels by heart hide what is wrong with them: for such a network give
    `epochs`, and a fresh copy of it is trained for each fold.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        data: tf.data.Dataset of batches (images, labels) in a fixed order, or a pair of arrays.
            Labels are class indices, or one-hot. For `epochs` all pictures must fit into memory.
        folds: Parts that the data are dealt into, 2 or more.
        epochs: None, or the epochs for which a copy of `model` with fresh weights is trained on the
            rest of each fold, by `train`: a model that returns one logit. What a `Normalization`
            was adapted to is kept. Pictures are varied if they are in 0..255.
        seed: Seed of the folds and the trainings.

    Returns:
        SuspectLabels

    Raises:
        ValueError: If a class has fewer pictures than `folds`, or an argument is out of range.

    Warns:
        UserWarning: If the data come in another order each time, so that places mean nothing.
    """
    check_integer("folds", folds, 2)
    if epochs is not None:
        check_integer("epochs", epochs, 1)
    pictures, labels = _read(model, data, epochs is None)
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < folds:
        raise ValueError(
            f"`data` (classes {classes.tolist()}, {counts.tolist()} pictures) must have two "
            f"classes or more, with at least `folds` (={folds}) pictures of each"
        )
    if epochs and classes.tolist() != [0, 1]:
        raise ValueError(
            f"`data` (classes {classes.tolist()}) must have the labels 0 and 1 for `epochs`"
        )
    deal = StratifiedKFold(folds, shuffle=True, random_state=seed)
    if epochs:
        probabilities = _by_training(model, pictures, labels, deal, epochs, seed)
    else:
        probabilities = _by_features(pictures, labels, deal)
    ranking = _given(probabilities, classes, labels).argsort(kind="stable")
    return SuspectLabels(
        ranking, labels, probabilities.astype(np.float32), classes.astype(np.int32)
    )


def _read(model, data, as_features):
    """Pictures, or their features, and labels."""
    parts, labels = [], []
    for images, batch_labels in labelled_batches(model, data, "features", in_order=True):
        parts.append(picture_features(model, images) if as_features else images)
        labels.append(batch_labels)
    return np.concatenate(parts), np.concatenate(labels)


def _by_features(features, labels, deal):
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return cross_val_predict(head, features, labels, cv=deal, method="predict_proba")


def _by_training(model, images, labels, deal, epochs, seed):
    probabilities = np.empty((len(labels), 2), np.float32)
    for number, (rest, fold) in enumerate(deal.split(images, labels)):
        keras.utils.set_random_seed(seed + number)
        copy = _fresh_copy(model)
        data = tf.data.Dataset.from_tensor_slices((images[rest], labels[rest]))
        shuffled = data.shuffle(len(rest), seed=seed).batch(BATCH_SIZE)
        options = {"epochs": epochs, "augment": can_be_varied(images), "seed": seed, "verbose": 0}
        # The fold's own labels must not choose the epoch either.
        train(copy, shuffled, data.batch(BATCH_SIZE), **options)
        probabilities[fold] = layers.class_probabilities(copy, images[fold])
    return probabilities


def _fresh_copy(model):
    """The model with fresh weights, but for those that were not trained but adapted."""
    copy = keras.models.clone_model(model)
    pairs = zip(layers.leaf_layers(model).values(), layers.leaf_layers(copy).values(), strict=True)
    for layer, fresh in pairs:
        if isinstance(layer, keras.layers.Normalization):
            fresh.set_weights(layer.get_weights())
            fresh.finalize_state()
    return copy
