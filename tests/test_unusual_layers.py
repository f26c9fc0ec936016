"""Layers that hold their activation, recurrent ones, quantized ones, and ones of other names."""

import tracemalloc
import warnings

import keras
import numpy as np
import pytest

from cnnviz import layers
from cnnviz.activations import extract_activations
from cnnviz.diagnosis.census import filter_census
from cnnviz.diagnosis.changes import compare_models
from cnnviz.diagnosis.features import picture_features
from cnnviz.grad_cam import grad_cam
from cnnviz.layer_shapes import layer_shapes
from cnnviz.receptive_field import receptive_field


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 1, (4, 24, 24, 3)).astype(np.float32)


def classifier(*features, ending=None):
    """A Sequential model of layers that put out feature maps, of three classes."""
    keras.utils.set_random_seed(1)
    pooling = keras.layers.GlobalAveragePooling2D(name="pooling")
    head = keras.layers.Dense(3, activation=ending, name="head")
    return keras.Sequential([keras.Input((24, 24, 3)), *features, pooling, head])


def convolutions(**options):
    return [keras.layers.Conv2D(4, 3, name=name, **options) for name in ("conv1", "conv2")]


ACTIVATIONS = {
    "LeakyReLU": lambda: keras.layers.LeakyReLU(0.2),
    "ReLU": keras.layers.ReLU,
    "PReLU": lambda: keras.layers.PReLU(alpha_initializer="ones", shared_axes=(1, 2)),
}
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)


@every_activation
@pytest.mark.case("arrays and models", "right")
def test_a_layer_as_activation_counts_as_one_behind_it(images, activation):
    model = classifier(*convolutions(activation=activation()))  # one object for both, too
    first, second = convolutions()
    twin = classifier(first, activation(), second, activation())
    weights = dict(zip((w.path.split("/", 1)[1] for w in twin.weights), twin.weights, strict=True))
    for layer in (first, second, twin.get_layer("head")):
        model.get_layer(layer.name).kernel.assign(weights[f"{layer.name}/kernel"])
    assert layers.convolution_layers(model) == ["conv1", "conv2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = extract_activations(model, images), extract_activations(twin, images)
        np.testing.assert_allclose(found["conv1"], expected[twin.layers[1].name], atol=1e-6)
        np.testing.assert_allclose(found["conv2"], expected[twin.layers[3].name], atol=1e-6)
        for options in ({}, {"method": "fine"}, {"layer_name": "conv1"}):
            named = {"layer_name": twin.layers[1].name} if "layer_name" in options else options
            result, wanted = grad_cam(model, images, **options), grad_cam(twin, images, **named)
            np.testing.assert_allclose(result.maps, wanted.maps, rtol=1e-4, atol=1e-7)
    census, other = filter_census(model, images), filter_census(twin, images)
    for one, both in zip(census.layers, other.layers, strict=True):
        assert one.layer_name.startswith("conv") and one.verdicts == both.verdicts


@pytest.mark.case("arrays and models", "right")
def test_weights_and_settings_of_an_activation_are_seen(images):
    first, second = (keras.layers.PReLU(shared_axes=(1, 2)) for _ in range(2))
    conv = keras.layers.Conv2D(4, 3, activation=first, name="conv1")
    model = classifier(conv, keras.layers.Conv2D(4, 3, activation=second, name="conv2"))
    assert sum(shape.parameters for shape in layer_shapes(model)) == model.count_params()
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    other.get_layer("conv2").activation.alpha.assign([[[0.5] * 4]])
    changes = compare_models(model, other, images, value_range=(0, 1), steps=1, count=1)
    assert changes.layer_name == "conv2"
    first.alpha.assign([[[np.nan] * 4]])
    with pytest.raises(ValueError, match="weights of its layer 'conv1' hold it"):
        grad_cam(model, images)
    leaky = keras.layers.LeakyReLU(0.1)
    model = classifier(*convolutions(activation=leaky))
    before = extract_activations(model, images)["conv1"]
    leaky.negative_slope = 0.9
    after = extract_activations(model, images)["conv1"]
    np.testing.assert_allclose(np.minimum(after, 0), 9 * np.minimum(before, 0), rtol=1e-5)


class Block(keras.layers.Layer):
    """Applies the activation that it holds twice, before and after the second convolution."""

    def __init__(self, activation):
        super().__init__(name="block")
        self.conv1, self.conv2 = convolutions()
        self.activation = activation

    def call(self, images):
        return self.activation(self.conv2(self.activation(self.conv1(images))))


@every_activation
@pytest.mark.case("arrays and models", "right")
def test_an_activation_beside_other_layers_is_a_layer(images, activation):
    model = classifier(Block(activation()))
    act = model.get_layer("block").activation
    path = f"block/{act.name}"
    assert path in layers.named_layers(model)
    assert sum(shape.parameters for shape in layer_shapes(model)) == model.count_params()
    assert grad_cam(model, images).layer_name == path
    if act.weights:
        act.alpha.assign([[[np.nan] * 4]])
        with pytest.raises(ValueError, match=f"weights of its layer '{path}' hold it"):
            grad_cam(model, images)


@pytest.mark.parametrize("mode", ["int8", "float8"])
@pytest.mark.case("arrays and models", "right")
def test_quantized_layers_are_seen(images, mode):
    pointwise = keras.layers.Dense(8, activation="gelu", name="pointwise")
    model = classifier(convolutions()[0], pointwise, ending="softmax")
    before = grad_cam(model, images), extract_activations(model, images)
    names = [shape.name for shape in layer_shapes(model)]
    assert before[0].layer_name == "pointwise"
    for layer in (pointwise, model.get_layer("head")):
        layer.quantize(mode)
    result, found = grad_cam(model, images), extract_activations(model, images)
    assert result.layer_name == "pointwise" and found.keys() == before[1].keys()
    features = model.get_layer("conv1")(images)
    np.testing.assert_allclose(found["pointwise"], model.get_layer("pointwise")(features), 1e-5)
    np.testing.assert_allclose(found["pointwise"], before[1]["pointwise"], atol=0.1)
    assert [shape.name for shape in layer_shapes(model)] == names
    assert not any("quantized_call" in vars(layer) for layer in model.layers)


@pytest.mark.case("arrays and models", "right")
def test_recurrent_layers_are_listed_whole(images):
    inputs = keras.Input((24, 24, 3))
    rows = keras.layers.Reshape((22, -1), name="rows")(convolutions()[0](inputs))
    both = keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True))(rows)
    read = keras.layers.GRU(3, name="read")(both)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(read))
    found = {shape.name: shape for shape in layer_shapes(model)}
    assert sum(shape.parameters for shape in found.values()) == model.count_params()
    assert found["head"].inputs == ("read",) and found["read"].shape == (3,)
    assert grad_cam(model, images).layer_name == "conv1"


@pytest.mark.case("arrays and models", "right")
def test_a_recurrent_convolution_can_be_looked_at(images):
    recurrent = keras.layers.ConvLSTM2D(4, 3, name="recurrent")
    steps = keras.layers.Reshape((2, 12, 24, 3))
    model = classifier(steps, recurrent)
    assert layers.convolution_layers(model) == ["recurrent"]
    result = grad_cam(model, images, class_index=0, signed=True)
    assert result.layer_name == "recurrent"
    # Pooling and one dense layer: the map is known.
    maps = extract_activations(model, images)["recurrent"]
    weights = model.get_layer("head").kernel[:, 0] / (maps.shape[1] * maps.shape[2])
    np.testing.assert_allclose(result.maps, maps @ np.asarray(weights), rtol=1e-4, atol=1e-7)


@pytest.mark.case("arrays and models", "flagged")
def test_the_default_layer_that_is_used_twice_is_told_of(images):
    member = classifier(*convolutions(activation="relu"), ending="softmax")
    inputs = keras.Input((24, 24, 3))
    mirrored = member(keras.ops.flip(inputs, 2))
    model = keras.Model(inputs, keras.layers.Average()([member(inputs), mirrored]))
    for method in ("grad-cam", "fine"):
        with pytest.warns(UserWarning, match="is used 2 times in one call; its last"):
            grad_cam(model, images, method=method)


@pytest.mark.case("arrays and models", "right")
def test_a_convolution_in_groups_may_be_the_head(images):
    inputs = keras.Input((24, 24, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(features)
    head = keras.layers.Conv2D(2, 1, groups=2, use_bias=False)
    model = keras.Model(inputs, keras.layers.Flatten()(head(pooled)))
    found = layers.class_probabilities(model, images)
    expected = keras.ops.softmax(model.predict(images, verbose=0))
    np.testing.assert_allclose(found, expected, atol=1e-6)


class Smart(keras.layers.Conv2D):
    pass


class PoolingConv(keras.layers.Conv2D):
    pass


@pytest.mark.parametrize("kind", [Smart, PoolingConv])
@pytest.mark.case("arrays and models", "right")
def test_convolutions_go_by_what_they_are_and_not_by_their_name(images, kind):
    model = classifier(kind(4, 3, activation="relu", name="mine"))
    assert layers.convolution_layers(model) == ["mine"]
    assert grad_cam(model, images).layer_name == "mine"
    assert [one.layer_name for one in filter_census(model, images).layers] == ["mine"]


class Subclassed(keras.Model):
    """What the models of the tests below are made of."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = keras.layers.Conv2D(4, 3), keras.layers.Dense(2)


@pytest.mark.case("arrays and models", "right")
def test_outputs_that_are_none_have_no_features_to_give(images):
    class Partial(Subclassed):
        def call(self, images):
            return self.head(keras.ops.mean(self.conv(images), (1, 2))), None

    model = Partial()
    model(images)
    expected = np.mean(model.conv(images), (1, 2))
    np.testing.assert_allclose(picture_features(model, images), expected, rtol=1e-5)


def test_the_receptive_field_of_a_large_picture_takes_little_memory():
    inputs = keras.Input((512, 512, 3))
    conv = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv")
    model = keras.Model(inputs, conv(inputs))
    tracemalloc.start()
    try:
        boxes = receptive_field(model, "conv")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert boxes.shape == (256, 256, 4)
    assert boxes[100, 7].tolist() == [200, 14, 203, 17]
    assert peak < 50e6  # 9e6; to tell all places of all outputs apart took 140e6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, images: filter_census(model, images, 3), r"`layer_names` \(='3'\)"),
        (lambda model, images: layers.named_layers("model"), r"`model` \(of type str\)"),
        (lambda model, images: layers.convolution_layers(None), r"`model` \(of type NoneType\)"),
    ],
)
@pytest.mark.case("arrays and models", "reported")
def test_what_is_no_name_and_no_model_is_told(images, call, message):
    with pytest.raises(ValueError, match=message):
        call(classifier(*convolutions()), images)


@pytest.mark.case("arrays and models", "reported")
def test_a_model_that_wants_a_dictionary_is_told_of_in_one_line(images):
    class Named(Subclassed):
        def call(self, inputs):
            return self.head(keras.ops.mean(self.conv(inputs["image"]), (1, 2)))

    model = Named()
    model({"image": images})
    with pytest.raises(ValueError, match="cannot be called on `images`") as told:
        extract_activations(model, images)
    assert "\n" not in str(told.value) and "\x1b" not in str(told.value)
