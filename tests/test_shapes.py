"""The architecture of a model: shapes and parameters are what Keras itself says."""

import keras
import pytest

from cnnviz.layers.shapes import layer_shapes


def test_shapes_and_parameters_are_those_of_keras():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), alpha=0.35)
    found = {shape.name: shape for shape in layer_shapes(model)}
    kept = model.layers[1:]
    assert set(found) == {"image", *(layer.name for layer in kept)}
    for layer in kept:
        shape = found[layer.name]
        assert shape.shape == layer.output.shape[1:]
        assert shape.kind == type(layer).__name__
    assert sum(shape.parameters for shape in found.values()) == model.count_params()


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed", "nested twice"])
def test_every_kind_of_model(pooled_network, kind):
    model, convolution, dense = pooled_network(kind)
    found = layer_shapes(model, image_size=12)
    assert [shape.shape for shape in found] == [(12, 12, 3), (5, 5, 6), (6,), (4,)]
    assert [shape.name.rsplit("/")[-1] for shape in found[1:]] == ["conv", "pooling", "head"]
    assert found[1].parameters == convolution.count_params()


def test_a_layer_of_two_nested_models_is_listed_once():
    shared, inputs = (
        keras.layers.Conv2D(3, 3, padding="same", name="shared"),
        keras.Input((8, 8, 3)),
    )
    first, second = (keras.Model(inputs, shared(inputs), name=name) for name in ("first", "second"))
    model = keras.Model(inputs, keras.layers.ReLU(name="relu")(second(first(inputs))))
    assert [shape.name for shape in layer_shapes(model)] == ["image", "first/shared", "relu"]


def test_free_size_is_chosen_and_checked(color_model):
    assert layer_shapes(color_model, image_size=20)[1].shape == (20, 20, 2)
    assert layer_shapes(color_model)[1].shape == (96, 96, 2)
    with pytest.raises(ValueError, match="`image_size` \\(=0\\)"):
        layer_shapes(color_model, image_size=0)
