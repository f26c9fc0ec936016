"""(model, images, class) -> (N, h, w) evidence maps: where the evidence for a class lies."""

import dataclasses

import numpy as np
import tensorflow as tf

from cnnviz import layers

PREDICTED = -1  # in place of a class index: the class with the highest score

# Layers that only pick, move or mix what the feature map before them holds.
PASSING_ON = ("Pool", "Dropout", "Padding", "Cropping", "UpSampling", "Reshape", "Permute")


@dataclasses.dataclass(frozen=True)
class GradCAM:
    """Where the evidence for a class lies, for N pictures.

    Attributes:
        maps: (N, h, w) float32, raw evidence at the layer's own resolution, >= 0, never NaN.
        scores: (N,) float32, the logit that was differentiated.
        class_index: (N,) int32, the class that was explained.
        layer_name: The layer whose feature map was weighted.
        verdicts: N words: "ok", "no positive evidence" (nothing speaks for the class; the map is
            all zero) or "zero gradient" (the score does not depend on the layer; likewise).
    """

    maps: np.ndarray
    scores: np.ndarray
    class_index: np.ndarray
    layer_name: str
    verdicts: tuple


def _grad_cam(feature_map, gradient):
    return tf.reduce_mean(gradient, (1, 2), keepdims=True) * feature_map


def _hires_cam(feature_map, gradient):
    return gradient * feature_map


def _layer_cam(feature_map, gradient):
    return tf.nn.relu(gradient) * feature_map


# (feature map, gradient of the score) -> evidence of each channel, all (N, h, w, C).
METHODS = {
    "grad-cam": _grad_cam,  # Selvaraju et al. 2017, "Grad-CAM"
    "hires-cam": _hires_cam,  # Draelos & Carin 2020, "Use HiResCAM instead of Grad-CAM"
    "layer-cam": _layer_cam,  # Jiang et al. 2021, "LayerCAM"
}


def grad_cam(model, images, *, class_index=None, layer_name=None, method="grad-cam"):
    """Show where a classifier finds its evidence for a class.

    The gradient of the class's logit with respect to a layer's feature map tells how much each
    channel counts; the channels' weighted sum, where positive, is the map. Where the model ends in
    a sigmoid or a softmax the logit before it is taken, which does not saturate.

    Args:
        model: keras.Model of any kind with one input and one output (N, classes); left as it was.
        images: (N, H, W, C) or (H, W, C), in the model's input range.
        class_index: The class to explain: an integer, or one integer for each picture; None takes
            the predicted class of each. For a head with one output, class 1 is that output and
            class 0 its negative.
        layer_name: The layer, also inside nested models ("backbone/block_13_expand"). None takes
            the last feature map larger than 1x1, after its activation or addition, before pooling.
        method: "grad-cam" (Selvaraju et al. 2017), "hires-cam" (Draelos & Carin 2020: exact for
            pooling and one dense layer, also where the gradient differs from place to place) or
            "layer-cam" (Jiang et al. 2021: sharp at early layers).

    Returns:
        GradCAM

    Raises:
        ValueError: If an argument is out of range or the model's layer or output does not fit.
    """
    images = layers.check_images(model, images)
    if method not in tuple(METHODS):
        raise ValueError(f"`method` (={method!r}) must be one of {', '.join(map(repr, METHODS))}")
    class_index = _check_class_index(class_index, len(images))
    chosen = layers.leaf_layers(model)
    if layer_name is not None:
        chosen = dict([layers.find_layer(model, layer_name)])

    key = ("grad_cam", method, layer_name and tuple(chosen), images.shape[1:])
    function, found = layers.traced(
        model, key, lambda get_model: _trace(get_model, images, chosen, layer_name, METHODS[method])
    )
    _check_class_range(class_index, found["classes"])
    maps, scores, explained, strength = layers.in_batches(
        function, images, class_index.astype(np.int32)
    )
    if not (np.isfinite(scores).all() and np.isfinite(maps).all()):
        raise ValueError(
            f"`model` (='{model.name}') gives NaN or infinity for pictures it was shown; look for "
            "NaN in its weights"
        )
    return GradCAM(maps, scores, explained, found["layer_name"], _verdicts(maps, strength))


def _check_class_index(class_index, count):
    """-> (count,) integers, `PREDICTED` where none was chosen."""
    if class_index is None:
        return np.full(count, PREDICTED)
    class_index = np.asarray(class_index)
    if class_index.dtype.kind not in "iu" or class_index.shape not in ((), (count,)):
        raise ValueError(
            f"`class_index` (={class_index!r}) must be None, an integer, or one integer for each "
            f"of the {count} images"
        )
    if np.any(class_index < 0):
        raise ValueError(f"`class_index` (={class_index}) must not be negative")
    return np.broadcast_to(class_index, (count,))


def _check_class_range(class_index, classes):
    if len(class_index) and class_index.max() >= classes:
        raise ValueError(
            f"`class_index` (={class_index.max()}) must be in [0, {classes}) for this model"
        )


def _trace(get_model, images, chosen, layer_name, method):
    """Trace (images, class_index) -> (maps, scores, class_index, strength of the gradient)."""
    found = {}

    @tf.function(
        autograph=False,
        input_signature=[layers.image_spec(images), tf.TensorSpec((None,), tf.int32)],
    )
    def compute(batch, class_index):
        output, outputs = layers.call_and_record(get_model(), batch, chosen)
        scores = layers.class_scores(output)
        found["classes"] = scores.shape[1]
        predicted = tf.argmax(scores, axis=1, output_type=tf.int32)
        class_index = tf.where(class_index == PREDICTED, predicted, class_index)
        score = tf.gather(scores, class_index, batch_dims=1)
        if layer_name is None:
            path, feature_map, gradient = _last_feature_map(outputs, chosen, score)
        else:
            (path,) = chosen
            feature_map = layers.required_output(outputs, path)
            gradient = _gradient(score, feature_map, path)
        found["layer_name"] = path
        feature_map, gradient = (tf.cast(t, tf.float32) for t in (feature_map, gradient))
        maps = tf.nn.relu(tf.reduce_sum(method(feature_map, gradient), axis=3))
        return maps, score, class_index, tf.reduce_max(tf.abs(gradient), (1, 2, 3))

    compute.get_concrete_function()
    return compute, found


def _gradient(score, feature_map, path):
    if feature_map.shape.rank != 4:
        raise ValueError(
            f"`layer_name` (='{path}') outputs shape {tuple(feature_map.shape)}; a heat map needs "
            "feature maps (N, h, w, C), so choose a layer before the pooling or flattening"
        )
    (gradient,) = tf.gradients(score, feature_map)
    if gradient is None:
        raise ValueError(f"`layer_name` (='{path}') has no influence on the model's output")
    return gradient


def _last_feature_map(outputs, chosen, score):
    """The last layer that a person would choose, among those that the score depends on."""
    for path in reversed(outputs):
        feature_map = outputs[path][-1]
        kind = type(chosen[path]).__name__
        if feature_map.shape.rank != 4 or any(word in kind for word in PASSING_ON):
            continue
        if tuple(feature_map.shape[1:3]) != (1, 1):
            (gradient,) = tf.gradients(score, feature_map)
            if gradient is not None:
                return path, feature_map, gradient
    raise ValueError(
        "`layer_name` (=None) found no feature map larger than 1x1 on the way to the output; "
        "Grad-CAM needs a convolutional network"
    )


def _verdicts(maps, strength):
    """One word for each map, from its highest evidence and its strongest gradient."""
    return tuple(
        "ok" if peak > 0 else "no positive evidence" if slope > 0 else "zero gradient"
        for peak, slope in zip(maps.max(axis=(1, 2), initial=0), strength, strict=True)
    )
