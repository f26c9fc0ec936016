"""Recorded outputs against models that are cut at the layer."""

import keras
import numpy as np
import pytest

from cnnviz.activations import extract_activations
from cnnviz.model import build_model

L = keras.layers


@pytest.mark.parametrize("normalized", [True, False])
def test_every_layer_equals_the_model_cut_there(normalized):
    keras.utils.set_random_seed(0)
    model = build_model(image_size=32, width=4, batch_normalization=normalized)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    expected = {layer.name: layer.output for layer in model.layers[1:]}
    expected = keras.Model(model.input, expected).predict(images, verbose=0)
    found = extract_activations(model, images, list(expected))
    assert list(found) == list(expected)
    for name, output in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], output, rtol=1e-4, atol=1e-5, err_msg=name)
    maps = extract_activations(model, images)  # by default those with positions
    assert list(maps) == [name for name, output in expected.items() if output.ndim == 4]


def test_layers_come_as_asked_for_and_in_that_order(pooled_network, images):
    model, convolution, dense = pooled_network("nested")
    features = convolution(images).numpy()
    found = extract_activations(model, images, (name for name in ("head", "backbone", "pooling")))
    assert list(found) == ["head", "backbone", "pooling"]
    np.testing.assert_allclose(found["backbone"], features, rtol=1e-5)
    np.testing.assert_allclose(found["pooling"], features.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["head"], dense(found["pooling"]), rtol=1e-5)
    for kind in ("nested", "sequential", "subclassed"):
        (maps,) = extract_activations(pooled_network(kind)[0], images).values()
        np.testing.assert_allclose(maps, features, rtol=1e-5)


def test_a_layer_that_is_used_twice_gives_its_last_output_and_a_warning(images):
    convolution = L.Conv2D(3, 3, name="conv", kernel_initializer="random_normal")
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, convolution(convolution(inputs)))
    for names, message in (("conv", "'conv' is used 2 times in one"), (None, "several .*'conv'")):
        for _ in range(2):  # not only when it is traced
            with pytest.warns(UserWarning, match=message) as told:
                found = extract_activations(model, images, names)
            assert len(told) == 1 and told[0].filename == __file__
            np.testing.assert_allclose(found["conv"], model(images), rtol=1e-4)


def test_a_layer_that_stands_in_two_nested_models(images):
    relu = L.ReLU(name="relu")

    def block(name, channels):
        inputs = keras.Input((None, None, channels))
        convolved = L.Conv2D(4, 3, name=f"conv_{name}")(inputs)
        return keras.Model(inputs, relu(convolved), name=name)

    first, second = block("a", 3), block("b", 4)
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, second(first(inputs)))
    with pytest.warns(UserWarning, match="last output .*'a/relu' .2 times., 'b/relu' .2 times."):
        found = extract_activations(model, images)
    assert set(found) == {"a/conv_a", "a/relu", "b/conv_b", "b/relu"}
    np.testing.assert_allclose(found["b/relu"], second(first(images)), rtol=1e-5)
    assert "call" not in vars(relu)


def test_a_layer_without_an_output_of_its_own_is_an_error(images):
    class Table(L.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(1, 12, 12, 3))

        def call(self, images):
            return self.table.value  # the same for any image

    class Partial(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused, self.table = L.Identity(name="used"), L.Identity(), Table()

        def call(self, images):
            return self.used(images) + self.table(images), None

    model = Partial()
    model(images)
    assert list(extract_activations(model, images)) == ["used"]
    for layer in (model.unused, model.table):
        with pytest.raises(ValueError, match=f"'{layer.name}'. is not used, or returns no single"):
            extract_activations(model, images, layer.name)
