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

SURE = 2.5  # standard errors by which a change must help, and an accuracy exceed chance
WORTH = 0.02  # of accuracy that a fault must cost to be named
MANY = 0.1  # share of the images whose defects are a finding, and not only a remark
FIRST, KEPT = 64, 3  # images for the first trials; how many changes are combined with others
CLOSE = 24  # to 0..255, for a form that images may have
SAME = 0.02  # difference of two cross-entropies that does not matter
TEMPERATURES = 2.0 ** np.arange(-3, 8)
# What a pipeline makes of images, RGB in 0..255: (images * factor + summand)[..., ::step].
Form = namedtuple("Form", "name factor summand step", defaults=[1])
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # ImageNet's, RGB
TORCH = "what `preprocess_input` of DenseNet makes (0..1, then ImageNet's standard scores)"
CAFFE = "what `preprocess_input` of VGG and ResNet makes (BGR, less ImageNet's mean color)"
PLAIN, UNIT = Form("0..255", 1, 0), Form("0..1", 1 / 255, 0)
SCALARS = [PLAIN, UNIT, Form("-1..1", 1 / 127.5, -1), Form("-0.5..0.5", 1 / 255, -0.5)]
SCALARS += [Form("-127.5..127.5", 1, -127.5), Form("0..2", 1 / 127.5, 0)]
SCALARS += [Form("0..100", 1 / 2.55, 0), Form("0..65535", 257, 0)]
COLORED = [Form(TORCH, 1 / 255 / DEVIATION, -MEAN / DEVIATION)]
COLORED += [Form(CAFFE, 1, -np.array([123.68, 116.779, 103.939]), -1)]
SCORES = Form("ImageNet's standard scores, as if in 0..1", 1 / DEVIATION, -MEAN / DEVIATION)
EACH = Form("images that are standardized one by one", 1 / 62, -120 / 62)  # on average
SWAPS = ["".join(order) for order in itertools.permutations("BGR")]
SWAPS.remove("RGB")
INVERTED, FACTORS = "inverted", (0.5, 2, 0.75, 1.5)
TURNS = {
    "upside down": "x[:, ::-1]",
    "mirrored": "x[:, :, ::-1]",
    "turned by 180 degrees": "x[:, ::-1, ::-1]",
    "transposed": "x.swapaxes(1, 2)",
    "turned to the left": "x.swapaxes(1, 2)[:, :, ::-1]",
    "turned to the right": "x.swapaxes(1, 2)[:, ::-1]",
    "transposed along the other diagonal": "x.swapaxes(1, 2)[:, ::-1, ::-1]",
}
# One thing undone: what was wrong, Python that undoes it, the form of the images then. Of two that
# explain the same, the rarer one is not named.
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
            start = (Step("mixed", text.rstrip("."), f"np.where({one}, x * 255, x)", None),)
        else:
            (findings if many else remarks).append(text)
    indices = np.sort(np.random.default_rng(0).permutation(len(seen))[:n_images])
    images, labels = pick(model, data, indices) if len(indices) else ((), ())
    if len(np.unique(labels)) < 2:
        raise ValueError(f"`data` ({len(labels)} images, {n_images=}) needs two classes or more")
    if {hash(image.tobytes()) for image in images} - set(seen):
        text = "The images change from one reading to the next: augment the training split only."
        findings.append(text)
    if images.shape[3] == 3 and np.ptp(images, axis=3).max() == 0:
        remarks.append("All images are gray. If the model was trained in color, load them so.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ranges, which are what is tried here
        trials = _Trials(model, images, labels, start)
        rows, chain = np.arange(len(labels)), trials.search()
        accuracies = [trials.correct(chain[:i], rows).mean() for i in range(len(chain) + 1)]
    before, pending = accuracies[0], []
    for after, step in zip(accuracies[1:], chain, strict=True):
        pending.append(step)
        if after > before or step is chain[-1]:
            cures = " and then ".join(f"`{one.cure}`" for one in pending)
            text = f"{'. '.join(one.fault for one in pending)}. With {cures}: accuracy"
            findings.append(f"{text} {before:.1%} -> {after:.1%}.")
            before, pending = after, []
    frequent = np.bincount(labels).max() / len(labels)
    mend = (lambda x, y: (_mended(x, chain), _relabeled(y, chain))) if chain else None
    numbers = map(float, (accuracies[0], frequent, accuracies[-1]))
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
        self.span = f"{self.started.min():.3g}..{self.started.max():.3g}"
        self.any_size = layers.input_shape(model)[1:3] == (None, None)
        by_class = labels.argsort(kind="stable")
        self.chooses, self.confirms = by_class[::2], by_class[1::2]
        layers.check_labels(labels, self.predict(start, by_class).shape[1])

    def predict(self, chain, rows):
        known = self.known.setdefault(_images_cures(chain), {})
        if new := [row for row in rows if row not in known]:
            images = _mended(self.images[new], chain)
            known.update(zip(new, layers.class_probabilities(self.model, images), strict=True))
        return np.stack([known[row] for row in rows])

    def correct(self, chain, rows):
        labels = _relabeled(self.labels[rows], chain)
        return self.predict(chain, rows).argmax(axis=1) == labels

    def losses(self, chain, rows):
        """(N,) cross-entropy among the classes that occur, of equal weight, at its best."""
        used, own, counts = np.unique(self.labels[rows], return_inverse=True, return_counts=True)
        probabilities = self.predict(chain, rows)[:, _relabeled(used, chain)]
        logits = np.log(np.clip(probabilities.astype(float), 1e-12, 1))
        weights = len(rows) / len(used) / counts[own]
        scaled = (logits / temperature for temperature in TEMPERATURES)
        each = (logsumexp(one, axis=1) - one[np.arange(len(own)), own] for one in scaled)
        return min((weights * losses for losses in each), key=np.mean)

    def better(self, chain, other, rows, errors, least=0.0):
        gain = self.losses(other, rows) - self.losses(chain, rows)
        return gain.mean() > least + errors * gain.std() / len(gain) ** 0.5

    def ordered(self, chain, rows):
        """The chain, with the labels in the order that half of the rows fits and the rest wants."""
        probabilities, labels = self.predict(chain, rows[::2]), self.labels[rows[::2]]
        order, used = np.arange(probabilities.shape[1]), np.unique(labels)
        together = np.array([probabilities[labels == label].mean(axis=0) for label in used])
        order[used] = linear_sum_assignment(together, maximize=True)[1]
        moves = [
            f"label {label} is output {order[label]}" for label in used if order[label] != label
        ]
        fault = f"The labels are in another order than the outputs, {', '.join(moves[:6])}"
        other = *chain, Step("order", fault, f"np.array({order.tolist()})[y]", None, 0.1)
        return other if moves and self.better(other, chain, rows[1::2], 2) else chain

    def ranked(self, chains, rows):
        chains = [x[:-1] if x and x[-1].kind == "order" else x for x in chains]
        chains = {_images_cures(x): x for x in reversed(chains)}.values()  # the first of the same
        chains = [self.ordered(chain, rows) for chain in reversed(chains)]
        return sorted(chains, key=lambda chain: self.losses(chain, rows).mean())

    def search(self):
        """The steps that one half of the images chooses and the other confirms."""
        if self.correct(self.start, self.rows).mean() > 1 - WORTH:
            return self.start
        few = self.chooses[np.unique(np.linspace(0, len(self.chooses) - 1, FIRST).astype(int))]
        pool = [self.start, *self.more(self.start)]
        if self.images.shape[3] == 3:
            ranges = [chain for chain in pool if chain and chain[-1].kind == "range"]
            pool += [(*chain, next(_colors(chain[-1].form, 3))) for chain in ranges]  # BGR
        pool = self.ranked(pool, few)
        for _ in range(2):
            if self.correct(pool[0], few).mean() > 1 - WORTH:
                break
            pool = pool[: 2 * KEPT] + [new for x in pool[:KEPT] for new in self.more(x)]
            pool = self.ranked(pool, few)

        def plain(chain):
            return sum(1 + step.rarity for step in chain), tried.index(_images_cures(chain))

        tried = list(self.known)
        for rows in (few, self.chooses):
            most = self.correct(pool[0], rows).mean()
            equal = [
                x
                for x in pool
                if self.correct(x, rows).mean() >= most
                or not self.better(pool[0], x, rows, 1, SAME)
            ]
            pool = self.ranked(
                [self.start, *pool[:KEPT], *sorted(equal, key=plain)[:KEPT]], self.chooses
            )
        best = min(equal, key=plain)
        while len(best) > len(self.start):
            shorter = (best[:i] + best[i + 1 :] for i in range(len(self.start), len(best)))
            spare = [x for x in shorter if not self.confirmed(best, x)]
            if not spare:
                return best if self.beats_chance(best) else self.start
            best = spare[0]
        return self.start

    def confirmed(self, chain, other):
        gain = self.correct(chain, self.rows).mean() - self.correct(other, self.rows).mean()
        return gain >= WORTH and self.better(chain, other, self.confirms, SURE)

    def beats_chance(self, chain):
        """Whether the classes are recognized, on average, more often than by a constant guess."""
        labels, correct = self.labels[self.confirms], self.correct(chain, self.confirms)
        used, counts = np.unique(labels, return_counts=True)
        recall = np.mean([correct[labels == label].mean() for label in used])
        error = ((1 - 1 / len(used)) / len(used) * (1 / counts).sum()) ** 0.5 / len(used)
        return recall > 1 / len(used) + SURE * error

    def more(self, chain):
        """Chains with one more step, the plain ones first."""
        chain = tuple(step for step in chain if step.kind != "order")
        kinds = {step.kind for step in chain}
        form = next((step.form for step in chain[::-1] if step.form), self.sources[0])
        shape = _mended(self.images[:1], chain).shape
        if "range" not in kinds:
            for source in self.sources if form is self.sources[0] else [form]:
                origin = "" if source.name[0] in "-0123456789" else f" ({source.name})"
                for target in self.targets(source):
                    fault = f"The pixels lie in {self.span}{origin}, but the model wants "
                    cure = _code(source, target)
                    rarity = 1 if target.step < 0 else 0.05 * (origin != "")
                    yield *chain, Step("range", fault + target.name, cure, target, rarity)
        if "color" not in kinds:
            yield from ((*chain, step) for step in _colors(form, shape[3]))
        for turn, cure in TURNS.items() if "turn" not in kinds else ():
            new = *chain, Step("turn", f"The images are {turn}", cure, form)
            if shape[1] == shape[2] or layers.takes(
                self.model, _mended(self.images[:1], new).shape
            ):
                yield new
        for factor in FACTORS if "size" not in kinds and self.any_size else ():
            size = round(shape[1] * factor), round(shape[2] * factor)
            if 16 <= min(size) <= max(size) <= 512 and layers.takes(
                self.model, (1, *size, shape[3])
            ):
                fault = (
                    f"The images are {shape[1]}x{shape[2]} pixels, and the model does better at "
                )
                cure = f"tf.image.resize(x, {size}, antialias=True)"
                yield *chain, Step("size", f"{fault}{size[0]}x{size[1]}", cure, form)

    def targets(self, source):
        plain = eval(_code(source, PLAIN), {"x": self.started})
        forms = SCALARS + (COLORED if plain.shape[3] == 3 else [])
        for name, axes in (("", None), (" in each channel", (0, 1, 2)))[
            : 1 + (plain.shape[3] == 3)
        ]:
            mean, deviation = plain.mean(axes), plain.std(axes) + 1e-6
            forms = [*forms, Form(f"mean 0, deviation 1{name}", 1 / deviation, -mean / deviation)]
        return [form for form in [*forms, EACH] if form.name != source.name]


def _images_cures(chain):
    return tuple(step.cure for step in chain if step.kind != "order")


def _colors(form, channels):
    """Steps that undo another order of the color channels, a conversion, or an inversion."""
    for given in SWAPS if channels == 3 else ():
        fault = f"The color channels are swapped, {given} instead of RGB"
        yield Step("color", fault, _code(form, form, given), form, 0.2 * (given != "BGR"))
    for hues, factors in (("", ""), (" with hues in 0..180", " * (255 / 180, 1, 1)")):
        if channels == 3:
            rgb = f"tf.image.hsv_to_rgb(({_code(form, UNIT)}){factors}).numpy()"
            fault = f"The images are HSV{hues}, but the model wants RGB"
            yield Step("color", fault, _code(UNIT, form).replace("x", rgb), form)
    yield Step(
        "color", "The images are inverted, dark for bright", _code(form, form, INVERTED), form
    )


def _sources(images):
    """The forms that images may have: those in which they fill 0..255 best."""
    low, high = images.min((0, 1, 2)), images.max((0, 1, 2))
    moments = images.mean((1, 2, 3)), images.std((1, 2, 3)) - 1
    whole = Form(f"{low.min():.4g}..{high.max():.4g}", np.ptp(images) / 255, low.min())
    if np.abs(moments).max() < 0.05:
        return [EACH, whole]
    once = SCALARS + (COLORED if len(low) == 3 else [])
    again = [*once[1:], *([SCORES] if len(low) == 3 else [])]
    found = []
    for form in [
        *once,
        *itertools.starmap(
            _twice, [*itertools.product(once[1:], again), *[(PLAIN, SCORES)][: len(low) // 3]]
        ),
    ]:
        ends = [(x[:: form.step] - form.summand) / form.factor for x in (low, high)]
        found.append((abs(np.min(ends)) + abs(np.max(ends) - 255), form))
    found.sort(key=lambda one: round(one[0] / 8))
    least = min(distance for distance, _ in found)
    named = [form for distance, form in found if distance <= least + CLOSE][:3]
    return named if least < CLOSE else [*named[:2], whole]


def _twice(first, second):
    """What comes out if images in one form are taken for 0..255 and made into another."""
    (a, b), (c, d) = (np.broadcast_arrays(*x[1:3], np.zeros(3))[:2] for x in (first, second))
    c, d = c[:: first.step], d[:: first.step]
    name = f"made into {first.name} and then into {second.name}"
    if not np.ptp(a * c) and not np.ptp(b * c + d):
        return Form(name, (a * c)[0], (b * c + d)[0], first.step * second.step)
    return Form(name, a * c, b * c + d, first.step * second.step)


def _code(source, target, color="RGB"):
    """Python that makes images in another form, as RGB and not inverted."""
    if target is EACH:
        return "tf.image.per_image_standardization(x).numpy()"
    (a, b), (c, d) = (np.broadcast_arrays(*x[1:3], np.zeros(3))[:2] for x in (source, target))
    index = np.array([color.index(x) for x in "RGB"] if color in SWAPS else [0, 1, 2])
    sign = -1 if color == INVERTED else 1
    factors = (sign * c / a[index])[:: target.step]
    summands = (d + c * (255 * (sign < 0) - sign * (b / a)[index]))[:: target.step]
    index = np.arange(3)[:: source.step][index][:: target.step].tolist()
    code = {(0, 1, 2): "x", (2, 1, 0): "x[..., ::-1]"}.get(tuple(index), f"x[..., {index}]")
    if not np.allclose(factors, 1):
        small = np.abs(factors).max() < 1
        code += f" / {_literal(1 / factors)}" if small else f" * {_literal(factors)}"
    if np.allclose(summands, 0, atol=1e-6):
        return code
    sign = "-" if summands.max() < 0 else "+"
    return f"{code} {sign} {_literal(-summands if sign == '-' else summands)}"


def _literal(numbers):
    texts = [f"{number:.7g}" for number in numbers]
    return texts[0] if len({*texts}) == 1 else f"({', '.join(texts)})"
