"""Figures: they show the numbers given, say what is empty, and leave the person's style alone."""

import itertools
import re
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
from cnnviz.figures.style import to_units

RNG = np.random.default_rng(0)
PETS = ("cat", "dog")
# Edges, shares, confidences and accuracies; the first bin holds no image.
BINS = tuple(map(np.array, ([0, 0.5, 0.75, 1], [0, 0.25, 0.75], [0, 0.6, 0.9], [0, 0.4, 1.0])))
HISTORY = {"loss": [0.7, 0.5, 0.4], "val_loss": [0.65, 0.45, np.nan]}
HISTORY |= {"accuracy": [0.5, 0.7, 0.8], "val_accuracy": [0.55, 0.875, 0.75]}


def frozen(array):
    """No figure may alter what it is given."""
    array.flags.writeable = False
    return array


def pixels(count=2, height=12, width=12):
    return frozen(RNG.uniform(0, 255, (count, height, width, 3)).astype(np.float32))


def heat(count=2, class_index=0, maps=None, verdict="ok"):
    found = {"class_index": np.full(count, class_index), "verdicts": (verdict,) * count}
    maps = RNG.uniform(0, 2, (count, 6, 6)).astype(np.float32) if maps is None else maps
    found["maps"] = frozen(np.array(maps))
    found["scores"] = np.linspace(-3.25, 1.5, count)
    found |= {"class_names": (), "target": "", "method": "grad-cam"}
    return Result(**found, layer_name="block4/add3")


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


def mistakes(count=2, k=1, names=()):
    found = {"images": pixels(count), "labels": np.zeros(count, int)}
    found["probabilities"] = np.tile([0.031, 0.969], (count, 1))
    found["evidence"] = (heat(count), heat(count, 1, verdict="zero gradient")) if count else None
    found |= {"neighbors": pixels(count * k).reshape(count, k, 12, 12, 3)}
    found |= {"neighbor_labels": np.ones((count, k), int), "similarity": np.full((count, k), 0.87)}
    return Result(**found, class_names=names)


def changes(n_images=2):
    found = {"layer_names": ("body/conv2", "body/conv3", "logit"), "value_range": None}
    found |= {"weights": np.array([0, 0.25, 0])}
    found |= {"images": pixels(n_images), "maps": (heat(n_images), heat(n_images))}
    before, after = np.eye(2)[[0] * n_images], np.eye(2)[[1] + [0] * (n_images - 1)]
    return Result(**found, probabilities=(before, after), class_names=PETS)


ORDER = {"ranking": np.array([2, 0, 1]), "labels": [1, 0, 3], "given": [0.25, 0.9, 0.031]}
SUSPECTS = Result(images=pixels(2), class_names=PETS, **ORDER)
SIGNALS = RNG.normal(0, 9, (2, 80, 5))
SPIKES, BLOBS = np.zeros((9, 8)), np.zeros((7, 4, 2, 2))  # evidence in one cell of each
SPIKES[:, 2] = BLOBS[:, 1, 1, 0] = 4
VOLUMES = RNG.uniform(0, 1, (2, 12, 8, 6, 1))
MEASURES = dict.fromkeys(TRUST_TITLES, np.array([0.91, 0.5, np.nan]))
ENDS = dict.fromkeys(TRUST_TITLES, np.array([[0.8, 0.95], [0.4, 0.6], [np.nan, np.nan]]))
TRUST = Result(methods=("grad-cam", "random", "center"), intervals=ENDS, **MEASURES)
DRAWINGS = {
    "images": lambda: figures.draw_images(pixels(7), list("abcdefg")),
    "images of several sizes": lambda: figures.draw_images([pixels(1, 9)[0], pixels(1, 20)[0]]),
    "curves": lambda: figures.draw_learning_curves(HISTORY),
    "confusion": lambda: figures.draw_confusion_matrix([0, 1, 1], [0, 1, 0], PETS),
    "calibration": lambda: figures.draw_calibration(BINS, 0.04),
    "activations": lambda: figures.draw_activations(frozen(RNG.normal(size=(4, 5, 60))), "conv"),
    "filters": lambda: figures.draw_filters(filter_images()),
    "patches": lambda: figures.draw_patches(patches(), ascended=filter_images()),
    "evidence": lambda: figures.draw_heat_maps(pixels(), [heat(), heat(class_index=1)], PETS),
    "signal": lambda: figures.draw_heat_maps(SIGNALS, [heat(maps=SPIKES[:2])] * 2, PETS),
    "volume": lambda: figures.draw_heat_maps(VOLUMES, heat(maps=BLOBS[:2])),
    "activations of a signal": lambda: figures.draw_activations(RNG.normal(size=(90, 60)), "conv"),
    "census": lambda: figures.draw_census(census()),
    "mistakes": lambda: figures.draw_mistakes(mistakes(names=PETS)),
    "suspects": lambda: figures.draw_suspects(SUSPECTS),
    "changes": lambda: figures.draw_changes(changes()),
    "trust": lambda: figures.draw_map_trust(TRUST),
}


def texts(figure):
    """All that is written in a figure, line breaks as spaces."""
    found = figure.findobj(matplotlib.text.Text)
    return " | ".join(" ".join(text.get_text().split()) for text in found if text.get_text())


def shown(axis):
    return np.asarray(axis.get_images()[0].get_array())


def words(labels):
    return [label.get_text() for label in labels]


def titles(figure):
    return [" ".join(axis.get_title("left").split()) for axis in figure.axes]


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
    assert {to_rgb(tick.get_color()) for tick in figure.axes[0].get_xticklabels()} == {(0, 0, 0)}


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
    alt = "loss, lowest in validation 0.45; accuracy (%), highest in validation "
    assert figures.draw_learning_curves(HISTORY).alt == alt + "87.5%; epoch"
    assert figures.draw_images(pixels(2), ["7", "a cat"]).alt == "a cat"
    figure = figures.draw_images(pixels(1), ['a "b" <c>'])
    html = figures.figure_html(figure)
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in html and "data:image/png;base64,iVBOR" in html
    assert figure.number not in plt.get_fignums()


@pytest.mark.parametrize("name", ["$5_^{", "a\nb", "\udcff.jpg", "x" * 300, "_é Ω", "%s {} <b>"])
def test_names_may_hold_any_character(name, tmp_path):
    drawn = [
        figures.draw_images(pixels(1), [name]),
        figures.draw_heat_maps(pixels(1), heat(1), [name], titles=[name]),
        figures.draw_confusion_matrix([0, 1, 2], [0, 1, 2], [name] * 3),
        figures.draw_census(census(name.replace("{", "{{").replace("}", "}}"))),
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


def test_classes_without_a_name_are_numbered():
    assert figures.class_name(PETS, 2) == "class 2" == figures.class_name(None, 2)
    assert figures.class_name(PETS, -1) not in PETS  # there is no class
    assert "class 1, cosine 0.87" in texts(figures.draw_mistakes(mistakes(names=("cat",))))
    figure = figures.draw_confusion_matrix([0, 1, 2, 2], [0, 2, 2, 1], PETS)
    assert words(figure.axes[0].get_xticklabels()) == [*PETS, "class 2"]


RANGES = "0 1 0 1, .2 .5 0 1, -1 1 -1 1, -.1 .3 -1 1, 0 255 0 255, 3 80 0 255, -2 2.5 -2 2.5"
RANGES += ", 300 700 300 700, 7 7 0 255, 0 0 0 1, 300 300 299 301"


@pytest.mark.parametrize("values", RANGES.split(", "))
def test_value_range_is_found(values):
    low, high, black, white = map(float, values.split())
    images = np.linspace(low, high, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    expected = (images - black) / (white - black)
    np.testing.assert_allclose(to_units(images), expected, atol=1e-5)
    given = to_units(images, (low - 1, high + 1))
    np.testing.assert_allclose(given[0][0, 0, 0], 1 / (high - low + 2), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels_are_drawn(channels):
    images = RNG.uniform(0, 1, (2, 9, 7, channels)).astype(np.float32)
    expected = images[..., :3] if channels > 2 else images[..., :1].repeat(3, -1)
    np.testing.assert_allclose(to_units(images), expected, atol=1e-6)
    np.testing.assert_allclose(to_units([images[0, ..., 0]])[0][..., 2], images[0, ..., 0])


def test_images_stand_in_rows_with_their_titles():
    figure = figures.draw_images(pixels(8), list("abcdefgh"))
    assert titles(figure) == [*"abcdefgh", *[""] * 4]
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 6)
    assert len(figures.draw_images(np.zeros((8, 8, 3))).axes) == 1  # one, without a batch


WRONG = {  # the start of the error: what is drawn
    "`maps` (of shape (1, 8": lambda: figures.draw_activations(np.zeros((1, 8, 8, 4)), "a"),
    "`maps` (of shape (2, 5, 8": lambda: figures.draw_activations(np.zeros((2, 5, 8, 8, 4)), "a"),
    "`images`, titles, maps (=[2, 9])": lambda: figures.draw_heat_maps(SIGNALS, heat(9, 0, SPIKES)),
    "`images` (of shape (6, 28, 28": lambda: figures.draw_images(np.zeros((6, 28, 28))),
    "`images`, titles, maps (=[0])": lambda: figures.draw_images([]),
    "`images`, titles, maps (=[3, 2])": lambda: figures.draw_heat_maps(pixels(3), heat(2)),
    "`labels` (=[])": lambda: figures.draw_confusion_matrix([], []),
    "`labels` (=[0, -1])": lambda: figures.draw_confusion_matrix([0, -1], [0, 1]),
    "`labels` (=[0, 1]) and": lambda: figures.draw_confusion_matrix([0, 1], [0]),
    "`ascended`": lambda: figures.draw_patches(patches((8,)), ascended=filter_images()),
    "`result.images` (=None)": lambda: figures.draw_suspects(Result(images=None)),
}


@pytest.mark.parametrize("start", WRONG)
def test_what_does_not_fit_is_told(start):
    with pytest.raises(ValueError, match=re.escape(start) + ".* must "):
        WRONG[start]()
    assert plt.get_fignums() == []


def test_strongest_channels_are_shown_on_one_scale():
    maps = np.zeros((4, 5, 6), np.float32)
    maps[..., 1], maps[..., 3], maps[1, 1, 4] = 1.0, 4.0, 2.0
    maps[2, 2, 5] = np.nan
    figure = figures.draw_activations(np.pad(maps, [(0, 0), (0, 0), (0, 50)]), "block2")
    *tiles, bar = figure.axes
    assert titles(figure)[:4] == ["3", "4", "1", "0"] and len(tiles) == 48
    for axis, channel in zip(tiles[:3], (3, 4, 1), strict=True):
        np.testing.assert_array_equal(shown(axis), maps[..., channel])
    assert {axis.get_images()[0].get_clim() for axis in tiles} == {(0, 4)}
    title = "block2: 48 of 56 channels, the strongest first; 53 nowhere above 0 on this image"
    assert bar.get_ylabel() == "activation" and figure.get_suptitle() == title
    figures.draw_activations(np.full((4, 4, 2), np.inf), "conv").canvas.draw()


def test_few_extreme_activations_do_not_leave_the_rest_dark_and_few_above_0_are_seen():
    def scale(maps):
        return figures.draw_activations(maps, "conv").axes[0].get_images()[0].get_clim()

    few, extreme = np.zeros((40, 40, 4)), RNG.uniform(0.5, 1, (40, 40, 4))
    few[3, 3, 0], extreme[0, 0, 0] = 5.0, 1e6
    assert scale(extreme)[1] < 2 and scale(few) == (0, 5) and scale(few - 7) == (-7, 0)


def test_filters_that_show_something_stand_with_their_indices_the_strongest_first():
    found = filter_images()
    figure = figures.draw_filters(found)
    assert titles(figure) == ["14", "0"]
    np.testing.assert_allclose(shown(figure.axes[0]), found.images[2] / 255, atol=1e-6)
    title = "conv: 2 of 4, the strongest first; median activation 0.25 on noise, 3.5 on "
    assert f"{title}these images; 1 dead; 1 no gain" in texts(figure)
    assert titles(figures.draw_filters(filter_images(("dead",)))) == ["0 dead"]
    unit = filter_images(("ok",), value_range=(-255, 255))
    np.testing.assert_allclose(shown(figures.draw_filters(unit).axes[0]).min(), 0.5, atol=0.05)


def test_patches_stand_in_rows_by_filter_with_their_activations():
    found, ascended = patches(), filter_images()
    found.activations[2, 1] = 0
    figure = figures.draw_patches(found, ascended=ascended)
    axes = np.reshape(figure.axes, (3, 3))
    np.testing.assert_allclose(shown(axes[1, 2]), found.patches[1, 1] / 255, atol=1e-6)
    np.testing.assert_allclose(shown(axes[2, 0]), ascended.images[2] / 255, atol=1e-6)
    expected = ["filter 0", "filter 0: 9", "filter 0: 7.4", "filter 7: dead", "filter 7: 5.8"]
    expected += ["filter 7: 4.2", "filter 14", "filter 14: 2.6", "filter 14 did not fire"]
    assert titles(figure) == expected
    assert len(figures.draw_patches(patches(range(20))).axes) == 12 * 2


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
    expected = ["cat: score +1.50", "grad-cam for dog", "dog: score +1.50"]
    assert titles(figure)[7:10] == expected
    assert "evidence at block4/add3" in texts(figure) and "right" in texts(figure)


def test_overlay_dims_what_has_no_evidence_and_never_brightens():
    image, evidence = RNG.uniform(0, 1, (12, 12, 3)), np.zeros((6, 6))
    evidence[:, 3:] = 1, 2, 4
    ratio = overlay(image, evidence) / image
    np.testing.assert_allclose(ratio[..., 0], ratio[..., 2])  # the colors stay
    assert ratio.max() == pytest.approx(1) and ratio.min() == pytest.approx(0.25)
    assert (np.diff(ratio[6, :, 0]) > -1e-6).all() and ratio[6, 11, 0] > ratio[6, 8, 0] > 0.25
    evidence[:, 0] = -4
    ratio = overlay(image, evidence) / image
    red, blue = ratio[6, :, 0], ratio[6, :, 2]
    assert red[11] > blue[11] + 0.1 and blue[0] > red[0] + 0.1  # orange for, purple against
    assert ratio.max() <= 1
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


def test_signals_stand_upon_their_evidence():
    plain, signed = SPIKES[:2], SPIKES[:2] - np.roll(SPIKES[:2], 4, 1) / 2
    results = [heat(maps=plain), heat(maps=signed, class_index=-1)]
    results[1].target = "cat rather than dog"
    figure = figures.draw_heat_maps(SIGNALS, results, PETS)
    for axis, maps, low in zip(figure.axes[:4], (plain, signed) * 2, (0, -4) * 2, strict=True):
        band, wanted = axis.get_images()[0], np.interp(range(80), np.arange(8) * 10 + 4.5, maps[0])
        np.testing.assert_allclose(shown(axis), wanted[None], atol=1e-5)
        assert band.get_extent()[:2] == [-0.5, 79.5] and band.get_clim() == (low, 4)
    assert len(figure.axes[2].lines) == 4 and "4 of 5 channels" in texts(figure)
    for channel, line in enumerate(figure.axes[2].lines):  # from the lowest to the highest value
        values = SIGNALS[1, :, channel]
        heights = np.interp(values, [values.min(), values.max()], [0.9, 0.1])
        np.testing.assert_allclose(line.get_ydata(), channel + heights)
    assert titles(figure)[0] == "signal 0: grad-cam for cat; cat: score -3.25"
    assert "for/against cat rather than dog; cat rather" in titles(figure)[1]
    assert len(figures.draw_heat_maps(SIGNALS[0], heat(1, maps=plain[:1])).axes) == 1 + 1


def test_of_volumes_some_slices_and_the_strongest_are_drawn_with_their_evidence():
    figure = figures.draw_heat_maps(VOLUMES, heat(maps=BLOBS[:2]), PETS)
    slices = [f"image {n}, slice {z} of 12" for n in (0, 1) for z in (0, 3, 4, 7, 11)]
    assert titles(figure)[:30:3] == slices
    assert titles(figure)[16:18] == ["grad-cam for cat", "cat: score +1.50"]
    for row in (0, 1):
        image, evidence, _ = figure.axes[15 * row + 6 : 15 * row + 9]  # of slice 4
        np.testing.assert_allclose(shown(image)[..., 0], VOLUMES[row, 4, ..., 0], 1e-5)
        np.testing.assert_allclose(shown(evidence), [[0, 0], [4, 0]], atol=1e-5)
        assert evidence.images[0].get_clim() == (0, 4)
    single = figures.draw_heat_maps(VOLUMES[0], heat(1, maps=BLOBS[:1]))
    assert titles(single)[6] == "image 0, slice 4 of 12"
    without_time = figures.draw_heat_maps(VOLUMES, heat(maps=BLOBS[:2, 1]), PETS)
    np.testing.assert_allclose(shown(without_time.axes[1]), [[0, 0], [4, 0]], atol=1e-5)


def test_channels_of_a_signal_are_rows_the_strongest_first():
    maps = np.maximum(0, RNG.normal(size=(30, 3))) * [2, 9, 0]
    figure = figures.draw_activations(maps, "conv")
    np.testing.assert_allclose(shown(figure.axes[0]), maps.T[[1, 0, 2]], rtol=1e-6)
    assert words(figure.axes[0].get_yticklabels()) == ["1", "0", "2"]
    assert (
        titles(figure)[0]
        == "conv: 3 of 3 channels, the strongest first; 1 nowhere above 0 on this image"
    )


def test_measures_of_trust_are_drawn_with_their_numbers():
    figure = figures.draw_map_trust(TRUST)
    assert texts(figure).count("0.91") == len(TRUST_TITLES) and "nan" not in texts(figure)
    (random,), bars = figure.axes[0].get_lines(), figure.axes[0].patches
    assert set(random.get_xdata()) == {0.5}
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.91, 0.5, np.nan])


def test_census_is_drawn_in_shares_with_its_counts_beside_short_names():
    figure = figures.draw_census(census("sequential_1/mobilenetv2_0.35_224/block_{}_" + "x" * 40))
    figure.draw_without_rendering()
    assert figure.axes[0].get_position().width > 0.6
    assert figure.axes[0].get_yticklabels()[1].get_text() == "block_1_xxxx..." + "x" * 13
    widths = [[bar.get_width() for bar in kind] for kind in figure.axes[0].containers]
    np.testing.assert_allclose(np.transpose(widths), [[60, 20, 10, 0, 10]] * 3)
    assert words(figure.axes[0].texts)[:6] == ["6"] * 3 + ["2"] * 3
    assert "1,200 images" in texts(figure)


def test_mistakes_stand_with_their_evidence_and_their_neighbors():
    expected = ["cat: 3.1%", "for cat", "zero gradient (dog)", "dog, cosine 0.87"]
    assert titles(figures.draw_mistakes(mistakes(names=PETS)))[:4] == expected
    assert len(figures.draw_mistakes(mistakes(14, 0)).axes) == 12 * 3
    assert "no mistakes" in texts(figures.draw_mistakes(mistakes(0)))


def test_suspect_labels_stand_with_the_probability_of_their_label():
    figure = figures.draw_suspects(SUSPECTS)
    assert titles(figure) == ["label 'class 3': 3%", "label 'dog': 25%"]
    assert "the 2 most suspect of 3 labels" in texts(figure)


def test_changes_are_drawn_by_layer_and_by_image():
    figure = figures.draw_changes(changes(5))
    (weights,) = figure.axes[0].containers
    np.testing.assert_allclose([bar.get_width() for bar in weights], [0, 25, 0])
    assert "1 of 5 predictions changed" in texts(figure) and len(figure.axes) == 1 + 3 * 3
    assert "before: cat -3.25" in titles(figure) and "after: cat -3.25" in titles(figure)


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_curves_hold_the_history_by_whole_epochs(epochs):
    history = {key: np.resize(values[:2], epochs) for key, values in HISTORY.items()}
    figure = figures.draw_learning_curves(Result(history=history))
    for axis, name, scale in zip(figure.axes, ("loss", "accuracy"), (1, 100), strict=True):
        low, high = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == int(tick) for tick in ticks)
        for line, key in zip(axis.lines, (name, f"val_{name}"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(epochs) + 1)
            np.testing.assert_allclose(line.get_ydata(), history[key] * scale)


def test_calibration_shows_the_filled_bins_in_percent():
    figure = figures.draw_calibration(BINS, 0.0414)
    (markers,) = figure.axes[0].collections
    np.testing.assert_allclose(markers.get_offsets(), [[60, 40], [90, 100]])
    assert np.diff(markers.get_sizes()) > 0  # the fuller bin is the larger one
    assert words(figure.axes[0].texts) == ["25.0%", "75.0%"]
    assert "expected calibration error 0.041" in texts(figure)


def test_confusion_matrix_holds_the_shares_of_each_true_class():
    true, predicted = [0] * 4 + [1] * 5, [0, 0, 0, 1] + [1, 1, 0, 0, 0]
    figure = figures.draw_confusion_matrix(true, predicted, PETS)
    np.testing.assert_allclose(shown(figure.axes[0]), [[75, 25], [60, 40]])
    assert words(figure.axes[0].texts) == ["75.0", "25.0", "60.0", "40.0"]
    assert words(figure.axes[0].get_yticklabels()) == ["cat (4)", "dog (5)"]
    assert "accuracy 55.6% of 9 images" in texts(figure)


def test_many_classes_fit_on_a_page():
    figure = figures.draw_confusion_matrix(range(1000), np.arange(1000) % 7)
    assert max(figure.get_size_inches()) <= 10 and not words(figure.axes[0].texts)
    places, names = figure.axes[0].get_xticks(), words(figure.axes[0].get_xticklabels())
    assert 20 < len(places) <= 30 and names == [f"class {place}" for place in places]
