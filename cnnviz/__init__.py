"""Debug a convolutional network by looking inside it: the public names, on one screen.

Images are RGB, (N, H, W, 3) or one (H, W, 3), in the range that the model was trained on; this
project's own models take 0..255. Results are NumPy arrays, float32 unless said.
"""

from cnnviz import memory, quiet  # noqa: F401, I001 - before anything imports TensorFlow

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
    calibration_bins,
    check_inputs,
    compare_models,
    confident_mistakes,
    dead_channels,
    evidence_share,
    expected_calibration_error,
    filter_census,
    map_trust,
    reliance,
    suspect_labels,
)
from cnnviz.drawn_pets import DrawnPets, drawn_pets, write_drawn_pets
from cnnviz.exciting_crops import ExcitingCrops, exciting_crops
from cnnviz.explore import explore
from cnnviz.filter_ascent import FilterImages, ascend_filters
from cnnviz.grad_cam import GradCAM, grad_cam
from cnnviz.layer_shapes import LayerShape, layer_shapes
from cnnviz.layers import class_probabilities, convolution_layers, named_layers
from cnnviz.model import (
    build_model,
    calibrate,
    fastest_precision,
    fold_batch_normalization,
    load_pretrained,
)
from cnnviz.model_files import load_model, save_model
from cnnviz.receptive_field import receptive_field
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
    "write_drawn_pets",
    # model and training
    "build_model",
    "calibrate",
    "class_probabilities",
    "fastest_precision",
    "fold_batch_normalization",
    "load_model",
    "load_pretrained",
    "save_model",
    "train",
    # look
    "ExcitingCrops",
    "FilterImages",
    "GradCAM",
    "LayerShape",
    "ascend_filters",
    "convolution_layers",
    "exciting_crops",
    "explore",
    "extract_activations",
    "grad_cam",
    "layer_shapes",
    "named_layers",
    "receptive_field",
    # diagnose
    "FilterCensus",
    "InputReport",
    "MapTrust",
    "Mistakes",
    "ModelChanges",
    "Reliance",
    "SuspectLabels",
    "calibration_bins",
    "check_inputs",
    "compare_models",
    "confident_mistakes",
    "dead_channels",
    "evidence_share",
    "expected_calibration_error",
    "filter_census",
    "map_trust",
    "reliance",
    "suspect_labels",
    # draw
    "figures",
]
