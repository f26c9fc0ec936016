"""Take any Keras 3 model apart: its layers by name, their recorded outputs, its class scores.

The only place that knows how a model is taken apart. In the order of reading:
`names`, `inputs`, `batches`, `run` (with `numbers`), `recorded`, `heads`, `activated`; below them
`warn`, and `cnnviz.keras_internals`, which wraps the calls of layers.
"""

from cnnviz.layers.activated import activated, filter_map, is_linear_convolution, normalized
from cnnviz.layers.batches import (
    BATCH_SIZE,
    ImageData,
    LabeledData,
    all_images,
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
    classifier_output,
    pick_output,
    probabilities,
)
from cnnviz.layers.inputs import (
    check_images,
    check_model,
    image_of,
    image_shape,
    input_shape,
    only_image_of,
    only_images,
    take,
    takes_integers,
    with_image,
    with_zeros,
)
from cnnviz.layers.names import (
    as_names,
    convolution_layers,
    find_layer,
    find_layers,
    has_kernel,
    is_a,
    leaves,
    named_layers,
    weights_by_owner,
)
from cnnviz.layers.numbers import broken_layer, check_finite, warn_of_range
from cnnviz.layers.recorded import (
    as_map,
    depends,
    feature_maps,
    gradients,
    required_feature_map,
    required_output,
    sees_images,
)
from cnnviz.layers.run import every_layer, one_layer, run, specs_of, stream, takes, traced
from cnnviz.layers.warn import warn, warn_once
