"""(arrays) -> the style, the colours and the pieces that every figure is made of."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

STYLE: dict[str, Any] = {
    # Black on white whatever the style of the person's own figures, which may be dark.
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "white"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), "black"),
    **dict.fromkeys(("xtick.color", "ytick.color"), "black"),
    **dict.fromkeys(("savefig.facecolor", "axes.titlecolor"), "auto"),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "inherit"),
    "figure.dpi": 110,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "image.interpolation": "nearest",
    "savefig.bbox": "tight",
}
TRAINING_COLOR, VALIDATION_COLOR = "#0072b2", "#d55e00"  # told apart by every kind of eye
ACTIVATION_COLORS, EVIDENCE_COLORS = "viridis", "inferno"
SIGNED_COLORS = "PuOr_r"  # orange for the class, white for neither, purple against it
NOTHING_TO_SEE = 0.88  # grey of a tile that holds no picture
MOST_CHANNELS = 16  # of a picture; a longer last axis is a side
GAP = 2  # pixels between the tiles of a mosaic
# Inches. On a page of 640 pixels no letter is lower than 8: a figure 9 inches wide takes 9 points.
TILES_WIDTH = 7.4  # of a mosaic
TITLE_ROOM = 0.4  # over it
PANEL = 1.6  # side of a picture that stands beside others
P = ParamSpec("P")


class DescribedFigure(Figure):
    """A figure with alternative text, for who cannot see it.

    Jupyter keeps the text as metadata of the output. `jupyter nbconvert --template classic` makes
    it the `alt` of the picture, and its default template too where `lab/index.html.j2` says so.

    Attributes:
        alt: What the figure is, and its main numbers.
    """

    alt: str = ""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As in Matplotlib, in the style of this module."""
        with plt.rc_context(STYLE):
            super().savefig(*args, **kwargs)

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """For Jupyter: metadata alone; its own formatters draw, in the formats that were chosen."""
        from IPython import get_ipython

        formatters = get_ipython().display_formatter.formatters
        kinds = [kind for kind in ("image/png", "image/jpeg") if Figure in formatters[kind]]
        return {}, _Joined({kind: {"alt": self.alt} for kind in kinds})


class _Joined(dict[str, dict[str, Any]]):
    """Metadata to which a formatter adds its own, in place of putting it there instead."""

    def __setitem__(self, kind: str, metadata: dict[str, Any]) -> None:
        super().__setitem__(kind, self.get(kind, {}) | metadata)


def described(
    describe: Callable[..., str],
) -> Callable[[Callable[P, DescribedFigure]], Callable[P, DescribedFigure]]:
    """Draw one figure in the style, describe it, and keep pyplot from showing it a second time."""

    def decorate(draw: Callable[P, DescribedFigure]) -> Callable[P, DescribedFigure]:
        @functools.wraps(draw)
        def draw_described(*args: P.args, **kwargs: P.kwargs) -> DescribedFigure:
            with plt.rc_context(STYLE):
                figure = draw(*args, **kwargs)
                figure.canvas.draw_idle()
                plt.close(figure)
            figure.alt = describe(*args, **kwargs)
            return figure

        return draw_described

    return decorate


def subplots(rows: int = 1, columns: int = 1, **options: Any) -> tuple[DescribedFigure, Any]:
    """As `plt.subplots`; nothing overlaps."""
    return plt.subplots(rows, columns, FigureClass=DescribedFigure, layout="constrained", **options)


def wrapped(title, inches):
    """Break a title into lines that fit a width; a character takes about 1/13 inch."""
    return textwrap.fill(str(title), max(1, int(13 * inches)))


def pictures(images, *belonging):
    """A list of (H, W, 3) pictures; what belongs to them must be as many, or None."""
    single = getattr(images, "ndim", 4) == 3
    if single and images.shape[2] > MOST_CHANNELS:
        raise ValueError(
            f"`images` (of shape {images.shape}) must be (N, H, W, C) or one picture (H, W, C); "
            "`images[..., None]` is a stack of grey ones"
        )
    images = [images] if single else list(images)
    counts = [len(images), *(len(others) for others in belonging if others is not None)]
    if not images or len(set(counts)) > 1:
        raise ValueError(
            f"`images` and what belongs to them (titles, maps) must be equally many, 1 or more; "
            f"they are {counts}"
        )
    return images


def to_unit(image, value_range):
    """Pixel values -> (..., 3) in 0..1 for display, whatever their range.

    One channel, or none, is grey; two are red and green; of more than three the first are shown.
    """
    low, high = value_range
    unit = np.clip((np.asarray(image, np.float32) - low) / (high - low), 0, 1)
    unit = unit[..., None] if unit.ndim == 2 else unit
    if unit.shape[-1] == 1:
        return unit.repeat(3, axis=-1)
    if unit.shape[-1] == 2:
        return np.concatenate([unit, np.zeros_like(unit[..., :1])], axis=-1)
    return unit[..., :3]


def or_nothing(picture, there_is_something):
    return picture if there_is_something else np.full_like(picture, NOTHING_TO_SEE)


def draw_tiles(tiles, indices, labels, notes=None):
    """Lay (T, h, w, 3) tiles in 0..1 out as one mosaic, numbered; labelled ones are crossed out.

    The others bear their note, if there is one.
    """
    count, height, width, _ = tiles.shape
    enlarge = max(1, math.ceil(40 / max(height, width)))  # so that the gaps stay thin
    tiles = tiles.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    height, width = tiles.shape[1:3]
    columns = min(count, 12 if count > 32 else 8)
    tile_inches = min(2.5, TILES_WIDTH / columns)
    rows = math.ceil(count / columns)
    mosaic = np.ones((rows * (height + GAP), columns * (width + GAP), 3), np.float32)
    figure, axis = subplots(figsize=(columns * tile_inches, rows * tile_inches + TITLE_ROOM))
    for place, (tile, index, label) in enumerate(zip(tiles, indices, labels, strict=True)):
        top, left = place // columns * (height + GAP), place % columns * (width + GAP)
        mosaic[top : top + height, left : left + width] = tile
        box = {"facecolor": "black", "alpha": 0.45, "pad": 0.8, "linewidth": 0}
        look = {"color": "black"} if label else {"color": "white", "bbox": box}
        axis.text(left, top, index, fontsize=7, ha="left", va="top", **look)
        if label:
            ends = ([left, left + width - 1], [top, top + height - 1])
            axis.plot(*ends, color="0.55", linewidth=0.8)
            axis.plot(ends[0], ends[1][::-1], color="0.55", linewidth=0.8)
            x, y = left + width / 2, top + height - 2
            axis.text(x, y, label, color="0.2", fontsize=7, ha="center", va="bottom")
        elif notes is not None and notes[place]:
            x, y = left + width - 1, top + height - 1
            axis.text(
                x, y, notes[place], color="white", fontsize=7, ha="right", va="bottom", bbox=box
            )
    axis.imshow(mosaic)
    axis.axis("off")
    return figure, axis


def draw_overlay(axis, picture, evidence, colors, least):
    """Lay evidence in `least`..1 over the grey picture, as opaque as it is strong."""
    height, width = picture.shape[:2]
    strength = cv2.resize(evidence, (width, height), interpolation=cv2.INTER_LINEAR)
    grey = picture.mean(axis=2)  # so that every colour in the overlay is evidence
    axis.imshow(grey, cmap="gray", vmin=0, vmax=1)
    opacity = 0.85 * np.minimum(np.abs(strength), 1) ** 0.5
    axis.imshow(strength, cmap=colors, vmin=least, vmax=1, alpha=opacity)
