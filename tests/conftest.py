"""Small networks whose right results are known, and images for them."""

import contextlib
import functools
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

ACTIVATIONS = {"sigmoid": "sigmoid", "softmax": "softmax"}  # of the dense layer; else none


@contextlib.contextmanager
def nobody():
    """As a user who owns nothing; the superuser may read and write everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def without_xla(model):
    """The model, set to train without XLA, which compiles longer than small networks train."""
    model.supports_jit = False
    return model


@pytest.fixture
def images():
    """Three images of 12x12 pixels in 0..1."""
    return np.random.default_rng(0).uniform(0, 1, (3, 12, 12, 3)).astype(np.float32)


@pytest.fixture
def pooled_network():
    """`build(kind, head)` -> (model, convolution, dense): pooling and one dense layer at the end.

    The weights are the same whatever the kind, and the same for all heads of as many outputs.
    """
    return _pooled_network


@pytest.fixture(scope="session")
def shared_network():
    """`build(kind, head)` -> the model of `pooled_network`, built once: no test may change it."""
    return functools.cache(lambda *options, **more: _pooled_network(*options, **more)[0])


def _pooled_network(kind="functional", head="logits", units=None, activity_regularizer=None):
    convolution = keras.layers.Conv2D(
        6,
        3,
        strides=2,
        activation="relu",
        activity_regularizer=activity_regularizer,
        kernel_initializer=_normal(0.5, 1),
        bias_initializer=_normal(0.5, 2),
        name="conv",
    )
    units = units or (1 if head in ("one logit", "sigmoid", "sigmoid in call") else 4)
    dense = keras.layers.Dense(
        units,
        activation=ACTIVATIONS.get(head),
        kernel_initializer=_normal(1, 3),
        bias_initializer=_normal(1, 4),
        name="head",
    )
    end = [keras.layers.GlobalAveragePooling2D(name="pooling"), dense]
    end += [keras.layers.Softmax()] if head == "softmax layer" else []
    final = keras.ops.sigmoid if head == "sigmoid in call" else None
    return _KINDS[kind](convolution, end, final), convolution, dense


def _normal(deviation, seed):
    return keras.initializers.RandomNormal(stddev=deviation, seed=seed)


class Subclassed(keras.Model):
    def __init__(self, layers, final):
        super().__init__()
        self.steps = layers
        self.final = final

    def call(self, images):
        for layer in self.steps:
            images = layer(images)
        return self.final(images) if self.final else images


def _subclassed(convolution, end, final):
    model = Subclassed([convolution, *end], final)
    model(np.zeros((1, 12, 12, 3), np.float32))
    return model


def _functional(convolution, end, final=None):
    inputs = tensor = keras.Input((12, 12, 3))
    for layer in (convolution, *end):
        tensor = layer(tensor)
    return keras.Model(inputs, tensor)


def _sequential(convolution, end, final):
    return keras.Sequential([keras.Input((12, 12, 3)), convolution, *end])


def _wrapped(layer, name):
    inputs = keras.Input((12, 12, 3))
    return keras.Model(inputs, layer(inputs), name=name)


def _nested(convolution, end, final):
    return _functional(_wrapped(convolution, "backbone"), end)


def _nested_twice(convolution, end, final):
    return _functional(_wrapped(_wrapped(convolution, "inner"), "backbone"), end)


_KINDS = {
    "functional": _functional,
    "sequential": _sequential,
    "subclassed": _subclassed,
    "nested": _nested,
    "nested twice": _nested_twice,
}


@pytest.fixture(scope="session")
def color_model():
    """A network whose evidence is known: red speaks for class 1, blue for class 0."""
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(2, 1, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, name="head"),
        ]
    )
    kernel = np.array([[1, -1], [0, 0], [-1, 1]], np.float32)[None, None]
    model.get_layer("conv").set_weights([kernel, np.zeros(2, np.float32)])
    model.get_layer("head").set_weights([np.array([[20], [-20]]), np.zeros(1)])
    return model


@pytest.fixture(scope="session")
def spots():
    """Six gray images of 16x16 with a blue (0) or a red (1) square of 6x6 somewhere."""
    random = np.random.default_rng(0)
    images, labels = np.full((6, 16, 16, 3), 0.5, np.float32), np.tile([0, 1], 3)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(0, 11, 2)
        image[top : top + 6, left : left + 6] = [1, 0, 0] if label else [0, 0, 1]
    return images, labels


@pytest.fixture(autouse=True)
def no_open_figures():
    """Figures stay open for notebooks; here they would add up."""
    yield
    plt.close("all")
