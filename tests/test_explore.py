"""The explorer shows what the methods give, follows new weights, and keeps no model alive."""

import functools
import gc
import importlib
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from cnnviz import ascend_filters, explore, extract_activations, grad_cam

module = importlib.import_module("cnnviz.explore")  # the package's name for it is the function's
FAST = {"value_range": (0, 1), "image_size": 12, "steps": 2}
NAMES = "image", "layer", "channel", "heat map", "for class", "signed"


@pytest.fixture
def shown(monkeypatch):
    """The figures that are shown, in order."""
    found = []

    def display(figure, *, display_id):
        found.append(figure)
        return SimpleNamespace(update=found.append)

    monkeypatch.setattr(module, "display", display)
    return found


def network(activation="softmax", units=3):
    """A convolution in a backbone, another one, a head."""
    convolution = functools.partial(keras.layers.Conv2D, kernel_size=3, activation="relu")
    inner = [keras.Input((12, 12, 3)), convolution(4, name="inner")]
    inner = [keras.Input((12, 12, 3)), keras.Sequential(inner, name="backbone")]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(units, activation=activation)]
    return keras.Sequential([*inner, convolution(6, name="outer"), *head])


def titles(figure):
    return [" ".join(axis.get_title("left").split()) for axis in figure.axes[:4]]


@pytest.mark.parametrize(("activation", "units"), [("softmax", 3), (None, 1)])
def test_what_is_shown_is_what_the_methods_give(images, shown, activation, units):
    model, one, layer = network(activation, units), images[2:], "backbone/inner"
    box = explore(model, images, class_names=("cat",), labels=[1, 0, 1], **FAST)
    menus = dict(zip(NAMES, box.children, strict=True))
    classes = ["cat", *(f"class {index}" for index in range(1, max(units, 2)))]
    assert [menu.description for menu in box.children] == list(NAMES)
    assert [title for title, _ in menus["for class"].options] == ["predicted", *classes]
    assert menus["layer"].value == "outer"  # the last convolution
    for menu, value in zip(menus.values(), (2, layer, 1, "hires-cam", 0, True), strict=True):
        menu.value = value
    panels = shown[-1].axes
    maps = extract_activations(model, one, layer)[layer][0, ..., 1]
    excites = ascend_filters(model, layer, 1, **FAST)
    evidence = grad_cam(model, one, class_index=0, method="hires-cam", signed=True)
    np.testing.assert_allclose(panels[0].images[0].get_array(), one[0], atol=1e-6)
    np.testing.assert_allclose(panels[1].images[0].get_array(), maps, rtol=1e-5)
    assert titles(shown[-1]) == [
        "image 2: class 1",
        "backbone/inner, channel 1",
        f"what excites it: {excites.verdicts[0]}, activation {excites.activations[0]:.2g}",
        f"hires-cam: cat, {evidence.verdicts[0]}, score {evidence.scores[0]:+.2f}",
    ]


def test_strongest_channel_is_chosen_and_new_weights_count(images, shown):
    model = network()
    box = explore(model, images, **FAST)
    for factor, image in ((1, 1), (-1, 0)):
        weights = model.get_layer("outer").get_weights()
        model.get_layer("outer").set_weights([factor * weights[0], weights[1] + 0.1])
        box.children[0].value = image
        maps = extract_activations(model, images[image : image + 1], "outer")["outer"][0]
        strongest = maps.mean((0, 1)).argmax()
        assert titles(shown[-1])[1] == f"outer, channel {strongest}"
        drawn = shown[-1].axes[1].images[0].get_array()
        np.testing.assert_allclose(drawn, maps[..., strongest], rtol=1e-5)
    box.children[2].value = 5
    assert titles(shown[-1])[1] == "outer, channel 5"
    box.children[1].value = "backbone/inner"  # has 4
    assert titles(shown[-1])[1] == "backbone/inner, channel 3"


def test_what_goes_wrong_is_said_in_words_and_the_rest_is_shown(images, shown):
    inputs, pooling = keras.Input((12, 12, 3)), keras.layers.GlobalMaxPooling2D(keepdims=True)
    model = keras.Sequential([inputs, keras.layers.Conv2D(4, 3, name="conv"), pooling])
    box = explore(model, images, **FAST)  # has no classes to explain
    assert box.children[1].options == ("conv",) and len(box.children[4].options) == 1
    with pytest.raises(ValueError) as error:
        grad_cam(model, images[:1])
    words = titles(shown[0])[3].removeprefix("grad-cam: ValueError: ").removesuffix(" ...")
    assert len(words) > 70 and str(error.value).startswith(words)
    ranges = [np.ptp(axis.images[0].get_array()) > 0 for axis in shown[0].axes[:4]]
    assert ranges == [True, True, True, False]
    with pytest.raises(ValueError, match="no feature map larger than 1x1"):
        explore(keras.Sequential([inputs, keras.layers.Flatten()]), images)
    with pytest.raises(ValueError, match="must hold one image or more"):
        explore(model, images[:0])


def test_controls_keep_no_model_alive_and_go_with_it(images, shown):
    model = network()
    box = explore(model, images, **FAST)
    box.children[0].value = 1
    found = weakref.ref(model), weakref.ref(box)
    assert box.children[0].comm is not None
    del model, box
    gc.collect()
    assert [one() for one in found] == [None, None]


def test_a_linear_convolution_is_shown_and_climbed_behind_its_relu(images, shown):
    steps = keras.layers.Conv2D(2, 3, name="conv"), keras.layers.ReLU(name="relu")
    pooling, head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((12, 12, 3)), *steps, pooling, head])
    box = explore(model, images, **FAST)
    box.children[1].value, box.children[2].value = "conv", 1
    maps = extract_activations(model, images[:1], "relu")["relu"][0, ..., 1]
    np.testing.assert_allclose(shown[-1].axes[1].images[0].get_array(), maps, rtol=1e-5)
    excites = ascend_filters(model, "relu", 1, **FAST).activations[0]
    assert f"activation {excites:.2g}" in titles(shown[-1])[2]
