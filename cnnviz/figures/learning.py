"""(histories, probabilities) -> Figure: how a training went, and how right it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.ticker
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import descriptions
from cnnviz.checks import whole_numbers
from cnnviz.descriptions import name_of_class
from cnnviz.figures.style import (
    TRAINING_COLOR,
    VALIDATION_COLOR,
    DescribedFigure,
    described,
    subplots,
)

if TYPE_CHECKING:
    import keras

MOST_NUMBERED = 10  # classes of a confusion matrix whose cells have room for numbers
MOST_NAMED = 30  # that have room for their names beside it


@described(descriptions.learning_curves)
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
    figure, axes = subplots(1, 2, figsize=(9, 3.2))
    units = {"loss": ("loss (cross-entropy, nats)", ""), "accuracy": ("accuracy (%)", "%")}
    for axis, (name, (label, unit)) in zip(axes, units.items(), strict=True):
        scale = 100 if name == "accuracy" else 1
        epochs = np.arange(1, len(history[name]) + 1)
        curves = (
            ("training", history[name], TRAINING_COLOR, "o"),
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
    # Early on a loss may be ten times what it is later.
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes[0].legend(framealpha=1, edgecolor="none")  # no line of the grid through its words
    return figure


@described(descriptions.calibration)
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
    figure, (upper, lower) = subplots(2, figsize=(4.4, 4.6), sharex=True, height_ratios=(3, 1))
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
    figure.legend(loc="outside lower left", frameon=False)
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


@described(descriptions.confusion_matrix)
def draw_confusion_matrix(
    labels: ArrayLike, predicted: ArrayLike, class_names: Sequence[str]
) -> DescribedFigure:
    """Draw how often each class was taken for each.

    Args:
        labels: (N,) integers, the true classes.
        predicted: (N,) integers, the predicted classes.
        class_names: The classes' names, by index; others are numbered.

    Returns:
        Figure: with the numbers of pictures in its cells up to 10 classes; of more than 30 some are
        named.

    Raises:
        ValueError: If `labels` and `predicted` are not as many integers, 0 or more.
    """
    labels, predicted = _classes("labels", labels), _classes("predicted", predicted)
    if len(labels) != len(predicted):
        raise ValueError(
            f"`predicted` ({len(predicted)}) must be as many as `labels` ({len(labels)})"
        )
    count = max(1, len(class_names), *(1 + found.max(initial=-1) for found in (labels, predicted)))
    class_names = [name_of_class(class_names, index) for index in range(count)]
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (labels, predicted), 1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    numbered = count <= MOST_NUMBERED
    width, height = (1.9 + 1.3 * count, 1.3 + 1.1 * count) if numbered else (10, 8.6)
    figure, axis = subplots(figsize=(width, height))
    shown = axis.imshow(100 * shares, vmin=0, vmax=100, cmap="cividis")
    for row, column in np.ndindex(count, count) if numbered else ():
        text = f"{matrix[row, column]}\n{shares[row, column]:.1%}"
        color = "black" if shares[row, column] > 0.5 else "white"
        axis.text(column, row, text, ha="center", va="center", color=color)
    ticks = range(0, count, math.ceil(count / MOST_NAMED))
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if count > 2 else {}
    slanted |= {} if numbered else {"rotation": 60}
    axis.set_xticks(ticks, class_names[:: ticks.step], **slanted)
    axis.set_yticks(ticks, class_names[:: ticks.step])
    axis.set(xlabel="predicted class", ylabel="true class")
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    axis.set_title(f"{accuracy:.1%} of {matrix.sum()} pictures right")
    figure.colorbar(shown, label="% of the row's class", shrink=0.8)
    return figure


def _classes(name, values):
    classes = whole_numbers(values)
    if classes is None or classes.ndim != 1 or classes.min(initial=0) < 0:
        raise ValueError(f"`{name}` (={values!r}) must be (N,) integers, 0 or more")
    return classes
