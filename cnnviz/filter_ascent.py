"""Find what excites each filter, or each class, by gradient ascent in input space."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.checks import check_indices, check_integer
from cnnviz.progress import progress_bar
from cnnviz.results import Result
from cnnviz.targets import Target, as_target, class_target, count_classes

PIXELS_AT_ONCE = 32 * 96 * 96  # in one call of the model, unless told; bounds the memory
START_NOISE = 0.02  # standard deviation of the starting noise, as a share of the value range
SETTLING = 0.8  # after this fraction of the steps there is no jitter, so that the image settles
COARSE_TO_FINE = 1.75, 0.25  # multiples of `smoothness` in the first step and in the last
LEAK = 0.1  # weight of the activation function's input: inactive filters get a gradient
CLASSES, TARGET = "class scores", "target"  # instead of a layer's name
LARGEST = 1e15  # of numbers that are given: their products are finite in float32


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FilterImages(Result):
    """What excites F filters of one layer, or F classes.

    Attributes:
        images: (F, H, W, C) float32, one optimized image a filter, in the model's input range.
        filters: (F,) int, the filters' indices, or the classes'.
        activations: (F,) float32, mean activation of the filter on its image, or the logit of the
            class.
        start_activations: (F,) float32, the same on the starting noise.
        verdicts: F words: "ok", "dead" (the filter never fired, or reacts to no change; use 30
            steps or more) or "no gain" (the ascent did not raise its activation).
        layer_name: The layer; `CLASSES` for classes, `TARGET` for a target.
        value_range: Lowest and highest pixel value.
    """

    images: np.ndarray
    filters: np.ndarray
    activations: np.ndarray
    start_activations: np.ndarray
    verdicts: tuple[str, ...]
    layer_name: str
    value_range: tuple[float, float] = (0.0, 255.0)

    _html = ("plot",)
    _draw = "draw_filters"

    def _columns(self):
        columns = {"filter": self.filters, "activation": self.activations}
        return columns | {"on noise": self.start_activations, "verdict": self.verdicts}


def ascend_filters(
    model: keras.Model,
    layer_name: str | None = None,
    filters: int | Sequence[int] | np.ndarray | None = None,
    *,
    class_index: int | Sequence[int] | np.ndarray | None = None,
    target: Target | Callable[[Any], tf.Tensor] | None = None,
    image_size: int | tuple[int, int] | None = None,
    steps: int = 30,
    step_size: float = 0.05,
    smoothness: float = 1.0,
    jitter: int = 4,
    value_range: tuple[float, float] = (0.0, 255.0),
    seed: int = 0,
    batch_size: int | None = None,
    output_name: str | int | None = None,
    input_name: str | int | None = None,
) -> FilterImages:
    """Find images that excite filters or classes, by gradient ascent from a gray image.

    Each image starts gray with faint noise and climbs the mean activation of its filter (Erhan et
    al. 2009), or the logit of its class. An inactive filter has zero gradient after its ReLU, so
    0.1 x the pre-activation is added to the objective. Low spatial frequencies of the gradient get
    more weight, and the image is moved by random pixels (both from Olah et al. 2017,
    https://doi.org/10.23915/distill.00007). A filter's image does not depend on other filters.

    Args:
        model: keras.Model of any kind that takes images; it is left as it was.
        layer_name: A layer that outputs feature maps (N, h, w, F); any name `grad_cam` takes. A
            convolution without an activation is looked at after the activation that follows it.
            Behind pooling or a concatenation, a filter that does not fire at first stays "dead":
            choose the convolution before it.
        filters: The filters' indices, an integer or a sequence; None takes all of the layer.
        class_index: Instead of a layer: the classes whose logits are climbed (Simonyan et al. 2014,
            https://arxiv.org/abs/1312.6034), as in `grad_cam`.
        target: Instead of a layer: one of `cnnviz.targets`, or a function of the model's output, to
            be climbed from one image.
        image_size: Side in pixels, or (height, width); None takes the model's own, or 96.
        steps: Steps of the ascent, 1 or more.
        step_size: Root mean square change of an image in the first step, as a share of the value
            range; it falls to zero linearly.
        smoothness: Exponent by which the weight of a spatial frequency falls: 1.75 times it in the
            first step, 0.25 times in the last.
        jitter: Most pixels by which a step moves the image at random; 0 in the last fifth.
        value_range: Lowest and highest pixel value that the model takes.
        seed: Seed of the noise and the moves.
        batch_size: Images in one call of the model; None takes as many as have the pixels of 32
            images of 96x96.
        output_name, input_name: Of a model with several outputs or inputs: see `grad_cam`. What is
            climbed must not depend on other inputs, which are zero.

    Raises:
        ValueError: If the layer, a filter or an option is out of range, or NaN comes out.

    Warns:
        UserWarning: If `value_range` is hardly that of the training, or the layer is used twice.

    Example:
        >>> model = cnnviz.load_pretrained()
        >>> found = cnnviz.ascend_filters(model, "block1_conv1", [0, 1], image_size=32, steps=5)
        >>> found.images.shape
        (2, 32, 32, 3)
    """
    named = layers.check_model(model)
    shape = layers.image_shape(model, image_size, input_name)
    if batch_size is None:
        batch_size = max(1, PIXELS_AT_ONCE // math.prod(shape[:2]))
    integers = {"steps": (steps, 1), "jitter": (jitter, 0), "seed": (seed, 0)}
    for name, (value, least) in {**integers, "batch_size": (batch_size, 1)}.items():
        check_integer(name, value, least)
    _check_numbers(step_size, smoothness, value_range)
    choices = {"layer_name": layer_name, "class_index": class_index, "target": target}
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1 or (layer_name is None and filters is not None):
        raise ValueError(
            f"`layer_name` (={layer_name!r}), `class_index` (={class_index!r}), `target` "
            f"(={target!r}): give one of the three, and `filters` (={filters!r}) only with a layer"
        )
    low, high = (float(value) for value in value_range)
    random = np.random.default_rng(seed)
    noise = random.normal(size=shape).astype(np.float32)
    start = np.clip((low + high) / 2 + START_NOISE * (high - low) * noise, low, high)[None]
    moves = random.integers(-jitter, jitter + 1, (steps, 2), dtype=np.int32)
    moves[0] = moves[round(SETTLING * steps) :] = 0  # the first step tells how the start does

    path, record, climbed, arrays = CLASSES, None, class_target(None), []
    if layer_name is not None:
        path, _ = layers.find_layer(named, layer_name)
        record, climbed = layers.one_layer(path), None
    elif target is not None:
        path, climbed = TARGET, as_target(target, None)
        arrays = climbed.per_image(start)
    compute = _step_of(*given, path, climbed, output_name)
    specs = [tf.TensorSpec((None,), tf.int32), tf.TensorSpec((4,), tf.float32)]
    specs += layers.specs_of(arrays)
    key = "ascent", *given, path, repr(output_name), climbed and climbed.key
    key = None if climbed and climbed.key is None else key
    blank = layers.with_zeros(model, start, input_name)
    trace = layers.traced(model, blank, compute, key, record, specs, input_name)
    for message in trace.warned:
        layers.warn(message)

    def step(images, filters, setting):
        inputs = layers.with_zeros(model, images, input_name)
        return trace.function(inputs, filters, setting, *arrays)

    if layer_name is not None:
        filters = check_indices("filters", filters, trace.facts, f"layer '{path}'")
    elif class_index is not None:
        filters = check_indices("class_index", class_index, trace.facts, "this model")
    else:
        climbed.check(trace.facts)
        filters = np.zeros(1, int)
    lengths = step_size * (high - low) * np.linspace(1, 0, steps, endpoint=False)
    exponents = smoothness * np.linspace(*COARSE_TO_FINE, steps)
    columns = lengths, exponents, np.full(steps, low), np.full(steps, high)
    settings = np.stack(columns, axis=1).astype(np.float32)
    ends = np.concatenate([np.full_like(start, low), np.full_like(start, high)])
    _, squares, span = step(ends, np.zeros(2, np.int32), settings[0])
    layers.warn_of_range(model, [span], "value_range")

    batches = np.array_split(filters, range(batch_size, len(filters), batch_size))
    with progress_bar(len(batches) * steps, path, "step") as bar:
        parts = [_ascend(step, start, batch, moves, settings, bar) for batch in batches]
    images, activations, starts, reacts = map(np.concatenate, zip(*parts, strict=True))
    layers.check_finite(model, squares, [images, activations, starts])
    verdicts = _verdicts(activations, starts, reacts)
    return FilterImages(images, filters, activations, starts, verdicts, path, (low, high))


def _check_numbers(step_size, smoothness, value_range):
    def is_number(value):
        return isinstance(value, (int, float, np.integer, np.floating)) and abs(value) <= LARGEST

    if not (is_number(step_size) and step_size > 0):
        raise ValueError(f"`step_size` (={step_size!r}) must be a finite number above 0")
    if not (is_number(smoothness) and smoothness >= 0):
        raise ValueError(f"`smoothness` (={smoothness!r}) must be a finite number, 0 or more")
    is_pair = isinstance(value_range, (tuple, list)) and len(value_range) == 2
    if not (is_pair and all(map(is_number, value_range)) and value_range[0] < value_range[1]):
        raise ValueError(f"`value_range` (={value_range!r}) must be two numbers, the lower first")


def _step_of(argument, path, target, output_name):
    """One step of the ascent, as `layers.traced` takes it; `argument` says what is climbed."""

    def step(call, filters, settings, *arrays):
        step_size, smoothness, low, high = tf.unstack(settings)
        if argument == "layer_name":
            maps = layers.filter_map(call, path, "ascent")
            count, means = maps.shape[3], _means(maps)
            activation = tf.gather(means, filters, batch_dims=1)
            one_hot = tf.one_hot(filters, count)  # its gradient is traced faster than a gather's
            climbed = one_hot * means
            before = layers.activation_input(maps, layers.ACTIVATIONS)
            if before is not None:
                climbed += LEAK * one_hot * _means(before)
        else:
            arrays = [tf.repeat(array, tf.shape(call.images)[0], 0) for array in arrays]
            arrays = [filters] if argument == "class_index" else arrays
            climbed, _ = target.compute(call, output_name, *arrays)
            count, activation = count_classes(call, output_name), climbed
        gradient = layers.gradients(climbed, call.images)
        if any(layers.depends(climbed, other) for other in call.others):
            raise ValueError(
                f"`{argument}` (='{path}') depends on several inputs of model '{call.model.name}'; "
                "choose its own `input_name`, or put a model with one input around it"
            )
        if gradient is None:
            problem = f"`{argument}` (='{path}') does not depend on the image"
            if layers.takes_integers(call.model):
                problem = "`model` takes images as integers, which have no gradient; use float32"
            raise ValueError(problem)
        reacts = tf.reduce_max(tf.abs(gradient), (1, 2, 3)) > 0
        gradient = _smooth(gradient, smoothness)
        length = tf.sqrt(tf.reduce_mean(tf.square(gradient), (1, 2, 3), keepdims=True))
        images = call.images + step_size * tf.math.divide_no_nan(gradient, length)
        return (tf.clip_by_value(images, low, high), activation, reacts), count

    return step


def _means(feature_map):
    return tf.reduce_mean(tf.cast(feature_map, tf.float32), (1, 2))


def _smooth(gradient, smoothness):
    """Weight the spatial frequencies of (N, H, W, C) gradients by frequency ** -smoothness."""
    height, width = gradient.shape[1:3]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency = np.float32(np.maximum(frequency * max(height, width), 1))  # 1: no power overflows
    spectrum = tf.signal.rfft2d(tf.transpose(gradient, (0, 3, 1, 2)))
    spectrum *= tf.cast(tf.pow(frequency, -smoothness), tf.complex64)
    smooth = tf.signal.irfft2d(spectrum, fft_length=(height, width))
    return tf.transpose(smooth, (0, 2, 3, 1))


def _ascend(step, start, filters, moves, settings, bar):
    """Climb with one batch of filters -> (images, activations, start activations, reacts)."""
    filters = filters.astype(np.int32)
    images = tf.repeat(start, len(filters), axis=0)
    responses, reacts, moved = [], [], np.zeros(2, np.int32)
    for move, setting in zip(moves, settings, strict=True):
        if np.any(move != moved):
            images, moved = tf.roll(images, move - moved, (1, 2)), move
        (images, response, reaction), *_ = step(images, filters, setting)
        responses.append(response)
        reacts.append(reaction)
        bar.update()
    images = tf.roll(images, -moved, (1, 2))
    (_, activations, _), *_ = step(images, filters, settings[0])  # only to read the activations
    return images.numpy(), activations.numpy(), responses[0].numpy(), np.any(reacts, axis=0)


def _verdicts(activations, starts, reacts):
    fires = (activations != 0) | (starts != 0)
    gained = np.where(activations - starts > 1e-3 * np.abs(starts), "ok", "no gain")
    return tuple(np.where(reacts & fires, gained, "dead").tolist())
