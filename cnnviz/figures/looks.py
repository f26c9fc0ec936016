"""(pictures, activations, ascended pictures, crops) -> Figure: grids and mosaics of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import descriptions
from cnnviz.figures.style import (
    ACTIVATION_COLORS,
    NOTHING_TO_SEE,
    TILES_WIDTH,
    TITLE_ROOM,
    DescribedFigure,
    described,
    draw_tiles,
    or_nothing,
    pictures,
    subplots,
    to_unit,
    wrapped,
)

if TYPE_CHECKING:
    from cnnviz.exciting_crops import ExcitingCrops
    from cnnviz.filter_ascent import FilterImages

BAR_ROOM, BAR_WIDTH, BAR_HEIGHT = 0.8, 0.12, 2.6  # of its colour bar, however high the mosaic
GRID_WIDTH, LARGEST = 8.4, 2.4  # of a grid of pictures, and the side of one where they are few


@described(descriptions.images)
def draw_images(
    images: ArrayLike | Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    value_range: tuple[float, float] = (0, 255),
) -> DescribedFigure:
    """Draw pictures in a grid.

    Args:
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays. Of one channel they are grey,
            of two red and green; of more than three the first three are shown.
        titles: N strings to stand over them, or None.
        columns: Pictures in a row.
        value_range: The values of black and of white.

    Returns:
        Figure: as wide as a page can show it, whatever the number of columns; fewer pictures are
        larger, up to a size at which nothing more is to be seen.
    """
    images = pictures(images, titles)
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    side = min(LARGEST, GRID_WIDTH / columns)
    size = (side * columns, (side + (0.06 if titles is None else 0.22)) * rows)
    figure, axes = subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(to_unit(image, value_range))
        if titles is not None:
            axis.set_title(wrapped(titles[index], side))
    return figure


@described(descriptions.activations)
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
        the values, so that a few extreme ones do not leave the rest dark. Dead channels, and those
        in which NaN or infinity is, are grey and crossed out.

    Raises:
        ValueError: If the shapes are not as said here.
    """
    feature_maps = np.asarray(feature_maps, np.float32)
    if feature_maps.ndim != 3 or 0 in feature_maps.shape:
        raise ValueError(
            f"`feature_maps` (of shape {feature_maps.shape}) must be (h, w, C), of one picture: of "
            "what `extract_activations` returns for a layer, one row"
        )
    height, width, channels = feature_maps.shape
    dead = np.zeros(channels, bool) if dead is None else np.asarray(dead, bool)
    if dead.shape != (channels,):
        raise ValueError(f"`dead` (of shape {dead.shape}) must be ({channels},), one a channel")
    is_finite = np.isfinite(feature_maps)
    broken, finite = ~is_finite.all((0, 1)), feature_maps[is_finite]
    low, high = np.percentile(finite, (0.5, 99.5)).tolist() if finite.size else (0.0, 0.0)
    low = min(0.0, low)
    if high <= low:  # nearly all values are zero
        high = float(finite.max(initial=low))
    if high <= low:
        high = low + 1.0
    shown = np.where(broken, low, feature_maps)
    colored = plt.get_cmap(ACTIVATION_COLORS)((shown - low) / (high - low))[..., :3]
    tiles = colored.transpose(2, 0, 1, 3)
    tiles[dead | broken] = NOTHING_TO_SEE
    labels = [
        "NaN or inf" if is_broken else "dead" if is_dead else ""
        for is_broken, is_dead in zip(broken, dead, strict=True)
    ]
    figure, axis = draw_tiles(tiles, range(channels), labels)
    scale = plt.cm.ScalarMappable(plt.Normalize(low, high), ACTIVATION_COLORS)
    extend = "both" if low < 0 else "max"
    tall = _make_room_for_bar(figure)
    figure.colorbar(
        scale, ax=axis, label="activation", shrink=min(1, BAR_HEIGHT / tall), anchor=(0, 1),
        aspect=min(tall, BAR_HEIGHT) / BAR_WIDTH, pad=0.01, extend=extend, extendfrac=0.04,
    )  # fmt: skip
    flat = int((~dead & ~broken & (shown.max((0, 1)) <= shown.min((0, 1)))).sum())
    found = f"{int(dead.sum())} dead, {flat} more" if dead.any() else str(flat)
    found = f"{int(broken.sum())} with NaN or infinity, {found}" if broken.any() else found
    title = f"{layer_name}: {channels} channels of {height}x{width}, {found} flat on this picture"
    axis.set_title(wrapped(title, figure.get_figwidth()))
    return figure


def _make_room_for_bar(figure):
    """Let a mosaic keep its shape beside a colour bar; -> its height in inches."""
    width, height = figure.get_size_inches()
    wider = min(TILES_WIDTH, width + BAR_ROOM)
    tall = (height - TITLE_ROOM) * (wider - BAR_ROOM) / width
    figure.set_size_inches(wider, tall + TITLE_ROOM)
    return tall


@described(descriptions.filters)
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
    tiles = to_unit(result.images, value_range)
    ok = np.array([verdict == "ok" for verdict in result.verdicts])
    tiles[~ok] = NOTHING_TO_SEE
    labels = ["" if verdict == "ok" else verdict for verdict in result.verdicts]
    figure, axis = draw_tiles(tiles, result.filters, labels, _ratios(result, strongest))
    before, after = np.median(result.start_activations), np.median(result.activations)
    title = (
        f"{result.layer_name}: {len(ok)} tiles, {int((~ok).sum())} with nothing to see; "
        f"median activation {before:.2g} on noise, {after:.2g} on these"
    )
    if strongest is not None:
        title += "; in the corners: times as much as on the best picture given"
    axis.set_title(wrapped(title, figure.get_figwidth()))
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
        ">999x"
        if ratio > 999
        else f"{ratio:.0f}x"
        if ratio >= 10
        else f"{ratio:.2g}x"
        if real > 0
        else "silent"
        for ratio, real in zip(ratios, strongest, strict=True)
    ]


@described(descriptions.exciting_crops)
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
    figure, axes = subplots(rows, first + count, figsize=size, squeeze=False)
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
            axis.imshow(or_nothing(to_unit(crop, value_range), fired))
            axis.set_xlabel(f"{activation:.3g}" if fired else "did not fire", fontsize=8)
    title = (
        f"{result.layer_name}: {rows} filters, the {count} crops of {height}x{width} pixels that "
        "excite each most, with their activation"
    )
    figure.suptitle(wrapped(title, figure.get_figwidth()), x=0.01, ha="left", fontsize=10)
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
    axis.imshow(or_nothing(to_unit(ascended.images[place], value_range), verdict == "ok"))
    comparable = verdict == "ok" and best > 0
    text = f"{ascended.activations[place] / best:.1f}x the best mean" if comparable else verdict
    axis.set_xlabel(text, fontsize=8)
