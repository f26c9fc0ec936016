"""Small models of many kinds, each with its Grad-CAM recomputed by hand; cnnviz is not used here.

Of each kind, `before` makes the feature map that a person would look at, and `after` the logits
from it, by the model's own layers one by one. `oracle` differentiates between the two.
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

L, ops = keras.layers, keras.ops
N = 8
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
    options: dict = dataclasses.field(default_factory=dict)  # others of `grad_cam`
    labels: Any = (0, 1) * (N // 2)
    grid: tuple | None = None  # of tokens
    asked: str | None = None  # a convolution without activation in front of `layer`
    last_call: Callable | None = None  # as `before`, if the layer's last call is another
    tolerance: float = 1e-3  # of a map, relative to its largest value


class Oracle(NamedTuple):
    """What is right: signed map, score, feature map as a grid, logits and probabilities."""

    maps: np.ndarray
    scores: np.ndarray
    features: np.ndarray
    logits: Any
    probabilities: np.ndarray | None


def oracle(kind, data=None):
    data = kind.data if data is None else data
    features = kind.before(data)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = kind.after(features, data)
        scores = kind.score(logits)
    features, gradient = (
        as_grid(kind, tf.cast(x, tf.float32)) for x in (features, tape.gradient(scores, features))
    )
    positions = list(range(1, features.shape.rank - 1))
    maps = tf.reduce_sum(tf.reduce_mean(gradient, positions, keepdims=True) * features, -1)
    if kind.last_call:
        features = kind.last_call(data)
    chances = probabilities(kind, logits) if kind.target is None else None
    return Oracle(maps.numpy(), scores.numpy(), features.numpy(), logits, chances)


def as_grid(kind, tokens):
    """Tokens as (N, h, w, C), without a class token; other feature maps as they are."""
    if kind.grid is None or tokens.shape.rank != 3:
        return tokens
    height, width = kind.grid
    return tf.reshape(tokens[:, -height * width :], (-1, height, width, tokens.shape[-1]))


def probabilities(kind, logits):
    if logits.shape[1] == 1:
        return np.hstack([tf.sigmoid(-logits), tf.sigmoid(logits)])
    return (tf.sigmoid if kind.end == "sigmoid" else tf.nn.softmax)(logits).numpy()


def images(*shape, seed=0):
    """One color above, another below, and noise, in 0..1."""
    random, ones = np.random.default_rng(seed), [1] * (len(shape) - 1)
    above, below = random.uniform(0, 1, (2, N, *ones, shape[-1]))
    is_above = np.arange(shape[0]).reshape(-1, *ones) * 2 < shape[0]
    noise = random.normal(0, 0.2, (N, *shape))
    return np.clip(np.where(is_above, above, below) + noise, 0, 1).astype(np.float32)


def spread(model, gain=1.5):
    """Give a model random weights of a spread that keeps maps from zero."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        value, name = random.normal(size=weight.shape), weight.name
        if len(weight.shape) > 1:
            value *= gain / np.prod(weight.shape[:-1]) ** 0.5
        else:
            value = 1 + 0.2 * value if name in ("gamma", "scale") else 0.3 * value
        if "float" in str(weight.dtype):  # else it is the state of a random generator
            weight.assign(0.5 + np.abs(value) if name == "moving_variance" else value)
    return model


def center(kind, layer, gain=1.5):
    """Spread the weights; move the biases of the last layer so that every class has its turn."""
    spread(kind.model, gain)
    logits = kind.after(kind.before(kind.data), kind.data)
    layer.bias.assign_sub(tf.reduce_mean(logits, range(logits.shape.rank - 1)))
    return kind


def chain(*layers):
    """Call layers one by one, in inference mode."""
    return lambda x, data=None: functools.reduce(lambda y, layer: layer(y), layers, x)


def linear(layer):
    """A dense layer, or a convolution of 1x1, without its activation."""
    if layer.activation is keras.activations.linear:
        return layer
    units = layer.kernel.shape[-2:]
    return lambda x: (
        tf.tensordot(tf.cast(x, tf.float32), tf.reshape(layer.kernel, units), 1) + layer.bias
    )


def functional(layers, shape=(16, 16, 3), name=None):
    inputs = keras.Input(shape)
    return keras.Model(inputs, chain(*layers)(inputs), name=name)


def convolutions(n_axes=2, **options):
    layer = getattr(L, f"Conv{n_axes}D")
    first = layer(6, 3, activation="relu", name="first", **options)
    return [first, layer(8, 3, strides=2, activation="relu", name="last", **options)]


def pooling(n_axes=2, **options):
    return getattr(L, f"GlobalAveragePooling{n_axes}D")(name="pool", **options)


def made(layers, tail, shape=(16, 16, 3), *, make=functional, gain=1.5, loss=None, **options):
    """A kind of layers called one by one; `make` puts them together.

    `hand` is what to call instead of the `layers`, and `given` the shape of the images.
    """
    hand, given = options.pop("hand", layers), options.pop("given", shape)
    behind, data = options.pop("behind", []), images(*given)
    model = make([*layers, *tail, *behind], shape)
    model(data)
    if loss:
        model.compile(loss=loss)
    *rest, head = tail
    after = chain(*rest, linear(head)) if hasattr(head, "kernel") else chain(*tail)
    kind = Kind(model, data, chain(*hand), after, **options)
    if hasattr(head, "kernel"):
        return center(kind, head, gain)
    spread(model)
    return kind


def plain(units=4, end=None, *, ahead=(), n_axes=2, policy="float32", **options):
    """Two convolutions, pooling and a dense layer; what comes `ahead` rescales to -1..1."""
    body = convolutions(n_axes, dtype=policy)
    activation = None if "behind" in options else end
    tail = [pooling(n_axes, dtype=policy), L.Dense(units, activation, name="head", dtype="float32")]
    if ahead:
        options["hand"] = [lambda x: 2 * x - 1, *body]
    return made([*ahead, *body], tail, end=end, **options)


class Subclassed(keras.Model):
    def __init__(self, layers, shape=None):
        super().__init__()
        self.steps = layers

    def call(self, x):
        return chain(*self.steps)(x)


def nested(layers, shape, around=functional, inside=lambda layers, shape: layers):
    return around([functional(inside(layers[:2], shape), shape, "backbone"), *layers[2:]], shape)


def inner(layers, shape):
    return [functional(layers, shape, "inner")]


PLAIN = {
    "functional": {},
    "Sequential": {"make": lambda layers, shape: keras.Sequential([keras.Input(shape), *layers])},
    "Sequential without Input": {"make": lambda layers, _: keras.Sequential(layers)},
    "nested": {"make": nested, "layer": "backbone/last"},
    "nested twice": {
        "make": functools.partial(nested, inside=inner),
        "layer": "backbone/inner/last",
    },
    "subclassed": {"make": Subclassed},
    "subclassed around a backbone": {
        "make": functools.partial(nested, around=Subclassed),
        "layer": "backbone/last",
    },
    "one sigmoid": {"units": 1, "end": "sigmoid"},
    "one logit": {"units": 1},
    "logits": {"units": 10},
    "softmax as activation": {"end": "softmax"},
    "softmax as layer": {"end": "softmax", "behind": [L.Softmax()]},
    "log-softmax": {"end": "log_softmax"},
    "saturated softmax": {"end": "softmax", "gain": 30},
    "multi-label": {"end": "sigmoid", "labels": np.random.default_rng(0).integers(0, 2, (N, 4))},
    # The oracle computes in the same precision, but rounds at other steps.
    "mixed_float16": {"end": "softmax", "policy": "mixed_float16", "tolerance": 5e-3},
    "mixed_bfloat16": {"end": "softmax", "policy": "mixed_bfloat16", "tolerance": 3e-2},
    "gray": {"shape": (16, 16, 1)},
    "four channels": {"shape": (16, 16, 4)},
    "free size": {"shape": (None, None, 3), "given": (15, 18, 3)},
    "non-square": {"shape": (12, 20, 3)},
    "augmentation inside": {"ahead": [L.RandomFlip(), L.RandomRotation(0.2), L.Rescaling(2, -1)]},
    "Lambda": {"ahead": [L.Lambda(lambda x: 2 * x - 1, name="scaled")]},
    "signal": {"shape": (24, 2), "n_axes": 1},
    "volume": {"shape": (8, 10, 12, 1), "n_axes": 3},
}
for NAME, UNITS, INDEX in (("regression", 1, 0), ("regression, three outputs", 3, 2)):
    PLAIN[NAME] = {
        "units": UNITS,
        "loss": "mse",
        "target": ("regression", INDEX),
        "score": functools.partial(lambda index, outputs: outputs[:, index], INDEX),
        "labels": 20 + 5.5 * np.arange(N),
    }


def loaded():
    with tempfile.TemporaryDirectory() as folder:
        path, kind = pathlib.Path(folder) / "model.keras", plain(end="softmax")
        kind.model.save(path)
        return dataclasses.replace(kind, model=keras.models.load_model(path))


def int8():
    kind = plain()
    kind.model.quantize("int8")
    return kind


class Residual(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.first = L.Conv2D(8, 3, padding="same", activation="relu")
        self.second = L.Conv2D(8, 3, padding="same")

    def call(self, x):
        return ops.relu(x + self.second(self.first(x)))


def block():
    layer, body, tail = Residual(name="block"), convolutions(), [pooling(), L.Dense(3)]
    hand = [*body, lambda x: tf.nn.relu(x + layer.second(layer.first(x)))]
    return made([*body, layer], tail, hand=hand, layer="block")


def shared():
    layer = L.Conv2D(8, 3, activation="relu", padding="same", name="shared")
    return made([*convolutions(), layer, layer], [pooling(), L.Dense(3)], layer="shared")


def normalized():
    layers = [L.Conv2D(6, 3, name="conv"), L.BatchNormalization(name="norm"), L.ReLU(name="relu")]
    return made(layers, [pooling(), L.Dense(3)], layer="relu", asked="conv")


def embedding():
    tail, one = [pooling(), L.Dense(5), L.UnitNormalization(axis=-1)], np.float32([1, -1, 2, 0, 1])
    score = lambda codes: tf.linalg.matvec(codes, one / np.linalg.norm(one))  # noqa: E731
    return made(convolutions(), tail, score=score, target=("similarity", one))


def two_outputs():
    kind, age = plain(3), L.Dense(1, name="age")
    _, last, pool, head = kind.model.layers[1:]
    outputs = [age(pool.output), head.output]
    model = keras.Model(kind.model.inputs, outputs)
    return dataclasses.replace(kind, model=model, options={"output_name": "head"})


def detector():
    tails = {
        name: [L.Flatten(), L.Dense(4 * size), L.Reshape((4, size))]
        for name, size in {"boxes": 4, "classes": 3}.items()
    }
    heads = lambda x: {name: chain(*tail)(x) for name, tail in tails.items()}  # noqa: E731
    score = lambda found: tf.reduce_max(found["classes"][..., 1], 1)  # noqa: E731
    return made(convolutions(), [heads], score=score, target=score)


def unet(units, end):
    down, deep = convolutions()[0], L.Conv2D(8, 3, padding="same", activation="relu", name="deep")
    up = L.Conv2D(6, 3, padding="same", activation="relu", name="up")
    coarse = chain(L.MaxPooling2D(), deep, L.UpSampling2D())

    def score(logits):
        logits = tf.concat([-logits, logits], -1) if units == 1 else logits
        where = tf.cast(tf.argmax(logits, -1) == 1, tf.float32)
        return tf.reduce_sum(where * logits[..., 1], (1, 2)) / tf.reduce_sum(where, (1, 2))

    layers = [down, lambda x: L.Concatenate()([x, coarse(x)]), up]
    rest = {"score": score, "target": ("region", 1), "labels": np.zeros((N, 14, 14), int)}
    return made(layers, [L.Conv2D(units, 1, activation=end)], layer="up", end=end, **rest)


def several(shapes, branches, join, look, as_dict, **options):
    """Several inputs; `join` makes the logits from what the branches make of them."""
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    data = {name: images(*shape, seed=len(name)) for name, shape in shapes.items()}
    arrange = dict if as_dict else lambda values: list(values.values())

    def features(data):
        data = data if as_dict else dict(zip(shapes, data, strict=True))
        return {name: branches[name](value) for name, value in data.items()}

    model = spread(keras.Model(arrange(inputs), join(features(arrange(inputs)))))
    after = lambda found, data: join(features(data) | {look: found})  # noqa: E731
    before = lambda data: features(data)[look]  # noqa: E731
    return Kind(model, arrange(data), before, after, **options)


def two_images(second):
    names, head, pool = ("left", "right"), L.Dense(3), [L.GlobalMaxPooling2D(), pooling()]
    branches = {name: L.Conv2D(6, 3, activation="relu", name=f"{name}_conv") for name in names}

    def join(maps):
        return head(ops.concatenate([pool[0](maps["left"]), pool[1](maps["right"])], 1))

    options = {
        "layer": f"{names[second]}_conv",
        "options": {"input_name": "right"} if second else {},
    }
    return several(
        dict.fromkeys(names, (16, 16, 3)), branches, join, names[second], second, **options
    )


def image_and_table(as_dict):
    pool, head = pooling(), L.Dense(3)
    join = lambda found: head(ops.concatenate([pool(found["image"]), found["table"]], 1))  # noqa: E731
    branches = {"table": L.Dense(4, "tanh"), "image": chain(*convolutions())}
    return several({"table": (5,), "image": (16, 16, 3)}, branches, join, "image", as_dict)


def siamese(second):
    encoder, code = functional(convolutions(), name="encoder"), chain(pooling(), L.Dense(6))
    names, head = ("one", "other"), L.Dense(1)
    join = lambda maps: head(ops.abs(code(maps["one"]) - code(maps["other"])))  # noqa: E731
    options = {"layer": "encoder/last", "last_call": lambda data: encoder(data[1])}
    options["options"] = {"input_name": second} if second else {}
    branches = dict.fromkeys(names, encoder)
    return several(
        dict.fromkeys(names, (16, 16, 3)), branches, join, names[second], False, **options
    )


class Tokens(L.Layer):
    """Adds positions, and a class token in front if there is one."""

    def __init__(self, with_class):
        super().__init__()
        self.with_class = with_class

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[2]), name="token")
        self.positions = self.add_weight(shape=(1, shape[1] + self.with_class, shape[2]))

    def call(self, x):
        token = ops.tile(self.token, (ops.shape(x)[0], 1, 1))
        return (ops.concatenate([token, x], 1) if self.with_class else x) + self.positions


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
    patches = [L.Conv2D(8, 4, strides=4), L.Reshape((24, 8)), Tokens(with_class)]
    (norm_1, rest_1), (norm_2, rest_2) = transformer(1), transformer(2)
    body = [*patches, lambda x: rest_1(x, norm_1(x))]
    end, rest = L.LayerNormalization(name="norm"), {"shape": (16, 24, 3), "grid": (4, 6)}
    last = [lambda x: rest_2(x, norm_2(x)), end]
    if not with_class:
        tail = [L.GlobalAveragePooling1D(), L.Dense(3)]
        return made([*body, *last], tail, layer="norm", **rest)
    # Behind the last attention, only the class token counts.
    tail = [lambda x: x[:, 0], L.Dense(3)]
    kind = made(body, [*last, *tail], layer="norm_2", **rest)
    after = lambda found, data: chain(end, *tail)(rest_2(kind.before(data), found))  # noqa: E731
    return dataclasses.replace(kind, before=chain(*body, norm_2), after=after)


def hybrid():
    mix, add = L.MultiHeadAttention(2, 4), L.Add(name="mixed")
    layers = [*convolutions(), L.Reshape((36, 8)), lambda x: add([x, mix(x, x)])]
    return made(layers, [L.GlobalAveragePooling1D(), L.Dense(3)], layer="mixed", grid=(6, 6))


class WindowAttention(L.Layer):
    """Attention within windows of 2x2 positions, as in Swin."""

    def __init__(self, **options):
        super().__init__(**options)
        self.mix = L.MultiHeadAttention(2, 4)

    def call(self, x):
        _, height, width, channels = x.shape
        x = ops.reshape(x, (-1, height // 2, 2, width // 2, 2, channels))
        tokens = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 4, channels))
        x = ops.reshape(self.mix(tokens, tokens), (-1, height // 2, width // 2, 2, 2, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))


def windows():
    mix, add, norm = WindowAttention(), L.Add(), L.LayerNormalization(name="norm")
    layers = [L.Conv2D(8, 2, strides=2), lambda x: add([x, mix(x)]), norm]
    return made(layers, [pooling(), L.Dense(3)], layer="norm")


def video(conv, *tail):
    return made([conv], [*tail, L.Dense(3)], (4, 12, 10, 3))


def frames():
    conv = L.TimeDistributed(L.Conv2D(6, 3, strides=2, activation="relu"), name="last")
    return video(conv, L.TimeDistributed(L.GlobalAveragePooling2D()), L.LSTM(5))


def conv_lstm():
    return video(L.ConvLSTM2D(6, 3, strides=2, return_sequences=True, name="last"), pooling(3))


def channels_first():
    layer = L.Conv2D(6, 3, activation="relu", data_format="channels_first", name="last")
    tail = [L.GlobalAveragePooling2D(data_format="channels_first"), L.Dense(3)]
    return made([layer], tail, (3, 16, 16))


def hub_vit():
    import keras_hub

    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    backbone = keras_hub.models.ViTBackbone((16, 16, 3), patch_size=4, name="backbone", **sizes)
    model = spread(keras_hub.models.ViTImageClassifier(backbone=backbone, num_classes=3))
    embed, encoder = backbone.layers[1:]
    first, last = encoder.encoder_layers

    def after(features, data):
        x = first(embed(data))
        x += last.mha(features, features)
        x += last.mlp(last.layer_norm_2(x))
        return model.output_dense(encoder.layer_norm(x)[:, 0])

    layer = "backbone/vit_encoder/transformer_block_2/ln_1"
    before = chain(embed, first, last.layer_norm_1)
    return Kind(model, images(16, 16, 3), before, after, layer, grid=(4, 4))


def hub_resnet():
    import keras_hub

    sizes = [64], [3], [64, 16], [1, 1], [1, 2], "basic_block"
    backbone = keras_hub.models.ResNetBackbone(*sizes, image_shape=(32, 32, 3), name="backbone")
    model = spread(keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=3))
    after, layer = chain(model.pooler, model.output_dense), f"backbone/{backbone.layers[-1].name}"
    return Kind(model, images(32, 32, 3), backbone, after, layer)


KINDS = {name: functools.partial(plain, **options) for name, options in PLAIN.items()} | {
    "loaded from .keras": loaded,
    "int8": int8,
    "block class": block,
    "shared layer": shared,
    "convolution, BatchNormalization, ReLU": normalized,
    "two outputs": two_outputs,
    "two images, list": lambda: two_images(0),
    "two images, dict, the second": lambda: two_images(1),
    "image and table, list": lambda: image_and_table(False),
    "image and table, dict": lambda: image_and_table(True),
    "Siamese": lambda: siamese(0),
    "Siamese, the second image": lambda: siamese(1),
    "embedding": embedding,
    "detector, dict of outputs": detector,
    "U-Net, softmax": lambda: unet(3, "softmax"),
    "U-Net, sigmoid": lambda: unet(1, "sigmoid"),
    "ViT with class token": lambda: vit(True),
    "ViT with pooling": lambda: vit(False),
    "convolution and attention": hybrid,
    "window attention": windows,
    "video, TimeDistributed": frames,
    "video, ConvLSTM2D": conv_lstm,
    "channels first": channels_first,
    "keras_hub ViT": hub_vit,
    "keras_hub ResNet": hub_resnet,
}


@functools.cache
def built(name):
    """The `Kind` of this name, and its `Oracle`."""
    keras.utils.set_random_seed(1)
    kind = KINDS[name]()
    return kind, oracle(kind)
