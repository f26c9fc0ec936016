"""Debug a convolutional network by looking inside it: the public names, on one screen.

Images are RGB, (N, H, W, 3) or one (H, W, 3), in the value range that the model was trained on;
this project's own models take 0..255. Results are NumPy arrays, float32 unless stated.
"""

import keras

from cnnviz import figures
from cnnviz.activations import extract_activations
from cnnviz.data import CLASS_NAMES, load_image, load_split, sample_image
from cnnviz.diagnosis import (
    FilterCensus,
    InputReport,
    MapTrust,
    Mistakes,
    ModelChanges,
    Reliance,
    SuspectLabels,
    check_inputs,
    compare_models,
    confident_mistakes,
    filter_census,
    map_trust,
    reliance,
    suspect_labels,
)
from cnnviz.drawn_pets import DrawnPets, drawn_pets
from cnnviz.explore import explore
from cnnviz.filter_ascent import FilterImages, ascend_filters
from cnnviz.grad_cam import GradCAM, grad_cam
from cnnviz.layers import class_probabilities
from cnnviz.model import build_model, load_model, load_pretrained, save_model
from cnnviz.top_patches import TopPatches, top_patches
from cnnviz.training import train

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"cnnviz needs Keras on TensorFlow; KERAS_BACKEND is '{keras.backend.backend()}'"
    )

__all__ = [
    # data
    "CLASS_NAMES",
    "DrawnPets",
    "drawn_pets",
    "load_image",
    "load_split",
    "sample_image",
    # model and training
    "build_model",
    "class_probabilities",
    "load_model",
    "load_pretrained",
    "save_model",
    "train",
    # look
    "FilterImages",
    "GradCAM",
    "TopPatches",
    "ascend_filters",
    "explore",
    "extract_activations",
    "grad_cam",
    "top_patches",
    # find the fault
    "FilterCensus",
    "InputReport",
    "MapTrust",
    "Mistakes",
    "ModelChanges",
    "Reliance",
    "SuspectLabels",
    "check_inputs",
    "compare_models",
    "confident_mistakes",
    "filter_census",
    "map_trust",
    "reliance",
    "suspect_labels",
    # draw
    "figures",
]
