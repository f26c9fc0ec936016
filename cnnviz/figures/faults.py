"""(results of a diagnosis) -> Figure: what is wrong with a model or its data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np

from cnnviz import descriptions
from cnnviz.descriptions import name_of_class
from cnnviz.figures.style import (
    ACTIVATION_COLORS,
    EVIDENCE_COLORS,
    TRAINING_COLOR,
    DescribedFigure,
    described,
    draw_overlay,
    or_nothing,
    subplots,
    to_unit,
    wrapped,
)

if TYPE_CHECKING:
    from cnnviz.diagnosis import FilterCensus, MapTrust, Mistakes, ModelChanges

CENSUS_COLORS = {  # of Okabe and Ito, told apart by every kind of eye
    "ok": "#cfe3f2",
    "never fires": "#000000",
    "same everywhere": "#d55e00",
    "always fires": "#e69f00",
    "copy": "#009e73",
}
CHANGES = "change of the weights, % of their size", "change of the output, % of its size"


@described(descriptions.map_trust)
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
    figure, axes = subplots(1, len(measures), figsize=size, sharey=True)
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


@described(descriptions.census)
def draw_census(result: FilterCensus) -> DescribedFigure:
    """Draw what the channels of each layer do, as a bar of shares a layer.

    Args:
        result: FilterCensus, as `filter_census` returns it.

    Returns:
        Figure: the first layer on top; a number in a part of a bar is that of its channels.
    """
    figure, axis = subplots(figsize=(9, 1.0 + 0.28 * len(result.layers)))
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


@described(descriptions.mistakes)
def draw_mistakes(
    result: Mistakes, class_names: Sequence[str], *, value_range: tuple[float, float] = (0, 255)
) -> DescribedFigure:
    """Draw confident mistakes: the picture, the evidence for both classes, what it was taken for.

    Args:
        result: Mistakes, as `confident_mistakes` returns it.
        class_names: The classes' names, by index; others are numbered.
        value_range: The pixel values of black and of white.

    Returns:
        Figure: a row for each mistake, the worst on top; the evidence for its label and that for
        the model's answer are on one scale. Without any mistake the figure says so.
    """
    rows, neighbours = len(result.images), result.neighbours.shape[1]
    if not rows:
        figure, axis = subplots(figsize=(5, 0.6))
        axis.axis("off")
        axis.set_title("no mistake was made")
        return figure
    size = (1.3 * (3 + neighbours), 1.8 * rows)
    figure, axes = subplots(rows, 3 + neighbours, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, line in enumerate(axes):
        picture = to_unit(result.images[row], value_range)
        given = result.probabilities[row, result.labels[row]]
        line[0].imshow(picture)
        title = f"{name_of_class(class_names, result.labels[row])}: {given:.1%}"
        line[0].set_title(wrapped(title, 1.3), fontsize=9)
        top = max(float(maps.maps[row].max(initial=0)) for maps in result.evidence) or 1.0
        for axis, maps in zip(line[1:3], result.evidence, strict=True):
            draw_overlay(axis, picture, maps.maps[row] / top, EVIDENCE_COLORS, 0)
            name = name_of_class(class_names, maps.class_index[row])
            verdict = maps.verdicts[row]
            title = f"for {name}" if verdict == "ok" else f"{verdict} ({name})"
            axis.set_title(wrapped(title, 1.3), fontsize=9)
        for place, axis in enumerate(line[3:]):
            axis.imshow(to_unit(result.neighbours[row, place], value_range))
            name = name_of_class(class_names, result.neighbour_labels[row, place])
            title = f"{name}, {result.similarity[row, place]:.2f} alike"
            axis.set_title(wrapped(title, 1.3), fontsize=9)
    columns = "mistake and what its label got, evidence for the label and for the answer"
    columns += ", nearest training pictures" if neighbours else ""
    figure.suptitle(wrapped(columns, figure.get_figwidth()), x=0.01, ha="left", fontsize=10)
    return figure


@described(descriptions.changes)
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
    heights = 0.7 + 0.19 * layers, 0.5 + 4 * min(1.6, 7.6 / filters)
    size = (9, sum(heights))
    figure = plt.figure(figsize=size, FigureClass=DescribedFigure, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    _draw_sizes_of_changes(above, result)
    _draw_changed_filters(below, result, value_range)
    return figure


def _draw_sizes_of_changes(figure, result):
    """A bar for each layer: of its weights, and of what it puts out."""
    layers = len(result.layer_names)
    pair = figure.subplots(1, 2, sharey=True)
    both = result.weights, result.activations
    for axis, changes, title in zip(pair, both, CHANGES, strict=True):
        shown = np.where(np.isfinite(changes), changes, 0) * 100
        bars = axis.barh(range(layers), shown, color=TRAINING_COLOR)
        texts = ["none" if c == 0 else "no map" if np.isnan(c) else f"{c:.1%}" for c in changes]
        axis.bar_label(bars, texts, fontsize=9, padding=2)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=9)
        axis.set_xlim(0, max(1e-9, shown.max(initial=0)) * 1.2)
        axis.set_ylim(layers - 0.4, -0.6)  # the first layer on top
    pair[0].set_yticks(range(layers), result.layer_names, fontsize=9)


def _draw_changed_filters(figure, result, value_range):
    """A column for each filter: its ascended pictures and its maps, before over after."""
    axes = figure.subplots(4, len(result.filters), squeeze=False)
    maps = [maps[0] for maps in result.feature_maps]
    least, top = min(0.0, np.min(maps)), np.max(maps)
    top = top if top > least else least + 1
    for column, index in enumerate(result.filters):
        for axis, images in zip(axes[:2, column], result.filter_images, strict=True):
            tile = to_unit(images.images[column], value_range)
            axis.imshow(or_nothing(tile, images.verdicts[column] == "ok"))
        for axis, values in zip(axes[2:, column], maps, strict=True):
            look = {"cmap": ACTIVATION_COLORS, "vmin": least, "vmax": top}
            shown = axis.imshow(values[..., column], **look)
        axes[0, column].set_title(f"filter {index}", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    kinds = itertools.product(("wants to see,", "map,"), ("before", "after"))
    for line, (what, when) in zip(axes, kinds, strict=True):
        line[0].set_ylabel(f"{what}\n{when}", fontsize=9)
    beside_maps = {"shrink": 0.45, "anchor": (0, 0), "aspect": 24}  # but room beside all rows
    figure.colorbar(shown, ax=axes, label="activation", pad=0.01, **beside_maps)
    title = (
        f"{result.layer_name}: what the filters want to see, and their maps of the first picture"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
