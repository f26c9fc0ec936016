"""(pictures, heat maps) -> Figure: where the evidence lies; and the four panels of `explore`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import descriptions
from cnnviz.descriptions import name_of_class
from cnnviz.figures.style import (
    ACTIVATION_COLORS,
    EVIDENCE_COLORS,
    NOTHING_TO_SEE,
    PANEL,
    SIGNED_COLORS,
    DescribedFigure,
    described,
    draw_overlay,
    or_nothing,
    pictures,
    subplots,
    to_unit,
    wrapped,
)

if TYPE_CHECKING:
    from cnnviz.filter_ascent import FilterImages
    from cnnviz.grad_cam import GradCAM

MANY_PLACES = 256  # of a heat map, so that one in two hundred is more than one


@described(descriptions.heat_maps)
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
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays. Of one channel they are grey,
            of two red and green; of more than three the first three are shown.
        results: A GradCAM for these pictures, or a sequence of them, such as one for each class.
        class_names: The classes' names, by index; others are numbered.
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
    images = pictures(images, titles, *(result.maps for result in results))
    if names is not None and len(names) != len(results):
        raise ValueError(f"`names` (={names!r}) must be {len(results)}, one for each result")
    rows, columns = len(images), 1 + 2 * len(results)
    height, width = np.shape(images[0])[:2]
    size = (PANEL * columns + 0.5 * len(results), (PANEL * height / width + 0.4) * rows + 0.3)
    figure, axes = subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, image in enumerate(images):
        picture = to_unit(image, value_range)
        axes[row, 0].imshow(picture)
        axes[row, 0].set_title(wrapped(titles[row], PANEL) if titles is not None else "picture")
        for index, result in enumerate(results):
            alike = [other for other in results if other.method == result.method]
            top = max(_strongest(other.maps[row]) for other in alike)
            pair = axes[row, 1 + 2 * index : 3 + 2 * index]
            _draw_evidence(figure, pair, picture, result, row, top, class_names)
            if names is not None and row == 0:  # as the head of both columns
                for axis in pair:
                    title = axis.get_title(loc="left")
                    axis.set_title(f"{wrapped(names[index], PANEL)}\n{title}")
    places = dict.fromkeys((result.method, result.layer_name) for result in results)
    title = "evidence at " + "; ".join(
        f"{where} ({method})" if len(places) > 1 else where for method, where in places
    )
    figure.suptitle(wrapped(title, figure.get_figwidth()), x=0.01, ha="left")
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
    name = name_of_class(class_names, result.class_index[row])
    top = top if top > 0 else 1.0
    signed = (result.maps < 0).any()
    colors, least = (SIGNED_COLORS, -1) if signed else (EVIDENCE_COLORS, 0)
    height, width = picture.shape[:2]
    extent = (0, width, height, 0)  # as large as the picture beside it
    shown = pair[0].imshow(raw, cmap=colors, vmin=least * top, vmax=top, extent=extent)
    direction = "for or against" if signed else "for"
    title = f"{result.method} {direction} {name}, {raw.shape[0]}x{raw.shape[1]}"
    pair[0].set_title(wrapped(title, PANEL + 0.3))  # over the colour bar too
    beyond = raw.max(initial=0) > top, raw.min(initial=0) < least * top
    extend = {(True, False): "max", (False, True): "min", (True, True): "both"}.get(beyond)
    bar = figure.colorbar(shown, ax=pair[0], shrink=0.76, pad=0.03, extend=extend or "neither")
    bar.ax.tick_params(labelsize=9)
    draw_overlay(pair[1], picture, raw / top, colors, least)
    pair[1].set_title(wrapped(f"{name} {result.scores[row]:+.2f} logit", PANEL))
    if verdict != "ok":
        color = "black" if signed else "white"  # on the colour of no evidence
        pair[0].text(0.5, 0.5, verdict, transform=pair[0].transAxes, ha="center", color=color)


@described(descriptions.exploration)
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
        image: (H, W, C) array, of any number of channels: see `draw_heat_maps`.
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
    picture, feature_map = to_unit(image, value_range), np.asarray(feature_map, np.float32)
    height, width = picture.shape[:2]
    side = 2.15
    figure, (panels, bars) = subplots(
        2, 4, figsize=(9, side * height / width + 1.1), height_ratios=(18 * height / width, 1)
    )
    for axis in (*panels, bars[0], bars[2]):
        axis.axis("off")
    panels[0].imshow(picture)
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
        axis.set_title("\n".join(wrapped(line, side) for line in text.split("\n")))
    return figure


def _draw_excitement(axis, ascended, value_range):
    """The ascended picture of one channel, or words; -> its title."""
    if isinstance(ascended, str):
        _draw_words(axis, ascended)
        return "no ascended picture"
    verdict = ascended.verdicts[0]
    tile = or_nothing(to_unit(ascended.images[0], value_range), verdict == "ok")
    axis.imshow(tile, cmap="gray", vmin=0, vmax=1)
    if verdict != "ok":
        return f"nothing to see: {verdict}"
    before, after = ascended.start_activations[0], ascended.activations[0]
    return f"ascended: {after:.2g}\n(noise: {before:.2g})"


def _draw_explanation(figure, axis, bar, picture, evidence, class_name):
    """The evidence over the grey picture, with a colour bar, or words; -> its title."""
    if isinstance(evidence, str):
        bar.axis("off")
        _draw_words(axis, evidence)
        return "no heat map"
    raw, verdict = evidence.maps[0], evidence.verdicts[0]
    top = float(raw.max(initial=0)) or 1.0
    draw_overlay(axis, picture, raw / top, EVIDENCE_COLORS, 0)
    scale = plt.cm.ScalarMappable(plt.Normalize(0, top), EVIDENCE_COLORS)
    layer = evidence.layer_name.split(", ")[0].rsplit("/")[-1]
    figure.colorbar(scale, cax=bar, orientation="horizontal", label=f"evidence at {layer}")
    found = "" if verdict == "ok" else f", {verdict}"
    return f"{evidence.method} for {class_name}{found}\n{evidence.scores[0]:+.2f} logit"


def _draw_words(axis, words):
    axis.imshow(np.full((1, 1, 3), NOTHING_TO_SEE), extent=(0, 1, 0, 1))
    text = "\n".join(textwrap.wrap(words, 28, max_lines=10))
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9)
