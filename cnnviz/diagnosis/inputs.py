"""Find out whether images and labels come in the form that a trained model was trained on."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections import namedtuple
from collections.abc import Callable

import cv2
import keras
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.images import find_image_faults, is_small
from cnnviz.diagnosis.measures import pick
from cnnviz.results import Result

SURE = 3  # standard errors by which a change must help, and an accuracy exceed chance
WORTH = 0.02  # of accuracy that a fault must cost to be named
MANY = 0.1  # share of the images whose defects are a finding, and not only a remark
FACTORS = (0.5, 0.75, 1.5, 2)  # of the size
CLOSE = 24  # to 0..255
MIXED = "while others"
SAME = 0.02  # nats of cross-entropy
FIRST, KEPT = 64, 3  # images on which all changes are tried; how many changes are combined
TEMPERATURES = 2.0 ** np.arange(-3, 8)
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # ImageNet's, RGB
# What a pipeline makes of `plain` images, RGB in 0..255: (plain * factor + summand)[..., ::step].
Form = namedtuple("Form", "name factor summand step")
PLAIN = Form("0..255", 1, 0, 1)
TORCH = "what `preprocess_input` of DenseNet makes (0..1, then ImageNet's standard scores)"
CAFFE = "what `preprocess_input` of VGG and ResNet makes (BGR, less ImageNet's mean color)"
FORMS = [
    PLAIN,
    Form("0..1", 1 / 255, 0, 1),
    Form("-1..1", 1 / 127.5, -1, 1),
    Form(TORCH, 1 / 255 / DEVIATION, -MEAN / DEVIATION, 1),
    Form(CAFFE, 1, -np.array([123.68, 116.779, 103.939]), -1),
    Form("-0.5..0.5", 1 / 255, -0.5, 1),
    Form("-127.5..127.5", 1, -127.5, 1),
    Form("0..2", 1 / 127.5, 0, 1),
    Form("0..100", 1 / 2.55, 0, 1),
    Form("0..65535", 257, 0, 1),
]
EACH = Form("images that are standardized one by one", None, 0, 1)
SCORES = Form("ImageNet's standard scores, without 0..1", 1 / DEVIATION, -MEAN / DEVIATION, 1)
# How images were converted, and how OpenCV converts them back.
SPACES = {"HSV": cv2.COLOR_HSV2RGB_FULL, "HSV with hues in 0..180": cv2.COLOR_HSV2RGB}
SPACES |= {"YCrCb": cv2.COLOR_YCrCb2RGB, "Lab": cv2.COLOR_LAB2RGB}
SWAPS = {
    "".join("RGB"[i] for i in given): given
    for given in list(itertools.permutations(range(3)))[:0:-1]
}
INVERTED = "inverted"
TURNS = {
    "upside down": ("x[:, ::-1]", lambda x: x[:, ::-1]),
    "mirrored": ("x[:, :, ::-1]", lambda x: x[:, :, ::-1]),
    "transposed": ("x.swapaxes(1, 2)", lambda x: x.swapaxes(1, 2)),
    "turned by 180 degrees": ("x[:, ::-1, ::-1]", lambda x: x[:, ::-1, ::-1]),
    "turned to the left": ("np.rot90(x, -1, (1, 2))", lambda x: np.rot90(x, -1, (1, 2))),
    "turned to the right": ("np.rot90(x, 1, (1, 2))", lambda x: np.rot90(x, 1, (1, 2))),
    "transposed along the other diagonal": (
        "x[:, ::-1, ::-1].swapaxes(1, 2)",
        lambda x: x[:, ::-1, ::-1].swapaxes(1, 2),
    ),
}
# What is undone on trial: the form that images have and the one they get, and what else.
Change = namedtuple("Change", "source target color turn size order", defaults=(None,) * 4)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InputReport(Result):
    """What does not fit between a model and `n_images` of its data.

    `findings` are sentences, each a fault and how much it costs. `remarks` are true as well, but
    may be intended. `accuracy` is that of the data as they come, `mended_accuracy` that of
    `mend(images, labels)`, which undoes all faults that can be undone (None if there are none), and
    `most_frequent` that of always predicting the most frequent class.
    """

    findings: tuple[str, ...]
    accuracy: float
    most_frequent: float
    mended_accuracy: float
    n_images: int
    remarks: tuple[str, ...] = ()
    mend: Callable | None = dataclasses.field(default=None, repr=False)

    _html = ()

    def __str__(self) -> str:
        chance = f"{self.most_frequent:.1%} are of the most frequent class"
        nothing = f"Nothing found: the accuracy is {self.accuracy:.1%} on {self.n_images} images"
        return "\n".join((*(self.findings or (f"{nothing}, of which {chance}.",)), *self.remarks))


def check_inputs(
    model: keras.Model, data: layers.LabeledData, *, n_images: int = 500
) -> InputReport:
    """Find out whether images and labels come in the form that a trained model was trained on.

    Each fault is undone on trial, alone and together with others: another value range, a rescaling
    or `preprocess_input` that is missing, repeated or another family's, swapped or converted color
    channels, inverted, turned or mirrored images, another image size than in training, and labels
    in another order. One half of the images chooses by cross-entropy, at the best temperature, with
    equal weight for all classes; the other half must confirm it. A fault that costs less than 2 %
    of accuracy is not named. Also found are augmentation and images that are black or repeated.

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
    seen = []

    def reading():
        for images, _ in layers.batches(model, data, description="reading", labels=True):
            seen.extend(hash(image.tobytes()) for image in images)
            yield images

    faults = find_image_faults(reading())
    indices = np.sort(np.random.default_rng(0).permutation(len(seen))[:n_images])
    images, labels = pick(model, data, indices) if len(indices) else ((), ())
    if len(np.unique(labels)) < 2:
        raise ValueError(f"`data` ({len(labels)} images, {n_images=}) needs two classes or more")
    findings, remarks, mixed = [], [], None
    for text, which in faults:
        enough = len(which) >= MANY * len(seen)
        if enough and MIXED in text:
            mixed = text
        else:
            (findings if enough else remarks).append(text)
    if {hash(image.tobytes()) for image in images} - set(seen):
        text = "The images change from one reading to the next: augment the training split only."
        findings.append(text)
    if images.shape[3] == 3 and np.ptp(images, axis=3).max() == 0:
        remarks.append("All images are gray. If the model was trained in color, load them so.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried here
        probabilities = layers.class_probabilities(model, images)
        layers.check_labels(labels, probabilities.shape[1])
        trials = _Trials(model, _same_range(images) if mixed else images, labels)
        before = float((probabilities.argmax(axis=1) == labels).mean())
        steps, best = trials.chain()
    first, faults, cures = before, [], []
    if mixed:
        steps = [(mixed.rstrip("."), "`x * 255` for those in 0..1", trials.start), *steps]
    for fault, cure, change in steps:
        faults, cures, after = [*faults, fault], [*cures, cure], trials.accuracy(change)
        if after > before or change is steps[-1][2]:
            text = f"{'. '.join(faults)}. With {', then '.join(cures)}: accuracy"
            findings.append(f"{text} {before:.1%} -> {after:.1%}.")
            before, faults, cures = after, [], []

    def mend(images, labels):
        images = np.asarray(images, np.float32)
        order = np.arange(probabilities.shape[1]) if best.order is None else np.array(best.order)
        return _mended(_same_range(images) if mixed else images, best), order[labels]

    frequent = float(np.bincount(labels).max() / len(labels))
    rest = before, len(labels), tuple(remarks), mend if steps else None
    return InputReport(tuple(findings), first, frequent, *rest)


def _same_range(images):
    """Images of which some lie in 0..1, all of them in 0..255."""
    return np.stack([image * 255 if is_small(image) else image for image in images])


class _Trials:
    """The predictions of a model for images of which something is undone, each computed once."""

    def __init__(self, model, images, labels):
        self.model, self.images, self.labels, self.known = model, images, labels, {}
        self.sources = _sources(images)
        self.start = Change(self.sources[0], self.sources[0])
        by_class = labels.argsort(kind="stable")
        self.chooses, self.confirms = by_class[::2], by_class[1::2]

    def probabilities(self, change, rows):
        known = self.known.setdefault(_key(change), {})
        missing = [row for row in rows if row not in known]
        if missing:
            images = _mended(self.images[missing], change)
            known.update(zip(missing, layers.class_probabilities(self.model, images), strict=True))
        return np.stack([known[row] for row in rows])

    def accuracy(self, change, rows=None):
        rows = np.arange(len(self.labels)) if rows is None else rows
        return float(self.correct(change, rows).mean())

    def correct(self, change, rows):
        labels = self.labels[rows]
        labels = labels if change.order is None else np.array(change.order)[labels]
        return self.probabilities(change, rows).argmax(axis=1) == labels

    def losses(self, change, rows):
        return _losses(self.probabilities(change, rows), self.labels[rows], change.order)

    def better(self, change, other, rows, errors, least=0.0):
        """Whether the first has a lower cross-entropy than the second, by standard errors."""
        gain = self.losses(other, rows) - self.losses(change, rows)
        return gain.mean() > least + errors * gain.std() / len(gain) ** 0.5

    def ordered(self, change, rows):
        """The change with the order of labels that fits on half of the rows, if the rest agrees."""
        order = _order(self.probabilities(change, rows[::2]), self.labels[rows[::2]])
        other = change._replace(order=order)
        return other if order and self.better(other, change, rows[1::2], 2) else change

    def ranked(self, changes, rows):
        changes = [self.ordered(change._replace(order=None), rows) for change in changes]
        return sorted(changes, key=lambda change: self.losses(change, rows).mean())

    def more(self, change):
        """All changes with one more thing undone."""
        images, (height, width, channels) = self.images, self.images.shape[1:]
        if change.target is change.source:
            for source in self.sources:
                for target in _targets(images, source):
                    yield change._replace(source=source, target=target)
        if change.color is None:
            colors = [*SWAPS, *SPACES] if channels == 3 else []
            yield from (change._replace(color=color) for color in [*colors, INVERTED])
        if change.turn is None:
            for turn in TURNS:
                shape = TURNS[turn][1](images[:1]).shape
                if shape == images[:1].shape or layers.takes(self.model, shape):
                    yield change._replace(turn=turn)
        if change.size is None and layers.input_shape(self.model)[1:3] == (None, None):
            for factor in FACTORS:
                size = round(height * factor), round(width * factor)
                fits = 16 <= min(size) and max(size) <= 512
                if fits and layers.takes(self.model, (1, *size, channels)):
                    yield change._replace(size=size)

    def search(self):
        """The change that the first half of the images chooses."""
        few = self.chooses[np.linspace(0, len(self.chooses) - 1, FIRST).astype(int)]
        few = np.unique(few) if len(self.chooses) < FIRST else few
        few = few[self.labels[few].argsort(kind="stable")]
        singles = [self.start, *self.more(self.start)]
        changed = [one for one in singles if one.target is not one.source]
        if self.images.shape[3] == 3:
            singles += [one._replace(color="BGR") for one in changed]
        pool = self.ranked(singles, few)
        for _ in range(2):
            if self.accuracy(pool[0], few) > 1 - WORTH:
                break
            more = [new for one in pool[:KEPT] for new in self.more(one)]
            pool = self.ranked([*pool[: 2 * KEPT], *more], few)
        finals = self.ranked([self.start, *pool[: 2 * KEPT]], self.chooses)
        finals = [one for one in finals if not self.better(finals[0], one, self.chooses, 1, SAME)]
        created = list(self.known)  # plain ones first
        return min(finals, key=lambda x: (len(_parts(x)), x.order is not None, created.index(_key(x))))

    def chain(self):
        """[(fault, cure, change so far)] of what is wrong for sure, and the whole change."""
        if self.accuracy(self.start) > 1 - WORTH:
            return [], self.start
        best = self.search()
        while parts := _parts(best):
            for without in parts.values():
                worth = self.accuracy(best) - self.accuracy(without) >= WORTH
                if not (worth and self.better(best, without, self.confirms, SURE)):
                    best = without
                    break
            else:
                break
        if not parts or not self.beats_chance(best):
            return [], self.start
        return _steps(self.images, best), best

    def beats_chance(self, change):
        labels, correct = self.labels[self.confirms], self.correct(change, self.confirms)
        used, counts = np.unique(labels, return_counts=True)
        recall = np.mean([correct[labels == label].mean() for label in used])
        error = ((1 / counts).sum() * (1 - 1 / len(used)) / len(used)) ** 0.5 / len(used)
        return recall > 1 / len(used) + SURE * error


def _key(change):
    return change.source.name, change.target.name, *change[2:5]


def _parts(change):
    """{what is undone: the change without it}."""
    undone = {key: change._replace(**{key: None}) for key in Change._fields[2:]}
    undone = {key: other for key, other in undone.items() if getattr(change, key) is not None}
    if change.target is not change.source:
        undone["target"] = change._replace(target=change.source)
    return undone


def _losses(probabilities, labels, order):
    """(N,) cross-entropy among the classes that occur, each with equal weight, if averaged."""
    used, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
    outputs = used if order is None else np.array(order)[used]
    logits = np.log(np.clip(probabilities[:, outputs].astype(float), 1e-12, 1))
    weights = len(labels) / len(used) / counts[own]
    colder = (logits / temperature for temperature in TEMPERATURES)
    each = [logsumexp(one, axis=1) - one[np.arange(len(own)), own] for one in colder]
    return min((weights * losses for losses in each), key=np.mean)


def _order(probabilities, labels):
    """The order of the outputs that fits the labels best, a tuple; None if it is that of now."""
    used = np.unique(labels)
    together = [probabilities[labels == label].mean(axis=0) for label in used]
    order = np.arange(probabilities.shape[1])
    order[used] = linear_sum_assignment(np.array(together), maximize=True)[1]
    return None if (order[used] == used).all() else tuple(order.tolist())


def _sources(images):
    """The forms that the images may have: those in which they fill 0..255 best."""
    axes, n = (0, 1, 2), images.shape[3]
    low, high = images.min(axes), images.max(axes)
    whole = Form(f"{low.min():.4g}..{high.max():.4g}", np.ptp(images) / 255, low.min(), 1)
    each = Form(f"{whole.name}, another range in each channel", (high - low) / 255, low, 1)
    moments = images.mean((1, 2, 3)), images.std((1, 2, 3)) - 1
    if np.abs(moments).max() < 0.05:
        return [Form(EACH.name, 1 / 62, -120 / 62, 1), whole]  # as photographs are on average
    found = []
    twice = [_twice(*pair) for pair in itertools.product(FORMS[1:], [*FORMS[1:], SCORES])]
    for form in [*FORMS, _twice(PLAIN, SCORES), *twice]:
        if n == 3 or np.ndim(form.factor) + np.ndim(form.summand) == 0:
            ends = [(x[:: form.step] - form.summand) / form.factor for x in (low, high)]
            found.append((abs(np.min(ends)) + abs(np.max(ends) - 255), form))
    least = min(distance for distance, _ in found)
    named = [form for distance, form in found if distance <= least + CLOSE][:3]
    return named if least < CLOSE else [*named[:2], whole, *([each] if n == 3 else [])]


def _twice(first, second):
    """The form of images that are made into one form and then, as if not, into another."""
    (a, b), (c, d) = (np.broadcast_arrays(*form[1:3], np.zeros(3))[:2] for form in (first, second))
    c, d = c[:: first.step], d[:: first.step]
    again = "once more" if first is second else f"into {second.name}"
    name = f"{first.name}, and then made {again}"
    factor, summand = a * c, b * c + d
    if np.ptp(factor) + np.ptp(summand) == 0:
        factor, summand = factor[0], summand[0]
    return Form(name, factor, summand, first.step * second.step)


def _targets(images, source):
    n, plain = images.shape[3], _affine(images, source, PLAIN)
    forms = [form for form in FORMS if n == 3 or np.ndim(form.factor) + np.ndim(form.summand) == 0]
    for name, axes in (("", None), (" in each channel", (0, 1, 2)))[: 1 + (n == 3)]:
        mean, deviation = plain.mean(axes), plain.std(axes) + 1e-6
        forms.append(Form(f"mean 0, deviation 1{name}", 1 / deviation, -mean / deviation, 1))
    return [form for form in [*forms, EACH] if form.name != source.name]


def _factors(source, target, color, n):
    """(index, factors, summands): the pixels are x[..., index] * factors + summands then."""
    a, b, c, d = (np.broadcast_to(x, n).astype(float) for x in (*source[1:3], *target[1:3]))
    index = [color.index(letter) for letter in "RGB"] if color in SWAPS else list(range(n))
    sign = -1 if color == INVERTED else 1
    factors = sign * c / a[index]
    summands = d + c * (255 * (sign < 0) - sign * (b / a)[index])
    step = target.step
    return np.arange(n)[:: source.step][index][::step], factors[::step], summands[::step]


def _affine(images, source, target, color=None):
    index, factors, summands = _factors(source, target, color, images.shape[3])
    return (images[..., index] * factors + summands).astype(np.float32)


def _mended(images, change):
    """Images with a change made."""
    source, target, color, turn, size, _ = change
    if color in SPACES:
        plain = np.uint8(np.clip(_affine(images, source, PLAIN), 0, 255).round())
        images = np.stack([cv2.cvtColor(image, SPACES[color]) for image in plain])
        source, color = PLAIN, None
    if target is EACH:
        plain = _affine(images, source, PLAIN, color)
        spread = np.maximum(plain.std((1, 2, 3), keepdims=True), 1)
        images = (plain - plain.mean((1, 2, 3), keepdims=True)) / spread
    elif target is not source or color:
        images = _affine(images, source, target, color)
    images = TURNS[turn][1](images) if turn else images
    if size:
        resized = np.stack([resize_image(image, size) for image in images])
        images = resized.reshape(len(images), *size, -1)
    return np.ascontiguousarray(images, np.float32)


def _code(source, target, color, n):
    """Python that makes one form of another."""
    if target is EACH:
        return "`tf.image.per_image_standardization(x)`"
    index, factors, summands = _factors(source, target, color, n)
    channels = "" if (index == np.arange(n)).all() else f"[..., {index.tolist()}]"
    code = f"x{'[..., ::-1]' if index.tolist() == [2, 1, 0] else channels}"
    if np.allclose(factors, -1):
        return f"`{_literal(summands)} - {code}`"
    if not np.allclose(factors, 1):
        small = np.abs(factors).max() < 1
        code += f" / {_literal(1 / factors)}" if small else f" * {_literal(factors)}"
    if np.allclose(summands, 0):
        return f"`{code}`"
    negative = summands.max() < 0
    return f"`{code} {'-' if negative else '+'} {_literal(-summands if negative else summands)}`"


def _literal(numbers):
    texts = [f"{number:.7g}" for number in numbers]
    return texts[0] if len({*texts}) == 1 else f"({', '.join(texts)})"


def _steps(images, best):
    """[(fault, cure, change so far)]: one for each thing that is undone."""
    n, (source, target) = images.shape[3], best[:2]
    moves = [(label, to) for label, to in enumerate(best.order or ()) if label != to]
    said = ", ".join(f"label {label} is output {to}" for label, to in moves[:6])
    origin = "" if ".." in source.name[:6] and "," not in source.name else f" ({source.name})"
    span = f"{images.min():.3g}..{images.max():.3g}{origin}"
    scalar = np.ndim(source.factor) + np.ndim(source.summand) == 0
    form = source if scalar else target  # in which the colors are undone
    swap = f"The color channels are swapped, {best.color} instead of RGB"
    space = f"The images are converted to {best.color}, but the model wants RGB"
    inverted = "The images are inverted, dark for bright"
    now, size = (f"{height}x{width}" for height, width in (images.shape[1:3], best.size or (0, 0)))
    color = swap if best.color in SWAPS else space if best.color in SPACES else inverted
    texts = {
        "color": (color, "RGB" if best.color in SPACES else _code(form, form, best.color, n)),
        "target": (
            f"The pixels lie in {span}, but the model wants {target.name}",
            _code(source, target, None, n),
        ),
        "turn": (f"The images are {best.turn}", f"`{TURNS.get(best.turn, ' ')[0]}`"),
        "size": (f"The images are {now} pixels, and the model does better at {size}", size),
        "order": (
            f"The labels are in another order than the outputs, {said}",
            f"`np.array({list(best.order or ())})[y]`",
        ),
    }
    change, steps = Change(source, source), []
    for key in texts if scalar else ("target", *texts):
        if key in _parts(best) and getattr(change, key) is not getattr(best, key):
            change = change._replace(**{key: getattr(best, key)})
            steps.append((*texts[key], change))
    return steps
