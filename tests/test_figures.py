"""Figures: they show the numbers given, say what is empty, and leave the person's style alone."""

import itertools
from types import SimpleNamespace as Result

import matplotlib
import matplotlib.pyplot as plt
import nbclient
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from nbformat.v4 import new_code_cell, new_notebook

from cnnviz import figures
from cnnviz.figures.heat_maps import TRUST_TITLES, overlay
from cnnviz.layers.shapes import LayerShape

RNG = np.random.default_rng(0)
PETS = ("cat", "dog")
# Edges, shares, confidences and accuracies; the first bin holds no image.
BINS = tuple(map(np.array, ([0, 0.5, 0.75, 1], [0, 0.25, 0.75], [0, 0.6, 0.9], [0, 0.4, 1.0])))
HISTORY = {
    "loss": [0.7, 0.5, 0.4],
    "val_loss": [0.65, 0.45, np.nan],
    "accuracy": [0.5, 0.7, 0.8],
    "val_accuracy": [0.55, 0.875, 0.75],
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def pixels(count=2, height=12, width=12):
    return RNG.uniform(0, 255, (count, height, width, 3)).astype(np.float32)


def heat(count=2, class_index=0, maps=None, verdict="ok"):
    found = {"class_index": np.full(count, class_index), "verdicts": (verdict,) * count}
    found["maps"] = RNG.uniform(0, 2, (count, 6, 6)).astype(np.float32) if maps is None else maps
    found["scores"] = np.linspace(-3.25, 1.5, count)
    return Result(**found, layer_name="block4/add3", method="grad-cam")


def filter_images(verdicts=("ok", "dead", "ok", "no gain"), value_range=(0, 255)):
    count, found = len(verdicts), {"layer_name": "conv", "value_range": value_range}
    found |= {"images": pixels(count), "filters": np.arange(count) * 7, "verdicts": verdicts}
    before, after = np.full(count, 0.25), np.arange(count) + 2.0
    return Result(**found, activations=after, start_activations=before)


def patches(filters=(0, 7, 14)):
    found = {"patches": pixels(2 * len(filters), 9, 7).reshape(-1, 2, 9, 7, 3)}
    found["activations"] = np.linspace(9, 1, 2 * len(filters)).reshape(-1, 2)
    return Result(**found, filters=np.array(filters), layer_name="conv")


def census(name="block{}_conv1"):
    verdicts = ("ok",) * 6 + ("never fires", "never fires", "same everywhere", "copy of 2")
    layers = [Result(layer_name=name.format(i), verdicts=verdicts) for i in range(3)]
    return Result(layers=layers, n_images=1200)


def mistakes(count=2, neighbors=1):
    evidence = heat(count), heat(count, 1, verdict="zero gradient")
    return Result(
        images=pixels(count),
        labels=np.zeros(count, int),
        probabilities=np.tile([0.031, 0.969], (count, 1)),
        evidence=evidence if count else None,
        neighbors=RNG.uniform(0, 255, (count, neighbors, 12, 12, 3)),
        neighbor_labels=np.ones((count, neighbors), int),
        similarity=np.full((count, neighbors), 0.87),
    )


def changes(n_images=2):
    after = np.eye(2)[[1] + [0] * (n_images - 1)]
    return Result(
        layer_names=("body/conv2", "body/conv3", "logit"),
        weights=np.array([0.0, 0.25, 0.0]),
        activations=np.array([0.0, 0.5, np.nan]),
        probabilities=(np.eye(2)[[0] * n_images], after),
        maps=(heat(n_images), heat(n_images)),
        images=pixels(n_images),
        class_names=PETS,
        value_range=None,
    )


ORDER = {"ranking": np.array([2, 0, 1]), "labels": [1, 0, 3], "given": [0.25, 0.9, 0.031]}
SUSPECTS = Result(images=pixels(2), class_names=PETS, **ORDER)
MEASURES = dict.fromkeys(TRUST_TITLES, np.array([0.91, 0.5, np.nan]))
TRUST = Result(methods=("fine", "random", "center"), **MEASURES)
SHAPES = [
    LayerShape("image", "Input", (16, 16, 3), (), 0),
    LayerShape("first", "Conv2D", (8, 8, 16), ("image",), 448),
    LayerShape("norm", "BatchNormalization", (8, 8, 16), ("first",), 64),
    LayerShape("squeeze", "Conv2D", (1, 1, 4), ("first",), 0),
    LayerShape("body/second", "Conv2D", (8, 8, 16), ("norm",), 2320),
    LayerShape("sum", "Add", (8, 8, 16), ("norm", "body/second"), 0),
    LayerShape("pool", "GlobalAveragePooling2D", (16,), ("sum",), 0),
    LayerShape("head", "Dense", (5,), ("pool",), 85),
]
DRAWINGS = {
    "images": lambda: figures.draw_images(pixels(7), list("abcdefg")),
    "images of several sizes": lambda: figures.draw_images([pixels(1, 9)[0], pixels(1, 20)[0]]),
    "curves": lambda: figures.draw_learning_curves(HISTORY),
    "confusion": lambda: figures.draw_confusion_matrix([0, 1, 1], [0, 1, 0], PETS),
    "calibration": lambda: figures.draw_calibration(BINS, 0.04),
    "activations": lambda: figures.draw_activations(RNG.normal(size=(4, 5, 60)), "conv"),
    "one silent channel": lambda: figures.draw_activations(np.zeros((8, 8, 1)), "conv"),
    "filters": lambda: figures.draw_filters(filter_images()),
    "patches": lambda: figures.draw_patches(patches(), ascended=filter_images()),
    "evidence": lambda: figures.draw_heat_maps(pixels(), [heat(), heat(class_index=1)], PETS),
    "census": lambda: figures.draw_census(census()),
    "mistakes": lambda: figures.draw_mistakes(mistakes(), PETS),
    "no mistakes": lambda: figures.draw_mistakes(mistakes(0)),
    "suspects": lambda: figures.draw_suspects(SUSPECTS),
    "changes": lambda: figures.draw_changes(changes()),
    "architecture": lambda: figures.draw_architecture(SHAPES),
    "trust": lambda: figures.draw_map_trust(TRUST),
}


def texts(figure):
    """All that is written in a figure, line breaks as spaces."""
    found = figure.findobj(matplotlib.text.Text)
    return " | ".join(" ".join(text.get_text().split()) for text in found if text.get_text())


def shown(axis):
    return np.asarray(axis.get_images()[0].get_array())


def titles(figure):
    return [" ".join(axis.get_title("left").split()) for axis in figure.axes]


# every figure


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_every_figure_can_be_read_and_leaves_the_style_as_it_was(draw):
    with plt.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        figure = draw()
        assert dict(matplotlib.rcParams) == before
        assert plt.get_fignums() == [figure.number] and figure.alt
    scale = min(figure.dpi, 640 / figure.get_figwidth())  # pixels an inch, on a narrow page
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text().strip():
            assert text.get_fontsize() / 72 * scale >= 8, text.get_text()
            on_data = any(text in axis.texts for axis in figure.axes)
            assert on_data or max(to_rgb(text.get_color())) < 0.5, text.get_text()


def test_figure_is_black_on_white_under_a_dark_style(tmp_path):
    with plt.style.context("dark_background"):
        figure = figures.draw_calibration(BINS, 0.04)
        figure.savefig(tmp_path / "a.png", dpi=40)
        figure.canvas.draw()  # as a window does
    saved = plt.imread(tmp_path / "a.png")[..., :3]
    for image in (saved, np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255):
        assert (image[[0, 0, -1, -1], [0, -1, 0, -1]] == 1).all() and image.min() < 0.3
    ticks = figure.axes[0].get_xticklabels()
    assert {to_rgb(tick.get_color()) for tick in ticks} == {(0, 0, 0)}


CELLS = {  # code: the texts of the figures that it shows
    "import numpy as np\nfrom cnnviz import figures\nx = np.zeros((1, 8, 8, 3))": [],
    "figures.draw_images(x, ['last'])": ["last"],
    "for t in 'abc':\n    figures.draw_images(x, [t])": ["a", "b", "c"],
    "f = figures.draw_images(x, ['middle'])\nprint()": ["middle"],
    "f": ["middle"],
    "display(f)\nprint()": ["middle"],
    "import matplotlib.pyplot as plt\nf = figures.draw_images(x, ['p'])\nplt.show()": ["p"],
    "h = display(f, display_id=True)\nh.update(figures.draw_images(x, ['new']))": ["new"],
    "len(figures.figure_html(figures.draw_images(x, ['<html>'])))": [],
}


def test_figures_appear_once_in_a_notebook_wherever_they_are_made():
    notebook = new_notebook(cells=[new_code_cell(code) for code in CELLS])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell, expected in zip(notebook.cells, CELLS.values(), strict=True):
        outputs = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert [one.metadata["image/png"]["alt"] for one in outputs] == expected, cell.source


def test_a_figure_describes_itself_and_its_html_escapes_that():
    assert figures.draw_learning_curves(HISTORY).alt == (
        "loss (cross-entropy, nats), best in validation 0.45; accuracy (%), best in validation "
        "87.5%; epoch"
    )
    figure = figures.draw_images(pixels(1), ['a "b" <c>'])
    html = figures.figure_html(figure)
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in html and "data:image/png;base64,iVBOR" in html
    assert figure.number not in plt.get_fignums()


def test_arrays_given_are_not_altered():
    maps, evidence, ascended, found = RNG.normal(size=(5, 5, 9)), heat(), filter_images(), patches()
    found.activations[0, 1] = 0
    arrays = [maps, evidence.maps, ascended.images, found.patches]
    for array in arrays:
        array.flags.writeable = False
    figures.draw_activations(maps, "conv")
    figures.draw_heat_maps(ascended.images[:2], evidence)
    figures.draw_patches(found, ascended=ascended)


# names


@pytest.mark.parametrize("name", ["$5_^{", "a\nb", "\udcff.jpg", "x" * 300, "_é Ω", "%s {} <b>"])
def test_names_may_hold_any_character(name, tmp_path):
    drawn = [
        figures.draw_images(pixels(1), [name]),
        figures.draw_heat_maps(pixels(1), heat(1), [name], titles=[name]),
        figures.draw_confusion_matrix([0, 1, 2], [0, 1, 2], [name] * 3),
        figures.draw_census(census(name.replace("{", "{{").replace("}", "}}"))),
        figures.draw_architecture([SHAPES[0], LayerShape(name, "Conv2D", (8, 8, 2), (), 0)]),
    ]
    for figure in drawn:
        figure.savefig(tmp_path / "a.png", dpi=30)
        figure.alt.encode()
    if name == "$5_^{":
        assert all(name in texts(figure) for figure in drawn)


def test_long_titles_do_not_run_into_one_another():
    long = ["an image with a long title that cannot stand in one line"] * 2
    figure = figures.draw_heat_maps(pixels(), [heat(), heat()], ("golden_retriever",), titles=long)
    figure.draw_without_rendering()
    for row in np.reshape(figure.axes[:10], (2, 5)):
        boxes = [axis._left_title.get_window_extent() for axis in row]
        assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))


def test_census_keeps_readable_bars_beside_long_names():
    figure = figures.draw_census(census("sequential_1/mobilenetv2_0.35_224/block_{}_" + "x" * 40))
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().width > 0.6
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[1].startswith("block_1_") and labels[1].endswith("xxx")


def test_classes_without_a_name_are_numbered():
    assert figures.class_name(PETS, 2) == "class 2" == figures.class_name(None, 2)
    assert "class 1, 0.87 alike" in texts(figures.draw_mistakes(mistakes(), ("cat",)))
    figure = figures.draw_confusion_matrix([0, 1, 2, 2], [0, 2, 2, 1], PETS)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [*PETS, "class 2"]


# images


RANGES = "0 1 0 1, .2 .5 0 1, -1 1 -1 1, -.1 .3 -1 1, 0 255 0 255, 3 80 0 255, -2 2.5 -2 2.5"
RANGES += ", 300 700 300 700, 7 7 0 255, 0 0 0 1, 300 300 299 301"


@pytest.mark.parametrize("values", RANGES.split(", "))
def test_value_range_is_found(values):
    low, high, black, white = map(float, values.split())
    images = np.linspace(low, high, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    unit = (images - black) / (white - black)
    for axis, expected in zip(figures.draw_images(images).axes, unit, strict=True):
        np.testing.assert_allclose(shown(axis), expected, atol=1e-5)
    given = figures.draw_images(images, value_range=(low - 1, high + 1))
    np.testing.assert_allclose(shown(given.axes[0])[0, 0, 0], 1 / (high - low + 2), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels_are_drawn(channels):
    images = RNG.uniform(0, 1, (2, 9, 7, channels)).astype(np.float32)
    expected = {1: images.repeat(3, -1), 2: np.pad(images, [(0, 0)] * 3 + [(0, 1)])}
    expected = expected.get(channels, images[..., :3])
    for figure in (figures.draw_images(images), figures.draw_heat_maps(images[:1], heat(1))):
        np.testing.assert_allclose(shown(figure.axes[0]), expected[0], atol=1e-6)
    gray = images[0, ..., 0]  # an image without channels
    np.testing.assert_allclose(shown(figures.draw_images([gray]).axes[0])[..., 2], gray, atol=1e-6)


def test_images_stand_in_rows_with_their_titles():
    figure = figures.draw_images(pixels(8), list("abcdefgh"))
    assert titles(figure) == [*"abcdefgh", *[""] * 4]
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 6)
    assert len(figures.draw_images(np.zeros((8, 8, 3))).axes) == 1  # one, without a batch


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.draw_activations(np.zeros((1, 8, 8, 4)), "a"), r"`maps` \(of shape \(1,"),
        (lambda: figures.draw_images(np.zeros((6, 28, 28))), r"`images` \(of shape \(6, 28, 28\)"),
        (lambda: figures.draw_images([]), "equally many, 1 or more"),
        (lambda: figures.draw_images(pixels(2), ["one"]), "equally many"),
        (lambda: figures.draw_heat_maps(pixels(3), heat(2)), "equally many"),
        (lambda: figures.draw_confusion_matrix([], []), r"`labels` \(=\[\]\) .* must be"),
        (lambda: figures.draw_confusion_matrix([0, 0.5], [0, 1]), "`labels` .* must be"),
        (lambda: figures.draw_confusion_matrix([0, -1], [0, 1]), r"`labels` \(=\[0, -1\]\)"),
        (lambda: figures.draw_confusion_matrix([0, 1], [0]), "`predicted` .* must be"),
        (lambda: figures.draw_patches(patches((8,)), ascended=filter_images()), "must hold"),
    ],
)
def test_what_does_not_fit_is_told(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
    assert plt.get_fignums() == []


# activations and filters


def scale(figure):
    return figure.axes[0].get_images()[0].get_clim()


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_strongest_channels_are_shown_on_one_scale():
    maps = np.zeros((4, 5, 6), np.float32)
    maps[..., 1], maps[..., 3], maps[1, 1, 4] = 1.0, 4.0, 2.0
    maps[2, 2, 5] = np.nan
    figure = figures.draw_activations(np.pad(maps, [(0, 0), (0, 0), (0, 50)]), "block2")
    assert labels(figure)[:4] == ["3", "4", "1", "0"] and len(labels(figure)) == 48
    tiles = [image.get_array() for image in figure.axes[0].get_images()]
    for tile, channel in zip(tiles, (3, 4, 1), strict=False):
        np.testing.assert_array_equal(tile, maps[..., channel])
    assert {image.get_clim() for image in figure.axes[0].get_images()} == {(0, 4)}
    assert figure.axes[1].get_ylabel() == "activation"
    words = "block2: the 48 strongest of 56 channels of 4x5; 53 nowhere above 0 on this image"
    assert titles(figure)[0] == words
    figures.draw_activations(np.full((4, 4, 2), np.inf), "conv").canvas.draw()


def test_few_extreme_activations_do_not_leave_the_rest_dark_and_few_above_0_are_seen():
    maps = RNG.uniform(0.5, 1, (40, 40, 4))
    maps[0, 0, 0] = 1e6
    assert scale(figures.draw_activations(maps, "conv"))[1] < 2
    maps = np.zeros((40, 40, 4))
    maps[3, 3, 0] = 5.0
    assert scale(figures.draw_activations(maps, "conv")) == (0, 5)
    assert scale(figures.draw_activations(maps - 7, "conv")) == (-7, 0)


def test_filters_that_show_something_stand_with_their_indices_the_strongest_first():
    found = filter_images()
    figure = figures.draw_filters(found)
    assert labels(figure) == ["14", "0"]
    tile = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(tile, found.images[2] / 255, atol=1e-6)
    assert titles(figure)[0] == (
        "conv: the 2 strongest of 4 filters; median activation 0.25 on noise, 3.5 on these images; "
        "1 dead; 1 no gain"
    )
    dead = figures.draw_filters(filter_images(("dead",)))
    assert labels(dead) == ["0 dead"] and np.ptp(shown(dead.axes[0])) == 0
    unit = filter_images(("ok",), value_range=(-255, 255))
    np.testing.assert_allclose(shown(figures.draw_filters(unit).axes[0]).min(), 0.5, atol=0.05)


def test_patches_stand_in_rows_by_filter_with_their_activations():
    found, ascended = patches(), filter_images()
    found.activations[2, 1] = 0
    axes = np.reshape(figures.draw_patches(found, ascended=ascended).axes, (3, 3))
    np.testing.assert_allclose(shown(axes[1, 2]), found.patches[1, 1] / 255, atol=1e-6)
    np.testing.assert_allclose(shown(axes[2, 0]), ascended.images[2] / 255, atol=1e-6)
    assert [[axis.get_title("left") for axis in row] for row in axes] == [
        ["filter 0", "9", "7.4"],
        ["filter 7: dead", "5.8", "4.2"],
        ["filter 14", "2.6", "did not fire"],
    ]
    assert np.ptp(shown(axes[1, 0])) == np.ptp(shown(axes[2, 2])) == 0 < np.ptp(shown(axes[2, 1]))
    assert len(figures.draw_patches(patches(range(20))).axes) == 12 * 2


# evidence


def test_heat_maps_are_raw_with_a_scale_and_a_color_bar_each():
    results = [heat(), heat(class_index=1)]
    figure = figures.draw_heat_maps(pixels(2, 8, 12), results, PETS, titles=["left", "right"])
    grid, bars = np.reshape(figure.axes[:10], (2, 5)), figure.axes[10:]
    assert len(bars) == 4
    for row, column in itertools.product(range(2), range(2)):
        axis, maps = grid[row, 1 + 2 * column], results[column].maps
        np.testing.assert_array_equal(shown(axis), maps[row])
        assert axis.get_images()[0].get_clim() == pytest.approx((0, maps[row].max()))
        assert axis.get_images()[0].get_extent() == [0, 12, 8, 0]  # as large as the image
    expected = ["cat: score +1.50", "grad-cam for dog, 6x6", "dog: score +1.50"]
    assert [axis.get_title("left") for axis in grid[1, 2:]] == expected
    assert "evidence at block4/add3" in texts(figure) and "right" in texts(figure)


def test_overlay_dims_what_has_no_evidence_and_never_brightens():
    image = RNG.uniform(0, 1, (12, 12, 3))
    evidence = np.zeros((6, 6))
    evidence[:, 3:] = np.array([1.0, 2.0, 4.0])
    ratio = overlay(image, evidence) / image
    np.testing.assert_allclose(ratio[..., 0], ratio[..., 2])  # the colors stay
    assert ratio.max() == pytest.approx(1) and ratio.min() == pytest.approx(0.25)
    assert (np.diff(ratio[6, :, 0]) > -1e-6).all() and ratio[6, 11, 0] > ratio[6, 8, 0] > 0.25
    evidence[:, 0] = -4
    ratio = overlay(image, evidence) / image
    assert ratio.max() <= 1
    red, blue = ratio[6, :, 0], ratio[6, :, 2]
    assert red[11] > blue[11] + 0.1 and blue[0] > red[0] + 0.1  # orange for, purple against
    np.testing.assert_allclose(overlay(image, np.zeros((6, 6))), image * 0.25)


def test_signed_evidence_diverges_from_zero():
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, :, 0], maps[0, :, 5] = -4, 2
    figure = figures.draw_heat_maps(pixels(1), heat(1, maps=maps), PETS)
    image = figure.axes[1].get_images()[0]
    assert image.get_clim() == (-4, 4) and min(image.get_cmap()(0.5)[:3]) > 0.95
    assert "grad-cam for/against cat" in texts(figure)


@pytest.mark.parametrize("rest", [0, 1e-42, 1e-6, 1.0])
def test_few_extreme_cells_of_a_fine_map_do_not_end_its_scale(rest):
    maps = np.full((1, 32, 32), rest, np.float32)
    maps[0, 3, 5] = 10
    figure = figures.draw_heat_maps(pixels(1), heat(1, maps=maps), PETS)
    high = figure.axes[1].get_images()[0].get_clim()[1]
    assert high == pytest.approx(1 if rest == 1 else 0.5, rel=1e-5)  # else a twentieth of the top
    assert np.isfinite(shown(figure.axes[2])).all()


def test_empty_map_says_why_and_many_images_are_cut_off():
    maps = np.zeros((14, 6, 6), np.float32)
    figure = figures.draw_heat_maps(pixels(14), heat(14, maps=maps, verdict="zero gradient"), PETS)
    assert texts(figure).count("zero gradient") == 12
    assert "the first 12 of 14 images" in texts(figure) and (shown(figure.axes[1]) == 0).all()


# faults


def test_measures_of_trust_are_drawn_with_their_numbers():
    figure = figures.draw_map_trust(TRUST)
    assert texts(figure).count("0.91") == len(TRUST_TITLES) and "nan" not in texts(figure)
    (random,), bars = figure.axes[0].get_lines(), figure.axes[0].patches
    assert set(random.get_xdata()) == {0.5}
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.91, 0.5, np.nan])


def test_census_is_drawn_in_shares_with_its_counts():
    figure = figures.draw_census(census())
    widths = [[bar.get_width() for bar in kind] for kind in figure.axes[0].containers]
    np.testing.assert_allclose(np.transpose(widths), [[60, 20, 10, 0, 10]] * 3)
    assert "1,200 images" in texts(figure) and labels(figure)[:6] == ["6"] * 3 + ["2"] * 3


def test_mistakes_stand_with_their_evidence_and_their_neighbors():
    expected = ["cat: 3.1%", "for cat", "zero gradient (dog)", "dog, 0.87 alike"]
    assert titles(figures.draw_mistakes(mistakes(), PETS))[:4] == expected
    assert len(figures.draw_mistakes(mistakes(14, 0)).axes) == 12 * 3
    assert "no mistakes" in texts(figures.draw_mistakes(mistakes(0)))


def test_suspect_labels_stand_with_the_probability_of_their_label():
    figure = figures.draw_suspects(SUSPECTS)
    assert titles(figure) == ["label 'class 3': 3%", "label 'dog': 25%"]
    assert "the 2 most suspect of 3 labels" in texts(figure)
    with pytest.raises(ValueError, match="shuffle=False"):
        figures.draw_suspects(Result(images=None))


def test_changes_are_drawn_by_layer_and_by_image():
    figure = figures.draw_changes(changes(5))
    weights, activations = figure.axes[0].containers
    np.testing.assert_allclose([bar.get_width() for bar in weights], [0, 25, 0])
    np.testing.assert_allclose([bar.get_width() for bar in activations], [0, 50, 0])
    assert "1 of 5 predictions changed" in texts(figure) and len(figure.axes) == 1 + 3 * 3
    assert "before: cat -3.25" in titles(figure) and "after: cat -3.25" in titles(figure)


# learning


def test_curves_hold_the_history_by_epoch():
    figure = figures.draw_learning_curves(Result(history=HISTORY))
    for axis, name, scale in zip(figure.axes, ("loss", "accuracy"), (1, 100), strict=True):
        for line, key in zip(axis.lines, (name, f"val_{name}"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(line.get_ydata(), np.array(HISTORY[key]) * scale)


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_whole_numbers(epochs):
    history = {key: np.resize(values[:2], epochs) for key, values in HISTORY.items()}
    axis = figures.draw_learning_curves(history).axes[0]
    low, high = axis.get_xlim()
    ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
    assert ticks and all(tick == int(tick) for tick in ticks)


def test_calibration_shows_the_filled_bins_in_percent():
    figure = figures.draw_calibration(BINS, 0.0414)
    (markers,) = figure.axes[0].collections
    np.testing.assert_allclose(markers.get_offsets(), [[60, 40], [90, 100]])
    assert np.diff(markers.get_sizes()) > 0  # the fuller bin is the larger one
    assert labels(figure) == ["25.0%", "75.0%"]
    assert "expected calibration error 0.041" in texts(figure)


def test_confusion_matrix_holds_the_shares_of_each_true_class():
    true, predicted = [0] * 4 + [1] * 5, [0, 0, 0, 1] + [1, 1, 0, 0, 0]
    figure = figures.draw_confusion_matrix(true, predicted, PETS)
    np.testing.assert_allclose(shown(figure.axes[0]), [[75, 25], [60, 40]])
    assert labels(figure) == ["75.0", "25.0", "60.0", "40.0"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["cat (4)", "dog (5)"] and "accuracy 55.6% of 9 images" in texts(figure)


def test_many_classes_fit_on_a_page():
    figure = figures.draw_confusion_matrix(range(1000), np.arange(1000) % 7)
    assert max(figure.get_size_inches()) <= 10 and not labels(figure)
    places = figure.axes[0].xaxis.get_ticklocs()
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert 20 < len(places) <= 30 and names == [f"class {place}" for place in places]


# architecture


def test_architecture_is_drawn_with_names_sizes_channels_and_skips():
    figure = figures.draw_architecture(SHAPES)
    axis = figure.axes[0]
    at = {
        label.get_text(): x
        for x, label in zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
    }
    names = ["image  3", "first  16", "second  16", "sum", "pool  16", "head  5"]
    assert list(at) == names and labels(figure) == ["16x16", "8x8", "vector"]
    slabs = {round(slab.get_x() + slab.get_width() / 2, 6): slab for slab in axis.patches}
    image, first, head = (slabs[round(at[names[place]], 6)] for place in (0, 1, 5))
    assert first.get_height() ** 2 / image.get_height() ** 2 == pytest.approx(1 / 2)
    assert image.get_width() < head.get_width() < first.get_width()
    (skip,) = [line for line in axis.lines if len(line.get_xdata()) == 4]
    assert abs(skip.get_xdata()[0] - at["first  16"]) < 0.2
    assert abs(skip.get_xdata()[-1] - at["sum"]) < 0.2
    assert max(skip.get_ydata()) > first.get_height() / 2
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert legend == {"image", "convolution", "addition", "pooling", "dense"}


def test_of_many_layers_the_last_of_each_size_is_named_and_a_layer_may_come_before_itself():
    more = [LayerShape(f"c{n}", "Conv2D", (4, 4, 2 + n), ("norm",), 0) for n in range(30)]
    again = LayerShape("norm", "BatchNormalization", (8, 8, 16), ("first", "act"), 64)
    act = LayerShape("act", "ReLU", (8, 8, 16), ("norm",), 0)
    figure = figures.draw_architecture([*SHAPES[:2], again, act, *SHAPES[4:6], *more])
    found = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert found == ["image  3", "sum", "c29  31"]
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]) == 1
