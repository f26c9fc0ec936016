"""Draw what is wrong with a model or its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from cnnviz.figures import style
from cnnviz.figures.heat_maps import overlay
from cnnviz.figures.style import DescribedFigure, class_name, counted, styled, subplots, to_units

if TYPE_CHECKING:
    from cnnviz.diagnosis import FilterCensus, MapTrust, Mistakes, ModelChanges, SuspectLabels

CENSUS_COLORS = {  # from Okabe and Ito: color-blind people can tell them apart
    "ok": "#cfe3f2",
    "never fires": "#000000",
    "same everywhere": "#d55e00",
    "always fires": "#e69f00",
    "copy": "#009e73",
}
TRUST_TITLES = {
    "focus": "evidence on the\nright two of four:\nhigh is good",
    "pointing": "evidence on the\nright one of four:\nhigh is good",
    "deletion": "probability while\nit is deleted:\nlow is good",
    "insertion": "probability while\nit is inserted:\nhigh is good",
    "survival": "what is left with\nshuffled weights:\nnear 0 is good",
}


@styled
def draw_map_trust(result: MapTrust) -> DescribedFigure:
    """Draw how far the heat maps of several methods can be trusted, one panel for each measure.

    Args:
        result: MapTrust, as `map_trust` returns it.

    Returns:
        Figure: a line leads from the score of random maps (dashed) to that of each method.
    """
    rows = np.arange(len(result.methods))
    size = (1.8 * len(TRUST_TITLES), 1.1 + 0.3 * len(rows))
    figure, axes = subplots(1, len(TRUST_TITLES), figsize=size, sharey=True)
    for axis, (measure, title) in zip(axes, TRUST_TITLES.items(), strict=True):
        values = np.asarray(getattr(result, measure), float)
        random = np.nan_to_num(values[list(result.methods).index("random")])
        axis.axvline(random, color="0.4", linestyle="--", linewidth=0.8)
        axis.hlines(rows, random, values, color=style.TRAINING_COLOR, linewidth=2)
        axis.plot(values, rows, "o", color=style.TRAINING_COLOR)
        for row in np.flatnonzero(np.isfinite(values)):
            axis.text(1.5, row, f"{values[row]:.2f}", ha="right", va="center", fontsize=9)
        axis.set(xlim=(min(-0.1, np.nanmin(values) - 0.1), 1.5), xticks=(0, 0.5, 1))
        axis.set_title(title, fontsize=9)
    axes[0].set_yticks(rows, result.methods)
    axes[0].invert_yaxis()
    return figure


@styled
def draw_census(result: FilterCensus) -> DescribedFigure:
    """Draw what the filters of each layer do, as one bar for each layer.

    Args:
        result: FilterCensus, as `filter_census` returns it.

    Returns:
        Figure: the first layer on top; the number in a part of a bar counts filters.
    """
    rows = np.arange(len(result.layers))
    figure, axis = subplots(figsize=(9, 1.0 + 0.28 * len(rows)))
    start, totals = np.zeros(len(rows)), np.array([len(one.verdicts) for one in result.layers])
    for kind, color in CENSUS_COLORS.items():
        counts = [sum(v.startswith(kind) for v in one.verdicts) for one in result.layers]
        shares = counts / totals * 100
        bars = axis.barh(rows, shares, left=start, color=color, label=kind)
        texts = [str(n) if share >= 4 else "" for n, share in zip(counts, shares, strict=True)]
        look = {"fontsize": 9, "color": "white" if kind == "never fires" else "black"}
        axis.bar_label(bars, texts, label_type="center", **look)
        start += shares
    axis.set_yticks(rows, style.short_names(one.layer_name for one in result.layers), fontsize=9)
    axis.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5), xlabel="% of the layer's filters")
    axis.set_title(f"what the filters did on {counted(result.n_images, 'image')}", pad=24)
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(CENSUS_COLORS)}
    axis.legend(**place, frameon=False, fontsize=9, borderpad=0, handlelength=1.2)
    return figure


@styled
def draw_mistakes(
    result: Mistakes,
    class_names: Sequence[str] = (),
    *,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw confident mistakes: the image, the evidence for both classes, the nearest neighbors.

    Args:
        result: Mistakes, as `confident_mistakes` returns it.
        class_names: The classes' names, by index; others are numbered.
        value_range: The values of black and of white; None finds them: see `draw_images`.

    Returns:
        Figure: a row for each mistake, the worst on top, 12 at most. Without any mistake the figure
        says so.
    """
    if not len(result.images):
        return style.draw_grid([[(np.ones((1, 9, 3)), "no mistakes")]], 2)
    value_range = style.limits([result.images, result.neighbors], value_range)
    images, rows = to_units(result.images, value_range), []
    for row, (image, label) in enumerate(zip(images, result.labels, strict=True)):
        title = f"{class_name(class_names, label)}: {result.probabilities[row, label]:.1%}"
        panels = [(image, title)]
        for maps in result.evidence:
            name, verdict = class_name(class_names, maps.class_index[row]), maps.verdicts[row]
            title = f"for {name}" if verdict == "ok" else f"{verdict} ({name})"
            panels.append((overlay(image, maps.maps[row]), title))
        near = result.neighbors[row], result.neighbor_labels[row], result.similarity[row]
        for neighbor, index, alike in zip(*near, strict=True):
            title = f"{class_name(class_names, index)}, {alike:.2f} alike"
            panels.append((style.to_unit(neighbor, value_range), title))
        rows.append(panels)
    heading = "mistakes, with the probability of the label; evidence for the label; for the "
    heading += "prediction" + ("; nearest training images" if result.neighbors.shape[1] else "")
    return style.draw_grid(rows[: style.MOST_ROWS], 1.3, heading)


@styled
def draw_suspects(
    result: SuspectLabels, *, value_range: tuple[float, float] | None = None
) -> DescribedFigure:
    """Draw the images whose labels are most likely wrong.

    Args:
        result: SuspectLabels, as `suspect_labels` returns it.
        value_range: The values of black and of white; None finds them: see `draw_images`.

    Returns:
        Figure: the images of `result.images`, the most suspect first, each with its label and the
        probability of the label.

    Raises:
        ValueError: If the result holds no images.
    """
    if result.images is None:
        raise ValueError("`result.images` (=None) must be there: load the data with shuffle=False")
    panels = []
    for image, index in zip(to_units(result.images, value_range), result.ranking, strict=False):
        name = class_name(result.class_names, result.labels[index])
        panels.append((image, f"label '{name}': {result.given[index]:.0%}"))
    heading = f"the {len(panels)} most suspect of {counted(len(result.ranking), 'label')}"
    rows = [panels[start : start + 6] for start in range(0, len(panels), 6)]
    return style.draw_grid(rows, 1.4, f"{heading}, with the probability of the label")


@styled
def draw_changes(result: ModelChanges) -> DescribedFigure:
    """Draw what changed between two states of a model.

    Args:
        result: ModelChanges, as `compare_models` returns it.

    Returns:
        Figure: left, how far the weights of each layer and its output moved, in percent of their
        size; right, the first 3 images with the evidence for one class before and after.
    """
    rows, images = np.arange(len(result.layer_names)), to_units(result.images, result.value_range)
    size = (9, max(4.2, 1 + 0.3 * len(rows)))
    figure = plt.figure(figsize=size, FigureClass=DescribedFigure, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    axis = left.subplots()
    for shift, label, color in ((-0.2, "weights", "#0072b2"), (0.2, "activations", "#d55e00")):
        shown = 100 * np.nan_to_num(getattr(result, label), posinf=0)
        axis.barh(rows + shift, shown, 0.4, color=color, label=label)
    axis.set_yticks(rows, style.short_names(result.layer_names), fontsize=9)
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel="change, % of the size before")
    before, after = (np.argmax(each, axis=1) for each in result.probabilities)
    changed = (before != after).sum()
    axis.set_title(f"{changed} of {counted(len(before), 'prediction')} changed", pad=24)
    axis.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)
    grid = right.subplots(min(3, len(images)), 3, squeeze=False)
    for row, line in enumerate(grid):
        name = class_name(result.class_names, result.maps[0].class_index[row])
        panels = [(images[row], f"image {row}")]
        for maps, when in zip(result.maps, ("before", "after"), strict=True):
            title = f"{when}: {name} {maps.scores[row]:+.2f}"
            panels.append((overlay(images[row], maps.maps[row]), title))
        for axis, (shown, title) in zip(line, panels, strict=True):
            axis.imshow(shown)
            axis.set_title(style.wrapped(title, 1.5), fontsize=9)
            axis.axis("off")
    return figure
