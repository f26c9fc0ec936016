"""Identical models differ by exactly nothing; one edited layer is named."""

import keras
import numpy as np
import pytest

from cnnviz.diagnosis.changes import compare_models
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities

L = keras.layers


def build(width=6):
    steps = [L.Conv2D(n, 3, activation="relu") for n in (3, width)]
    steps += [L.GlobalAveragePooling2D(), L.Dense(2)]
    return keras.Sequential([keras.Input((16, 16, 3)), *steps])


@pytest.fixture(scope="module")
def before():
    keras.utils.set_random_seed(0)
    return build()


@pytest.fixture
def after(before):
    model = build()
    model.set_weights(before.get_weights())
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 1, (6, 16, 16, 3)).astype(np.float32)


def test_identical_weights_change_nothing_whatever_the_layers_are_called(before, after, images):
    assert before.layers[0].name != after.layers[0].name
    result = compare_models(before, after, images)
    assert len(result.layer_names) == 3
    assert (result.weights == 0).all()
    for pair in (result.probabilities, [maps.maps for maps in result.maps]):
        np.testing.assert_array_equal(*pair)
    assert "0 of 3 layers changed; 0 of 6 predictions" in str(result)


def test_one_edited_layer_is_named(before, after, images):
    layer = after.layers[1]
    old, bias = layer.get_weights()
    layer.set_weights([old * [1, 1, 1, 1, 1, -1], bias])
    after.layers[3].set_weights([-w for w in after.layers[3].get_weights()])
    result = compare_models(before, after, images, class_names=("a", "b"), value_range=(0, 1))
    moved = np.linalg.norm(2 * old[..., 5]) / np.linalg.norm(old)
    np.testing.assert_allclose(result.weights, [0, moved, 2], rtol=1e-6)
    for found, model in zip(result.probabilities, (before, after), strict=True):
        np.testing.assert_allclose(found, class_probabilities(model, images))
    classes = [each.argmax(1) for each in result.probabilities]
    assert f"{(classes[0] != classes[1]).sum()} of 6 predictions changed" in str(result)
    assert f"2 of 3 layers changed, most in '{before.layers[3].name}' (200.0%" in str(result)
    for model, maps in zip((before, after), result.maps, strict=True):
        expected = grad_cam(model, images, class_index=classes[0])
        np.testing.assert_allclose(maps.maps, expected.maps, atol=1e-6)
    assert result.to_frame()["layer"].tolist() == list(result.layer_names)
    np.testing.assert_array_equal(result.images, images)
    assert (result.class_names, result.value_range) == (("a", "b"), (0, 1))


class Scaled(L.Layer):
    """A block that holds a weight beside its convolution."""

    def __init__(self):
        super().__init__()
        self.convolution = L.Conv2D(4, 3)
        self.scale = self.add_weight(shape=(1,), initializer="ones", name="scale")

    def call(self, images):
        return self.scale * self.convolution(images)


def test_weights_of_a_block_itself_are_compared(images):
    models = []
    for _ in range(2):
        layers = [keras.Input((16, 16, 3)), Scaled(), L.GlobalAveragePooling2D(), L.Dense(2)]
        models.append(keras.Sequential(layers))
    models[1].set_weights(models[0].get_weights())
    models[1].layers[0].scale.assign([1.5])
    result = compare_models(*models, images[:2])
    block = models[0].layers[0].name
    assert result.layer_names[:2] == (block, f"{block}/{models[0].layers[0].convolution.name}")
    np.testing.assert_allclose(result.weights, [0.5, 0, 0])


def test_another_architecture_and_no_image_are_errors(before, images):
    with pytest.raises(ValueError, match="`before` .* one architecture"):
        compare_models(before, build(width=4), images)
    with pytest.raises(ValueError, match=r"`images` \(of shape \(0, 16, 16, 3\)\) must hold one"):
        compare_models(before, before, images[:0])
