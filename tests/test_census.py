"""The census finds the filters that were planted, and no others; its numbers are those of NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.activations import extract_activations
from cnnviz.diagnosis.census import COPY_POSITIONS, filter_census

L = keras.layers


def sequential(*steps, shape=(16, 16, 3)):
    return keras.Sequential([keras.Input(shape), *steps])


@pytest.fixture
def network():
    """Two convolutions whose filters fire here and there, as after a training."""
    keras.utils.set_random_seed(3)
    random_bias = keras.initializers.RandomNormal(stddev=0.1, seed=1)
    options = {"activation": "relu", "bias_initializer": random_bias}
    steps = L.Conv2D(4, 3, name="first", **options), L.Conv2D(14, 3, name="second", **options)
    return sequential(*steps, L.GlobalAveragePooling2D(), L.Dense(1, name="logit"))


@pytest.fixture(scope="module")
def many():
    return np.random.default_rng(0).uniform(0, 1, (24, 16, 16, 3)).astype(np.float32)


def edit(model, layer_name, channel, kernel, bias):
    layer = model.get_layer(layer_name)
    weights, biases = layer.get_weights()
    weights[..., channel], biases[channel] = kernel, bias
    layer.set_weights([weights, biases])


def words(model, data, **options):
    census = filter_census(model, data, **options)
    return {layer.layer_name: np.array(layer.verdicts, object) for layer in census.layers}


def test_planted_filters_are_found_and_no_others(network, many):
    before, firing = words(network, many), filter_census(network, many, "second").layers[0].firing
    first, second = np.sort((-firing).argsort()[:2])  # of which enough is seen to know a copy
    spare = [channel for channel in range(14) if channel not in (first, second)]
    silent, flat, zero, always, copy, scaled = spare[-6:]  # a copy comes after its original
    assert second < copy
    kernel, bias = (weights.copy() for weights in network.get_layer("second").get_weights())
    edit(network, "second", silent, kernel[..., silent], -1000)
    edit(network, "second", flat, 0, 0.5)
    edit(network, "second", zero, 0, -0.5)
    edit(network, "second", copy, kernel[..., first], bias[first])
    edit(network, "second", scaled, 2.5 * kernel[..., second], 2.5 * bias[second])
    edit(network, "second", always, 0.1 * kernel[..., always], 10)
    after, expected = words(network, many), before["second"].copy()
    expected[[silent, flat, zero]] = "never fires", "same everywhere", "never fires"
    expected[[copy, scaled, always]] = f"copy of {first}", f"copy of {second}", "always fires"
    assert after["second"].tolist() == expected.tolist()
    assert after["first"].tolist() == before["first"].tolist()


def test_the_numbers_are_those_of_the_feature_maps(network, many):
    edit(network, "first", 2, 0, -1000)
    edit(network, "first", 1, 0.1, 1)
    census = filter_census(network, many)
    assert census.n_images == 24
    assert [layer.layer_name for layer in census.layers] == ["first", "second"]
    activations = extract_activations(network, many)
    for layer, maps in zip(census.layers, activations.values(), strict=True):
        flat, verdicts = maps.reshape(-1, maps.shape[3]), np.array(layer.verdicts)
        np.testing.assert_allclose(layer.firing, (flat > 0).mean(0), atol=1e-6)
        np.testing.assert_array_equal(verdicts == "never fires", flat.max(0) <= 0)
        np.testing.assert_array_equal(verdicts == "always fires", flat.min(0) > 0)


def test_batches_and_their_size_make_no_difference(network, many):
    whole = filter_census(network, many)
    pair, make = (many, np.zeros(24, np.int32)), tf.data.Dataset.from_tensor_slices
    for data in (pair, make(many).batch(7), make(pair).batch(5)):
        census = filter_census(network, data)
        assert str(census) == str(whole)
        for one, other in zip(census.layers, whole.layers, strict=True):
            assert one.verdicts == other.verdicts
            np.testing.assert_allclose(one.firing, other.firing, atol=1e-7)


def test_channels_that_agree_by_chance_in_few_positions_are_no_copies():
    model = sequential(L.Conv2D(2, 1, activation="relu"), shape=(9, 9, 1))
    model.layers[0].set_weights([np.array([[[[1, 3]]]]), np.array([-0.9, -2.7])])
    for fires in (COPY_POSITIONS - 1, COPY_POSITIONS):
        images = np.zeros((2, 81), np.float32)
        images.ravel()[:fires] = 0.95
        (layer,) = filter_census(model, images.reshape(2, 9, 9, 1)).layers
        assert layer.verdicts[1] == ("ok" if fires < COPY_POSITIONS else "copy of 0")


def test_a_negative_is_a_copy_too_and_convolutions_count_without_activations(many):
    linear = sequential(L.Conv2D(3, 3, name="conv"))
    edit(linear, "conv", 2, -2 * linear.get_weights()[0][..., 0], 0)
    assert words(linear, many)["conv"][2] == "copy of 0"


@pytest.mark.parametrize("function", ["relu", "leaky_relu", "hard_silu"])
def test_who_fires_is_decided_after_the_activation(function, many):
    """A filter with a great negative bias is silent behind a ReLU; a leaky one passes it on."""
    images = keras.Input((16, 16, 3))
    maps = L.Conv2D(4, 3, bias_initializer=keras.initializers.Constant(-500))(images)
    maps = L.BatchNormalization()(L.Conv2D(2, 3)(getattr(keras.ops, function)(maps)))
    found = words(keras.Model(images, L.ReLU(name="last")(maps)), many[:4])
    first, last = found
    expected = "ok" if function == "leaky_relu" else "never fires"
    assert last == "last" and found[first].tolist() == [expected] * 4


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "gelu", "silu"])
def test_negative_filters_are_dead_only_without_effect(activation, many):
    model = sequential(L.Conv2D(6, 3, activation=activation))
    kernel = model.get_weights()[0]
    kernel[..., 1], kernel[..., 2], kernel[..., 3] = -np.abs(kernel[..., 1]), 0, 0
    model.set_weights([kernel, np.array([0, -0.1, -60, -0.4, 0, 0])])
    (layer,) = filter_census(model, many).layers
    silent = "never fires" if activation in ("gelu", "silu") else "same everywhere"
    assert layer.firing[1] == 0
    assert layer.verdicts[:4] == ("ok", "ok", silent, "same everywhere")


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_kernels_that_are_nearly_the_same_are_copies_behind_a_relu_too(norm, sign, many):
    norms = [L.BatchNormalization()] * norm
    model = sequential(L.Conv2D(8, 3, name="conv"), *norms, L.ReLU(name="relu"))
    kernel, _ = model.get_layer("conv").get_weights()
    noise = np.random.default_rng(1).normal(size=27).reshape(3, 3, 3)
    length = np.linalg.norm(kernel[..., 2])
    near = kernel[..., 2] + noise * 0.044 * length / np.linalg.norm(noise)  # a cosine of 0.999
    edit(model, "conv", 5, sign * 3 * near, 0)
    (layer,) = filter_census(model, many).layers
    assert layer.verdicts[5] == "copy of 2" and layer.verdicts.count("ok") == 7
    assert abs(layer.correlation[5] - sign * 0.999) < 0.0005
    assert layer.to_frame()["correlation"][5] == layer.correlation[5]


def test_what_adds_nothing_is_named_and_so_is_what_was_not_judged(many):
    class Block(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = L.Conv2D(3, 3, padding="same", name="one")
            self.two, self.norm = L.Conv2D(3, 1, name="two"), L.BatchNormalization()
            self.unused = L.Conv2D(3, 3, name="unused")
            self.unused.build(many.shape)

        def call(self, images):
            maps = images + self.norm(self.two(tf.nn.relu(self.one(images))))
            more = tf.nn.conv2d(maps, tf.ones((1, 1, 3, 3)), 1, "SAME")
            return tf.reduce_mean(tf.nn.relu(maps) + more, (1, 2))

    model = Block()
    model(many)
    assert filter_census(model, many).idle == ()
    model.norm.gamma.assign([0, 0, 0])
    census = filter_census(model, many)
    assert [layer.layer_name for layer in census.layers] == ["one", "two"]
    assert census.idle == ("two",) and census.severity == "fault"
    reasons = dict(census.not_judged)
    assert reasons.pop("unused") == "not called on these images"
    assert list(reasons.values()) == ["no Keras layer"]
    assert "'unused' (not called on these images)" in str(census)


def test_the_table_counts_and_the_sentence_says_whether_this_is_a_fault(network, many):
    advice = {1: "These counts are normal", 2: "lower learning rate", 4: "no filter of 'first'"}
    for dead, severity in ((1, ""), (2, "suspicion"), (4, "fault")):
        for channel in range(dead):
            edit(network, "first", channel, 0, -1000)
        census = filter_census(network, many, "first")
        assert (census.severity, census.dead, census.share_dead) == (severity, dead, dead / 4)
        assert census.worst is census.layers[0] and census.idle == ("first",) * (dead == 4)
        row = census.to_frame().iloc[0]
        assert (row["layer"], row["channels"], row["never fires"]) == ("first", 4, dead)
        assert row["ok"] == census.layers[0].verdicts.count("ok")
        assert f"4 filters in 1 layers on 24 images: {dead} never fire" in str(census)
        assert f"most in 'first' ({dead} of 4)" in str(census) and advice[dead] in str(census)


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        (np.zeros((0, 16, 16, 3)), None, "`data` .*not be empty"),
        ((np.zeros((2, 16, 16, 3)), np.zeros(3)), None, "`data` .*labels of shape"),
        (np.zeros((2, 16, 16, 3)), "logit", r"\(='logit'\) outputs shape"),
        (np.zeros((2, 16, 16, 3)), "block9", "`layer_names`"),
        (tf.data.Dataset.from_tensors(np.zeros((2, 16, 16, 3))).repeat(), None, "never ends"),
    ],
)
def test_what_cannot_be_counted_is_an_error(network, data, names, message):
    with pytest.raises(ValueError, match=message):
        filter_census(network, data, names)


def test_no_feature_maps_and_nan_are_errors_and_a_wrong_range_a_warning(network, many):
    with pytest.raises(ValueError, match="no layer that outputs feature maps"):
        filter_census(sequential(L.Flatten()), many)
    with pytest.warns(UserWarning, match="`data` .*too large"):
        filter_census(network, 255 * many)
    edit(network, "second", 1, np.nan, 0)
    with pytest.raises(ValueError, match="weights of its layer 'second'"):
        filter_census(network, many)
