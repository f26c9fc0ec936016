"""The census finds the filters that were planted, and no others; its numbers are those of NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.activations import extract_activations
from cnnviz.diagnosis.census import COPY_POSITIONS, filter_census
from cnnviz.model import build_model


@pytest.fixture
def network():
    keras.utils.set_random_seed(3)
    model = build_model(width=4, batch_normalization=False)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):  # as after training: filters fire here and there
            layer.bias.assign(np.random.default_rng(1).normal(0, 0.1, layer.filters))
    return model


@pytest.fixture(scope="module")
def many():
    return np.random.default_rng(0).uniform(0, 255, (24, 64, 64, 3)).astype(np.float32)


def edit(model, layer_name, channel, kernel, bias):
    layer = model.get_layer(layer_name)
    weights, biases = layer.get_weights()
    weights[..., channel], biases[channel] = kernel, bias
    layer.set_weights([weights, biases])


def words(model, data, **options):
    census = filter_census(model, data, **options)
    return {layer.layer_name: np.array(layer.verdicts, object) for layer in census.layers}


def test_planted_filters_are_found_and_no_others(network, many):
    before = words(network, many)
    firing = filter_census(network, many, "block4_conv3").layers[0].firing
    first, second = np.sort((-firing).argsort()[:2])  # of which enough is seen to know a copy
    spare = [channel for channel in range(45) if channel not in (first, second)]
    silent, flat, zero, copy, scaled, always = spare[-6:]
    # Behind an edit nothing can be compared, since it changes what the next layers receive.
    kernel, bias = (weights.copy() for weights in network.get_layer("block4_conv3").get_weights())
    edit(network, "block4_conv3", silent, kernel[..., silent], -1000)
    edit(network, "block4_conv3", flat, 0, 0.5)
    edit(network, "block4_conv3", zero, 0, -0.5)
    edit(network, "block4_conv3", copy, kernel[..., first], bias[first])
    edit(network, "block4_conv3", scaled, 2.5 * kernel[..., second], 2.5 * bias[second])
    edit(network, "block4_conv3", always, 1e-3 * kernel[..., always], 1000)
    after = words(network, many)
    expected = before["block4_conv3"].copy()
    expected[[silent, flat, zero]] = "never fires", "same everywhere", "never fires"
    expected[[copy, scaled, always]] = f"copy of {first}", f"copy of {second}", "always fires"
    assert after.pop("block4_conv3").tolist() == expected.tolist()
    for name, verdicts in after.items():
        assert verdicts.tolist() == before[name].tolist()


def test_the_numbers_are_those_of_the_feature_maps(network, many):
    census = filter_census(network, many)
    assert census.pictures == 24
    assert [layer.layer_name for layer in census.layers] == [
        layer.name for layer in network.layers if isinstance(layer, keras.layers.Conv2D)
    ]
    for layer, maps in zip(
        census.layers,
        extract_activations(network, many, [one.layer_name for one in census.layers]).values(),
        strict=True,
    ):
        flat = maps.reshape(-1, maps.shape[3])
        np.testing.assert_allclose(layer.firing, (flat > 0).mean(0), atol=1e-6)
        never = [verdict == "never fires" for verdict in layer.verdicts]
        assert never == (flat.max(0) <= 0).tolist()
        always = [verdict == "always fires" for verdict in layer.verdicts]
        assert always == (flat.min(0) > 0).tolist()


def test_batches_and_their_size_make_no_difference(network, many):
    whole = filter_census(network, many)
    labels = np.zeros(24, np.int32)
    for data in (
        (many, labels),
        tf.data.Dataset.from_tensor_slices(many).batch(7),
        tf.data.Dataset.from_tensor_slices((many, labels)).batch(5),
    ):
        census = filter_census(network, data)
        assert str(census) == str(whole)
        for one, other in zip(census.layers, whole.layers, strict=True):
            np.testing.assert_allclose(one.firing, other.firing, atol=1e-7)


def test_channels_that_agree_by_chance_in_few_places_are_no_copies():
    model = keras.Sequential(
        [keras.Input((9, 9, 1)), keras.layers.Conv2D(2, 1, activation="relu", name="conv")]
    )
    model.get_layer("conv").set_weights([np.array([[[[1, 3]]]]), np.array([-0.9, -2.7])])
    for fires in (COPY_POSITIONS - 1, COPY_POSITIONS):
        pictures = np.zeros((2, 81), np.float32)
        pictures.ravel()[:fires] = 0.95
        (layer,) = filter_census(model, pictures.reshape(2, 9, 9, 1)).layers
        assert layer.verdicts[1] == ("ok" if fires < COPY_POSITIONS else "copy of 0")


def test_who_fires_is_decided_after_the_activation(many):
    keras.utils.set_random_seed(0)
    network = build_model(width=3)
    names = [layer.layer_name for layer in filter_census(network, many[:4]).layers]
    assert names[:2] == ["block1_conv1_relu", "block2_conv1_relu"] and len(names) == 10
    linear = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(2, 3, name="conv")])
    assert [layer.layer_name for layer in filter_census(linear, many[:4] / 255).layers] == ["conv"]


@pytest.mark.parametrize("function", ["relu", "relu6", "leaky_relu", "selu", "hard_silu"])
def test_functions_decide_who_fires_as_layers_do(function, many):
    images = keras.Input((64, 64, 3))
    maps = keras.layers.Conv2D(4, 3, bias_initializer=keras.initializers.Constant(-500))(images)
    maps = keras.layers.Conv2D(2, 3)(getattr(keras.ops, function)(maps))
    network = keras.Model(images, keras.layers.ReLU()(maps))
    first, _ = words(network, many[:4] / 255).values()
    assert first.tolist() == ["never fires"] * 4


def test_a_negative_is_a_copy_too(many):
    linear = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(3, 3, name="conv")])
    kernel, bias = linear.get_layer("conv").get_weights()
    kernel[..., 2] = -2 * kernel[..., 0]
    linear.get_layer("conv").set_weights([kernel, bias])
    assert words(linear, many[:4] / 255)["conv"][2] == "copy of 0"


def test_the_table_counts_each_layer(network, many):
    edit(network, "block1_conv1", 2, 0, -1000)
    census = filter_census(network, many, "block1_conv1")
    head, row = str(census).splitlines()
    assert head.split()[:2] == ["layer", "channels"]
    counts = [census.layers[0].count(kind) for kind in ("ok", "never fires")]
    assert row.split()[:4] == ["block1_conv1", "4", *map(str, counts)] and counts[1] == 1


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        (np.zeros((0, 32, 32, 3)), None, "`data` .*not be empty"),
        (np.zeros((32, 32, 3)), None, "`data`"),
        ((np.zeros((2, 32, 32, 3)), np.zeros((2, 32, 32, 3))), None, "`data` .*labels of shape"),
        (np.zeros((2, 32, 32, 3)), "logit", r"\('logit'\) outputs shape"),
        (np.zeros((2, 32, 32, 3)), "block9", "`layer_names`"),
        (tf.data.Dataset.from_tensors(np.zeros((2, 32, 32, 3))).repeat(), None, "never ends"),
    ],
)
def test_what_cannot_be_counted_is_an_error(network, data, names, message):
    with pytest.raises(ValueError, match=message):
        filter_census(network, data, names)


def test_weights_of_nan_are_an_error_and_no_filter_that_works(network, many):
    edit(network, "block2_conv1", 1, np.nan, 0)
    with pytest.raises(ValueError, match="weights of its layer 'block2_conv1'"):
        filter_census(network, many)


def test_a_wrong_range_is_told_before_filters_are_called_dead(network, many):
    with pytest.warns(UserWarning, match="`data` .*too small"):
        filter_census(network, many / 255)
