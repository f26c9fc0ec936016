"""Every figure, drawn from arrays or results; the only place that scales for the eye."""

from cnnviz.figures.activations_and_filters import (
    draw_activations,
    draw_filters,
    draw_images,
    draw_patches,
)
from cnnviz.figures.architecture import draw_architecture
from cnnviz.figures.faults import (
    draw_census,
    draw_changes,
    draw_map_trust,
    draw_mistakes,
    draw_suspects,
)
from cnnviz.figures.heat_maps import draw_heat_maps
from cnnviz.figures.learning import draw_calibration, draw_confusion_matrix, draw_learning_curves
from cnnviz.figures.style import STYLE, DescribedFigure, class_name, figure_html

__all__ = [
    "DescribedFigure",
    "STYLE",
    "class_name",
    "draw_activations",
    "draw_architecture",
    "draw_calibration",
    "draw_census",
    "draw_changes",
    "draw_confusion_matrix",
    "draw_filters",
    "draw_heat_maps",
    "draw_images",
    "draw_learning_curves",
    "draw_map_trust",
    "draw_mistakes",
    "draw_patches",
    "draw_suspects",
    "figure_html",
]
