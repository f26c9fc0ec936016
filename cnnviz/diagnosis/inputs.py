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
from scipy.special import logsumexp

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
LEAST = 0.2, 0.35, 0.5  # of the way from chance to 100 %; with an order of labels; with scores
BIASES = ("bias", "beta", "moving_mean")  # weights that are 0 in an untrained model
ENOUGH = 0.95  # accuracy at which no more changes are combined
# What a pipeline makes of images, RGB in 0..255: (images * factor + summand)[..., ::step].
Form = namedtuple("Form", "name factor summand step", defaults=[1])
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # ImageNet's, RGB
TORCH = "the form of `preprocess_input` of DenseNet (0..1, then ImageNet's standard scores)"
CAFFE = "the form of `preprocess_input` of VGG and ResNet (BGR, less ImageNet's mean color)"
PLAIN, UNIT = Form("0..255", 1, 0), Form("0..1", 1 / 255, 0)
FORMS = [PLAIN, UNIT, Form("-1..1", 1 / 127.5, -1)]  # the plain ones first
FORMS += [Form(TORCH, 1 / 255 / DEVIATION, -MEAN / DEVIATION)]
FORMS += [Form(CAFFE, 1, -np.array([123.68, 116.779, 103.939]), -1)]
USUAL = [form.name for form in FORMS]
FORMS += [Form("-0.5..0.5", 1 / 255, -0.5), Form("-127.5..127.5", 1, -127.5)]
WANTED = [form.name for form in FORMS]  # the others are made by mistake only
FORMS += [Form("0..2", 1 / 127.5, 0), Form("0..100", 1 / 2.55, 0), Form("0..65535", 257, 0)]
SCORES = Form("ImageNet's standard scores", 1 / DEVIATION, -MEAN / DEVIATION)  # not of 0..1
EACH = Form("images standardized one by one", 1 / 62, -120 / 62)  # as photographs are on average
SWAPS, INVERTED = [*map("".join, itertools.permutations("BGR"))][:-1], "inverted"
TURNS = {
    "upside down": "x[:, ::-1]",
    "mirrored": "x[:, :, ::-1]",
    "turned by 180 degrees": "x[:, ::-1, ::-1]",
    "transposed": "x.swapaxes(1, 2)",
    "turned to the left": "x.swapaxes(1, 2)[:, :, ::-1]",
    "turned to the right": "x.swapaxes(1, 2)[:, ::-1]",
    "transposed along the other diagonal": "x.swapaxes(1, 2)[:, ::-1, ::-1]",
}
# One thing undone: what was wrong, Python that undoes it, and the form of the images then. Of two
# that explain as much, the rarer one is not named.
Step = namedtuple("Step", "kind fault cure form rarity", defaults=[0])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InputReport(Result):
    """What does not fit between a model and `n_images` of its data.

    `findings` are sentences, each a fault and how much it costs. `remarks` are true as well, but
    may be intended. `accuracy` is that of the data as they come, `mended_accuracy` that with the
    faults undone, and `most_frequent` that of always predicting the most frequent class.
    `mend(images, labels)` undoes what can be undone; it is None if there is nothing.
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

    Each fault is undone on trial, alone and with others: another value range, a rescaling or
    `preprocess_input` that is missing, repeated or another family's, swapped or converted color
    channels, inverted, turned or mirrored images, another image size, and labels in another order.
    One half of the images chooses by cross-entropy, and the other must confirm it. A fault that
    costs less than 2 % of accuracy is not named. Augmented, black, repeated images are found too.

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
    seen, findings, remarks, start = [], [], [], ()

    def reading():
        for images, _ in layers.batches(model, data, description="reading", labels=True):
            seen.extend(hash(image.tobytes()) for image in images)
            yield images

    for text, which in find_image_faults(reading()):
        many = len(which) >= MANY * len(seen)
        if many and MIXED in text:
            one = "((0 <= x) & (x <= 1)).all((1, 2, 3), keepdims=True)"
            start = (Step("mixed", text.split(":")[0], f"np.where({one}, x * 255, x)", None),)
        else:
            (findings if many else remarks).append(text)
    indices = np.sort(np.random.default_rng(0).permutation(len(seen))[:n_images])
    images, labels = pick(model, data, indices) if len(indices) else ((), ())
    if len(np.unique(labels)) < 2:
        raise ValueError(f"`data` ({len(labels)} images, {n_images=}) needs two classes or more")
    if {hash(image.tobytes()) for image in images} - set(seen):
        text = "The images change from one reading to the next: augment the training split only."
        findings.append(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried here
        trials = _Trials(model, images, labels, start)
        if images.shape[3] == 3 and np.ptp(trials.plain, axis=3).max() < 1:
            remarks.append("All images are gray. If the model was trained in color, load them so.")
        biases = [np.asarray(x) for x in model.weights if x.name in BIASES]
        untrained = bool(biases) and not any(map(np.any, biases))  # training changes them
        if untrained:
            remarks.append("The model seems untrained: all its biases are 0.")
        rows, chain = np.arange(len(labels)), start if untrained else trials.search()
        accuracies = [trials.correct(chain[:i], rows).mean() for i in range(len(chain) + 1)]
    if accuracies[-1] < accuracies[0]:  # one range for all, and nothing else was found
        findings, chain = [*findings, f"{chain[0].fault}: give all of them in one range."], ()
    before, pending = accuracies[0], []
    for after, step in zip(accuracies[1:], chain, strict=False):
        pending.append(step)
        if after > before or step is chain[-1]:
            cures = " and then ".join(f"`{one.cure}`" for one in pending)
            text = f"{'. '.join(one.fault for one in pending)}. With {cures}: accuracy"
            findings.append(f"{text} {before:.1%} -> {after:.1%}.")
            before, pending = after, []
    frequent = np.bincount(labels).max() / len(labels)
    mend = (lambda x, y: (_mended(x, chain), _relabeled(y, chain))) if chain else None
    numbers = map(float, (accuracies[0], frequent, accuracies[len(chain)]))
    return InputReport(tuple(findings), *numbers, len(labels), tuple(remarks), mend)


def _mended(x, chain):
    """Images as the cures make them, which run as they are printed."""
    for step in chain:
        x = x if step.kind == "order" else eval(step.cure, {"x": np.asarray(x), "np": np, "tf": tf})
    return np.ascontiguousarray(x, np.float32)


def _relabeled(y, chain):
    cures = [step.cure for step in chain if step.kind == "order"]
    return eval(cures[0], {"y": y, "np": np}) if cures else y


class _Trials:
    """Predictions for images and labels of which something is undone, each computed once."""

    def __init__(self, model, images, labels, start):
        self.model, self.images, self.labels, self.start = model, images, labels, start
        self.started, self.known = _mended(images, start), {}
        self.sources, self.rows = _sources(self.started), np.arange(len(labels))
        self.plain = eval(_code(self.sources[0], PLAIN), {"x": self.started})
        by_class = labels.argsort(kind="stable")
        self.chooses, self.confirms = by_class[::2], by_class[1::2]
        layers.check_labels(labels, self.predict(start, by_class).shape[1])
        self.recognizes = self.beats_chance(start)

    def predict(self, chain, rows):
        known = self.known.setdefault(_of_images(chain), {})
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
        scaled = (logits / temperature for temperature in 2.0 ** np.arange(-3, 8))
        each = (logsumexp(one, axis=1) - one[self.rows[: len(own)], own] for one in scaled)
        return min((x / counts[own] * len(own) / len(used) for x in each), key=np.mean)

    def better(self, chain, other, rows, errors, least=0.0):
        gain = self.losses(other, rows) - self.losses(chain, rows)
        return gain.mean() > least + errors * gain.std() / len(gain) ** 0.5

    def ordered(self, chain, rows):
        """The chain, with the order of labels that fits half of the rows if it fits the rest."""
        probabilities, labels = self.predict(chain, rows[::2]), self.labels[rows[::2]]
        order, used = np.arange(probabilities.shape[1]), np.unique(labels)
        together = np.array([probabilities[labels == label].mean(axis=0) for label in used])
        order[used] = linear_sum_assignment(together, maximize=True)[1]
        moves = [f"label {i} is output {order[i]}" for i in used if order[i] != i]
        fault = f"The labels are in another order than the outputs, {', '.join(moves[:6])}"
        other = *chain, Step("order", fault, f"np.array({order.tolist()})[y]", None, 0.1)
        return other if moves and self.better(other, chain, rows[1::2], 2) else chain

    def ranked(self, chains, rows):
        chains = [_changes(chain) for chain in chains]
        chains = {_of_images(x): x for x in reversed(chains)}.values()  # the first of the same
        chains = [self.ordered(chain, rows) for chain in reversed(chains)]
        return sorted(chains, key=lambda chain: self.losses(chain, rows).mean())

    def equal(self, pool, rows):
        """Those that are as good as the first, the plainest ones first."""
        tried, most = list(self.known), self.correct(pool[0], rows).mean()

        def as_good(x):
            accurate = self.correct(x, rows).mean() >= most - WORTH
            return not self.better(pool[0], x, rows, 0, SAME[int(accurate)])

        def plain(x):
            return sum(1 + step.rarity for step in x), tried.index(_of_images(x))

        return sorted(filter(as_good, pool), key=plain)

    def search(self):
        """The steps that one half of the images chooses and the other confirms."""
        n_start, few = len(self.start), np.linspace(0, len(self.chooses) - 1, FIRST).astype(int)
        few, pool = self.chooses[np.unique(few)], [self.start, *self.more(self.start)]
        if self.correct(self.start, self.rows).mean() > 1 - WORTH:
            return self.start
        if self.images.shape[3] == 3:
            ranges = [chain for chain in pool[1:] if chain[-1].kind == "range"]
            pool += [(*chain, next(_colors(chain[-1].form, 3))) for chain in ranges]  # BGR
        pool = self.ranked(pool, few)
        for kept in (KEPT, 1):
            fine = pool[0] == self.start and self.recognizes
            if not fine and self.correct(pool[0], few).mean() <= ENOUGH:
                more = [new for chain in pool[:kept] for new in self.more(chain)]
                pool = self.ranked([*pool, *more], few)
        pool = [self.start, *pool[:KEPT], *self.equal(pool, few)[:KEPT]]
        pool = self.ranked(pool, self.chooses)
        changed = [chain for chain in pool if len(chain) > n_start]
        best = self.equal(changed, self.chooses)[0] if len(pool[0]) > n_start else self.start
        while len(best) > n_start:
            shorter = (best[:i] + best[i + 1 :] for i in range(n_start, len(best)))
            spare = [chain for chain in shorter if not self.confirmed(best, chain)]
            if not spare:
                sure = self.beats_chance(best) and self.confirmed(best, self.start)
                return best if sure else self.start
            best = spare[0]
        return self.start

    def confirmed(self, chain, other):
        """Whether it is worth it on all images, and surely better on those that did not choose."""
        gains = self.correct(chain, self.rows).astype(float) - self.correct(other, self.rows)
        there, rows = gains[self.confirms], self.confirms
        sure = there.mean() > HELPS * there.std() / len(there) ** 0.5
        sure = sure and self.better(chain, other, rows, 0) or self.better(chain, other, rows, HELPS)
        return gains.mean() >= WORTH * (4 * len(chain) - 4 * len(other) - 3) and sure

    def beats_chance(self, chain):
        """Whether classes are recognized, on average: an untrained model may seem to, somewhat."""
        labels, correct = self.labels[self.confirms], self.correct(chain, self.confirms)
        used, counts = np.unique(labels, return_counts=True)
        recall, chance = np.mean([correct[labels == x].mean() for x in used]), 1 / len(used)
        error = (chance**3 * (1 - chance) * (1 / counts).sum()) ** 0.5
        ordered = len(_changes(chain)) < len(chain)
        scored = any(x.kind == "range" and x.form.name not in WANTED for x in chain)
        least = chance + max(SURE * error, LEAST[2 if scored else ordered] * (1 - chance))
        sure = not ordered or self.predict(chain, self.confirms).max(axis=1).mean() > least
        return recall > least and sure

    def more(self, chain):
        """Chains with one more step, the plain ones first."""
        chain = _changes(chain)
        kinds, first = {step.kind for step in chain}, self.sources[0]
        form = next((step.form for step in chain[::-1] if step.form), first)
        _, height, width, channels = _mended(self.images[:1], chain).shape
        steps, span = [], f"{self.started.min():.3g}..{self.started.max():.3g}"
        if "range" not in kinds:
            for source in self.sources if form is first else [form]:
                named = "" if ".." in source.name[:11] else f" ({source.name.split(' (')[0]})"
                for target in _targets(source, self.started, self.recognizes):
                    fault = f"The pixels lie in {span}{named}, but the model wants {target.name}"
                    rarity = 1.1 if target.step < 0 else 0.2 * (target.name not in USUAL)
                    rarity += 0.1 * all(source is not form for form in FORMS)
                    steps.append(Step("range", fault, _code(source, target), target, rarity))
        steps += _colors(form, channels) if "color" not in kinds else []
        for turn, cure in TURNS.items() if "turn" not in kinds else ():
            if height == width or "swapaxes" not in cure:
                steps.append(Step("turn", f"The images are {turn}", cure, form))
        free = layers.input_shape(self.model)[1:3] == (None, None) and "size" not in kinds
        for factor in (1 / 2, 2, 2 / 3, 4 / 3, 3 / 4, 3 / 2) if free else ():
            size = round(height * factor), round(width * factor)
            fits = 16 <= min(size) <= max(size) <= 512
            if fits and layers.takes(self.model, (1, *size, channels)):
                fault = f"The images are {height}x{width} pixels, and the model does better at "
                cure = f"tf.image.resize(x, {size})"
                steps.append(Step("size", f"{fault}{size[0]}x{size[1]}", cure, form))
        return [(*chain, step) for step in steps]


def _changes(chain):
    """The steps of a chain that change the images."""
    return tuple(step for step in chain if step.kind != "order")


def _of_images(chain):
    return tuple(step.cure for step in _changes(chain))


def _colors(form, channels):
    """Steps that undo another order of the color channels, a conversion, or an inversion."""
    for given in SWAPS if channels == 3 else ():
        fault, odd = f"The color channels are swapped, {given} instead of RGB", given != "BGR"
        yield Step("color", fault, _code(form, form, given), form, 0.2 * odd)
    for hues, unit in (("", "{}"), (" with hues in 0..180", "({}) * (255 / 180, 1, 1)")):
        if channels == 3:
            rgb = f"tf.image.hsv_to_rgb({unit.format(_code(form, UNIT))}).numpy()"
            cure = _code(UNIT, form).replace("x", rgb)
            yield Step("color", f"The images are HSV{hues}, but the model wants RGB", cure, form)
    cure = _code(form, form, INVERTED)
    yield Step("color", "The images are inverted, dark for bright", cure, form, 0.2)


def _forms(channels):
    return [form for form in FORMS if channels == 3 or not np.ndim(form.summand)]


def _sources(images):
    """The forms that images may have: those in which they fill 0..255 best."""
    (low, high), channels = (np.min(images, (0, 1, 2)), np.max(images, (0, 1, 2))), images.shape[3]
    whole = Form(f"{low.min():.4g}..{high.max():.4g}", np.ptp(images) / 255 or 1, low.min())
    if np.abs([images.mean((1, 2, 3)), images.std((1, 2, 3)) - 1]).max() < 0.05:
        return [EACH, whole]
    once = _forms(channels)
    twice = [*itertools.product(once[1:], once[1:]), *[(PLAIN, SCORES)][: channels == 3]]
    found = []
    for forms in (once, [_twice(*pair) for pair in twice]):
        ends = [[(x[:: y.step] - y.summand) / y.factor for x in (low, high)] for y in forms]
        far = np.array([abs(np.min(x)) + abs(np.max(x) - 255) for x in ends]).round(-1)
        near = [i for i in far.argsort(kind="stable")[:3] if far[i] <= far.min() + 20]
        if far.min() <= (30 if found else 80):
            return [*found, *(forms[i] for i in near), *[whole][: len(found)]]
        found = found or [forms[near[0]]]
    return [*found, whole]


def _twice(first, second):
    """What comes out if images in one form are taken for 0..255 and made into another."""
    a, b, c, d = first.factor, first.summand, second.factor, second.summand
    c, d = (x[:: first.step] if np.ndim(x) else x for x in (c, d))
    one, other = (form.name.split(" (")[0] for form in (first, second))
    name = f"made into {one} and then into {other}" if one != other else f"made twice into {one}"
    return Form(name, a * c, b * c + d, first.step * second.step)


def _targets(source, images, recognizes):
    """The forms that a model may want; one that recognizes much does not want standard scores.

    They adapt to the images, and so may help any model, also one that was not trained on them.
    """
    plain = eval(_code(source, PLAIN), {"x": images})
    forms = [form for form in _forms(plain.shape[3]) if form.name in WANTED]
    for each, axes in (("", None), (" in each channel", (0, 1, 2)))[: 1 + (plain.shape[3] == 3)]:
        mean, deviation = plain.mean(axes), plain.std(axes) + 1e-6
        scores = Form(f"mean 0 and deviation 1{each}", 1 / deviation, -mean / deviation)
        forms += [] if recognizes else [scores]
    return [x for x in [*forms, *([] if recognizes else [EACH])] if x.name != source.name]


def _code(source, target, color="RGB"):
    """Python that makes images of one form another, in RGB and not inverted."""
    if target is EACH and source is not EACH:
        return "tf.image.per_image_standardization(x).numpy()"
    a, b, c, d = (np.broadcast_to(x, 3) for x in (*source[1:3], *target[1:3]))
    index = [color.index(letter) for letter in "RGB"] if color in SWAPS else [0, 1, 2]
    offset, sign = (255, -1) if color == INVERTED else (0, 1)
    factors = (sign * c / a[index])[:: target.step]
    summands = (d + c * (offset - sign * (b / a)[index]))[:: target.step]
    index = np.arange(3)[:: source.step][index][:: target.step].tolist()
    code = {(0, 1, 2): "x", (2, 1, 0): "x[..., ::-1]"}.get(tuple(index), f"x[..., {index}]")
    if not np.allclose(factors, 1):
        small = np.abs(factors).max() < 1
        code += f" / {_literal(1 / factors)}" if small else f" * {_literal(factors)}"
    if np.abs(summands).max() < 1e-6:
        return code
    sign = "-" if summands.max() < 0 else "+"
    return f"{code} {sign} {_literal(np.abs(summands) if sign == '-' else summands)}"


def _literal(numbers):
    texts = [f"{number:.7g}" for number in numbers]
    return texts[0] if len({*texts}) == 1 else f"({', '.join(texts)})"
