"""Rank images by how likely their label is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnviz import figures, layers
from cnnviz.diagnosis.measures import interval, mean_features, pick
from cnnviz.progress import progress_bar
from cnnviz.results import Result

MOST_IMAGES = 24  # that are kept, to be drawn
PENALTIES = (0.01, 0.001)  # `C` of two fits; their mixture is chosen by cross-validation
EARLIER = 0.6  # depth of the feature map that has not memorized labels
MEMORIZED = 0.99  # share of labels that a model predicts from which on it may have memorized them
FEWEST = 10  # images with the largest margins, on which labels are counted
PLATEAU, MOST = 0.4, 0.4  # share of all disagreements that must remain there; of images, at most


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SuspectLabels(Result):
    """N images, ranked by how likely their label is wrong.

    Attributes:
        ranking: (N,) int, indices of the images in the data, the most suspect first.
        labels, given, predicted: (N,), in the order of the data: the label as given, int32; its
            probability, float64, by fits that had not seen the image; the most probable class.
        images: (n, H, W, C) float32, the first 24 of the ranking; None of shuffled data, signals
            and volumes.
        class_names, file_paths: The names of the classes; the images' files, if a dataset has any.
        n_errors, n_errors_low, n_errors_high: How many labels are probably wrong, the first of the
            ranking, with a 95 % interval; 0 if all disagreements may be the model's mistakes.
        memorized: Whether the model has probably memorized the labels. Then an earlier layer ranks
            them, which is less certain.
    """

    ranking: np.ndarray
    labels: np.ndarray
    given: np.ndarray
    predicted: np.ndarray
    images: np.ndarray | None
    class_names: Sequence[str] = ()
    file_paths: Sequence[str] = ()
    n_errors: int = 0
    n_errors_low: int = 0
    n_errors_high: int = 0
    memorized: bool = False

    _draw, _html = "draw_suspects", ("plot", "to_frame")

    def __str__(self) -> str:
        total, limits = f"{len(self.labels):,}", f"{self.n_errors_low:,} to {self.n_errors_high:,}"
        if self.n_errors:
            text = f"About {self.n_errors:,} of {total} labels are wrong (95 % interval: {limits})"
            return f"{text}; they are probably the first {self.n_errors:,} of the ranking."
        text = f"Up to {self.n_errors_high:,} of {total} labels may be wrong; none is certain."
        return text + " The model has probably memorized the labels." * self.memorized

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
    retrain: Callable[[Any, np.ndarray], keras.Model] | None = None,
    class_names: Sequence[str] = (),
) -> SuspectLabels:
    """Rank images by how likely their label is wrong, and estimate how many labels are wrong.

    Logistic regressions on the model's features are fitted in cross-validation, so that no fit has
    seen the label that it judges. The model's own probabilities count as much, unless they fit
    worse. The less probable a label is, compared with others of its class, the more suspect it is,
    as in confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068). Wrong labels
    are counted among sure predictions, where mistakes are rare.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        data: Dataset of batches (images, labels), read twice, or a pair of arrays; labels are class
            indices or one-hot. A warning says if the data are shuffled: indices then mean nothing.
        n_folds: Folds of the cross-validation, 2 or more; each class needs at least as many images.
        retrain: `retrain(images, labels)` -> a new keras.Model, trained on these arrays (labels are
            class indices), for each fold. These judge the labels instead of `model`. Needed if
            `model` has memorized label errors of its training data; a warning says so.
        class_names: The names of the classes, by index, for tables and figures.

    Raises:
        ValueError: If the data do not fit, or a class has fewer than `n_folds` images.

    Example:
        >>> pets, model = cnnviz.drawn_pets(40), cnnviz.load_pretrained()
        >>> cnnviz.suspect_labels(model, (pets.images, pets.labels)).ranking.shape
        (40,)
    """
    options = {"record": layers.every_layer, "name": "data", "description": "features"}
    parts = layers.stream(model, data, _measures, key="suspects", labels=True, **options)
    kept = [(inputs if retrain else (), labels, found) for inputs, labels, found, _ in parts]
    inputs, labels, found = tf.nest.map_structure(lambda *same: np.concatenate(same), *kept)
    classes, columns, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < n_folds:
        given = f"`data` (classes {classes}, {counts} images) must have two classes or more, with"
        raise ValueError(f"{given} at least `n_folds` (={n_folds}) images of each")
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    last, earlier, own = found
    own = _of_classes(own, classes)
    memorized = retrain is None and _is_memorized(earlier, own, columns, folds)
    if retrain is not None:
        own = _retrained(retrain, inputs, labels, classes, folds)
        scores, _ = _mixed([own], columns)
    elif not memorized:
        scores = _scores(last, own, columns, folds)
    else:
        own, scores = None, _scores(earlier, None, columns, folds)
        layers.warn(
            "`model` predicts nearly all labels, and its earlier features far fewer: if it was "
            "trained on these images, it has memorized their labels, and wrong ones cannot be told "
            "from right ones. Give images that it was not trained on, or `retrain=`"
        )
    given = np.exp(scores)[np.arange(len(labels)), columns]
    predicted, ranking = classes[scores.argmax(axis=1)], given.argsort(kind="stable")
    judges = [scores] if own is None else [scores, np.log(np.clip(own.astype(float), 1e-30, 1))]
    n_errors = _count(max(judges, key=lambda x: (x.argmax(axis=1) == columns).mean()), columns)
    if memorized:
        n_errors = 0, 0, max(n_errors[2], int((predicted != labels).sum()))
    images, paths = None, ()
    if not layers.warn_if_shuffled(data):
        paths = tuple(getattr(data, "file_paths", ()))
        if len(layers.input_shape(model)) == 4:
            images, _ = pick(model, data, ranking[:MOST_IMAGES])
    about = labels, given, predicted, images, tuple(class_names), paths
    return SuspectLabels(ranking, *about, *n_errors, memorized)


def _measures(call):
    """-> ((means of the last and of an earlier feature map, own probabilities), None)."""
    maps = list(layers.feature_maps(call).values())
    earlier = tf.cast(maps[round(EARLIER * (len(maps) - 1))], tf.float32)
    outputs = tf.nest.flatten(call.output)
    own = tf.zeros((tf.shape(earlier)[0], 0))
    if len(outputs) == 1:  # of several, nothing says which one the labels belong to
        own = layers.probabilities(layers.classifier_output(call))
    means = tf.reduce_mean(earlier, list(range(1, earlier.shape.rank - 1)))
    return (mean_features(call)[0], means, own), None


def _of_classes(own, classes):
    """The columns of probabilities for the classes that occur; None if they do not fit."""
    if own.shape[1] == len(classes):
        return own
    return own[:, classes] if classes.min() >= 0 and classes.max() < own.shape[1] else None


def _fitted(features, columns, folds, penalty):
    """(N, classes) probabilities by a logistic regression that had not seen the image."""
    fit = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=1000))
    return cross_val_predict(fit, features, columns, cv=folds, method="predict_proba")


def _retrained(retrain, inputs, labels, classes, folds):
    """(N, classes) probabilities by models that were trained without the image."""
    found = np.zeros((len(labels), len(classes)))
    with progress_bar(folds.n_splits, "retraining", "fold") as bar:
        for train, test in folds.split(labels, labels):
            model = retrain(layers.take(inputs, train), labels[train])
            own = layers.class_probabilities(model, layers.take(inputs, test))
            if (own := _of_classes(own, classes)) is None:
                raise ValueError(f"`retrain` must return a model of the classes {classes}")
            found[test] = own
            bar.update()
    return found


def _is_memorized(earlier, own, columns, folds):
    """Whether a model predicts nearly all labels, and a fit of its earlier features far fewer."""
    if own is None or (share := np.mean(own.argmax(axis=1) == columns)) < MEMORIZED:
        return False
    fitted = _fitted(earlier, columns, folds, 10 * PENALTIES[0])
    # In healthy models the difference was at most 0.04 (of 150 images) and 0.02 (of 500).
    gap = share - np.mean(fitted.argmax(axis=1) == columns)
    return bool(gap > 0.04 + 0.3 / len(columns) ** 0.5)


def _scores(features, own, columns, folds):
    """(N, classes) log-probabilities of the classes, of fits and of the model itself."""
    fits = [_fitted(features, columns, folds, penalty) for penalty in PENALTIES]
    fitted, loss = _mixed(fits, columns)
    if own is None:
        return fitted
    own, own_loss = _mixed([own], columns)
    worse = own_loss - loss
    if worse.mean() > 2 * worse.std() / len(columns) ** 0.5:
        return fitted
    return _adjusted(log_softmax((fitted + own) / 2, axis=1), columns)


def _mixed(probabilities, columns):
    """-> (the best mixture of log-probabilities, adjusted by class; the loss for each image)."""
    sources = [np.log(np.clip(one, 1e-6, 1)) for one in probabilities]
    sources = np.stack([_adjusted(log_softmax(one, axis=1), columns) for one in sources])
    n_sources, _, n_classes = sources.shape

    def mix(weights, biases=0):
        return log_softmax(np.tensordot(weights, sources, 1) + biases, axis=1)

    def losses(x):
        return -mix(x[:n_sources], x[n_sources:])[range(len(columns)), columns]

    def loss(x):
        return losses(x).mean() + 1e-3 * np.square(x[n_sources:]).sum()

    start = np.repeat([1 / n_sources, 0], (n_sources, n_classes))
    x = minimize(loss, start, bounds=[(0, 20)] * n_sources + [(-9, 9)] * n_classes).x
    return _adjusted(mix(x[:n_sources]), columns), losses(x)


def _adjusted(scores, columns):
    """Log-probabilities divided by the mean probability that the images of a class have of it."""
    means = [np.exp(scores[columns == one, one]).mean() for one in range(scores.shape[1])]
    return log_softmax(scores - np.log(np.maximum(means, 1e-6)), axis=1)


def _count(scores, columns):
    """(number of wrong labels, the ends of its 95 % interval).

    Where the margin over the next class is largest, a model makes few mistakes: labels that
    disagree with it there are wrong, and other labels are wrong as often. If they disagree there
    far less often than elsewhere, they may all be mistakes: then the number is 0. Of two classes,
    one-sided errors show among the images of one prediction.
    """
    ordered, predicted = np.sort(scores, axis=1), scores.argmax(axis=1)
    margin, wrong = ordered[:, -1] - ordered[:, -2], predicted != columns
    found = np.rint(_count_group(margin, wrong)).astype(int)
    if not found[1] and scores.shape[1] == 2:
        sides = [_count_group(margin[predicted == k], wrong[predicted == k]) for k in (0, 1)]
        one_sided = np.rint(sum(sides)).astype(int)
        found = one_sided if one_sided[1] else found
    return tuple(found.tolist())


def _count_group(margin, wrong):
    """(number of wrong labels, the ends of its interval) among the images of one group."""
    if not len(wrong):
        return np.zeros(3)
    top = np.argsort(-margin, kind="stable")[: max(len(wrong) // 2, FEWEST)]
    share, often = interval(wrong[top].sum(), len(top)), wrong.mean()
    if share[1] <= PLATEAU * often or often >= MOST or len(wrong) < 2 * FEWEST:
        share = 0, 0, share[2]
    return len(wrong) * np.array(share)
