"""Take any Keras 3 model apart: its layers by name, their recorded outputs, its class scores.

The only place that knows how a model is taken apart, and that calls one. In the order of reading:
`names`, `inputs`, `batches`, `run` (with `value_range`), `heads`, `shapes`.
"""

from cnnviz.layers.batches import (
    BATCH_SIZE,
    ImageData,
    LabeledData,
    batches,
    check_labels,
    class_indices,
    warn_if_shuffled,
)
from cnnviz.layers.heads import (
    ACTIVATIONS,
    activation_input,
    class_probabilities,
    class_scores,
    head,
    pick_output,
    probabilities,
)
from cnnviz.layers.inputs import (
    all_finite,
    check_images,
    check_model,
    image_shape,
    input_shape,
    takes_integers,
)
from cnnviz.layers.names import (
    convolution_layers,
    find_layer,
    find_layers,
    is_a,
    leaf_layers,
    leaves,
    named_layers,
    own_weights,
    weights_by_owner,
)
from cnnviz.layers.run import (
    broken_layer,
    check_finite,
    every_layer,
    feature_maps,
    gradients,
    one_layer,
    required_feature_map,
    required_output,
    run,
    stream,
    traced,
)
from cnnviz.layers.value_range import warn_of_range
from cnnviz.layers.warn import warn, warn_once


__all__ = [
    "ACTIVATIONS",
    "BATCH_SIZE",
    "ImageData",
    "LabeledData",
    "activation_input",
    "all_finite",
    "batches",
    "broken_layer",
    "check_finite",
    "check_images",
    "check_labels",
    "check_model",
    "class_indices",
    "class_probabilities",
    "class_scores",
    "convolution_layers",
    "every_layer",
    "feature_maps",
    "find_layer",
    "find_layers",
    "gradients",
    "head",
    "image_shape",
    "input_shape",
    "is_a",
    "leaf_layers",
    "leaves",
    "named_layers",
    "one_layer",
    "own_weights",
    "pick_output",
    "probabilities",
    "required_feature_map",
    "required_output",
    "run",
    "stream",
    "takes_integers",
    "traced",
    "warn",
    "warn_if_shuffled",
    "warn_of_range",
    "warn_once",
    "weights_by_owner",
]
