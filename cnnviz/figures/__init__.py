"""Every figure, drawn from arrays or results; the only place that scales for the eye."""

from cnnviz.figures.faults import (
    draw_census,
    draw_changes,
    draw_duplicates,
    draw_mistakes,
    draw_suspects,
)
from cnnviz.figures.heat_maps import draw_heat_maps, draw_map_trust
from cnnviz.figures.learning import (
    draw_calibration,
    draw_confusion_matrix,
    draw_learning_curves,
    draw_monitor,
)
from cnnviz.figures.style import DescribedFigure, class_name, counted, explained_name, figure_html
from cnnviz.figures.tiles import draw_activations, draw_filters, draw_images, draw_patches
