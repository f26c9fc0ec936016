"""(model, data) -> in plain words, where the pictures or their labels do not fit the model."""

import dataclasses
import hashlib
import warnings

import keras
import numpy as np
from scipy.optimize import linear_sum_assignment

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.batches import LabelledData, check_labels, labelled_batches

MAX_PICTURES = 500  # of the data that are looked at; a fault of the pipeline is in all of them
LESS_LOSS = 0.8  # a change counts if it brings the cross-entropy below this share of what it was,
STANDARD_ERRORS = 2  # and if the difference is this many standard errors
SMALLEST_PROBABILITY = 1e-4  # so that one sure mistake does not outweigh all else
AUGMENTED = (
    "The pictures change from one reading to the next. If they are augmented, do that to the "
    "training part only; if others are drawn each time, by a shuffle before a take, fix the choice."
)
RANGE = "The pixels lie in"
TWICE = "0..1/255"  # what no model wants: pictures that were divided by 255 twice
_RANGES = {TWICE: (0, 1 / 255), "0..1": (0, 1), "-1..1": (-1, 1), "0..255": (0, 255)}


@dataclasses.dataclass(frozen=True)
class InputReport:
    """What does not fit between a model and its data; printed, one sentence a line.

    Attributes:
        findings: Sentences, each a fault and what mends it; none if all fits.
        accuracy: Share right as the data come.
        mended_accuracy: Share right with the faults mended that can be undone.
        pictures: How many pictures were looked at.
    """

    findings: tuple[str, ...]
    accuracy: float
    mended_accuracy: float
    pictures: int

    def __str__(self) -> str:
        return "\n".join(self.findings) or (
            f"Nothing found: {self.accuracy:.1%} of {self.pictures} pictures are right as they are."
        )


def check_inputs(
    model: keras.Model, data: LabelledData, *, max_pictures: int = MAX_PICTURES
) -> InputReport:
    """Find out whether pictures and labels come in the form that a trained model was trained on.

    The faults of an input pipeline make no error, only wrong answers. Each is undone on trial here:
    if that makes the labels much more likely, the fault is there. Several at once are found one
    after the other, the gravest first.

    Args:
        model: keras.Model, trained, that `class_probabilities` takes; it is left as it was.
        data: tf.data.Dataset of batches (images, labels), of a part that should not be augmented,
            such as the validation part; or a pair of arrays. It is read twice.
        max_pictures: Pictures that the trials are made on, drawn at random from all, by a fixed
            seed.

    Returns:
        InputReport: it finds a missing or a repeated rescaling, swapped colour channels, another
        image size than that of the training, labels in another order, and pictures that change from
        one reading to the next (augmentation).

    Raises:
        ValueError: If the data or `max_pictures` are not as said here, or all pictures are of one
            class: whatever leads the model to that class would make them right.
    """
    check_integer("max_pictures", max_pictures, 2)
    images, labels, seen = _read(model, data, max_pictures)
    *_, seen_again = _read(model, data, max_pictures)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"`data` (of which {len(labels)} pictures were looked at, all of class {labels[0]}) "
            "must hold pictures of two classes or more"
        )
    findings = [AUGMENTED] if seen != seen_again else []
    loss, accuracy = _quality(model, images, labels)
    before = accuracy
    while better := _best_change(model, images, labels, loss, accuracy):
        fault, images, labels, loss, after = better
        findings.append(f"{fault}: {accuracy:.1%} -> {after:.1%} right.")
        accuracy = after
    return InputReport(tuple(findings), before, accuracy, len(images))


def _read(model, data, count):
    """-> `count` of the pictures, at random, their labels, and the fingerprints of all there are.

    Data are often sorted by class, so the first ones would not do: reservoir sampling (Vitter 1985)
    keeps each with the same probability.
    """
    random, seen, kept, pictures = np.random.default_rng(0), set(), [], 0
    for images, labels in labelled_batches(model, data, "reading"):
        for image, label in zip(images, labels, strict=True):
            seen.add(hashlib.sha256(image.tobytes()).digest())
            pictures += 1
            if len(kept) < count:
                kept.append((image.copy(), label))
            elif (place := random.integers(pictures)) < count:
                kept[place] = image.copy(), label
    images, labels = (np.stack(both) for both in zip(*kept, strict=True))
    return images, labels, seen


def _quality(model, images, labels):
    """-> ((N,) cross-entropy in nats, share right)."""
    probabilities = _probabilities(model, images)
    check_labels(labels, probabilities.shape[1])
    given = probabilities[np.arange(len(labels)), labels]
    right = float((probabilities.argmax(axis=1) == labels).mean())
    return -np.log(np.maximum(given, SMALLEST_PROBABILITY)), right


def _probabilities(model, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried out here
        return layers.class_probabilities(model, images)


def _best_change(model, images, labels, loss, before):
    """The change that makes most pictures right, of those that make the labels likelier; or None.

    Two at once are tried only where none alone helps and the network seems to know nothing.

    A larger range makes some networks only surer of the same answers, which is no fault: where the
    network knows more than the most frequent class, it must also be right more often than `before`.
    """
    knows = before > np.bincount(labels).max() / len(labels)
    for changes in (_changed,) if knows else (_changed, _changed_together):
        helping = _helping(changes(model, images, labels), model, loss, before, knows)
        best = max(helping, key=lambda change: change[4], default=None)
        if best is not None:
            return best
    return None


def _helping(changes, model, loss, before, knows):
    """Of the changes (fault, images, labels), those that help, with their loss and accuracy."""
    for fault, images, labels in changes:
        new_loss, accuracy = _quality(model, images, labels)
        gain = loss - new_loss
        error = gain.std() / len(gain) ** 0.5
        sure = gain.mean() > STANDARD_ERRORS * error and new_loss.mean() < LESS_LOSS * loss.mean()
        only_surer = knows and accuracy <= before and fault.startswith(RANGE)
        if sure and not only_surer:
            yield fault, images, labels, new_loss, accuracy


def _changed(model, images, labels):
    """Each fault undone: (the fault in words, images, labels)."""
    yield from _changed_pictures(model, images, labels)
    yield from _reordered(model, images, labels)


def _changed_together(model, images, labels):
    """A fault of the pictures undone and one of the labels, which hides what that gains."""
    for of_pictures, new_images, _ in _changed_pictures(model, images, labels):
        for of_labels, _, new_labels in _reordered(model, new_images, labels):
            both = f"{of_pictures}, and {of_labels[0].lower()}{of_labels[1:]}"
            yield both, new_images, new_labels


def _changed_pictures(model, images, labels):
    yield from _rescaled(images, labels)
    if images.shape[3] == 3:
        yield "The colour channels are swapped, BGR in place of RGB", images[..., ::-1], labels
    shape = layers.input_shape(model) or (None,) * 4
    if shape[1:3] == (None, None):
        yield from _resized(images, labels)


def _reordered(model, images, labels):
    order = _label_order(model, images, labels)
    if order is not None:
        moved = [
            f"label {label} is output {place}"
            for label, place in enumerate(order)
            if label != place
        ]
        fault = f"The labels are in another order than the outputs, {', '.join(moved[:6])}"
        yield fault, images, np.asarray(order)[labels]


def _rescaled(images, labels):
    low, high = float(images.min()), float(images.max())
    fitting = [
        name
        for name, (least, most) in _RANGES.items()
        if least <= low and high <= most * (1 + 1e-6)
    ]
    if not fitting:
        return
    lowest, highest = _RANGES[fitting[0]]
    for target, (least, most) in _RANGES.items():
        if target not in (fitting[0], TWICE):
            fault = f"{RANGE} {low:.3g}..{high:.3g}, but the model wants {target}"
            share = (images - lowest) / (highest - lowest)
            yield fault, least + share * (most - least), labels


def _resized(images, labels):
    height, width = images.shape[1:3]
    for share in (0.5, 2, 0.25, 4):
        size = round(height * share), round(width * share)
        if min(size) >= 16 and max(size) <= 512:
            fault = (
                f"The pictures are {height}x{width} pixels, and the model does better at "
                f"{size[0]}x{size[1]}, nearer to the size of its training"
            )
            yield fault, np.stack([_resized_one(image, size) for image in images]), labels


def _resized_one(image, size):
    return resize_image(image, size).reshape(*size, image.shape[2])


def _label_order(model, images, labels):
    """The order of the classes that makes most pictures right, if it is another than now."""
    probabilities = _probabilities(model, images)
    classes = probabilities.shape[1]
    together = np.zeros((classes, classes))
    np.add.at(together, labels, probabilities)
    _, order = linear_sum_assignment(-together)
    return None if (order == np.arange(classes)).all() else order.tolist()
