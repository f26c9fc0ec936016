"""Draw how a training went, and how accurate and calibrated the model is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from cnnviz.checks import whole_numbers
from cnnviz.figures import style
from cnnviz.figures.heat_maps import overlay
from cnnviz.figures.style import DescribedFigure, class_name, counted, styled, subplots, to_units

if TYPE_CHECKING:
    import keras

    from cnnviz.monitor import Monitor

MOST_EPOCHS, MOST_WATCHED = 5, 4  # columns and rows of a monitor's heat maps
MOST_NUMBERED, MOST_NAMED = 10, 30  # classes of a confusion matrix that have room for them


@styled
def draw_learning_curves(
    history: keras.callbacks.History | Mapping[str, Sequence[float]],
) -> DescribedFigure:
    """Draw loss and accuracy by epoch, from the `history` of `train` or `model.fit`, or its dict.

    The titles give the best of the validation.
    """
    history = getattr(history, "history", history)
    figure, axes = subplots(1, 2, figsize=(9, 3.2))
    looks = ("", "o-", style.TRAINING_COLOR), ("val_", "s-", style.VALIDATION_COLOR)
    for axis, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        for prefix, marker, color in looks:
            values = scale * np.asarray(history[prefix + name])
            epochs, who = np.arange(1, len(values) + 1), "validation" if prefix else "training"
            axis.plot(epochs, values, marker, color=color, markersize=4, label=who)
        axis.set(xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(axis="y", alpha=0.3)
    low, high = np.fmin.reduce(history["val_loss"]), 100 * np.fmax.reduce(history["val_accuracy"])
    axes[0].set_title(f"loss, lowest in validation {low:.3g}")
    axes[1].set_title(f"accuracy (%), highest in validation {high:.3g}%")
    axes[0].legend(framealpha=1, edgecolor="none")  # no line of the grid through its words
    return figure


@styled
def draw_calibration(
    bins: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], error: float
) -> DescribedFigure:
    """Draw accuracy against confidence (a reliability diagram).

    Args:
        bins: What `calibration_bins` returns; those with images get a marker.
        error: The expected calibration error.
    """
    _, shares, confidences, accuracies = bins
    filled = shares > 0
    x, y, shares = 100 * confidences[filled], 100 * accuracies[filled], shares[filled]
    figure, axis = subplots(figsize=(4.4, 4.2))
    axis.plot([0, 100], [0, 100], color="0.6", linestyle="--", label="perfectly calibrated")
    label = "this model, with the share of the images"
    axis.scatter(x, y, 8 + 200 * shares, color=style.VALIDATION_COLOR, clip_on=False, label=label)
    for *point, share in zip(x, y, shares, strict=True):
        axis.annotate(f"{share:.1%}", point, (8, 2), textcoords="offset points", fontsize=9)
    axis.set(xlim=(max(0, x.min(initial=100) - 5), 102), ylim=(0, 104))
    axis.set(xlabel="probability of the predicted class (%)", ylabel="accuracy (%)")
    axis.set_title(f"expected calibration error {error:.3f}")
    figure.legend(loc="outside lower left", frameon=False)
    return figure


@styled
def draw_confusion_matrix(
    labels: ArrayLike, predicted: ArrayLike, class_names: Sequence[str] = ()
) -> DescribedFigure:
    """Draw how often each class was predicted for each, in percent of the true class.

    Args:
        labels: (N,) integers, the true classes; a ValueError if they are not, or N is 0.
        predicted: (N,) integers, the predicted classes.
        class_names: The classes' names, by index; others are numbered.
    """
    pairs = whole_numbers([labels, predicted])
    if pairs is None or pairs.ndim != 2 or not pairs.size or pairs.min() < 0:
        given = f"`labels` (={labels!r:.60}) and `predicted` (={predicted!r:.60})"
        raise ValueError(f"{given} must be equally many integers (N,), 0 or more")
    count = max(len(class_names), pairs.max() + 1)
    names = [style.wrapped(class_name(class_names, index), 1.5, 2) for index in range(count)]
    shares = 100 * confusion_matrix(*pairs, labels=range(count), normalize="true")
    side = 1.4 + 0.75 * min(count, MOST_NUMBERED)
    figure, axis = subplots(figsize=(side + 1, side))
    look = {"include_values": count <= MOST_NUMBERED, "values_format": ".1f", "colorbar": False}
    look |= {"cmap": "cividis", "im_kw": {"vmin": 0, "vmax": 100}}
    matrix = ConfusionMatrixDisplay(shares).plot(ax=axis, **look)
    ticks = range(0, count, math.ceil(count / MOST_NAMED))
    axis.set_xticks(ticks, names[:: ticks.step], rotation=0 if count <= 4 else 90)
    sizes = np.bincount(pairs[0], minlength=count)
    axis.set_yticks(ticks, [f"{names[tick]} ({sizes[tick]})" for tick in ticks])
    axis.set(xlabel="predicted class", ylabel="true class (number of images)")
    accuracy = np.mean(pairs[0] == pairs[1])
    axis.set_title(f"accuracy {accuracy:.1%} of {counted(pairs.shape[1], 'image')}")
    figure.colorbar(matrix.im_, ax=axis, label="% of the true class", shrink=0.8)
    return figure


@styled
def draw_monitor(monitor: Monitor) -> DescribedFigure:
    """Draw what a `Monitor` recorded: live filters of each layer, and below them heat maps.

    The maps lie over the first 4 images, after at most 5 epochs that are evenly spread.
    """
    records, panels = monitor.records, []
    if not records:
        raise ValueError("`monitor` (without a record) must have been in a training")
    names, few = list(records[0]["layers"]), [one for one in records if np.ndim(one["maps"]) == 3]
    few = few[:: -max(1, math.ceil(len(few) / MOST_EPOCHS))][::-1]  # with the last one
    images = to_units(monitor.images)[:MOST_WATCHED] if few else []
    heights = 1 + 0.2 * len(names), 0.5 + 1.9 * len(images)
    figure = style.new_figure(figsize=(style.PAGE_WIDTH, sum(heights)))
    top, below = figure.subfigures(2, 1, height_ratios=heights)
    counts = np.array([[record["layers"][name][:2] for record in records] for name in names])
    axis, live = top.subplots(), 100 * (1 - counts[..., 1] / counts[..., 0])
    shown = axis.imshow(live, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    top.colorbar(shown, ax=axis, label="% of the filters")
    ticks = range(0, len(records), math.ceil(len(records) / 10))
    axis.set_xticks(ticks, [records[tick]["epoch"] for tick in ticks])
    axis.set_yticks(range(len(names)), map(style.short_name, names), fontsize=9)
    axis.set(xlabel="after epoch", title="live filters of each layer")
    for row, image in enumerate(images):
        panels.append((image, f"image {row}"))
        for record in few:
            name = class_name(monitor.class_names, record["class_index"][row])
            shown = overlay(image, record["maps"][row])
            panels.append((shown, f"{name}, epoch {record['epoch']}"))
    if panels:
        style.draw_grid(panels, 1 + len(few), "evidence for a class, after some epochs", into=below)
    return figure
