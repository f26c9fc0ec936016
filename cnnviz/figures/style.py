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
MOST_CHANNELS = 16  # of an image; a longer last axis is a side
MOST_ROWS = 12  # of a figure with a row for each image or filter
COLUMNS, PAGE_WIDTH, LARGEST = 6, 8.4, 2.4  # of a grid; inches of it, and of a side of an image


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
        """Alternative text: the figure's titles, but for numbers, and the labels of its axes."""
        texts = [self.get_suptitle()]
        texts += [axis.get_title(loc) for axis in self.axes for loc in ("left", "center")]
        texts += [label for axis in self.axes for label in (axis.get_xlabel(), axis.get_ylabel())]
        texts = [" ".join(text.split()) for text in texts if text.strip() and not text.isdigit()]
        return "; ".join(dict.fromkeys(texts)) or "images"

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


def explained_name(result, row: int, names: Sequence[str] = ()) -> str:
    """What a GradCAM explains in one of its images: the class's name, the target, or both."""
    index, names = result.class_index[row], names if len(names) else result.class_names
    name = class_name(names, index) if index >= 0 or not result.target else ""
    return f"{name} {result.target}".strip()


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
    name = wrapped(path.rsplit("/", 1)[-1], inches=99)
    return name if len(name) <= 28 else f"{name[:12]}...{name[-13:]}"


def to_units(images, value_range=None, *belonging):
    """One image or several -> list of (H, W, 3) in 0..1: the first 3 channels, or one as gray.

    `value_range` holds the values of black and of white; None finds them. What belongs to the
    images must be None or equally many.
    """
    if getattr(images, "ndim", 4) == 3:
        if images.shape[2] > MOST_CHANNELS:
            raise ValueError(f"`images` (of shape {images.shape}) must be (N, H, W, C), (H, W, C)")
        images = [images]
    check_counts(images, *belonging)
    images = [np.atleast_3d(np.asarray(image, np.float32)) for image in images]
    low, high = _value_range(images) if value_range is None else value_range
    units = [np.clip((image - low) / (high - low), 0, 1) for image in images]
    return [u[..., :3] if u.shape[-1] > 2 else u[..., :1].repeat(3, axis=-1) for u in units]


def _value_range(images):
    values = np.concatenate([image.ravel() for image in images])
    values = values[np.isfinite(values)]
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    for black, white in ((0, 1), (-1, 1), (0, 255)):
        if black <= low and high <= white:
            return black, white
    return (low, high) if low < high else (low - 1, low + 1)


def check_counts(images, *belonging):
    """Raise ValueError unless what belongs to the images, 1 or more, is None or equally many."""
    counts = [len(images), *(len(others) for others in belonging if others is not None)]
    if not counts[0] or len(set(counts)) > 1:
        raise ValueError(f"`images`, titles, maps (={counts}) must be equally many, 1 or more")


def check_drawable(result):
    """Raise a ValueError unless the images of a result are images (N, H, W, C)."""
    if result.images.ndim != 4:
        wanted = "must be of images (N, H, W, C) to be drawn; `to_frame()` gives its numbers"
        raise ValueError(f"`result` (of shape {result.images.shape}) {wanted}")


def draw_grid(panels, columns, heading="", *, side=None, into=None):
    """Draw panels in rows, each `side` inches wide, in a new figure or `into` one.

    A panel is (image, title), or (numbers, title, options of `imshow`), drawn as large as the image
    before; panels with the same options share a color bar.
    """
    panels = panels or [(np.ones((1, 9, 3)), "nothing to draw")]
    columns = min(columns, len(panels))
    side = side or min(LARGEST, PAGE_WIDTH / columns)
    rows, titles = math.ceil(len(panels) / columns), [wrapped(p[1], 1.1 * side) for p in panels]
    height, width = panels[0][0].shape[:2]
    bars = {id(panel[2]) for panel in panels[:columns] if len(panel) > 2}
    wide = side * columns + 0.5 * len(bars)
    lines = max(title.count("\n") + 1 for title in titles)
    tall = rows * (side * height / width + 0.06 + 0.17 * lines) + 0.3 * bool(heading)
    figure = into or new_figure(figsize=(wide, tall))
    axes, sharing = figure.subplots(rows, columns, squeeze=False).ravel(), {}
    for axis in axes:
        axis.axis("off")
    for axis, (array, _, *options), title in zip(axes, panels, titles, strict=False):
        height, width = (height, width) if options else array.shape[:2]
        axis.imshow(array, extent=(0, width, height, 0), **dict(*options))
        axis.set_title(title, fontsize=9)
        if options:
            sharing.setdefault(id(options[0]), []).append(axis)
    for group in sharing.values():
        bar = figure.colorbar(group[0].images[0], ax=group, shrink=0.8, pad=0.03)
        bar.ax.tick_params(labelsize=9)
    figure.suptitle(wrapped(heading, wide), x=0.01, ha="left")
    return figure
