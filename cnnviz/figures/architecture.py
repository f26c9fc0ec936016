"""Draw a model as the image passes through it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnviz.figures.style import DescribedFigure, counted, short_names, styled, subplots

if TYPE_CHECKING:
    from cnnviz.layers.shapes import LayerShape

COLORS = {"image": "#c7c7c7", "convolution": "#56b4e9", "pooling": "#e69f00", "dense": "#009e73"}
MARKERS = {"addition": "P", "concatenation": "D"}
ROLES = {"Input": "image", "Add": "addition", "Concatenate": "concatenation", "Dense": "dense"}
MOST_NAMED = 26  # layers that are drawn with their names


@styled
def draw_architecture(shapes: Sequence[LayerShape]) -> DescribedFigure:
    """Draw a model as the image passes through it, from left to right.

    Args:
        shapes: What `layer_shapes` returns.

    Returns:
        Figure: a slab for each convolution, pooling and dense layer, as high as the square root of
        the height of its feature maps and wide by that of its channels; a sign for each addition
        and concatenation, with lines from the layers whose outputs skip some. Up to 26 layers have
        their names and channels below them; else there are the numbers for each size. Other layers
        are left out, and what is squeezed to 1x1 on the way.

    Example:
        >>> from cnnviz.layers import layer_shapes
        >>> shapes = layer_shapes(cnnviz.load_pretrained())
        >>> figure = cnnviz.figures.draw_architecture(shapes)
    """
    drawn = _drawn(shapes)
    named = len(drawn) <= MOST_NAMED
    figure, axis = subplots(figsize=(9, 3.6 if named else 2.8))
    side = max(shape.shape[0] for _, shape in drawn if len(shape.shape) == 3)
    most = max(shape.shape[-1] for _, shape in drawn)
    x, at, ticks = 0.0, {}, {}  # {layer: (x, top)}, {x: label}
    for size, group in itertools.groupby(drawn, key=lambda item: item[1].shape[:-1]):
        stage = list(group)
        room = max(0, 0.1 * len(drawn) - len(stage))  # for the texts over and under the stage
        middle = x + (room + len(stage) - 1) / 2
        x += room / 2
        for role, shape in stage:
            top, channels = (size[0] / side) ** 0.5 if size else 0.1, shape.shape[-1]
            (label,) = short_names([shape.name])
            if role in MARKERS:
                top, look = 0.1, {"color": "black", "markersize": 9 if named else 4}
                axis.plot(x, 0, MARKERS[role], label=role, **look)
            else:
                width, label = 0.2 + 0.6 * (channels / most) ** 0.5, f"{label}  {channels}"
                axis.bar(x, 2 * top, width, -top, color=COLORS[role], zorder=2, label=role)
            at[shape.name] = x, top
            ticks |= {x: label} if named else {}
            x += 1
        x += room / 2 + 0.4
        axis.text(middle, 1.3, "{}x{}".format(*size) if size else "vector", ha="center", fontsize=9)
        if not named:
            channels = [shape.shape[-1] for _, shape in stage]
            low, high = min(channels), max(channels)
            span = f"{low}" if low == high else f"{low}-{high}"
            ticks[middle] = f"{counted(len(stage), 'layer')}\n{span}"
    _draw_skips(axis, shapes, at)
    axis.axhline(0, color="0.6", linewidth=1, zorder=1)
    axis.set(xlim=(-0.7, x - 0.4), ylim=(-1.1, 1.6), yticks=[])
    axis.set_xticks(list(ticks), ticks.values(), rotation=90 if named else 0, fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    total = counted(sum(shape.parameters for shape in shapes), "parameter")
    axis.set_title(f"{total}; height x width above, channels below")
    handles, labels = axis.get_legend_handles_labels()
    roles = dict(zip(labels, handles, strict=True))
    options = {"loc": "outside lower left", "ncols": len(roles), "frameon": False}
    figure.legend(roles.values(), roles.keys(), **options)
    return figure


def _drawn(shapes):
    """[(role, shape)] of the layers that are drawn."""
    found, kinds = [], {"Conv": "convolution", "Pool": "pooling"}
    for shape in shapes:
        role = ROLES.get(shape.kind, next((kinds[k] for k in kinds if k in shape.kind), None))
        if role and len(shape.shape) in (1, 3):
            found.append((role, shape))
    large = [place for place, (_, shape) in enumerate(found) if math.prod(shape.shape[:-1]) > 1]
    return [item for place, item in enumerate(found) if place in large or place > large[-1]]


def _draw_skips(axis, shapes, at):
    """A line to each addition from the layers whose outputs skip those directly before it."""
    order, source = list(at), {}  # the last drawn layer on the way to each layer's output
    for shape in shapes:
        known = {source[name] for name in shape.inputs if name in source}
        *skipping, last = sorted(known, key=order.index) or [None]
        if shape.name in at or last:
            source[shape.name] = shape.name if shape.name in at else last
        for start in skipping if ROLES.get(shape.kind) in MARKERS else ():
            between = order[order.index(start) : order.index(shape.name)]
            over = max(at[name][1] for name in between) + 0.12
            (left, low), (right, high) = at[start], at[shape.name]
            x = [left + 0.1, left + 0.1, right - 0.1, right - 0.1]
            axis.plot(x, [low, over, over, high], color="0.3", linewidth=0.9)
