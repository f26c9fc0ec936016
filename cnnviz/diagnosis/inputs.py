"""(model, data) -> in plain words, where the pictures or their labels do not fit the model."""

import dataclasses
import hashlib
import warnings

import keras
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from cnnviz import layers
from cnnviz.augmentation import OVERSHOOT
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.batches import LabelledData, check_labels, labelled_batches

MAX_PICTURES = 500  # of the data that are looked at; a fault of the pipeline is in all of them
LESS_LOSS = 0.8  # a change counts if it brings the cross-entropy below this share of what it was,
STANDARD_ERRORS = 2  # and if the difference is this many standard errors
LARGEST_SIDE = 512  # in pixels, that is tried out
SMALLEST_PROBABILITY = 1e-4  # so that one sure mistake does not outweigh all else
TEMPERATURES = np.geomspace(1, 16, 17)  # at which answers are compared, the best for each
AUGMENTED = (
    "The pictures change from one reading to the next. If they are augmented, do that to the "
    "training part only; if others are drawn each time, by a shuffle before a take, fix the choice."
)
RANGE = "The pixels lie in"
TWICE = "0..1/255"  # what no model wants: pictures that were divided by 255 twice
STANDARDIZED = "what `preprocess_input` of DenseNet makes (0..1, then ImageNet's standard scores)"
CENTERED = "what `preprocess_input` of VGG and ResNet makes (BGR, less ImageNet's mean colour)"
# The forms that models take pictures in, those of Keras's `imagenet_utils.preprocess_input` among
# them: a picture in 0..255, less the first, divided by the second.
_FORMS = {
    TWICE: (0, 255**2),
    "0..1": (0, 255),
    "-1..1": (127.5, 127.5),
    STANDARDIZED: (
        255 * np.float32([0.485, 0.456, 0.406]),
        255 * np.float32([0.229, 0.224, 0.225]),
    ),
    "0..255": (0, 1),
    CENTERED: (np.float32([123.68, 116.779, 103.939]), 1),  # in the order RGB, which is turned then
}


@dataclasses.dataclass(frozen=True)
class InputReport:
    """What does not fit between a model and its data; printed, one sentence a line.

    Attributes:
        findings: Sentences, each a fault and what mends it; none if all fits. A cross-entropy in
            them is that of answers as unsure as is best: to be less sure helps wherever labels are
            wrong, and says nothing of the pictures.
        accuracy: Share right as the data come.
        most_frequent: Share of the most frequent class, right without a look at the pictures.
        mended_accuracy: Share right with the faults mended that can be undone.
        pictures: How many pictures were looked at.
    """

    findings: tuple[str, ...]
    accuracy: float
    most_frequent: float
    mended_accuracy: float
    pictures: int

    def __str__(self) -> str:
        if self.findings:
            return "\n".join(self.findings)
        chance = (self.most_frequent * (1 - self.most_frequent) / self.pictures) ** 0.5
        right = f"{self.accuracy:.1%} of {self.pictures} pictures are right as they are"
        if self.accuracy > self.most_frequent + STANDARD_ERRORS * chance:
            return f"Nothing found: {right}."
        return (
            f"Nothing found: {right}, which is not surely more than the {self.most_frequent:.1%} "
            "of the most frequent class. The fault may be in the model or in the labels."
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
        InputReport: it finds a rescaling or `preprocess_input` that is missing or repeated, swapped
        colour channels, another image size than that of the training, labels in another order, and
        pictures that change from one reading to the next (augmentation).

    Raises:
        ValueError: If the data or `max_pictures` are not as said here, or all pictures are of one
            class: whatever leads the model to that class would make them right.
    """
    check_integer("max_pictures", max_pictures, 2)
    images, labels, seen = _read(model, data, max_pictures)
    seen_again = _read(model, data, max_pictures)[-1]
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"`data` (of which {len(labels)} pictures were looked at, all of class {labels[0]}) "
            "must hold pictures of two classes or more"
        )
    findings = [AUGMENTED] if seen != seen_again else []
    loss, before = _quality(model, images, labels)
    mended = [_mended(model, images, labels, loss, before)]
    # What does several things at once must be better than what one by one would do.
    preprocessed = _rescaled(images, labels, (STANDARDIZED, CENTERED))
    for change in _helping(preprocessed, model, labels, loss, before):
        finding = _finding(loss, before, change)
        found, accuracy = _mended(model, *change[1:])
        mended.append(([finding, *found], accuracy))
    found, accuracy = max(mended, key=lambda chain: chain[1])
    most_frequent = float(np.bincount(labels).max() / len(labels))
    findings = (*findings, *found)
    return InputReport(findings, before, most_frequent, accuracy, len(images))


def _mended(model, images, labels, loss, accuracy):
    """Undo one fault after the other, the gravest first -> (the findings, share right then)."""
    findings = []
    while change := _best_change(model, images, labels, loss, accuracy):
        findings.append(_finding(loss, accuracy, change))
        _, images, labels, loss, accuracy = change
    return findings, accuracy


def _finding(loss, accuracy, change):
    fault, _, _, new_loss, after = change
    return (
        f"{fault}: {accuracy:.1%} -> {after:.1%} right, cross-entropy {loss.mean():.2f} -> "
        f"{new_loss.mean():.2f}."
    )


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
    """-> ((N,) cross-entropy in nats, of answers as unsure as is best, share right)."""
    probabilities = _probabilities(model, images)
    check_labels(labels, probabilities.shape[1])
    logs, given = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)), labels[:, None]
    softened = (logs / temperature for temperature in TEMPERATURES)
    losses = [logsumexp(s, 1) - np.take_along_axis(s, given, 1)[:, 0] for s in softened]
    right = float((probabilities.argmax(axis=1) == labels).mean())
    return min(losses, key=np.mean), right


def _probabilities(model, images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried out here
        return layers.class_probabilities(model, images)


def _best_change(model, images, labels, loss, before):
    """The change that makes most pictures right, of those that make the labels likelier; or None.

    Two at once are tried only where none alone helps and the network seems to know nothing.
    """
    for changes in (_changed,) if _knows(labels, before) else (_changed, _changed_together):
        helping = _helping(changes(model, images, labels), model, labels, loss, before)
        best = max(helping, key=lambda change: change[4], default=None)
        if best is not None:
            return best
    return None


def _knows(labels, accuracy):
    """Whether a network knows more than the most frequent class."""
    return accuracy > np.bincount(labels).max() / len(labels)


def _helping(changes, model, labels, loss, before):
    """Of the changes (fault, images, labels), those that help, with their loss and accuracy.

    None makes the network wrong more often than `before`. A larger range makes some only surer of
    the same answers, which is no fault: a network that knows something with the `labels` as they
    are must be right more often then.
    """
    knows = _knows(labels, before)
    for fault, new_images, new_labels in changes:
        new_loss, accuracy = _quality(model, new_images, new_labels)
        gain = loss - new_loss
        error = gain.std() / len(gain) ** 0.5
        sure = gain.mean() > STANDARD_ERRORS * error and new_loss.mean() < LESS_LOSS * loss.mean()
        only_surer = knows and accuracy == before and fault.startswith(RANGE)
        if sure and accuracy >= before and not only_surer:
            yield fault, new_images, new_labels, new_loss, accuracy


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
    yield from _rescaled(images, labels, ("0..1", "-1..1", "0..255"))
    if images.shape[3] == 3:
        yield "The colour channels are swapped, BGR in place of RGB", images[..., ::-1], labels
    if layers.input_shape(model)[1:3] == (None, None):
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


def _rescaled(images, labels, targets):
    """The pictures in the target forms, if the form that they have can be told."""
    possible = [name for name in _FORMS if images.shape[3] == 3 or np.ndim(_FORMS[name][0]) == 0]
    undone = ((name, _without_form(images, name)) for name in possible)
    fitting = ((name, plain) for name, plain in undone if _lies_in_0_to_255(plain))
    name, plain = next(fitting, (None, None))
    for target in targets if name else ():
        if target in possible and target != name:
            span = f"{images.min():.3g}..{images.max():.3g}"
            yield f"{RANGE} {span}, but the model wants {target}", _in_form(plain, target), labels


def _in_form(images, name):
    """Pictures in 0..255 in one of the `_FORMS`."""
    offset, scale = _FORMS[name]
    images = (images - offset) / scale
    return images[..., ::-1] if name == CENTERED else images


def _without_form(images, name):
    offset, scale = _FORMS[name]
    return (images[..., ::-1] if name == CENTERED else images) * scale + offset


def _lies_in_0_to_255(images):
    """But for what sharp resizing adds at edges."""
    return images.min() >= -OVERSHOOT and images.max() <= 255 + OVERSHOOT


def _resized(images, labels):
    height, width = images.shape[1:3]
    for share in (0.5, 2, 0.25, 4):
        size = round(height * share), round(width * share)
        # Who does best at four times the size does better at twice the size, too.
        if min(size) >= 16 and max(size) <= (LARGEST_SIDE if share <= 2 else LARGEST_SIDE / 2):
            fault = (
                f"The pictures are {height}x{width} pixels, and the model does better at "
                f"{size[0]}x{size[1]}, nearer to the size of its training"
            )
            resized = np.empty((len(images), *size, images.shape[3]), np.float32)
            for place, image in zip(resized, images, strict=True):
                place[:] = resize_image(image, size).reshape(place.shape)
            yield fault, resized, labels


def _label_order(model, images, labels):
    """The order of the classes that makes most pictures right, if it is another than now."""
    probabilities = _probabilities(model, images)
    classes = probabilities.shape[1]
    together = np.zeros((classes, classes))
    np.add.at(together, labels, probabilities)
    _, order = linear_sum_assignment(-together)
    return None if (order == np.arange(classes)).all() else order.tolist()
