"""(model, images, class) -> (N, h, w) evidence maps: where the evidence for a class lies."""

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz import layers

Method: TypeAlias = Literal["grad-cam", "hires-cam", "grad-cam++", "layer-cam", "fine"]
ClassIndex: TypeAlias = int | Sequence[int] | np.ndarray

PREDICTED = -1  # in place of a class index: the class with the highest score

FINER_LAYERS = 2  # feature maps of higher resolution that the method "fine" adds

# Layers that only pick, move or mix what the feature map before them holds.
PASSING_ON = ("Pool", "Dropout", "Padding", "Cropping", "UpSampling", "Reshape", "Permute")


@dataclasses.dataclass(frozen=True)
class GradCAM:
    """Where the evidence for a class lies, for N pictures.

    Attributes:
        maps: (N, h, w) float32, raw evidence at the layer's own resolution, of "fine" at that of
            the finest of its layers; >= 0 unless `signed` was asked for, never NaN.
        scores: (N,) float32, the logit that was differentiated.
        class_index: (N,) int32, the class that was explained.
        layer_name: The layer whose feature map was weighted; of "fine" all of them, the last first.
        verdicts: N words: "ok", "no positive evidence" (nothing speaks for the class; the map is
            all zero; of a signed map "no evidence") or "zero gradient" (the score does not depend
            on the layer; likewise).
        method: How it was computed, one of `METHODS`.
    """

    maps: np.ndarray
    scores: np.ndarray
    class_index: np.ndarray
    layer_name: str
    verdicts: tuple[str, ...]
    method: str = "grad-cam"


def _grad_cam(feature_map, gradient):
    return tf.reduce_mean(gradient, (1, 2), keepdims=True) * feature_map


def _hires_cam(feature_map, gradient):
    return gradient * feature_map


def _grad_cam_plus_plus(feature_map, gradient):
    """The derivatives are those of exp(score), which are powers of the score's own."""
    total = tf.reduce_sum(feature_map, (1, 2), keepdims=True)
    share = tf.math.divide_no_nan(gradient**2, 2 * gradient**2 + total * gradient**3)
    weight = tf.reduce_sum(share * tf.nn.relu(gradient), (1, 2), keepdims=True)
    return weight * feature_map


def _layer_cam(feature_map, gradient):
    return tf.nn.relu(gradient) * feature_map


# (feature map, gradient of the score) -> evidence of each channel, all (N, h, w, C).
METHODS: dict[Method, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "grad-cam": _grad_cam,  # Selvaraju et al. 2017, "Grad-CAM"
    "hires-cam": _hires_cam,  # Draelos & Carin 2020, "Use HiResCAM instead of Grad-CAM"
    "grad-cam++": _grad_cam_plus_plus,  # Chattopadhyay et al. 2018, "Grad-CAM++"
    "layer-cam": _layer_cam,  # Jiang et al. 2021, "LayerCAM"
    "fine": _hires_cam,  # of several layers, combined after Englebert et al. 2022, "Poly-CAM"
}
SIGNED_METHODS = ("grad-cam", "hires-cam", "fine")  # the others keep only what speaks for the class


def grad_cam(
    model: keras.Model,
    images: ArrayLike,
    *,
    class_index: ClassIndex | None = None,
    layer_name: str | None = None,
    method: Method = "grad-cam",
    signed: bool = False,
    output_name: str | int | None = None,
) -> GradCAM:
    """Show where a classifier finds its evidence for a class.

    The gradient of the class's logit with respect to a layer's feature map tells how much each
    channel counts; the channels' weighted sum, where positive, is the map. Where the model ends in
    a sigmoid or a softmax the logit before it is taken, which does not saturate.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        images: (N, H, W, C) or (H, W, C), in the model's input range. A model that has channels
            first may get them in its own layout, too.
        class_index: The class to explain: an integer, or one integer for each picture; None takes
            the predicted class of each. For a head with one output, class 1 is that output and
            class 0 its negative.
        layer_name: The layer, also inside nested models ("backbone/block_13_expand"). None takes
            the last feature map larger than 1x1, after its activation or addition, before pooling.
            What a model computes in its own `call` belongs to no layer: there its last layer counts
            as it is.
        method: "grad-cam" (Selvaraju et al. 2017); "hires-cam" (Draelos & Carin 2020), which shows
            what the model used, exactly, where pooling and one dense layer follow, also where the
            gradient differs from place to place; "grad-cam++" (Chattopadhyay et al. 2018), which
            gives several objects of the class equal weight; "layer-cam" (Jiang et al. 2021), sharp
            at early layers; "fine", HiResCAM of the layer, for and against averaged over 5x5 cells,
            and then of the last layers at the next two higher resolutions, each of which lays the
            evidence out among its own pixels (after Poly-CAM, Englebert et al. 2022).
        signed: Whether evidence against the class is kept, as negative numbers. With two classes it
            is the evidence for the other one. Only for "grad-cam", "hires-cam" and "fine".
        output_name: The output to explain, of a model with several: its name in
            `model.output_names`, its key or its index.

    Returns:
        GradCAM

    Raises:
        ValueError: If an argument is out of range, the model's layer or output does not fit, or NaN
            comes out.

    Warns:
        UserWarning: If the layer's feature map is of 1x1, or the range of the images cannot be the
            one that the model was trained on.
    """
    images = layers.check_images(model, images)
    if method not in tuple(METHODS):
        raise ValueError(f"`method` (={method!r}) must be one of {', '.join(map(repr, METHODS))}")
    if signed and method not in SIGNED_METHODS:
        raise ValueError(
            f"`signed` (={signed}) needs a method that keeps evidence against the class, "
            f"{', '.join(map(repr, SIGNED_METHODS))}; `method` is {method!r}"
        )
    class_index = _check_class_index(class_index, len(images))
    chosen, path = layers.named_layers(model), None
    if layer_name is not None:
        path, layer = layers.find_layer(model, layer_name)
        chosen = chosen if method == "fine" else {path: layer}

    key = ("grad_cam", method, path, repr(output_name), images.shape[1:])
    function, found = layers.traced(
        model, key, lambda get_model: _trace(get_model, images, chosen, path, method, output_name)
    )
    _check_class_range(class_index, found["classes"])
    layers.check_range(model, images)
    maps, scores, explained, strength, squares = layers.in_batches(
        function, images, class_index.astype(np.int32)
    )
    layers.check_finite(model, scores, maps, squares=squares)
    if maps.shape[1:] == (1, 1):
        warnings.warn(
            f"`layer_name` (='{found['layer_name']}') outputs feature maps of 1x1, which tell how "
            "much evidence there is but not where; choose a layer before it",
            stacklevel=2,
        )
    maps = maps.copy() if signed else np.maximum(maps, 0)
    nothing = "no evidence" if signed else "no positive evidence"
    verdicts = _verdicts(maps, strength, nothing)
    return GradCAM(maps, scores.copy(), explained.copy(), found["layer_name"], verdicts, method)


def _check_class_index(class_index, count):
    """-> (count,) integers, `PREDICTED` where none was chosen."""
    if class_index is None:
        return np.full(count, PREDICTED)
    given = class_index
    try:
        class_index = np.asarray(given)
    except ValueError:  # lists of different lengths
        class_index = np.empty((0, 0))
    if class_index.dtype.kind not in "iu" or class_index.shape not in ((), (count,)):
        raise ValueError(
            f"`class_index` (={given!r}) must be None, an integer, or one integer for each "
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


def _trace(get_model, images, chosen, path, method, output_name):
    """Trace (images, class_index) -> what `grad_cam` makes its result of: `compute` returns it."""
    found = {}

    @tf.function(
        autograph=False,
        input_signature=[layers.image_spec(images), tf.TensorSpec((None,), tf.int32)],
    )
    def compute(batch, class_index):
        model = get_model()
        output, outputs = layers.call_and_record(model, batch, chosen)
        scores = layers.class_scores(layers.pick_output(model, output, output_name))
        found["classes"] = scores.shape[1]
        predicted = tf.argmax(scores, axis=1, output_type=tf.int32)
        class_index = tf.where(class_index == PREDICTED, predicted, class_index)
        # The gradient of one score in each row, without that of the picking, dear to trace.
        of_class = tf.one_hot(class_index, scores.shape[1])
        gradients = functools.partial(layers.gradients, model, scores, grad_ys=of_class)
        if path is None:
            last = last_feature_map(model, outputs, gradients)
        else:
            feature_map = layers.required_output(outputs, path)
            last = path, feature_map, _gradient(gradients, feature_map, path)
        used = [last]
        if method == "fine":
            used += _finer_feature_maps(model, outputs, gradients, last)
        found["layer_name"] = ", ".join(name for name, _, _ in used)
        maps = [_evidence(METHODS[method], *tensors) for _, *tensors in used]
        if method == "fine":
            maps[0] = _average_over_neighbours(maps[0])
        signed = functools.reduce(_refine, maps)
        score = tf.gather(scores, class_index, batch_dims=1)
        strength = tf.reduce_max(tf.abs(last[2]), (1, 2, 3))
        return signed, score, class_index, strength, layers.squared_weights(model)

    return compute.get_concrete_function(), found


def _evidence(method, feature_map, gradient):
    feature_map, gradient = (tf.cast(tensor, tf.float32) for tensor in (feature_map, gradient))
    return tf.reduce_sum(method(feature_map, gradient), axis=3)


def _average_over_neighbours(maps):
    """Average (N, h, w) evidence with binomial weights over 5x5 cells; the sum stays the same.

    What speaks for the class in the midst of what speaks against it then counts for nothing.
    """
    for _ in range(2):
        padded = tf.pad(maps, ((0, 0), (1, 1), (1, 1)), "SYMMETRIC")
        rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        maps = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
    return maps


def _refine(coarse, fine):
    """Lay the evidence of each coarse cell out among the fine cells, by their own evidence.

    What speaks for the class is laid out by what speaks for it, and what against by what against.
    """

    def lay_out(coarse, fine):
        coarse, fine = tf.nn.relu(coarse)[..., None], tf.nn.relu(fine)[..., None]
        around = tf.image.resize(fine, coarse.shape[1:3], "area")
        shape = fine.shape[1:3]
        around = tf.image.resize(around, shape, "bilinear")
        spread = tf.image.resize(coarse, shape, "bilinear")
        return tf.math.divide_no_nan(spread * fine, around)[..., 0]

    return lay_out(coarse, fine) - lay_out(-coarse, -fine)


def _gradient(gradients, feature_map, path):
    if feature_map.shape.rank != 4:
        raise ValueError(
            f"`layer_name` (='{path}') outputs shape {tuple(feature_map.shape)}; a heat map needs "
            "feature maps (N, h, w, C), so choose a layer before the pooling or flattening"
        )
    (gradient,) = gradients(feature_map)
    if gradient is None:
        raise ValueError(f"`layer_name` (='{path}') has no influence on the model's output")
    return gradient


def last_feature_map(model, outputs, gradients):
    """The last layer that a person would choose, among those that a score depends on.

    Args:
        model: keras.Model.
        outputs: dict[str, list of tensors], as `layers.call_and_record` returns it of all layers.
        gradients: From a tensor to [the gradient of the score with respect to it, or None].

    Returns:
        (path, feature map, gradient).
    """
    for path, feature_map in _feature_maps(model, outputs):
        if tuple(feature_map.shape[1:3]) != (1, 1):
            (gradient,) = gradients(feature_map)
            if gradient is not None:
                layers.warn_of_parallel(outputs, path)
                return path, feature_map, gradient
    raise ValueError(
        "`layer_name` (=None) found no feature map larger than 1x1 on the way to the output; "
        "Grad-CAM needs a convolutional network"
    )


def _finer_feature_maps(model, outputs, gradients, last):
    """The last layer at each of the next higher resolutions: [(path, feature map, gradient)]."""
    height, width = last[1].shape[1:3]
    finer = []
    for path, feature_map in _feature_maps(model, outputs):
        if len(finer) == FINER_LAYERS:
            break
        if feature_map.shape[1] > height and feature_map.shape[2] > width:
            (gradient,) = gradients(feature_map)
            if gradient is not None:
                layers.warn_of_parallel(outputs, path)
                finer.append((path, feature_map, gradient))
                height, width = feature_map.shape[1:3]
    return finer


def _feature_maps(model, outputs):
    """(path, (N, h, w, C) tensor) of the layers that make something new, the last first.

    Before the first kernel there is only the picture.
    """
    named = layers.named_layers(model)
    kernels = {
        path: any(len(w.shape) >= 2 for w in layers.own_weights(named[path])) for path in outputs
    }
    learned = set(itertools.compress(outputs, itertools.accumulate(kernels.values())))
    for path, feature_map in reversed(layers.feature_maps(model, outputs).items()):
        passes_on = not kernels[path] and any(layers.is_a(named[path], w) for w in PASSING_ON)
        if path in learned and not passes_on:
            yield path, feature_map


def _verdicts(maps, strength, nothing):
    """One word for each map, from its strongest evidence and its strongest gradient."""
    return tuple(
        "ok" if peak > 0 else nothing if slope > 0 else "zero gradient"
        for peak, slope in zip(np.abs(maps).max(axis=(1, 2), initial=0), strength, strict=True)
    )
