"""Figures: they show the numbers given, say what is empty, and leave nothing behind."""

import dataclasses
import itertools
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab

from cnnviz.diagnosis import FilterCensus, LayerCensus, MapTrust, Mistakes, ModelChanges
from cnnviz.exciting_crops import ExcitingCrops
from cnnviz.figures import (
    CENSUS_COLORS,
    EVIDENCE_COLORS,
    SIGNED_COLORS,
    TRAINING_COLOR,
    VALIDATION_COLOR,
    draw_activations,
    draw_architecture,
    draw_calibration,
    draw_census,
    draw_changes,
    draw_confusion_matrix,
    draw_exciting_crops,
    draw_exploration,
    draw_filters,
    draw_heat_maps,
    draw_images,
    draw_learning_curves,
    draw_map_trust,
    draw_mistakes,
)
from cnnviz.filter_ascent import FilterImages
from cnnviz.grad_cam import GradCAM
from cnnviz.layer_shapes import LayerShape

RNG = np.random.default_rng(0)


# Edges, shares, confidences, and what is right, of which the first bin holds no picture.
BINS = tuple(map(np.array, ([0, 0.5, 0.75, 1], [0, 0.25, 0.75], [0, 0.6, 0.9], [0, 0.4, 1.0])))


def pictures(count=2, height=24, width=24):
    return RNG.uniform(0, 255, (count, height, width, 3)).astype(np.float32)


def heat(count=2, class_index=0, maps=None, verdicts=None, scores=None):
    maps = RNG.uniform(0, 2, (count, 6, 6)).astype(np.float32) if maps is None else maps
    return GradCAM(
        maps=maps,
        scores=np.linspace(-3.25, 1.5, count) if scores is None else scores,
        class_index=np.full(count, class_index, np.int32),
        layer_name="block4_add3",
        verdicts=("ok",) * count if verdicts is None else verdicts,
    )


def filter_images(verdicts=("ok", "dead", "ok", "no gain"), images=None):
    count = len(verdicts)
    return FilterImages(
        images=pictures(count) if images is None else images,
        filters=np.arange(count) * 7,
        activations=np.full(count, 8.0),
        start_activations=np.full(count, 0.25),
        verdicts=verdicts,
        layer_name="block4_conv3",
    )


def crops(filters=(0, 7, 14), count=4, activations=None):
    shape = len(filters), count
    rows = np.linspace(9, 1, len(filters) * count).reshape(shape)
    return ExcitingCrops(
        crops=RNG.uniform(0, 255, (*shape, 9, 7, 3)).astype(np.float32),
        activations=rows if activations is None else np.array(activations),
        image_index=np.zeros(shape, int),
        positions=np.zeros((*shape, 2), int),
        mean_activations=np.array([2.0, 2.0, 0.0])[: len(filters)],
        filters=np.array(filters),
        layer_name="block4_conv3",
    )


def census():
    verdicts = ("ok",) * 6 + ("never fires", "never fires", "same everywhere", "copy of 2")
    layers = [LayerCensus(f"block{i}_conv1", np.zeros(10), verdicts) for i in range(1, 4)]
    return FilterCensus(tuple(layers), 1200)


def mistakes(count=2, neighbours=3):
    return Mistakes(
        images=pictures(count),
        image_index=np.arange(count),
        labels=np.zeros(count, int),
        predicted=np.ones(count, int),
        probabilities=np.tile([0.031, 0.969], (count, 1)),
        evidence=(heat(count), heat(count, 1)) if count else None,
        neighbours=RNG.uniform(0, 255, (count, neighbours, 24, 24, 3)),
        neighbour_labels=np.ones((count, neighbours), int),
        neighbour_index=np.zeros((count, neighbours), int),
        similarity=np.full((count, neighbours), 0.87),
    )


def changes(weights=(0.0, 0.25, 0.0), activations=(0.0, 0.5, np.nan)):
    return ModelChanges(
        layer_names=("block4_conv2", "block4_conv3", "logit"),
        weights=np.array(weights),
        activations=np.array(activations),
        probabilities=(np.zeros((2, 2)),) * 2,
        maps=(heat(), heat()),
        layer_name="block4_conv3",
        filters=np.arange(4) * 7,
        feature_maps=(RNG.uniform(0, 4, (2, 8, 8, 4)),) * 2,
        filter_images=(filter_images(),) * 2,
    )


HISTORY = {
    "loss": [0.7, 0.5, 0.4],
    "val_loss": [0.65, 0.45, 0.5],
    "accuracy": [0.5, 0.7, 0.8],
    "val_accuracy": [0.55, 0.875, 0.75],
}
SHAPES = [
    LayerShape("picture", "Input", (32, 32, 3), (), 0),
    LayerShape("conv", "Conv2D", (16, 16, 8), ("picture",), 224),
    LayerShape("head", "Dense", (2,), ("conv",), 18),
]
TRUST = MapTrust(
    methods=("grad-cam", "fine", "random", "centre"),
    focus=np.array([0.9, 0.95, 0.5, 0.5]),
    pointing=np.array([0.7, 0.8, 0.25, 0.25]),
    deletion=np.array([0.5, 0.45, 0.6, 0.7]),
    insertion=np.array([0.9, 0.85, 0.6, 0.7]),
    survival=np.array([0.1, -0.1, np.nan, np.nan]),
)
DRAWINGS = {
    "pictures": lambda: draw_images(pictures(7), [f"cat {i}" for i in range(7)]),
    "one picture": lambda: draw_images(pictures(1)),
    "pictures of several sizes": lambda: draw_images([pictures(1, 9)[0], pictures(1, 30)[0]]),
    "curves": lambda: draw_learning_curves(HISTORY),
    "curves of one epoch": lambda: draw_learning_curves({k: v[:1] for k, v in HISTORY.items()}),
    "confusion": lambda: draw_confusion_matrix([0, 1, 1], [0, 1, 0], ("cat", "dog")),
    "confusion without pictures": lambda: draw_confusion_matrix([], [], ("cat", "dog")),
    "calibration": lambda: draw_calibration(BINS, 0.04),
    "one channel": lambda: draw_activations(RNG.normal(size=(8, 8, 1)), "conv"),
    "256 channels": lambda: draw_activations(RNG.normal(size=(4, 5, 256)), "conv"),
    "channels all zero": lambda: draw_activations(np.zeros((8, 8, 9)), "conv"),
    "filters": lambda: draw_filters(filter_images()),
    "one filter": lambda: draw_filters(filter_images(("ok",))),
    "40 filters": lambda: draw_filters(filter_images(("ok",) * 40)),
    "crops": lambda: draw_exciting_crops(crops()),
    "crops of one filter": lambda: draw_exciting_crops(crops((7,), 1)),
    "crops beside ascended pictures": lambda: draw_exciting_crops(
        crops(), ascended=filter_images()
    ),
    "evidence": lambda: draw_heat_maps(pictures(), heat(), ("cat", "dog")),
    "evidence in one wide picture": lambda: draw_heat_maps(
        pictures(1, 20, 30), [heat(1), heat(1, 1)], ("cat", "dog")
    ),
    "census": lambda: draw_census(census()),
    "mistakes": lambda: draw_mistakes(mistakes(), ("cat", "dog")),
    "mistakes without neighbours": lambda: draw_mistakes(mistakes(1, 0), ("cat", "dog")),
    "no mistakes": lambda: draw_mistakes(mistakes(0), ("cat", "dog")),
    "changes": lambda: draw_changes(changes()),
    "architecture": lambda: draw_architecture(SHAPES),
    "exploration": lambda: draw_exploration(
        pictures(1)[0],
        RNG.uniform(size=(6, 6)),
        filter_images(("ok",)),
        heat(1),
        layer_name="conv",
        channel=3,
        class_name="cat",
    ),
    "trust": lambda: draw_map_trust(TRUST),
    "no changes": lambda: draw_changes(changes((0.0,) * 3, (0.0, 0.0, np.nan))),
    "no evidence": lambda: draw_heat_maps(
        pictures(1),
        heat(1, maps=np.zeros((1, 6, 6), np.float32), verdicts=("zero gradient",)),
        ("cat", "dog"),
    ),
}


def texts(figure):
    """All that is written in a figure, line breaks as spaces."""
    found = figure.findobj(matplotlib.text.Text)
    return " | ".join(text.get_text().replace("\n", " ") for text in found if text.get_text())


def image_arrays(axis):
    return [image.get_array() for image in axis.get_images()]


def color_bars(figure):
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


# every figure


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_every_figure_is_returned_closed_and_leaves_the_style_as_it_was(draw):
    with plt.style.context("dark_background"):
        before = dict(matplotlib.rcParams)
        figure = draw()
        assert dict(matplotlib.rcParams) == before
    assert isinstance(figure, matplotlib.figure.Figure)
    assert plt.get_fignums() == []
    assert figure.alt.endswith(".") and "\n" not in figure.alt
    scale = min(figure.dpi, 640 / figure.get_figwidth())  # pixels an inch, on a narrow page
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text().strip():
            assert text.get_fontsize() / 72 * scale >= 8, text.get_text()
            on_data = any(text in axis.texts for axis in figure.axes)
            assert on_data or max(to_rgb(text.get_color())) < 0.5, text.get_text()


def test_figure_is_saved_as_black_on_white_under_a_dark_style(tmp_path):
    with plt.style.context("dark_background"):
        draw_calibration(BINS, 0.04).savefig(tmp_path / "a.png", dpi=40)
    picture = plt.imread(tmp_path / "a.png")[..., :3]
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 1).all() and picture.min() < 0.3


# Machado, Oliveira & Fernandes 2009: linear RGB as people see it without one kind of cones.
WITHOUT_CONES = {
    "red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def smallest_difference(colors, matrix):
    """Between any two colours: CIE 1976; 2 can just be seen, red and green are 170 apart."""
    seen = np.array([to_rgb(color) for color in colors]) ** 2.2 @ np.transpose(matrix)
    places = rgb2lab(np.clip(seen, 0, 1)[None] ** (1 / 2.2))[0]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(places, 2))


@pytest.mark.parametrize("matrix", WITHOUT_CONES.values(), ids=WITHOUT_CONES.keys())
@pytest.mark.parametrize(
    "colors", [(TRAINING_COLOR, VALIDATION_COLOR), tuple(CENSUS_COLORS.values())]
)
def test_colors_that_mean_something_differ_for_every_kind_of_eye(colors, matrix):
    assert smallest_difference(colors, matrix) > 15


def test_colors_that_some_eyes_cannot_tell_apart_are_noticed():
    red_and_green = ("#e24a33", "#8d8d00")
    assert smallest_difference(red_and_green, np.eye(3)) > 40
    assert smallest_difference(red_and_green, WITHOUT_CONES["green"]) < 15


def test_pictures_and_results_given_are_not_altered():
    images, maps, evidence, ascended = (
        pictures(),
        RNG.normal(size=(5, 5, 9)),
        heat(),
        filter_images(),
    )
    arrays = [images, maps, evidence.maps, ascended.images]
    copies = [array.copy() for array in arrays]
    draw_images(images)
    draw_activations(maps, "conv", dead=np.arange(9) == 2)
    draw_heat_maps(images, evidence, ("cat", "dog"))
    draw_filters(ascended)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    "figure",
    [
        draw_heat_maps(
            pictures(2),
            [heat(2), heat(2, 1)],
            ("golden_retriever", "Egyptian_cat"),
            titles=["a picture with a long title that cannot stand in one line"] * 2,
        ),
        draw_confusion_matrix([0, 1, 2], [0, 1, 2], ("golden_retriever", "Egyptian_cat", "beagle")),
        draw_images(pictures(3), ["a picture with a long title that needs lines"] * 3),
    ],
    ids=["evidence", "confusion", "pictures"],
)
def test_long_names_do_not_run_into_one_another(figure):
    canvas = FigureCanvasAgg(figure).get_renderer()
    for row in {axis.get_subplotspec().rowspan.start for axis in panels(figure)}:
        axes = [axis for axis in panels(figure) if axis.get_subplotspec().rowspan.start == row]
        boxes = [axis.title.get_window_extent(canvas) for axis in axes]
        boxes = boxes + [axis._left_title.get_window_extent(canvas) for axis in axes]
        boxes = sorted((box for box in boxes if box.width > 1), key=lambda box: box.x0)
        assert all(a.x1 <= b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
    for axis in panels(figure):
        labels = [label.get_window_extent(canvas) for label in axis.get_xticklabels()]
        slanted = any(label.get_rotation() for label in axis.get_xticklabels())
        assert slanted or all(a.x1 <= b.x0 for a, b in zip(labels, labels[1:], strict=False))


def test_measures_of_trust_are_drawn_with_their_numbers():
    values = np.array([0.91, 0.5, np.nan])
    result = MapTrust(("fine", "random", "centre"), *[values] * 5)
    figure = draw_map_trust(result)
    assert len(panels(figure)) == 5
    assert texts(figure).count("0.91") == 5 and "nan" not in texts(figure)
    bars = [patch.get_width() for patch in panels(figure)[0].patches]
    np.testing.assert_allclose(bars, [0.91, 0.5, 0])
    (line,) = panels(figure)[0].get_lines()
    assert set(line.get_xdata()) == {0.5}


def test_census_is_drawn_in_shares_with_its_counts():
    figure = draw_census(census())
    (axis,) = panels(figure)
    widths = [[bar.get_width() for bar in kind] for kind in axis.containers]
    np.testing.assert_allclose(np.transpose(widths), [[60, 20, 10, 0, 10]] * 3)
    assert "1,200 pictures" in texts(figure) and texts(figure).startswith("6 | 6 | 6 | 2 | 2 | 2")


def test_mistakes_stand_with_their_evidence_and_their_neighbours():
    figure = draw_mistakes(mistakes(), ("cat", "dog"))
    assert len(panels(figure)) == 2 * (3 + 3)
    text = texts(figure)
    assert text.count("cat: 3.1%") == 2 and text.count("dog, 0.87 alike") == 6
    assert "for cat" in text and "for dog" in text
    assert "no mistake" in texts(draw_mistakes(mistakes(0), ("cat", "dog")))


def test_changes_are_drawn_by_layer_and_nothing_is_called_none():
    figure = draw_changes(changes())
    weights, output, *tiles = panels(figure)
    np.testing.assert_allclose([bar.get_width() for bar in weights.patches], [0, 25, 0])
    np.testing.assert_allclose([bar.get_width() for bar in output.patches], [0, 50, 0])
    assert len(tiles) == 4 * 4
    assert texts(figure).count("none") == 3 and "25.0%" in texts(figure)
    assert len({image.norm.vmax for axis in tiles[8:] for image in axis.get_images()}) == 1


@pytest.mark.parametrize("low, high", [(-3, -1), (-2, 4), (0, 0), (-1, -1)])
def test_changes_show_maps_below_zero_too(low, high):
    maps = np.linspace(low, high, 2 * 8 * 8 * 4).reshape(2, 8, 8, 4)
    figure = draw_changes(dataclasses.replace(changes(), feature_maps=(maps, maps)))
    image = panels(figure)[-1].get_images()[0]
    assert image.norm.vmin == min(0, maps[0].min()) and image.norm.vmax >= maps[0].max()
    assert image.norm.vmin < image.norm.vmax


# pictures


def test_pictures_of_one_channel_are_grey_on_the_scale_that_was_named():
    figure = draw_images(np.linspace(100, 150, 64).reshape(1, 8, 8, 1))
    shown = panels(figure)[0].get_images()[0].get_array()
    np.testing.assert_allclose(shown[..., 0].ravel(), np.linspace(100, 150, 64) / 255, rtol=1e-5)
    np.testing.assert_array_equal(shown, shown[..., :1].repeat(3, axis=-1))


def shown_as(images):
    """What a person is to see of (..., C) pictures in 0..1."""
    red, green, blue = {1: (0, 0, 0), 2: (0, 1, None)}.get(images.shape[-1], (0, 1, 2))
    nothing = np.zeros_like(images[..., 0])
    last = nothing if blue is None else images[..., blue]
    return np.stack([images[..., red], images[..., green], last], axis=-1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_pictures_of_any_number_of_channels_are_drawn(channels):
    images = RNG.uniform(0, 1, (2, 9, 7, channels)).astype(np.float32)
    expected, scale = shown_as(images), {"value_range": (0, 1)}
    for axis, picture in zip(panels(draw_images(images, **scale)), expected, strict=True):
        np.testing.assert_allclose(image_arrays(axis)[0], picture, atol=1e-6)
    axes = panels(draw_heat_maps(images, heat(), ("cat", "dog"), **scale))
    np.testing.assert_allclose(image_arrays(axes[0])[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(image_arrays(axes[2])[0], expected[0].mean(-1), atol=1e-6)
    ascended = filter_images(("ok", "ok"), images)
    figure = draw_filters(ascended, **scale)
    (mosaic,) = image_arrays(figure.axes[0])
    enlarged = expected[0].repeat(5, axis=0).repeat(5, axis=1)
    np.testing.assert_allclose(mosaic[:45, :35], enlarged, atol=1e-6)
    found = dataclasses.replace(crops((0, 7), 1), crops=images[:, None])
    axes = panels(draw_exciting_crops(found, ascended=ascended, **scale))
    for axis in axes[:2]:
        np.testing.assert_allclose(image_arrays(axis)[0], expected[0], atol=1e-6)
    one, options = filter_images(("ok",), images[:1]), {"layer_name": "conv", "channel": 3}
    figure = draw_exploration(images[0], np.ones((6, 6)), one, heat(1), **options, **scale)
    for place in (0, 2):
        np.testing.assert_allclose(image_arrays(figure.axes[place])[0], expected[0], atol=1e-6)


def test_a_picture_without_channels_is_grey():
    picture = RNG.uniform(0, 255, (8, 9)).astype(np.float32)
    (shown,) = image_arrays(panels(draw_images([picture]))[0])
    np.testing.assert_allclose(shown, picture[..., None].repeat(3, axis=-1) / 255, atol=1e-6)


@pytest.mark.parametrize("value_range, scale", [((0, 255), 255), ((0, 1), 1), ((-1, 1), 2)])
def test_value_range_names_black_and_white(value_range, scale):
    unit = RNG.uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    figure = draw_images(unit * scale + value_range[0], value_range=value_range)
    for axis, expected in zip(panels(figure), unit, strict=True):
        np.testing.assert_allclose(image_arrays(axis)[0], expected, atol=1e-5)


def test_pictures_stand_in_rows_with_their_titles():
    figure = draw_images(pictures(5), list("abcde"), columns=3)
    assert [axis.get_title(loc="left") for axis in panels(figure)] == [*"abcde", ""]
    assert panels(figure)[0].get_subplotspec().get_gridspec().get_geometry() == (2, 3)


def test_classes_without_a_name_are_numbered_in_mistakes():
    figure = draw_mistakes(mistakes(), ("cat",))
    assert texts(figure).count("class 1, 0.87 alike") == 6 and "for class 1" in figure.alt


# learning curves and confusion matrix


def test_classes_without_a_name_are_numbered_in_the_confusion_matrix():
    figure = draw_confusion_matrix([0, 1, 2, 2], [0, 2, 2, 1], ("cat", "dog"))
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["cat", "dog", "class 2"]
    assert "50.0% of 4 pictures" in texts(figure)
    assert "class 2 taken for dog 1 time" in figure.alt


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_channel_of_nan_leaves_the_others_their_colours(wrong):
    maps = np.random.default_rng(0).uniform(size=(8, 8, 4)).astype(np.float32)
    broken = maps.copy()
    broken[3:, :, 2] = wrong
    figure, whole = draw_activations(broken, "conv"), draw_activations(maps, "conv")
    assert "1 with NaN or infinity, 0 flat" in texts(figure) and "1 with NaN or inf" in figure.alt
    assert "nan" not in figure.alt and "inf " not in figure.alt and "NaN or inf" in texts(figure)
    (shown, *_), (expected, *_) = (image_arrays(panels(one)[0]) for one in (figure, whole))
    half = expected.shape[1] // 2
    np.testing.assert_allclose(
        shown[: len(shown) // 2, :half], expected[: len(shown) // 2, :half], atol=0.1
    )
    draw_activations(np.full((4, 4, 2), wrong), "conv")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: draw_activations(np.zeros((1, 8, 8, 4)), "conv"),
            r"`feature_maps` \(of shape \(1, 8",
        ),
        (lambda: draw_activations(np.zeros((8, 8, 4)), "conv", dead=[True]), r"`dead` .* \(4,\)"),
        (lambda: draw_images(np.zeros((6, 28, 28))), r"`images` \(of shape \(6, 28, 28\)\)"),
    ],
)
def test_other_shapes_are_told(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_a_confusion_matrix_of_nothing_at_all():
    draw_confusion_matrix([], [], ())


def test_many_classes_fit_on_a_page():
    figure = draw_confusion_matrix(range(1000), np.arange(1000) % 7, ())
    assert max(figure.get_size_inches()) <= 10 and not figure.axes[0].texts
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        places = axis.get_ticklocs()
        assert 20 < len(places) <= 30
        names = [label.get_text() for label in axis.get_ticklabels()]
        assert names == [f"class {place}" for place in places]


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, np.inf], [0, 1], "`labels` .* must be"),
        ([0, 1], [[0], [1, 2]], "`predicted` .* must be"),
        ([0, -1], [0, 1], r"`labels` \(=\[0, -1\]\) must be \(N,\) integers, 0 or more"),
        ([0, 1], [0.2, 0.9], "`predicted` .* must be"),
        ([0, 1], [[0], [1]], "`predicted` .* must be"),
        ([0, 1], ["cat", "dog"], "`predicted` .* must be"),
        ([0, 1], [0], r"`predicted` \(1\) must be as many as `labels` \(2\)"),
    ],
)
def test_what_are_no_classes_is_told(labels, predicted, message):
    with pytest.raises(ValueError, match=message):
        draw_confusion_matrix(labels, predicted, ("cat", "dog"))


def test_curves_hold_the_history_by_epoch():
    figure = draw_learning_curves(SimpleNamespace(history=HISTORY))
    for axis, name, scale in zip(figure.axes, ("loss", "accuracy"), (1, 100), strict=True):
        for line, key in zip(axis.lines, (name, f"val_{name}"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(line.get_ydata(), np.array(HISTORY[key]) * scale)
    assert "best in validation 0.45" in texts(figure)
    assert "best in validation 87.5%" in texts(figure)


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_whole_numbers(epochs):
    figure = draw_learning_curves(
        {key: np.resize(values, epochs) for key, values in HISTORY.items()}
    )
    low, high = figure.axes[0].get_xlim()
    ticks = [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high]
    assert ticks and all(tick == int(tick) for tick in ticks)


def test_best_epoch_is_found_beside_an_epoch_of_nan():
    history = HISTORY | {"val_loss": [0.65, 0.45, np.nan]}
    assert "best in validation 0.45" in texts(draw_learning_curves(history))


def test_calibration_shows_the_filled_bins_in_percent():
    figure = draw_calibration(BINS, 0.0414)
    upper, lower = figure.axes
    _, model = upper.lines
    (markers,) = upper.collections
    np.testing.assert_allclose(model.get_xydata(), [[60, 40], [90, 100]])
    np.testing.assert_allclose(markers.get_offsets(), [[60, 40], [90, 100]])
    assert np.diff(markers.get_sizes()) > 0  # the fuller bin is the larger one
    assert [bar.get_height() for bar in lower.patches] == [0, 25, 75]
    assert [text.get_text() for text in lower.texts] == ["", "25.0%", "75.0%"]
    assert "expected calibration error 0.041" in texts(figure)


def test_confusion_matrix_counts_rows_by_true_class():
    labels, predicted = [0] * 4 + [1] * 5, [0, 0, 0, 1] + [1, 1, 0, 0, 0]
    figure = draw_confusion_matrix(labels, predicted, ("cat", "dog"))
    shares = image_arrays(panels(figure)[0])[0]
    np.testing.assert_allclose(shares, [[75, 25], [60, 40]])
    cells = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in panels(figure)[0].texts
    }
    assert cells[0, 1] == "1\n25.0%" and cells[1, 0] == "3\n60.0%"
    assert "55.6% of 9 pictures right" in texts(figure)
    assert len(color_bars(figure)) == 1


# activations and filters


def tile(figure, place, columns, size):
    """One tile of a mosaic; 2 pixels lie between tiles."""
    mosaic = image_arrays(panels(figure)[0])[0]
    enlarged = size * max(1, -(-40 // size))
    top, left = (index * (enlarged + 2) for index in divmod(place, columns))
    return np.asarray(mosaic[top : top + enlarged, left : left + enlarged])


def test_channels_keep_their_order_and_share_one_scale():
    maps = np.zeros((40, 40, 3), np.float32)
    maps[..., 1], maps[..., 2] = 1.0, 4.0
    figure = draw_activations(maps, "block2_conv2")
    viridis = plt.get_cmap("viridis")
    for channel, share in enumerate((0, 0.25, 1.0)):
        color = viridis(share)[:3]
        np.testing.assert_allclose(tile(figure, channel, 3, 40)[20, 20], color, atol=1e-6)
    assert color_bars(figure)[0].get_ylabel() == "activation"


def test_activations_title_says_layer_channels_and_what_is_silent():
    maps = RNG.uniform(0, 1, (4, 5, 6))
    maps[..., [1, 4]] = 0
    assert "block2_conv2: 6 channels of 4x5, 2 flat on this picture" in texts(
        draw_activations(maps, "block2_conv2")
    )
    figure = draw_activations(maps, "block2_conv2", dead=np.arange(6) == 4)
    assert "1 dead, 1 more flat on this picture" in texts(figure)


def test_dead_channel_is_grey_crossed_out_and_says_so():
    maps = RNG.uniform(0, 1, (40, 40, 4))
    figure = draw_activations(maps, "conv", dead=np.arange(4) == 2)
    assert np.ptp(tile(figure, 2, 4, 40)) == 0 < np.ptp(tile(figure, 1, 4, 40))
    assert "dead" in [text.get_text() for text in panels(figure)[0].texts]
    assert len(panels(figure)[0].lines) == 2


def test_few_extreme_activations_do_not_leave_the_rest_dark():
    maps = RNG.uniform(0.5, 1, (40, 40, 4))
    maps[0, 0, 0] = 1e6
    assert color_bars(draw_activations(maps, "conv"))[0].get_ylim()[1] < 2


def test_sparse_activations_are_scaled_to_their_maximum():
    maps = np.zeros((40, 40, 4))
    maps[3, 3, 0] = 5.0
    low, high = color_bars(draw_activations(maps, "conv"))[0].get_ylim()
    assert (low, high) == (0, 5)


def test_filters_show_their_pictures_indices_and_verdicts():
    ascended = filter_images(images=pictures(4, 40, 40))
    figure = draw_filters(ascended)
    np.testing.assert_allclose(tile(figure, 2, 4, 40), ascended.images[2] / 255, atol=1e-6)
    assert np.ptp(tile(figure, 1, 4, 40)) == 0
    written = [text.get_text() for text in panels(figure)[0].texts]
    assert [text for text in written if text.isdigit()] == ["0", "7", "14", "21"]
    assert [text for text in written if not text.isdigit()] == ["dead", "no gain"]
    title = "block4_conv3: 4 tiles, 2 with nothing to see; median activation 0.25 on noise, 8 on"
    assert title in texts(figure)


def test_filters_bear_how_many_times_what_real_pictures_reach():
    ascended = filter_images()  # verdicts ok, dead, ok, no gain
    figure = draw_filters(ascended, strongest=[ascended.activations[0] / 4, 1, 0, 1])
    written = [text.get_text() for text in panels(figure)[0].texts if text.get_text()]
    assert [text for text in written if not text.isdigit()] == ["4x", "dead", "silent", "no gain"]
    with pytest.raises(ValueError, match=r"`strongest` \(of shape \(3,\)\) must be one number"):
        draw_filters(ascended, strongest=[1, 2, 3])


def test_filters_follow_the_value_range():
    unit = RNG.uniform(0, 1, (1, 40, 40, 3)).astype(np.float32)
    figure = draw_filters(filter_images(("ok",), images=unit * 2 - 1), value_range=(-1, 1))
    np.testing.assert_allclose(tile(figure, 0, 1, 40), unit[0], atol=1e-6)


def test_crops_stand_in_rows_by_filter_with_their_activations():
    found = crops()
    figure = draw_exciting_crops(found)
    axes = np.reshape(panels(figure), (3, 4))
    for place, axis in np.ndenumerate(axes):
        np.testing.assert_allclose(image_arrays(axis)[0], found.crops[place] / 255, atol=1e-6)
        assert axis.get_xlabel() == f"{found.activations[place]:.3g}"
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["0", "7", "14"]
    assert "block4_conv3: 3 filters, the 4 crops of 9x7 pixels" in texts(figure)


def test_crop_where_the_filter_did_not_fire_is_grey_and_says_so():
    fired, silent = panels(draw_exciting_crops(crops((7,), 2, [[3.0, 0.0]])))
    assert np.ptp(image_arrays(silent)[0]) == 0 < np.ptp(image_arrays(fired)[0])
    assert silent.get_xlabel() == "did not fire"


def test_ascended_pictures_stand_before_the_crops_with_the_ratio_of_the_means():
    ascended, found = filter_images(), crops()
    first = np.reshape(panels(draw_exciting_crops(found, ascended=ascended)), (3, 5))[:, 0]
    assert [axis.get_xlabel() for axis in first] == ["4.0x the best mean", "dead", "ok"]
    np.testing.assert_allclose(image_arrays(first[2])[0], ascended.images[2] / 255, atol=1e-6)
    assert np.ptp(image_arrays(first[1])[0]) == 0


def test_ascended_pictures_must_be_of_the_filters_of_the_crops():
    with pytest.raises(ValueError, match="`ascended`.*must hold the filters"):
        draw_exciting_crops(crops((0, 8)), ascended=filter_images())


# evidence


def test_raw_maps_are_unscaled_and_share_their_limits_within_a_row():
    for_cat, for_dog = heat(class_index=0), heat(class_index=1)
    figure = draw_heat_maps(pictures(), [for_cat, for_dog], ("cat", "dog"))
    grid = np.array(panels(figure)).reshape(2, 5)
    for row in range(2):
        top = max(for_cat.maps[row].max(), for_dog.maps[row].max())
        for axis, result in ((grid[row, 1], for_cat), (grid[row, 3], for_dog)):
            np.testing.assert_array_equal(image_arrays(axis)[0], result.maps[row])
            assert axis.get_images()[0].get_clim() == pytest.approx((0, top))
    assert len(color_bars(figure)) == 4


def test_signed_evidence_diverges_from_zero():
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, :, 0], maps[0, :, 5] = -4, 2
    figure = draw_heat_maps(pictures(1, 60, 60), heat(1, maps=maps), ("cat", "dog"))
    _, raw, overlay = panels(figure)
    (shown,), over = raw.get_images(), overlay.get_images()[1]
    assert shown.get_clim() == (-4, 4) and over.get_clim() == (-1, 1)
    assert shown.get_cmap().name == over.get_cmap().name == SIGNED_COLORS
    middle = shown.get_cmap()(0.5)[:3]
    assert min(middle) > 0.95  # white: no evidence
    alpha = over.get_alpha()
    assert alpha[30, 2] > alpha[30, 57] > alpha[30, 30] == 0  # by strength, whatever the sign
    assert "for or against cat" in texts(figure)


def test_overlay_is_as_opaque_as_the_evidence_is_strong():
    maps = np.zeros((1, 6, 6), np.float32)
    maps[0, :, 3:] = np.array([1.0, 2.0, 4.0])
    figure = draw_heat_maps(pictures(1, 60, 60), heat(1, maps=maps), ("cat", "dog"))
    overlay = panels(figure)[2].get_images()[1]
    alpha = overlay.get_alpha()
    assert overlay.get_cmap().name == EVIDENCE_COLORS
    assert (alpha[:, :20] == 0).all() and 0.5 < alpha.max() < 1
    assert (np.diff(alpha[30]) >= 0).all() and alpha[30, 59] > alpha[30, 45] > alpha[30, 35] > 0


def test_overlay_lies_on_the_grey_picture():
    images = pictures(1)
    grey, _ = image_arrays(panels(draw_heat_maps(images, heat(1), ("cat", "dog")))[2])
    np.testing.assert_allclose(grey, images[0].mean(axis=-1) / 255, atol=1e-6)


def test_evidence_titles_say_layer_class_and_score():
    result = heat(2, class_index=1, scores=np.array([-3.25, 1.5]))
    figure = draw_heat_maps(pictures(), result, ("cat", "dog"), titles=["left", "right"])
    for text in (
        "evidence at block4_add3",
        "dog -3.25 logit",
        "dog +1.50 logit",
        "right",
    ):
        assert text in texts(figure)
    assert "grad-cam for dog, 6x6" in texts(figure) and "cat" not in texts(figure)


def test_classes_beyond_the_names_are_numbered():
    figure = draw_heat_maps(pictures(), heat(2, class_index=2), ("cat", "dog"))
    assert "grad-cam for class 2, 6x6" in texts(figure) and "for class 2: " in figure.alt


def test_results_that_class_and_method_do_not_tell_apart_are_named_over_their_columns():
    results, names = [heat(class_index=1)] * 2, ["hasty network", "patient network"]
    figure = draw_heat_maps(pictures(), results, ("cat", "dog"), names=names)
    grid = np.array(panels(figure)).reshape(2, 5)
    titles = [[axis.get_title(loc="left") for axis in row] for row in grid]
    assert [name for title in titles[0][1:] for name in names if name in title] == (
        [names[0]] * 2 + [names[1]] * 2
    )
    assert all("grad-cam for dog" in row[place] for row in titles for place in (1, 3))
    assert "(hasty network) for dog" in figure.alt and "(patient network) for dog" in figure.alt
    with pytest.raises(ValueError, match="`names`.* must be 2, one for each result"):
        draw_heat_maps(pictures(), results, ("cat", "dog"), names=names[:1])


def test_few_extreme_places_do_not_leave_the_rest_of_a_fine_map_dark():
    maps = np.full((1, 32, 32), 1.0, np.float32)
    maps[0, 3, 5] = 10
    figure = draw_heat_maps(pictures(1), heat(1, maps=maps), ("cat", "dog"))
    _, raw, overlay = panels(figure)
    np.testing.assert_array_equal(image_arrays(raw)[0], maps[0])
    assert raw.get_images()[0].get_clim() == (0, 1)
    assert overlay.get_images()[1].get_alpha().min() > 0.5


def test_map_of_one_place_with_evidence_is_drawn_with_that_place():
    for nearly_nothing in (0, 1e-42, 1e-6):
        maps = np.full((1, 32, 32), nearly_nothing, np.float32)
        maps[0, 3, 5] = 2
        figure = draw_heat_maps(pictures(1), heat(1, maps=maps), ("cat", "dog"))
        _, raw, overlay = panels(figure)
        np.testing.assert_allclose(raw.get_images()[0].get_clim(), (0, 0.1), rtol=1e-5)
        alpha = overlay.get_images()[1].get_alpha()
        assert np.isfinite(alpha).all() and alpha.max() > 0.5 and np.median(alpha) < 0.01


@pytest.mark.parametrize("verdict", ["no positive evidence", "zero gradient"])
def test_empty_map_stays_empty_and_says_why(verdict):
    maps = np.zeros((1, 6, 6), np.float32)
    figure = draw_heat_maps(pictures(1), heat(1, maps=maps, verdicts=(verdict,)), ("cat", "dog"))
    assert verdict in texts(figure)
    assert (image_arrays(panels(figure)[1])[0] == 0).all()
    assert (panels(figure)[2].get_images()[1].get_alpha() == 0).all()


def test_map_is_drawn_as_large_as_the_picture():
    figure = draw_heat_maps(pictures(1, 20, 30), heat(1), ("cat", "dog"))
    sizes = [axis.get_window_extent().size for axis in panels(figure)]
    for size in sizes:
        np.testing.assert_allclose(size, sizes[0], rtol=0.02)
        assert size[0] / size[1] == pytest.approx(1.5, rel=0.02)


def test_one_picture_without_a_batch_is_drawn_as_one():
    assert len(draw_images(np.zeros((8, 8, 3))).axes) == 1


@pytest.mark.parametrize(("images", "titles"), [([], None), (np.zeros((2, 8, 8, 3)), ["one"])])
def test_pictures_and_titles_must_be_equally_many(images, titles):
    with pytest.raises(ValueError, match="equally many"):
        draw_images(images, titles)
