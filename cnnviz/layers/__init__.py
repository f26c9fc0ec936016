"""(any Keras 3 model) -> its layers by name, their outputs in a call, the scores of its classes.

The only place that knows how a model is taken apart, and how the score of a class is found. In the
order of reading: `names`, `layout`, `recording`, `tracing`, `checks`, `value_range`, `bounds`,
`scores`.
"""

from cnnviz.layers.checks import broken_layer, check_finite, check_images, squared_weights
from cnnviz.layers.layout import input_shape, picture_shape, takes_integers
from cnnviz.layers.names import (
    convolution_layers,
    find_layer,
    find_layers,
    is_a,
    leaf_layers,
    named_layers,
    own_weights,
    weights_by_owner,
)
from cnnviz.layers.recording import (
    call_and_record,
    feature_maps,
    gradients,
    required_output,
    warn_of_parallel,
)
from cnnviz.layers.scores import (
    ACTIVATIONS,
    activation_input,
    class_probabilities,
    class_scores,
    head,
    pick_output,
)
from cnnviz.layers.tracing import BATCH_SIZE, image_spec, in_batches, traced
from cnnviz.layers.value_range import check_range

__all__ = [
    "ACTIVATIONS",
    "BATCH_SIZE",
    "activation_input",
    "broken_layer",
    "call_and_record",
    "check_finite",
    "check_images",
    "check_range",
    "class_probabilities",
    "class_scores",
    "convolution_layers",
    "feature_maps",
    "find_layer",
    "find_layers",
    "gradients",
    "head",
    "image_spec",
    "in_batches",
    "input_shape",
    "is_a",
    "leaf_layers",
    "named_layers",
    "own_weights",
    "pick_output",
    "picture_shape",
    "required_output",
    "squared_weights",
    "takes_integers",
    "traced",
    "warn_of_parallel",
    "weights_by_owner",
]
