"""Find where the evidence for a class lies: Grad-CAM and its relatives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz import figures, layers
from cnnviz.results import Result

Method: TypeAlias = Literal["grad-cam", "hires-cam", "grad-cam++", "layer-cam", "fine"]
ClassIndex: TypeAlias = int | Sequence[int] | np.ndarray

PREDICTED = -1  # instead of a class index: the class with the highest score

FINER_LAYERS = 2  # feature maps of higher resolution that the method "fine" adds

# Layers that only pick, move or mix what the feature map before them holds.
PASSING_ON = ("Pool", "Dropout", "Padding", "Cropping", "UpSampling", "Reshape", "Permute")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GradCAM(Result):
    """Where the evidence for a class lies, for N images.

    Attributes:
        maps: (N, h, w) float32, raw evidence at the layer's resolution (of "fine" the finest
            layer's); >= 0 unless `signed`, never NaN.
        scores: (N,) float32, the logit that was differentiated.
        class_index: (N,) int32, the class that was explained.
        layer_name: The layer whose feature map was weighted; of "fine" all of them, the last first.
        verdicts: N words: "ok", or why a map is all zero: "no positive evidence" ("no evidence" if
            signed), or "zero gradient" (the score does not depend on the layer).
        method: How it was computed, one of `METHODS`.
        images: (N, H, W, C) float32, the images.
        class_names: The names of the classes, by index; may be empty.
    """

    maps: np.ndarray
    scores: np.ndarray
    class_index: np.ndarray
    layer_name: str
    verdicts: tuple[str, ...]
    method: str = "grad-cam"
    images: np.ndarray | None = None
    class_names: Sequence[str] = ()

    _html = ("plot",)

    def _columns(self):
        names = [figures.class_name(self.class_names, index) for index in self.class_index]
        peaks = self.maps.reshape(len(self.maps), -1).max(1, initial=0)
        columns = {"class": names, "score": self.scores, "verdict": self.verdicts}
        return columns | {"strongest evidence": peaks}

    def plot(self, n_images: int = 8, **options: Any) -> figures.DescribedFigure:
        """Draw the first images, each with its map; options of `figures.draw_heat_maps`."""
        few = {name: getattr(self, name)[:n_images] for name in ("maps", "scores", "class_index")}
        first = dataclasses.replace(self, verdicts=self.verdicts[:n_images], **few)
        return figures.draw_heat_maps(self.images[:n_images], first, self.class_names, **options)


def _grad_cam(feature_map, gradient):
    return tf.reduce_mean(gradient, (1, 2), keepdims=True) * feature_map


def _hires_cam(feature_map, gradient):
    return gradient * feature_map


def _grad_cam_plus_plus(feature_map, gradient):
    """Of exp(score), as in the paper: its n-th derivative is exp(score) * gradient**n.

    The common factor exp(score) cancels in alpha.
    """
    total = tf.reduce_sum(feature_map, (1, 2), keepdims=True)
    alpha = tf.math.divide_no_nan(gradient**2, 2 * gradient**2 + total * gradient**3)
    weight = tf.reduce_sum(alpha * tf.nn.relu(gradient), (1, 2), keepdims=True)
    return weight * feature_map


def _layer_cam(feature_map, gradient):
    return tf.nn.relu(gradient) * feature_map


# Feature map and gradient of the score to the evidence of each channel, all (N, h, w, C).
METHODS: dict[Method, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "grad-cam": _grad_cam,  # Selvaraju et al. 2017, "Grad-CAM"
    "hires-cam": _hires_cam,  # Draelos & Carin 2020, "Use HiResCAM instead of Grad-CAM"
    "grad-cam++": _grad_cam_plus_plus,  # Chattopadhyay et al. 2018, "Grad-CAM++"
    "layer-cam": _layer_cam,  # Jiang et al. 2021, "LayerCAM"
    "fine": _hires_cam,  # of several layers, combined after Englebert et al. 2022, "Poly-CAM"
}
SIGNED_METHODS = ("grad-cam", "hires-cam", "fine")  # the others know no evidence against a class


def grad_cam(
    model: keras.Model,
    images: ArrayLike,
    *,
    class_index: ClassIndex | None = None,
    layer_name: str | None = None,
    method: Method = "grad-cam",
    signed: bool = False,
    output_name: str | int | None = None,
    class_names: Sequence[str] = (),
) -> GradCAM:
    """Show where a classifier finds its evidence for a class.

    The gradient of the class's logit with respect to a layer's feature map tells how much each
    channel counts; the weighted sum of the channels, where positive, is the map. If the model ends
    in a sigmoid or a softmax, the logit before it is taken, which does not saturate.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        images: (N, H, W, C) or (H, W, C), in the model's input range.
        class_index: The class to explain: one integer, or one for each image; None takes the
            predicted class. With one output, class 1 is that output and class 0 its negative.
        layer_name: The layer, also inside nested models ("backbone/block_13_expand"). None takes
            the last feature map larger than 1x1, after its activation or addition, before pooling.
        method: "grad-cam" (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391); "hires-cam"
            (Draelos & Carin 2020, https://arxiv.org/abs/2011.08891), exact if pooling and one dense
            layer follow; "grad-cam++" (Chattopadhyay et al. 2018, https://arxiv.org/abs/1710.11063)
            for several objects of the class; "layer-cam" (Jiang et al. 2021,
            https://doi.org/10.1109/TIP.2021.3089943), sharp at early layers; "fine", this project's
            own: HiResCAM, averaged over 5x5 cells and redistributed by HiResCAM at the next two
            higher resolutions (after Poly-CAM, Englebert et al. 2022,
            https://arxiv.org/abs/2204.13359).
        signed: Whether to keep evidence against the class, as negative numbers; for "grad-cam",
            "hires-cam" and "fine".
        output_name: Of a model with several outputs, the one to explain: its name, key or index.
        class_names: The names of the classes, by index, for tables and figures.

    Returns:
        GradCAM

    Raises:
        ValueError: If an argument is out of range, a layer or an output does not fit, or NaN comes
            out.

    Warns:
        UserWarning: If the map is 1x1, the value range is hardly that of the training, the head is
            unknown (see `class_probabilities`), or the layer is used more than once.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.grad_cam(model, image, class_index=0).verdicts
        ('ok',)
    """
    if method not in tuple(METHODS):
        raise ValueError(f"`method` (={method!r}) must be one of {', '.join(map(repr, METHODS))}")
    if signed and method not in SIGNED_METHODS:
        raise ValueError(
            f"`signed` (={signed}) needs a method that keeps evidence against the class, "
            f"{', '.join(map(repr, SIGNED_METHODS))}; `method` is {method!r}"
        )
    named = layers.check_model(model)
    images = layers.check_images(model, images)
    class_index = _check_class_index(class_index, len(images))

    def compute(call, class_index):
        scores = layers.class_scores(layers.pick_output(call.model, call.output, output_name))
        predicted = tf.argmax(scores, axis=1, output_type=tf.int32)
        explained = tf.where(class_index == PREDICTED, predicted, class_index)
        # A one-hot gradient picks one score per row, and is faster to trace than a gather.
        one_hot = tf.one_hot(explained, scores.shape[1])
        gradient_of = functools.partial(layers.gradients, call.model, scores, grad_ys=one_hot)
        n_finer = FINER_LAYERS if method == "fine" else 0
        used = last_feature_maps(call, gradient_of, layer_name, n_finer)
        maps = [_evidence(METHODS[method], one.feature_map, one.gradient) for one in used]
        if method == "fine":
            maps[0] = _average_over_neighbors(maps[0])
        evidence = functools.reduce(_refine, maps)
        score = tf.gather(scores, explained, batch_dims=1)
        strength = tf.reduce_max(tf.abs(used[0].gradient), (1, 2, 3))
        facts = {"layer_name": ", ".join(one.path for one in used), "classes": scores.shape[1]}
        return (evidence, score, explained, strength), facts

    every = layer_name is None or method == "fine"
    (maps, scores, explained, strength), facts = layers.run(
        model,
        images,
        compute,
        key=("grad_cam", method, layer_name, repr(output_name)),
        record=layers.every_layer if every else layers.one_layer(layer_name),
        named=named,
        per_image=[class_index.astype(np.int32)],
        check=lambda facts: _check_class_range(class_index, facts["classes"]),
    )
    layer_name = facts["layer_name"]
    if maps.shape[1:] == (1, 1):
        layers.warn(
            f"`layer_name` (='{layer_name}') outputs feature maps of 1x1, which tell how much "
            "evidence there is but not where; choose a layer before it"
        )
    maps = maps if signed else np.maximum(maps, 0)
    verdicts = _verdicts(maps, strength, "no evidence" if signed else "no positive evidence")
    return GradCAM(
        maps, scores, explained, layer_name, verdicts, method, images, tuple(class_names)
    )


def _check_class_index(class_index, n_images):
    """-> (n_images,) integers, `PREDICTED` where none was chosen."""
    try:
        chosen = np.asarray(PREDICTED if class_index is None else class_index)
    except ValueError:  # lists of different lengths
        chosen = np.empty((0, 0))
    if chosen.dtype.kind not in "iu" or chosen.shape not in ((), (n_images,)):
        raise ValueError(
            f"`class_index` (={class_index!r}) must be None, an integer, or one integer for each "
            f"of the {n_images} images"
        )
    if class_index is not None and np.any(chosen < 0):
        raise ValueError(f"`class_index` (={chosen}) must not be negative")
    return np.broadcast_to(chosen, (n_images,))


def _check_class_range(class_index, classes):
    if len(class_index) and class_index.max() >= classes:
        raise ValueError(
            f"`class_index` (={class_index.max()}) must be in [0, {classes}) for this model"
        )


def _evidence(method, feature_map, gradient):
    feature_map, gradient = (tf.cast(tensor, tf.float32) for tensor in (feature_map, gradient))
    return tf.reduce_sum(method(feature_map, gradient), axis=3)


def _average_over_neighbors(maps):
    """Average (N, h, w) evidence with binomial weights over 5x5 cells; the sum stays the same.

    Isolated positive cells among negative ones cancel out.
    """
    for _ in range(2):
        padded = tf.pad(maps, ((0, 0), (1, 1), (1, 1)), "SYMMETRIC")
        rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
        maps = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
    return maps


def _refine(coarse, fine):
    """Scale the fine evidence so that its average over each coarse cell is the coarse evidence.

    Positive and negative evidence are treated separately. Both are interpolated between cells.
    """

    def scaled(coarse, fine):
        coarse, fine = tf.nn.relu(coarse)[..., None], tf.nn.relu(fine)[..., None]
        average = tf.image.resize(fine, coarse.shape[1:3], "area")  # of each coarse cell
        wanted, average = (
            tf.image.resize(x, fine.shape[1:3], "bilinear") for x in (coarse, average)
        )
        return tf.math.divide_no_nan(wanted * fine, average)[..., 0]

    return scaled(coarse, fine) - scaled(-coarse, -fine)


class Used(NamedTuple):
    """A layer whose feature map is weighted: (N, h, w, C) map and gradient of the score."""

    path: str
    feature_map: tf.Tensor
    gradient: tf.Tensor


def last_feature_maps(call, gradient_of, layer_name=None, n_finer=0):
    """[Used]: a layer, and the last ones at the next `n_finer` finer resolutions.

    Without `layer_name` it begins with the last layer larger than 1x1 that the score depends on.
    """
    used = []
    if layer_name is not None:
        path, _ = layers.find_layer(call.named, layer_name)
        feature_map = layers.required_feature_map(call, path, "a heat map")
        used = [Used(path, feature_map, gradient_of(feature_map))]
        if used[0].gradient is None:
            raise ValueError(f"`layer_name` (='{path}') has no influence on the model's output")
    for path, feature_map in _candidates(call):
        if len(used) > n_finer:
            break
        size = tuple(feature_map.shape[1:3])
        if used:
            last = used[-1].feature_map.shape[1:3]
            is_next = size[0] > last[0] and size[1] > last[1]
        else:
            is_next = size != (1, 1)  # a size that is unknown, None, will do
        if is_next and (gradient := gradient_of(feature_map)) is not None:
            _warn_of_parallel(call, path)
            used.append(Used(path, feature_map, gradient))
    if not used:
        raise ValueError(
            "`layer_name` (=None) found no feature map larger than 1x1 on the way to the output; "
            "Grad-CAM needs a convolutional network"
        )
    return used


def _warn_of_parallel(call, path):
    """Warn if a layer is used in parallel branches, as its last output covers only one."""
    *earlier, last = call.recorded[path]
    if any(tf.gradients(last, output) == [None] for output in earlier):
        layers.warn(
            f"layer '{path}' is used in parallel {len(earlier) + 1} times, and its last output is "
            "taken, which holds a part of the evidence; choose a `layer_name` behind the branches"
        )


def _candidates(call):
    """[(path, feature map)] from the first kernel on, without pooling or dropout, last first."""
    maps, found, learned = layers.feature_maps(call), [], False
    for path in call.recorded:
        layer = call.named[path]
        kernel = layers.has_kernel(layer)
        learned = learned or kernel  # before the first kernel there is only the image
        passes_on = not kernel and any(layers.is_a(layer, word) for word in PASSING_ON)
        if path in maps and learned and not passes_on:
            found.append((path, maps[path]))
    return found[::-1]


def _verdicts(maps, strength, nothing):
    """One word for each map, from its strongest evidence and its strongest gradient."""
    return tuple(
        "ok" if peak > 0 else nothing if slope > 0 else "zero gradient"
        for peak, slope in zip(np.abs(maps).max(axis=(1, 2), initial=0), strength, strict=True)
    )
