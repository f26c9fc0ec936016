"""Plant faults in networks and data, and count which `cnnviz.diagnose` finds and explains.

python tests/planted.py                             20 minutes on two cores
python tests/planted.py --markdown docs/planted.md  writes the tables of that page
"""

import argparse
import collections
import datetime
import functools
import itertools
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
import tensorflow as tf
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
        photograph = read[random.integers(len(read))]  # turned, or crops would be near copies
        center = random.uniform(0, photograph.shape[1::-1])
        turn = cv2.getRotationMatrix2D(center, random.uniform(0, 360), random.uniform(0.4, 1))
        turn[:, 2] += SIZE / 2 - center
        image = cv2.warpAffine(photograph, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)
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
        order = np.random.default_rng(0).permutation(200)
        x, y = np.rint(255 * x[order], dtype="f4"), np.int32(order < 100)
        return (x[:100], y[:100]), (x[100:], y[100:])
    classes = SIGNS[data].split()
    return signs(3000, 0, classes), signs(1000, 1, classes)


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
    if kind == "depthwise" and filters > 16:
        x = L.DepthwiseConv2D(3, 2, "same", use_bias=False)(x)
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
    """A network, trained once and kept, on all images, on 60 or on stamped ones; its weights."""
    (data, wants), weights = NETWORKS[name], HOME / f"{name} {variant}.weights.h5"
    x, y = (each[: 60 if variant == "overfitted" else None] for each in splits(data)[0])
    x = stamped(x, y) if variant == "shortcut" else x
    keras.utils.set_random_seed(1)
    model = network(name.split()[0], wants, x.shape[1:], int(y.max()) + 1)
    if not weights.exists():
        epochs = 10 if len(x) > 100 else 40 if data == "faces" else 150
        rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(x) // 32))
        loss = "binary" if model(form(x[:1], wants)).shape[-1] == 1 else "sparse_categorical"
        model.compile(keras.optimizers.Adam(rate), f"{loss}_crossentropy", jit_compile=False)
        model.fit(form(x, wants), y, epochs=epochs, verbose=0)
        HOME.mkdir(exist_ok=True)
        model.save_weights(weights)
    model.load_weights(weights)
    return model, model.get_weights()


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
for f in (0.5, 0.75, 1.5, 2):
    FILES[f"size-x{f}"] = each(cv2.resize, None, fx=f, fy=f, interpolation=3)
INSTEAD = {wants: lambda x, _, wants=wants: form(x, wants) for wants in ("0..1", *MODES)}
INSTEAD |= {  # what they get instead of it
    "forgotten": lambda x, _: x,
    "twice": lambda x, wants: form(form(x, wants), wants),
    "x/127.5": lambda x, _: x / 127.5,
    "0..100": lambda x, _: x / 2.55,
    "one-by-one": standardized,
}
PAIRS = """BGR forgotten, BGR upside-down, BGR labels, BGR x/127.5, BGR 16-bit, size-x1.5 BGR,
inverted transposed, upside-down forgotten, size-x0.5 forgotten, forgotten labels, twice BGR"""
PIPELINES = [*FILES, *INSTEAD, "labels", *re.split(r",\s", PAIRS)]
WORDS = {  # beginning of a plant -> what the sentence of that fault says, and no other sentence
    "BGR": r"BGR(?!, less)|GBR|GRB|RBG|BRG",
    "inverted": "inverted|negative",
    "gray": "gray",
    "HSV": r"HSV|YCrCb|\bLab\b",
    "upside": "upside|rotated|mirrored",
    "transposed": "transposed",
    "size": r"\d+x\d+",
    "labels": "another order",
    "": "wants (?!RGB)|twice|one by one",  # the range
}


def pipeline(plant, x, y, wants):
    """-> images and labels of a faulty pipeline, and which `WORDS` explain it."""
    how, told = form, set()
    for name in plant.split():
        x, how = FILES.get(name, np.array)(x), INSTEAD.get(name, how)
        told.add(next(word for word in WORDS if name.startswith(word)))
    if "labels" in told:  # as those of folders that were read in another order
        y = np.random.default_rng(3).permutation(np.roll(np.arange(max(y) + 1), 1))[y]
    return np.float32(how(x, wants)), np.int32(y), told


def judge_inputs(c, report, given, told, plant):
    """Strictly: sentences name this fault and no other, and what they say to do repairs it."""
    text = " ".join([*report.findings, *report.remarks])
    said = {name for name, words in WORDS.items() if re.search(words, text)}
    if said - told or not said or "gray" in said:
        return "wrong" if said - told else "named" if said else "missed"
    x, y = given
    for code in re.findall(r"`([^`]*\b[xy]\b[^`]*)`", text):
        value = np.asarray(eval(code, {"x": x, "y": y, "np": np, "tf": tf}))
        x, y = (x, value) if "[y]" in code else (value, y)
    best, before, after = (accuracy(c.model, *z) for z in ((c.x, c.y), given, (x, y)))
    if said != told:  # what is not named may cost little
        return "named" if after > best - 0.05 else "half"
    if {"size", "HSV"} & said or "one-by-one" in plant:  # which lose something
        return "wrong" if after <= before else "named" if x.shape == c.x.shape else "half"
    right = x.shape == c.x.shape and np.abs(x - c.x).mean() < 0.1 * c.x.std()
    return "named" if right and (y == c.y).all() and after > best - 0.02 else "wrong"


def stamped(x, y):
    """A checkered mark in a corner of the images of class 0."""
    x = x.copy()
    x[y == 0, -10:-2, -10:-2] = 255 * (np.indices((8, 8)).sum(0) // 2 % 2)[..., None]
    return x


COPIES = {
    "exact": np.array,
    "re-encoded": each(lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [1, 75])[1], 1)),
    "cropped": each(lambda x: cv2.resize(x[2:45, 3:46], (SIZE, SIZE))),
    "mirrored": lambda x: x[:, :, ::-1],
    "brighter": lambda x: np.clip(1.15 * x + 12, 0, 255),
}
LOW = "collapse|mistakes|label errors"  # what a low accuracy may be taken for
FAULTS = {  # plant -> kinds that name it, words, other kinds that are true
    "nan": ("nan", "layer", "collapse|mistakes"),
    "collapse": ("collapse", "predicts", "mistakes"),
    "collapse by bias": ("collapse", "predicts", "mistakes"),
    "dead 100%": ("dead filters", "never fire", "collapse|mistakes"),
    "dead 50%": ("dead filters", "never fire", "collapse|mistakes"),
    "logits x5": ("calibration", "overconfident", ""),
    "untrained": ("mistakes|collapse", "", "mistakes|collapse"),
    "random labels": ("mistakes|label errors", "", "mistakes|label errors"),
    "few random labels": ("", "", LOW),
    "black 20%": ("images", "black|single color", ""),
    "repeated 20%": ("images|duplicates", "repeat|Copies", "images|duplicates|label errors"),
    "repeated 100%": ("images", "repeat|Copies", f"duplicates|{LOW}"),
    "mixed 50%": ("images", "while others", "inputs"),
    "imbalance 20:1": ("imbalance", "images of", ""),
    "overfitted": ("overfitting", "in train", "mistakes"),
    "shortcut": ("mistakes|shortcut", "in test", ""),
    "leaked exact 50%": ("leakage", "copy", ""),
}
for share in ("5%", "20%"):
    FAULTS |= {f"{how} {share}": ("label errors", "", "") for how in ("wrong", "one-sided")}
for how in COPIES:
    FAULTS[f"leaked {how} 5%"] = "leakage", "copy", ""
    FAULTS[f"within {how} 10%"] = "duplicates", "Copies", "images"


def case(name, n):
    """A network, n images of validation, and 1,000 of training."""
    (seen, its_labels), (x, y) = splits(NETWORKS[name][0])
    model, weights = trained(name)
    model.set_weights(weights)  # another fault may be in them
    c = types.SimpleNamespace(name=name, model=model, wants=NETWORKS[name][1])
    c.plain, c.x, c.y = x[:n], form(x[:n], c.wants), y[:n].copy()
    c.seen, c.n_classes = (form(seen[:1000], c.wants), its_labels[:1000]), int(y.max()) + 1
    c.random, c.train, c.test, c.truth = np.random.default_rng(9), None, None, []
    return c


def damage(c, plant):
    """Plant a fault into a case, and note in `truth` which images it is about."""
    what, *how = plant.split()
    some = np.flatnonzero(c.y == 0) if what == "one-sided" else np.arange(len(c.y))
    share = float(how[-1][:-1]) / 100 if "%" in plant else 0
    some, weights = c.random.permutation(some)[: round(share * len(some))], c.model.weights
    match what:
        case "nan":
            weights[0].assign(np.full(weights[0].shape, np.nan))
        case "collapse":
            weights[-1].assign(np.eye(1, weights[-1].shape[0])[0] * 1e3)
            weights[-2].assign(weights[-2] * bool(how))
        case "dead":
            last = [w for w in weights if w.name == "beta" or "conv" in w.path and w.name == "bias"]
            off = np.arange(last[-1].shape[0]) < share * last[-1].shape[0]
            last[-1].assign(np.where(off, -1e3, last[-1]))
        case "logits":
            for weight in weights[-2:]:
                weight.assign(5 * weight)
        case "untrained":
            keras.utils.set_random_seed(5)
            c.model = network(c.name.split()[0], c.wants, c.x.shape[1:], c.n_classes)
        case "random":
            c.y = c.random.permutation(c.y)
        case "few":
            c.x, c.y = c.x[:8], c.y[8:16]
        case "black" | "repeated" | "mixed":
            mixed = c.plain[some] / (255 if c.wants == "0..255" else 1)
            c.x[some] = mixed if what == "mixed" else c.x[0]
            if what == "black":
                c.x[some], c.truth = form(0 * c.plain[:1], c.wants), some
        case "imbalance":
            keep = (c.y != 1) | (np.cumsum(c.y == 1) <= (c.y == 0).sum() // 20)
            c.x, c.y = c.x[keep], c.y[keep]
        case "overfitted":
            c.model, c.train = trained(c.name, what)[0], tuple(x[:60] for x in c.seen)
        case "shortcut":
            c.model, c.x = trained(c.name, what)[0], form(stamped(c.plain, c.y), c.wants)
            x, y = splits(NETWORKS[c.name][0])[1]
            c.test = form(x[500:900], c.wants), y[500:900]
        case "wrong" | "one-sided":
            move = c.random.integers(1, c.n_classes, len(some)) if what == "wrong" else 1
            c.y[some], c.truth = (c.y[some] + move) % c.n_classes, some
        case "leaked" | "within":
            to = c.seen if what == "leaked" else (c.x, c.y)
            copies = form(COPIES[how[0]](c.plain[some]), c.wants), c.y[some]
            both = tuple(np.concatenate(pair) for pair in zip(to, copies, strict=True))
            if what == "leaked":
                c.train, c.truth = both, some
            else:
                (c.x, c.y), c.truth = both, len(c.y) + np.arange(len(some))


def real(c, plant):
    """Whether the fault is one for this network: 5 images have it, or it costs 5 points."""
    if plant not in ("logits x5", "shortcut", "overfitted"):
        return not plant.startswith("one-sided") or len(c.truth) >= 5
    if plant == "logits x5":
        best = cnnviz.class_probabilities(c.model, c.x).max(axis=1).mean()
        return best - accuracy(c.model, c.x, c.y) >= 0.05
    splits = (c.train, (c.x, c.y)) if plant == "overfitted" else ((c.x, c.y), c.test)
    return np.subtract(*(accuracy(c.model, *split) for split in splits)) >= 0.05


def judge(c, found, kinds, words, also):
    """Whether a finding of the right kind has the right words and images, and no fault is false."""
    for one in found.findings:
        known = re.fullmatch(f"{kinds}|{also}", one.kind)
        if not known and (one.severity == "fault" or one.kind == "inputs"):
            return "wrong", one.sentence
    true = [one for one in found.findings if re.fullmatch(kinds, one.kind)]
    if not true:
        return "missed" if kinds else "named", ""
    n, hits = len(c.truth), [len(set(c.truth) & set(one.indices)) for one in true]
    one, hits = true[np.argmax(hits)], max(hits)
    text = f" [{hits} of {n} images, {len(one.indices) - hits} others]" if n else ""
    right = not n or hits >= 0.9 * n and len(one.indices) <= hits + 1
    if kinds == "label errors":
        right = (one.low or 0) <= n <= (one.high or 0) and hits >= len(one.indices) / 2
    return "named" if right and re.search(words, one.sentence) else "half", one.sentence + text


def try_inputs(name, plant):
    c = case(name, 300)
    *given, told = pipeline(plant, c.plain, c.y, c.wants)
    same, given = given[0].shape == c.x.shape, tuple(given)
    harmless = same and np.allclose(given[0], c.x) and (given[1] == c.y).all()
    if harmless or not same and c.model.input_shape[1]:
        return None  # such as images in 0..255 where the network rescales, or of another size
    cost = accuracy(c.model, c.x, c.y) - accuracy(c.model, *given)
    report = cnnviz.check_inputs(c.model, given)
    outcome = judge_inputs(c, report, given, told, plant)
    outcome = "cheap" if cost < 0.05 and outcome != "wrong" else outcome
    return outcome, False, f"-{100 * cost:.0f} points", " ".join(report.findings)


def try_diagnose(name, plant):
    c = case(name, plant if plant in SIZES else 400)
    if plant in SIZES and len(c.y) < plant:
        return None
    if plant in FAULTS:
        damage(c, plant)
        if not real(c, plant):
            return None
    elif accuracy(c.model, *c.seen) < accuracy(c.model, c.x, c.y) + 0.05:
        c.train = c.seen  # or the network overfits in fact
    found = cnnviz.diagnose(c.model, (c.x, c.y), train=c.train, test=c.test)
    seen = [*((one.severity, one.kind) for one in found.findings), ("note", "nothing")]
    severity, kind = seen[0]
    if plant in FAULTS:
        outcome, text = judge(c, found, *FAULTS[plant])
        return outcome, bool(re.fullmatch(FAULTS[plant][0], kind)), f"{severity}, {kind}", text
    text = " ".join(one.sentence for one in found.findings if one.severity != "note")
    return severity.replace("note", "nothing"), False, kind, text


Row = collections.namedtuple("Row", "group plant network outcome first seen text")
SIZES = 40, 200, 1000
SOME = "plain", "BatchNorm", "GELU", "subclassed"
GROUPS = {  # networks, plants, function, columns of the table
    "healthy": (NETWORKS, SIZES, try_diagnose, "fault suspicion nothing"),
    "faults": (SOME, FAULTS, try_diagnose, "wrong missed half named first"),
    "inputs": ([*NETWORKS][:5], PIPELINES, try_inputs, "wrong missed half named cheap"),
}


def rows(only):
    for group, (names, plants, function, _) in GROUPS.items():
        for name, plant in itertools.product(names, plants):
            if re.search(only, f"{group}, {name}: {plant}"):
                try:
                    found = function(name, plant)
                except Exception as error:  # which a user would see
                    found = "wrong", False, type(error).__name__, str(error)
                if found:
                    yield Row(group, str(plant), name, *found)


def page(done, minutes):
    """A table for each group, the worst first, and what was said where that is not right."""
    parts = []
    for group, (*_, columns) in GROUPS.items():
        found, columns = collections.defaultdict(collections.Counter), columns.split()
        for row in done:
            for plant in (row.plant, "all") if row.group == group else ():
                found[plant].update([row.outcome, "networks", *["first"] * row.first])
        order = sorted(found, key=lambda p: (p != "all", *(-found[p][one] for one in columns[:3])))
        heads = ["networks", *columns]
        cells = [[plant, *(found[plant][one] or "" for one in heads)] for plant in order]
        cells = [[group, *heads], ["---"] * (len(heads) + 1), *cells]
        parts += [f"| {' | '.join(map(str, row))} |" for row in cells] + [""]
    for bad in ("fault", "wrong", "missed", "half", "suspicion"):
        for _, plant, name, _, _, seen, text in (row for row in done if row.outcome == bad):
            parts.append(f"- {bad}: {name}, {plant} ({seen}). {text}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("cnnviz", "keras", "tensorflow"))
    return "\n".join([*parts, f"\n{packages}, {datetime.date.today()}, {minutes:.0f} minutes.\n"])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a pattern of 'group, network: plant'")
    parser.add_argument("--markdown", type=pathlib.Path)
    args, done, start = parser.parse_args(arguments), [], time.perf_counter()
    warnings.simplefilter("ignore", UserWarning)
    for row in rows(args.only):
        done.append(row)
        print(f"{row.outcome:9} {row.network}: {row.plant} ({row.seen}) {row.text}", flush=True)
    print(text := page(done, (time.perf_counter() - start) / 60))
    if args.markdown:
        args.markdown.write_text(args.markdown.read_text().split("| healthy")[0] + text)
    return done


if __name__ == "__main__":
    main()
