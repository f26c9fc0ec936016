"""Small models of many kinds, each with its Grad-CAM recomputed by hand; cnnviz is not used here.

Of each kind, `before` makes the feature map that a person would look at, and `after` the logits
from it, by the model's own layers one by one. `oracle` differentiates between the two.
"""

import dataclasses
import functools
import pathlib
import tempfile
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

L, ops = keras.layers, keras.ops
N = 8  # images
COLOR, VIDEO = (16, 16, 3), (4, 12, 10, 3)
ENDS = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "log_softmax": tf.nn.log_softmax}


def predicted(logits):
    """The score of the predicted class; one output z gives the two classes -z and z."""
    return tf.abs(logits[:, 0]) if logits.shape[1] == 1 else tf.reduce_max(logits, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """A model, what its `predict` takes, and the way from there to a score."""

    model: keras.Model
    data: Any
    before: Callable  # data -> feature map
    after: Callable  # feature map, data -> logits
    layer: str = "last"  # that makes the feature map: the one to look at, unless told
    end: str | None = None  # what makes the output from the logits
    score: Callable = predicted  # logits -> (N,)
    target: Any = None  # a function, or the name and arguments of one of `cnnviz.targets`
    output_name: str | None = None
    input_name: str | int | None = None
    look: str | int | None = None  # key or index of the image in the data
    labels: Any = (0, 1) * (N // 2)
    grid: tuple | str | None = None  # of tokens, or what is odd about it
    asked: str | None = None  # a convolution without activation in front of `layer`
    tolerance: float = 1e-3  # of a map, relative to its largest value


def oracle(kind, data=None):
    """Signed map, score, feature map as a grid, logits, and probabilities if it has classes."""
    data = kind.data if data is None else data
    features = kind.before(data)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = kind.after(features, data)
        scores = kind.score(logits)
    features, gradient = (
        as_grid(kind, tf.cast(x, tf.float32)) for x in (features, tape.gradient(scores, features))
    )
    weights = tf.reduce_mean(gradient, range(1, features.shape.rank - 1), keepdims=True)
    maps, classes = tf.reduce_sum(weights * features, -1).numpy(), None
    if kind.target is None:
        each = tf.concat([-logits / 2, logits / 2], 1) if logits.shape[1] == 1 else logits
        several_labels = kind.end == "sigmoid" and logits.shape[1] > 1
        classes = (tf.sigmoid if several_labels else tf.nn.softmax)(each).numpy()
    found = {"maps": maps, "scores": scores.numpy(), "features": features.numpy()}
    return SimpleNamespace(logits=logits, probabilities=classes, **found)


def as_grid(kind, tokens):
    """Tokens as (N, h, w, C), without a class token; other feature maps as they are."""
    if kind.grid == "channels first":
        return tf.transpose(tokens, (0, 2, 3, 1))
    if kind.grid is None or len(tokens.shape) != 3:
        return tokens
    height, width = kind.grid
    return tf.reshape(tokens[:, -height * width :], (-1, height, width, tokens.shape[-1]))


def images(*shape, seed=0):
    """One color above, another below, and noise, in 0..1."""
    random, ones = np.random.default_rng(seed), [1] * (len(shape) - 1)
    above, below = random.uniform(0, 1, (2, N, *ones, shape[-1]))
    is_above = np.arange(shape[0]).reshape(-1, *ones) * 2 < shape[0]
    noise = random.normal(0, 0.2, (N, *shape))
    return np.clip(np.where(is_above, above, below) + noise, 0, 1).astype(np.float32)


def spread(kind, head=None, gain=1.5):
    """Give random weights of a spread that keeps maps from zero, and every class its turn."""
    random = np.random.default_rng(0)
    for weight in kind.model.weights:
        value, name = random.normal(size=weight.shape), weight.name
        if len(weight.shape) > 1:
            value *= gain / np.prod(weight.shape[:-1]) ** 0.5
        else:
            value = 1 + 0.2 * value if name in ("gamma", "scale") else 0.3 * value
        if "float" in str(weight.dtype):  # else it is the state of a random generator
            weight.assign(0.5 + np.abs(value) if name == "moving_variance" else value)
    if head is not None:
        logits = kind.after(kind.before(kind.data), kind.data)
        head.bias.assign_sub(tf.reduce_mean(logits, range(logits.shape.rank - 1)))
    return kind


def chain(*layers):
    """Call layers one by one, in inference mode."""
    return lambda x, data=None: functools.reduce(lambda y, layer: layer(y), layers, x)


def linear(layer):
    """A dense layer, or a convolution of 1x1, without its activation."""

    def call(x):
        kernel = tf.reshape(layer.kernel, layer.kernel.shape[-2:])
        return tf.tensordot(tf.cast(x, tf.float32), kernel, 1) + layer.bias

    return layer if layer.activation is keras.activations.linear else call


def functional(layers, shape=COLOR, name=None):
    inputs = keras.Input(shape)
    return keras.Model(inputs, chain(*layers)(inputs), name=name)


def conv(name, filters=8, padding="same", **options):
    return L.Conv2D(filters, 3, padding=padding, activation="relu", name=name, **options)


def convolutions(n_axes=2, **options):
    layer = functools.partial(getattr(L, f"Conv{n_axes}D"), activation="relu", **options)
    return [layer(6, 3, name="first"), layer(8, 3, strides=2, name="last")]


def pooled(n_axes=2, units=3, end=None, **options):
    pool = getattr(L, f"GlobalAveragePooling{n_axes}D")(**options)
    return [pool, L.Dense(units, end, name="head", dtype="float32")]


def made(
    layers, tail, shape=COLOR, *, make=functional, gain=1.5, hand=(), given=None, behind=(), **more
):
    """A kind of layers called one by one; `make` puts them together.

    `hand` is what to call instead of the `layers`, and `given` the shape of the images.
    """
    model, data = make([*layers, *tail, *behind], shape), images(*(given or shape))
    model(data)
    *rest, head = tail
    head = head if hasattr(head, "kernel") else None
    after = chain(*rest, linear(head)) if head else chain(*tail)
    return spread(Kind(model, data, chain(*(hand or layers)), after, **more), head, gain)


def plain(units=4, end=None, *, ahead=(), n_axes=2, policy="float32", **options):
    """Two convolutions, pooling and a dense layer; what comes `ahead` rescales to -1..1."""
    body = convolutions(n_axes, dtype=policy)
    tail = pooled(n_axes, units, None if "behind" in options else end, dtype=policy)
    hand = [lambda x: 2 * x - 1, *body] if ahead else body
    return made([*ahead, *body], tail, end=end, hand=hand, **options)


class Subclassed(keras.Model):
    def __init__(self, layers, shape=None):
        super().__init__()
        self.steps = layers

    def call(self, x):
        return chain(*self.steps)(x)


def nested(layers, shape, around=functional, name="backbone"):
    return around([functional(layers[:2], shape, name), *layers[2:]], shape)


def nested_twice(layers, shape):
    inner = functional(layers[:2], shape, "inner")
    return functional([functional([inner], shape, "backbone"), *layers[2:]], shape)


def regression(units, index):
    options = {"target": ("regression", index), "score": lambda outputs: outputs[:, index]}
    kind = plain(units, labels=20 + 11 * np.tile([0, 1], N // 2), **options)
    kind.model.compile(loss="mse")
    return kind


def loaded():
    with tempfile.TemporaryDirectory() as folder:
        path, kind = pathlib.Path(folder) / "model.keras", plain(end="softmax")
        kind.model.save(path)
        return dataclasses.replace(kind, model=keras.models.load_model(path))


def int8():
    kind = plain()
    with warnings.catch_warnings(action="ignore"):  # that convolutions stay as they are
        kind.model.quantize("int8")
    return kind


class Block(L.Layer):
    """A composite layer: `run(x, *inside)`."""

    def __init__(self, inside, run, **options):
        super().__init__(**options)
        self.inside, self.run = inside, run

    def call(self, x):
        return self.run(x, *self.inside)


def block():
    one, two, body = conv(None), L.Conv2D(8, 3, padding="same"), convolutions()
    layer = Block([one, two], lambda x, one, two: ops.relu(x + two(one(x))), name="block")
    hand = [*body, lambda x: tf.nn.relu(x + two(one(x)))]
    return made([*body, layer], pooled(), hand=hand, layer="block")


def embedding():
    one = np.float32([1, -1, 2, 0, 1])
    options = {"score": lambda codes: tf.linalg.matvec(codes, one / np.linalg.norm(one))}
    tail = [*pooled(units=5), L.UnitNormalization(axis=-1)]
    return made(convolutions(), tail, target=("similarity", one), **options)


def two_outputs():
    kind, age = plain(3), L.Dense(1, name="age")
    _, _, pool, head = kind.model.layers[1:]
    model = keras.Model(kind.model.input, [age(pool.output), head.output])
    return dataclasses.replace(kind, model=model, output_name="head")


def detector():
    tails = {
        name: chain(L.Flatten(), L.Dense(4 * size), L.Reshape((4, size)))
        for name, size in {"boxes": 4, "classes": 3}.items()
    }

    def score(found):
        return tf.reduce_max(found["classes"][..., 1], 1)

    heads = [lambda x: {name: tail(x) for name, tail in tails.items()}]
    return made(convolutions(), heads, score=score, target=score)


def unet(units, end):
    coarse = chain(L.MaxPooling2D(), conv("deep"), L.UpSampling2D())
    layers = [conv("down", 6), lambda x: L.Concatenate()([x, coarse(x)]), conv("up", 6)]

    def score(logits):
        logits = tf.concat([-logits, logits], -1) if units == 1 else logits
        where = tf.cast(tf.argmax(logits, -1) == 1, tf.float32)
        return tf.reduce_sum(where * logits[..., 1], (1, 2)) / tf.reduce_sum(where, (1, 2))

    rest = {"score": score, "target": ("region", 1), "labels": np.zeros((N, 16, 16), int)}
    return made(layers, [L.Conv2D(units, 1, activation=end)], layer="up", end=end, **rest)


def several(shapes, branches, tails, combine, look, as_dict=False, **options):
    """Several inputs: of each, a branch makes a feature map, and a tail what is combined."""
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    data = {name: images(*shape, seed=len(name)) for name, shape in shapes.items()}
    arrange, head = dict if as_dict else (lambda values: list(values.values())), L.Dense(3)

    def maps(data):
        data = data if as_dict else dict(zip(shapes, data, strict=True))
        return {name: branches[name](value) for name, value in data.items()}

    def join(maps):
        return head(combine([tails[name](one) for name, one in maps.items()]))

    model = keras.Model(arrange(inputs), join(maps(arrange(inputs))))
    before, options["look"] = lambda x: maps(x)[look], look if as_dict else [*shapes].index(look)
    after = lambda found, x: join(maps(x) | {look: found})  # noqa: E731
    return spread(Kind(model, arrange(data), before, after, **options))


def two_images(look, **options):
    branches = {name: conv(f"{name}_conv") for name in ("left", "right")}
    tails, shapes = dict.fromkeys(branches, pooled()[0]), dict.fromkeys(branches, COLOR)
    return several(shapes, branches, tails, L.concatenate, look, layer=f"{look}_conv", **options)


def image_and_table(as_dict):
    branches = {"table": L.Dense(4, "tanh"), "image": chain(*convolutions())}
    tails, shapes = {"table": chain(), "image": pooled()[0]}, {"table": (5,), "image": COLOR}
    return several(shapes, branches, tails, L.concatenate, "image", as_dict)


def siamese(look, **options):
    encoder, code = functional(convolutions(), name="encoder"), chain(*pooled(units=6))
    branches, tails, shapes = (
        dict.fromkeys(("one", "other"), each) for each in (encoder, code, COLOR)
    )
    combine = lambda codes: ops.abs(codes[0] - codes[1])  # noqa: E731
    return several(shapes, branches, tails, combine, look, layer="encoder/last", **options)


class ClassToken(L.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[2]), name="token")

    def call(self, x):
        return ops.concatenate([ops.tile(self.token, (ops.shape(x)[0], 1, 1)), x], 1)


def transformer(index):
    """-> (norm before the attention, what makes the output of input and norm)."""
    norm, mix = L.LayerNormalization(name=f"norm_{index}"), L.MultiHeadAttention(2, 4)
    dense = chain(L.LayerNormalization(), L.Dense(16, "gelu"), L.Dense(8))

    def rest(x, normed):
        x = L.Add()([x, mix(normed, normed)])
        return L.Add()([x, dense(x)])

    return norm, rest


def vit(with_class):
    """The grid is not square; with the class token, the number of tokens is."""
    patches = [L.Conv2D(8, 4, strides=4), L.Reshape((24, 8))]
    (norm_1, rest_1), (norm_2, rest_2) = transformer(1), transformer(2)
    end, rest = L.LayerNormalization(name="norm"), {"shape": (16, 24, 3), "grid": (4, 6)}
    last = [lambda x: rest_2(x, norm_2(x)), end]
    body = [*patches, *[ClassToken()] * with_class, lambda x: rest_1(x, norm_1(x))]
    if not with_class:
        return made([*body, *last], pooled(1), layer="norm", **rest)
    # Behind the last attention, only the class token counts.
    tail = [lambda x: x[:, 0], L.Dense(3)]
    kind = made(body, [*last, *tail], layer="norm_2", **rest)
    after = chain(end, *tail)
    return dataclasses.replace(
        kind,
        before=chain(*body, norm_2),
        after=lambda found, data: after(rest_2(kind.before(data), found)),
    )


def hybrid():
    mix, add = L.MultiHeadAttention(2, 4), L.Add(name="mixed")
    layers = [*convolutions(), L.Reshape((36, 8)), lambda x: add([x, mix(x, x)])]
    return made(layers, pooled(1), layer="mixed", grid=(6, 6))


def windows(x, mix):
    """Attention within windows of 2x2 positions, as in Swin."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height // 2, 2, width // 2, 2, channels))
    tokens = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 4, channels))
    x = ops.reshape(mix(tokens, tokens), (-1, height // 2, width // 2, 2, 2, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))


def swin():
    mix, add = Block([L.MultiHeadAttention(2, 4)], windows), L.Add()
    norm = L.LayerNormalization(name="norm")
    return made([conv(None), lambda x: add([x, mix(x)]), norm], pooled(), layer="norm")


def hub_vit():
    import keras_hub

    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    backbone = keras_hub.models.ViTBackbone(COLOR, patch_size=4, name="backbone", **sizes)
    model = keras_hub.models.ViTImageClassifier(backbone=backbone, num_classes=3)
    embed, encoder = backbone.layers[1:]
    first, last = encoder.encoder_layers

    def after(features, data):
        x = first(embed(data)) + last.mha(features, features)
        x += last.mlp(last.layer_norm_2(x))
        return model.output_dense(encoder.layer_norm(x)[:, 0])

    layer = "backbone/vit_encoder/transformer_block_2/ln_1"
    before = chain(embed, first, last.layer_norm_1)
    kind = Kind(model, images(*COLOR), before, after, layer, grid=(4, 4))
    return spread(kind, model.output_dense)


def hub_resnet():
    import keras_hub

    sizes = [64], [3], [64, 16], [1, 1], [1, 2], "basic_block"
    backbone = keras_hub.models.ResNetBackbone(*sizes, image_shape=COLOR, name="backbone")
    model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=3)
    after, layer = chain(model.pooler, model.output_dense), f"backbone/{backbone.layers[-1].name}"
    return spread(Kind(model, images(*COLOR), backbone, after, layer), model.output_dense)


def kind(build=plain, *arguments, **options):
    return functools.partial(build, *arguments, **options)


first = {"data_format": "channels_first"}
KINDS = {
    "functional": kind(),
    "Sequential": kind(make=lambda layers, shape: keras.Sequential([keras.Input(shape), *layers])),
    "Sequential without Input": kind(make=lambda layers, _: keras.Sequential(layers)),
    "nested": kind(make=nested, layer="backbone/last"),
    "nested twice": kind(make=nested_twice, layer="backbone/inner/last"),
    "subclassed": kind(make=Subclassed),
    "subclassed around a backbone": kind(
        make=functools.partial(nested, around=Subclassed), layer="backbone/last"
    ),
    "shared layer": lambda: made(
        [*convolutions(), *[conv("shared")] * 2], pooled(), layer="shared"
    ),
    "two outputs": two_outputs,
    "two images, list": kind(two_images, "left"),
    "two images, dict, the second": kind(two_images, "right", as_dict=True, input_name="right"),
    "image and table, list": kind(image_and_table, False),
    "image and table, dict": kind(image_and_table, True),
    "Siamese": kind(siamese, "one"),
    "Siamese, the second image": kind(siamese, "other", input_name=1),
    "one sigmoid": kind(units=1, end="sigmoid"),
    "one logit": kind(units=1),
    "logits": kind(units=10),
    "softmax as activation": kind(end="softmax"),
    "softmax as layer": kind(end="softmax", behind=[L.Softmax()]),
    "log-softmax": kind(end="log_softmax"),
    "saturated softmax": kind(end="softmax", gain=30),
    "multi-label": kind(end="sigmoid", labels=np.random.default_rng(0).integers(0, 2, (N, 4))),
    # The oracle computes in the same precision, but rounds at other steps.
    "mixed_float16": kind(end="softmax", policy="mixed_float16", tolerance=5e-3),
    "mixed_bfloat16": kind(end="softmax", policy="mixed_bfloat16", tolerance=5e-2),
    "int8": int8,
    "loaded from .keras": loaded,
    "gray": kind(shape=(16, 16, 1)),
    "four channels": kind(shape=(16, 16, 4)),
    "free size": kind(shape=(None, None, 3), given=(15, 18, 3)),
    "non-square": kind(shape=(12, 20, 3)),
    "channels first": lambda: made(
        [L.Conv2D(6, 3, name="last", **first)], pooled(**first), (3, 16, 16), grid="channels first"
    ),
    "augmentation inside": kind(ahead=[L.RandomFlip(), L.RandomRotation(0.2), L.Rescaling(2, -1)]),
    "Lambda": kind(ahead=[L.Lambda(lambda x: 2 * x - 1)]),
    "block class": block,
    "convolution, BatchNormalization, ReLU": lambda: made(
        [L.Conv2D(6, 3, name="conv"), L.BatchNormalization(), L.ReLU(name="last")],
        pooled(),
        asked="conv",
    ),
    "regression": kind(regression, 1, 0),
    "regression, three outputs": kind(regression, 3, 2),
    "embedding": embedding,
    "U-Net, softmax": kind(unet, 3, "softmax"),
    "U-Net, sigmoid": kind(unet, 1, "sigmoid"),
    "detector, dict of outputs": detector,
    "ViT with class token": kind(vit, True),
    "ViT with pooling": kind(vit, False),
    "convolution and attention": hybrid,
    "window attention": swin,
    "signal": kind(shape=(24, 2), n_axes=1),
    "volume": kind(shape=(8, 10, 12, 1), n_axes=3),
    "video, TimeDistributed": lambda: made(
        [L.TimeDistributed(conv(None, strides=2), name="last")],
        [L.TimeDistributed(L.GlobalAveragePooling2D()), L.LSTM(5), L.Dense(3)],
        VIDEO,
    ),
    "video, ConvLSTM2D": lambda: made(
        [L.ConvLSTM2D(6, 3, strides=2, return_sequences=True, name="last")], pooled(3), VIDEO
    ),
    "keras_hub ViT": hub_vit,
    "keras_hub ResNet": hub_resnet,
}


@functools.cache
def built(name):
    """The `Kind` of this name, and its oracle."""
    keras.utils.set_random_seed(1)
    kind = KINDS[name]()
    return kind, oracle(kind)
