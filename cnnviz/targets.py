"""What can be explained of a model's output: a class, or any other number.

`grad_cam(target=...)` and `ascend_filters(target=...)` take one of these, or any function of the
model's output, a tensor or a structure of tensors, that returns one number for each image, (N,).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.checks import check_integer

ClassIndex: TypeAlias = int | Sequence[int] | np.ndarray

PREDICTED = -1  # instead of a class index: the class with the highest score
RUNNER_UP = -2  # the class with the highest score but one


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A number that a model outputs for each image.

    Attributes:
        compute: `compute(call, output_name, *arrays)` -> (number, class or -1), both (N,) tensors.
        key: What distinguishes `compute` from others; hashable. None of a person's function.
        arrays: Class indices, a mask, or a reference; one for all images, or one for each.
        text: How figures name it, after the class if it has one.
        name: The argument it came from, for errors.
    """

    compute: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    key: Any
    arrays: tuple[np.ndarray, ...] = ()
    text: str = ""
    name: str = "target"

    def per_image(self, images: np.ndarray) -> list[np.ndarray]:
        """The arrays, each with a first axis of N; a ValueError if one has another length."""
        own_ranks = {"i": 0, "f": 1, "b": images.ndim - 2}  # class, reference, mask
        found = []
        for array in self.arrays:
            further = array.ndim - own_ranks[array.dtype.kind]
            if further not in (0, 1) or (further and len(array) != len(images)):
                raise ValueError(
                    f"`{self.name}` (with an array of shape {array.shape}) must have one for all "
                    f"images, or one for each of the {len(images)} images"
                )
            found.append(np.broadcast_to(array, (len(images), *array.shape[further:])))
        return found

    def check(self, n_classes: int | None) -> None:
        """Raise a ValueError if a class index is too large."""
        for array in self.arrays:
            if array.dtype.kind == "i" and array.size and array.max() >= (n_classes or np.inf):
                raise ValueError(
                    f"`{self.name}` (={array.max()}) must be in [0, {n_classes}) for this model"
                )


def class_target(class_index: ClassIndex | None) -> Target:
    """The logit of a class: a given one, one for each image, or the predicted class (None)."""
    index = _class_index(class_index, PREDICTED, "class_index")
    return Target(_class_score, "class", (index,), name="class_index")


def difference(a: ClassIndex | None = None, b: ClassIndex | None = None) -> Target:
    """Why class `a` and not class `b`: the logit of `a` less the logit of `b`.

    Args:
        a: A class index, or one for each image; None is the predicted class.
        b: The same; None is the class with the highest logit but that of `a`.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> target = cnnviz.targets.difference(0, 1)
        >>> cnnviz.grad_cam(model, image, target=target).target
        'rather than class 1'
    """
    arrays = _class_index(a, PREDICTED, "a"), _class_index(b, RUNNER_UP, "b")
    other = "another class" if arrays[1].ndim else f"class {arrays[1]}"
    text = f"rather than {'the runner-up' if b is None else other}"
    return Target(_difference, "difference", arrays, text)


def regression(index: int = 0) -> Target:
    """One output as it is, of a regression model that returns (N, outputs).

    `grad_cam(signed=True)` then separates what raises the number from what lowers it.

    Args:
        index: Which of the outputs.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.grad_cam(model, image, target=cnnviz.targets.regression()).target
        'output 0'
    """
    check_integer("index", index, 0)

    def compute(call, output_name):
        output = _output(call, output_name)
        output = output[:, None] if output.shape.rank == 1 else output
        if output.shape.rank != 2 or index >= output.shape[1]:
            raise ValueError(
                f"`target` (regression of output {index!r}) does not fit what the model returns, "
                f"{output.shape}; it must be (N, outputs)"
            )
        return _without_class(output[:, index])

    return Target(compute, ("regression", index), text=f"output {index}")


def region(class_index: int, mask: ArrayLike | None = None) -> Target:
    """A class in a segmentation: its mean logit over a region of the output, (N, h, w, classes).

    As in Vinogradova et al. 2020, https://arxiv.org/abs/2002.11434.

    Args:
        class_index: The class. With one output, class 1 is that output and class 0 its negative.
        mask: (h, w) or (N, h, w) bool, in the output's resolution. None takes the positions where
            the class is predicted, or all of them if there are none.

    Example:
        >>> steps = keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Conv2D(2, 1)
        >>> model = keras.Sequential([keras.Input((16, 16, 3)), *steps])
        >>> target = cnnviz.targets.region(1)
        >>> figure = cnnviz.grad_cam(model, np.ones((16, 16, 3)), target=target).plot()
    """
    arrays = (_class_index(class_index, PREDICTED, "class_index"),)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.ndim < 1:
            raise ValueError(f"`mask` ({mask.dtype}, {mask.shape}) must be bool, (h, w)")
        arrays += (mask,)
    return Target(_region, ("region", len(arrays)), arrays, "in its region")


def similarity(reference: ArrayLike) -> Target:
    """An embedding: the cosine of the angle between a model's output (N, D) and a reference.

    Args:
        reference: (D,) or (N, D), such as the output for another image.

    Example:
        >>> steps = keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()
        >>> model = keras.Sequential([keras.Input((16, 16, 3)), *steps])
        >>> target = cnnviz.targets.similarity([1, 0, 0, 1])
        >>> cnnviz.grad_cam(model, np.ones((16, 16, 3)), target=target).scores.shape
        (1,)
    """
    reference = np.asarray(reference, np.float32)
    if reference.ndim not in (1, 2) or not (
        np.isfinite(reference).all() and reference.any(-1).all()
    ):
        raise ValueError(
            f"`reference` (of shape {reference.shape}) must be finite and not zero, (D,) or (N, D)"
        )
    return Target(_similarity, "similarity", (reference,), "similarity to a reference")


def as_target(target, class_index) -> Target:
    """The Target that `target` or `class_index` describes; at most one of them may be given."""
    if target is None:
        return class_target(class_index)
    if class_index is not None:
        raise ValueError(f"give `target` (={target!r}) or `class_index` (={class_index!r})")
    if isinstance(target, Target):
        return target
    if not callable(target):
        raise ValueError(
            f"`target` (={target!r}) must be one of `cnnviz.targets`, such as `difference(0, 1)`, "
            "or a function of the model's output; `class_index` chooses a class"
        )

    def compute(call, output_name):
        output = call.output if output_name is None else _output(call, output_name)
        number = target(output)
        if not tf.is_tensor(number) or number.shape.rank != 1 or number.shape[0] is not None:
            found = number.shape if tf.is_tensor(number) else type(number).__name__
            raise ValueError(
                f"`target` (which returns {found}) must return one number per image, (N,)"
            )
        return _without_class(number)

    return Target(compute, None, text=getattr(target, "__name__", "the target"))


def count_classes(call, output_name):
    """How many classes the model tells apart, or None."""
    output = call.output
    with contextlib.suppress(ValueError):
        output = _output(call, output_name)
    outputs = output.shape[-1] if tf.is_tensor(output) and output.shape.rank else None
    return 2 if outputs == 1 else outputs


def _output(call, output_name):
    return layers.pick_output(call.model, call.output, output_name)


def _without_class(number):
    number = tf.cast(number, tf.float32)
    return number, tf.fill(tf.shape(number), -1)


def _class_score(call, output_name, index):
    scores = layers.class_scores(layers.classifier_output(call, output_name))
    index = _chosen(scores, index)
    return _score_of(scores, index), index


def _difference(call, output_name, a, b):
    scores = layers.class_scores(layers.classifier_output(call, output_name))
    a = _chosen(scores, a)
    others = tf.where(tf.one_hot(a, scores.shape[1]) > 0, -np.inf, scores)
    b = tf.where(b == RUNNER_UP, tf.argmax(others, 1, tf.int32), b)
    return _score_of(scores, a) - _score_of(scores, b), a


def _region(call, output_name, index, mask=None):
    output = _output(call, output_name)
    if not tf.is_tensor(output) or (output.shape.rank or 0) < 3:
        raise ValueError(f"`target` (a region) needs an output (N, h, w, classes), not {output}")
    scores = layers.class_scores(output, positions=True)
    predicted = tf.argmax(scores, -1, tf.int32)
    axes = list(range(1, predicted.shape.rank))
    numbers = tf.einsum("n...c,nc->n...", scores, tf.one_hot(index, scores.shape[-1]))
    if mask is None:
        mask = predicted == tf.reshape(index, [-1] + [1] * len(axes))
        if output.shape[-1] > 1 and layers.activation_input(output, ("Sigmoid",)) is not None:
            mask = numbers > 0  # every class stands alone
    elif not mask.shape[1:].is_compatible_with(predicted.shape[1:]):
        wanted = predicted.shape[1:]
        raise ValueError(f"`mask` (of shape {mask.shape[1:]}) must have the output's, {wanted}")
    mask |= ~tf.reduce_any(mask, axes, keepdims=True)  # nowhere: everywhere
    mask = tf.cast(mask, tf.float32)
    return tf.reduce_sum(numbers * mask, axes) / tf.reduce_sum(mask, axes), index


def _similarity(call, output_name, reference):
    output = _output(call, output_name)
    if not tf.is_tensor(output) or not output.shape[1:].is_compatible_with(reference.shape[1:]):
        raise ValueError(
            f"`reference` (of shape {reference.shape[1:]}) must have the shape of what the model "
            f"returns for an image, {getattr(output, 'shape', output)}"
        )
    output = tf.math.l2_normalize(tf.cast(output, tf.float32), 1)
    return _without_class(tf.reduce_sum(output * tf.math.l2_normalize(reference, 1), 1))


def _chosen(scores, index):
    return tf.where(index == PREDICTED, tf.argmax(scores, axis=1, output_type=tf.int32), index)


def _score_of(scores, index):
    # A product with a one-hot vector is faster to trace than a gather.
    return tf.reduce_sum(scores * tf.one_hot(index, scores.shape[1]), 1)


def _class_index(class_index, otherwise, name):
    """-> () or (N,) int32; `otherwise` where none was chosen."""
    try:
        chosen = np.asarray(otherwise if class_index is None else class_index)
    except ValueError:  # lists of different lengths
        chosen = np.empty((0, 0))
    if chosen.dtype.kind not in "iu" or chosen.ndim > 1:
        raise ValueError(
            f"`{name}` (={class_index!r}) must be None, an integer, or one integer for each image"
        )
    if class_index is not None and np.any(chosen < 0):
        raise ValueError(f"`{name}` (={chosen}) must not be negative")
    return np.minimum(chosen, np.iinfo(np.int32).max).astype(np.int32)
