"""Every well-known architecture, plain and as a backbone, against analytic maps and tapes."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.activations import extract_activations
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities, named_layers

SIZES = {"InceptionV3": 160}  # at 96 pixels its last maps are of 1x1
QUICK = ("MobileNetV2",)  # in the default run
SLOW = "VGG16 ResNet50 ResNet50V2 DenseNet121 EfficientNetB0 MobileNetV3Small EfficientNetV2B0"
SLOW += " Xception InceptionV3 NASNetMobile ConvNeXtTiny"
slow = [pytest.param(name, marks=pytest.mark.slow) for name in SLOW.split()]
pytestmark = pytest.mark.parametrize("architecture", [*QUICK, *slow])


def build(architecture, **options):
    """(model, images in 0..255): untrained, with norms and scales that let each image matter."""
    keras.utils.set_random_seed(0)
    size = SIZES.get(architecture, 96)
    make, rng = getattr(keras.applications, architecture), np.random.default_rng(0)
    model = make(weights=None, input_shape=(size, size, 3), **options)
    for layer in named_layers(model).values():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.1, 0.5, layer.moving_variance.shape))
        if type(layer).__name__ == "LayerScale":  # ConvNeXt starts its blocks at a millionth
            layer.gamma.assign(rng.uniform(0.2, 0.5, layer.gamma.shape))
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    return model, images


def test_plain_network_equals_the_tape_through_a_cut_model(architecture):
    model, images = build(architecture, classes=5, classifier_activation=None)
    module = sys.modules[getattr(keras.applications, architecture).__module__]
    images = module.preprocess_input(images)  # some rescale inside, some do not
    pools = (keras.layers.GlobalAveragePooling2D, keras.layers.MaxPooling2D)
    last = [layer for layer in model.layers if isinstance(layer, pools)][-1]
    name = last.input._keras_history.operation.name  # what a person would choose
    cut = keras.Model(model.input, [last.input, model.output])
    with tf.GradientTape() as tape:
        features, logits = cut(images, training=False)
        score = logits[:, 3]
    slope = tape.gradient(score, features).numpy()
    expected = (slope.mean((1, 2), keepdims=True) * features.numpy()).sum(-1)

    result = grad_cam(model, images, class_index=3, signed=True)
    assert result.layer_name == name
    np.testing.assert_allclose(result.scores, score, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))

    found = extract_activations(model, images, name)[name]
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-4 * np.abs(found).max())
    value_range = images.min(), images.max()
    ascended = ascend_filters(model, name, [0, 1], steps=2, value_range=value_range)
    means = extract_activations(model, ascended.images, name)[name].mean((1, 2))
    np.testing.assert_allclose(ascended.activations, means[[0, 1], [0, 1]], rtol=1e-3, atol=1e-4)


def test_backbone_of_a_transfer_model_gives_the_analytic_map(architecture):
    backbone, images = build(architecture, include_top=False)
    head = keras.layers.Dense(3, activation="softmax", kernel_initializer="random_normal")
    before = [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 127.5, offset=-1)]
    end = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.5), head]
    model = keras.Sequential([keras.Input(images.shape[1:]), *before, backbone, *end])
    features = backbone(images / 127.5 - 1, training=False).numpy()
    kernel, bias = head.get_weights()
    expected = features @ kernel[:, 1] / np.prod(features.shape[1:3])
    # VGG16 ends in a maximum pooling; by default the layer before it would be taken.
    last = "block5_pool" if architecture == "VGG16" else None
    result = grad_cam(model, images, class_index=1, signed=True, layer_name=last)
    assert result.layer_name.startswith(f"{backbone.name}/")
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=tolerance)
    logits = features.mean((1, 2)) @ kernel + bias
    # Of the sums' terms: some untrained networks output millions, which then cancel out.
    tolerance = 1e-5 * (np.abs(features.mean((1, 2))) @ np.abs(kernel)).max()
    np.testing.assert_allclose(result.scores, logits[:, 1], rtol=1e-4, atol=tolerance)
    probabilities = class_probabilities(model, images)
    np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), rtol=1e-3, atol=1e-6)
