"""Find out whether images and labels come in the form that a trained model was trained on."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import warnings

import keras
import numpy as np
from scipy.optimize import linear_sum_assignment

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.measures import pick
from cnnviz.results import Result

HELPS, SURE = 2, 3  # standard errors by which a change must help, an accuracy be above chance
OVERSHOOT = 64  # beyond 0..255, by the ringing of sharp resizing
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
# A fault undone; of each image the probability of its label, and whether that is predicted.
Trial = collections.namedtuple("Trial", "fault images labels given correct accuracy")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InputReport(Result):
    """What does not fit between a model and `n_images` of its data.

    `findings` are sentences, each a fault and how much it costs. `accuracy` is that of the data as
    they come, `mended_accuracy` that with the faults undone, and `most_frequent` that of always
    predicting the most frequent class.
    """

    findings: tuple[str, ...]
    accuracy: float
    most_frequent: float
    mended_accuracy: float
    n_images: int

    _html = ()

    def __str__(self) -> str:
        chance = f"{self.most_frequent:.1%} are of the most frequent class"
        nothing = f"Nothing found: the accuracy is {self.accuracy:.1%} on {self.n_images} images"
        return "\n".join(self.findings) or f"{nothing}, of which {chance}."


def check_inputs(
    model: keras.Model, data: layers.LabeledData, *, n_images: int = 500
) -> InputReport:
    """Find out whether images and labels come in the form that a trained model was trained on.

    Each fault is undone on trial: if the predictions become better, it is there. It finds a
    rescaling or `preprocess_input` that is missing or repeated, swapped color channels, another
    image size than in training, labels in another order, and augmentation; also several at once.

    Args:
        model: keras.Model, trained, that `class_probabilities` takes; it is left as it was.
        data: Dataset of batches (images, labels), read twice, of a split that should not be
            augmented, such as validation; or a pair of arrays. Two classes or more.
        n_images: Images for the trials, 2 or more, drawn at random from all, by a fixed seed.

    Raises:
        ValueError: If the data do not fit the model, or hold one class only.

    Example:
        >>> pets, model = cnnviz.drawn_pets(40), cnnviz.load_pretrained()
        >>> cnnviz.check_inputs(model, (pets.images, pets.labels)).n_images
        40
    """
    check_integer("n_images", n_images, 2)
    layers.only_images(model, "`check_inputs`")
    batches = layers.batches(model, data, description="reading", labels=True)
    seen = [hash(image.tobytes()) for images, _ in batches for image in images]
    indices = np.sort(np.random.default_rng(0).permutation(len(seen))[:n_images])
    images, labels = pick(model, data, indices) if len(indices) else ((), ())
    if len(np.unique(labels)) < 2:
        raise ValueError(f"`data` ({len(labels)} images, {n_images=}) needs two classes or more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried here
        probabilities = layers.class_probabilities(model, images)
        layers.check_labels(labels, probabilities.shape[1])
        start = _trial("", images, labels, probabilities)
        # Preprocessing, which does several things at once, must beat what single changes do.
        preprocessed = _helping(model, start, _rescaled(images, (STANDARDIZED, CENTERED)))
        chains = [[start], *([start, trial] for trial in preprocessed)]
        for chain in chains:
            while better := max(_helping(model, chain[-1]), key=lambda x: x.accuracy, default=None):
                chain.append(better)
    best = max(chains, key=lambda chain: chain[-1].accuracy)
    best = best if best[-1].accuracy > _beyond_chance(labels) else [start]
    changed = {hash(image.tobytes()) for image in images} - set(seen)
    text = "The images change from one reading to the next: augment the training split only."
    findings = [text] if changed else []
    for before, after in itertools.pairwise(best):
        findings += [f"{after.fault}: accuracy {before.accuracy:.1%} -> {after.accuracy:.1%}."]
    accuracies = start.accuracy, float(np.bincount(labels).max() / len(labels)), best[-1].accuracy
    return InputReport(tuple(findings), *accuracies, len(labels))


def _trial(fault, images, labels, probabilities):
    correct = probabilities.argmax(axis=1) == labels
    given = probabilities[np.arange(len(labels)), labels]
    return Trial(fault, images, labels, given, correct.astype(float), float(correct.mean()))


def _beyond_chance(labels):
    """Share of the most frequent class, plus a few of its standard errors."""
    share = np.bincount(labels).max() / len(labels)
    return share + SURE * (share * (1 - share) / len(labels)) ** 0.5


def _helping(model, now, changes=None):
    """Trials that surely help: better predictions or, if those are chance, more probable labels."""
    knows = now.accuracy > _beyond_chance(now.labels)
    for fault, images in changes or _changed(model, now.images):
        probabilities = layers.class_probabilities(model, images)
        for order, labels in (("", now.labels), *_reordered(probabilities, now.labels)):
            trial = _trial(". ".join(filter(None, (fault, order))), images, labels, probabilities)
            gain = trial.correct - now.correct if knows else trial.given - now.given
            sure = gain.mean() > HELPS * gain.std() / len(gain) ** 0.5
            if sure and trial.accuracy >= now.accuracy:
                yield trial


def _reordered(probabilities, labels):
    """(fault, labels in the order of the outputs that fits best), if it is another than now.

    One half of each class decides, and on the other it must beat chance: some order always fits.
    """
    decides = np.zeros(len(labels), bool)
    decides[labels.argsort(kind="stable")[::2]] = True
    together = np.zeros((probabilities.shape[1],) * 2)
    np.add.at(together, labels[decides], probabilities[decides])
    _, order = linear_sum_assignment(-together)
    correct = probabilities.argmax(axis=1)[~decides] == order[labels[~decides]]
    moved = [label for label in np.unique(labels) if order[label] != label]
    if moved and correct.mean() > _beyond_chance(labels[~decides]):
        moves = ", ".join(f"label {label} is output {order[label]}" for label in moved[:6])
        yield f"The labels are in another order than the outputs, {moves}", order[labels]


def _changed(model, images):
    """(fault, images): the images as they are, and with each fault undone."""
    yield "", images
    yield from _rescaled(images, ("0..1", "-1..1", "0..255"))
    if images.shape[3] == 3:
        yield "The color channels are swapped, BGR instead of RGB", images[..., ::-1]
    height, width = images.shape[1:3]
    for factor in (0.5, 2) if layers.input_shape(model)[1:3] == (None, None) else ():
        size = round(height * factor), round(width * factor)
        fits = 16 <= min(size) and max(size) <= 512
        if fits and layers.takes(model, (1, *size, images.shape[3])):
            fault = f"The images are {height}x{width} pixels, and the model does better at "
            resized = np.stack([resize_image(image, size) for image in images])
            yield f"{fault}{size[0]}x{size[1]}", resized.reshape(len(images), *size, -1)


def _rescaled(images, targets):
    """(fault, images) in the target forms, if the form that they have can be told."""
    forms = [name for name in FORMS if images.shape[3] == 3 or not np.ndim(FORMS[name][0])]
    for form in forms:
        offset, scale, step = FORMS[form]
        plain = images[..., ::step] * scale + offset
        if -OVERSHOOT <= plain.min() <= plain.max() <= 255 + OVERSHOOT:
            break
    else:
        return
    for target in [one for one in targets if one in forms and one != form]:
        offset, scale, step = FORMS[target]
        span = f"{images.min():.3g}..{images.max():.3g}"
        fault = f"The pixels lie in {span}, but the model wants {target}"
        yield fault, ((plain - offset) / scale)[..., ::step]
