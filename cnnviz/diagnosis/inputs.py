"""Find out whether images and labels come in the form that a trained model was trained on."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import NamedTuple

import keras
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.features import pick
from cnnviz.results import Result

LESS_LOSS = 0.8  # a change counts if it brings the cross-entropy below this share of what it was,
STANDARD_ERRORS = 2  # and if the difference is this many standard errors
SURE_ORDER = 3  # standard errors by which an order of the labels must beat the most frequent class
OVERSHOOT = 64  # beyond 0..255, by the ringing of sharp resizing
SMALLEST_PROBABILITY = 1e-4  # so that one confident mistake does not outweigh all else
TEMPERATURES = np.geomspace(1, 16, 17)
AUGMENTED = (
    "The images change from one reading to the next. If they are augmented, augment the training "
    "split only; if others are drawn each time, by a shuffle before a take, fix the choice."
)
RANGE = "The pixels lie in"
STANDARDIZED = "what `preprocess_input` of DenseNet makes (0..1, then ImageNet's standard scores)"
CENTERED = "what `preprocess_input` of VGG and ResNet makes (BGR, less ImageNet's mean color)"
# Images in 0..255, less the first, divided by the second, in the order of the channels.
FORMS = {
    "0..1/255": (0, 255**2, 1),  # no model wants it: divided by 255 twice
    "0..1": (0, 255, 1),
    "-1..1": (127.5, 127.5, 1),
    STANDARDIZED: (*(255 * np.float32([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])), 1),
    "0..255": (0, 1, 1),
    CENTERED: (np.float32([123.68, 116.779, 103.939]), 1, -1),
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InputReport(Result):
    """What does not fit between a model and its data.

    Attributes:
        findings: Sentences, each a fault and how much it costs; none if all fits. Cross-entropies
            are taken at the best-fitting temperature, so that over-confidence is not mistaken for a
            fault of the inputs.
        accuracy: Accuracy with the data as they come.
        most_frequent: Accuracy of always predicting the most frequent class.
        mended_accuracy: Accuracy with the faults undone that can be.
        n_images: How many images were used.
    """

    findings: tuple[str, ...]
    accuracy: float
    most_frequent: float
    mended_accuracy: float
    n_images: int

    _html = ()

    def __str__(self) -> str:
        if self.findings:
            return "\n".join(self.findings)
        found = f"Nothing found: the accuracy is {self.accuracy:.1%} on {self.n_images} images"
        if self.accuracy > _beyond_chance(self.most_frequent, self.n_images, STANDARD_ERRORS):
            return f"{found}."
        return (
            f"{found}, which is not surely more than the {self.most_frequent:.1%} of the most "
            "frequent class. The fault may be in the model (`filter_census`) or in the labels "
            "(`suspect_labels`)."
        )


class _Trial(NamedTuple):
    """Images and labels with a fault undone, the cross-entropy of each image, the accuracy."""

    fault: str
    images: np.ndarray
    labels: np.ndarray
    loss: np.ndarray
    accuracy: float


def check_inputs(
    model: keras.Model, data: layers.LabeledData, *, n_images: int = 500
) -> InputReport:
    """Find out whether images and labels come in the form that a trained model was trained on.

    The faults of an input pipeline make no error, only wrong predictions. Here each is undone on
    trial: if that makes the labels much more likely, the fault is there. It finds a rescaling or
    `preprocess_input` that is missing or repeated, swapped color channels, another image size than
    that of the training, labels in another order, and augmentation; also several at once.

    Args:
        model: keras.Model, trained, that `class_probabilities` takes; it is left as it was.
        data: Dataset of batches (images, labels), of a split that should not be augmented, such as
            validation; or a pair of arrays. It is read twice.
        n_images: Images for the trials, 2 or more, drawn at random from all, by a fixed seed.

    Returns:
        InputReport

    Raises:
        ValueError: If the data do not fit, or all images are of one class: whatever leads the model
            to predict it would make them right.

    Example:
        >>> pets = cnnviz.drawn_pets(40, seed=0)
        >>> cnnviz.check_inputs(cnnviz.load_pretrained(), (pets.images, pets.labels)).n_images
        40
    """
    check_integer("n_images", n_images, 2)
    batches = layers.batches(model, data, description="reading", labels=True)
    seen = [hash(image.tobytes()) for images, _ in batches for image in images]
    indices = np.sort(np.random.default_rng(0).permutation(len(seen))[:n_images])
    images, labels = pick(model, data, indices) if seen else ((), ())
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"`data` ({len(labels)} images, of class {np.unique(labels)}) must hold images of two "
            "classes or more"
        )
    start = _trial("", images, labels, _probabilities(model, images))
    # Preprocessing, which does several things at once, must beat what single changes do.
    preprocessed = _helping(model, start, _rescaled(images, (STANDARDIZED, CENTERED)))
    chains = [[start], *([start, trial] for trial in preprocessed)]
    for chain in chains:
        while better := _best(model, chain[-1]):
            chain.append(better)
    best = max(chains, key=lambda chain: chain[-1].accuracy)
    changed = {hash(image.tobytes()) for image in images} - set(seen)
    findings = [AUGMENTED] if changed else []
    findings += [
        f"{after.fault}: accuracy {before.accuracy:.1%} -> {after.accuracy:.1%}, cross-entropy "
        f"{before.loss.mean():.2f} -> {after.loss.mean():.2f}."
        for before, after in itertools.pairwise(best)
    ]
    accuracies = start.accuracy, _most_frequent(labels), best[-1].accuracy
    return InputReport(tuple(findings), *accuracies, len(labels))


def _most_frequent(labels):
    return float(np.bincount(labels).max() / len(labels))


def _beyond_chance(share, n_images, errors):
    """A share of the images plus so many of its standard errors."""
    return share + errors * (share * (1 - share) / n_images) ** 0.5


def _probabilities(model, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried here
        return layers.class_probabilities(model, images)


def _trial(fault, images, labels, probabilities):
    layers.check_labels(labels, probabilities.shape[1])
    logs, given = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)), labels[:, None]
    softened = (logs / temperature for temperature in TEMPERATURES)
    losses = [logsumexp(s, 1) - np.take_along_axis(s, given, 1)[:, 0] for s in softened]
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return _Trial(fault, images, labels, min(losses, key=np.mean), accuracy)


def _best(model, now):
    """The change that makes the predictions most accurate, of those that help; or None."""
    helping = _helping(model, now, _changed(model, now.images))
    return max(helping, key=lambda trial: trial.accuracy, default=None)


def _helping(model, now, changes):
    """Trials that help, of changed images (fault, images) with the labels as they are or reordered.

    A larger range may only make a model more confident of the same predictions, which is no fault:
    a model that is better than the most frequent class must become more accurate.
    """
    knows = now.accuracy > _most_frequent(now.labels)
    for fault, images in changes:
        probabilities = _probabilities(model, images)
        for order, labels in (("", now.labels), *_reordered(probabilities, now.labels)):
            both = ". ".join(filter(None, (fault, order)))
            trial = _trial(both, images, labels, probabilities)
            gain = now.loss - trial.loss
            sure = gain.mean() > STANDARD_ERRORS * gain.std() / len(gain) ** 0.5
            sure &= trial.loss.mean() < LESS_LOSS * now.loss.mean()
            same = knows and trial.accuracy == now.accuracy and both.startswith(RANGE)
            if both and sure and trial.accuracy >= now.accuracy and not same:
                yield trial


def _reordered(probabilities, labels):
    """[(fault, labels in the order of the outputs that fits best)], if it is another than now.

    It is decided on one half of the images of each class. On the other half it must be better than
    the most frequent class: an order that fits a few images by chance can always be found.
    """
    decides = np.zeros(len(labels), bool)
    decides[labels.argsort(kind="stable")[::2]] = True
    together = np.zeros((probabilities.shape[1],) * 2)
    np.add.at(together, labels[decides], probabilities[decides])
    _, order = linear_sum_assignment(-together)
    hits = probabilities.argmax(axis=1)[~decides] == order[labels[~decides]]
    least = _beyond_chance(_most_frequent(labels[~decides]), len(hits), SURE_ORDER)
    moved = [label for label in np.unique(labels) if order[label] != label]
    if not moved or hits.mean() <= least:
        return []
    moves = ", ".join(f"label {label} is output {order[label]}" for label in moved[:6])
    return [(f"The labels are in another order than the outputs, {moves}", order[labels])]


def _changed(model, images):
    """The images as they are, and with each fault undone: (fault, images)."""
    yield "", images
    yield from _rescaled(images, ("0..1", "-1..1", "0..255"))
    if images.shape[3] == 3:
        yield "The color channels are swapped, BGR instead of RGB", images[..., ::-1]
    height, width = images.shape[1:3]
    for factor in (0.5, 2) if layers.input_shape(model)[1:3] == (None, None) else ():
        size = round(height * factor), round(width * factor)
        if 16 <= min(size) and max(size) <= 512:
            resized = np.stack([resize_image(image, size) for image in images])
            yield (
                f"The images are {height}x{width} pixels, and the model does better at "
                f"{size[0]}x{size[1]}, nearer to the size of its training",
                resized.reshape(len(images), *size, images.shape[3]),
            )


def _rescaled(images, targets):
    """The images in the target forms, if the form that they have can be told."""
    of_any = [name for name in FORMS if images.shape[3] == 3 or not np.ndim(FORMS[name][0])]
    for name in of_any:
        offset, scale, step = FORMS[name]
        plain = images[..., ::step] * scale + offset
        if -OVERSHOOT <= plain.min() <= plain.max() <= 255 + OVERSHOOT:
            break
    else:
        return
    for target in [one for one in targets if one in of_any and one != name]:
        offset, scale, step = FORMS[target]
        span = f"{images.min():.3g}..{images.max():.3g}"
        fault = f"{RANGE} {span}, but the model wants {target}"
        yield fault, ((plain - offset) / scale)[..., ::step]
