"""Boxes against the pixels on which the gradient of each position does not vanish."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.model import build_model
from cnnviz.receptive_field import receptive_field

L = keras.layers
SAME = {"padding": "same"}


def boxes_of_gradients(model, feature_map, size, pictures=1):
    """Where the gradient of each position is not zero, with weights and pictures above zero.

    So nothing cancels out and no ReLU is dead. A maximum passes the gradient of one value alone:
    it takes many pictures until each has once been the largest.
    """
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(random.uniform(0.5, 1.0, variable.shape))
    images = random.uniform(0.5, 1.0, (pictures, *size, 2)).astype(np.float32)
    height, width, channels = feature_map(images[:1]).shape[1:]
    positions = height * width
    images = tf.repeat(images, positions, axis=0)  # one for each position
    own_position = tf.tile(tf.eye(positions), (pictures, 1))
    with tf.GradientTape() as tape:
        tape.watch(images)
        maps = tf.linalg.matvec(feature_map(images), tf.random.uniform((channels,), 0.5, 1.0))
        own = tf.reshape(maps, (-1, positions)) * own_position
    seen = (tape.gradient(own, images).numpy() != 0).any(3)
    seen = seen.reshape(pictures, positions, *size).any(0)
    return np.reshape([_box(pixels) for pixels in seen], (height, width, 4))


def _box(seen):
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if len(rows) else (0, 0, 0, 0)


def chain(*layers, size=(11, 14), channels=2):
    """The layers one after the other; the last is called "last"."""
    inputs = tensor = keras.Input((*size, channels))
    for layer in (*layers, L.Identity(name="last")):
        tensor = layer(tensor)
    return keras.Model(inputs, tensor)


def conv(size, filters=2, **options):
    return L.Conv2D(filters, size, **options)


def assert_exact(model, size, layer_name="last", feature_map=None, pictures=1):
    found = receptive_field(model, layer_name, image_size=size)
    expected = boxes_of_gradients(model, feature_map or model, size, pictures)
    np.testing.assert_array_equal(found, expected)


CHAINS = {
    "even kernel": [conv(4), conv(2, **SAME)],
    "strides of two": [conv(3, strides=2, **SAME), conv(3, **SAME), conv(2, strides=2)],
    "stride of three": [conv(5, strides=3, **SAME), conv(3, **SAME)],
    "stride above the kernel": [conv(1, strides=3), conv(3, **SAME)],
    "oblong kernel": [conv((1, 4), strides=(3, 1), **SAME), conv((3, 2))],
    "dilation": [conv(3, dilation_rate=2, **SAME), conv(2, dilation_rate=(1, 3))],
    "groups": [conv(3, 4, groups=2, strides=2, **SAME)],
    "depthwise": [L.DepthwiseConv2D(3, 2, **SAME), L.DepthwiseConv2D(2, dilation_rate=2, **SAME)],
    "separable": [L.SeparableConv2D(3, 3, strides=2), L.SeparableConv2D(3, 3, dilation_rate=2)],
    "mean pooling": [L.AveragePooling2D(3, 2, **SAME), conv(3), L.AveragePooling2D(2, **SAME)],
    "padding and cropping": [
        L.ZeroPadding2D(((3, 0), (1, 4))), conv(3, strides=2), L.Cropping2D(((0, 1), (2, 0))),
        conv(3, **SAME),
    ],
    "padding wider than the kernel": [L.ZeroPadding2D((4, 0)), conv(3), conv(2, strides=2)],
    "adaptive pooling": [L.AdaptiveAveragePooling2D((4, 5)), conv(2)],
    "transposed convolution": [
        conv(3, strides=2), L.Conv2DTranspose(2, 3, strides=2, **SAME),
        L.Conv2DTranspose(2, 2, strides=3),
    ],
    "upsampling": [conv(3, strides=2), L.UpSampling2D(2), conv(2), L.UpSampling2D((1, 3))],
    "bilinear": [conv(3, strides=2), L.UpSampling2D(2, interpolation="bilinear")],
    "resizing": [L.Resizing(7, 19), conv(3), L.Resizing(8, 5, interpolation="nearest")],
    "channels first": [
        conv((3, 1), strides=2), L.Permute((3, 1, 2)),
        L.AveragePooling2D(2, data_format="channels_first"), L.Permute((2, 3, 1)),
    ],
    "transposed picture": [conv(3, strides=2), L.Permute((2, 1, 3)), conv((1, 2))],
    "dense at each position": [conv(3, strides=2), L.Dense(3)],
    "normalisations": [
        conv(3, 4), L.BatchNormalization(), L.LayerNormalization(), conv(2, strides=2),
        L.UnitNormalization(),
    ],
    "all over the picture": [conv(3, 4, strides=2), L.GroupNormalization(2)],
    "tokens": [conv(3, strides=4, **SAME), L.Reshape((12, 2)), L.Dense(3), L.Reshape((3, 4, 3))],
    "activations": [
        conv(2, activation=name)
        for name in ("relu", "gelu", "silu", "elu", "leaky_relu", "hard_silu", "softplus", "mish")
    ],
    "softmax over channels": [conv(3, strides=2), L.Softmax(), L.PReLU()],
}  # fmt: skip


@pytest.mark.parametrize("layers", CHAINS.values(), ids=CHAINS)
def test_boxes_of_a_chain_of_layers(layers):
    assert_exact(chain(*layers), (11, 14))


@pytest.mark.parametrize("size", [(12, 13), (7, 8), (9, 10)], ids=str)
def test_boxes_of_strides_follow_the_size_of_the_picture(size):
    layers = conv(3, strides=2, **SAME), conv(4, strides=3, **SAME), conv(2, **SAME)
    assert_exact(chain(*layers, size=size), size)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("pool", "strides"), [(3, 2), (2, 3)])
def test_boxes_of_maxima(pool, strides, padding):
    layers = L.MaxPooling2D(pool, strides, padding), conv(2, **SAME), L.MaxPooling2D(2, 1, padding)
    assert_exact(chain(*layers, size=(8, 9)), (8, 9), pictures=100)


def residual(tensor):
    shortcut = conv(1, strides=2)(tensor)
    return L.Add()([shortcut, conv(3, **SAME)(conv(3, strides=2, **SAME)(tensor))])


def dense_block(tensor):
    for _ in range(2):
        tensor = L.Concatenate()([tensor, conv((3, 2), **SAME)(tensor)])
    return tensor


def depthwise_of_one_path_of_two(tensor):
    paths = keras.ops.concatenate([conv(1)(tensor), conv(5, **SAME)(tensor)], axis=-1)
    return L.DepthwiseConv2D(3, depth_multiplier=2)(paths)[..., :3]


def groups_of_paths(tensor):
    paths = keras.ops.concatenate([conv(1)(tensor), conv(5, **SAME)(tensor)], axis=-1)
    return keras.ops.split(conv(3, 4, groups=2, **SAME)(paths), 2, axis=-1)[0]


def squeeze_and_excite(tensor):
    tensor = conv(3, strides=2)(tensor)
    weights = L.GlobalAveragePooling2D(keepdims=True)(tensor)
    return L.Multiply()([tensor, conv(1, activation="sigmoid")(weights)])


@pytest.mark.parametrize(
    "branch",
    [residual, dense_block, depthwise_of_one_path_of_two, groups_of_paths, squeeze_and_excite],
)
def test_boxes_where_paths_meet(branch):
    inputs = keras.Input((11, 14, 2))
    assert_exact(keras.Model(inputs, L.Identity(name="last")(branch(inputs))), (11, 14))


class Operations(L.Layer):
    """What a person writes in operations of TensorFlow."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, features):
        return self.function(features)


def attention_within_windows(x):
    windows = tf.transpose(tf.reshape(x, (-1, 3, 4, 2, 6, 2)), (0, 1, 3, 2, 4, 5))
    tokens = tf.reshape(windows, (-1, 24, 2))
    attention = tf.nn.softmax(tf.matmul(tokens, tokens, transpose_b=True))
    windows = tf.reshape(tf.matmul(attention, tokens), (-1, 3, 2, 4, 6, 2))
    return tf.reshape(tf.transpose(windows, (0, 1, 3, 2, 4, 5)), (-1, 12, 12, 2))


OPERATIONS = {
    "reflected": lambda x: tf.pad(x, ((0, 0), (3, 1), (0, 2), (0, 0)), "REFLECT"),
    "rolled": lambda x: tf.roll(x, (3, -2), (1, 2)),
    "turned around": lambda x: tf.reverse(x[:, ::2, 1:-2], [2]),
    "gathered": lambda x: tf.gather(x, [5, 5, 0], axis=1),
    "stacked": lambda x: tf.unstack(tf.stack([x[:, :-1], x[:, 1:]], 1), axis=1)[1],
    "tiled beside zeros": lambda x: tf.concat([tf.tile(x, (1, 1, 2, 1)), tf.zeros_like(x)], 2),
    "depth to space": lambda x: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 4)[..., :8], 2),
    "windows": attention_within_windows,
    "inner function": tf.function(lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME")),
}


@pytest.mark.parametrize("function", OPERATIONS.values(), ids=OPERATIONS)
def test_boxes_of_operations(function):
    layers = conv(3, **SAME), Operations(function)
    assert_exact(chain(*layers, size=(12, 12)), (12, 12))


def test_unknown_operation_counts_as_looking_at_all_that_is_put_into_it():
    model = chain(L.Cropping2D(((2, 1), (0, 3))), Operations(lambda x: tf.cumsum(x, 1)), conv(2))
    assert (receptive_field(model, "last") == (2, 0, 10, 11)).all()


def test_position_that_sees_nothing_but_padding_has_no_box():
    model = chain(L.ZeroPadding2D(((3, 0), (0, 0))), conv((2, 1)), size=(3, 2))
    found = receptive_field(model, "last")
    assert found[:, 0].tolist() == [[0] * 4, [0] * 4, [0, 0, 1, 1], [0, 0, 2, 1], [1, 0, 3, 1]]
    assert_exact(model, (3, 2))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.last = conv(3, strides=2, **SAME), conv(4, name="last")

    def call(self, images):
        return self.last(tf.nn.relu(self.first(images)))


def nested():
    backbone = chain(conv(3, strides=2), conv(3, **SAME), size=(13, 15))
    model = keras.Sequential(
        [keras.Input((11, 14, 2)), L.ZeroPadding2D(((2, 0), (0, 1))), backbone]
    )
    return model, f"{backbone.name}/last", model


def shared():
    """The layer is used twice; its last output counts."""
    inputs, twice = keras.Input((11, 14, 2)), conv(3, strides=2, name="twice")
    model = keras.Model(inputs, twice(twice(inputs)))
    return model, "twice", model


@pytest.mark.filterwarnings("ignore:layer 'twice' is used 2 times")
@pytest.mark.parametrize("build", [nested, shared])
def test_boxes_in_models_of_every_kind(build):
    model, name, feature_map = build()
    assert_exact(model, (11, 14), name, feature_map)


def test_boxes_in_a_subclassed_model():
    model = Subclassed()
    images = np.ones((1, 11, 14, 3), np.float32)
    model(images)
    twin = chain(conv(3, strides=2, **SAME), conv(4), channels=3)
    found = receptive_field(model, "last", image_size=(11, 14))
    np.testing.assert_array_equal(found, receptive_field(twin, "last"))


def test_number_that_papers_give():
    layers = []
    for convolutions in (2, 2, 3, 3, 3):  # VGG-16
        layers += [conv(3, 1, **SAME) for _ in range(convolutions)] + [L.MaxPooling2D()]
    found = receptive_field(chain(*layers, size=(320, 320)), "last")
    assert found.shape == (10, 10, 4) and found.dtype == np.int32
    assert found[5, 5].tolist() == [70, 70, 282, 282]  # 212 pixels: Araujo et al. 2019
    assert (found[5, 5] - found[4, 4]).tolist() == [32] * 4


def test_box_of_the_own_classifier_in_the_middle_and_in_the_corners():
    found = receptive_field(build_model(width=2, image_size=64), "block2_add3")
    assert found.shape == (16, 16, 4)
    assert found[0, 0].tolist() == [0, 0, 15, 15] and found[15, 0].tolist() == [52, 0, 64, 15]
    assert (found[8, 8, 2:] - found[8, 8, :2]).tolist() == [23, 23]


def test_second_call_traces_nothing_and_its_boxes_are_ones_own():
    calls = []
    model = chain(Operations(lambda x: calls.append(x) or x))
    first = receptive_field(model, "last").copy()
    before = len(calls)
    receptive_field(model, "last")[:] = 0
    np.testing.assert_array_equal(receptive_field(model, "last"), first)
    assert len(calls) == before


@pytest.mark.parametrize("image_size", [0, 8.5, (8, 8, 8), (8, 0), "8"])
def test_wrong_size_is_an_error_that_names_it(image_size):
    with pytest.raises(ValueError, match="`image_size` .=.*an integer, 1 or more"):
        receptive_field(chain(conv(3)), "last", image_size=image_size)


def test_size_that_the_model_does_not_take_is_an_error():
    with pytest.raises(ValueError, match=r"`image_size` \(=9\) must be 11x14"):
        receptive_field(chain(conv(3)), "last", image_size=9)


@pytest.mark.parametrize(
    ("name", "message"),
    [("conf", "nearest are.*'conv'"), ("head", r"'head'. outputs shape \(None, 4\)")],
)
def test_wrong_layer_is_an_error(pooled_network, name, message):
    with pytest.raises(ValueError, match=message):
        receptive_field(pooled_network()[0], name)


def test_layer_that_does_not_see_the_picture_is_an_error():
    with pytest.raises(ValueError, match="'last'. does not depend on the picture"):
        receptive_field(chain(Operations(lambda x: tf.ones(tf.shape(x)))), "last")
