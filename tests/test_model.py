"""The classifier: its shape and size, folded norms, calibration, and the shipped weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.data import sample_image
from cnnviz.layers import class_probabilities
from cnnviz.model import (
    BLOCKS,
    PRETRAINED_PATH,
    build_model,
    calibrate,
    fold_batch_normalization,
    load_pretrained,
)
from cnnviz.recipe import RECIPES


def randomized(model):
    """The weights and statistics of the norms are drawn anew."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.3, 1.5, shape) * rng.choice([-1, 1], shape))
            layer.beta.assign(rng.normal(0, 0.5, shape))
            layer.moving_mean.assign(rng.normal(0, 0.5, shape))
            layer.moving_variance.assign(rng.uniform(0.1, 3, shape))
    return model


def images_of(n_images=3, size=32):
    shape = (n_images, size, size, 3)
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def expected_parameters(width, batch_normalization):
    """Counted from the description: 3x3 convolutions, a norm's four or a bias for each filter."""
    total, channels = 0, 3
    for convolutions, times in BLOCKS:
        filters = round(width * times)
        for _ in range(convolutions):
            total += 9 * channels * filters + filters * (4 if batch_normalization else 1)
            channels = filters
    return total + channels + 1


@pytest.mark.parametrize("batch_normalization", [True, False])
def test_layers_and_parameters_are_as_described(batch_normalization):
    model = build_model(width=4, batch_normalization=batch_normalization)
    assert model.count_params() == expected_parameters(4, batch_normalization)
    assert 1.9e6 < expected_parameters(24, batch_normalization) < 2e6
    names = [layer.name for layer in model.layers]
    assert names[:2] == ["images", "rescaling"] and names[-2:] == ["pooling", "logit"]
    for block, (convolutions, _) in enumerate(BLOCKS, start=1):
        for index in range(1, convolutions + 1):
            name = f"block{block}_conv{index}"
            assert name in names
            assert (f"{name}_norm" in names) == (f"{name}_relu" in names) == batch_normalization
            assert (f"block{block}_add{index}" in names) == (index > 1)


def test_blocks_halve_the_resolution_and_widen():
    model = build_model(image_size=64, width=3)
    shapes = [model.get_layer(f"block{block}_conv1").output.shape for block in range(1, 5)]
    assert shapes == [(None, 32, 32, 3), (None, 16, 16, 6), (None, 8, 8, 14), (None, 4, 4, 34)]
    assert max(RECIPES["best"]["image_sizes"]) // 16 >= 8  # cells of the last feature map


def test_any_size_gives_one_logit_for_each_image_and_a_fixed_one_the_same():
    any_size, fixed = build_model(width=2), build_model(image_size=20, width=2)
    for size in (16, 33, 50):
        assert any_size(images_of(2, size)).shape == (2, 1)
    fixed.set_weights(any_size.get_weights())
    images = images_of(2, 20)
    np.testing.assert_allclose(any_size(images), fixed(images), atol=1e-5)
    with pytest.raises(ValueError, match="20"):
        fixed(images_of(1, 24))


def test_images_are_rescaled_inside():
    rescaling = build_model(width=1).get_layer("rescaling")
    values = np.array([0, 127.5, 255], np.float32).reshape(1, 1, 3, 1).repeat(3, axis=-1)
    np.testing.assert_allclose(rescaling(values)[0, 0, :, 0], [-1, 0, 1], atol=1e-6)


def test_arguments_out_of_range_are_errors():
    with pytest.raises(ValueError, match=r"`image_size` \(=15\) must be an integer, 16 or more"):
        build_model(image_size=15)
    with pytest.raises(ValueError, match=r"`width` \(=1.5\) must be an integer, 1 or more"):
        build_model(width=1.5)


@pytest.mark.parametrize("image_size, precision", [(None, "float32"), (32, "mixed_bfloat16")])
def test_a_folded_model_computes_the_same_in_float32(image_size, precision):
    model = randomized(build_model(image_size=image_size, width=8, precision=precision))
    assert model.get_layer("block1_conv1").compute_dtype == precision.removeprefix("mixed_")
    assert model(images_of()).dtype == "float32"  # the logit, whatever the precision
    exact = build_model(image_size=image_size, width=8, precision="float32")
    exact.set_weights(model.get_weights())
    before = model.get_weights()
    folded = fold_batch_normalization(model)
    assert folded.input_shape == model.input_shape
    assert {layer.compute_dtype for layer in folded.layers[1:]} == {"float32"}  # [0] is the input
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)

    def layer_output(of, name):
        return keras.Model(of.input, of.get_layer(name).output)(images_of(), training=False)

    names = {f"{name}_relu": name for name in ("block1_conv1", "block3_conv2", "block4_conv3")}
    for name, folded_name in (names | {"logit": "logit"}).items():
        expected, found = layer_output(exact, name).numpy(), layer_output(folded, folded_name)
        scale = np.abs(expected).max()
        assert np.ptp(expected) > 0.01
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)


def logit_model(activation=None, bias=0.0):
    """The logit is the image's one pixel, and the bias."""
    model = keras.Sequential([keras.Input((1, 1, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, activation=activation, kernel_initializer="ones"))
    model.layers[-1].bias.assign([bias])
    return model


@pytest.mark.parametrize("temperature, shape", [(0.4, (8000,)), (2.5, (8000, 1))])
def test_calibrating_finds_the_planted_temperature(temperature, shape):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 8000).astype(np.float32)
    labels = (rng.random(8000) < 1 / (1 + np.exp(-logits / temperature))).astype(np.int32)
    images = logits[:, None, None, None] - 1.5
    model = logit_model(bias=1.5)
    data = tf.data.Dataset.from_tensor_slices((images, labels.reshape(shape))).batch(3000)
    found = calibrate(model, data)
    assert found == pytest.approx(temperature, rel=0.1)
    np.testing.assert_allclose(model(images)[:, 0], logits / found, atol=1e-4)


@pytest.mark.parametrize("n_images", [4, 400])
def test_calibrating_a_model_without_mistakes_leaves_it_as_confident_as_the_images_allow(n_images):
    """All logits are equal and correct: each gets the probability (n + 1) / (n + 2)."""
    labels = np.arange(n_images) % 2
    images = np.where(labels, 3, -3).astype(np.float32)[:, None, None, None]
    model = logit_model()
    calibrate(model, tf.data.Dataset.from_tensor_slices((images, labels)).batch(50))
    given = class_probabilities(model, images)[np.arange(n_images), labels]
    np.testing.assert_allclose(given, (n_images + 1) / (n_images + 2), rtol=1e-3)


def test_calibrating_a_model_without_a_logit_is_an_error():
    data = tf.data.Dataset.from_tensors((np.zeros((1, 1, 1, 1)), np.zeros(1)))
    with pytest.raises(ValueError, match="without an activation"):
        calibrate(logit_model("sigmoid"), data)


def test_the_shipped_model_is_small_and_calls_the_sample_image_a_cat():
    model = load_pretrained()
    assert model.count_params() <= 2_000_000
    assert PRETRAINED_PATH.stat().st_size <= 8 * 1024**2
    logit = float(model(sample_image()[None], training=False)[0, 0])
    assert logit < 0, f"the cat has the logit {logit:.2f}, which means dog"
