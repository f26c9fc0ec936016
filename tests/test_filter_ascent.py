"""Optimized images against finite differences, and with faults that were planted in a layer."""

import keras
import numpy as np
import pytest

from cnnviz import filter_ascent
from cnnviz.activations import extract_activations
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import grad_cam
from cnnviz.model import build_model

UNIT = {"value_range": (0.0, 1.0)}


def one_convolution(filters=4, side=8, activation="relu", policy=None, seed=0):
    """A convolution "conv" with weights around zero, on images in 0..1."""
    kernel = keras.initializers.RandomNormal(stddev=0.5, seed=seed)
    options = {"kernel_initializer": kernel, "name": "conv", "dtype": policy}
    convolution = keras.layers.Conv2D(filters, 3, activation=activation, **options)
    return keras.Sequential([keras.Input((side, side, 3)), convolution])


def rescaling_convolution(shape=(8, 8, 3)):
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 3, name="conv")]
    return keras.Sequential([keras.Input(shape), *layers])


def climbed(model, image, index):
    """What is climbed, for (N, H, W, 3), in float64: ReLU and a tenth of what goes into it."""
    kernel, bias = (weights.astype(np.float64) for weights in model.get_layer("conv").get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
    before = np.einsum("nhwcij,ijc->nhw", windows, kernel[..., index]) + bias[index]
    return (np.maximum(before, 0) + filter_ascent.LEAK * before).mean((1, 2))


def test_first_step_follows_the_central_differences():
    model = one_convolution()
    kernel, bias = model.get_layer("conv").get_weights()
    model.get_layer("conv").set_weights([kernel - kernel.mean((0, 1, 2)), bias])
    options = {"filters": 2, "steps": 1, "smoothness": 0, "jitter": 0, **UNIT}
    start = ascend_filters(model, "conv", step_size=1e-12, **options).images.astype(np.float64)
    fires = extract_activations(model, start)["conv"][..., 2] > 0
    assert 0.2 < fires.mean() < 0.8  # so that both parts of what is climbed count
    moved = ascend_filters(model, "conv", step_size=0.01, **options).images - start
    change = np.eye(start.size).reshape(-1, *start.shape[1:]) * 1e-6
    slope = (climbed(model, start + change, 2) - climbed(model, start - change, 2)) / 2e-6
    slope = slope.reshape(start.shape)
    expected = 0.01 * slope / np.sqrt(np.mean(slope**2))
    np.testing.assert_allclose(moved, expected, atol=1e-5)  # of 0.01


def test_smoothness_takes_away_high_frequencies_and_none_takes_nothing():
    noise = np.random.default_rng(0).normal(size=(2, 12, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(filter_ascent._smooth(noise, 0.0), noise, atol=1e-5)
    smooth = filter_ascent._smooth(noise, 1.0).numpy()
    ratio = np.fft.fft2(smooth, axes=(1, 2)) / np.fft.fft2(noise, axes=(1, 2))
    frequency = np.hypot(np.fft.fftfreq(12)[:, None], np.fft.fftfreq(16)[None])
    expected = 1 / np.maximum(frequency * 16, 1)[None, ..., None]
    np.testing.assert_allclose(ratio, np.broadcast_to(expected, ratio.shape), rtol=1e-3)


def test_steps_are_along_the_slope_smoothed_less_and_less():
    """Of a linear filter, whose slope is the same everywhere, the way is the sum of the steps."""
    model = one_convolution(activation=None)
    options = {"filters": 1, "jitter": 0, **UNIT}
    still = ascend_filters(model, "conv", steps=1, step_size=1e-12, **options).images
    plain, smooth = (
        ascend_filters(model, "conv", steps=n, step_size=0.01, smoothness=s, **options).images
        - still
        for n, s in ((1, 0), (4, 2))
    )
    expected = 0
    for length, exponent in zip((1, 0.75, 0.5, 0.25), (3.5, 2.5, 1.5, 0.5), strict=True):
        step = filter_ascent._smooth(plain, exponent).numpy()
        expected += 0.01 * length * step / np.sqrt(np.mean(step**2))
    np.testing.assert_allclose(smooth, expected, atol=1e-5)
    assert np.abs(smooth - 2.5 * plain).max() > 1e-3


def test_jitter_moves_the_image_and_none_does_not():
    model = one_convolution()
    options = {"filters": 1, "steps": 6, **UNIT}
    still, same, moved = (
        ascend_filters(model, "conv", jitter=jitter, **options).images for jitter in (0, 0, 3)
    )
    np.testing.assert_array_equal(still, same)
    assert np.abs(still - moved).max() > 0.01


@pytest.mark.parametrize("image_size", [None, 48])
def test_activations_are_those_of_the_returned_images(image_size):
    keras.utils.set_random_seed(0)
    model = build_model(image_size=image_size, width=4)
    result = ascend_filters(model, "block2_conv2_relu", steps=15, image_size=48)
    (maps,) = extract_activations(model, result.images, result.layer_name).values()
    own = maps.mean((1, 2))[np.arange(8), result.filters]
    np.testing.assert_allclose(result.activations, own, rtol=1e-3, atol=1e-5)
    assert result.verdicts == ("ok",) * 8 and result.layer_name == "block2_conv2_relu"
    assert (result.activations > result.start_activations).all()


def test_images_lie_in_the_value_range_and_the_start_in_its_middle():
    for low, high in ((0, 1), (-1, 1), (0, 255)):
        model = one_convolution() if high == 1 else rescaling_convolution()
        result = ascend_filters(model, "conv", steps=20, step_size=0.2, value_range=(low, high))
        assert low <= result.images.min() and result.images.max() <= high
        assert result.images.max() - result.images.min() > 0.5 * (high - low)
        start = ascend_filters(model, "conv", steps=1, step_size=1e-9, value_range=(low, high))
        middle = (low + high) / 2
        np.testing.assert_allclose(start.images, middle, atol=0.1 * (high - low))


@pytest.fixture(scope="module")
def faulty_layer():
    """Filters: 0 sound, 1 far below its ReLU, 2 without weights, 3 silent on gray, 4 constant."""
    model = one_convolution(filters=5)
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 0] = np.abs(kernel[..., 0])
    bias[1] = -1000
    kernel[..., 2] = 0
    edge = np.array([[-1, 0, 1]] * 3)[..., None]
    kernel[..., 3], bias[3] = edge, -1
    kernel[..., 4], bias[4] = 0, 1
    model.get_layer("conv").set_weights([kernel, bias])
    return model


def test_verdicts_on_planted_faults(faulty_layer):
    result = ascend_filters(faulty_layer, "conv", **UNIT)
    assert result.verdicts == ("ok", "dead", "dead", "ok", "dead")
    assert result.start_activations[3] == 0 and result.activations[3] > 0.1
    assert not result.activations[1:3].any() and result.activations[4] == 1


def test_ascent_that_cannot_move_has_no_gain(faulty_layer):
    result = ascend_filters(faulty_layer, "conv", [0, 1], steps=1, step_size=1e-9, **UNIT)
    assert result.verdicts == ("no gain", "dead")


def test_small_gradients_in_float16_climb_as_in_float32():
    """Of a mean over 128x128 places, back through three layers with small weights."""
    found = []
    for policy in ("mixed_float16", "float32"):
        inputs = features = keras.Input((128, 128, 3))
        for seed in range(3):
            small = keras.initializers.RandomUniform(0, 0.0035, seed=seed)
            options = {"kernel_initializer": small, "name": f"conv{seed}", "dtype": policy}
            features = keras.layers.Conv2D(4, 3, activation="relu", **options)(features)
        model = keras.Model(inputs, features)
        found.append(ascend_filters(model, "conv2", steps=5, **UNIT))
    half, full = found
    assert half.verdicts == full.verdicts == ("ok",) * 4
    np.testing.assert_allclose(half.activations, full.activations, rtol=0.02)


@pytest.mark.parametrize("at_once", [1, 3])
def test_image_does_not_depend_on_the_other_filters(at_once):
    model = one_convolution(filters=8)
    whole = ascend_filters(model, "conv", steps=10, **UNIT)
    some = ascend_filters(model, "conv", (6, 1, 2, 7), steps=10, batch_size=at_once, **UNIT)
    assert some.filters.tolist() == [6, 1, 2, 7]
    np.testing.assert_allclose(some.images, whole.images[[6, 1, 2, 7]], atol=1e-3)
    np.testing.assert_allclose(some.activations, whole.activations[[6, 1, 2, 7]], rtol=1e-3)
    assert not np.allclose(whole.images[6], whole.images[7], atol=0.1)


def test_seed_decides_the_images():
    model = one_convolution()
    first, again, other = (
        ascend_filters(model, "conv", 0, steps=5, seed=seed, **UNIT).images for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "image_size", "expected"),
    [
        ((8, 8, 3), None, (8, 8, 3)),
        ((8, 12, 3), None, (8, 12, 3)),
        ((None, None, 3), 10, (10, 10, 3)),
        ((None, None, 1), None, (96, 96, 1)),
        ((8, 8, 3), np.int64(8), (8, 8, 3)),
    ],
)
def test_size_of_the_images(shape, image_size, expected):
    model = rescaling_convolution(shape)
    result = ascend_filters(model, "conv", 1, image_size=image_size, steps=1)
    assert result.images.shape == (1, *expected)
    assert result.images.dtype == result.activations.dtype == np.float32


def test_images_in_one_call_are_bounded_by_their_pixels(monkeypatch):
    seen, ascend = [], filter_ascent._ascend

    def counting_ascend(step, start, batch, *rest):
        seen.append(len(batch))
        return ascend(step, start, batch, *rest)

    monkeypatch.setattr(filter_ascent, "_ascend", counting_ascend)
    monkeypatch.setattr(filter_ascent, "PIXELS_AT_ONCE", 8 * 8 * 3)
    ascend_filters(one_convolution(filters=8), "conv", steps=1, **UNIT)
    assert seen == [3, 3, 2]


@pytest.mark.parametrize("head", ["one logit", "sigmoid", "logits", "softmax", "softmax layer"])
def test_class_images_raise_the_logit_of_their_class(pooled_network, head):
    model, _, dense = pooled_network("nested", head)
    classes = max(2, dense.units)
    noise = np.random.default_rng(0).uniform(0, 1, (60, 12, 12, 3))
    result = ascend_filters(model, class_index=range(classes), steps=40, **UNIT)
    assert result.filters.tolist() == list(range(classes)) and set(result.verdicts) == {"ok"}
    for index in range(classes):
        scores = grad_cam(model, [result.images[index], *noise], class_index=index).scores
        assert scores[0] > scores[1:].max()
        np.testing.assert_allclose(result.activations[index], scores[0], rtol=1e-4, atol=1e-4)
        single = ascend_filters(model, class_index=index, steps=40, **UNIT)
        np.testing.assert_allclose(single.images[0], result.images[index], atol=1e-3)


@pytest.mark.parametrize(
    "target", [{}, {"layer_name": "conv", "class_index": 0}, {"filters": 1, "class_index": 0}]
)
def test_objective_is_a_layer_or_classes(target):
    with pytest.raises(
        ValueError, match="`layer_name`.*`class_index`.*`target`.*give one of the three"
    ):
        ascend_filters(one_convolution(), **target)


@pytest.mark.parametrize("filters", [4, -1, [0, 4], [], 1.0, "1", True, [[0, 1]], [[0], [1, 2]]])
def test_wrong_filters_are_an_error(filters):
    with pytest.raises(ValueError, match="`filters`"):
        ascend_filters(one_convolution(), "conv", filters, **UNIT)
    with pytest.raises(ValueError, match=r"`filters` .=40. must be in .0, 4. for layer 'conv'"):
        ascend_filters(one_convolution(), "conv", [1, 40], **UNIT)


WRONG = {"steps": (0, 2.5), "step_size": (0, float("nan"), "large"), "batch_size": (0, 1.5)}
WRONG |= {"smoothness": (-1, float("nan"), "very"), "seed": (-1, None), "jitter": (-1, 1.5)}
WRONG |= {"image_size": (0, 8.5, (8, 8, 8)), "value_range": (None, "ab", (1, 0), (-1e300, 1e300))}


@pytest.mark.parametrize(("name", "value"), [(n, value) for n in WRONG for value in WRONG[n]])
def test_wrong_option_is_an_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` \(="):
        ascend_filters(one_convolution(), "conv", **{name: value})


def test_size_that_the_model_does_not_take_is_an_error():
    with pytest.raises(ValueError, match=r"`image_size` \(=9\) must be 8x8"):
        ascend_filters(one_convolution(), "conv", image_size=9)


def test_layer_that_does_not_see_the_image_is_an_error():
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(2, 3, name="conv")(keras.ops.stop_gradient(inputs))
    with pytest.raises(ValueError, match="'conv'. does not depend on the image"):
        ascend_filters(keras.Model(inputs, outputs), "conv")
