"""Recorded outputs against models that are cut at the layer."""

import keras
import numpy as np
import pytest

from cnnviz.activations import extract_activations
from cnnviz.layers import BATCH_SIZE
from cnnviz.model import build_model


def cut_outputs(model, images):
    """Every layer's output, as Keras itself predicts it."""
    outputs = {layer.name: layer.output for layer in model.layers[1:]}
    return keras.Model(model.input, outputs).predict(images, verbose=0)


@pytest.mark.parametrize("normalised", [True, False])
def test_every_layer_equals_the_model_cut_there(normalised):
    keras.utils.set_random_seed(0)
    model = build_model(image_size=32, width=4, batch_normalization=normalised)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    expected = cut_outputs(model, pictures)
    found = extract_activations(model, pictures, list(expected))
    assert list(found) == list(expected)
    for name, output in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], output, rtol=1e-4, atol=1e-5, err_msg=name)


def test_default_is_every_feature_map_in_the_order_of_the_model(images):
    keras.utils.set_random_seed(0)
    model = build_model(image_size=16, width=2)
    pictures = np.zeros((1, 16, 16, 3))
    found = extract_activations(model, pictures)
    assert list(found) == [layer.name for layer in model.layers if len(layer.output.shape) == 4][1:]
    assert all(maps.ndim == 4 for maps in found.values())


@pytest.mark.case("arrays and models", "right")
def test_inference_mode_whatever_the_layers():
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.RandomTranslation(0.5, 0.5, name="augmentation"),
        keras.layers.Dropout(0.5, name="dropout"),
    ]
    picture = np.random.default_rng(0).uniform(size=(1, 8, 8, 3)).astype(np.float32)
    for maps in extract_activations(keras.Sequential(layers), picture).values():
        np.testing.assert_array_equal(maps, picture)


@pytest.mark.parametrize("name", ["backbone/inner/conv", "conv", "inner/conv"])
@pytest.mark.case("arrays and models", "right")
def test_nested_layer_by_its_path_or_its_name(pooled_network, images, name):
    model, convolution, _ = pooled_network("nested twice")
    found = extract_activations(model, images, name)
    assert list(found) == ["backbone/inner/conv"]
    np.testing.assert_allclose(found["backbone/inner/conv"], convolution(images), rtol=1e-5)


@pytest.mark.case("arrays and models", "right")
def test_nested_model_is_a_layer_too(pooled_network, images):
    model, convolution, _ = pooled_network("nested")
    found = extract_activations(model, images, ["backbone"])["backbone"]
    np.testing.assert_allclose(found, convolution(images), rtol=1e-5)


@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
@pytest.mark.case("arrays and models", "right")
def test_default_layers_of_other_models(pooled_network, images, kind):
    model, convolution, _ = pooled_network(kind)
    found = extract_activations(model, images)
    assert list(found) == ["conv"]
    np.testing.assert_allclose(found["conv"], convolution(images), rtol=1e-5)


@pytest.mark.case("arrays and models", "right")
def test_layers_without_space_come_as_asked_for_and_in_that_order(pooled_network, images):
    model, convolution, dense = pooled_network()
    found = extract_activations(model, images, ("head", "pooling", "conv"))
    assert list(found) == ["head", "pooling", "conv"]
    np.testing.assert_allclose(
        found["pooling"], convolution(images).numpy().mean((1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(found["head"], dense(found["pooling"]), rtol=1e-5)


def test_many_pictures_equal_one_by_one(pooled_network):
    model = pooled_network()[0]
    count = BATCH_SIZE + 3
    pictures = np.random.default_rng(0).uniform(size=(count, 12, 12, 3)).astype(np.float32)
    whole = extract_activations(model, pictures)["conv"]
    assert len(whole) == count
    for index in (0, BATCH_SIZE - 1, BATCH_SIZE, count - 1):
        single = extract_activations(model, pictures[index])["conv"]  # (H, W, 3)
        np.testing.assert_allclose(whole[index : index + 1], single, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [3, BATCH_SIZE + 1])
def test_activations_can_be_read_only_and_outlive_what_comes_after(pooled_network, count):
    model, *_ = pooled_network()
    images = np.random.default_rng(0).uniform(0, 1, (count, 12, 12, 3)).astype(np.float32)
    maps = extract_activations(model, images)["conv"]
    before = maps.copy()
    assert before.flags.writeable and not maps.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        maps -= 1
    extract_activations(model, 1 - images)
    model.set_weights([2 * weight for weight in model.get_weights()])
    images[:] = 0
    np.testing.assert_array_equal(maps, before)


@pytest.mark.case("arrays and models", "right")
def test_no_pictures_give_empty_arrays(pooled_network, images):
    assert extract_activations(pooled_network()[0], images[:0])["conv"].shape == (0, 5, 5, 6)


@pytest.mark.case("arrays and models", "right")
def test_any_picture_size_where_the_model_takes_any():
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3, name="conv")])
    for height, width in ((8, 8), (9, 11)):
        found = extract_activations(model, np.ones((1, height, width, 3)))
        assert found["conv"].shape == (1, height - 2, width - 2, 2)


def shared_convolution():
    """x -> conv(conv(x)) with one convolution."""
    convolution = keras.layers.Conv2D(3, 3, name="conv", kernel_initializer="random_normal")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, convolution(convolution(inputs))), convolution


@pytest.mark.case("arrays and models", "flagged")
def test_layer_that_is_used_twice_gives_its_last_output_and_a_warning():
    model, _ = shared_convolution()
    picture = np.random.default_rng(0).uniform(size=(1, 8, 8, 3)).astype(np.float32)
    for _ in range(2):  # not only when it is traced
        with pytest.warns(UserWarning, match="'conv' is used 2 times") as told:
            found = extract_activations(model, picture, "conv")["conv"]
        assert told[0].filename == __file__
    np.testing.assert_allclose(found, model.predict(picture, verbose=0), rtol=1e-5)


@pytest.mark.case("arrays and models", "flagged")
def test_layers_that_are_used_twice_are_named_where_none_is_chosen():
    model, _ = shared_convolution()
    picture = np.random.default_rng(0).uniform(size=(1, 8, 8, 3)).astype(np.float32)
    for _ in range(2):  # not only when it is traced
        with pytest.warns(UserWarning, match="several times .*last output .*'conv'") as told:
            found = extract_activations(model, picture)
        assert told[0].filename == __file__
    assert list(found) == ["conv"]
    np.testing.assert_allclose(found["conv"], model.predict(picture, verbose=0), rtol=1e-5)


@pytest.mark.case("arrays and models", "flagged")
def test_layer_that_stands_in_two_nested_models(images):
    relu = keras.layers.ReLU(name="relu")

    def block(name, channels):
        inputs = keras.Input((None, None, channels))
        convolved = keras.layers.Conv2D(4, 3, name=f"conv_{name}")(inputs)
        return keras.Model(inputs, relu(convolved), name=name)

    first, second = block("a", 3), block("b", 4)
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, second(first(inputs)))
    with pytest.warns(UserWarning, match="last output .*'a/relu' .2 times., 'b/relu' .2 times."):
        found = extract_activations(model, images)
    assert set(found) == {"a/conv_a", "a/relu", "b/conv_b", "b/relu"}
    np.testing.assert_allclose(found["b/relu"], second(first(images)), rtol=1e-5)
    assert "call" not in vars(relu)


def two_branches():
    inputs = keras.Input((8, 8, 3))

    def branch(name):
        convolved = keras.layers.Conv2D(2, 3, name="conv")(inputs)
        return keras.Model(inputs, convolved, name=name)(inputs)

    return keras.Model(inputs, keras.layers.Add()([branch("left"), branch("right")]))


@pytest.mark.case("arrays and models", "reported")
def test_bare_name_of_two_layers_is_ambiguous():
    model, picture = two_branches(), np.ones((8, 8, 3))
    with pytest.raises(ValueError, match="ambiguous.*'left/conv', 'right/conv'"):
        extract_activations(model, picture, "conv")
    found = extract_activations(model, picture, ["left/conv", "right/conv"])
    assert not np.allclose(found["left/conv"], found["right/conv"])


@pytest.mark.case("arrays and models", "reported")
def test_unknown_name_is_offered_the_nearest(pooled_network, images):
    with pytest.raises(ValueError, match=r"'pulling'.*'pooling'"):
        extract_activations(pooled_network()[0], images, ["conv", "pulling"])


@pytest.mark.case("arrays and models", "reported")
@pytest.mark.parametrize("layer_names", [3, [3], [None], "", ["conv", ["head"]], b"conv"])
def test_what_is_no_name_is_an_error(pooled_network, images, layer_names):
    with pytest.raises(ValueError, match="`layer_names` .*is no layer of .*nearest"):
        extract_activations(pooled_network()[0], images, layer_names)


class WithUnusedLayer(keras.Model):
    def __init__(self):
        super().__init__()
        self.used, self.unused = (keras.layers.Identity(name=name) for name in ("used", "unused"))

    def call(self, images):
        return self.used(images)


@pytest.mark.case("arrays and models", "reported")
def test_layer_that_is_not_called_is_an_error(images):
    model = WithUnusedLayer()
    model(images)
    assert list(extract_activations(model, images)) == ["used"]
    with pytest.raises(ValueError, match="'unused'. is not used"):
        extract_activations(model, images, "unused")
