"""The explorer shows what the three methods give, computes nothing twice, lives in JupyterLab."""

import base64
import importlib
import io
import re
import subprocess
import sys

import keras
import nbformat
import numpy as np
import PIL.Image
import pytest
from ipywidgets.widgets.widget import _instances as ALL_WIDGETS
from jupyter_lab import TOKEN, open_browser, open_lab

from cnnviz import ascend_filters, class_probabilities, explore, extract_activations, grad_cam

module = importlib.import_module("cnnviz.explore")  # the package's name for it is the function's
FAST = {"value_range": (0, 1), "image_size": 12, "steps": 2}


@pytest.fixture(scope="module")
def free_network():
    """Of free size, one logit, nested: a convolution in a backbone, another one, a head."""
    inputs = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu", name="inner")(inputs)
    backbone = keras.Model(inputs, features, name="backbone")
    images = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(6, 3, activation="relu", name="outer")(backbone(images))
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    return keras.Model(images, keras.layers.Dense(1)(pooled))


@pytest.fixture
def network(request, pooled_network, free_network):
    if request.param == "free size, nested, one logit":
        return free_network, "backbone/inner"
    return pooled_network("sequential", "softmax")[0], "conv"


KINDS = ["free size, nested, one logit", "fixed size, sequential, softmax"]


@pytest.mark.parametrize("network", KINDS, indirect=True)
def test_what_is_shown_is_what_the_methods_give(network, images):
    model, layer = network
    explorer = explore(model, images, class_names=("cat",), **FAST)
    explorer.layer.value = layer
    explorer.channel.value = 1
    explorer.picture.value = 2
    explorer.method.value = "layer-cam"

    one = images[2:]
    feature_map = extract_activations(model, one, layer)[layer][0, ..., 1]
    ascended = ascend_filters(model, layer, 1, **FAST)
    evidence = grad_cam(model, one, method="layer-cam")
    np.testing.assert_array_equal(explorer.feature_map, feature_map)
    np.testing.assert_array_equal(explorer.ascended.images, ascended.images)
    np.testing.assert_array_equal(explorer.evidence.maps, evidence.maps)

    panels = explorer.figure.axes[:4]
    np.testing.assert_allclose(panels[0].images[0].get_array(), one[0], atol=1e-6)
    np.testing.assert_array_equal(panels[1].images[0].get_array(), feature_map)
    if ascended.verdicts[0] == "ok":
        np.testing.assert_allclose(panels[2].images[0].get_array(), ascended.images[0], atol=1e-6)
    titles = [panel.get_title(loc="left").replace("\n", " ") for panel in panels]
    probabilities = class_probabilities(model, one)[0]
    names = ["cat", *(f"class {index}" for index in range(1, len(probabilities)))]
    answer = f"{names[probabilities.argmax()]} {probabilities.max():.1%}"
    assert titles[0] == f"picture 2: {answer}"
    assert titles[1] == f"{layer}, channel 1, {len(feature_map)}x{len(feature_map)}"
    assert titles[3].startswith(f"layer-cam for {names[probabilities.argmax()]}")
    assert explorer.message.value == ""


def test_nothing_is_computed_twice_or_unasked(free_network, images, monkeypatch):
    calls = []

    def counted(function):
        def count(*args, **kwargs):
            calls.append(function.__name__)
            return function(*args, **kwargs)

        return count

    for function in (ascend_filters, grad_cam, extract_activations):
        monkeypatch.setattr(module, function.__name__, counted(function))

    def computed(control, value):
        calls.clear()
        control.value = value
        return sorted(calls)

    explorer = explore(free_network, images, **FAST)
    first = explorer.channel.value
    assert sorted(calls) == ["ascend_filters", "extract_activations", "grad_cam"]
    assert computed(explorer.channel, (first + 1) % 6) == ["ascend_filters"]
    assert computed(explorer.channel, first) == []
    assert computed(explorer.method, "fine") == ["grad_cam"]
    assert computed(explorer.method, "grad-cam") == []
    assert computed(explorer.picture, 1) == ["extract_activations", "grad_cam"]
    assert computed(explorer.layer, "backbone/inner") == ["ascend_filters"]


def test_new_layer_offers_its_channels_and_begins_with_the_strongest(free_network, images):
    explorer = explore(free_network, images, **FAST)
    assert explorer.layer.value == "outer" and explorer.channel.max == 5  # the last convolution
    for layer in ("backbone/inner", "outer"):
        explorer.layer.value = layer
        maps = extract_activations(free_network, images[:1], layer)[layer][0]
        assert explorer.channel.max == maps.shape[-1] - 1
        assert explorer.channel.value == maps.mean((0, 1)).argmax()


def test_only_layers_that_can_be_looked_at_are_offered(images):
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.ReLU(name="relu"),
            keras.layers.GlobalAveragePooling2D(keepdims=True),
            keras.layers.Conv2D(3, 1),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    explorer = explore(model, images, **FAST)
    assert explorer.layer.options == ("conv", "relu")
    explorer.layer.value = "relu"
    assert explorer.message.value == ""
    flat = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="no feature map larger than 1x1"):
        explore(flat, images)
    with pytest.raises(ValueError, match="one picture or more"):
        explore(model, images[:0])


def test_what_goes_wrong_is_said_in_words_and_the_rest_is_shown(images):
    model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    explorer = explore(model, images, **FAST)  # has no classes to explain
    with pytest.raises(ValueError) as error:
        grad_cam(model, images[:1])
    words = f"ValueError: {error.value}"
    assert explorer.evidence == words
    assert explorer.message.value.replace("&#x27;", "'") == words
    drawn = explorer.figure.axes[3].texts[0].get_text()
    assert words.startswith(" ".join(drawn.split()).removesuffix(" [...]"))
    np.testing.assert_array_equal(
        explorer.figure.axes[1].images[0].get_array(), explorer.feature_map
    )


def test_a_dead_page_gets_the_figure_and_a_live_one_the_controls(free_network, images, monkeypatch):
    shown = []
    monkeypatch.setattr(module, "display", lambda data, **options: shown.append((data, options)))
    explorer = explore(free_network, images, **FAST)
    explorer._ipython_display_()
    (static, options), (live, _) = shown
    first = pixels_of(static["image/png"])
    assert first.shape[1] > 2 * first.shape[0]
    assert "Channel" in options["metadata"]["image/png"]["alt"]

    box = ALL_WIDGETS[live["application/vnd.jupyter.widget-view+json"]["model_id"]]
    assert box.children == ()  # a dead page gets no dead controls
    box._view_count = 1  # as a page says when it has drawn it
    assert explorer.layer in box.children[0].children
    np.testing.assert_array_equal(picture_in(box), first)
    explorer.layer.value = "backbone/inner"
    after = picture_in(box)
    assert after.shape != first.shape or (after != first).any()


def picture_in(box):
    """The pixels of the picture that a box of widgets shows."""
    (source,) = re.findall('src="data:image/png;base64,([^"]+)"', box.children[-1].value)
    return pixels_of(source)


def pixels_of(png):
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(png))))


NOTEBOOK = """import cnnviz
images = cnnviz.drawn_pets(2, image_size=64).images
cnnviz.explore(cnnviz.load_pretrained(), images, class_names=cnnviz.CLASS_NAMES, steps=4)"""
SEEN = """[...document.querySelectorAll('.jp-OutputArea img')]
    .filter(image => image.checkVisibility() && image.width > 300).length"""
LIVE = "document.querySelector('.cnnviz-explorer img')"
CONTROLS = "[...document.querySelectorAll('.cnnviz-explorer select')].map(s => s.value)"


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_in_a_real_jupyter_lab(tmp_path, theme):
    """Needs Chromium; under `tmp_path` it leaves screenshots."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "explore.ipynb")
    with open_browser(tmp_path / "chromium") as page, open_lab(tmp_path, theme) as address:
        page.open_notebook(f"{address}/lab/tree/explore.ipynb?token={TOKEN}")
        page.js("void jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait(f"!!{LIVE}?.width")
        assert page.js(SEEN) == 1  # the copy for dead pages is hidden
        first = page.js(f"{LIVE}.src")
        assert page.js(CONTROLS) == ["0", "block4_conv3", "grad-cam"]
        page.screenshot(tmp_path / "before.png")
        page.choose(1, "block2_conv2")
        page.wait(f"{LIVE}.src != {first!r}")
        assert page.js(CONTROLS) == ["0", "block2_conv2", "grad-cam"]
        page.resize(640, 900)
        page.screenshot(tmp_path / "half.png")
        page.wait(f"{LIVE}.width > 300 && {LIVE}.getBoundingClientRect().right <= 640")

        page.js("jupyterapp.commands.execute('docmanager:save').then(() => 1)")
        page.send("Page.reload")
        page.wait(f"!window.jupyterapp || !{LIVE}")
        page.wait(f"!!{LIVE}?.width")
        assert page.js(SEEN) == 1
        again = page.js(f"{LIVE}.src")
        page.choose(2, "fine")
        page.wait(f"{LIVE}.src != {again!r}")

        static_page = tmp_path / "explore.html"
        convert(tmp_path / "explore.ipynb", static_page)
        page.send("Page.navigate", url=static_page.as_uri())
        page.wait("document.readyState == 'complete'")
        assert page.js(SEEN) == 1


@pytest.mark.slow
def test_page_made_without_a_browser_shows_the_figure(tmp_path):
    """Executed by nbconvert the state of the widgets is stored too; no dead controls show."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    nbformat.write(notebook, tmp_path / "explore.ipynb")
    executed = tmp_path / "executed.ipynb"
    convert(tmp_path / "explore.ipynb", executed, "--execute", "--to", "notebook")
    static, live = nbformat.read(executed, as_version=4).cells[0].outputs
    assert "image/png" in static.data and live.data["text/plain"] == ""
    page = convert(executed, tmp_path / "page.html").read_text()
    assert page.count("<img") == 1 and page.count(static.data["image/png"].strip()[:100]) == 1


def convert(notebook, target, *options):
    command = [sys.executable, "-m", "nbconvert", *(options or ("--to", "html")), str(notebook)]
    subprocess.run([*command, "--output", str(target)], check=True, capture_output=True)
    return target
