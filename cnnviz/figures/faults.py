"""Draw what is wrong with a model or its data."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnviz.figures import style
from cnnviz.figures.heat_maps import overlay
from cnnviz.figures.style import DescribedFigure, class_name, counted, styled, to_units

if TYPE_CHECKING:
    from cnnviz.diagnosis import FilterCensus, Mistakes, ModelChanges, SuspectLabels
    from cnnviz.diagnosis.duplicates import Duplicates

# From Okabe and Ito: color-blind people can tell them apart.
CENSUS_COLORS = {"ok": "#cfe3f2", "never fires": "#d55e00", "same everywhere": "#cc79a7"}
CENSUS_COLORS |= {"always fires": "#e69f00", "copy": "#009e73"}


@styled
def draw_census(result: FilterCensus) -> DescribedFigure:
    """Draw what `filter_census` counts, as one bar for each layer, the first on top."""
    rows, start = np.arange(len(result.layers)), 0
    figure, axis = style.subplots(figsize=(9, 1.0 + 0.28 * len(rows)))
    totals = np.array([len(one.verdicts) for one in result.layers])
    for kind, color in CENSUS_COLORS.items():
        counts = [sum(v.startswith(kind) for v in one.verdicts) for one in result.layers]
        shares = counts / totals * 100
        bars = axis.barh(rows, shares, left=start, color=color, label=kind)
        texts = [str(n) if share >= 4 else "" for n, share in zip(counts, shares, strict=True)]
        axis.bar_label(bars, texts, label_type="center", fontsize=9)
        start = start + shares
    axis.set_yticks(rows, [style.short_name(one.layer_name) for one in result.layers], fontsize=9)
    axis.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5), xlabel="% of the layer's filters")
    axis.set_title(f"what the filters did on {counted(result.n_images, 'image')}", pad=24)
    axis.legend(**style.ABOVE, ncols=len(CENSUS_COLORS), fontsize=9, handlelength=1.2)
    return figure


@styled
def draw_mistakes(result: Mistakes) -> DescribedFigure:
    """Draw the 12 worst that `confident_mistakes` found: image, evidence, nearest neighbors."""
    style.check_drawable(result)
    if not len(result.images):
        return style.draw_grid([], 1, "no mistakes")
    name, panels = functools.partial(class_name, result.class_names), []
    n, k = result.neighbors.shape[:2]
    units = to_units([*result.images, *np.concatenate(result.neighbors)])
    for row, image in enumerate(units[: min(n, style.MOST_ROWS)]):
        label = result.labels[row]
        panels.append((image, f"{name(label)}: {result.probabilities[row, label]:.1%}"))
        for maps in result.evidence:
            what, verdict = name(maps.class_index[row]), maps.verdicts[row]
            title = f"for {what}" if verdict == "ok" else f"{verdict} ({what})"
            panels.append((overlay(image, maps.maps[row]), title))
        for place in range(k):
            title = f"{name(result.neighbor_labels[row, place])}, "
            title += f"cosine {result.similarity[row, place]:.2f}"
            panels.append((units[n + row * k + place], title))
    heading = "mistakes, with the probability of the label; evidence for the label; for the "
    heading += "prediction" + ("; nearest training images" if k else "")
    return style.draw_grid(panels, 3 + k, heading, side=1.3)


@styled
def draw_suspects(result: SuspectLabels) -> DescribedFigure:
    """Draw the images whose labels are most likely wrong, as `suspect_labels` found them."""
    if result.images is None:
        what = "`result.images` (=None) must be images, not signals, volumes or shuffled data"
        raise ValueError(f"{what}: load with shuffle=False, or use to_frame()")
    panels = []
    for image, index in zip(to_units(result.images), result.ranking, strict=False):
        name = class_name(result.class_names, result.labels[index])
        panels.append((image, f"label '{name}': {result.given[index]:.0%}"))
    heading = f"the {len(panels)} most suspect of {counted(len(result.ranking), 'label')}"
    return style.draw_grid(panels, style.COLUMNS, f"{heading}, with the probability of the label")


@styled
def draw_duplicates(result: Duplicates) -> DescribedFigure:
    """Draw the first 12 pairs that `find_duplicates` found, two pairs in a row."""
    frame, panels = result.to_frame(), []
    for row, pair in enumerate(result.images):
        for image, end in zip(pair, ("", " of copy"), strict=True):
            split, index, label = (frame[f"{key}{end}"][row] for key in ("split", "index", "label"))
            name = Path(frame["file" + end][row]).name if "file" in frame else ""
            kind = f"{frame['recognized as'][row]}: " if end else ""
            title = f"{kind}{split} {name or index}" + (f", {label}" if label else "")
            panels.append((to_units(image)[0], title))
    heading = f"{len(result.images)} of {counted(len(frame), 'pair')}, each image before its copy"
    return style.draw_grid(panels, 4, heading, side=1.8)


@styled
def draw_changes(result: ModelChanges) -> DescribedFigure:
    """Draw what `compare_models` found.

    Left: how far the weights of each layer moved. Right: the first 3 images.
    """
    style.check_drawable(result)
    rows, panels = np.arange(len(result.layer_names)), []
    figure = style.new_figure(figsize=(9, max(4.2, 1 + 0.3 * len(rows))))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    axis = left.subplots()
    moved = 100 * np.nan_to_num(result.weights, posinf=1)
    axis.barh(rows, moved, 0.5, color=style.TRAINING_COLOR)
    axis.set_yticks(rows, map(style.short_name, result.layer_names), fontsize=9)
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel="change of the weights, %")
    before, after = (np.argmax(each, axis=1) for each in result.probabilities)
    changed = (before != after).sum()
    axis.set_title(f"{changed} of {counted(len(before), 'prediction')} changed")
    for row, image in enumerate(to_units(result.images, result.value_range)[:3]):
        panels.append((image, f"image {row}"))
        for maps, when in zip(result.maps, ("before", "after"), strict=True):
            name = class_name(result.class_names, maps.class_index[row])
            title = f"{when}: {name} {maps.scores[row]:+.2f}"
            panels.append((overlay(image, maps.maps[row]), title))
    style.draw_grid(panels, 3, side=1.4, into=right)
    return figure
