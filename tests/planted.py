"""Plant faults in networks and data, and count which `cnnviz.diagnose` finds and explains.

python tests/planted.py                             25 minutes on two cores
python tests/planted.py --quick                     2 minutes
python tests/planted.py --markdown docs/planted.md  writes the tables of that page
"""

import argparse
import collections
import datetime
import functools
import pathlib
import re
import tempfile
import time
import types
import warnings
from importlib.metadata import version

import cv2
import keras
import numpy as np
import skimage
from keras.applications.imagenet_utils import preprocess_input
from sklearn.datasets import load_sample_image

import cnnviz

L, SIZE, HOME = keras.layers, 48, pathlib.Path(tempfile.gettempdir(), "cnnviz_planted")
PHOTOGRAPHS = "astronaut coffee chelsea rocket retina immunohistochemistry china.jpg flower.jpg"
COLORS = {"r": (200, 60, 50), "g": (60, 170, 70), "b": (50, 80, 200), "y": (210, 180, 50)}
SIGNS = {"10 signs": "Fr Fb Lg Jg 7r 7y Rb Ry Gg Pb", "3 signs": "Fr Fb 7r", "2 signs": "Lg Jg"}
MODES = {"-1..1": "tf", "standardized": "torch", "centered": "caffe"}
NETWORKS = {  # kind and more -> data, form of images
    "plain": ("10 signs", "0..1"),
    "BatchNorm": ("10 signs", "-1..1"),
    "residual": ("10 signs", "standardized"),
    "nested": ("10 signs", "centered"),
    "depthwise": ("3 signs", "0..255"),
    "GELU": ("3 signs", "standardized"),
    "subclassed": ("2 signs", "0..1"),
    "BatchNorm on 2": ("2 signs", "0..255"),
    "plain on faces": ("faces", "-1..1"),
}


def signs(n, seed, classes):
    """Colored letters on crops of photographs: images in 0..255, and labels."""
    names, random, images = PHOTOGRAPHS.split(), np.random.default_rng(seed), []
    read = [load_sample_image(x) if "." in x else getattr(skimage.data, x)() for x in names]
    labels = random.permutation(np.arange(n) % len(classes)).astype(np.int32)
    for letter, color in (classes[label] for label in labels):
        photograph, side = read[random.integers(len(read))], random.integers(SIZE, 200)
        y, x = random.integers(0, np.array(photograph.shape[:2]) - side)
        image = cv2.resize(photograph[y : y + side, x : x + side], (SIZE, SIZE), interpolation=3)
        mask = cv2.putText(np.zeros((SIZE, SIZE), np.uint8), letter, (10, 40), 0, 1.4, 255, 6)
        turn = cv2.getRotationMatrix2D((24, 24), random.uniform(-15, 15), random.uniform(0.7, 1.1))
        turn[:, 2] += random.uniform(-7, 7, 2)
        mask = cv2.warpAffine(mask, turn, (SIZE, SIZE))[..., None] / 255
        mask = random.uniform(0.5, 0.95) * mask
        image = image + mask * (COLORS[color] + random.normal(0, 30, 3) - image)
        images.append(image + random.normal(0, 6, image.shape))
    return np.float32(images).clip(0, 255).round(), labels


@functools.cache
def splits(data):
    """-> (images in 0..255, labels) for training, and for validation."""
    if data == "faces":  # 25x25 pixels and gray: labeled faces in the wild, and other pieces
        x = np.load(pathlib.Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[..., None]
        return [
            (np.rint(255 * x[i::2], dtype="f4"), np.repeat(np.int32([1, 0]), 50)) for i in (0, 1)
        ]
    classes = SIGNS[data].split()
    return signs(300 * len(classes) + 500, 0, classes), signs(1000, 1, classes)


def form(x, wants):
    """Images in 0..255 as a network wants them, by Keras' own functions."""
    if wants in MODES:
        return preprocess_input(np.array(x), mode=MODES[wants])
    return x / 255 if wants == "0..1" else np.array(x)


def block(x, kind, filters):
    if kind == "residual":
        x = L.Conv2D(filters, 3, 2, "same")(x)
        y = L.Conv2D(filters, 3, padding="same", activation="relu")(L.BatchNormalization()(x))
        return L.Add()([x, L.Conv2D(filters, 3, padding="same")(y)])
    if kind == "depthwise":
        x = L.DepthwiseConv2D(3, 2 if filters > 16 else 1, "same", use_bias=False)(x)
        x = L.Conv2D(filters, 1, use_bias=False)(L.ReLU()(L.BatchNormalization()(x)))
        return L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2D(filters, 3, padding="same")(x)
    x = x if kind in ("plain", "GELU") else L.BatchNormalization()(x)
    return L.MaxPooling2D()(L.Activation("gelu" if kind == "GELU" else "relu")(x))


class Subclassed(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x, training=False):
        return self.inner(x, training=training)


def network(kind, wants, shape, n_classes):
    """A small network; a plain one and one with GELU take images of one size."""
    flat, one = kind in ("plain", "GELU"), n_classes == 2 and kind != "plain"
    inputs = x = keras.Input(shape if flat else (None, None, shape[2]))
    x = L.Rescaling(1 / 255)(x) if wants == "0..255" else x
    for filters in (16, 32, 64):
        x = block(x, kind, filters)
    x = L.Dropout(0.3)(L.Flatten()(x) if flat else L.GlobalAveragePooling2D()(x))
    x = L.Dense(1 if one else n_classes, "sigmoid" if one else "softmax", name="head")(x)
    model = keras.Model(inputs, x)
    if kind == "subclassed":
        model = Subclassed(model)
        model(np.zeros((1, *shape), np.float32))
    outer = keras.Input(inputs.shape[1:])
    return keras.Model(outer, model(outer)) if kind == "nested" else model


@functools.cache
def trained(name, variant=""):
    """A network that is trained once, then kept: on all images, on 60, or on stamped ones."""
    (data, wants), weights = NETWORKS[name], HOME / f"{name} {variant}.weights.h5"
    x, y = (each[: 60 if variant == "overfitted" else None] for each in splits(data)[0])
    x = stamped(x, y) if variant == "shortcut" else x
    keras.utils.set_random_seed(1)
    model = network(name.split()[0], wants, x.shape[1:], int(y.max()) + 1)
    if not weights.exists():
        epochs = 10 if len(x) > 100 else 40
        rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(x) // 32))
        loss = "binary" if model(form(x[:1], wants)).shape[-1] == 1 else "sparse_categorical"
        model.compile(keras.optimizers.Adam(rate), f"{loss}_crossentropy", jit_compile=False)
        model.fit(form(x, wants), y, epochs=epochs, verbose=0)
        HOME.mkdir(exist_ok=True)
        model.save_weights(weights)
    model.load_weights(weights)
    return model


def accuracy(model, images, labels):
    return float((cnnviz.class_probabilities(model, images).argmax(axis=1) == labels).mean())


def each(function, *args, **options):
    return lambda x: np.float32([function(np.uint8(one), *args, **options) for one in x])


def standardized(x, _):
    return (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)


FILES = {  # what goes wrong before images get a network's form
    "BGR": lambda x: x[..., ::-1],
    "inverted": lambda x: 255 - x,
    "gray": lambda x: x.mean(3, keepdims=True).repeat(3, 3),
    "HSV": each(cv2.cvtColor, cv2.COLOR_RGB2HSV_FULL),
    "upside-down": lambda x: x[:, ::-1],
    "transposed": lambda x: x.swapaxes(1, 2),
    "16-bit": lambda x: 257 * x,
    "also/255": lambda x: x / 255,
}
FILES |= {f"x{f}": each(cv2.resize, None, fx=f, fy=f, interpolation=3) for f in (0.5, 0.75, 1.5, 2)}
INSTEAD = {  # what they get instead of it
    "forgotten": lambda x, _: x,
    "twice": lambda x, wants: form(form(x, wants), wants),
    "x/127.5": lambda x, _: x / 127.5,
    "0..100": lambda x, _: x / 2.55,
    "one-by-one": standardized,
}
INSTEAD |= {w: lambda x, _, w=w: form(x, w) for w in ("0..1", *MODES)}
PAIRS = (
    "BGR forgotten, BGR upside-down, BGR labels, inverted transposed, forgotten labels, x1.5 BGR, "
)
PAIRS += (
    "upside-down forgotten, x0.5 forgotten, BGR x/127.5, BGR 16-bit, twice BGR, labels inverted"
)
PIPELINES = [*FILES, *INSTEAD, "labels", *PAIRS.split(", ")]
WORDS = {  # what the sentence of a fault says, and no other sentence; `FORMS` of a range
    "range": "wants (?!RGB)|twice|one by one",
    "BGR": r"BGR(?!, less)|GBR|GRB|RBG|BRG",
    "inverted": "inverted|negative",
    "gray": "gray",
    "HSV": r"HSV|YCrCb|\bLab\b",
    "turned": "upside|transposed|turned|mirrored",
    "size": r"\d+x\d+",
    "labels": "another order",
}
FORMS = {"0..1": r"wants 0\.\.1\b", "0..255": r"wants 0\.\.255", "-1..1": r"wants -1\.\.1\b"}
FORMS |= {"standardized": "wants.*(DenseNet|ImageNet's stand)", "centered": "wants.*(VGG|mean col)"}


def pipeline(plant, x, y, wants):
    """-> images and labels of a faulty pipeline, and which `WORDS` explain it."""
    how, told = form, set()
    for name in plant.split():
        x, how = FILES.get(name, np.array)(x), INSTEAD.get(name, how)
        kinds = {"upside-down": "turned", "transposed": "turned"}
        kinds |= {f"x{factor}": "size" for factor in (0.5, 0.75, 1.5, 2)}
        told.add(kinds.get(name, name if name in WORDS else "range"))
    if "labels" in told:  # as those of folders that were read in another order
        y = np.random.default_rng(3).permutation(np.roll(np.arange(max(y) + 1), 1))[y]
    return np.float32(how(x, wants)), np.int32(y), told


def judge_inputs(c, report, given, told, plant):
    """Strictly: the sentences name this fault and no other, and `mend` undoes it."""
    text = " ".join([*report.findings, *report.remarks])
    said = {name for name, words in WORDS.items() if re.search(words, text)}
    if said - told or not said or "gray" in said:
        return "wrong" if said - told else "named" if said else "missed"
    images, labels = report.mend(*given)
    best, before = accuracy(c.model, c.x, c.y), accuracy(c.model, *given)
    after = accuracy(c.model, images, labels)
    if said != told:  # what is not named may cost little
        return "named" if after > best - 0.05 else "half"
    lossy = said & {"size", "HSV"} or "one-by-one" in plant
    right = images.shape == c.x.shape and (labels == c.y).all()
    right &= after > (before if lossy else best - 0.02)
    right &= bool(lossy) or np.abs(images - c.x).mean() < 0.1 * c.x.std()
    return (
        "named" if right and ("range" not in said or re.search(FORMS[c.wants], text)) else "wrong"
    )


def stamped(x, y):
    """A checkered mark in a corner of the images of class 0."""
    mark = 255 * (np.indices((8, 8)).sum(0) // 2 % 2)[..., None]
    x[y == 0, -10:-2, -10:-2] = mark
    return x


def jpeg(x):
    return cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], 1)


COPIES = {
    "exact": np.array,
    "re-encoded": each(jpeg),
    "cropped": each(lambda x: cv2.resize(x[2:45, 3:46], (SIZE, SIZE))),
    "mirrored": lambda x: x[:, :, ::-1],
    "brighter": lambda x: np.clip(1.15 * x + 12, 0, 255),
}
FAULTS = {  # plant -> kinds that name it, words, other kinds that are true
    "nan": ("nan", "layer", "collapse|mistakes"),
    "collapse": ("collapse", "predicts", "mistakes"),
    "dead 100%": ("dead filters", "never fire", "collapse|mistakes"),
    "dead 50%": ("dead filters", "never fire", "collapse|mistakes"),
    "logits x5": ("calibration", "surer", ""),
    "untrained": ("mistakes|collapse", "", "mistakes|collapse"),
    "random labels": ("mistakes|label errors", "", "mistakes|label errors"),
    "8 random labels": ("", "", "mistakes|collapse|label errors"),
    "black 20%": ("images", "black|single color", ""),
    "repeated 20%": ("images|duplicates", "repeat|cop", "images|duplicates"),
    "repeated 100%": ("images|duplicates", "repeat|cop", "images|duplicates|collapse|mistakes"),
    "mixed 50%": ("images|inputs", r"0\.\.1\b|range", "inputs"),
    "imbalance 20:1": ("imbalance", "images of", ""),
    "overfitted": ("overfitting", "in train", ""),
    "shortcut": ("mistakes|shortcut", "in test", ""),
}
FAULTS |= {
    f"{how} {n}%": ("label errors", "", "") for how in ("wrong", "one-sided") for n in (5, 20)
}
FAULTS |= {f"leaked {how} 5%": ("leakage", "cop", "") for how in COPIES}
FAULTS |= {"leaked exact 50%": ("leakage", "cop", "")}
FAULTS |= {f"within {how} 10%": ("duplicates", "cop", "images") for how in ("exact", "re-encoded")}


def case(name, n):
    """A network, n images of validation, and 1,000 of training."""
    (seen, its_labels), (x, y) = splits(NETWORKS[name][0])
    c = types.SimpleNamespace(name=name, model=trained(name), wants=NETWORKS[name][1])
    c.plain, c.x, c.y = x[:n], form(x[:n], c.wants), y[:n].copy()
    c.seen, c.n_classes = (form(seen[:1000], c.wants), its_labels[:1000]), int(y.max()) + 1
    c.random, c.train, c.test, c.truth = np.random.default_rng(9), None, None, []
    return c


def damage(c, plant):
    """Plant a fault into a case, and note in `truth` which images it is about."""
    what, *how = plant.split()
    weights = c.model.weights
    some = np.arange(len(c.y)) if what != "one-sided" else np.flatnonzero(c.y == 0)
    share = float(how[-1][:-1]) / 100 if "%" in plant else 0
    some = c.random.permutation(some)[: round(share * len(some))]
    match what:
        case "nan":
            weights[0].assign(np.full(weights[0].shape, np.nan))
        case "collapse":
            weights[-1].assign(1e3 * (np.arange(weights[-1].shape[0]) == 0))
        case "dead":
            shifts = [
                w for w in weights if w.name == "beta" or "conv" in w.path and w.name == "bias"
            ]
            n = shifts[-1].shape[0]
            shifts[-1].assign(np.where(np.arange(n) < share * n, -1e3, shifts[-1]))
        case "logits":
            for weight in weights[-2:]:
                weight.assign(5 * weight)
        case "untrained":
            keras.utils.set_random_seed(5)
            c.model = network(c.name.split()[0], c.wants, c.x.shape[1:], c.n_classes)
        case "random":
            c.y = c.random.permutation(c.y)
        case "8":
            c.x, c.y = c.x[:8], c.y[8:16]
        case "black" | "repeated" | "mixed":
            other = c.plain / (255 if c.wants == "0..255" else 1)
            c.x[some] = {"black": form(0 * c.plain, c.wants), "repeated": c.x[:1], "mixed": other}[
                what
            ][some if what != "repeated" else 0]
            c.truth = some if what == "black" else []
        case "imbalance":
            keep = (c.y != 1) | (np.cumsum(c.y == 1) <= (c.y == 0).sum() // 20)
            c.x, c.y = c.x[keep], c.y[keep]
        case "overfitted":
            c.model, c.train = trained(c.name, what), tuple(x[:60] for x in c.seen)
        case "shortcut":
            c.model, c.test = trained(c.name, what), (c.x, c.y)
            c.x = form(stamped(c.plain.copy(), c.y), c.wants)
        case "wrong" | "one-sided":
            move = c.random.integers(1, c.n_classes, len(some)) if what == "wrong" else 1
            c.y[some], c.truth = (c.y[some] + move) % c.n_classes, some
        case "leaked":
            copies = form(COPIES[how[0]](c.plain[some]), c.wants), c.y[some]
            c.train, c.truth = tuple(map(np.concatenate, zip(c.seen, copies))), some
        case "within":
            c.truth = [*some, *range(len(c.y), len(c.y) + len(some))]
            c.x = np.concatenate([c.x, form(COPIES[how[0]](c.plain[some]), c.wants)])
            c.y = np.append(c.y, c.y[some])


def judge(c, found, kinds, words, also):
    """Whether a finding of the right kind has the right words and images, and no fault is false."""
    true = [one for one in found.findings if re.fullmatch(kinds, one.kind)]
    others = [one for one in found.findings if not re.fullmatch(f"{kinds}|{also}", one.kind)]
    for one in others:
        if one.severity == "fault" or one.kind == "inputs":
            return "wrong", one.sentence
    if not true:
        return "missed" if kinds else "named", ""
    one, n = true[0], len(c.truth)
    hits = len(set(c.truth) & set(one.indices))
    right = not n or hits >= 0.9 * n and len(one.indices) <= hits + 1
    if kinds == "label errors":
        right = one.low <= n <= one.high and hits >= len(one.indices) / 2
    text = f" [{hits} of {n} images, {len(one.indices) - hits} others]" if n else ""
    return "named" if right and re.search(words, one.sentence) else "half", one.sentence + text


Row = collections.namedtuple("Row", "group plant network outcome first seen text")


def ask(c):
    found = cnnviz.diagnose(c.model, (c.x, c.y), train=c.train, test=c.test)
    return found, [f"{one.severity}, {one.kind}" for one in found.findings] or ["nothing"]


def try_inputs(name, plant):
    c = case(name, 300)
    images, labels, told = pipeline(plant, c.plain, c.y, c.wants)
    same = images.shape == c.x.shape
    if not same and c.model.input_shape[1]:
        return None
    if same and np.allclose(images, c.x) and (labels == c.y).all():
        return None  # as images in 0..255 where the network rescales
    cost = accuracy(c.model, c.x, c.y) - accuracy(c.model, images, labels)
    report = cnnviz.check_inputs(c.model, (images, labels))
    outcome = judge_inputs(c, report, (images, labels), told, plant)
    outcome = "cheap" if cost < 0.05 and outcome != "wrong" else outcome
    return outcome, "", f"-{100 * cost:.0f} points", " ".join(report.findings)


def try_fault(name, plant):
    c = case(name, 400)
    model, weights = c.model, c.model.get_weights()
    damage(c, plant)
    found, seen = ask(c)
    model.set_weights(weights)
    outcome, text = judge(c, found, *FAULTS[plant])
    return outcome, bool(re.search(f", ({FAULTS[plant][0]})$", seen[0])), seen[0], text


def try_healthy(name, n):
    c = case(name, n)
    c.train = c.seen if accuracy(c.model, *c.seen) < accuracy(c.model, c.x, c.y) + 0.05 else None
    found, seen = ask(c)
    text = " ".join(one.sentence for one in found.findings if one.severity != "note")
    return seen[0].split(",")[0].replace("note", "nothing"), "", seen[0], text


GROUPS = {  # networks, plants, columns of the table
    "inputs": (list(NETWORKS)[:5], PIPELINES, try_inputs, "wrong missed half named cheap"),
    "faults": (
        ["plain", "BatchNorm", "GELU", "subclassed"],
        FAULTS,
        try_fault,
        "wrong missed half named first",
    ),
    "healthy": (NETWORKS, (40, 200, 1000), try_healthy, "fault suspicion nothing"),
}


def rows(only):
    for group, (names, plants, function, _) in GROUPS.items():
        for name in names:
            for plant in plants:
                if re.search(only, f"{group}, {name}: {plant}") and (
                    found := function(name, plant)
                ):
                    yield Row(group, str(plant), name, *found)


def table(group, done, columns):
    """The outcomes of a group for each plant, the worst first."""
    found = collections.defaultdict(collections.Counter)
    for row in done:
        for plant in (row.plant, "all"):
            found[plant].update([row.outcome, "networks", *["first"] * (row.first is True)])
    lines = [f"| {group} | networks | {' | '.join(columns)} |", "| --- " * (len(columns) + 2) + "|"]
    for plant in sorted(
        found, key=lambda p: (p != "all", *(-found[p][one] for one in columns[:3]))
    ):
        numbers = [str(found[plant][name] or "") for name in ("networks", *columns)]
        lines.append(f"| {plant} | {' | '.join(numbers)} |")
    return "\n".join([*lines, ""])


def page(done, minutes):
    parts = [table(g, [r for r in done if r.group == g], GROUPS[g][3].split()) for g in GROUPS]
    order = ["fault", "wrong", "missed", "half", "suspicion"]
    bad = sorted((r for r in done if r.outcome in order), key=lambda r: order.index(r.outcome))
    parts += [f"- {r.outcome}: {r.network}, {r.plant} ({r.seen}). {r.text}" for r in bad]
    packages = ", ".join(f"{name} {version(name)}" for name in ("cnnviz", "keras", "tensorflow"))
    return "\n".join([*parts, f"\n{packages}, {datetime.date.today()}, {minutes:.0f} minutes.\n"])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--only", default="", help="a regular expression of 'group, network: plant'"
    )
    parser.add_argument("--markdown", type=pathlib.Path)
    args, done, start = parser.parse_args(arguments), [], time.perf_counter()
    warnings.simplefilter("ignore", UserWarning)
    try:
        for row in rows("faces|plain: (BGR|twice|nan|wrong)" if args.quick else args.only):
            done.append(row)
            print(f"{row.outcome:9} {row.network}: {row.plant} ({row.seen}) {row.text}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    print(text := page(done, (time.perf_counter() - start) / 60))
    if args.markdown:
        head = args.markdown.read_text().split("\n| inputs")[0]
        args.markdown.write_text(f"{head}\n{text}")
    return done


if __name__ == "__main__":
    main()
