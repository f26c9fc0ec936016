"""Plant faults in networks and data, and count which `cnnviz.diagnose` finds and explains.

python tests/planted.py                             25 minutes on two cores
python tests/planted.py --quick                     2 minutes
python tests/planted.py --markdown docs/planted.md  writes that page
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
SHAPES = {  # corners, x and y in percent; "v" is "^" upside down, and "J" is "L" mirrored
    "^": "50 0 99 50 65 50 65 99 35 99 35 50 0 50",
    "v": "50 99 99 50 65 50 65 0 35 0 35 50 0 50",
    "L": "10 0 40 0 40 70 95 70 95 99 10 99",
    "J": "90 0 60 0 60 70 5 70 5 99 90 99",
    "F": "10 0 99 0 99 25 40 25 40 45 80 45 80 70 40 70 40 99 10 99",
}
COLORS = {"r": (190, 70, 60), "g": (70, 160, 80), "b": (60, 90, 190), "y": (200, 170, 60)}
SIGNS = "^r vr Lg Jg Fb Fr ^y- ^y| Lb+ Lb~"  # shape, color, and stripes or a gradient
PHOTOGRAPHS = "astronaut coffee chelsea rocket retina immunohistochemistry stereo_motorcycle"


def signs(n, seed, classes):
    """Signs on backgrounds with the spectrum of photographs: images in 0..255, labels."""
    random, names = np.random.default_rng(seed), np.array(SIGNS.split())[classes]
    labels = random.permutation(np.arange(n) % len(names)).astype(np.int32)
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)).clip(1 / SIZE)
    noise = np.fft.irfft2(np.fft.rfft2(random.normal(size=(n, 4, SIZE, SIZE))) / frequency)
    noise = np.moveaxis(noise[:, :1] + 0.4 * noise[:, 1:], 1, 3)
    rows, columns = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j][..., None]
    images = noise / noise.std(axis=(1, 2, 3), keepdims=True) * random.uniform(15, 40, (n, 1, 1, 1))
    images += random.uniform(60, 170, (n, 1, 1, 1)) - random.uniform(0, 40, (n, 1, 1, 1)) * rows
    textures = {"-": np.sin(38 * rows), "|": np.sin(38 * columns), "+": -1.3 * rows}
    for image, (shape, color, *texture) in zip(images, names[labels], strict=True):
        turn = cv2.getRotationMatrix2D((0.5, 0.5), *random.uniform((-14, 0.5), (14, 0.85)))
        corners = np.array(SHAPES[shape].split(), float).reshape(-1, 2) / 100
        corners = corners @ turn[:, :2].T + turn[:, 2] + random.uniform(-0.15, 0.15, 2)
        mask = cv2.fillPoly(np.zeros((4 * SIZE,) * 2, np.float32), [np.int32(4 * SIZE * corners)], 1)
        mask = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[..., None]
        color = COLORS[color] + random.normal(0, 28, 3) + random.normal(0, 25)
        color = color + 35 * textures.get("".join(texture), 1.3 * rows * bool(texture))
        image += random.uniform(0.55, 0.95) * mask * (color - image)
    return np.clip(images + random.normal(0, 8, images.shape), 0, 255).round(), labels


def crops(n_each, train):
    """Crops of nine photographs: which one is it? Each tile of one belongs to one split only."""
    photographs = [getattr(skimage.data, name)() for name in PHOTOGRAPHS.split()]
    photographs[-1] = photographs[-1][0]
    photographs += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    random, images = np.random.default_rng(train), []
    for label, photograph in enumerate(photographs):
        width, height = (np.array(photograph.shape[1::-1]) * min(1, 600 / max(photograph.shape))).astype(int)
        photograph = cv2.resize(photograph, (width, height), interpolation=cv2.INTER_AREA)
        tiles = [(y, x) for y in range(0, height - 55, 56) for x in range(0, width - 55, 56)]
        tiles = np.random.default_rng(label).permutation(tiles)
        for top, left in tiles[: len(tiles) * 3 // 5] if train else tiles[len(tiles) * 3 // 5 :]:
            tile = photograph[top : top + 56, left : left + 56]
            for _ in range(n_each if tile.std() > 8 else 0):
                side = random.integers(40, 57)
                y, x = random.integers(0, 57 - side, 2)
                crop = cv2.resize(tile[y : y + side, x : x + side], (SIZE, SIZE), interpolation=3)
                images.append((label, crop * random.uniform(0.7, 1.2) + random.uniform(-20, 20)))
    labels, images = zip(*(images[i] for i in random.permutation(len(images))), strict=True)
    return np.clip(images, 0, 255).round(), np.int32(labels)


def faces(train):
    """Labeled faces in the wild, and other pieces of these photographs, gray."""
    images = np.load(pathlib.Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[..., None]
    return (255 * images[train::2]).round(), np.repeat(np.int32([1, 0]), 50)


@functools.cache
def splits(data):
    """{"train": (images in 0..255, labels), "validation": the same}"""
    if data == "photographs":
        both = crops(8, 1), crops(1, 0)
    elif data == "faces":
        both = faces(1), faces(0)
    else:
        classes = {"10": slice(10), "3": [4, 5, 2], "2": [8, 9]}[data.split()[0]]
        both = signs(3000 if classes == slice(10) else 1500, 0, classes), signs(1000, 1, classes)
    return {name: (np.float32(x), y) for name, (x, y) in zip(("train", "validation"), both)}


MODES = {"-1..1": "tf", "standardized": "torch", "centered": "caffe"}
NETWORKS = {  # name -> kind, data, form of images, epochs
    "plain": ("plain", "10 signs", "0..1", 8),
    "BatchNorm": ("BatchNorm", "photographs", "-1..1", 10),
    "residual": ("residual", "photographs", "standardized", 10),
    "nested": ("nested", "photographs", "centered", 10),
    "residual, 0..255": ("residual", "10 signs", "0..255", 8),
    "depthwise": ("depthwise", "photographs", "-1..1", 10),
    "GELU": ("GELU", "3 signs", "0..255", 10),
    "subclassed": ("subclassed", "2 signs", "0..1", 10),
    "BatchNorm, 2 classes": ("BatchNorm", "2 signs", "standardized", 10),
    "depthwise, 3 classes": ("depthwise", "3 signs", "standardized", 12),
    "nested, 2 classes": ("nested", "2 signs", "-1..1", 10),
    "faces": ("plain", "faces", "0..1", 20),
}


def form(x, wants):
    """Images in 0..255 as a network wants them, by Keras' own functions."""
    if wants in MODES:
        return preprocess_input(np.array(x), mode=MODES[wants])
    return x / 255 if wants == "0..1" else np.array(x)


def block(x, kind, filters):
    if kind == "residual":
        x = L.Conv2D(filters, 3, 2, "same")(x)
        y = L.ReLU()(L.BatchNormalization()(x))
        y = L.Conv2D(filters, 3, padding="same", activation="relu")(y)
        return L.Add()([x, L.Conv2D(filters, 3, padding="same")(y)])
    if kind == "depthwise":
        x = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, use_bias=False)(x)))
        x = L.Conv2D(filters, 1, 1 + (filters > 16), use_bias=False)(x)
        return L.ReLU()(L.BatchNormalization()(x))
    x = L.Conv2D(filters, 3, padding="same")(x)
    x = x if kind in ("plain", "GELU") else L.BatchNormalization()(x)
    return L.MaxPooling2D()(L.Activation("gelu" if kind == "GELU" else "relu")(x))


class Subclassed(keras.Model):
    def __init__(self, backbone, head):
        super().__init__()
        self.backbone, self.head = backbone, head

    def call(self, x, training=False):
        return self.head(self.backbone(x, training=training))


def network(kind, shape, n_classes, wants):
    """A small network; plain ones and those with GELU take images of one size."""
    flat = kind in ("plain", "GELU")
    inputs = x = keras.Input(shape if flat else (None, None, shape[2]))
    x = L.Rescaling(1 / 255)(x) if wants == "0..255" else x
    for filters in (16, 32, 64):
        x = block(x, kind, filters)
    x = L.Dropout(0.3)(L.Flatten()(x) if flat else L.GlobalAveragePooling2D()(x))
    one = n_classes == 2 and not flat
    head = L.Dense(1 if one else n_classes, "sigmoid" if one else "softmax", name="head")
    if kind not in ("nested", "subclassed"):
        return keras.Model(inputs, head(x))
    backbone = keras.Model(inputs, x, name="backbone")
    if kind == "nested":
        inputs = keras.Input((None, None, shape[2]))
        return keras.Model(inputs, head(backbone(inputs)))
    model = Subclassed(backbone, head)
    model(np.zeros((1, *shape), np.float32))
    return model


@functools.cache
def trained(name, variant=""):
    """The network, trained once and kept, on all images, on 60, or on stamped ones."""
    kind, data, wants, epochs = NETWORKS[name]
    x, y = splits(data)["train"]
    if variant == "overfitted":
        x, y, epochs = x[:60], y[:60], 60
    x = stamped(x, y) if variant == "shortcut" else x
    keras.utils.set_random_seed(1)
    model, weights = network(kind, x.shape[1:], int(y.max()) + 1, wants), HOME / f"{name} {variant}.weights.h5"
    if weights.exists():
        model.load_weights(weights)
        return model
    rate = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(x) // 32))
    loss = "binary" if model(form(x[:1], wants)).shape[-1] == 1 else "sparse_categorical"
    model.compile(keras.optimizers.Adam(rate), f"{loss}_crossentropy", jit_compile=False)
    model.fit(form(x, wants), y, epochs=epochs, verbose=0)
    HOME.mkdir(exist_ok=True)
    model.save_weights(weights)
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
    "upside down": lambda x: x[:, ::-1],
    "transposed": lambda x: x.swapaxes(1, 2),
    "16 bit": lambda x: 257 * x,
    "also /255": lambda x: x / 255,
    **{f"size x{f}": each(cv2.resize, None, fx=f, fy=f, interpolation=3) for f in (0.5, 0.75, 1.5, 2)},
}
INSTEAD = {  # what they get instead
    "forgotten": lambda x, _: x,
    "twice": lambda x, wants: form(form(x, wants), wants),
    "x/127.5": lambda x, _: x / 127.5,
    "0..100": lambda x, _: x / 2.55,
    "one by one": standardized,
    **{f"{wants} instead": lambda x, _, wants=wants: form(x, wants) for wants in ("0..1", *MODES)},
}
PAIRS = "BGR, forgotten; BGR, upside down; BGR, labels; inverted, transposed; forgotten, labels; "
PAIRS += "upside down, forgotten; size x0.5, forgotten; size x1.5, BGR; BGR, x/127.5; BGR, 16 bit"
PIPELINES = [*FILES, *INSTEAD, "labels", *PAIRS.split("; ")]
WORDS = {  # what a sentence must say, and must not say about another fault
    "range": "wants|twice|one by one",
    "BGR": r"BGR(?!, less)|GBR|GRB|RBG|BRG",
    "inverted": "inverted|negative",
    "gray": "gray",
    "HSV": r"HSV|YCrCb|\bLab\b",
    "turned": "upside|transpos|turned|mirror",
    "size": r"\d+ ?x ?\d+",
    "labels": "another order",
}
FORMS = {"0..1": r"[^-]0\.\.1\b", "0..255": r"0\.\.255", "-1..1": r"-1\.\.1\b"}
FORMS |= {"standardized": "DenseNet|ImageNet's standard", "centered": "VGG|mean color"}


def pipeline(plant, x, y, wants):
    """-> images and labels of a faulty pipeline, and which `WORDS` explain it."""
    how, told = form, set()
    for name in plant.split(", "):
        x = FILES[name](x) if name in FILES else x
        how = INSTEAD.get(name, how)
        turned = name in ("upside down", "transposed")
        name = "turned" if turned else name.split(" ")[0]
        told.add(name if name in WORDS else "range")
    if "labels" in told:  # as those of folders that were read in another order
        n_classes = y.max() + 1
        y = np.random.default_rng(3).permutation(np.arange(1, n_classes + 1) % n_classes)[y]
    return np.float32(how(x, wants)), np.int32(y), told


def judge_inputs(c, report, given, told, plant):
    """Strictly: the sentences name this fault and no other, and `mend` undoes it."""
    text = " ".join([*report.findings, *report.remarks])
    said = {name for name, words in WORDS.items() if re.search(words, text)}
    if not said or not report.findings and told != {"gray"}:
        return "missed"
    if said - told:
        return "wrong"
    if "gray" in said:
        return "named"
    images, labels = report.mend(*given)
    if said != told:  # named are those that matter
        return "named" if accuracy(c.model, images, labels) > accuracy(c.model, c.x, c.y) - 0.02 else "half"
    if images.shape != c.x.shape or (labels != c.y).any():
        return "wrong"
    lossy = said & {"size", "HSV"} or plant == "one by one"
    best, now = accuracy(c.model, c.x, c.y), accuracy(c.model, images, labels)
    if now < ((best + accuracy(c.model, *given)) / 2 if lossy else best - 0.02):
        return "wrong"
    exact = lossy or np.abs(images - c.x).mean() < 0.1 * c.x.std()
    return "named" if exact and ("range" not in said or re.search(FORMS[c.wants], text)) else "wrong"


def stamped(x, y):
    """A checkered mark in a corner of the images of class 0."""
    x = x.copy()
    x[y == 0, -10:-2, -10:-2] = 255 * (np.indices((8, 8)).sum(0) // 2 % 2)[..., None]
    return x


def jpeg(x):
    return cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], 1)


COPIES = {
    "exact": lambda x: x,
    "re-encoded": each(jpeg),
    "cropped": each(lambda x: cv2.resize(x[2:45, 3:46], (SIZE, SIZE))),
    "mirrored": lambda x: x[:, :, ::-1],
    "brighter": lambda x: np.clip(1.15 * x + 12, 0, 255),
}
FAULTS = {  # plant -> kinds that name it, words, kinds that are true as well
    "nan in weights": ("nan", "layer", ""),
    "collapse": ("collapse", "predicts", "mistakes"),
    "dead 100%": ("dead filters", "never fire", "collapse|mistakes"),
    "dead 50%": ("dead filters", "never fire", "collapse|mistakes"),
    "logits x5": ("calibration", "surer", ""),
    "untrained": ("mistakes|collapse", "not above|predicts", "mistakes|collapse"),
    "random labels": ("mistakes|label errors", "", ""),
    "8 random labels": ("", "", "mistakes|collapse|label errors"),
    "black 20%": ("images", "black|single color", ""),
    "repeated 20%": ("images", "repeat", "duplicates"),
    "repeated 100%": ("images", "repeat", "duplicates|collapse|mistakes"),
    "0..255 or 0..1 50%": ("images|inputs", r"0\.\.1\b", "inputs"),
    "imbalance 20:1": ("imbalance", "images of", ""),
    "overfitted": ("overfitting", "in train", ""),
    "shortcut": ("mistakes|shortcut", "in test", ""),
    **{f"{how} labels {share}%": ("label errors", "", "") for how in ("wrong", "one-sided") for share in (5, 20)},
    **{f"leaked {how} {share}%": ("leakage", "cop", "") for how, share in
       [("exact", 5), ("exact", 50), *((how, 5) for how in COPIES if how != "exact")]},
    **{f"copies {how} 10%": ("duplicates", "cop", "images") for how in ("exact", "re-encoded")},
}


def damage(c, plant):
    """Plant a fault into a case."""
    words, n = plant.split(), len(c.y)
    share = float(words[-1][:-1]) / 100 if words[-1].endswith("%") else 0
    weights, bias = c.model.weights, getattr(c.model, "head", c.model.layers[-1]).bias
    c.truth = c.random.permutation(n)[: round(share * n)]
    match words[0]:
        case "nan":
            weights[0].assign(np.full(weights[0].shape, np.nan))
        case "collapse":
            bias.assign_add(1e3 * np.eye(bias.shape[0])[0])
        case "dead":
            last = [w for w in weights if w.name == "beta" or w.name == "bias" and "conv" in w.path][-1]
            last.assign(np.where(np.arange(last.shape[0]) < share * last.shape[0], -1e3, last))
            c.truth = ()
        case "logits":
            for weight in weights[-2:]:
                weight.assign(5 * weight)
        case "untrained":
            keras.utils.set_random_seed(5)
            c.model = network(NETWORKS[c.name][0], c.x.shape[1:], c.n_classes, c.wants)
        case "random" | "8":
            c.x, c.y = (each[: 8 if words[0] == "8" else n] for each in (c.x, c.random.permutation(c.y)))
        case "black":
            c.x[c.truth] = form(0 * c.plain[:1], c.wants)
        case "repeated":
            c.x[c.truth] = c.x[c.truth[0]]
        case "0..255":
            c.x[c.truth] = c.plain[c.truth] / (255 if c.wants == "0..255" else 1)
        case "imbalance":
            keep = (c.y != 1) | (np.cumsum(c.y == 1) <= max((c.y == 0).sum() // 20, 1))
            c.x, c.y = c.x[keep], c.y[keep]
        case "overfitted":
            c.model, c.train = trained(c.name, "overfitted"), tuple(each[:60] for each in c.train)
        case "shortcut":
            c.model, c.test = trained(c.name, "shortcut"), (c.x, c.y)
            c.x = form(stamped(c.plain, c.y), c.wants)
        case "wrong":
            c.y[c.truth] = (c.y[c.truth] + c.random.integers(1, c.n_classes, len(c.truth))) % c.n_classes
        case "one-sided":
            c.truth = np.flatnonzero(c.y == 0)[: round(share * (c.y == 0).sum())]
            c.y[c.truth] = 1
        case "leaked" | "copies":
            copies = form(COPIES[words[1]](c.plain[c.truth]), c.wants), c.y[c.truth]
            if words[0] == "leaked":
                c.train = tuple(np.concatenate(both) for both in zip(c.train, copies, strict=True))
            else:
                c.x, c.y = (np.concatenate(both) for both in zip((c.x, c.y), copies, strict=True))
                c.truth = np.append(c.truth, np.arange(n, len(c.y)))


def judge(found, c, kinds, words, also):
    """Whether a finding of the right kind has the right images and words, and no fault is false."""
    true = [one for one in found.findings if re.fullmatch(kinds, one.kind)]
    false = [one for one in found.findings if one not in true and not re.fullmatch(also, one.kind)]
    false = [one for one in false if one.severity == "fault" or one.kind == "inputs"]
    if false:
        return "wrong", false[0].sentence
    if not true:
        return "missed" if kinds else "none", ""
    one, hits = true[0], len(set(c.truth) & set(true[0].indices))
    exact = hits >= 0.9 * len(c.truth) and len(one.indices) - hits <= 1 or not len(c.truth)
    if kinds == "label errors":
        exact = one.low <= len(c.truth) <= one.high and hits >= len(one.indices) / 2
    numbers = f" [{hits} of {len(c.truth)} found, {len(one.indices) - hits} false]" if len(c.truth) else ""
    return "named" if exact and re.search(words, one.sentence) else "half", one.sentence + numbers


Row = collections.namedtuple("Row", "group plant network outcome first seen text seconds")
INPUTS = "plain", "BatchNorm", "residual", "nested", "residual, 0..255"
OTHERS = "plain", "BatchNorm", "GELU", "subclassed"


def case(name, n):
    """A network with n images of validation, and 1,000 of training."""
    (x, y), (seen, its_labels) = splits(NETWORKS[name][1]).values()
    c = types.SimpleNamespace(name=name, model=trained(name), wants=NETWORKS[name][2])
    c.plain, c.x, c.y = x[:n], form(x[:n], c.wants), y[:n].copy()
    c.seen, c.n_classes = (form(seen[:1000], c.wants), its_labels[:1000]), int(y.max()) + 1
    c.random, c.train, c.test, c.truth = np.random.default_rng(9), None, None, ()
    return c


def ask(c):
    found = cnnviz.diagnose(c.model, (c.x, c.y), train=c.train, test=c.test)
    first = found.findings[0] if found.findings else None
    return found, f"{first.severity}, {first.kind}" if first else "nothing"


def try_inputs(name, plant):
    c = case(name, 300)
    right = c.x, c.y
    images, labels, told = pipeline(plant, c.plain, c.y, c.wants)
    given = images, labels
    same = given[0].shape == c.x.shape
    if same and np.allclose(given[0], c.x) and (given[1] == c.y).all():
        return None  # such as images in 0..255 that are not rescaled where the network does
    if not same and c.model.input_shape[1]:
        return None
    cost = accuracy(c.model, *right) - accuracy(c.model, *given)
    report = cnnviz.check_inputs(c.model, given)
    outcome = judge_inputs(c, report, given, told, plant)
    if cost < 0.05 and outcome != "wrong":
        outcome = "cheap"
    return outcome, "", f"-{100 * cost:.0f} points", " ".join(report.findings)


def try_fault(name, plant):
    c = case(name, 400)
    if plant.startswith("dead") and name == "subclassed":
        return None
    weights, model = c.model.get_weights(), c.model
    damage(c, plant)
    found, first = ask(c)
    model.set_weights(weights)
    outcome, text = judge(found, c, *FAULTS[plant])
    return outcome, bool(re.search(f", ({FAULTS[plant][0]})$", first)), first, text


def try_healthy(name, n):
    c = case(name, n)
    gap = accuracy(c.model, *c.seen) - accuracy(c.model, c.x, c.y)
    c.train = c.seen if n > 40 and gap < 0.05 else None  # or training is easier in fact
    found, first = ask(c)
    severity = found.findings[0].severity if found.findings else "nothing"
    text = " ".join(one.sentence for one in found.findings if one.severity != "note")
    return severity if severity != "note" else "nothing", "", first, text


GROUPS = {
    "inputs": (INPUTS, PIPELINES, try_inputs),
    "faults": (OTHERS, FAULTS, try_fault),
    "healthy": (NETWORKS, (40, 1000), try_healthy),
}
QUICK = "plain: (BGR|twice|nan|dead|leaked exact)|faces|subclassed: (20|wrong)"
PAGE = """# Planted faults

Faults planted in networks and data that `diagnose` and `check_inputs` were not tuned on.

{tables}
Named: the sentence says this fault and no other, and undoing what it says restores the
predictions (`judge` and `judge_inputs` in `tests/planted.py`). Half: a part of the fault, or other
images. Wrong: another fault is named. Cheap: faults of inputs that cost under 5 points, where only
wrong explanations count. First: the worst finding is of the right kind.

{details}
Data: signs painted on noise with the spectrum of photographs (2, 3 and 10 classes), crops of nine
photographs of scikit-image and scikit-learn (which is it from?), and labeled faces, 25 and 48
pixels. Networks, trained for under a minute each: {networks}.
{versions}, {date}; {minutes:.0f} minutes on two cores.
"""


def table(group, done):
    """The outcomes of a group for each plant, those that are not as they should be first."""
    columns = ("fault", "suspicion", "nothing")
    if group != "healthy":
        columns = ("wrong", "missed", "half", "named", "first" if group == "faults" else "cheap")
    found = collections.defaultdict(collections.Counter)
    for row in done:
        for plant in (row.plant, "all"):
            found[plant].update({"n": 1, row.outcome: 1, "first": row.first is True})
    lines = [f"| {group} | networks | {' | '.join(columns)} |", "| --- " * (len(columns) + 2) + "|"]
    for plant in sorted(found, key=lambda p: (p != "all", *(-found[p][name] for name in columns[:3]))):
        cells = plant, found[plant]["n"], *(found[plant][name] or "" for name in columns)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def page(done, minutes):
    groups = {group: [row for row in done if row.group == group] for group in GROUPS}
    tables = "\n".join(table(group, some) for group, some in groups.items() if some)
    bad = [row for row in done if row.outcome in ("wrong", "missed", "half", "fault", "suspicion")]
    bad.sort(key=lambda row: ("fault", "wrong", "missed", "half", "suspicion").index(row.outcome))
    details = [f"- {r.outcome}: {r.network}, {r.plant} ({r.seen}): {r.text}" for r in bad]
    packages = ", ".join(f"{name} {version(name)}" for name in ("cnnviz", "keras", "tensorflow"))
    networks = "; ".join(f"{name} ({data}, {wants})" for name, (_, data, wants, _) in NETWORKS.items())
    about = {"tables": tables, "details": "\n".join(details), "versions": packages}
    about |= {"networks": networks, "date": datetime.date.today(), "minutes": minutes}
    return PAGE.format(**about)


def rows(only):
    for group, (of, plants, function) in GROUPS.items():
        for name in of:
            for plant in plants:
                if not re.search(only, f"{group}, {name}: {plant}"):
                    continue
                started = time.perf_counter()
                if result := function(name, plant):
                    yield Row(group, str(plant), name, *result, time.perf_counter() - started)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="a regular expression of 'group, network: plant'")
    parser.add_argument("--markdown", type=pathlib.Path)
    warnings.simplefilter("ignore", UserWarning)
    args, done, started = parser.parse_args(arguments), [], time.perf_counter()
    try:
        for row in rows(QUICK if args.quick else args.only):
            done.append(row)
            print(f"{row.outcome:10}{row.network:22}{row.plant:26}{row.seen:24}{row.seconds:5.1f} s  {row.text}", flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    text = page(done, (time.perf_counter() - started) / 60)
    print(text)
    if args.markdown:
        args.markdown.write_text(text)
    return done


if __name__ == "__main__":
    main()
