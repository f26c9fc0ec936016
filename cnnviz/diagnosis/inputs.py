"""Find out whether images and labels come in the form that a trained model was trained on."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections import namedtuple
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.diagnosis.images import MIXED, find_image_faults
from cnnviz.diagnosis.measures import pick
from cnnviz.results import Result

HELPS, SURE = 2, 2.5  # standard errors by which a change must help, an accuracy exceed chance
WORTH = 0.02  # accuracy that a fault must cost to be named
SAME = 0.02, 0.1  # difference of equal cross-entropies; where accuracies are equal
MANY = 0.1  # share of the images whose defects are a finding, and not only a remark
FIRST, KEPT = 48, 3  # images for the first trials; how many changes are combined with others
LEAST = 0.2, 0.35  # of the way from chance to 100 %; with an order of labels
DARK = 250  # of 0..255, what dark images may leave empty; with more, they are in another form
BIASES = ("bias", "beta", "moving_mean")  # weights that are 0 in an untrained model
ENOUGH = 0.95  # accuracy at which no more changes are combined
# A form of images: Python that makes RGB in 0..255 of it, and Python that makes it of those.
Form = namedtuple("Form", "name undo make", defaults=[""])  # without `make` only a source
CAFFE = "the form of `preprocess_input` of VGG and ResNet (BGR, less ImageNet's mean color)"
TORCH = "the form of `preprocess_input` of DenseNet (0..1, then ImageNet's standard scores)"
MEAN, SCALE, BGR = "(0.485, 0.456, 0.406)", "(0.229, 0.224, 0.225)", "(103.939, 116.779, 123.68)"
FORMS = [  # that a model may want, the plain ones first
    Form("0..255", "x", "x"),
    Form("0..1", "x * 255", "x / 255"),
    Form("-1..1", "(x + 1) * 127.5", "x / 127.5 - 1"),
    Form(TORCH, f"(x * {SCALE} + {MEAN}) * 255", f"(x / 255 - {MEAN}) / {SCALE}"),
    Form(CAFFE, f"(x + {BGR})[..., ::-1]", f"x[..., ::-1] - {BGR}"),
]
EACH = Form("images standardized one by one", "x * 62 + 120", "(x - 120) / 62")  # on average
BEFORE = {"0..1": "x * 255", "0..65535": "x / 257"}  # what images may be made into before a form
COLORS = {  # what is wrong with images in 0..255, and Python that undoes it
    "The color channels are swapped, BGR instead of RGB": "x[..., ::-1]",
    "The images are HSV, but the model wants RGB": "tf.image.hsv_to_rgb(x / 255).numpy() * 255",
    "The images are inverted, dark for bright": "255 - x",
}
TURNS = {
    "upside down": "x[:, ::-1]",
    "mirrored": "x[:, :, ::-1]",
    "rotated by 180 degrees": "x[:, ::-1, ::-1]",
    "transposed": "x.swapaxes(1, 2)",
    "rotated to the left": "x.swapaxes(1, 2)[:, :, ::-1]",
    "rotated to the right": "x.swapaxes(1, 2)[:, ::-1]",
}
# One thing undone: what was wrong, Python that undoes it, and the form of the images then. Of two
# that explain as much, the rarer one is not named.
Step = namedtuple("Step", "kind fault cure form rarity", defaults=[0])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InputReport(Result):
    """What does not fit between a model and `n_images` of its data.

    `findings` are sentences, a fault each, with its cost if known; `remarks` may be intended, and
    `defects` are those of both that are about single images. `accuracy` is that of the data as they
    come, `mended_accuracy` that with the faults undone, `most_frequent` that of always predicting
    the most frequent class. `mend(images, labels)` undoes what can be undone, or is None.
    """

    findings: tuple[str, ...]
    accuracy: float
    most_frequent: float
    mended_accuracy: float
    n_images: int
    remarks: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
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

    It tries to undo each fault, alone and with another: a wrong value range; `preprocess_input`
    missing, repeated or of another family; colors swapped, converted or inverted; images rotated,
    mirrored or resized; labels reordered. One half of the images chooses the repair by
    cross-entropy, and the other half must confirm it. A fault that costs less than 2 points of
    accuracy is not named. Augmented, black and repeated images are found too.

    Args:
        model: keras.Model, trained, that `class_probabilities` takes; it is left as it was.
        data: Dataset of batches (images, labels), read twice, of a split that should not be
            augmented, such as validation; or a pair of arrays. Two classes or more.
        n_images: Images for the trials, 2 or more, drawn at random from all, by a fixed seed.

    Raises:
        ValueError: If the data do not fit the model, or hold one class only.

    Example:
        >>> pets, model = cnnviz.drawn_pets(10), cnnviz.load_pretrained()
        >>> cnnviz.check_inputs(model, (pets.images, pets.labels)).n_images
        10
    """
    check_integer("n_images", n_images, 2)
    layers.only_images(model, "`check_inputs`")
    seen, findings, remarks, defects = [], [], [], []

    def reading():
        for images, _ in layers.batches(model, data, description="reading", labels=True):
            seen.extend(hash(image.tobytes()) for image in images)
            yield images

    for text, which in find_image_faults(reading()):
        (findings if len(which) >= MANY * len(seen) else remarks).append(text)
        defects.append(text)
    mixed = any(MIXED in text for text in findings)  # no one change fits all images then
    indices = np.sort(np.random.default_rng(0).permutation(len(seen))[:n_images])
    images, labels = pick(model, data, indices) if len(indices) else ((), ())
    if len(np.unique(labels)) < 2:
        raise ValueError(f"`data` ({len(labels)} images, {n_images=}) needs two classes or more")
    if {hash(image.tobytes()) for image in images} - set(seen):
        text = "The images change from one reading to the next: augment the training split only."
        findings.append(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried here
        trials = _Trials(model, images, labels)
        plain = eval(trials.sources[0].undo, {"x": images})
        if images.shape[3] == 3 and np.ptp(plain, axis=3).max() < np.ptp(plain) / 255:
            remarks.append("All images are gray. If the model was trained in color, load them so.")
        biases = [np.asarray(x) for x in model.weights if x.name in BIASES]
        untrained = bool(biases) and not any(map(np.any, biases))  # training changes them
        if untrained:
            remarks.append("The model seems untrained: all its biases are 0.")
        chain = () if untrained or mixed else _search(trials)
        before, after = (trials.correct(x, trials.rows).mean().item() for x in ((), chain))
    if chain:
        cures = " and then ".join(f"`{step.cure}`" for step in chain)
        faults = ". ".join(step.fault for step in chain)
        findings.append(f"{faults}. With {cures}: accuracy {before:.1%} -> {after:.1%}.")
    mend = (lambda x, y: (_mended(x, chain), _relabeled(y, chain))) if chain else None
    numbers = before, float(np.bincount(labels).max() / len(labels)), after
    texts = tuple(remarks), tuple(defects)
    return InputReport(tuple(findings), *numbers, len(labels), *texts, mend)


def _of_images(chain):
    """The steps that change the images, and not the order of the labels."""
    return tuple(step for step in chain if step.kind != "order")


def _cures(chain):
    return tuple(step.cure for step in _of_images(chain))


def _mended(x, chain):
    """Images as the cures make them. These are our own code, and run exactly as printed."""
    for cure in _cures(chain):
        x = eval(cure, {"x": np.asarray(x), "np": np, "tf": tf})
    return np.ascontiguousarray(x, np.float32)


def _relabeled(y, chain):
    return y if chain == _of_images(chain) else eval(chain[-1].cure, {"y": y, "np": np})


class _Trials:
    """Predictions for images and labels of which something is undone, each computed once."""

    def __init__(self, model, images, labels):
        self.model, self.images, self.labels, self.known = model, images, labels, {}
        self.sources, self.rows = _sources(images), np.arange(len(labels))
        by_class = labels.argsort(kind="stable")
        self.chooses, self.confirms = by_class[::2], by_class[1::2]
        layers.check_labels(labels, self.predict((), by_class).shape[1])

    def predict(self, chain, rows):
        known = self.known.setdefault(_cures(chain), {})  # {row: probabilities}
        if new := [row for row in rows if row not in known]:
            images = _mended(self.images[new], chain)
            known.update(zip(new, layers.class_probabilities(self.model, images), strict=True))
        return np.stack([known[row] for row in rows])

    def correct(self, chain, rows):
        return self.predict(chain, rows).argmax(1) == _relabeled(self.labels[rows], chain)

    def losses(self, chain, rows):
        """(N,) cross-entropy, with equal weight for all classes, at the best temperature."""
        used, own, counts = np.unique(self.labels[rows], return_inverse=True, return_counts=True)
        probabilities = self.predict(chain, rows)[:, _relabeled(used, chain)]
        logits = np.log(np.clip(probabilities.astype(float), 1e-12, 1))
        scaled = (log_softmax(logits / t, axis=1) for t in 2.0 ** np.arange(-3, 8))
        each = (-one[self.rows[: len(own)], own] for one in scaled)
        return min((x / counts[own] * len(own) / len(used) for x in each), key=np.mean)

    def better(self, chain, other, rows, errors, least=0.0):
        return _surely(self.losses(other, rows) - self.losses(chain, rows), least, errors)

    def confirmed(self, chain, other):
        """Whether it is worth it on all images, and surely better on those that did not choose."""
        gains = self.correct(chain, self.rows).astype(float) - self.correct(other, self.rows)
        rows = self.confirms
        sure = _surely(gains[rows]) and self.better(chain, other, rows, 0)
        sure = sure or self.better(chain, other, rows, HELPS)
        return gains.mean() >= WORTH * (4 * len(chain) - 4 * len(other) - 3) and sure

    def beats_chance(self, chain):
        """Whether classes are recognized, on average: an untrained model may seem to, somewhat."""
        labels, correct = self.labels[self.confirms], self.correct(chain, self.confirms)
        used, counts = np.unique(labels, return_counts=True)
        recall, chance = np.mean([correct[labels == x].mean() for x in used]), 1 / len(used)
        error = (chance**3 * (1 - chance) * (1 / counts).sum()) ** 0.5
        ordered = chain != _of_images(chain)
        least = chance + max(SURE * error, LEAST[ordered] * (1 - chance))
        sure = not ordered or self.predict(chain, self.confirms).max(axis=1).mean() > least
        return recall > least and sure

    def is_biased(self, chain):
        """Whether a bias for some classes explains as much: without it the model is good."""
        scores, _ = layers.run(self.model, self.images, _scores, key="scores")
        scores = log_softmax(scores - scores[self.chooses].mean(axis=0), axis=1)[self.confirms]
        labels, right = self.labels[self.confirms], scores.argmax(axis=1)
        right, loss = right == labels, -scores[self.rows[: len(labels)], labels].mean()
        cured, given = (self.correct(one, self.confirms) for one in (chain, ()))
        is_good = right.mean() > cured.mean() - WORTH and loss < np.log(scores.shape[1]) / 2
        return is_good and _surely(right.astype(float) - given)


def _surely(gains, least=0.0, errors=HELPS):
    return gains.mean() > least + errors * gains.std() / len(gains) ** 0.5


def _scores(call):
    return layers.class_scores(layers.classifier_output(call)), None


def _search(trials):
    """The steps that one half of the images chooses and the other confirms."""
    rows = trials.chooses
    few = rows[np.unique(np.linspace(0, len(rows) - 1, FIRST).astype(int))]
    if trials.correct((), trials.rows).mean() > 1 - WORTH:
        return ()
    pool = [(), *_longer(trials, ())]
    ranges = [chain for chain in pool[1:] if chain[0].kind == "range"]
    pool += [_longer(trials, chain, "color")[0] for chain in ranges]  # most often BGR
    pool = _ranked(trials, pool, few)
    fine = not pool[0] and trials.beats_chance(())
    if not fine and trials.correct(pool[0], few).mean() <= ENOUGH:
        more = [new for chain in pool[:KEPT] for new in _longer(trials, chain)]
        pool = _ranked(trials, [*pool, *more], few)
    kept = [(), *pool[:KEPT], *_plainest(trials, pool, few)[:KEPT]]
    pool = _ranked(trials, kept, rows)
    best = _plainest(trials, [chain for chain in pool if chain], rows)[0] if pool[0] else ()
    while best:
        parts = (part for n in range(len(best))[::-1] for part in itertools.combinations(best, n))
        spare = next((part for part in parts if not trials.confirmed(best, part)), None)
        if spare is None:
            return best if trials.beats_chance(best) and not trials.is_biased(best) else ()
        best = spare
    return ()


def _ranked(trials, chains, rows):
    """The chains, each with the order of labels that fits, the best first."""
    first = {_cures(chain): chain for chain in reversed(chains)}  # of those with the same cures
    chains = [_ordered(trials, chain, rows) for chain in reversed(first.values())]
    return sorted(chains, key=lambda chain: trials.losses(chain, rows).mean())


def _ordered(trials, chain, rows):
    """The chain, with the order of labels that fits half of the rows if it fits the rest."""
    chain = _of_images(chain)
    probabilities, labels = trials.predict(chain, rows[::2]), trials.labels[rows[::2]]
    order, used = np.arange(probabilities.shape[1]), np.unique(labels)
    together = np.array([probabilities[labels == label].mean(axis=0) for label in used])
    order[used] = linear_sum_assignment(together, maximize=True)[1]
    moves = [f"label {i} is output {order[i]}" for i in used if order[i] != i]
    fault = f"The labels are in another order than the outputs: {', '.join(moves[:6])}"
    other = *chain, Step("order", fault, f"np.array({order.tolist()})[y]", None, 0.1)
    return other if moves and trials.better(other, chain, rows[1::2], 2) else chain


def _plainest(trials, pool, rows):
    """Those that are as good as the first, the plainest ones first."""
    tried, most = list(trials.known), trials.correct(pool[0], rows).mean()

    def as_good(x):
        accurate = trials.correct(x, rows).mean() >= most - WORTH
        return not trials.better(pool[0], x, rows, 0, SAME[int(accurate)])

    def rarity(x):
        return sum(1 + step.rarity for step in x), tried.index(_cures(x))

    return sorted(filter(as_good, pool), key=rarity)


def _longer(trials, chain, *kinds):
    """Chains with one more step, of these kinds or any that is new, the plain ones first."""
    chain, images = _of_images(chain), trials.images
    kinds = {*(kinds or ("range", "color", "turn", "size"))} - {step.kind for step in chain}
    form = chain[-1].form if chain else trials.sources[0]
    _, height, width, channels = _mended(images[:1], chain).shape
    span, steps = f"The pixels lie in {images.min():.3g}..{images.max():.3g}", []
    forms = FORMS if channels == 3 else FORMS[:3]
    pairs = itertools.product([form] if chain else trials.sources, forms)
    for source, target in pairs if "range" in kinds else ():
        name, cure = source.name.split(" (")[0], _then(source.undo, target.make)
        fault = f"{span}{f' ({name})' * (' ' in name)}, but the model wants {target.name}"
        rarity = 1.1 * (target.name == CAFFE) + 0.1 * (source not in FORMS)
        steps += [Step("range", fault, cure, target, rarity)] * (source.name != target.name)
    for fault, cure in COLORS.items() if "color" in kinds and form.make else ():
        if channels == 3 or "inverted" in fault:
            usual = "BGR" in fault or "HSV" in fault
            cure = cure if "[" in cure and form in FORMS[:3] else _then(form.undo, cure, form.make)
            steps.append(Step("color", fault, cure, form, 0.2 * (not usual)))
    for turn, cure in TURNS.items() if "turn" in kinds else ():
        if height == width or "swapaxes" not in cure:
            steps.append(Step("turn", f"The images are {turn}", cure, form))
    free = layers.input_shape(trials.model)[1:3] == (None, None) and "size" in kinds
    for factor in (1 / 2, 2, 2 / 3, 4 / 3, 3 / 4, 3 / 2) if free else ():
        size = round(height * factor), round(width * factor)
        fits = 16 <= min(size) <= max(size) <= 512
        if fits and layers.takes(trials.model, (1, *size, channels)):
            fault = f"The images are {height}x{width} pixels, and the model does better at "
            cure = f"tf.image.resize(x, {size})"  # of equals, the first is named
            steps.append(Step("size", f"{fault}{size[0]}x{size[1]}", cure, form, 0.1))
    return [(*chain, step) for step in steps]


def _sources(images):
    """The forms that images may have: those in which they fill 0..255 best."""
    low, high = np.min(images, (0, 1, 2)), np.max(images, (0, 1, 2))
    span, factor = f"{low.min():.4g}..{high.max():.4g}", 255 / (np.ptp(images) or 255)
    shifted = f"(x {'+' if low.min() < 0 else '-'} {abs(low.min()):.7g})" if low.min() else "x"
    whole = Form(span, f"{shifted} * {factor:.7g}")
    if np.abs([images.mean((1, 2, 3)), images.std((1, 2, 3)) - 1]).max() < 0.05:
        return [EACH, whole]

    def far(form):
        ends = eval(form.undo, {"x": np.stack([low, high])})
        return (abs(ends.min()) + abs(ends.max() - 255)).round(-1)

    usual = FORMS if len(low) == 3 else FORMS[:3]
    forms = sorted(usual, key=far)
    if far(forms[0]) <= 80:
        return [form for form in forms[:3] if far(form) <= far(forms[0]) + 20]
    twice = [Form(f"made twice into {x.name}", _then(x.undo, x.undo)) for x in usual[1:]]
    for x, (first, undo) in itertools.product(usual[2:], BEFORE.items()):
        twice.append(Form(f"made into {first} and then into {x.name}", _then(x.undo, undo)))
    tight = sorted((form for form in twice if far(form) <= 20), key=far)
    dark = [form for form in forms[:1] if far(form) < DARK]
    return [*dark, *tight[:3], whole]


def _then(first, *others):
    """Python for one after the other."""
    for code in others:
        first = code.replace("x", first if "x" in (first, code) else f"({first})")
    return first
