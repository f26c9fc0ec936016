"""Identical networks differ by exactly nothing; one edited layer is named."""

import keras
import numpy as np
import pytest

from cnnviz.activations import extract_activations
from cnnviz.diagnosis.changes import compare_models
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities
from cnnviz.model import build_model

STEPS = {"steps": 3, "count": 4}


@pytest.fixture(autouse=True)
def three_small_blocks(monkeypatch):
    """Of the four larger ones; each look is traced for two models."""
    monkeypatch.setattr("cnnviz.model.BLOCKS", ((1, 1), (2, 2), (2, 4)))


@pytest.fixture
def before():
    keras.utils.set_random_seed(0)
    return build_model(width=3, batch_normalization=False)


@pytest.fixture
def after(before):
    model = build_model(width=3, batch_normalization=False)
    model.set_weights(before.get_weights())
    return model


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)


def test_identical_weights_change_exactly_nothing(before, after, pictures):
    result = compare_models(before, after, pictures, **STEPS)
    assert len(result.layer_names) == 6  # five convolutions and the head
    assert (result.weights == 0).all() and (result.activations[:-1] == 0).all()
    assert np.isnan(result.activations[-1])  # the logit is no feature map
    for pair in (
        result.probabilities,
        result.feature_maps,
        [maps.maps for maps in result.maps],
        [images.images for images in result.filter_images],
    ):
        np.testing.assert_array_equal(*pair)
    assert "0 of 3 answers changed" in str(result)


def test_pictures_are_looked_at_in_parts_with_the_same_result(before, after, pictures, monkeypatch):
    after.set_weights([1.01 * weight for weight in after.get_weights()])
    whole = compare_models(before, after, pictures, **STEPS)
    monkeypatch.setattr("cnnviz.diagnosis.changes.PIXELS_AT_ONCE", 32 * 32)  # one at a time
    parts = compare_models(before, after, pictures, **STEPS)
    assert (whole.activations[:-1] > 0.001).all()
    np.testing.assert_allclose(parts.activations, whole.activations, rtol=1e-6)
    one, other = (extract_activations(model, pictures) for model in (before, after))
    for name, change in zip(whole.layer_names[:-1], whole.activations[:-1], strict=True):
        moved = np.linalg.norm(other[name] - one[name]) / np.linalg.norm(one[name])
        np.testing.assert_allclose(change, moved, rtol=1e-5)


def test_one_edited_layer_is_named(before, after, pictures):
    layer = after.get_layer("block3_conv2")
    kernel, bias = layer.get_weights()
    kernel[..., 5] *= -1
    layer.set_weights([kernel, bias])
    result = compare_models(before, after, pictures, **STEPS)
    place = result.layer_names.index("block3_conv2")
    old = before.get_layer("block3_conv2").get_weights()[0]
    moved = np.sqrt((2 * old[..., 5]) ** 2).ravel()
    assert result.layer_name == "block3_conv2"
    assert result.weights[place] == pytest.approx(np.linalg.norm(moved) / np.linalg.norm(old))
    assert np.flatnonzero(result.weights).tolist() == [place]
    assert (result.activations[:place] == 0).all() and (result.activations[place:-1] > 0).all()
    maps = [extract_activations(m, pictures, "block3_conv2") for m in (before, after)]
    one, other = (each["block3_conv2"] for each in maps)
    expected = np.linalg.norm(other - one) / np.linalg.norm(one)
    assert result.activations[place] == pytest.approx(expected, rel=1e-5)
    assert 5 in result.filters
    column = result.filters.tolist().index(5)
    np.testing.assert_array_equal(result.feature_maps[1][..., column], other[..., 5])
    unchanged = [index for index in range(4) if index != column]
    np.testing.assert_allclose(
        *(images.images[unchanged] for images in result.filter_images), atol=1e-3
    )
    np.testing.assert_allclose(result.probabilities[1], class_probabilities(after, pictures))
    classes = class_probabilities(before, pictures).argmax(1)
    for model, maps in zip((before, after), result.maps, strict=True):
        expected = grad_cam(model, pictures, class_index=classes)
        np.testing.assert_allclose(maps.maps, expected.maps, atol=1e-6)
    options = {"image_size": 32, "steps": STEPS["steps"]}
    for model, ascended in zip((before, after), result.filter_images, strict=True):
        expected = ascend_filters(model, "block3_conv2", result.filters, **options)
        np.testing.assert_allclose(ascended.images, expected.images, atol=1e-3)
    images = result.filter_images
    assert np.abs(images[0].images[column] - images[1].images[column]).max() > 1
    row = next(line for line in str(result).splitlines() if "block3_conv2" in line)
    assert float(row.split()[1]) == pytest.approx(result.weights[place], abs=6e-4)


def test_filters_are_those_of_the_layer_that_was_named_on_pictures_of_any_shape(before, after):
    wide = np.random.default_rng(1).uniform(0, 255, (2, 32, 48, 3)).astype(np.float32)
    result = compare_models(before, after, wide, layer_name="block1_conv1", count=3, steps=2)
    assert result.layer_name == "block1_conv1" and result.filters.shape == (3,)
    assert result.feature_maps[0].shape == (2, 16, 24, 3)
    assert result.filter_images[1].images.shape == (3, 32, 48, 3)


def test_names_that_keras_gave_need_not_agree(pictures):
    models = [
        keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(2),
            ]
        )
        for _ in range(2)
    ]
    assert models[0].layers[0].name != models[1].layers[0].name
    models[1].set_weights(models[0].get_weights())
    # Nothing rescales inside: pictures in 0..255 would be flagged.
    result = compare_models(*models, pictures / 255, value_range=(0, 1), **STEPS)
    assert (result.weights == 0).all()


def test_another_architecture_is_an_error(before, pictures):
    other = build_model(width=4, batch_normalization=False)
    with pytest.raises(ValueError, match="`before` .* one architecture"):
        compare_models(before, other, pictures)


def test_a_layer_without_weights_has_no_change_to_look_at(before, after, pictures):
    with pytest.raises(ValueError, match="with weights"):
        compare_models(before, after, pictures, layer_name="block2_add2")
    with pytest.raises(ValueError, match="`layer_name` .*'logit'.* puts out feature maps"):
        compare_models(before, after, pictures, layer_name="logit")


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_a_wrong_number_of_filters_is_an_error(before, after, pictures, count):
    with pytest.raises(ValueError, match=rf"`count` \(={count}\) must be an integer, 1 or more"):
        compare_models(before, after, pictures, count=count)


def test_no_picture_is_an_error(before, after, pictures):
    with pytest.raises(ValueError, match=r"`images` \(of shape \(0, 32, 32, 3\)\) must hold one"):
        compare_models(before, after, pictures[:0])


class Scaled(keras.layers.Layer):
    """A block that holds a weight beside its convolution."""

    def __init__(self):
        super().__init__()
        self.convolution = keras.layers.Conv2D(4, 3)
        self.scale = self.add_weight(shape=(1,), initializer="ones", name="scale")

    def call(self, images):
        return self.scale * self.convolution(images)


def test_weights_of_a_block_itself_are_compared():
    models = []
    for _ in range(2):
        scaled, head = Scaled(), keras.layers.Dense(2)
        pooled = keras.layers.GlobalAveragePooling2D()
        models.append(keras.Sequential([keras.Input((16, 16, 3)), scaled, pooled, head]))
    models[1].set_weights(models[0].get_weights())
    models[1].layers[0].scale.assign([1.5])
    noise = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3))
    result = compare_models(*models, noise, value_range=(0, 1), **STEPS)
    block = models[0].layers[0].name
    assert result.layer_names[:2] == (block, f"{block}/{models[0].layers[0].convolution.name}")
    np.testing.assert_allclose(result.weights, [0.5, 0, 0])
    np.testing.assert_allclose(result.activations[:2], [0.5, 0], atol=1e-6)
