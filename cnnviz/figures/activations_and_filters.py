"""Draw images, activations, filter images and top patches as grids of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnviz.figures import style
from cnnviz.figures.style import NOTHING_TO_SEE, DescribedFigure, counted, limits, styled, to_unit

if TYPE_CHECKING:
    from cnnviz.filter_ascent import FilterImages
    from cnnviz.top_patches import TopPatches


@styled
def draw_images(
    images: ArrayLike | Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw images in a grid.

    Args:
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays. One channel is drawn gray,
            two are drawn red and green; of more than three the first three are drawn.
        titles: N strings to stand over the images, or None.
        columns: Images in a row.
        value_range: The values of black and of white. None takes 0..1, -1..1 or 0..255, the first
            that holds all values, or else the lowest and the highest value.

    Returns:
        Figure

    Raises:
        ValueError: If images and titles are not equally many, 1 or more.

    Example:
        >>> figure = cnnviz.figures.draw_images(cnnviz.sample_image(), ["a cat"])
    """
    images = style.to_units(images, value_range, titles)
    columns = min(columns, len(images))
    titles = [""] * len(images) if titles is None else titles
    panels = list(zip(images, titles, strict=True))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    return style.draw_grid(rows, min(style.LARGEST, style.PAGE_WIDTH / columns))


@styled
def draw_activations(maps: ArrayLike, layer_name: str, *, n_channels: int = 48) -> DescribedFigure:
    """Draw what a layer outputs for one image: its strongest channels, all on one color scale.

    Args:
        maps: (h, w, C) feature maps of one image.
        layer_name: The layer, for the title.
        n_channels: Channels at most: those with the highest activation, the highest first.

    Returns:
        Figure: a tile for each channel, with the channel's index. The color scale ends at the
        99.5th percentile, so that a few extreme values do not leave the rest dark. The title counts
        the channels that are nowhere above 0, and those with NaN or infinity, which stay white.

    Raises:
        ValueError: If `maps` has another shape.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> maps = cnnviz.extract_activations(model, image, "block2_conv2")["block2_conv2"]
        >>> figure = cnnviz.figures.draw_activations(maps[0], "block2_conv2")
    """
    maps = np.asarray(maps, np.float32)
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(
            f"`maps` (of shape {maps.shape}) must be (h, w, C), of one image: of what "
            "`extract_activations` returns for a layer, one row"
        )
    height, width, channels = maps.shape
    maps = np.ma.masked_invalid(maps)
    highest = maps.max((0, 1)).filled(-np.inf)
    shown = np.argsort(-highest, kind="stable")[:n_channels]
    tiles = np.moveaxis(maps[..., shown], -1, 0)
    values = np.append(tiles.compressed(), 0)
    low, high = min(0.0, values.min()), np.percentile(values, 99.5)
    high = high if high > low else max(values.max(), low + 1e-6)
    scale = {"cmap": style.ACTIVATION_COLORS, "vmin": low, "vmax": high}
    figure, axis, image = style.draw_tiles(tiles, shown, **scale)
    figure.set_figwidth(figure.get_figwidth() + 0.8)
    figure.colorbar(image, ax=axis, label="activation", extend="max", aspect=30, pad=0.01)
    title = f"{layer_name}: {_some(len(shown), channels, 'channel')} of {height}x{width}"
    broken = np.ma.getmaskarray(maps).any((0, 1))
    silent = (highest <= 0) & ~broken
    title += f"; {silent.sum()} nowhere above 0 on this image" if silent.any() else ""
    title += f"; {broken.sum()} with NaN or infinity" if broken.any() else ""
    axis.set_title(style.wrapped(title, figure.get_figwidth()))
    return figure


def _some(shown, total, noun):
    return ("" if shown == total else f"the {shown} strongest of ") + counted(total, noun)


@styled
def draw_filters(result: FilterImages, *, n_filters: int = 48) -> DescribedFigure:
    """Draw what excites the filters of a layer.

    Args:
        result: FilterImages, as `ascend_filters` returns it.
        n_filters: Filters at most: those with the highest activation, the highest first.

    Returns:
        Figure: a tile for each filter with the filter's index. Filters with nothing to see, such as
        dead ones, are counted in the title and left out. If there are only such, gray tiles say so.

    Example:
        >>> images = cnnviz.ascend_filters(cnnviz.load_pretrained(), "block1_conv1", range(4))
        >>> figure = cnnviz.figures.draw_filters(images)
    """
    verdicts, order = np.array(result.verdicts), np.argsort(-result.activations, kind="stable")
    ok = order[verdicts[order] == "ok"]
    shown = (ok if len(ok) else order)[:n_filters]
    tiles = np.array(style.to_units(result.images, result.value_range))
    tiles[verdicts != "ok"] = NOTHING_TO_SEE
    words = np.where(verdicts == "ok", "", verdicts)
    labels = [f"{result.filters[place]} {words[place]}".strip() for place in shown]
    figure, axis, _ = style.draw_tiles(tiles[shown], labels)
    before, after = np.median(result.start_activations), np.median(result.activations)
    title = f"{result.layer_name}: {_some(len(shown), len(order), 'filter')}; median activation "
    title += f"{before:.2g} on noise, {after:.2g} on these images"
    for word in sorted({*verdicts} - {"ok"}):
        title += f"; {(verdicts == word).sum()} {word}"
    axis.set_title(style.wrapped(title, figure.get_figwidth()))
    return figure


@styled
def draw_patches(
    result: TopPatches,
    *,
    ascended: FilterImages | None = None,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw the patches of real images that excite filters most, one row for each filter.

    Args:
        result: TopPatches, as `top_patches` returns it.
        ascended: FilterImages of the same layer that hold all these filters, to stand before them.
        value_range: The values of black and of white; None finds them: see `draw_images`.

    Returns:
        Figure: the first 12 filters, each with its patches and the filter's activation there, the
        strongest first. Gray tiles say why there is nothing to see.

    Raises:
        ValueError: If `ascended` is of another layer or lacks one of the filters.
    """
    total, count, height, width = result.patches.shape[:4]
    found = [] if ascended is None else ascended.filters.tolist()
    if found and (ascended.layer_name != result.layer_name or {*result.filters} - {*found}):
        raise ValueError(
            f"`ascended` (of layer '{ascended.layer_name}', filters {ascended.filters}) must hold "
            f"the filters {result.filters} of layer '{result.layer_name}'"
        )
    value_range = limits([result.patches, *([ascended.images] if found else [])], value_range)
    patches, rows = to_unit(result.patches, value_range), []
    patches[result.activations == 0] = NOTHING_TO_SEE
    for row, index in enumerate(result.filters[: style.MOST_ROWS].tolist()):
        words = [f"{value:.3g}" if value else "did not fire" for value in result.activations[row]]
        panels = list(zip(patches[row], words, strict=True))
        if found:
            place = found.index(index)
            tile, verdict = to_unit(ascended.images[place], value_range), ascended.verdicts[place]
            seen = (tile, "") if verdict == "ok" else (0 * tile + NOTHING_TO_SEE, verdict)
            panels.insert(0, seen)
        panels[0] = panels[0][0], f"filter {index}: {panels[0][1]}".rstrip(": ")
        rows.append(panels)
    which = "each filter" if len(rows) == total else f"the first {len(rows)} of {total} filters"
    heading = f"{result.layer_name}: the {count} patches of {height}x{width} that excite {which} "
    heading += "most" + ("; left, by gradient ascent" if found else "")
    return style.draw_grid(rows, 1.25, heading)
