"""Layers that hold their activation, recurrent ones, quantized ones, convolutions in groups."""

import keras
import numpy as np
import pytest

from cnnviz import layers
from cnnviz.activations import extract_activations
from cnnviz.grad_cam import grad_cam

L = keras.layers


def classifier(*features, ending=None):
    """A Sequential model of layers that output feature maps, of three classes."""
    keras.utils.set_random_seed(1)
    end = [L.GlobalAveragePooling2D(name="pooling"), L.Dense(3, activation=ending, name="head")]
    return keras.Sequential([keras.Input((12, 12, 3)), *features, *end])


def convolutions(**options):
    return [L.Conv2D(4, 3, name=name, **options) for name in ("conv1", "conv2")]


ACTIVATIONS = {
    "LeakyReLU": lambda: L.LeakyReLU(0.2),
    "PReLU": lambda: L.PReLU(alpha_initializer="ones", shared_axes=(1, 2)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_a_layer_as_activation_counts_as_one_behind_it(images, activation):
    model = classifier(*convolutions(activation=activation()))  # one object for both, too
    first, second = convolutions()
    twin = classifier(first, activation(), second, activation())
    for name in ("conv1", "conv2", "head"):
        model.get_layer(name).kernel.assign(twin.get_layer(name).kernel)
    assert layers.convolution_layers(model) == ["conv1", "conv2"]
    found, expected = extract_activations(model, images), extract_activations(twin, images)
    np.testing.assert_allclose(found["conv1"], expected[twin.layers[1].name], atol=1e-6)
    np.testing.assert_allclose(found["conv2"], expected[twin.layers[3].name], atol=1e-6)
    options, twins = ({}, {"layer_name": "conv1"}), ({}, {"layer_name": twin.layers[1].name})
    for one, other in zip(options, twins, strict=True):
        result, wanted = grad_cam(model, images, **one), grad_cam(twin, images, **other)
        np.testing.assert_allclose(result.maps, wanted.maps, rtol=1e-4, atol=1e-7)


def test_weights_and_settings_of_an_activation_are_seen(images):
    learned, leaky = L.PReLU(shared_axes=(1, 2)), L.LeakyReLU(0.1)
    first, second = L.Conv2D(4, 3, activation=leaky, name="conv1"), convolutions()[1]
    second.activation = learned
    model = classifier(first, second)
    before = extract_activations(model, images, "conv1")["conv1"]
    leaky.negative_slope = 0.9
    after = extract_activations(model, images, "conv1")["conv1"]
    np.testing.assert_allclose(np.minimum(after, 0), 9 * np.minimum(before, 0), rtol=1e-5)
    learned.alpha.assign([[[np.nan] * 4]])
    with pytest.raises(ValueError, match="weights of its layer 'conv2' hold it"):
        grad_cam(model, images)


class Block(L.Layer):
    """Applies the activation that it holds twice, before and after the second convolution."""

    def __init__(self, activation):
        super().__init__(name="block")
        self.conv1, self.conv2 = convolutions()
        self.activation = activation

    def call(self, images):
        return self.activation(self.conv2(self.activation(self.conv1(images))))


def test_an_activation_beside_other_layers_is_a_layer(images):
    model = classifier(Block(L.PReLU(shared_axes=(1, 2), name="act")))
    assert "block/act" in layers.named_layers(model)
    assert grad_cam(model, images).layer_name == "block/act"


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_layers_are_seen(images, mode):
    pointwise = L.Dense(8, activation="gelu", name="pointwise")
    model = classifier(convolutions()[0], pointwise, ending="softmax")
    before = extract_activations(model, images)
    for layer in (pointwise, model.get_layer("head")):
        layer.quantize(mode)
    found = extract_activations(model, images)
    assert grad_cam(model, images).layer_name == "pointwise" and found.keys() == before.keys()
    np.testing.assert_allclose(found["pointwise"], pointwise(found["conv1"]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["pointwise"], before["pointwise"], atol=0.1)
    assert not any("quantized_call" in vars(layer) for layer in model.layers)


def test_a_recurrent_convolution_has_the_analytic_map(images):
    model = classifier(L.Reshape((2, 6, 12, 3)), L.ConvLSTM2D(4, 3, name="recurrent"))
    assert layers.convolution_layers(model) == ["recurrent"]
    result = grad_cam(model, images, class_index=0, signed=True)
    assert result.layer_name == "recurrent"
    maps = extract_activations(model, images)["recurrent"]  # pooling and one dense layer follow
    weights = model.get_layer("head").kernel[:, 0] / (maps.shape[1] * maps.shape[2])
    np.testing.assert_allclose(result.maps, maps @ np.asarray(weights), rtol=1e-4, atol=1e-7)


def test_convolutions_in_groups_are_recorded(images):
    """Keras calls them in a function that XLA must compile, since TensorFlow fuses them wrongly."""
    grouped = L.Conv2D(8, 3, groups=4, activation="relu", name="grouped")
    model = classifier(L.Conv2D(8, 3, activation="relu"), grouped, ending="softmax")
    np.testing.assert_allclose(layers.class_probabilities(model, images), model(images), atol=1e-6)
    found = extract_activations(model, images)["grouped"]
    np.testing.assert_allclose(found, grouped(model.layers[0](images)), atol=1e-6)
    assert grad_cam(model, images).layer_name == "grouped"
