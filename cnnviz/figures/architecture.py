"""(layer shapes) -> Figure: a network as the picture passes through it."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.lines

from cnnviz import descriptions
from cnnviz.descriptions import counted
from cnnviz.figures.style import DescribedFigure, described, subplots

if TYPE_CHECKING:
    from cnnviz.layer_shapes import LayerShape

ROLES = {  # of layers in an architecture, and how each is drawn
    "picture": {"marker": "s", "color": "#c7c7c7"},
    "convolution": {"marker": "s", "color": "#56b4e9"},
    "pooling": {"marker": "s", "color": "#e69f00"},
    "addition": {"marker": "P", "color": "black", "markersize": 9},
    "concatenation": {"marker": "D", "color": "black", "markersize": 6},
    "dense layer": {"marker": "s", "color": "#009e73"},
}
MERGES = ("addition", "concatenation")
MOST_NAMED = 26  # layers of an architecture that are drawn with their names
SLAB, MERGE = 0.85, 0.1  # half the height of the highest layer of an architecture, of an addition


@described(descriptions.architecture)
def draw_architecture(shapes: Sequence[LayerShape], *, title: str | None = None) -> DescribedFigure:
    """Draw a network as the picture passes through it, from left to right.

    Args:
        shapes: What `layer_shapes` returns.
        title: What is to stand over it; None takes the number of parameters.

    Returns:
        Figure: a slab for each convolution, pooling and dense layer: higher with the pixels along a
        side of its feature maps, thicker with its channels, both by their square roots, since the
        numbers stand beside. A plus is an addition, a diamond a concatenation, each with a line
        from the layer whose output skips those between. Up to 26 layers have their names below
        them; of more, a table tells for each size what there is. Layers that keep the shape, such
        as normalisations, are left out, and what is squeezed to 1x1 on the way.
    """
    drawn = _drawn_layers(shapes)
    stages = [list(run) for _, run in itertools.groupby(drawn, lambda item: item[1].shape[:-1])]
    rows = [] if len(drawn) <= MOST_NAMED else [_stage_row(stage) for stage in stages]
    longest = max(len(_bare(shape.name)) for _, shape in drawn)
    below = 0.3 + 0.19 * len(rows) if rows else 0.3 + 0.08 * longest
    figure, axis = subplots(figsize=(9, 2 * SLAB + below + 1.3))
    places = _draw_slabs(axis, stages, named=not rows)
    _draw_skips(axis, shapes, drawn, places)
    for line, cells in enumerate(rows):
        for left, text in zip((0.0, 0.1, 0.27, 0.67), cells, strict=True):
            where = axis.get_yaxis_transform()
            axis.text(left, -SLAB - 0.3 - 0.19 * line, text, transform=where, fontsize=9)
    axis.set(ylim=(-SLAB - below, SLAB + 0.55))
    axis.axis("off")
    total = sum(shape.parameters for shape in shapes)
    beside = "" if rows else "; height x width above, channels below"
    axis.set_title(title or f"{total:,} parameters{beside}")
    counts = collections.Counter(role for role, _ in drawn)
    handles = [
        matplotlib.lines.Line2D([], [], linestyle="", label=counted(counts[role], role), **marker)
        for role, marker in ROLES.items()
        if counts[role] and role != "picture"
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
    return figure


def _drawn_layers(shapes):
    """[(role, shape)] of what is drawn."""
    items = [(_role(shape.kind), shape) for shape in shapes]
    items = [(role, shape) for role, shape in items if role and len(shape.shape) in (1, 3)]
    has_places = [math.prod(shape.shape[:-1]) > 1 for _, shape in items]
    last = max((place for place, spatial in enumerate(has_places) if spatial), default=-1)
    return [item for place, item in enumerate(items) if has_places[place] or place > last]


def _role(kind):
    """The role of a class of layers, one of `ROLES`; None of those that are not drawn."""
    exact = {"Input": "picture", "Add": "addition", "Concatenate": "concatenation"}
    exact["Dense"] = "dense layer"
    parts = {"Conv": "convolution", "Pool": "pooling"}
    return exact.get(kind) or next((parts[part] for part in parts if part in kind), None)


def _bare(name):
    return name.rsplit("/", 1)[-1]


def _size_text(shape):
    return f"{shape.shape[0]}x{shape.shape[1]}" if len(shape.shape) == 3 else "vector"


def _stage_row(stage):
    """What there is of one size: size, channels, layers, names of the first and the last."""
    channels = sorted(shape.shape[-1] for _, shape in stage)
    low, high = channels[0], channels[-1]
    counts = collections.Counter(role for role, _ in stage)
    first, last = (_bare(stage[place][1].name) for place in (0, -1))
    return (
        _size_text(stage[0][1]),
        f"{counted(low, 'channel')}" if low == high else f"{low} to {high} channels",
        ", ".join(counted(count, role) for role, count in counts.items() if role != "picture"),
        first if first == last else f"{first} ... {last}",
    )


def _draw_slabs(axis, stages, named):
    """Draw all layers but the lines that skip some; -> {name: (x, how far it reaches up)}."""
    room = {role: 0.6 if role in MERGES else 1.0 for role in ROLES}
    widths = [sum(room[role] for role, _ in stage) for stage in stages]
    shapes = [shape.shape for stage in stages for _, shape in stage]
    side = max((shape[0] for shape in shapes if len(shape) == 3), default=1)
    channels = max(shape[-1] for shape in shapes)
    left, places = 0.0, {}
    for stage, width in zip(stages, widths, strict=True):
        wide = max(width, 0.09 * sum(widths))  # for the size that stands over it
        x = left + (wide - width) / 2
        for role, shape in stage:
            x += room[role] / 2
            height = shape.shape[0] if len(shape.shape) == 3 else 1
            top = MERGE if role in MERGES else SLAB * (height / side) ** 0.5
            thick = 0.25 + 0.6 * (shape.shape[-1] / channels) ** 0.5
            if role not in MERGES:
                axis.bar(x, 2 * top, thick, -top, color=ROLES[role]["color"], zorder=2)
            places[shape.name] = x, top
            x += room[role] / 2
        axis.text(left + wide / 2, SLAB + 0.3, _size_text(stage[0][1]), ha="center", fontsize=9)
        left += wide + 0.4
    axis.axhline(0, color="0.6", linewidth=1, zorder=1)
    axis.set_xlim(-0.2, left - 0.2)
    largest = 0.55 * 72 * 9 / left  # points
    for role, shape in itertools.chain(*stages):
        x, merges = places[shape.name][0], role in MERGES
        if merges:
            marker = ROLES[role] | {"markersize": min(largest, ROLES[role]["markersize"])}
            axis.plot(x, 0, **marker)
        if named:
            number = "" if merges else f"{shape.shape[-1]}"
            axis.text(x, -SLAB - 0.22, number, ha="center", fontsize=9)
            style = {"rotation": 90, "ha": "center", "va": "top", "fontsize": 9}
            axis.text(x, -SLAB - 0.3, _bare(shape.name), color="0.4" if merges else "0", **style)
    return places


def _draw_skips(axis, shapes, drawn, places):
    """A line to each addition from the layers whose outputs skip those in between."""
    order = {shape.name: place for place, (_, shape) in enumerate(drawn)}
    inputs = {shape.name: shape.inputs for shape in shapes}

    def latest(name):
        """The last drawn layer on the way to what a layer puts out."""
        met, seen, ahead = [], set(), [name]
        while ahead:
            before = ahead.pop()
            if before in order:
                met.append(before)
            elif before not in seen:  # a layer that is used twice may come before itself
                seen.add(before)
                ahead.extend(inputs.get(before, ()))
        return max(met, key=order.get, default=None)

    for role, shape in drawn:
        if role not in MERGES:
            continue
        sources = sorted({latest(name) for name in shape.inputs} & set(order), key=order.get)
        sources = [source for source in sources if order[source] < order[shape.name]]
        for source in sources[:-1]:
            between = [s.name for _, s in drawn[order[source] : order[shape.name]]]
            over = max(places[name][1] for name in between) + 0.1
            (start, low), (end, high) = places[source], places[shape.name]
            x = [start + 0.1, start + 0.1, end - 0.1, end - 0.1]
            axis.plot(x, [low, over, over, high], color="0.3", linewidth=0.9)
