"""Draw images, activations, filter images and top patches as grids of tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnviz.figures import style
from cnnviz.figures.style import DescribedFigure, counted, limits, styled, to_unit, to_units

if TYPE_CHECKING:
    from cnnviz.filter_ascent import FilterImages
    from cnnviz.top_patches import TopPatches


@styled
def draw_images(
    images: ArrayLike | Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    *,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw images in a grid.

    Args:
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays. One channel is drawn gray,
            two are drawn red and green; of more than three the first three are drawn.
        titles: N strings to stand over the images, or None; another number is a ValueError.
        value_range: The values of black and of white. None takes 0..1, -1..1 or 0..255, the first
            that holds all values, or else the lowest and the highest value.

    Example:
        >>> figure = cnnviz.figures.draw_images(cnnviz.sample_image(), ["a cat"])
    """
    images = to_units(images, value_range, titles)
    columns = min(style.COLUMNS, len(images))
    titles = [""] * len(images) if titles is None else titles
    panels = list(zip(images, titles, strict=True))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    return style.draw_grid(rows, min(style.LARGEST, style.PAGE_WIDTH / columns))


@styled
def draw_activations(maps: ArrayLike, layer_name: str) -> DescribedFigure:
    """Draw what a layer outputs for one image: its 48 strongest channels, on one color scale.

    The scale ends at the 99.5th percentile, so that a few extreme values do not leave the rest
    dark. NaN and infinity stay white.

    Args:
        maps: (h, w, C) feature maps of one image, or (L, C) of one signal; else a ValueError.
        layer_name: The layer, for the title.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> maps = cnnviz.extract_activations(model, image, "block2_conv2")["block2_conv2"]
        >>> figure = cnnviz.figures.draw_activations(maps[0], "block2_conv2")
    """
    maps = np.ma.masked_invalid(np.asarray(maps, np.float32))
    if maps.ndim not in (2, 3) or 0 in maps.shape:
        wanted = "(h, w, C), of one image or one slice of a volume, or (L, C), of one signal"
        raise ValueError(f"`maps` (of shape {maps.shape}) must be {wanted}")
    *size, channels = maps.shape
    highest = maps.reshape(-1, channels).max(0)
    shown = np.argsort(-highest.filled(-np.inf), kind="stable")[: style.MOST_TILES]
    tiles = np.moveaxis(maps[..., shown], -1, 0)
    values = np.append(tiles.compressed(), 0)
    low, high = values.min(), np.percentile(values, 99.5)
    high = high if high > low else max(values.max(), low + 1e-6)
    if len(size) == 1:  # channels from top to bottom
        figure, axis = style.subplots(figsize=(style.PAGE_WIDTH, 1 + 0.17 * len(shown)))
        image = axis.imshow(tiles, aspect="auto", vmin=low, vmax=high)
        axis.set_yticks(range(len(shown)), shown, fontsize=9)
        axis.set(xlabel="position", ylabel="channel")
    else:
        figure, axis, image = style.draw_tiles(tiles, shown, vmin=low, vmax=high)
        figure.set_figwidth(figure.get_figwidth() + 0.8)
    figure.colorbar(image, ax=axis, label="activation", extend="max", aspect=30, pad=0.01)
    title = f"{layer_name}: {_some(len(shown), channels, 'channel')} of {'x'.join(map(str, size))}"
    silent = (highest <= 0).sum()
    title += f"; {silent} nowhere above 0 on this image" if silent else ""
    axis.set_title(style.wrapped(title, figure.get_figwidth()))
    return figure


def _some(shown, total, noun):
    return ("" if shown == total else f"the {shown} strongest of ") + counted(total, noun)


@styled
def draw_filters(result: FilterImages) -> DescribedFigure:
    """Draw what excites the filters of a layer: what `ascend_filters` found, the 48 strongest.

    Filters with nothing to see, such as dead ones, are counted in the title and left out. If there
    are only such, gray tiles say so.
    """
    verdicts, order = np.array(result.verdicts), np.argsort(-result.activations, kind="stable")
    ok = order[verdicts[order] == "ok"]
    shown = (ok if len(ok) else order)[: style.MOST_TILES]
    labels = [f"{result.filters[n]} {verdicts[n]}".removesuffix(" ok") for n in shown]
    figure, axis, _ = style.draw_tiles(filter_tiles(result)[shown], labels)
    before, after = np.median(result.start_activations), np.median(result.activations)
    title = f"{result.layer_name}: {_some(len(shown), len(order), 'filter')}; median activation "
    title += f"{before:.2g} on noise, {after:.2g} on these images"
    for word in sorted({*verdicts} - {"ok"}):
        title += f"; {(verdicts == word).sum()} {word}"
    axis.set_title(style.wrapped(title, figure.get_figwidth()))
    return figure


def filter_tiles(result):
    """The images of FilterImages as tiles: gray where there is nothing to see."""
    tiles = np.array(to_units(result.images, result.value_range))
    tiles[np.array(result.verdicts) != "ok"] = style.NOTHING_TO_SEE
    return tiles


@styled
def draw_patches(
    result: TopPatches,
    *,
    ascended: FilterImages | None = None,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw the patches of real images that excite each of the first 12 filters, with activations.

    Args:
        result: TopPatches, as `top_patches` returns it.
        ascended: FilterImages of the same layer, with all these filters, to stand before them.
        value_range: The values of black and of white; None finds them: see `draw_images`.
    """
    filters, (height, width) = result.filters[: style.MOST_ROWS].tolist(), result.patches.shape[2:4]
    found = [] if ascended is None else ascended.filters.tolist()
    if found and (ascended.layer_name != result.layer_name or {*filters} - {*found}):
        wanted = f"filters {filters} of layer '{result.layer_name}'"
        raise ValueError(f"`ascended` (of layer '{ascended.layer_name}') must hold the {wanted}")
    patches, rows = to_unit(result.patches, limits([result.patches], value_range)), []
    patches[result.activations == 0] = style.NOTHING_TO_SEE
    tiles = filter_tiles(ascended) if found else []
    for row, index in enumerate(filters):
        words = [f"{value:.3g}" if value else "did not fire" for value in result.activations[row]]
        panels = list(zip(patches[row], words, strict=True))
        if found:
            place = found.index(index)
            panels.insert(0, (tiles[place], ascended.verdicts[place]))
        panels[0] = panels[0][0], f"filter {index}: {panels[0][1]}".removesuffix(": ok")
        rows.append(panels)
    heading = f"{result.layer_name}: the patches of {height}x{width} that excite "
    heading += f"{counted(len(rows), 'filter')} most" + ("; left, by gradient ascent" * bool(found))
    return style.draw_grid(rows, 1.25, heading)
