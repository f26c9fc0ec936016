"""The style, the colors and the pieces that every figure is made of."""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

# Black on white, whatever the person's own style is; the person's font stays.
RESET = "axes", "figure", "grid", "image", "legend", "lines", "text", "xtick", "ytick"
STYLE = {k: v for k, v in matplotlib.rcParamsDefault.items() if k.split(".")[0] in RESET}
STYLE |= dict.fromkeys(("font.size", "axes.titlesize", "figure.titlesize"), 10)
STYLE |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.unicode_minus"), False)
STYLE |= {"axes.titlelocation": "left", "image.interpolation": "nearest", "figure.dpi": 110}
STYLE |= {"savefig.facecolor": "auto", "savefig.bbox": "tight"}
STYLE["text.parse_math"] = False  # names of files, layers and classes may hold "$", "_" and "^"

TRAINING_COLOR, VALIDATION_COLOR = "#0072b2", "#d55e00"  # color-blind people can tell them apart
EVIDENCE_COLORS, SIGNED_COLORS = "inferno", "PuOr_r"  # orange for the class, purple against it
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "borderpad": 0}  # legends
NOTHING_TO_SEE = 0.88  # gray of a tile that holds no image
MOST_CHANNELS = 16  # of an image; a longer last axis is a side
MOST_ROWS = 12  # of a figure with a row for each image or filter
COLUMNS, PAGE_WIDTH, LARGEST = 6, 8.4, 2.4  # of a grid; inches of it, and of a side of an image
MOST_TILES, TILES_IN_A_ROW, GAP = 48, 8, 0.04  # the gap between two is a share of their width


@contextlib.contextmanager
def _style():
    """As `rc_context`, which would also take back what the first figure switches on."""
    before = {name: matplotlib.rcParams[name] for name in STYLE}
    matplotlib.rcParams.update(STYLE)
    try:
        yield
    finally:
        matplotlib.rcParams.update(before)


styled = _style()  # decorates what draws


class DescribedFigure(Figure):
    """One of pyplot's figures, in this package's style, that describes itself in `alt`."""

    draw = styled(Figure.draw)
    savefig = styled(Figure.savefig)

    @property
    def alt(self) -> str:
        """Alternative text: the figure's titles and the labels of its axes, each once."""
        texts = [self.get_suptitle()]
        texts += [axis.get_title(loc) for axis in self.axes for loc in ("left", "center")]
        texts += [label for axis in self.axes for label in (axis.get_xlabel(), axis.get_ylabel())]
        texts = [" ".join(text.split()) for text in texts if text.strip()] or ["images"]
        return "; ".join(dict.fromkeys(texts))

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """For Jupyter: metadata alone; its own formatters draw, in the formats that were chosen."""
        if "inline" in plt.get_backend():
            plt.close(self)  # or it would appear again at the end of the cell
        return {}, {kind: {"alt": self.alt} for kind in ("image/png", "image/jpeg")}


new_figure = functools.partial(plt.figure, FigureClass=DescribedFigure, layout="constrained")
subplots = functools.partial(plt.subplots, FigureClass=DescribedFigure, layout="constrained")


def figure_html(figure: DescribedFigure) -> str:
    """An `<img>` element that holds a figure as PNG, with its alternative text; closes it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<img alt="{html.escape(figure.alt)}" style="max-width: 100%" src="{source}">'


def class_name(names: Sequence[str] | None, index: int) -> str:
    """The name of a class, or "class 3" where there are fewer names."""
    return str(names[index]) if names is not None and 0 <= index < len(names) else f"class {index}"


def explained_name(result, row: int, names: Sequence[str] | None = None) -> str:
    """What a GradCAM explains in one of its images: the class's name, the target, or both."""
    index, target = result.class_index[row], getattr(result, "target", "")
    names = getattr(result, "class_names", ()) if names is None else names
    words = [class_name(names, index)] if index >= 0 or not target else []
    return " ".join([*words, target]).strip()


def counted(number: int, noun: str) -> str:
    """Such as "1 filter" and "2 filters"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def wrapped(text: str, inches: float, lines: int = 5) -> str:
    """Break a text into lines that fit a width; a character takes about 1/13 inch."""
    text = str(text).strip().encode("utf-8", "replace").decode()  # names of files may be broken
    options = {"max_lines": lines, "placeholder": " ...", "break_on_hyphens": False}
    return textwrap.fill(text, max(4, int(13 * inches)), **options)


def short_name(path: str) -> str:
    """The last part of a layer's path, without its middle where it is long."""
    name = wrapped(path.rsplit("/", 1)[-1], 99)
    return name if len(name) <= 28 else f"{name[:12]}...{name[-13:]}"


def limits(images, value_range=None):
    """The pixel values of black and of white: as given, or as the values of the images suggest."""
    if value_range is not None:
        return value_range
    values = np.concatenate([np.ravel(image) for image in images]).astype(np.float32)
    values = values[np.isfinite(values)]
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    for black, white in ((0, 1), (-1, 1), (0, 255)):
        if black <= low and high <= white:
            return black, white
    return (low, high) if low < high else (low - 1, low + 1)


def to_unit(image, value_range):
    """Pixel values -> (H, W, 3) in 0..1: gray, red and green, or the first three channels."""
    low, high = value_range
    unit = np.atleast_3d(np.clip((np.asarray(image, np.float32) - low) / (high - low), 0, 1))
    if unit.shape[-1] == 2:
        unit = np.concatenate([unit, 0 * unit[..., :1]], axis=-1)
    return unit.repeat(3, axis=-1) if unit.shape[-1] == 1 else unit[..., :3]


def check_counts(images, *belonging):
    """Raise ValueError unless what belongs to the images, 1 or more, is None or equally many."""
    counts = [len(images), *(len(others) for others in belonging if others is not None)]
    if not counts[0] or len(set(counts)) > 1:
        raise ValueError(f"`images`, titles, maps (={counts}) must be equally many, 1 or more")


def check_drawable(result):
    """Raise a ValueError unless the images of a result are images (N, H, W, C)."""
    if result.images.ndim != 4:
        raise ValueError(
            f"`result` (of shape {result.images.shape}) must be of images (N, H, W, C) for this; "
            "`to_frame()` gives its numbers, and `grad_cam(...).plot()` draws signals and volumes"
        )


def to_units(images, value_range=None, *belonging):
    """As `to_unit`, of one image or several; what belongs to them is None or equally many."""
    single = getattr(images, "ndim", 4) == 3
    if single and images.shape[2] > MOST_CHANNELS:
        raise ValueError(f"`images` (of shape {images.shape}) must be (N, H, W, C) or (H, W, C)")
    images = [images] if single else list(images)
    check_counts(images, *belonging)
    value_range = limits(images, value_range)
    return [to_unit(image, value_range) for image in images]


def draw_grid(rows, side, heading="", into=None):
    """Draw rows of (array, title), each array `side` inches wide, in a new figure or `into` one.

    (array, title, options) has options of `imshow`, for numbers; equal neighbors share a color bar.
    """
    columns, (height, width) = max(map(len, rows)), np.shape(rows[0][0][0])[:2]
    rows = [[(array, wrapped(t, 1.1 * side), *more) for array, t, *more in row] for row in rows]
    lines = max(len(title.splitlines()) for row in rows for _, title, *_ in row)
    wide = side * columns + 0.5 * sum(len(panel) > 2 for panel in rows[0])
    tall = (side * height / width + 0.06 + 0.17 * lines) * len(rows) + (0.3 if heading else 0)
    figure = into or new_figure(figsize=(wide, tall))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for line, row in zip(axes, rows, strict=True):
        height, width = np.shape(row[0][0])[:2]  # numbers are drawn as large as the image
        rights = [*(options for _, _, *options in row[1:]), []]
        for axis, (array, title, *options), right in zip(line, row, rights, strict=False):
            size = {"extent": (0, width, height, 0)} if options else {}
            shown = axis.imshow(array, **size, **dict(*options))
            axis.set_title(title, fontsize=9)
            if options and options != right:
                figure.colorbar(shown, ax=axis, shrink=0.8, pad=0.03).ax.tick_params(labelsize=9)
    figure.suptitle(wrapped(heading, wide), x=0.01, ha="left")
    return figure


def draw_tiles(tiles, labels, **options):
    """Lay tiles out on one axis, with labels in their corners; -> figure, axis, the last tile."""
    ratio = tiles[0].shape[0] / tiles[0].shape[1]
    columns = min(len(tiles), TILES_IN_A_ROW)
    rows, side = math.ceil(len(tiles) / columns), min(LARGEST, PAGE_WIDTH / columns)
    figure, axis = subplots(figsize=(side * columns, side * ratio * rows + 0.4))
    box = {"facecolor": "black", "alpha": 0.45, "pad": 0.8, "linewidth": 0}
    for place, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left, top = (1 + GAP) * (place % columns), (ratio + GAP) * (place // columns)
        shown = axis.imshow(tile, extent=(left, left + 1, top + ratio, top), **options)
        axis.text(left, top, label, fontsize=9, va="top", color="white", bbox=box)
    axis.set(xlim=(0, (1 + GAP) * columns - GAP), ylim=((ratio + GAP) * rows - GAP, 0))
    axis.axis("off")
    return figure, axis, shown
