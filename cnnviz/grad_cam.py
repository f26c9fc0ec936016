"""Find where the evidence for a class lies: Grad-CAM and its relatives."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from cnnviz import figures, layers
from cnnviz.results import Result
from cnnviz.targets import ClassIndex, Target, as_target, count_classes

Method: TypeAlias = Literal["grad-cam", "hires-cam", "grad-cam++", "layer-cam"]

# Layers that only pick, move or mix what the feature map before them holds.
PASSING_ON = ("Pool", "Dropout", "Padding", "Cropping", "UpSampling", "Reshape", "Permute")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GradCAM(Result):
    """Where the evidence for a class lies, for N images.

    Attributes:
        maps: (N, h, w) float32, raw evidence at the layer's resolution; >= 0 unless `signed`,
            never NaN. (N, l) for signals, (N, d, h, w) for volumes.
        scores: (N,) float32, the logit, or other number, that was differentiated.
        class_index: (N,) int32, the class that was explained; -1 if the target has none.
        layer_name: The layer whose feature map was weighted.
        verdicts: N words: "ok", or why a map is all zero: "no positive evidence" ("no evidence" if
            signed), or "zero gradient" (the score does not depend on the layer).
        method: How it was computed, one of `METHODS`.
        images: (N, H, W, C) float32, the images.
        class_names: The names of the classes, by index; may be empty.
        target: What was explained beside or instead of a class, in words; may be empty.
    """

    maps: np.ndarray
    scores: np.ndarray
    class_index: np.ndarray
    layer_name: str
    verdicts: tuple[str, ...]
    method: str = "grad-cam"
    images: np.ndarray | None = None
    class_names: Sequence[str] = ()
    target: str = ""

    _html = ("plot",)

    def _columns(self):
        names = [figures.explained_name(self, row) for row in range(len(self.maps))]
        return {
            "target" if self.target else "class": names,
            "score": self.scores,
            "verdict": self.verdicts,
            "strongest evidence": self.maps.max(tuple(range(1, self.maps.ndim)), initial=0),
        }

    def plot(self, n_images: int = 8, **options: Any) -> figures.DescribedFigure:
        """Draw the first images, each with its map; options of `figures.draw_heat_maps`."""
        each = ("maps", "scores", "class_index", "verdicts", "images")
        few = {name: getattr(self, name)[:n_images] for name in each}
        first = dataclasses.replace(self, **few)
        return figures.draw_heat_maps(first.images, first, self.class_names, **options)


def _grad_cam(feature_map, gradient):
    return tf.reduce_mean(gradient, positions(gradient), keepdims=True) * feature_map


def _grad_cam_plus_plus(feature_map, gradient):
    # Of exp(score), as in the paper: its n-th derivative is exp(score) * gradient**n, whose factor
    # exp(score) cancels in alpha.
    axes = positions(feature_map)
    total = tf.reduce_sum(feature_map, axes, keepdims=True)
    alpha = tf.math.divide_no_nan(gradient**2, 2 * gradient**2 + total * gradient**3)
    weight = tf.reduce_sum(alpha * tf.nn.relu(gradient), axes, keepdims=True)
    return weight * feature_map


# Feature map and gradient of the score to the evidence of each channel, all (N, h, w, C).
METHODS: dict[Method, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "grad-cam": _grad_cam,  # Selvaraju et al. 2017, "Grad-CAM"
    "hires-cam": lambda feature_map, gradient: gradient * feature_map,  # Draelos & Carin 2020
    "grad-cam++": _grad_cam_plus_plus,  # Chattopadhyay et al. 2018, "Grad-CAM++"
    "layer-cam": lambda feature_map, gradient: tf.nn.relu(gradient) * feature_map,  # Jiang 2021
}
SIGNED_METHODS = ("grad-cam", "hires-cam")  # the others know no evidence against a class


def grad_cam(
    model: keras.Model,
    images: layers.ImageData,
    *,
    class_index: ClassIndex | None = None,
    target: Target | Callable[[Any], tf.Tensor] | None = None,
    layer_name: str | None = None,
    method: Method = "grad-cam",
    signed: bool = False,
    output_name: str | int | None = None,
    input_name: str | int | None = None,
    class_names: Sequence[str] = (),
) -> GradCAM:
    """Show where a model finds its evidence for a class, or for any other target.

    The gradient of the class's logit with respect to a layer's feature map tells how much each
    channel counts; the weighted sum of the channels, where positive, is the map. If the model ends
    in a sigmoid or a softmax, the logit before it is taken, which does not saturate.

    Args:
        model: keras.Model of any kind; it is left as it was.
        images: (N, H, W, C) or (H, W, C), in the model's input range; signals (N, L, C), volumes or
            video (N, D, H, W, C); a list or dict of several inputs; or a dataset of batches.
        class_index: The class to explain: one integer, or one for each image; None takes the
            predicted class. With one output, class 1 is that output and class 0 its negative.
        target: Instead of a class: one of `cnnviz.targets`, or a function of the model's output
            that returns one number for each image, a tensor (N,).
        layer_name: The layer, also inside nested models ("backbone/block_13_expand"). None takes
            the last feature map larger than 1x1, after its activation or addition, before pooling.
            Of a transformer it takes the last tokens that reach the output, as a map of patches.
        method: "grad-cam" (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391); "hires-cam"
            (Draelos & Carin 2020, https://arxiv.org/abs/2011.08891), exact if pooling and one dense
            layer follow; "grad-cam++" (Chattopadhyay et al. 2018, https://arxiv.org/abs/1710.11063)
            for several objects of the class; "layer-cam" (Jiang et al. 2021,
            https://doi.org/10.1109/TIP.2021.3089943), sharp at early layers.
        signed: Whether to keep evidence against the class, as negative numbers; for "grad-cam" and
            "hires-cam".
        output_name, input_name: Of a model with several outputs or inputs, the one to explain or to
            look at: its name, key or index. None takes the first input of images.
        class_names: The names of the classes, by index, for tables and figures.

    Raises:
        ValueError: If an argument is out of range, a layer or an output does not fit, or NaN comes
            out.

    Warns:
        UserWarning: If the map is 1x1 or lies before attention, the value range is hardly that of
            the training, the head is unknown, or the layer is used more than once.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.grad_cam(model, image, class_index=0).verdicts
        ('ok',)
        >>> cnnviz.grad_cam(model, image, target=lambda output: output[:, 0]).target
        '<lambda>'
    """
    if method not in tuple(METHODS):
        raise ValueError(f"`method` (={method!r}) must be one of {', '.join(map(repr, METHODS))}")
    if signed and method not in SIGNED_METHODS:
        raise ValueError(
            f"`signed` (={signed}) needs a method that keeps evidence against the class, "
            f"{', '.join(map(repr, SIGNED_METHODS))}; `method` is {method!r}"
        )
    explained = as_target(target, class_index)
    inputs = layers.all_images(model, images)
    images = layers.image_of(model, inputs, input_name)

    def compute(call, *arrays):
        score, index = explained.compute(call, output_name, *arrays)
        gradient_of = functools.partial(layers.gradients, score)
        path, *tensors = last_feature_map(call, gradient_of, layer_name)
        feature_map, gradient = (tf.cast(tensor, tf.float32) for tensor in tensors)
        evidence = tf.reduce_sum(METHODS[method](feature_map, gradient), axis=-1)
        strength = tf.reduce_max(tf.abs(gradient), [*positions(gradient), -1])
        return (evidence, score, index, strength), (path, count_classes(call, output_name))

    (maps, scores, classes, strength), (layer_name, n_classes) = layers.run(
        model,
        inputs,
        compute,
        key=explained.key and ("grad_cam", method, layer_name, repr(output_name), explained.key),
        record=layers.every_layer if layer_name is None else layers.one_layer(layer_name),
        per_image=explained.per_image(images),
        description="heat maps" if len(images) > layers.BATCH_SIZE else None,
        input_name=input_name,
    )
    explained.check(n_classes)
    if set(maps.shape[1:]) == {1}:
        layers.warn(
            f"`layer_name` (='{layer_name}') outputs feature maps of 1x1, which tell how much "
            "evidence there is but not where; choose a layer before it"
        )
    maps = maps if signed else np.maximum(maps, 0)
    verdicts = _verdicts(maps, strength, "no evidence" if signed else "no positive evidence")
    names = tuple(class_names)
    text = re.sub(r"class (\d+)", lambda m: figures.class_name(names, int(m[1])), explained.text)
    return GradCAM(maps, scores, classes, layer_name, verdicts, method, images, names, text)


def positions(feature_map):
    """The axes of a feature map (N, ..., C) that are positions."""
    return list(range(1, feature_map.shape.rank - 1))


def last_feature_map(call, gradient_of, layer_name=None):
    """(path, feature map, gradient) of a layer; None takes the last that the score depends on."""
    if layer_name is None:
        path, output, gradient = _last(call, gradient_of)
    else:
        path, _ = layers.find_layer(call.named, layer_name)
        output, _ = layers.required_feature_map(call, path, "a heat map")
        gradient = gradient_of(output)
        if call.others and not layers.sees_images(call, output):
            raise ValueError(
                f"`layer_name` (='{path}') does not depend on the input that is looked at; choose "
                "another `input_name`"
            )
        if gradient is None:
            raise ValueError(f"`layer_name` (='{path}') has no influence on the model's output")
    to_map = layers.as_map(call, output)
    return path, to_map(output), to_map(gradient)


def _last(call, gradient_of):
    """(path, output, gradient) of the last layer larger than 1x1 that the score depends on."""
    for path, output in _candidates(call):
        sizes = layers.as_map(call, output)(output).shape[1:-1]  # one that is unknown will do
        if set(sizes) == {1} or (call.others and not layers.sees_images(call, output)):
            continue
        is_tokens = output.shape.rank == 3 and call.images.shape.rank == 4
        before_attention = bool(call.attention) and layers.depends(call.attention, output)
        # Beside a class token, patches count only through the attention that follows.
        if is_tokens and output.shape[1] != math.prod(sizes) and not before_attention:
            continue
        gradient = gradient_of(output)
        if gradient is not None:
            _warn_of_parts(call, path, before_attention and not is_tokens)
            return path, output, gradient
    raise ValueError(
        "`layer_name` (=None) found no feature map larger than 1x1 on the way to the output; "
        "Grad-CAM needs convolutions, or a transformer whose tokens form a known grid. For video, "
        "put TimeDistributed around the convolutions, not around the pooling"
    )


def _warn_of_parts(call, path, is_mixed):
    """Warn if a default layer is followed by attention, or its last output is of one branch."""
    if is_mixed:
        layers.warn(
            f"layer '{path}', which is taken, lies before attention, which mixes the evidence of "
            "its positions; choose a `layer_name` after the attention if there is a feature map"
        )
    *earlier, last = call.recorded[path]
    if not call.others and any(tf.gradients(last, output) == [None] for output in earlier):
        layers.warn(
            f"layer '{path}' is used in parallel {len(earlier) + 1} times, and its last output is "
            "taken, which holds a part of the evidence; choose a `layer_name` after the branches"
        )


def _candidates(call):
    """[(path, feature map)] from the first kernel on, without pooling or dropout, last first.

    What the model returns, as a segmentation, is left out, before its last activation too.
    """
    maps, found, learned = layers.feature_maps(call), [], False
    ends = [output for output in tf.nest.flatten(call.output) if tf.is_tensor(output)]
    ends += [layers.activation_input(output, layers.ACTIVATIONS) for output in ends]
    for path in call.recorded:
        layer = call.named[path]
        kernel = layers.has_kernel(layer)
        learned = learned or kernel  # before the first kernel there is only the image
        passes_on = not kernel and any(layers.is_a(layer, word) for word in PASSING_ON)
        is_end = any(maps.get(path) is end for end in ends)
        if path in maps and learned and not passes_on and not is_end:
            found.append((path, maps[path]))
    return found[::-1]


def _verdicts(maps, strength, nothing):
    """One word for each map, from its strongest evidence and its strongest gradient."""
    peaks = np.abs(maps).max(axis=tuple(range(1, maps.ndim)), initial=0)
    empty = np.where(strength > 0, nothing, "zero gradient")
    return tuple(np.where(peaks > 0, "ok", empty).tolist())
