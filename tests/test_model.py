"""The classifier: its shape and size, where it rescales, and the network with folded norms."""

import keras
import numpy as np
import pytest
import scipy.fft
import tensorflow as tf

from cnnviz.data import sample_image
from cnnviz.diagnosis import expected_calibration_error
from cnnviz.layers import class_probabilities
from cnnviz.model import (
    BLOCKS,
    PRETRAINED_PATH,
    build_model,
    calibrate,
    fastest_precision,
    fold_batch_normalization,
    load_pretrained,
)
from cnnviz.recipe import RECIPES


def randomized(model, seed=0):
    """Every weight, and with them the norms' statistics, drawn anew."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(rng.uniform(0.3, 1.5, shape) * rng.choice([-1, 1], shape))
            layer.beta.assign(rng.normal(0, 0.5, shape))
            layer.moving_mean.assign(rng.normal(0, 0.5, shape))
            layer.moving_variance.assign(rng.uniform(0.1, 3, shape))
    return model


def pictures(count=3, size=32, seed=0):
    shape = (count, size, size, 3)
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


@pytest.fixture
def mixed_bfloat16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(policy)


# build_model


def expected_parameters(width, batch_normalization):
    """Counted from the description: 3x3 convolutions, a norm's four or a bias for each filter."""
    count, channels = 0, 3
    for convolutions, times in BLOCKS:
        filters = round(width * times)
        for _ in range(convolutions):
            count += 9 * channels * filters + filters * (4 if batch_normalization else 1)
            channels = filters
    return count + channels + 1


@pytest.mark.parametrize("batch_normalization", [True, False])
@pytest.mark.parametrize("width", [1, 4, 24])
def test_parameters_are_as_described_and_fewer_than_two_million(width, batch_normalization):
    count = build_model(width=width, batch_normalization=batch_normalization).count_params()
    assert count == expected_parameters(width, batch_normalization)
    assert count <= 2_000_000
    if width == 24:
        assert f"{count / 1e6:.1f} million" == "1.9 million"


@pytest.mark.parametrize("batch_normalization", [True, False])
def test_layers_have_the_names_that_figures_and_folding_rely_on(batch_normalization):
    names = [
        layer.name for layer in build_model(width=1, batch_normalization=batch_normalization).layers
    ]
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


def test_last_feature_map_is_of_use_at_the_size_of_training():
    features = (
        build_model(image_size=max(RECIPES["best"]["image_sizes"])).get_layer("pooling").input
    )
    assert min(features.shape[1:3]) >= 8


@pytest.mark.parametrize("size", [16, 33, 50])
def test_any_size_gives_one_logit_a_picture(size):
    logits = build_model(width=1)(pictures(2, size))
    assert logits.shape == (2, 1) and logits.dtype == "float32"


def test_fixed_size_takes_that_size_alone():
    model = build_model(image_size=20, width=1)
    assert model.input_shape == (None, 20, 20, 3)
    assert model(pictures(1, 20)).shape == (1, 1)
    with pytest.raises(ValueError, match="20"):
        model(pictures(1, 24))


def test_size_does_not_change_the_weights_function():
    any_size, fixed = build_model(width=2), build_model(image_size=24, width=2)
    fixed.set_weights(any_size.get_weights())
    np.testing.assert_allclose(any_size(pictures(2, 24)), fixed(pictures(2, 24)), atol=1e-5)


def test_pictures_are_rescaled_inside():
    rescaling = build_model(width=1).get_layer("rescaling")
    values = np.array([0, 127.5, 255], np.float32).reshape(1, 1, 3, 1).repeat(3, axis=-1)
    np.testing.assert_allclose(rescaling(values)[0, 0, :, 0], [-1, 0, 1], atol=1e-6)


def test_logit_stays_float32_under_mixed_precision(mixed_bfloat16):
    model = build_model(width=1)
    assert model.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert model(pictures(1)).dtype == "float32"


@pytest.mark.parametrize(
    "flags, policy",
    [
        ("fpu avx2 avx512_bf16 sha_ni", "mixed_bfloat16"),
        ("fpu amx_bf16", "mixed_bfloat16"),
        ("fpu avx2 avx512f", "float32"),
    ],
)
def test_precision_follows_the_processor(flags, policy, tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr("cnnviz.model.CPU_INFO", tmp_path / "cpuinfo")
    assert fastest_precision() == policy
    layer = build_model(width=1, precision="auto").get_layer("block2_conv1")
    assert layer.dtype_policy.name == policy
    assert build_model(width=1).get_layer("block2_conv1").dtype_policy.name == "float32"


@pytest.mark.parametrize(
    "capability, policy",
    [((9, 0), "mixed_bfloat16"), ((8, 6), "mixed_bfloat16"), ((7, 5), "mixed_float16"),
     ((6, 1), "float32"), (None, "float32")],
)  # fmt: skip
def test_precision_follows_the_gpu(capability, policy, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    details = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert fastest_precision() == policy


def test_precision_fits_a_machine_without_a_processor_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr("cnnviz.model.CPU_INFO", tmp_path / "none")
    assert fastest_precision() == "float32"


def test_first_kernels_are_the_products_of_cosines_that_pictures_vary_along_most():
    kernels = build_model(first_kernels="cosines").get_layer("block1_conv1").kernel.numpy()
    patterns = kernels[..., ::2] / 2**0.5
    np.testing.assert_array_equal(kernels[..., 1::2], -kernels[..., ::2])
    coefficients = scipy.fft.dctn(patterns, axes=(0, 1, 2), norm="ortho").reshape(27, 12)
    assert (np.isclose(coefficients, 1, atol=1e-6).sum(0) == 1).all()
    np.testing.assert_allclose(np.abs(coefficients).sum(0), 1, atol=1e-6)
    assert (np.isclose(coefficients, 1, atol=1e-6).sum(1) <= 1).all()  # each another one
    patches = np.lib.stride_tricks.sliding_window_view(sample_image(), (3, 3), axis=(0, 1))
    patches = patches.transpose(0, 1, 3, 4, 2).reshape(-1, 27)
    held = (patches @ patterns.reshape(27, 12)).var(axis=0).sum()
    assert held > 0.98 * patches.var(axis=0).sum()  # by 12 of 27 directions


@pytest.mark.parametrize("width", [1, 5, 60])
def test_first_kernels_of_any_width(width):
    keras.utils.set_random_seed(0)
    random = build_model(width=width).get_layer("block1_conv1")
    keras.utils.set_random_seed(0)
    cosines = build_model(width=width, first_kernels="cosines").get_layer("block1_conv1")
    np.testing.assert_array_equal(cosines.kernel[..., 54:], random.kernel[..., 54:])
    assert (np.abs(cosines.kernel - random.kernel).max((0, 1, 2)) > 0)[:54].all()
    assert cosines.get_config() == random.get_config()  # nothing that a file would have to name


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 15}, r"`image_size` \(=15\) must be an integer, 16 or more"),
        ({"width": 0}, r"`width` \(=0\) must be an integer, 1 or more"),
        ({"width": 1.5}, r"`width` \(=1.5\) must be an integer, 1 or more"),
        ({"first_kernels": "dct"}, r"`first_kernels` \(='dct'\) must be 'random' or 'cosines'"),
    ],
)
def test_arguments_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(**options)


# fold_batch_normalization


@pytest.mark.parametrize("image_size", [None, 32])
def test_folded_model_computes_the_same(image_size):
    model = randomized(build_model(image_size=image_size, width=8))
    folded = fold_batch_normalization(model)
    expected = model(pictures(), training=False).numpy()
    assert np.ptp(expected) > 0.01
    scale = np.abs(expected).max()
    np.testing.assert_allclose(folded(pictures()) / scale, expected / scale, atol=1e-4)
    assert folded.input_shape == model.input_shape


def test_folded_layers_are_the_maps_after_the_relu():
    model = randomized(build_model(width=4))
    folded = fold_batch_normalization(model)

    def layer_output(of, name):
        return keras.Model(of.input, of.get_layer(name).output)(pictures(), training=False)

    for name in ("block1_conv1", "block3_conv2", "block4_conv3"):
        expected = layer_output(model, f"{name}_relu")
        np.testing.assert_allclose(layer_output(folded, name), expected, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)


def test_folding_leaves_the_model_as_it_was():
    model = randomized(build_model(width=2))
    before = model.get_weights()
    fold_batch_normalization(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_folding_a_model_of_mixed_precision_gives_float32(mixed_bfloat16):
    model = randomized(build_model(width=4))
    folded = fold_batch_normalization(model)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in folded.layers[1:]} == {"float32"}  # [0] is the input
    keras.config.set_dtype_policy("float32")
    exact = build_model(width=4)
    exact.set_weights(model.get_weights())
    expected = exact(pictures(), training=False).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(folded(pictures()) / scale, expected / scale, atol=1e-4)


def test_nothing_to_fold_is_an_error():
    with pytest.raises(ValueError, match="no batch normalisation"):
        fold_batch_normalization(build_model(width=1, batch_normalization=False))


def test_folding_another_kind_of_model_is_an_error():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="must come from build_model"):
        fold_batch_normalization(model)


# calibrate


def logit_model(activation=None, bias=0.0):
    """The logit is the picture's one pixel, and the bias."""
    model = keras.Sequential([keras.Input((1, 1, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1, activation=activation, kernel_initializer="ones"))
    model.layers[-1].bias.assign([bias])
    return model


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_calibrating_finds_the_planted_temperature(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 8000).astype(np.float32)
    labels = rng.random(8000) < 1 / (1 + np.exp(-logits / temperature))
    labels = labels.astype(np.int32)
    images = logits[:, None, None, None] - 1.5
    model = logit_model(bias=1.5)
    before = class_probabilities(model, images)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(3000)
    assert calibrate(model, data) == pytest.approx(temperature, rel=0.1)
    after = class_probabilities(model, images)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert expected_calibration_error(before, labels) > 0.04
    assert expected_calibration_error(after, labels) < 0.015


def test_calibrating_takes_labels_as_train_does():
    rng = np.random.default_rng(1)
    images = rng.normal(0, 3, (50, 1, 1, 1)).astype(np.float32)
    labels = (images.ravel() + rng.normal(0, 3, 50) > 0).astype(np.int32)
    one, two = (
        calibrate(logit_model(), tf.data.Dataset.from_tensors((images, given)))
        for given in (labels, labels[:, None])
    )
    assert one == two


def test_calibrating_where_every_label_is_met_is_as_sure_as_so_many_can_make_it():
    """All logits alike and right: n + 1 of n + 2 is the probability that they get."""
    for count in (4, 400):
        labels = np.arange(count) % 2
        images = np.where(labels, 3, -3).astype(np.float32)[:, None, None, None]
        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(50)
        model = logit_model()
        calibrate(model, data)
        given = class_probabilities(model, images)[np.arange(count), labels]
        np.testing.assert_allclose(given, (count + 1) / (count + 2), rtol=1e-3)


def test_calibrating_a_model_without_a_logit_is_an_error():
    data = tf.data.Dataset.from_tensors((np.zeros((1, 1, 1, 1)), np.zeros(1)))
    with pytest.raises(ValueError, match="without an activation"):
        calibrate(logit_model("sigmoid"), data)
    with pytest.raises(ValueError, match="`data` .*must not be empty"):
        calibrate(logit_model(), data.take(0))


# load_pretrained


def test_pretrained_model_is_small_and_calls_the_sample_image_a_cat():
    model = load_pretrained()
    assert model.count_params() <= 2_000_000
    assert PRETRAINED_PATH.stat().st_size <= 8 * 1024**2
    logit = float(model(sample_image()[None], training=False)[0, 0])
    assert logit < 0, f"the cat has the logit {logit:.2f}, which means dog"
