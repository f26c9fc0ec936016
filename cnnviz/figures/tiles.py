"""Draw images, activations, filter images and top patches in grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnviz.figures import style
from cnnviz.figures.style import DescribedFigure, counted, styled, to_units

if TYPE_CHECKING:
    from cnnviz.filter_ascent import FilterImages
    from cnnviz.top_patches import TopPatches

MOST_TILES, TILES_IN_A_ROW = 48, 8  # of feature maps or filter images


@styled
def draw_images(
    images: ArrayLike | Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    *,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw images in a grid.

    Args:
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays. Of three channels or more
            the first three are drawn, of fewer the first, gray.
        titles: N strings to stand over the images, or None; another number is a ValueError.
        value_range: The values of black and of white. None takes 0..1, -1..1 or 0..255, the first
            that holds all values, or else the lowest and the highest value.

    Example:
        >>> figure = cnnviz.figures.draw_images(cnnviz.sample_image(), ["a cat"])
    """
    images = to_units(images, value_range, titles)
    titles = [""] * len(images) if titles is None else titles
    panels = list(zip(images, titles, strict=True))
    return style.draw_grid(panels, style.COLUMNS)


@styled
def draw_activations(maps: ArrayLike, layer_name: str) -> DescribedFigure:
    """Draw what a layer outputs for one image: its 48 strongest channels, on one color scale.

    The scale ends at the 99.5th percentile. NaN and infinity stay white.

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
    channels = maps.shape[-1]
    highest = maps.reshape(-1, channels).max(0)
    shown = np.argsort(-highest.filled(-np.inf), kind="stable")[:MOST_TILES]
    tiles = np.moveaxis(maps[..., shown], -1, 0)
    values = np.append(tiles.compressed(), 0)
    low, high = values.min(), np.percentile(values, 99.5)
    scale = {"vmin": low, "vmax": high if high > low else max(values.max(), low + 1e-6)}
    title = f"{layer_name}: {len(shown)} of {channels} channels, the strongest first"
    if silent := (highest <= 0).sum():
        title += f"; {silent} nowhere above 0 on this image"
    if maps.ndim == 3:
        panels = [(tile, str(channel), scale) for tile, channel in zip(tiles, shown, strict=True)]
        figure = style.draw_grid(panels, TILES_IN_A_ROW, title)
        figure.axes[-1].set_ylabel("activation")
        return figure
    figure, axis = style.subplots(figsize=(style.PAGE_WIDTH, 1 + 0.17 * len(shown)))
    image = axis.imshow(tiles, aspect="auto", **scale)
    axis.set_yticks(range(len(shown)), shown, fontsize=9)
    axis.set(xlabel="position", ylabel="channel")
    axis.set_title(style.wrapped(title, style.PAGE_WIDTH))
    figure.colorbar(image, ax=axis, label="activation", aspect=30, pad=0.01)
    return figure


@styled
def draw_filters(result: FilterImages) -> DescribedFigure:
    """Draw what excites the filters of a layer: what `ascend_filters` found, the 48 strongest.

    Filters with nothing to see, such as dead ones, are counted in the title and left out, unless
    there are only such.
    """
    verdicts, order = np.array(result.verdicts), np.argsort(-result.activations, kind="stable")
    ok = order[verdicts[order] == "ok"]
    shown = (ok if len(ok) else order)[:MOST_TILES]
    images = to_units(result.images, result.value_range)
    panels = [(images[n], f"{result.filters[n]} {verdicts[n]}".removesuffix(" ok")) for n in shown]
    before, after = np.median(result.start_activations), np.median(result.activations)
    title = f"{result.layer_name}: {len(shown)} of {len(order)}, the strongest first; "
    title += f"median activation {before:.2g} on noise, {after:.2g} on these images"
    for word in sorted({*verdicts} - {"ok"}):
        title += f"; {(verdicts == word).sum()} {word}"
    return style.draw_grid(panels, TILES_IN_A_ROW, title)


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
    filters = result.filters[: style.MOST_ROWS].tolist()
    found = [] if ascended is None else ascended.filters.tolist()
    if found and (ascended.layer_name != result.layer_name or {*filters} - {*found}):
        wanted = f"filters {filters} of layer '{result.layer_name}'"
        raise ValueError(f"`ascended` (of layer '{ascended.layer_name}') must hold the {wanted}")
    images = to_units(ascended.images, ascended.value_range) if found else []
    patches, panels = iter(to_units(np.concatenate(result.patches), value_range)), []
    for row, index in enumerate(filters):
        if found:
            place = found.index(index)
            title = f"filter {index}: {ascended.verdicts[place]}".removesuffix(": ok")
            panels.append((images[place], title))
        for value in result.activations[row]:
            title = f"filter {index}: {value:.3g}" if value else f"filter {index} did not fire"
            panels.append((next(patches), title))
    height, width = result.patches.shape[2:4]
    heading = f"{result.layer_name}: the patches of {height}x{width} that excite "
    heading += f"{counted(len(filters), 'filter')} most, with the activation"
    heading += "; left, by gradient ascent" if found else ""
    return style.draw_grid(panels, len(panels) // len(filters), heading, side=1.4)
