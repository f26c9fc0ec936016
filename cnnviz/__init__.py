"""Debug a convolutional network by looking inside it: the public names, on one screen.

Images are RGB, (N, H, W, 3) or one (H, W, 3), in the value range that the model was trained on;
this project's own models take 0..255. Results are NumPy arrays, float32 unless stated.
"""

import keras

from cnnviz import figures, targets
from cnnviz.activations import extract_activations
from cnnviz.data import CLASS_NAMES, load_image, load_split, sample_image
from cnnviz.diagnosis.census import FilterCensus, filter_census
from cnnviz.diagnosis.changes import ModelChanges, compare_models
from cnnviz.diagnosis.diagnose import diagnose
from cnnviz.diagnosis.duplicates import Duplicates, find_duplicates
from cnnviz.diagnosis.findings import Diagnosis, Finding
from cnnviz.diagnosis.inputs import InputReport, check_inputs
from cnnviz.diagnosis.labels import SuspectLabels, suspect_labels
from cnnviz.diagnosis.mistakes import Mistakes, confident_mistakes
from cnnviz.diagnosis.reliance import Reliance, reliance
from cnnviz.diagnosis.trust import MapTrust, map_trust
from cnnviz.drawn_pets import DrawnPets, drawn_pets
from cnnviz.explore import explore
from cnnviz.filter_ascent import FilterImages, ascend_filters
from cnnviz.grad_cam import GradCAM, grad_cam
from cnnviz.layers import class_probabilities
from cnnviz.model import build_model, load_model, load_pretrained, save_model
from cnnviz.monitor import Monitor
from cnnviz.top_patches import TopPatches, top_patches
from cnnviz.training import train

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"cnnviz needs Keras on TensorFlow; KERAS_BACKEND is '{keras.backend.backend()}'"
    )

# data
__all__ = ["CLASS_NAMES", "DrawnPets", "drawn_pets", "load_image", "load_split", "sample_image"]
# model and training
__all__ += ["build_model", "load_model", "load_pretrained", "save_model", "train"]
__all__ += ["class_probabilities"]
# look
__all__ += ["FilterImages", "GradCAM", "TopPatches", "ascend_filters", "explore"]
__all__ += ["extract_activations", "grad_cam", "top_patches"]
__all__ += ["targets"]
# find the fault
__all__ += ["Diagnosis", "Duplicates", "Finding", "Monitor", "diagnose", "find_duplicates"]
__all__ += ["FilterCensus", "InputReport", "MapTrust", "Mistakes", "ModelChanges", "Reliance"]
__all__ += ["SuspectLabels", "check_inputs", "compare_models", "confident_mistakes"]
__all__ += ["filter_census", "map_trust", "reliance", "suspect_labels"]
# draw
__all__ += ["figures"]
