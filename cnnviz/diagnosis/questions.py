"""What `diagnose` asks: each check adds its findings to a case, and returns its result in words."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt

from cnnviz import figures, layers
from cnnviz.diagnosis.census import filter_census
from cnnviz.diagnosis.duplicates import find_duplicates
from cnnviz.diagnosis.findings import Finding
from cnnviz.diagnosis.images import find_image_faults
from cnnviz.diagnosis.inputs import check_inputs
from cnnviz.diagnosis.labels import suspect_labels
from cnnviz.diagnosis.measures import (
    calibration_bins,
    difference,
    expected_calibration_error,
    interval,
    pick,
    predictions,
)
from cnnviz.diagnosis.mistakes import confident_mistakes

# Chosen so that healthy models have no fault, on few images too. A bound holds for the end of the
# 95 % interval that is nearer to harmless.
COSTS, HIGH_COST = 0.05, 0.15  # accuracy from which on a loss is a suspicion, and a fault
CONSTANT = 0.95  # share of the predictions that are of one class
BALANCED = 0.8  # share of one class, above which always predicting it may be the best there is
LEAKED, MISLABELED = 0.02, 0.05  # shares of images from which on they are faults
FEW = 0.01  # share of the images, defective or with a copy, below which it is only a note
RARE = 10  # times fewer images than the most frequent class has
ENOUGH = 200  # images from which on dead filters are more than a note
SURE = 0.95  # probability from which on a mistake is a confident one
N_TRIED = 300  # images for the trials of `check_inputs`
BROKEN = "nan", "images", "collapse", "dead filters"  # kinds that make correct labels look wrong
# What to do about each kind of finding, and the call that shows more.
REMEDIES = {
    "nan": "Look for the first layer with NaN: float16 may overflow, or the learning rate is high.",
    "images": "Look at these images, and at the code that loads them.",
    "inputs": "Repair the code that loads the data.",
    "collapse": "Train again: lower the learning rate, shuffle, and weight rare classes.",
    "imbalance": "Judge each class by its own accuracy, and weight the rare ones in training.",
    "overfitting": "Use more images, augmentation, weight decay or dropout, or a smaller model.",
    "calibration": "Divide the logits by a temperature that is fitted on validation images.",
    "dead filters": "If accuracy is low, lower the learning rate or add BatchNormalization.",
    "label errors": "Look at these images; correct the labels that are wrong.",
    "duplicates": "Keep one of each.",
    "leakage": "Remove the copies from one of the splits.",
    "mistakes": "Look at them: a label may be wrong, or training may lack such images.",
}
CALLS = {
    "nan": "extract_activations(model, images)",
    "images": "figures.draw_images(images[indices])",
    "collapse": "figures.draw_confusion_matrix(labels, predicted)",
    "imbalance": "figures.draw_confusion_matrix(labels, predicted)",
    "overfitting": "figures.draw_learning_curves(history)",
    "calibration": "diagnosis.expected_calibration_error(probabilities, labels)",
    "dead filters": "filter_census(model, validation)",
    "label errors": "suspect_labels(model, validation)",
    "mistakes": "confident_mistakes(model, validation, train)",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split: its name, its data (repaired once their form is known), and the predictions."""

    name: str
    data: Any
    labels: np.ndarray
    probabilities: np.ndarray
    files: tuple[str, ...]
    ordered: bool  # whether each pass has the same order, so that indices mean something

    @property
    def predicted(self):
        if not np.isfinite(self.probabilities).all():
            raise ValueError(f"the predictions for {self.name} hold NaN or infinity")
        return self.probabilities.argmax(axis=1)

    @property
    def sure_mistakes(self):
        """Indices of mistakes with a probability of `SURE` or more, the most confident first."""
        confidence = self.probabilities.max(axis=1)
        wrong = np.flatnonzero((self.predicted != self.labels) & (confidence >= SURE))
        return wrong[np.argsort(-confidence[wrong], kind="stable")]

    @property
    def score(self):
        """(number of right predictions, number of images)."""
        return int((self.predicted == self.labels).sum()), len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model, its splits by name, the names of its classes, and what was found so far."""

    model: Any
    splits: dict[str, Split]
    class_names: tuple[str, ...]
    findings: list[Finding] = dataclasses.field(default_factory=list)

    @property
    def validation(self):
        return self.splits["validation"]

    def name(self, index):
        return f"'{figures.class_name(self.class_names, index)}'"

    def confusion(self, split):
        """What draws the confusion matrix of a split."""
        classes = split.labels, split.predicted, self.class_names
        return lambda: figures.draw_confusion_matrix(*classes)

    def add(self, severity, kind, sentence, numbers=(), split=None, indices=(), **more):
        """Add a `Finding`, with its (number, low, high), and the files of its images.

        `figure` draws one; `remedy` and `call` stand instead of the usual ones.
        """
        remedy = more.pop("remedy", REMEDIES[kind])
        call = f"cnnviz.{more.pop('call', None) or CALLS[kind]}"
        more |= dict(zip(("number", "low", "high"), map(float, np.ravel(numbers)), strict=False))
        if split is not None:
            indices = np.asarray(indices if split.ordered else (), int)
            files = tuple(split.files[index] for index in indices) if len(split.files) else ()
            more |= {"split": split.name, "indices": indices, "files": files}
        if draw := more.pop("figure", None):
            more["figure"] = draw()
            plt.close(more["figure"])  # or Jupyter would show it at the end of the cell
        self.findings.append(Finding(severity, kind, sentence, remedy, call, **more))


def said(share, low, high):
    """A share and its interval, such as "93.0% (91.2 to 94.4)"."""
    return f"{share:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def ask_finite(case):
    """Are weights and outputs finite?"""
    if broken := layers.broken_layer(case.model):
        case.add("fault", "nan", f"The weights of layer '{broken}' hold NaN or infinity.")
        return case.findings[-1].sentence
    for split in case.splits.values():
        bad = np.flatnonzero(~np.isfinite(split.probabilities).all(axis=1))
        if len(bad):
            text = f"The model gives NaN or infinity for {len(bad):,} images of {split.name}."
            case.add("fault", "nan", text, len(bad), split, bad)
            return text
    return "weights and outputs are finite"


def ask_images(case):
    """Are there images that hold nothing, or come in another range than the others?"""
    n_images, n_defects = 0, 0
    for split in case.splits.values():
        n_images += len(split.labels)
        read = layers.batches(case.model, split.data)
        images = (layers.image_of(case.model, inputs) for inputs, _ in read)
        for sentence, indices in find_image_faults(images):
            n_defects += 1
            share, few = len(indices) / len(split.labels), (case.model, split.data, indices[:6])
            severity = "fault" if share >= COSTS else "suspicion" if share >= FEW else "note"
            text = f"{split.name.capitalize()}: {sentence}"
            more = {"cost": share, "figure": lambda few=few: figures.draw_images(pick(*few)[0])}
            case.add(severity, "images", text, share, split, indices, **more)
    text = f"{n_images:,} images read, {figures.counted(n_defects, 'defect')}"
    shuffled = [name for name, split in case.splits.items() if not split.ordered]
    text += f"; shuffled, so that images cannot be named: {', '.join(shuffled)}" if shuffled else ""
    return text


def ask_inputs(case):
    """Do images and labels come in the form that the model was trained on?"""
    results = []
    for name, split in case.splits.items():
        report = check_inputs(case.model, split.data, n_images=N_TRIED)
        results.append(f"{name}: accuracy {report.accuracy:.1%} as given")
        results += [f"{name}: {one}" for one in report.remarks if one not in report.defects]
        text = " ".join(one for one in report.findings if one not in report.defects)
        if report.mend and (idle := _idle_layers(case.model, split.data)):
            results.append(f"{name}: not judged, as no filter of '{idle[0]}' has an effect")
            continue  # another range may wake them, but is not the cause
        if not text:
            continue
        gain, more = max(report.mended_accuracy - report.accuracy, 0.0), {}
        if report.mend:
            results.append(f"{name}: accuracy {report.mended_accuracy:.1%} repaired")
            more["remedy"] = f"{REMEDIES['inputs']} Later checks used the repaired data."
            before = case.model, split.data, report.mend
            more["figure"] = functools.partial(_before_and_after, *before)
            case.splits[name] = measured(case.model, name, mended(*before), split.files)
        more |= {"cost": gain, "call": f"check_inputs(model, {name})"}
        severity, text = "fault" if gain >= COSTS else "suspicion", f"{name.capitalize()}: {text}"
        case.add(severity, "inputs", text, report.accuracy, split, **more)
    return "; ".join(results)


def _idle_layers(model, data):
    try:
        return filter_census(model, data).idle
    except ValueError:  # without feature maps
        return ()


def _before_and_after(model, data, mend):
    inputs, labels = next(layers.batches(model, data, labels=True))
    given, repaired = inputs[:4], mend(inputs[:4], labels[:4])[0]
    units = [(x - x.min()) / max(float(np.ptp(x)), 1e-9) for x in (*given, *repaired)]
    titles = ["as given"] * len(given) + ["repaired"] * len(repaired)
    return figures.draw_images(units, titles, value_range=(0, 1))


def mended(model, data, mend):
    """The same data, repaired batch by batch."""

    def read():
        for inputs, labels in layers.batches(model, data, labels=True):
            yield mend(inputs, labels)

    shape = next(read())[0].shape[1:]
    signature = tf.TensorSpec((None, *shape), tf.float32), tf.TensorSpec((None,), tf.int32)
    return tf.data.Dataset.from_generator(read, output_signature=signature)


def measured(model, name, data, files):
    """The `Split` of some data; its predictions need not be finite."""
    options = {"name": name, "description": name, "finite": False}
    parts = [part[1:3] for part in predictions(model, data, **options)]
    labels, probabilities = (np.concatenate(both) for both in zip(*parts, strict=True))
    layers.check_labels(labels, probabilities.shape[1], name)
    if not len(labels):
        raise ValueError(f"`{name}` (without a single image) must not be empty")
    if len(files) not in (0, len(labels)):
        raise ValueError(f"`paths` ({len(files)}) must be one for each of {len(labels)} images")
    ordered = not layers.warn_if_shuffled(data, name)
    return Split(name, data, labels, probabilities, tuple(files), ordered)


def ask_balance(case):
    """Are the classes equally frequent?"""
    split = case.validation
    counts = np.bincount(split.labels, minlength=split.probabilities.shape[1])
    least, *_, most = counts.argsort(kind="stable")
    text = f"{counts[most]:,} images of {case.name(most)}, {counts[least]:,} of {case.name(least)}"
    if counts[most] >= RARE * max(counts[least], 1):
        share, figure = counts[least] / counts.sum(), case.confusion(split)
        case.add("note", "imbalance", f"Validation holds {text}.", share, figure=figure)
    return text


def ask_accuracy(case):
    """Is the model better than always predicting one class?"""
    split, n = case.validation, len(case.validation.labels)
    counts, often = np.bincount(split.labels), np.bincount(split.predicted).argmax()
    accuracy, frequent = interval(*split.score), counts.max() / n
    share, own = interval((split.predicted == often).sum(), n), (split.labels == often).mean()
    more = {"cost": 1 - accuracy[0], "figure": case.confusion(split)}
    if share[0] >= CONSTANT and own <= BALANCED and share[1] > own:
        text = f"The model predicts {case.name(often)} for {said(*share)} of the images; "
        case.add("fault", "collapse", f"{text}{own:.1%} have this label.", share, **more)
    elif accuracy[1] <= frequent:
        severe = frequent <= BALANCED and accuracy[2] - frequent < 2 * COSTS
        text = f"The accuracy, {said(*accuracy)}, is not above that of always predicting "
        text += f"{case.name(counts.argmax())}, {frequent:.1%}."
        remedy = "Check that the labels belong to the images, and that the loss falls in training."
        more |= {"remedy": remedy, "call": CALLS["collapse"]}
        case.add("fault" if severe else "suspicion", "mistakes", text, accuracy, **more)
    return f"accuracy {said(*accuracy)}; {frequent:.1%} are {case.name(counts.argmax())}"


def ask_overfitting(case):
    """Is the model better on the images that it was trained on?"""
    return _gap(case, "train", "validation", "overfitting", "Overfitting")


def ask_new_data(case):
    """Is the model as good on the images from another source?"""
    remedy = "Validate on images like those in use; look for leakage and for shortcuts."
    about = {"remedy": remedy, "call": "confident_mistakes(model, test, train)"}
    return _gap(case, "validation", "test", "mistakes", "The accuracy falls", **about)


def _gap(case, first, second, kind, words, **more):
    for name in (first, second):
        if name not in case.splits:
            raise ValueError(f"it needs `{name}`")
    split, scores = case.splits[second], [case.splits[name].score for name in (first, second)]
    gap, accuracies = difference(*scores[0], *scores[1]), [said(*interval(*s)) for s in scores]
    text = f"accuracy {accuracies[0]} in {first}, {accuracies[1]} in {second}"
    if gap[1] > COSTS:
        severity = "fault" if gap[1] > HIGH_COST else "suspicion"
        more |= {"cost": gap[0], "figure": case.confusion(split)}
        case.add(severity, kind, f"{words}: {text}.", gap, split, **more)
    return text


def ask_one_sided(case):
    """Do the mistakes go one way?"""
    split = case.splits.get("test", case.validation)
    gaps, predicted = [], split.predicted
    for index in np.unique(split.labels):
        own, chosen = split.labels == index, predicted == index
        if not own.all():
            pairs = (chosen & ~own).sum(), (~own).sum(), (~chosen & own).sum(), own.sum()
            gaps.append((*difference(*pairs), index, pairs[0] / pairs[1], pairs[2] / pairs[3]))
    if not gaps:
        raise ValueError("it needs images of two classes or more")
    *gap, index, taken, missed = max(gaps, key=lambda gap: gap[1])
    name, others = case.name(index), split.labels != index
    text = f"{taken:.1%} of other images are predicted as {name}, {missed:.1%} of {name} as others"
    if gap[1] > HIGH_COST and len(np.unique(predicted)) > 1:  # else it is a collapse
        remedy = "Look for a mark that only one class has in training, and for rare classes."
        more = {"cost": gap[0] * others.mean(), "figure": case.confusion(split)}
        more |= {"remedy": remedy, "call": "grad_cam(model, images)"}
        sentence = f"In {split.name} the mistakes go one way: {text}."
        indices = np.flatnonzero(others & (predicted == index))
        case.add("suspicion", "mistakes", sentence, gap, split, indices, **more)
    return text


def ask_calibration(case):
    """Is the model as confident as it is accurate?"""
    split, accuracy = case.validation, interval(*case.validation.score)
    sure = split.probabilities.max(axis=1).mean()
    error = expected_calibration_error(split.probabilities, split.labels)
    text = f"mean probability {sure:.1%}, accuracy {said(*accuracy)}, calibration error {error:.3f}"
    if max(sure - accuracy[2], accuracy[1] - sure) > COSTS / 2:
        words = "overconfident" if sure > accuracy[0] else "underconfident"
        bins = calibration_bins(split.probabilities, split.labels)
        numbers = sure - accuracy[0], sure - accuracy[2], sure - accuracy[1]
        severity = "suspicion" if sure - accuracy[2] > COSTS else "note"  # caution does no harm
        more = {"cost": 0.0, "figure": lambda: figures.draw_calibration(bins, error)}
        case.add(severity, "calibration", f"The model is {words}: {text}.", numbers, **more)
    return text


def ask_filters(case):
    """Are there filters without effect?"""
    census = filter_census(case.model, case.validation.data)
    if severity := census.severity:
        if severity == "suspicion" and census.n_images < ENOUGH:  # others may fire on more images
            severity = "note"
        number = census.worst.share_dead
        case.add(severity, "dead filters", str(census), number, figure=census.plot)
    return str(census)


def ask_labels(case):
    """Are there images with a wrong label?"""
    split, n = case.validation, len(case.validation.labels)
    if interval(*split.score)[1] <= np.bincount(split.labels).max() / n:
        raise ValueError("it needs a model that is better than always predicting one class")
    if broken := [f.kind for f in case.findings if f.kind in BROKEN and f.severity != "note"]:
        raise ValueError(f"labels cannot be judged before this is repaired: {', '.join(broken)}")
    suspects = suspect_labels(case.model, split.data, class_names=case.class_names)
    numbers = suspects.n_errors, suspects.n_errors_low, suspects.n_errors_high
    text, indices = str(suspects), suspects.ranking[: suspects.n_errors]
    severity = "fault" if numbers[1] > MISLABELED * n else "suspicion"
    if severity == "fault" and any(found.kind == "overfitting" for found in case.findings):
        severity, text = "suspicion", f"{text} Or they are the mistakes of an overfitted model."
    if not len(indices):  # mistakes of which the model is sure may be wrong labels, too
        indices = split.sure_mistakes
        if interval(len(indices), n)[1] < MISLABELED:
            return text
        text += f" For {len(indices):,} images the model is sure of another class: either the label"
        text += " or the model is wrong."
    more = {"cost": len(indices) / n, "figure": suspects.images is not None and suspects.plot}
    case.add(severity, "label errors", text, numbers, split, indices, **more)
    return text


def ask_duplicates(case):
    """Are there copies of images, within validation and in other splits?"""
    split, n = case.validation, len(case.validation.labels)
    data = [each.data for each in case.splits.values()]
    copies = find_duplicates(*data, names=tuple(case.splits), class_names=case.class_names)
    call, leaked = f"find_duplicates({', '.join(case.splits)})", copies.copied[0]
    more = {"call": call, "figure": len(copies.images) and copies.plot}
    if len(leaked):
        share, clean = interval(len(leaked), n), np.setdiff1d(np.arange(n), leaked)
        text = f"Leakage: {said(*share)} of the validation images have a copy in another split."
        severity = "fault" if share[1] > LEAKED else "suspicion" if share[0] >= FEW else "note"
        cost = None
        if len(clean) and split.ordered:
            right = split.predicted == split.labels
            rest = interval(right[clean].sum(), len(clean))
            text += f" Without them the accuracy is {said(*rest)}."
            cost = max(right.mean() - rest[0], 0.0)
        case.add(severity, "leakage", text, share, split, leaked, cost=cost, **more)
    within = (copies.split == 0).all(axis=1)
    differ = within & (copies.labels[:, 0] != copies.labels[:, 1])
    for pairs, severity, kind, words, remedy in (
        (differ, "suspicion", "label errors", "with another label", "Correct one of the labels."),
        (within & ~differ, "note", "duplicates", "with the same label", REMEDIES["duplicates"]),
    ):
        if len(indices := np.unique(copies.index[pairs, 1])):
            text = f"Copies of other validation images, {words}: {len(indices):,}."
            case.add(severity, kind, text, len(indices) / n, split, indices, remedy=remedy, **more)
    return " ".join(str(copies).splitlines())


def ask_shortcuts(case):
    """Does the model use a mark or the background?"""
    raise ValueError("it needs a region: cnnviz.reliance(model, images, masks) measures one")


def ask_mistakes(case):
    """Which mistakes is the model confident of?"""
    split, wrong = case.validation, case.validation.sure_mistakes
    text = f"{figures.counted(len(wrong), 'mistake')} with a probability of {SURE:.0%} or more"
    if len(wrong):
        mistakes = confident_mistakes(case.model, split.data, class_names=case.class_names)
        figure, share = mistakes.images.ndim == 4 and mistakes.plot, len(wrong) / len(split.labels)
        case.add("note", "mistakes", f"{text}.", share, split, wrong, figure=figure)
    return text


# Name -> (question, what it does not cover); cheap ones, and causes of others, first.
QUESTIONS = {
    "finite numbers": (ask_finite, "How training went; cnnviz.Monitor shows it."),
    "images": (ask_images, "What the images show."),
    "inputs": (ask_inputs, "Faults that training had too, or that cost under 2 points."),
    "class balance": (ask_balance, "Whether classes are as frequent in use."),
    "accuracy": (ask_accuracy, "Images unlike those of validation."),
    "overfitting": (ask_overfitting, "Leakage hides it."),
    "new data": (ask_new_data, "Whether the test images are like those in use."),
    "one-sided mistakes": (ask_one_sided, "The cause; a shortcut shows on other sources only."),
    "calibration": (ask_calibration, "Single classes, and images unlike those of validation."),
    "dead filters": (ask_filters, "Layers that output no feature maps."),
    "label errors": (ask_labels, "The labels of training, which a model may memorize."),
    "duplicates and leakage": (ask_duplicates, "Other photographs of the same thing."),
    "shortcuts": (ask_shortcuts, "All shortcuts."),
    "confident mistakes": (ask_mistakes, "Mistakes with a lower probability."),
}
