"""The architecture of a model: what Keras itself says of it, and how it is drawn."""

import keras
import numpy as np
import pytest

from cnnviz import figures
from cnnviz.layer_shapes import PICTURE, LayerShape, layer_shapes


@pytest.fixture(scope="module")
def mobile_net():
    return keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), alpha=0.35)


def kept(model):
    return [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_shapes_inputs_and_parameters_are_those_of_keras(mobile_net):
    found = {shape.name: shape for shape in layer_shapes(mobile_net)}
    assert set(found) - {PICTURE} == {layer.name for layer in kept(mobile_net)}
    entry = mobile_net.layers[0].name
    for layer in kept(mobile_net):
        shape = found[layer.name]
        assert shape.shape == layer.output.shape[1:]
        assert shape.kind == type(layer).__name__
        before = {node.operation.name for node in layer._inbound_nodes[0].parent_nodes}
        assert set(shape.inputs) == {PICTURE if name == entry else name for name in before}
    assert sum(shape.parameters for shape in found.values()) == mobile_net.count_params()


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


def test_a_layer_of_two_nested_models_is_counted_once_and_takes_in_what_both_give_it():
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    first, second = wrapped(shared, "first"), wrapped(shared, "second")
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooling")(second(first(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(pooled))
    found = {shape.name: shape for shape in layer_shapes(model)}
    assert {name: set(shape.inputs) for name, shape in found.items()} == {
        PICTURE: set(),
        "first/shared": {PICTURE, "first/relu"},
        "first/relu": {"first/shared"},
        "second/relu": {"first/shared"},
        "pooling": {"second/relu"},
        "head": {"pooling"},
    }
    assert sum(shape.parameters for shape in found.values()) == model.count_params()


class Scaled(keras.layers.Layer):
    """A convolution, times a weight of its own for each channel."""

    def __init__(self, **options):
        super().__init__(**options)
        self.convolution = keras.layers.Conv2D(4, 3, name="conv")

    def build(self, shape):
        self.convolution.build(shape)
        self.scale = self.add_weight(shape=(4,), initializer="ones")

    def call(self, images):
        return self.convolution(images) * self.scale


class WithOwnWeight(keras.Model):
    def __init__(self):
        super().__init__(name="whole")
        self.scaled = Scaled(name="scaled")
        self.bias = self.add_weight(shape=(10, 10, 1), initializer="zeros")

    def call(self, images):
        return self.scaled(images) + self.bias


def test_own_weights_of_what_holds_layers_are_counted():
    model = WithOwnWeight()
    model(np.zeros((1, 12, 12, 3), np.float32))
    found = layer_shapes(model, image_size=12)
    assert [(shape.name, shape.inputs, shape.parameters) for shape in found] == [
        (PICTURE, (), 0),
        ("scaled/conv", (PICTURE,), 3 * 3 * 3 * 4 + 4),
        ("scaled", ("scaled/conv",), 4),
        ("whole", ("scaled",), 100),
    ]
    assert sum(shape.parameters for shape in found) == model.count_params()


class Tied(keras.layers.Layer):
    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def call(self, features):
        return features @ self.kernel


def test_one_weight_of_two_layers_is_counted_once():
    dense = keras.layers.Dense(3)
    inputs = keras.Input((4, 4, 3))
    features = dense(inputs)
    model = keras.Model(inputs, Tied(dense.kernel)(features))
    assert [shape.parameters for shape in layer_shapes(model)] == [0, 12, 0]
    assert model.count_params() == 12


def test_free_size_is_chosen_and_checked(color_model):
    assert layer_shapes(color_model, image_size=20)[1].shape == (20, 20, 2)
    assert layer_shapes(color_model)[1].shape == (96, 96, 2)
    with pytest.raises(ValueError, match="`image_size` \\(=0\\)"):
        layer_shapes(color_model, image_size=0)


def residual():
    """A picture, two convolutions of which the first is added again past an activation, a head."""
    return [
        LayerShape("picture", "Input", (16, 16, 3), (), 0),
        LayerShape("first", "Conv2D", (8, 8, 16), ("picture",), 448),
        LayerShape("norm", "BatchNormalization", (8, 8, 16), ("first",), 64),
        LayerShape("body/second", "Conv2D", (8, 8, 16), ("norm",), 2320),
        LayerShape("sum", "Add", (8, 8, 16), ("norm", "body/second"), 0),
        LayerShape("pool", "GlobalAveragePooling2D", (16,), ("sum",), 0),
        LayerShape("head", "Dense", (5,), ("pool",), 85),
    ]


def test_names_sizes_and_channels_can_be_read():
    figure = figures.draw_architecture(residual())
    shown = texts(figure)
    assert {"picture", "first", "second", "sum", "pool", "head"} < set(shown)
    assert "norm" not in shown
    assert [text for text in shown if "x" in text and text[0].isdigit()] == ["16x16", "8x8"]
    assert [text for text in shown if text.isdigit()] == ["3", "16", "16", "16", "5"]
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"2 convolutions", "1 addition", "1 pooling", "1 dense layer"}
    assert "2,917 parameters" in figure.axes[0].get_title(loc="left")


def slabs(figure):
    return {round(slab.get_x() + slab.get_width() / 2, 6): slab for slab in figure.axes[0].patches}


def test_slabs_are_as_high_as_sizes_and_skips_begin_where_they_come_from():
    shapes = residual()
    figure = figures.draw_architecture(shapes)
    places = {text.get_text(): round(text.get_position()[0], 6) for text in figure.axes[0].texts}
    found = slabs(figure)
    heights = [found[places[name]].get_height() for name in ("picture", "first", "second")]
    assert np.allclose(np.square(heights) / heights[0] ** 2, [1, 1 / 2, 1 / 2])
    widths = [found[places[name]].get_width() for name in ("picture", "first", "head")]
    assert widths[0] < widths[2] < widths[1]
    skips = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    (skip,) = skips
    assert abs(skip.get_xdata()[0] - places["first"]) < 0.2
    assert abs(skip.get_xdata()[-1] - places["sum"]) < 0.2
    assert max(skip.get_ydata()) > heights[1] / 2
    plain = [shape for shape in shapes if shape.kind != "Add"]
    assert not [
        x for x in figures.draw_architecture(plain).axes[0].lines if len(x.get_xdata()) == 4
    ]


def test_layers_that_are_used_again_are_drawn():
    """A layer may then come before itself, and after what takes it in."""
    shapes = residual()
    again = LayerShape("norm", "BatchNormalization", (8, 8, 16), ("first", "act"), 64)
    between = LayerShape("act", "ReLU", (8, 8, 16), ("norm",), 0)
    figure = figures.draw_architecture([*shapes[:2], again, between, *shapes[3:]])
    skips = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(skips) == 1
    late = LayerShape("act", "ReLU", (8, 8, 16), ("first", "last", "later"), 0)
    last = [LayerShape(name, "Conv2D", (8, 8, 16), ("sum",), 9) for name in ("last", "later")]
    plus = LayerShape("sum", "Add", (8, 8, 16), ("act", "last", "body/second"), 0)
    figure = figures.draw_architecture([*shapes[:2], shapes[3], plus, late, *last])
    assert "sum" in texts(figure)


def test_many_layers_are_told_by_size(mobile_net):
    shapes = layer_shapes(mobile_net)
    figure = figures.draw_architecture(shapes)
    convolutions = [layer for layer in kept(mobile_net) if "Conv" in type(layer).__name__]
    sizes = list(dict.fromkeys(layer.output.shape[1:3] for layer in convolutions))
    shown = texts(figure)
    for height, width in sizes:
        of_size = [layer for layer in convolutions if layer.output.shape[1:3] == (height, width)]
        row = shown[len(shown) - shown[::-1].index(f"{height}x{width}") - 1 :][:4]
        assert row[2].startswith(f"{len(of_size)} convolution")
        assert row[3].startswith(of_size[0].name)
        channels = [layer.output.shape[-1] for layer in of_size]
        assert row[1] == f"{min(channels)} to {max(channels)} channels"
    additions = sum(isinstance(layer, keras.layers.Add) for layer in kept(mobile_net))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == additions > 0
    assert f"{len(convolutions)} convolutions and {additions} additions" in figure.alt


def test_squeezed_maps_between_larger_ones_make_no_size_of_their_own():
    shapes = residual()
    squeezed = LayerShape("squeeze", "Conv2D", (1, 1, 4), ("first",), 68)
    figure = figures.draw_architecture([*shapes[:3], squeezed, *shapes[3:]])
    assert "1x1" not in texts(figure) and texts(figure).count("8x8") == 1
