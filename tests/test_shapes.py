"""The architecture of a model: shapes, inputs and parameters are what Keras itself says."""

import keras
import pytest

from cnnviz.layers.shapes import IMAGE, layer_shapes


def test_shapes_inputs_and_parameters_are_those_of_keras():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), alpha=0.35)
    found = {shape.name: shape for shape in layer_shapes(model)}
    entry, *kept = model.layers
    assert set(found) == {IMAGE, *(layer.name for layer in kept)}
    for layer in kept:
        shape = found[layer.name]
        assert shape.shape == layer.output.shape[1:]
        assert shape.kind == type(layer).__name__
        before = {node.operation.name for node in layer._inbound_nodes[0].parent_nodes}
        assert set(shape.inputs) == {IMAGE if name == entry.name else name for name in before}
    assert sum(shape.parameters for shape in found.values()) == model.count_params()


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed", "nested twice"])
def test_every_kind_of_model(pooled_network, kind):
    model, convolution, dense = pooled_network(kind)
    found = layer_shapes(model, image_size=12)
    assert [shape.shape for shape in found] == [(12, 12, 3), (5, 5, 6), (6,), (4,)]
    assert [shape.name.rsplit("/")[-1] for shape in found[1:]] == ["conv", "pooling", "head"]
    assert [shape.inputs for shape in found[1:]] == [(shape.name,) for shape in found[:-1]]
    assert found[1].parameters == convolution.count_params()


def wrapped(layer, name):
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, keras.layers.ReLU(name="relu")(layer(inputs)), name=name)


def test_a_layer_of_two_nested_models_is_listed_once_and_takes_in_what_both_give_it():
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    first, second = wrapped(shared, "first"), wrapped(shared, "second")
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooling")(second(first(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(pooled))
    found = {shape.name: shape for shape in layer_shapes(model)}
    assert {name: set(shape.inputs) for name, shape in found.items()} == {
        IMAGE: set(),
        "first/shared": {IMAGE, "first/relu"},
        "first/relu": {"first/shared"},
        "second/relu": {"first/shared"},
        "pooling": {"second/relu"},
        "head": {"pooling"},
    }
    assert sum(shape.parameters for shape in found.values()) == model.count_params()


def test_free_size_is_chosen_and_checked(color_model):
    assert layer_shapes(color_model, image_size=20)[1].shape == (20, 20, 2)
    assert layer_shapes(color_model)[1].shape == (96, 96, 2)
    with pytest.raises(ValueError, match="`image_size` \\(=0\\)"):
        layer_shapes(color_model, image_size=0)
