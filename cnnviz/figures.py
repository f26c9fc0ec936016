"""(arrays or results) -> Figure: every figure, and the only place that scales for the eye."""

from __future__ import annotations

import collections
import functools
import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import cv2
import matplotlib.colors
import matplotlib.lines
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cnnviz import descriptions

if TYPE_CHECKING:
    import keras

    from cnnviz.diagnosis import FilterCensus, MapTrust, Mistakes, ModelChanges
    from cnnviz.exciting_crops import ExcitingCrops
    from cnnviz.filter_ascent import FilterImages
    from cnnviz.grad_cam import GradCAM
    from cnnviz.layer_shapes import LayerShape

STYLE: dict[str, Any] = {
    # Black on white whatever the style of the person's own figures, which may be dark.
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "white"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), "black"),
    **dict.fromkeys(("xtick.color", "ytick.color"), "black"),
    **dict.fromkeys(("savefig.facecolor", "axes.titlecolor"), "auto"),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "inherit"),
    "figure.dpi": 110,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "image.interpolation": "nearest",
    "savefig.bbox": "tight",
}
TRAINING_COLOR, VALIDATION_COLOR = "#0072b2", "#d55e00"  # told apart by every kind of eye
ACTIVATION_COLORS, EVIDENCE_COLORS = "viridis", "inferno"
SIGNED_COLORS = "PuOr_r"  # orange for the class, white for neither, purple against it
CENSUS_COLORS = {  # of Okabe and Ito, told apart by every kind of eye
    "ok": "#cfe3f2",
    "never fires": "#000000",
    "same everywhere": "#d55e00",
    "always fires": "#e69f00",
    "copy": "#009e73",
}
CHANGES = "change of the weights, % of their size", "change of the output, % of its size"
NOTHING_TO_SEE = 0.88  # grey of a tile that holds no picture
ROLES = {  # of layers in an architecture, and how each is drawn
    "picture": {"marker": "s", "color": "#c7c7c7"},
    "convolution": {"marker": "s", "color": "#56b4e9"},
    "pooling": {"marker": "s", "color": "#e69f00"},
    "addition": {"marker": "P", "color": "black", "markersize": 9},
    "concatenation": {"marker": "D", "color": "black", "markersize": 6},
    "dense layer": {"marker": "s", "color": "#009e73"},
}
MERGES = ("addition", "concatenation")
MOST_NAMED = 26  # layers of an architecture that are drawn with their names
MANY_PLACES = 256  # of a heat map, so that one in two hundred is more than one
GAP = 2  # pixels between the tiles of a mosaic
# Inches. On a page of 640 pixels no letter is lower than 8: a figure 9 inches wide takes 9 points.
TILES_WIDTH = 7.4  # of a mosaic
BAR_ROOM, BAR_WIDTH, BAR_HEIGHT = 0.8, 0.12, 2.6  # of its colour bar, however high the mosaic
TITLE_ROOM = 0.4  # over it
PANEL = 1.6  # side of a picture that stands beside others
GRID_WIDTH, LARGEST = 8.4, 2.4  # of a grid of pictures, and the side of one where they are few
SLAB, MERGE = 0.85, 0.1  # half the height of the highest layer of an architecture, of an addition

P = ParamSpec("P")


class DescribedFigure(Figure):
    """A figure with alternative text, for who cannot see it.

    Jupyter keeps the text as metadata of the output. `jupyter nbconvert --template classic` makes
    it the `alt` of the picture, and its default template too where `lab/index.html.j2` says so.

    Attributes:
        alt: What the figure is, and its main numbers.
    """

    alt: str = ""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As in Matplotlib, in the style of this module."""
        with plt.rc_context(STYLE):
            super().savefig(*args, **kwargs)

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """For Jupyter: metadata alone; its own formatters draw, in the formats that were chosen."""
        from IPython import get_ipython

        formatters = get_ipython().display_formatter.formatters
        kinds = [kind for kind in ("image/png", "image/jpeg") if Figure in formatters[kind]]
        return {}, _Joined({kind: {"alt": self.alt} for kind in kinds})


class _Joined(dict[str, dict[str, Any]]):
    """Metadata to which a formatter adds its own, in place of putting it there instead."""

    def __setitem__(self, kind: str, metadata: dict[str, Any]) -> None:
        super().__setitem__(kind, self.get(kind, {}) | metadata)


def _described(
    describe: Callable[..., str],
) -> Callable[[Callable[P, DescribedFigure]], Callable[P, DescribedFigure]]:
    """Draw one figure in the style, describe it, and keep pyplot from showing it a second time."""

    def decorate(draw: Callable[P, DescribedFigure]) -> Callable[P, DescribedFigure]:
        @functools.wraps(draw)
        def draw_described(*args: P.args, **kwargs: P.kwargs) -> DescribedFigure:
            with plt.rc_context(STYLE):
                figure = draw(*args, **kwargs)
                figure.canvas.draw_idle()
                plt.close(figure)
            figure.alt = describe(*args, **kwargs)
            return figure

        return draw_described

    return decorate


def _subplots(rows: int = 1, columns: int = 1, **options: Any) -> tuple[DescribedFigure, Any]:
    """As `plt.subplots`; nothing overlaps."""
    return plt.subplots(rows, columns, FigureClass=DescribedFigure, layout="constrained", **options)


@_described(descriptions.images)
def draw_images(
    images: ArrayLike | Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    value_range: tuple[float, float] = (0, 255),
) -> DescribedFigure:
    """Draw pictures in a grid.

    Args:
        images: (N, H, W, 3) array, or a sequence of (H, W, 3) arrays.
        titles: N strings to stand over them, or None.
        columns: Pictures in a row.
        value_range: The values of black and of white.

    Returns:
        Figure: as wide as a page can show it, whatever the number of columns; fewer pictures are
        larger, up to a size at which nothing more is to be seen.
    """
    images = _pictures(images, titles)
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    side = min(LARGEST, GRID_WIDTH / columns)
    size = (side * columns, (side + (0.06 if titles is None else 0.22)) * rows)
    figure, axes = _subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(_to_unit(image, value_range))
        if titles is not None:
            axis.set_title(_wrapped(titles[index], side))
    return figure


@_described(descriptions.learning_curves)
def draw_learning_curves(
    history: keras.callbacks.History | Mapping[str, Sequence[float]],
) -> DescribedFigure:
    """Draw loss and accuracy of training and validation, epoch by epoch.

    Args:
        history: dict with "loss", "val_loss", "accuracy", "val_accuracy", one number an epoch; or
            what `train` returns.

    Returns:
        Figure
    """
    history = getattr(history, "history", history)
    figure, axes = _subplots(1, 2, figsize=(9, 3.2))
    units = {"loss": ("loss (cross-entropy, nats)", ""), "accuracy": ("accuracy (%)", "%")}
    for axis, (name, (label, unit)) in zip(axes, units.items(), strict=True):
        scale = 100 if name == "accuracy" else 1
        epochs = np.arange(1, len(history[name]) + 1)
        curves = (
            ("training, varied pictures", history[name], TRAINING_COLOR, "o"),
            ("validation", history[f"val_{name}"], VALIDATION_COLOR, "s"),
        )
        for who, values, color, marker in curves:
            values = np.asarray(values) * scale
            axis.plot(epochs, values, color=color, marker=marker, markersize=4, label=who)
        best = (np.fmax if name == "accuracy" else np.fmin).reduce(values)  # passes NaN over
        axis.set(xlabel="epoch", title=f"{label}, best in validation {best:.3g}{unit}")
        axis.set_xlim(0.5, len(epochs) + 0.5)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(framealpha=1, edgecolor="none")  # no line of the grid through its words
    return figure


@_described(descriptions.calibration)
def draw_calibration(
    bins: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], error: float
) -> DescribedFigure:
    """Draw how often the model is right against how sure it is (a reliability diagram).

    Args:
        bins: What `calibration_bins` returns.
        error: The expected calibration error.

    Returns:
        Figure: above, a marker for each bin that holds pictures, the larger the more it holds;
        below, the share of the pictures in each, in percent.
    """
    edges, shares, confidences, right = bins
    filled = shares > 0
    figure, (upper, lower) = _subplots(2, figsize=(4.4, 4.6), sharex=True, height_ratios=(3, 1))
    upper.plot([0, 100], [0, 100], color="0.6", linestyle="--", label="perfectly calibrated")
    upper.plot(
        100 * confidences[filled], 100 * right[filled], color=VALIDATION_COLOR, linewidth=0.8
    )
    upper.scatter(
        100 * confidences[filled], 100 * right[filled], 15 + 100 * shares[filled],
        color=VALIDATION_COLOR, marker="s", clip_on=False, zorder=3,
        label="this model; larger: more pictures",
    )  # fmt: skip
    upper.set(ylabel="of them right (%)", ylim=(0, 104))
    upper.set_title(f"expected calibration error {error:.3f}")
    upper.legend(frameon=False, loc="lower right")
    bars = lower.bar(
        100 * edges[:-1], 100 * shares, width=100 * np.diff(edges), align="edge",
        color=TRAINING_COLOR, edgecolor="white",
    )  # fmt: skip
    numbers = [f"{share:.1%}" if share > 0 else "" for share in shares]
    lower.bar_label(bars, numbers, fontsize=9, padding=1)
    lower.margins(y=0.35)  # room for the numbers
    start = 100 * edges[:-1][filled].min()
    lower.set(xlabel="probability of the predicted class (%)", ylabel="pictures (%)")
    lower.set_xlim(start, 101)
    return figure


@_described(descriptions.confusion_matrix)
def draw_confusion_matrix(
    labels: ArrayLike, predicted: ArrayLike, class_names: Sequence[str]
) -> DescribedFigure:
    """Draw how often each class was taken for each.

    Args:
        labels: (N,) integers, the true classes.
        predicted: (N,) integers, the predicted classes.
        class_names: The classes' names, by index.

    Returns:
        Figure
    """
    count = len(class_names)
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (np.asarray(labels, int), np.asarray(predicted, int)), 1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axis = _subplots(figsize=(1.9 + 1.3 * count, 1.3 + 1.1 * count))
    shown = axis.imshow(100 * shares, vmin=0, vmax=100, cmap="cividis")
    for row, column in np.ndindex(count, count):
        text = f"{matrix[row, column]}\n{shares[row, column]:.1%}"
        color = "black" if shares[row, column] > 0.5 else "white"
        axis.text(column, row, text, ha="center", va="center", color=color)
    ticks = range(count)
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if count > 2 else {}
    axis.set_xticks(ticks, class_names, **slanted)
    axis.set_yticks(ticks, class_names)
    axis.set(xlabel="predicted class", ylabel="true class")
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    axis.set_title(f"{accuracy:.1%} of {matrix.sum()} pictures right")
    figure.colorbar(shown, label="% of the row's class", shrink=0.8)
    return figure


@_described(descriptions.activations)
def draw_activations(
    feature_maps: ArrayLike, layer_name: str, *, dead: ArrayLike | None = None
) -> DescribedFigure:
    """Draw every channel of a layer's output for one picture, all on one scale.

    Args:
        feature_maps: (h, w, C) array.
        layer_name: The layer, for the title.
        dead: (C,) bool, channels to mark as dead: `dead_channels` finds them over many pictures.

    Returns:
        Figure: C tiles with the channel's index; the colour scale ends at the 99.5th percentile of
        the values, so that a few extreme ones do not leave the rest dark. Dead channels are grey
        and crossed out.
    """
    feature_maps = np.asarray(feature_maps, np.float32)
    height, width, channels = feature_maps.shape
    dead = np.zeros(channels, bool) if dead is None else np.asarray(dead, bool)
    low = min(0.0, float(np.percentile(feature_maps, 0.5)))
    high = float(np.percentile(feature_maps, 99.5))
    if high <= low:  # nearly all values are zero
        high = float(feature_maps.max())
    if high <= low:
        high = low + 1.0
    colored = plt.get_cmap(ACTIVATION_COLORS)((feature_maps - low) / (high - low))[..., :3]
    tiles = colored.transpose(2, 0, 1, 3)
    tiles[dead] = NOTHING_TO_SEE
    labels = ["dead" if is_dead else "" for is_dead in dead]
    figure, axis = _draw_tiles(tiles, range(channels), labels)
    scale = plt.cm.ScalarMappable(plt.Normalize(low, high), ACTIVATION_COLORS)
    extend = "both" if low < 0 else "max"
    tall = _make_room_for_bar(figure)
    figure.colorbar(
        scale, ax=axis, label="activation", shrink=min(1, BAR_HEIGHT / tall), anchor=(0, 1),
        aspect=min(tall, BAR_HEIGHT) / BAR_WIDTH, pad=0.01, extend=extend, extendfrac=0.04,
    )  # fmt: skip
    flat = int((~dead & (feature_maps.max((0, 1)) <= feature_maps.min((0, 1)))).sum())
    found = f"{int(dead.sum())} dead, {flat} more" if dead.any() else str(flat)
    title = f"{layer_name}: {channels} channels of {height}x{width}, {found} flat on this picture"
    axis.set_title(_wrapped(title, figure.get_figwidth()))
    return figure


def _make_room_for_bar(figure):
    """Let a mosaic keep its shape beside a colour bar; -> its height in inches."""
    width, height = figure.get_size_inches()
    wider = min(TILES_WIDTH, width + BAR_ROOM)
    tall = (height - TITLE_ROOM) * (wider - BAR_ROOM) / width
    figure.set_size_inches(wider, tall + TITLE_ROOM)
    return tall


@_described(descriptions.filters)
def draw_filters(
    result: FilterImages,
    *,
    strongest: ArrayLike | None = None,
    value_range: tuple[float, float] = (0, 255),
) -> DescribedFigure:
    """Draw what excites each filter of a layer.

    Args:
        result: FilterImages, as `ascend_filters` returns it.
        strongest: (F,) the highest mean activation of each filter that real pictures reach. Each
            tile then bears how many times as much its own picture reaches; None writes nothing.
        value_range: The pixel values of black and of white.

    Raises:
        ValueError: If `strongest` is not one number for each filter.

    Returns:
        Figure: one tile a filter with the filter's index; a filter for which there is nothing to
        see is a grey, crossed out tile with the reason.
    """
    tiles = _to_unit(result.images, value_range)
    ok = np.array([verdict == "ok" for verdict in result.verdicts])
    tiles[~ok] = NOTHING_TO_SEE
    labels = ["" if verdict == "ok" else verdict for verdict in result.verdicts]
    figure, axis = _draw_tiles(tiles, result.filters, labels, _ratios(result, strongest))
    before, after = np.median(result.start_activations), np.median(result.activations)
    title = (
        f"{result.layer_name}: {len(ok)} tiles, {int((~ok).sum())} with nothing to see; "
        f"median activation {before:.2g} on noise, {after:.2g} on these"
    )
    if strongest is not None:
        title += "; in the corners: times as much as on the best real picture"
    axis.set_title(_wrapped(title, figure.get_figwidth()))
    return figure


def _ratios(result, strongest):
    """F words such as "3.1x"; nothing where the real pictures leave the filter silent."""
    if strongest is None:
        return [""] * len(result.filters)
    strongest = np.asarray(strongest, np.float32)
    if strongest.shape != result.activations.shape:
        raise ValueError(
            f"`strongest` (of shape {strongest.shape}) must be one number for each of the "
            f"{len(result.filters)} filters"
        )
    ratios = np.divide(result.activations, strongest, where=strongest > 0, out=0 * strongest)
    return [
        f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x" if real > 0 else "silent"
        for ratio, real in zip(ratios, strongest, strict=True)
    ]


@_described(descriptions.exciting_crops)
def draw_exciting_crops(
    result: ExcitingCrops,
    *,
    ascended: FilterImages | None = None,
    value_range: tuple[float, float] = (0, 255),
) -> DescribedFigure:
    """Draw what excites filters in real pictures, strongest first, one row a filter.

    Args:
        result: ExcitingCrops, as `exciting_crops` returns it.
        ascended: FilterImages of the same layer that hold all these filters, to stand before them.
        value_range: The pixel values of black and of white.

    Returns:
        Figure: under each crop the filter's activation there, under each ascended picture how many
        times as high the filter's mean activation on it is as on the best real picture. Where a
        filter did not fire there is a grey tile that says so.

    Raises:
        ValueError: If `ascended` is of another layer or lacks one of the filters.
    """
    rows, count, height, width = result.crops.shape[:4]
    first = 0 if ascended is None else 1
    if first:
        _check_ascended(ascended, result)
    size = (1.25 * (first + count), (1.25 * height / width + 0.22) * rows + 0.4)
    figure, axes = _subplots(rows, first + count, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, (line, index) in enumerate(zip(axes, result.filters, strict=True)):
        line[0].set_ylabel(index, rotation=0, ha="right", va="center")
        if first:
            axes[0, 0].set_title("ascended", fontsize=9)
            _draw_ascended(line[0], ascended, result, row, value_range)
        tiles = zip(line[first:], result.crops[row], result.activations[row], strict=True)
        for axis, crop, activation in tiles:
            fired = activation != 0
            axis.imshow(_or_nothing(_to_unit(crop, value_range), fired))
            axis.set_xlabel(f"{activation:.3g}" if fired else "did not fire", fontsize=8)
    title = (
        f"{result.layer_name}: {rows} filters, the {count} crops of {height}x{width} pixels that "
        "excite each most, with their activation"
    )
    figure.suptitle(_wrapped(title, figure.get_figwidth()), x=0.01, ha="left", fontsize=10)
    return figure


def _check_ascended(ascended, result):
    missing = set(np.asarray(result.filters).tolist()) - set(np.asarray(ascended.filters).tolist())
    if ascended.layer_name != result.layer_name or missing:
        raise ValueError(
            f"`ascended` (of layer '{ascended.layer_name}', filters {ascended.filters}) must hold "
            f"the filters {result.filters} of layer '{result.layer_name}'"
        )


def _draw_ascended(axis, ascended, result, row, value_range):
    """The ascended picture of one filter, with its mean activation against the best real one's."""
    place = list(ascended.filters).index(result.filters[row])
    verdict, best = ascended.verdicts[place], result.mean_activations[row]
    axis.imshow(_or_nothing(_to_unit(ascended.images[place], value_range), verdict == "ok"))
    comparable = verdict == "ok" and best > 0
    text = f"{ascended.activations[place] / best:.1f}x the best mean" if comparable else verdict
    axis.set_xlabel(text, fontsize=8)


def _or_nothing(picture, there_is_something):
    return picture if there_is_something else np.full_like(picture, NOTHING_TO_SEE)


@_described(descriptions.heat_maps)
def draw_heat_maps(
    images: ArrayLike | Sequence[ArrayLike],
    results: GradCAM | Sequence[GradCAM],
    class_names: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    value_range: tuple[float, float] = (0, 255),
) -> DescribedFigure:
    """Draw where the evidence lies: picture, raw map, overlay; for several classes side by side.

    Args:
        images: (N, H, W, 3) array, or a sequence of (H, W, 3) arrays.
        results: A GradCAM for these pictures, or a sequence of them, such as one for each class.
        class_names: The classes' names, by index.
        titles: N strings to stand beside the pictures, or None.
        names: A string for each result, to stand over its maps where class and method alone do not
            tell them apart, such as the name of the network; or None.
        value_range: The pixel values of black and of white.

    Raises:
        ValueError: If pictures, maps and titles, or results and names, are not equally many.

    Returns:
        Figure: a row for each picture, with a colour bar; maps of one method are on one scale. Of
        a map of hundreds of places the scale ends at the 99.5th percentile, so that a few extreme
        ones do not leave the rest dark. The overlay is as opaque as the evidence is strong. An
        empty map says why it is empty. Maps with evidence against the class have colours that
        diverge from zero.
    """
    results = [results] if hasattr(results, "maps") else list(results)
    images = _pictures(images, titles, *(result.maps for result in results))
    if names is not None and len(names) != len(results):
        raise ValueError(f"`names` (={names!r}) must be {len(results)}, one for each result")
    rows, columns = len(images), 1 + 2 * len(results)
    height, width = np.shape(images[0])[:2]
    size = (PANEL * columns + 0.5 * len(results), (PANEL * height / width + 0.4) * rows + 0.3)
    figure, axes = _subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, image in enumerate(images):
        picture = _to_unit(image, value_range)
        axes[row, 0].imshow(picture)
        axes[row, 0].set_title(_wrapped(titles[row], PANEL) if titles is not None else "picture")
        for index, result in enumerate(results):
            alike = [other for other in results if other.method == result.method]
            top = max(_strongest(other.maps[row]) for other in alike)
            pair = axes[row, 1 + 2 * index : 3 + 2 * index]
            _draw_evidence(figure, pair, picture, result, row, top, class_names)
            if names is not None and row == 0:  # as the head of both columns
                for axis in pair:
                    title = axis.get_title(loc="left")
                    axis.set_title(f"{_wrapped(names[index], PANEL)}\n{title}")
    title = "evidence at layer " + "; ".join(dict.fromkeys(r.layer_name for r in results))
    figure.suptitle(_wrapped(title, figure.get_figwidth()), x=0.01, ha="left")
    return figure


def _strongest(evidence):
    """Where the scale of a map (h, w) ends."""
    strength = np.abs(evidence)
    top, many = strength.max(initial=0), strength.size >= MANY_PLACES
    # Where the evidence is in a place or two, the usual is next to nothing.
    return float(max(np.percentile(strength, 99.5), top / 20) if many else top)


def _draw_evidence(figure, pair, picture, result, row, top, class_names):
    """One raw map with its colour bar, and the same over the picture."""
    raw, verdict = result.maps[row], result.verdicts[row]
    name = class_names[result.class_index[row]]
    top = top if top > 0 else 1.0
    signed = (result.maps < 0).any()
    colors, least = (SIGNED_COLORS, -1) if signed else (EVIDENCE_COLORS, 0)
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)  # as large as the picture beside it
    shown = pair[0].imshow(raw, cmap=colors, vmin=least * top, vmax=top, extent=extent)
    direction = "for or against" if signed else "for"
    title = f"{result.method} {direction} {name}, {raw.shape[0]}x{raw.shape[1]}"
    pair[0].set_title(_wrapped(title, PANEL + 0.3))  # over the colour bar too
    beyond = raw.max(initial=0) > top, raw.min(initial=0) < least * top
    extend = {(True, False): "max", (False, True): "min", (True, True): "both"}.get(beyond)
    bar = figure.colorbar(shown, ax=pair[0], shrink=0.76, pad=0.03, extend=extend or "neither")
    bar.ax.tick_params(labelsize=9)
    _draw_overlay(pair[1], picture, raw / top, colors, least)
    pair[1].set_title(_wrapped(f"{name} {result.scores[row]:+.2f} logit", PANEL))
    if verdict != "ok":
        pair[0].text(0.5, 0.5, verdict, transform=pair[0].transAxes, ha="center", color="white")


def _draw_overlay(axis, picture, evidence, colors, least):
    """Lay evidence in `least`..1 over the grey picture, as opaque as it is strong."""
    height, width = picture.shape[:2]
    strength = cv2.resize(evidence, (width, height), interpolation=cv2.INTER_LINEAR)
    grey = picture.mean(axis=2)  # so that every colour in the overlay is evidence
    axis.imshow(grey, cmap="gray", vmin=0, vmax=1)
    opacity = 0.85 * np.minimum(np.abs(strength), 1) ** 0.5
    axis.imshow(strength, cmap=colors, vmin=least, vmax=1, alpha=opacity)


@_described(descriptions.exploration)
def draw_exploration(
    image: ArrayLike,
    feature_map: ArrayLike,
    ascended: FilterImages | str,
    evidence: GradCAM | str,
    *,
    layer_name: str,
    channel: int,
    class_name: str = "",
    title: str = "picture",
    value_range: tuple[float, float] = (0, 255),
) -> DescribedFigure:
    """Draw a picture, what one channel makes of it, what excites that channel, and the evidence.

    Args:
        image: (H, W, 3) array.
        feature_map: (h, w) array, what the channel puts out for the picture.
        ascended: FilterImages of that channel alone, or words that say why there is none.
        evidence: GradCAM of that picture alone, or words that say why there is none.
        layer_name: The channel's layer.
        channel: The channel's index.
        class_name: The class that the evidence is for.
        title: What is to stand over the picture.
        value_range: The pixel values of black and of white.

    Returns:
        Figure: four panels in a row; words stand in the place of what there is none of. The colours
        of the feature map begin at 0, or at its lowest value where that is below 0.
    """
    picture, feature_map = _to_unit(image, value_range), np.asarray(feature_map, np.float32)
    height, width = picture.shape[:2]
    side = 2.15
    figure, (panels, bars) = _subplots(
        2, 4, figsize=(9, side * height / width + 1.1), height_ratios=(18 * height / width, 1)
    )
    for axis in (*panels, bars[0], bars[2]):
        axis.axis("off")
    panels[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
    low, high = min(0.0, float(feature_map.min())), float(feature_map.max())
    shown = panels[1].imshow(
        feature_map, cmap=ACTIVATION_COLORS, vmin=low, vmax=high if high > low else low + 1,
        extent=(0, width, height, 0),
    )  # fmt: skip
    figure.colorbar(shown, cax=bars[1], orientation="horizontal", label="activation")
    size = "{}x{}".format(*feature_map.shape)
    titles = (
        title,
        f"{layer_name},\nchannel {channel}, {size}",
        _draw_excitement(panels[2], ascended, value_range),
        _draw_explanation(figure, panels[3], bars[3], picture, evidence, class_name),
    )
    for axis, text in zip(panels, titles, strict=True):
        axis.set_title("\n".join(_wrapped(line, side) for line in text.split("\n")))
    return figure


def _draw_excitement(axis, ascended, value_range):
    """The ascended picture of one channel, or words; -> its title."""
    if isinstance(ascended, str):
        _draw_words(axis, ascended)
        return "no ascended picture"
    verdict = ascended.verdicts[0]
    tile = _or_nothing(_to_unit(ascended.images[0], value_range), verdict == "ok")
    axis.imshow(tile, cmap="gray", vmin=0, vmax=1)
    if verdict != "ok":
        return f"nothing to see: {verdict}"
    before, after = ascended.start_activations[0], ascended.activations[0]
    return f"excites it to {after:.2g}\n{before:.2g} on noise"


def _draw_explanation(figure, axis, bar, picture, evidence, class_name):
    """The evidence over the grey picture, with a colour bar, or words; -> its title."""
    if isinstance(evidence, str):
        bar.axis("off")
        _draw_words(axis, evidence)
        return "no heat map"
    raw, verdict = evidence.maps[0], evidence.verdicts[0]
    top = float(raw.max(initial=0)) or 1.0
    _draw_overlay(axis, picture, raw / top, EVIDENCE_COLORS, 0)
    scale = plt.cm.ScalarMappable(plt.Normalize(0, top), EVIDENCE_COLORS)
    layer = evidence.layer_name.split(", ")[0].rsplit("/")[-1]
    figure.colorbar(scale, cax=bar, orientation="horizontal", label=f"evidence at {layer}")
    found = "" if verdict == "ok" else f", {verdict}"
    return f"{evidence.method} for {class_name}{found}\n{evidence.scores[0]:+.2f} logit"


def _draw_words(axis, words):
    axis.imshow(np.full((1, 1, 3), NOTHING_TO_SEE), extent=(0, 1, 0, 1))
    text = "\n".join(textwrap.wrap(words, 28, max_lines=10))
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9)


@_described(descriptions.architecture)
def draw_architecture(shapes: Sequence[LayerShape], *, title: str | None = None) -> DescribedFigure:
    """Draw a network as the picture passes through it, from left to right.

    Args:
        shapes: What `layer_shapes` returns.
        title: What is to stand over it; None takes the number of parameters.

    Returns:
        Figure: a slab for each convolution, pooling and dense layer: higher with the pixels along a
        side of its feature maps, thicker with its channels, both by their square roots, since the
        numbers stand beside. A plus is an addition, a diamond a concatenation, each with a line
        from the layer whose output skips those between. Up to 26 layers have their names below
        them; of more, a table tells for each size what there is. Layers that keep the shape, such
        as normalisations, are left out, and what is squeezed to 1x1 on the way.
    """
    drawn = _drawn_layers(shapes)
    stages = [list(run) for _, run in itertools.groupby(drawn, lambda item: item[1].shape[:-1])]
    rows = [] if len(drawn) <= MOST_NAMED else [_stage_row(stage) for stage in stages]
    longest = max(len(_bare(shape.name)) for _, shape in drawn)
    below = 0.3 + 0.19 * len(rows) if rows else 0.3 + 0.08 * longest
    figure, axis = _subplots(figsize=(9, 2 * SLAB + below + 1.3))
    places = _draw_slabs(axis, stages, named=not rows)
    _draw_skips(axis, shapes, drawn, places)
    for line, cells in enumerate(rows):
        for left, text in zip((0.0, 0.1, 0.27, 0.67), cells, strict=True):
            where = axis.get_yaxis_transform()
            axis.text(left, -SLAB - 0.3 - 0.19 * line, text, transform=where, fontsize=9)
    axis.set(ylim=(-SLAB - below, SLAB + 0.55))
    axis.axis("off")
    total = sum(shape.parameters for shape in shapes)
    beside = "" if rows else "; height x width above, channels below"
    axis.set_title(title or f"{total:,} parameters{beside}")
    counts = collections.Counter(role for role, _ in drawn)
    handles = [
        matplotlib.lines.Line2D([], [], linestyle="", label=_counted(counts[role], role), **marker)
        for role, marker in ROLES.items()
        if counts[role] and role != "picture"
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
    return figure


def _drawn_layers(shapes):
    """[(role, shape)] of what is drawn."""
    items = [(_role(shape.kind), shape) for shape in shapes]
    items = [(role, shape) for role, shape in items if role and len(shape.shape) in (1, 3)]
    has_places = [math.prod(shape.shape[:-1]) > 1 for _, shape in items]
    last = max((place for place, spatial in enumerate(has_places) if spatial), default=-1)
    return [item for place, item in enumerate(items) if has_places[place] or place > last]


def _role(kind):
    """The role of a class of layers, one of `ROLES`; None of those that are not drawn."""
    exact = {"Input": "picture", "Add": "addition", "Concatenate": "concatenation"}
    exact["Dense"] = "dense layer"
    parts = {"Conv": "convolution", "Pool": "pooling"}
    return exact.get(kind) or next((parts[part] for part in parts if part in kind), None)


def _counted(count, noun):
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _bare(name):
    return name.rsplit("/", 1)[-1]


def _size_text(shape):
    return f"{shape.shape[0]}x{shape.shape[1]}" if len(shape.shape) == 3 else "vector"


def _stage_row(stage):
    """What there is of one size: size, channels, layers, names of the first and the last."""
    channels = sorted(shape.shape[-1] for _, shape in stage)
    low, high = channels[0], channels[-1]
    counts = collections.Counter(role for role, _ in stage)
    first, last = (_bare(stage[place][1].name) for place in (0, -1))
    return (
        _size_text(stage[0][1]),
        f"{_counted(low, 'channel')}" if low == high else f"{low} to {high} channels",
        ", ".join(_counted(count, role) for role, count in counts.items() if role != "picture"),
        first if first == last else f"{first} ... {last}",
    )


def _draw_slabs(axis, stages, named):
    """Draw all layers but the lines that skip some; -> {name: (x, how far it reaches up)}."""
    room = {role: 0.6 if role in MERGES else 1.0 for role in ROLES}
    widths = [sum(room[role] for role, _ in stage) for stage in stages]
    shapes = [shape.shape for stage in stages for _, shape in stage]
    side = max((shape[0] for shape in shapes if len(shape) == 3), default=1)
    channels = max(shape[-1] for shape in shapes)
    left, places = 0.0, {}
    for stage, width in zip(stages, widths, strict=True):
        wide = max(width, 0.09 * sum(widths))  # for the size that stands over it
        x = left + (wide - width) / 2
        for role, shape in stage:
            x += room[role] / 2
            height = shape.shape[0] if len(shape.shape) == 3 else 1
            top = MERGE if role in MERGES else SLAB * (height / side) ** 0.5
            thick = 0.25 + 0.6 * (shape.shape[-1] / channels) ** 0.5
            if role not in MERGES:
                axis.bar(x, 2 * top, thick, -top, color=ROLES[role]["color"], zorder=2)
            places[shape.name] = x, top
            x += room[role] / 2
        axis.text(left + wide / 2, SLAB + 0.3, _size_text(stage[0][1]), ha="center", fontsize=9)
        left += wide + 0.4
    axis.axhline(0, color="0.6", linewidth=1, zorder=1)
    axis.set_xlim(-0.2, left - 0.2)
    largest = 0.55 * 72 * 9 / left  # points
    for role, shape in itertools.chain(*stages):
        x, merges = places[shape.name][0], role in MERGES
        if merges:
            marker = ROLES[role] | {"markersize": min(largest, ROLES[role]["markersize"])}
            axis.plot(x, 0, **marker)
        if named:
            number = "" if merges else f"{shape.shape[-1]}"
            axis.text(x, -SLAB - 0.22, number, ha="center", fontsize=9)
            style = {"rotation": 90, "ha": "center", "va": "top", "fontsize": 9}
            axis.text(x, -SLAB - 0.3, _bare(shape.name), color="0.4" if merges else "0", **style)
    return places


def _draw_skips(axis, shapes, drawn, places):
    """A line to each addition from the layers whose outputs skip those in between."""
    order = {shape.name: place for place, (_, shape) in enumerate(drawn)}
    inputs = {shape.name: shape.inputs for shape in shapes}

    @functools.cache
    def latest(name):
        """The last drawn layer on the way to what a layer puts out."""
        if name in order:
            return name
        return max(
            map(latest, inputs.get(name, ())), key=lambda name: order.get(name, -1), default=None
        )

    for role, shape in drawn:
        if role not in MERGES:
            continue
        sources = sorted({latest(name) for name in shape.inputs} & set(order), key=order.get)
        for source in sources[:-1]:
            between = [s.name for _, s in drawn[order[source] : order[shape.name]]]
            over = max(places[name][1] for name in between) + 0.1
            (start, low), (end, high) = places[source], places[shape.name]
            x = [start + 0.1, start + 0.1, end - 0.1, end - 0.1]
            axis.plot(x, [low, over, over, high], color="0.3", linewidth=0.9)


@_described(descriptions.map_trust)
def draw_map_trust(result: MapTrust) -> DescribedFigure:
    """Draw how far the heat maps of several methods can be trusted, one panel a measure.

    Args:
        result: MapTrust, as `map_trust` returns it.

    Returns:
        Figure: bars with their numbers; a dashed line stands where a map that knows nothing comes
        out.
    """
    measures = {
        "focus": "evidence on the\nright two of four:\nhigh is good",
        "pointing": "evidence on the\nright one of four:\nhigh is good",
        "deletion": "probability while it\nis taken away:\nlow is good",
        "insertion": "probability while it\nis put back:\nhigh is good",
        "survival": "what is left with\nshuffled weights:\nnear 0 is good",
    }
    size = (1.8 * len(measures), 1.1 + 0.3 * len(result.methods))
    figure, axes = _subplots(1, len(measures), figsize=size, sharey=True)
    known = result.methods.index("random")
    for axis, (measure, title) in zip(axes, measures.items(), strict=True):
        values = getattr(result, measure)
        axis.barh(result.methods, np.nan_to_num(values), color=TRAINING_COLOR)
        for row, value in enumerate(values):
            if np.isfinite(value):  # beyond where a bar or the dashed line can reach
                axis.text(1.42, row, f"{value:.2f}", ha="right", va="center", fontsize=9)
        nothing = values[known] if np.isfinite(values[known]) else 0
        axis.axvline(nothing, color="0.4", linestyle="--", linewidth=0.8)
        axis.set(xlim=(min(0, np.nanmin(values) * 1.1), 1.45), xticks=(0, 0.5, 1))
        axis.set_title(title, fontsize=9)
    axes[0].invert_yaxis()
    return figure


@_described(descriptions.census)
def draw_census(result: FilterCensus) -> DescribedFigure:
    """Draw what the channels of each layer do, as a bar of shares a layer.

    Args:
        result: FilterCensus, as `filter_census` returns it.

    Returns:
        Figure: the first layer on top; a number in a part of a bar is that of its channels.
    """
    figure, axis = _subplots(figsize=(9, 1.0 + 0.28 * len(result.layers)))
    names = [layer.layer_name for layer in result.layers]
    start = np.zeros(len(names))
    for kind, color in CENSUS_COLORS.items():
        counts = np.array([layer.count(kind) for layer in result.layers])
        share = counts / [len(layer.verdicts) for layer in result.layers] * 100
        bars = axis.barh(names, share, left=start, color=color, label=kind)
        dark = matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(color))[2] < 0.75
        texts = [str(count) if part >= 4 else "" for count, part in zip(counts, share, strict=True)]
        axis.bar_label(
            bars, texts, label_type="center", fontsize=9, color="white" if dark else "black"
        )
        start += share
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="% of the layer's channels")
    axis.set_title(f"what the channels did on {result.pictures:,} pictures", pad=24)
    axis.legend(
        ncols=len(CENSUS_COLORS), loc="lower left", bbox_to_anchor=(0, 1), frameon=False,
        fontsize=9, borderpad=0, handlelength=1.2,
    )  # fmt: skip
    return figure


@_described(descriptions.mistakes)
def draw_mistakes(
    result: Mistakes, class_names: Sequence[str], *, value_range: tuple[float, float] = (0, 255)
) -> DescribedFigure:
    """Draw confident mistakes: the picture, the evidence for both classes, what it was taken for.

    Args:
        result: Mistakes, as `confident_mistakes` returns it.
        class_names: The classes' names, by index.
        value_range: The pixel values of black and of white.

    Returns:
        Figure: a row for each mistake, the worst on top; the evidence for its label and that for
        the model's answer are on one scale. Without any mistake the figure says so.
    """
    rows, neighbours = len(result.images), result.neighbours.shape[1]
    if not rows:
        figure, axis = _subplots(figsize=(5, 0.6))
        axis.axis("off")
        axis.set_title("no mistake was made")
        return figure
    size = (1.3 * (3 + neighbours), 1.8 * rows)
    figure, axes = _subplots(rows, 3 + neighbours, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, line in enumerate(axes):
        picture = _to_unit(result.images[row], value_range)
        given = result.probabilities[row, result.labels[row]]
        line[0].imshow(picture)
        title = f"{class_names[result.labels[row]]}: {given:.1%}"
        line[0].set_title(_wrapped(title, 1.3), fontsize=9)
        top = max(float(maps.maps[row].max(initial=0)) for maps in result.evidence) or 1.0
        for axis, maps in zip(line[1:3], result.evidence, strict=True):
            _draw_overlay(axis, picture, maps.maps[row] / top, EVIDENCE_COLORS, 0)
            name, verdict = class_names[maps.class_index[row]], maps.verdicts[row]
            title = f"for {name}" if verdict == "ok" else f"{verdict} ({name})"
            axis.set_title(_wrapped(title, 1.3), fontsize=9)
        for place, axis in enumerate(line[3:]):
            axis.imshow(_to_unit(result.neighbours[row, place], value_range))
            name = class_names[result.neighbour_labels[row, place]]
            title = f"{name}, {result.similarity[row, place]:.2f} alike"
            axis.set_title(_wrapped(title, 1.3), fontsize=9)
    columns = "mistake and what its label got, evidence for the label and for the answer"
    columns += ", nearest training pictures" if neighbours else ""
    figure.suptitle(_wrapped(columns, figure.get_figwidth()), x=0.01, ha="left", fontsize=10)
    return figure


@_described(descriptions.changes)
def draw_changes(
    result: ModelChanges, *, value_range: tuple[float, float] = (0, 255)
) -> DescribedFigure:
    """Draw what changed between two states of a network.

    Args:
        result: ModelChanges, as `compare_models` returns it.
        value_range: The pixel values of black and of white.

    Returns:
        Figure: the change of each layer's weights and of what it puts out; below, for the filters
        that changed most, their ascended pictures and their feature maps of the first picture,
        before over after, all maps on one scale, with a colour bar.
    """
    layers, filters = len(result.layer_names), len(result.filters)
    bars_height = 0.7 + 0.19 * layers
    tiles_height = 0.5 + 4 * min(1.6, 7.6 / filters)
    size = (9, bars_height + tiles_height)
    figure = plt.figure(figsize=size, FigureClass=DescribedFigure, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(bars_height, tiles_height))
    pair = above.subplots(1, 2, sharey=True)
    for axis, changes, title in zip(
        pair, (result.weights, result.activations), CHANGES, strict=True
    ):
        shown = np.where(np.isfinite(changes), changes, 0) * 100
        bars = axis.barh(range(layers), shown, color=TRAINING_COLOR)
        texts = ["none" if c == 0 else "" if np.isnan(c) else f"{c:.1%}" for c in changes]
        axis.bar_label(bars, texts, fontsize=9, padding=2)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=9)
        axis.set_xlim(0, max(1e-9, shown.max(initial=0)) * 1.2)
        axis.set_ylim(layers - 0.4, -0.6)  # the first layer on top
    pair[0].set_yticks(range(layers), result.layer_names, fontsize=9)
    axes = below.subplots(4, filters, squeeze=False)
    top = max(float(maps[0].max()) for maps in result.feature_maps) or 1.0
    for column, index in enumerate(result.filters):
        for row, images in enumerate(result.filter_images):
            ok = images.verdicts[column] == "ok"
            tile = _or_nothing(_to_unit(images.images[column], value_range), ok)
            axes[row, column].imshow(tile)
        for row, maps in enumerate(result.feature_maps, start=2):
            shown = axes[row, column].imshow(
                maps[0, ..., column], cmap=ACTIVATION_COLORS, vmin=0, vmax=top
            )
        axes[0, column].set_title(f"filter {index}", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    kinds = itertools.product(("wants to see,", "map,"), ("before", "after"))
    for line, (what, when) in zip(axes, kinds, strict=True):
        line[0].set_ylabel(f"{what}\n{when}", fontsize=9)
    beside_maps = {"shrink": 0.45, "anchor": (0, 0), "aspect": 24}  # but room beside all rows
    below.colorbar(shown, ax=axes, label="activation", pad=0.01, **beside_maps)
    title = (
        f"{result.layer_name}: what the filters want to see, and their maps of the first picture"
    )
    below.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _draw_tiles(tiles, indices, labels, notes=None):
    """Lay (T, h, w, 3) tiles in 0..1 out as one mosaic, numbered; labelled ones are crossed out.

    The others bear their note, if there is one.
    """
    count, height, width, _ = tiles.shape
    enlarge = max(1, math.ceil(40 / max(height, width)))  # so that the gaps stay thin
    tiles = tiles.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    height, width = tiles.shape[1:3]
    columns = min(count, 12 if count > 32 else 8)
    tile_inches = min(2.5, TILES_WIDTH / columns)
    rows = math.ceil(count / columns)
    mosaic = np.ones((rows * (height + GAP), columns * (width + GAP), 3), np.float32)
    figure, axis = _subplots(figsize=(columns * tile_inches, rows * tile_inches + TITLE_ROOM))
    for place, (tile, index, label) in enumerate(zip(tiles, indices, labels, strict=True)):
        top, left = place // columns * (height + GAP), place % columns * (width + GAP)
        mosaic[top : top + height, left : left + width] = tile
        box = {"facecolor": "black", "alpha": 0.45, "pad": 0.8, "linewidth": 0}
        axis.text(left, top, index, color="white", fontsize=7, ha="left", va="top", bbox=box)
        if label:
            ends = ([left, left + width - 1], [top, top + height - 1])
            axis.plot(*ends, color="0.55", linewidth=0.8)
            axis.plot(ends[0], ends[1][::-1], color="0.55", linewidth=0.8)
            x, y = left + width / 2, top + height - 2
            axis.text(x, y, label, color="0.2", fontsize=7, ha="center", va="bottom")
        elif notes is not None and notes[place]:
            x, y = left + width - 1, top + height - 1
            axis.text(
                x, y, notes[place], color="white", fontsize=7, ha="right", va="bottom", bbox=box
            )
    axis.imshow(mosaic)
    axis.axis("off")
    return figure, axis


def _wrapped(title, inches):
    """Break a title into lines that fit a width; a character takes about 1/13 inch."""
    return textwrap.fill(str(title), max(1, int(13 * inches)))


def _pictures(images, *belonging):
    """A list of (H, W, 3) pictures; what belongs to them must be as many, or None."""
    single = getattr(images, "ndim", 4) == 3
    images = [images] if single else list(images)
    counts = [len(images), *(len(others) for others in belonging if others is not None)]
    if not images or len(set(counts)) > 1:
        raise ValueError(
            f"`images` and what belongs to them (titles, maps) must be equally many, 1 or more; "
            f"they are {counts}"
        )
    return images


def _to_unit(image, value_range):
    """Pixel values -> 0..1 for display, whatever their range."""
    low, high = value_range
    return np.clip((np.asarray(image, np.float32) - low) / (high - low), 0, 1)
