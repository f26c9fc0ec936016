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
LABELS = np.tile([0, 1], N // 2)
ENDS = {
    "linear": tf.identity,
    "sigmoid": tf.sigmoid,
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
}


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
    end: str = "linear"  # what makes the output from the logits
    score: Callable = predicted  # logits -> (N,)
    target: Any = None  # a function, or the name and arguments of one of `cnnviz.targets`
    options: dict = dataclasses.field(default_factory=dict)  # others of `grad_cam`
    labels: Any = dataclasses.field(default_factory=lambda: LABELS)
    grid: tuple | None = None  # of tokens
    asked: str | None = None  # a convolution without activation in front of `layer`
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
    weights = tf.reduce_mean(gradient, positions, keepdims=True)
    maps = tf.reduce_sum(weights * features, -1)
    chances = probabilities(kind, logits) if kind.target is None else None
    return Oracle(maps.numpy(), scores.numpy(), features.numpy(), logits, chances)


def as_grid(kind, tokens):
    """Tokens as (N, h, w, C), without a class token; other feature maps as they are."""
    if kind.grid is None:
        return tokens
    height, width = kind.grid
    return tf.reshape(tokens[:, -height * width :], (-1, height, width, tokens.shape[-1]))


def probabilities(kind, logits):
    if logits.shape[1] == 1:
        return np.hstack([tf.sigmoid(-logits), tf.sigmoid(logits)])
    return (tf.sigmoid if kind.end == "sigmoid" else tf.nn.softmax)(logits).numpy()


def output(kind):
    """What the model returns, by hand, in its structure."""
    logits = kind.after(kind.before(kind.data), kind.data)
    return tf.nest.map_structure(ENDS[kind.end], logits)


KINDS = {}


def kind(name):
    """Add a function that builds a `Kind`."""

    def add(build):
        @functools.cache
        def seeded():
            keras.utils.set_random_seed(1)
            return build()

        KINDS[name] = seeded
        return build

    return add


def images(*shape, seed=0):
    """Noise around a color that differs from one to the next, in 0..1."""
    shape, random = shape or (16, 16, 3), np.random.default_rng(seed)
    colors = random.uniform(0, 1, (N, *(1 for _ in shape[:-1]), shape[-1]))
    return np.clip(colors + random.normal(0, 0.3, (N, *shape)), 0, 1).astype(np.float32)


def spread(model, seed=0, gain=1.5):
    """Give a model random weights of a spread that keeps maps from zero, and outputs apart."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" not in str(weight.dtype):
            continue  # the state of a random generator
        value, name = random.normal(size=weight.shape), weight.name
        if len(weight.shape) > 1:
            value *= gain / np.prod(weight.shape[:-1]) ** 0.5
        else:
            value = 1 + 0.2 * value if name in ("gamma", "scale") else 0.3 * value
        weight.assign(0.5 + np.abs(value) if name == "moving_variance" else value)
    return model


def chain(*layers):
    """Call layers one by one, in inference mode."""
    return lambda x, data=None: functools.reduce(lambda y, layer: layer(y), layers, x)


def functional(layers, shape=(16, 16, 3), name=None):
    inputs = keras.Input(shape)
    return keras.Model(inputs, chain(*layers)(inputs), name=name)


def linear(layer):
    """A dense layer, or a convolution of 1x1, without its activation."""

    def call(x):
        kernel = tf.cast(layer.kernel, tf.float32)
        return tf.tensordot(tf.cast(x, tf.float32), tf.reshape(kernel, kernel.shape[-2:]), 1) + (
            tf.cast(layer.bias, tf.float32)
        )

    return call


def convolutions(n_axes=2):
    layer = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}[n_axes]
    first = layer(6, 3, activation="relu", name="first")
    return [first, layer(8, 3, strides=2, activation="relu", name="last")]


def pooling(n_axes=2):
    return (L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D)[
        n_axes - 1
    ](name="pool")


def plain(
    units=4,
    end="linear",
    shape=(16, 16, 3),
    *,
    own=None,
    make=functional,
    ahead=(),
    behind=(),
    gain=1.5,
    n_axes=2,
    **options,
):
    """Two convolutions, pooling and a dense layer; `make` puts the layers together."""
    first, last = convolutions(n_axes)
    tail = [pooling(n_axes), L.Dense(units, None if behind else end, name="head", dtype="float32")]
    model, data = make([*ahead, first, last, *tail, *behind], shape), images(*(own or shape))
    model(data)
    spread(model, gain=gain)
    after = chain(tail[0], linear(tail[1]))
    return Kind(model, data, chain(*ahead, first, last), after, end=end, **options)


class Subclassed(keras.Model):
    def __init__(self, layers, shape=None):
        super().__init__()
        self.steps = layers

    def call(self, x):
        return chain(*self.steps)(x)


def nested(layers, shape):
    return functional([functional(layers[:2], shape, "backbone"), *layers[2:]], shape)


def nested_twice(layers, shape):
    inner = functional(layers[:2], shape, "inner")
    return functional([functional([inner], shape, "backbone"), *layers[2:]], shape)


def around_backbone(layers, shape):
    return Subclassed([functional(layers[:2], shape, "backbone"), *layers[2:]])


for NAME, OPTIONS in {
    "functional": {},
    "Sequential": {"make": lambda layers, shape: keras.Sequential([keras.Input(shape), *layers])},
    "Sequential without Input": {"make": lambda layers, _: keras.Sequential(layers)},
    "nested": {"make": nested, "layer": "backbone/last"},
    "nested twice": {"make": nested_twice, "layer": "backbone/inner/last"},
    "subclassed": {"make": Subclassed},
    "subclassed around a backbone": {"make": around_backbone, "layer": "backbone/last"},
    "one sigmoid": {"units": 1, "end": "sigmoid"},
    "one logit": {"units": 1},
    "logits": {"units": 10},
    "softmax as activation": {"end": "softmax"},
    "softmax as layer": {"end": "softmax", "behind": [L.Softmax()]},
    "log-softmax": {"end": "log_softmax"},
    "saturated softmax": {"end": "softmax", "gain": 30},
    "multi-label": {"end": "sigmoid", "labels": np.random.default_rng(0).integers(0, 2, (N, 4))},
    "gray": {"shape": (16, 16, 1)},
    "four channels": {"shape": (16, 16, 4)},
    "free size": {"shape": (None, None, 3), "own": (15, 18, 3)},
    "non-square": {"shape": (12, 20, 3)},
    "augmentation inside": {"ahead": [L.RandomFlip(), L.RandomRotation(0.2), L.Rescaling(2, -1)]},
    "Lambda": {"ahead": [L.Lambda(lambda x: 2 * x - 1, name="scaled")]},
    "signal": {"shape": (24, 2), "n_axes": 1},
    "volume": {"shape": (8, 10, 12, 1), "n_axes": 3},
}.items():
    kind(NAME)(functools.partial(plain, **OPTIONS))


def with_policy(policy, tolerance):
    """The oracle computes in the same precision, but rounds at other steps."""
    keras.config.set_dtype_policy(policy)
    try:
        return plain(end="softmax", tolerance=tolerance)
    finally:
        keras.config.set_dtype_policy("float32")


kind("mixed_float16")(lambda: with_policy("mixed_float16", 5e-3))
kind("mixed_bfloat16")(lambda: with_policy("mixed_bfloat16", 3e-2))


def output_at(index):
    return lambda outputs: outputs[:, index]


def regression(units, index):
    target = ("regression", index)
    found = plain(units, target=target, score=output_at(index), labels=20 + 5.5 * np.arange(N))
    found.model.compile(loss="mse")
    return found


kind("regression")(lambda: regression(1, 0))
kind("regression, three outputs")(lambda: regression(3, 2))


@kind("loaded from .keras")
def loaded():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        plain(end="softmax").model.save(path)
        model = keras.models.load_model(path)
    first, last, pool, head = model.layers[1:]
    return Kind(model, images(), chain(first, last), chain(pool, linear(head)), end="softmax")


@kind("int8")
def int8():
    found = plain()
    found.model.quantize("int8")
    return dataclasses.replace(found, after=chain(*found.model.layers[-2:]))


@kind("shared layer")
def shared():
    first, last = convolutions()
    layer = L.Conv2D(8, 3, activation="relu", padding="same", name="shared")
    tail = [pooling(), L.Dense(3)]
    model = spread(functional([first, last, layer, layer, *tail]))
    return Kind(model, images(), chain(first, last, layer, layer), chain(*tail), layer="shared")


@kind("convolution, BatchNormalization, ReLU")
def normalized():
    layers = [L.Conv2D(6, 3, name="conv"), L.BatchNormalization(name="norm"), L.ReLU(name="relu")]
    tail = [pooling(), L.Dense(3)]
    model = spread(functional([*layers, *tail]))
    return Kind(model, images(), chain(*layers), chain(*tail), layer="relu", asked="conv")


class Residual(L.Layer):
    def __init__(self, filters, **options):
        super().__init__(**options)
        self.first = L.Conv2D(filters, 3, padding="same", activation="relu")
        self.second = L.Conv2D(filters, 3, padding="same")

    def call(self, x):
        return ops.relu(x + self.second(self.first(x)))


@kind("block class")
def block():
    first, last = convolutions()
    layer, tail = Residual(8, name="block"), [pooling(), L.Dense(3)]
    model = spread(functional([first, last, layer, *tail]))

    def before(x):
        x = last(first(x))
        return tf.nn.relu(x + layer.second(layer.first(x)))

    return Kind(model, images(), before, chain(*tail), layer="block")


@kind("two outputs")
def two_outputs():
    first, last = convolutions()
    pool, animal, age = pooling(), L.Dense(3, name="animal"), L.Dense(1, name="age")
    inputs = keras.Input((16, 16, 3))
    x = chain(first, last, pool)(inputs)
    model = spread(keras.Model(inputs, [age(x), animal(x)]))
    options = {"output_name": "animal"}
    return Kind(model, images(), chain(first, last), chain(pool, animal), options=options)


def two_images(second):
    names, shape = ("left", "right"), (16, 16, 3)
    inputs = {name: keras.Input(shape, name=name) for name in names}
    branches = [L.Conv2D(6, 3, activation="relu", name=f"{name}_conv") for name in names]
    pools, head = [pooling(), L.GlobalMaxPooling2D()], L.Dense(3, name="head")

    def join(pooled):
        return head(ops.concatenate(pooled, 1))

    maps = [branch(inputs[name]) for name, branch in zip(names, branches, strict=True)]
    model = spread(keras.Model(inputs if second else list(inputs.values()), join(both(pools, maps))))
    data = [images(seed=seed) for seed in (0, 1)]

    def after(features, data):
        data = list(data.values()) if second else data
        maps = both(branches, data)
        maps[second] = features
        return join(both(pools, maps))

    options = {"input_name": "right"} if second else {}
    given = dict(zip(names, data, strict=True)) if second else data
    key = names[1] if second else 0
    return Kind(
        model,
        given,
        lambda data: branches[second](data[key]),
        after,
        layer=f"{names[second]}_conv",
        options=options,
    )


def both(calls, values):
    return [call(value) for call, value in zip(calls, values, strict=True)]


kind("two images, list")(lambda: two_images(0))
kind("two images, dict, the second")(lambda: two_images(1))


def image_and_table(as_dict):
    shapes = {"table": (5,), "image": (16, 16, 3)}
    inputs = {name: keras.Input(shape, name=name) for name, shape in shapes.items()}
    first, last = convolutions()
    pool, row, head = pooling(), L.Dense(4, activation="tanh"), L.Dense(3, name="head")

    def join(features, table):
        return head(ops.concatenate([pool(features), row(table)], 1))

    logits = join(last(first(inputs["image"])), inputs["table"])
    model = spread(keras.Model(inputs if as_dict else list(inputs.values()), logits))
    data = {name: images(*shape) for name, shape in shapes.items()}
    table, image = ("table", "image") if as_dict else (0, 1)
    return Kind(
        model,
        data if as_dict else list(data.values()),
        lambda data: last(first(data[image])),
        lambda features, data: join(features, data[table]),
    )


kind("image and table, list")(lambda: image_and_table(False))
kind("image and table, dict")(lambda: image_and_table(True))


def siamese(second):
    first, last = convolutions()
    tail, head = [pooling(), L.Dense(6)], L.Dense(1, "sigmoid", name="head")
    encoder, inputs = functional([first, last, *tail], name="encoder"), []
    inputs = [keras.Input((16, 16, 3), name=name) for name in ("one", "other")]
    codes = [encoder(one) for one in inputs]
    model = spread(keras.Model(inputs, head(ops.abs(codes[0] - codes[1]))))

    def after(features, data):
        maps = [last(first(one)) for one in data]
        maps[second] = features
        one, other = map(chain(*tail), maps)
        return linear(head)(tf.abs(one - other))

    options = {"input_name": second} if second else {}
    data = [images(seed=seed) for seed in (0, 1)]
    before = lambda data: last(first(data[second]))  # noqa: E731
    return Kind(model, data, before, after, "encoder/last", "sigmoid", options=options)


kind("Siamese")(lambda: siamese(0))
kind("Siamese, the second image")(lambda: siamese(1))


@kind("embedding")
def embedding():
    first, last = convolutions()
    tail = [pooling(), L.Dense(5, name="code"), L.UnitNormalization(axis=-1)]
    model, reference = spread(functional([first, last, *tail])), np.float32([1, -1, 2, 0.5, 1])

    def score(codes):
        return tf.linalg.matvec(codes, reference / np.linalg.norm(reference))

    target = ("similarity", reference)
    return Kind(model, images(), chain(first, last), chain(*tail), score=score, target=target)


def unet(units, end):
    down, deep = convolutions()[0], L.Conv2D(8, 3, padding="same", activation="relu", name="deep")
    up = L.Conv2D(6, 3, padding="same", activation="relu", name="up")
    head = L.Conv2D(units, 1, activation=end, name="head")

    def before(x):
        fine = down(x)
        coarse = L.UpSampling2D()(deep(L.MaxPooling2D()(fine)))
        return up(L.Concatenate()([fine, coarse]))

    inputs = keras.Input((16, 16, 3))
    model = spread(keras.Model(inputs, head(before(inputs))), seed=3)

    def score(logits):
        logits = tf.concat([-logits, logits], -1) if units == 1 else logits
        where = tf.cast(tf.argmax(logits, -1) == 1, tf.float32)
        return tf.math.divide_no_nan(
            tf.reduce_sum(where * logits[..., 1], (1, 2)), tf.reduce_sum(where, (1, 2))
        )

    rest = {"score": score, "target": ("region", 1), "labels": np.zeros((N, 14, 14), int)}
    return Kind(model, images(), before, chain(linear(head)), "up", end, **rest)


kind("U-Net, softmax")(lambda: unet(3, "softmax"))
kind("U-Net, sigmoid")(lambda: unet(1, "sigmoid"))


@kind("detector")
def detector():
    first, last = convolutions()
    tails = {
        name: [L.Flatten(), L.Dense(4 * size), L.Reshape((4, size))]
        for name, size in {"boxes": 4, "classes": 3}.items()
    }

    def after(x, data=None):
        return {name: chain(*tail)(x) for name, tail in tails.items()}

    def score(outputs):  # of the box that is most likely of class 1
        return tf.reduce_max(outputs["classes"][..., 1], 1)

    inputs = keras.Input((16, 16, 3))
    model = spread(keras.Model(inputs, after(last(first(inputs)))))
    return Kind(model, images(), chain(first, last), after, score=score, target=score)


class ClassToken(L.Layer):
    """Adds positions, and a class token in front if there is one."""

    def __init__(self, with_class, **options):
        super().__init__(**options)
        self.with_class = with_class

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[2]), name="token")
        self.positions = self.add_weight(shape=(1, shape[1] + self.with_class, shape[2]))

    def call(self, x):
        token = ops.tile(self.token, (ops.shape(x)[0], 1, 1))
        return (ops.concatenate([token, x], 1) if self.with_class else x) + self.positions


def vit(with_class):
    """The grid is not square; with the class token, the number of tokens is."""
    patches = [L.Conv2D(8, 4, strides=4, name="patches"), L.Reshape((24, 8))]
    tokens, final, head = ClassToken(with_class), L.LayerNormalization(name="norm"), L.Dense(3)
    blocks = [
        {
            "norm": L.LayerNormalization(name=f"norm_{index}"),
            "mix": L.MultiHeadAttention(2, 4, name=f"attention_{index}"),
            "mlp": [L.LayerNormalization(), L.Dense(16, "gelu"), L.Dense(8)],
        }
        for index in (1, 2)
    ]

    def rest(block, x, normed):
        x = L.Add()([x, block["mix"](normed, normed)])
        return L.Add()([x, chain(*block["mlp"])(x)])

    def until(x):
        x = tokens(chain(*patches)(x))
        return rest(blocks[0], x, blocks[0]["norm"](x))

    def end(x):
        return head(x[:, 0] if with_class else L.GlobalAveragePooling1D()(x))

    inputs = keras.Input((16, 24, 3))
    x = until(inputs)
    model = spread(keras.Model(inputs, end(final(rest(blocks[1], x, blocks[1]["norm"](x))))))
    data = images(16, 24, 3)
    if with_class:  # behind the last attention, only the class token counts
        return Kind(
            model,
            data,
            lambda data: blocks[1]["norm"](until(data)),
            lambda features, data: end(final(rest(blocks[1], until(data), features))),
            layer="norm_2",
            grid=(4, 6),
        )

    def before(data):
        x = until(data)
        return final(rest(blocks[1], x, blocks[1]["norm"](x)))

    return Kind(model, data, before, lambda features, _: end(features), "norm", grid=(4, 6))


kind("ViT with class token")(lambda: vit(True))
kind("ViT with pooling")(lambda: vit(False))


@kind("convolution and attention")
def hybrid():
    first, last = convolutions()
    flat, mix = L.Reshape((36, 8)), L.MultiHeadAttention(2, 4, name="attention")
    add, tail = L.Add(name="mixed"), [L.GlobalAveragePooling1D(), L.Dense(3)]

    def before(x):
        x = flat(last(first(x)))
        return add([x, mix(x, x)])

    inputs = keras.Input((16, 16, 3))
    model = spread(keras.Model(inputs, chain(*tail)(before(inputs))))
    return Kind(model, images(), before, chain(*tail), "mixed", grid=(6, 6))


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


@kind("window attention")
def windows():
    patches, mix = L.Conv2D(8, 2, strides=2, name="patches"), WindowAttention(name="windows")
    add, norm = L.Add(name="mixed"), L.LayerNormalization(name="norm")
    tail = [pooling(), L.Dense(3)]

    def before(x):
        x = patches(x)
        return norm(add([x, mix(x)]))

    inputs = keras.Input((16, 16, 3))
    model = spread(keras.Model(inputs, chain(*tail)(before(inputs))))
    return Kind(model, images(), before, chain(*tail), "norm")


@kind("video, TimeDistributed")
def video():
    conv = L.TimeDistributed(L.Conv2D(6, 3, strides=2, activation="relu"), name="frames")
    tail = [L.TimeDistributed(L.GlobalAveragePooling2D()), L.LSTM(5), L.Dense(3)]
    model = spread(functional([conv, *tail], (4, 12, 10, 3)))
    return Kind(model, images(4, 12, 10, 3), chain(conv), chain(*tail), "frames")


@kind("video, ConvLSTM2D")
def conv_lstm():
    conv = L.ConvLSTM2D(6, 3, strides=2, return_sequences=True, name="memory")
    tail = [pooling(3), L.Dense(3)]
    model = spread(functional([conv, *tail], (4, 12, 10, 3)))
    return Kind(model, images(4, 12, 10, 3), chain(conv), chain(*tail), "memory")


@kind("channels first")
def channels_first():
    layers = [L.Conv2D(6, 3, activation="relu", data_format="channels_first", name="last")]
    tail = [L.GlobalAveragePooling2D(data_format="channels_first"), L.Dense(3)]
    model = functional([*layers, *tail], (3, 16, 16))
    data = np.moveaxis(images(), 3, 1)
    return Kind(spread(model), data, chain(*layers), chain(*tail))


@kind("keras_hub ViT")
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
    return Kind(model, images(), before, after, layer, grid=(4, 4))


@kind("keras_hub ResNet")
def hub_resnet():
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        [8], [8], [8, 16], [1, 1], [1, 2], "basic_block", image_shape=(32, 32, 3), name="backbone"
    )
    model = spread(keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=3))
    after = chain(model.pooler, model.output_dense)
    layer = f"backbone/{backbone.layers[-1].name}"
    return Kind(model, images(32, 32, 3), backbone, after, layer)
