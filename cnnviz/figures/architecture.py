"""Draw a model as the image passes through it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnviz.figures.style import DescribedFigure, short_name, styled, subplots

if TYPE_CHECKING:
    from cnnviz.layers.shapes import LayerShape

COLORS = {"image": "#c7c7c7", "convolution": "#56b4e9", "pooling": "#e69f00", "dense": "#009e73"}
MARKERS = {"addition": "P", "concatenation": "D"}
ROLES = {"Input": "image", "Conv": "convolution", "Pool": "pooling", "Dense": "dense"}
ROLES |= {"Add": "addition", "Concatenate": "concatenation"}
MOST_NAMED = 26  # layers that all have their names


@styled
def draw_architecture(shapes: Sequence[LayerShape]) -> DescribedFigure:
    """Draw a model from what `layer_shapes` returns: convolutions, pooling, dense layers and sums.

    Slabs grow with the square roots of the feature maps' height and of the channels. Of more than
    26 layers, the last of each size is named. What is squeezed to 1x1 on the way is left out.

    Example:
        >>> shapes = cnnviz.layers.layer_shapes(cnnviz.load_pretrained())
        >>> figure = cnnviz.figures.draw_architecture(shapes)
    """
    drawn = _drawn(shapes)
    figure, axis = subplots(figsize=(9, 3.6))
    side = max(shape.shape[0] for _, shape in drawn if len(shape.shape) == 3)
    most = max(shape.shape[-1] for _, shape in drawn)
    x, ticks = 0.0, {}  # {x: label}
    for size, group in itertools.groupby(drawn, key=lambda item: item[1].shape[:-1]):
        stage = list(group)
        room = max(0, 0.1 * len(drawn) - len(stage)) / 2  # for the text over the stage
        x += room
        middle, text = x + (len(stage) - 1) / 2, "{}x{}".format(*size) if size else "vector"
        axis.text(middle, 1.3, text, ha="center", fontsize=9)
        for role, shape in stage:
            label, channels = short_name(shape.name), shape.shape[-1]
            if role in MARKERS:
                axis.plot(x, 0, MARKERS[role], label=role, color="black", markersize=7)
            else:
                top = (size[0] / side) ** 0.5 if size else 0.1
                width, label = 0.2 + 0.6 * (channels / most) ** 0.5, f"{label}  {channels}"
                axis.bar(x, 2 * top, width, -top, color=COLORS[role], zorder=2, label=role)
            if len(drawn) <= MOST_NAMED or shape is stage[-1][1]:
                ticks[x] = label
            x += 1
        x += room + 0.4
    axis.axhline(0, color="0.6", linewidth=1, zorder=1)
    axis.set(xlim=(-0.7, x - 0.4), ylim=(-1.1, 1.6), yticks=[])
    axis.set_xticks(list(ticks), ticks.values(), rotation=90, fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(f"{len(shapes) - 1} layers; height x width above, channels below")
    handles, labels = axis.get_legend_handles_labels()
    roles = dict(zip(labels, handles, strict=True))
    place = {"loc": "outside lower left", "ncols": len(roles), "frameon": False}
    figure.legend(roles.values(), roles.keys(), **place)
    return figure


def _drawn(shapes):
    """[(role, shape)] of the layers that are drawn."""
    roles = [next((ROLES[key] for key in ROLES if key in shape.kind), None) for shape in shapes]
    found = zip(roles, shapes, strict=True)
    found = [(role, shape) for role, shape in found if role and len(shape.shape) in (1, 3)]
    large = [i for i, (_, shape) in enumerate(found) if max(shape.shape[:-1], default=1) > 1]
    return [item for i, item in enumerate(found) if i in large or i > large[-1]]
