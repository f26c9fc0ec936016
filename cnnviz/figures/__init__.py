"""(arrays or results) -> Figure: every figure, and the only place that scales for the eye."""

from cnnviz.figures.architecture import draw_architecture
from cnnviz.figures.evidence import draw_exploration, draw_heat_maps
from cnnviz.figures.faults import (
    CENSUS_COLORS,
    draw_census,
    draw_changes,
    draw_map_trust,
    draw_mistakes,
)
from cnnviz.figures.learning import draw_calibration, draw_confusion_matrix, draw_learning_curves
from cnnviz.figures.looks import draw_activations, draw_exciting_crops, draw_filters, draw_images
from cnnviz.figures.style import (
    ACTIVATION_COLORS,
    EVIDENCE_COLORS,
    SIGNED_COLORS,
    STYLE,
    TRAINING_COLOR,
    VALIDATION_COLOR,
    DescribedFigure,
)

__all__ = [
    "ACTIVATION_COLORS",
    "CENSUS_COLORS",
    "DescribedFigure",
    "EVIDENCE_COLORS",
    "SIGNED_COLORS",
    "STYLE",
    "TRAINING_COLOR",
    "VALIDATION_COLOR",
    "draw_activations",
    "draw_architecture",
    "draw_calibration",
    "draw_census",
    "draw_changes",
    "draw_confusion_matrix",
    "draw_exciting_crops",
    "draw_exploration",
    "draw_filters",
    "draw_heat_maps",
    "draw_images",
    "draw_learning_curves",
    "draw_map_trust",
    "draw_mistakes",
]
