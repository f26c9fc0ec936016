"""Draw a model as the image passes through it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from cnnviz.figures.style import VALIDATION_COLOR, DescribedFigure, short_name, styled, subplots

MOST_NAMED = 26  # layers that all have their names


@styled
def draw_architecture(activations: Mapping[str, ArrayLike]) -> DescribedFigure:
    """Draw layers as slabs: taller with larger feature maps, wider with more channels.

    Heights and widths are drawn by their square roots. Of more than 26 layers, the last of each
    size is named.

    Args:
        activations: {layer name: (N, h, w, C)}, as `extract_activations` returns it.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> names = cnnviz.layers.convolution_layers(model)
        >>> activations = cnnviz.extract_activations(model, image, names)
        >>> figure = cnnviz.figures.draw_architecture(activations)
    """
    shapes = [(name, np.shape(maps)[-3:]) for name, maps in activations.items()]
    figure, axis = subplots(figsize=(9, 3.2))
    side, most = (max(shape[axis] for _, shape in shapes) for axis in (0, 2))
    x, ticks = 0.0, {}  # {x: label}
    for size, group in itertools.groupby(shapes, key=lambda item: item[1][:2]):
        stage = list(group)
        axis.text(x + (len(stage) - 1) / 2, 1.1, "{}x{}".format(*size), ha="center", fontsize=9)
        for name, shape in stage:
            top, width = (size[0] / side) ** 0.5, 0.2 + 0.6 * (shape[2] / most) ** 0.5
            axis.bar(x, 2 * top, width, -top, color=VALIDATION_COLOR)
            if len(shapes) <= MOST_NAMED or name == stage[-1][0]:
                ticks[x] = f"{short_name(name)}  {shape[2]}"
            x += 1
        x += 0.6
    axis.set(xlim=(-0.7, x - 0.9), ylim=(-1.1, 1.3), yticks=[])
    axis.set_xticks(list(ticks), ticks.values(), rotation=90, fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(f"{len(shapes)} layers; height x width above, channels below")
    return figure
