"""Every well-known architecture, plain and as a backbone, against analytic maps and tapes."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.activations import extract_activations
from cnnviz.exciting_crops import exciting_crops
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import METHODS, SIGNED_METHODS, grad_cam
from cnnviz.layer_shapes import layer_shapes
from cnnviz.layers import class_probabilities
from cnnviz.receptive_field import receptive_field

SIZE = 96
LARGER = {"InceptionV3": 160}  # at 96 pixels its last maps are of 1x1
ARCHITECTURES = (
    "VGG16",
    "ResNet50",
    "ResNet50V2",
    "MobileNetV2",
    "MobileNetV3Small",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "Xception",
    "InceptionV3",
    "NASNetMobile",
    "ConvNeXtTiny",
)
QUICK = ("VGG16", "MobileNetV2", "MobileNetV3Small")  # in the default run
every_architecture = pytest.mark.parametrize(
    "architecture",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in ARCHITECTURES
    ],
)


@pytest.fixture
def pictures(architecture):
    size = LARGER.get(architecture, SIZE)
    return np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype(np.float32)


def build(architecture, shape, **options):
    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, architecture)
    model = make(weights=None, input_shape=shape, **options)
    awaken(model)
    return model


def in_its_range(architecture, pictures):
    """Pictures in 0..255 as the architecture takes them: some rescale inside, some do not."""
    make = getattr(keras.applications, architecture)
    return sys.modules[make.__module__].preprocess_input(pictures.copy())


def awaken(model):
    """Let each picture matter: untrained norms and scales make some networks nearly constant."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.1, 0.5, layer.moving_variance.shape))
        if type(layer).__name__ == "LayerScale":  # ConvNeXt starts its blocks at a millionth
            layer.gamma.assign(rng.uniform(0.2, 0.5, layer.gamma.shape))


def before_pooling(model):
    """Name of what a person would choose: the layer whose output the last pooling takes."""
    pools = (keras.layers.GlobalAveragePooling2D, keras.layers.MaxPooling2D)
    last = [layer for layer in model.layers if isinstance(layer, pools)][-1]
    return last.input._keras_history.operation.name


@every_architecture
@pytest.mark.case("arrays and models", "right")
def test_plain_network_equals_the_tape_through_a_cut_model(architecture, pictures):
    model = build(architecture, pictures.shape[1:], classes=5, classifier_activation=None)
    pictures = in_its_range(architecture, pictures)
    name = before_pooling(model)
    producer = {op.name: op for op in model.operations}[name]
    cut = keras.Model(model.input, [producer.output, model.output])
    with tf.GradientTape() as tape:
        features, logits = cut(pictures, training=False)
        score = logits[:, 3]
    slope = tape.gradient(score, features).numpy()
    expected = (slope.mean((1, 2), keepdims=True) * features.numpy()).sum(-1)

    result = grad_cam(model, pictures, class_index=3, signed=True)
    assert result.layer_name == name
    np.testing.assert_allclose(result.scores, score, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-4 * np.ptp(expected))

    found = extract_activations(model, pictures, name)[name]
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-4 * np.abs(found).max())
    value_range = pictures.min(), pictures.max()
    ascended = ascend_filters(model, name, [0, 1], steps=2, value_range=value_range)
    means = extract_activations(model, ascended.images, name)[name].mean((1, 2))
    np.testing.assert_allclose(ascended.activations, means[[0, 1], [0, 1]], rtol=1e-3, atol=1e-4)


@every_architecture
@pytest.mark.case("arrays and models", "right")
def test_backbone_of_a_transfer_model_gives_the_analytic_map(architecture, pictures):
    backbone = build(architecture, pictures.shape[1:], include_top=False)
    head = keras.layers.Dense(3, activation="softmax", kernel_initializer="random_normal")
    model = keras.Sequential(
        [
            keras.Input(pictures.shape[1:]),
            keras.layers.RandomFlip(),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            backbone,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.5),
            head,
        ]
    )
    features = backbone(pictures / 127.5 - 1, training=False).numpy()
    kernel, bias = head.get_weights()
    expected = features @ kernel[:, 1] / np.prod(features.shape[1:3])
    # VGG16 ends in a maximum pooling; by default the layer before it would be taken.
    last = "block5_pool" if architecture == "VGG16" else None
    result = grad_cam(model, pictures, class_index=1, signed=True, layer_name=last)
    assert result.layer_name.startswith(f"{backbone.name}/")
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=tolerance)
    logits = features.mean((1, 2)) @ kernel + bias
    # Of the sums' terms: some untrained networks put out millions, which then cancel out.
    tolerance = 1e-5 * (np.abs(features.mean((1, 2))) @ np.abs(kernel)).max()
    np.testing.assert_allclose(result.scores, logits[:, 1], rtol=1e-4, atol=tolerance)
    probabilities = class_probabilities(model, pictures)
    np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), rtol=1e-3, atol=1e-6)


# Channels first


def small_network(data_format):
    """Strided convolution, norm, addition, pooling; its weights are the same in both layouts."""
    keras.utils.set_random_seed(1)
    shape = (24, 20, 3) if data_format == "channels_last" else (3, 24, 20)
    options = {"padding": "same", "data_format": data_format}
    inputs = keras.Input(shape)
    first = keras.layers.Conv2D(6, 3, activation="relu", name="first", **options)(inputs)
    axis = -1 if data_format == "channels_last" else 1
    norm = keras.layers.BatchNormalization(axis=axis, name="norm")
    other = keras.layers.ReLU(name="relu")(
        norm(keras.layers.Conv2D(6, 3, use_bias=False, name="second", **options)(first))
    )
    added = keras.layers.Add(name="add")([first, other])
    pooled = keras.layers.MaxPooling2D(2, data_format=data_format, name="pool")(added)
    last = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="last", **options)(pooled)
    mean = keras.layers.GlobalAveragePooling2D(data_format=data_format, name="mean")(last)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(mean))
    rng = np.random.default_rng(2)
    norm.moving_mean.assign(rng.normal(0, 0.3, 6))
    norm.moving_variance.assign(rng.uniform(0.2, 1, 6))
    return model


@pytest.fixture(scope="module")
def twins():
    """The same network with channels last and with channels first, and pictures for both."""
    models = small_network("channels_last"), small_network("channels_first")
    models[1].set_weights(models[0].get_weights())
    images = np.random.default_rng(3).uniform(0, 1, (4, 24, 20, 3)).astype(np.float32)
    try:
        models[1](images.transpose(0, 3, 1, 2))
    except Exception:
        pytest.skip("this machine does not run convolutions with channels first")
    return (*models, images)


def same(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.case("arrays and models", "right")
def test_channels_first_inside_a_nested_model_is_turned_once(twins):
    *models, images = twins
    nested = [keras.Sequential([keras.Input(model.input_shape[1:]), model]) for model in models]
    last, first = (extract_activations(model, images) for model in nested)
    assert [path.split("/")[1] for path in first] == [path.split("/")[1] for path in last]
    for one, other in zip(first.values(), last.values(), strict=True):
        same(one, other)


@pytest.mark.case("arrays and models", "right")
@pytest.mark.parametrize("layout", ["its own", "channels last"])
def test_channels_first_gives_what_channels_last_gives(twins, layout):
    model, turned, images = twins
    given = images.transpose(0, 3, 1, 2) if layout == "its own" else images
    same(class_probabilities(turned, given), class_probabilities(model, images))
    same(class_probabilities(turned, given[0]), class_probabilities(model, images[0]))
    found, expected = extract_activations(turned, given), extract_activations(model, images)
    assert list(found) == list(expected)
    for name, feature_map in expected.items():
        same(found[name], feature_map)
    same(extract_activations(turned, given, "mean")["mean"], found["last"].mean((1, 2)))


@pytest.mark.case("arrays and models", "right")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer_name", [None, "first", "add"])
def test_channels_first_gives_the_same_evidence(twins, method, layer_name):
    model, turned, images = twins
    signed = method in SIGNED_METHODS
    options = {"method": method, "layer_name": layer_name, "signed": signed, "class_index": 2}
    found = grad_cam(turned, images.transpose(0, 3, 1, 2), **options)
    expected = grad_cam(model, images, **options)
    assert found.layer_name == expected.layer_name and found.verdicts == expected.verdicts
    same(found.maps, expected.maps)
    same(found.scores, expected.scores)
    assert np.abs(expected.maps).max() > 0


@pytest.mark.case("arrays and models", "right")
@pytest.mark.parametrize("target", [{"layer_name": "relu"}, {"layer_name": "last"},
                                    {"class_index": [0, 2]}])  # fmt: skip
def test_channels_first_climbs_to_the_same_pictures(twins, target):
    model, turned, _ = twins
    options = {"steps": 4, "value_range": (0, 1)} | target
    found, expected = ascend_filters(turned, **options), ascend_filters(model, **options)
    assert found.images.shape[1:] == (24, 20, 3) and found.verdicts == expected.verdicts
    same(found.images, expected.images)
    same(found.activations, expected.activations)
    assert (expected.activations > expected.start_activations).any()


@pytest.mark.case("arrays and models", "right")
def test_channels_first_has_the_same_receptive_fields_shapes_and_crops(twins):
    model, turned, images = twins
    for name in ("first", "add", "last"):
        np.testing.assert_array_equal(receptive_field(turned, name), receptive_field(model, name))
    crops = [exciting_crops(one, images, "last", count=2) for one in (turned, model)]
    np.testing.assert_array_equal(crops[0].image_index, crops[1].image_index)
    same(crops[0].crops, crops[1].crops)
    shapes = [[layer.shape for layer in layer_shapes(one)] for one in (turned, model)]
    assert shapes[0] == shapes[1]


@pytest.mark.case("arrays and models", "reported")
def test_channels_first_tells_wrong_pictures(twins):
    _, turned, images = twins
    with pytest.raises(ValueError, match=r"`images` \(of shape \(4, 20, 24, 3\)\) must be"):
        class_probabilities(turned, images.swapaxes(1, 2))
    with pytest.raises(ValueError, match="must be"):
        class_probabilities(turned, images.transpose(0, 3, 2, 1))


@pytest.mark.case("arrays and models", "right")
def test_model_that_turns_its_pictures_itself(twins):
    model, turned, images = twins
    inputs = keras.Input((24, 20, 3))
    outer = keras.Model(inputs, turned(keras.layers.Permute((3, 1, 2))(inputs)))
    same(class_probabilities(outer, images), class_probabilities(model, images))
    found = grad_cam(outer, images, class_index=1, layer_name="last")
    same(found.maps, grad_cam(model, images, class_index=1, layer_name="last").maps)


class TurnsItsPictures(keras.Model):
    """Takes pictures with channels last, and computes with channels first."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, images):
        return self.inner(tf.transpose(images, (0, 3, 1, 2)))


@pytest.mark.case("arrays and models", "right")
def test_subclassed_model_that_turns_its_pictures_itself(twins):
    model, turned, images = twins
    outer = TurnsItsPictures(turned)
    outer(images)
    same(class_probabilities(outer, images), class_probabilities(model, images))
    same(grad_cam(outer, images, class_index=1).maps, grad_cam(model, images, class_index=1).maps)


@pytest.mark.case("arrays and models", "right")
@pytest.mark.parametrize("kind", ["flattened", "sequence", "both layouts"])
def test_channels_last_beside_a_layer_that_says_channels_first(twins, kind):
    images = twins[2]
    inputs = keras.Input(images.shape[1:])
    conv = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    if kind == "flattened":
        end = keras.layers.Flatten(data_format="channels_first")(conv)
    elif kind == "sequence":
        sequence = keras.layers.Permute((2, 1))(keras.layers.Reshape((-1, 6))(conv))
        end = keras.layers.GlobalAveragePooling1D(data_format="channels_first")(sequence)
    else:
        first = keras.layers.Permute((3, 1, 2))(conv)
        other = keras.layers.Conv2D(4, 3, data_format="channels_first", name="other")(first)
        end = keras.layers.GlobalAveragePooling2D(data_format="channels_first")(other)
    model = keras.Model(inputs, keras.layers.Dense(2)(end))
    expected = keras.Model(inputs, conv)(images)
    found = extract_activations(model, images, "conv")["conv"]
    same(found, expected)
    assert grad_cam(model, images, layer_name="conv").maps.shape == found.shape[:3]
    if kind == "both layouts":
        expected = keras.Model(inputs, model.get_layer("other").output)(images).numpy()
        same(extract_activations(model, images, "other")["other"], expected.transpose(0, 2, 3, 1))
