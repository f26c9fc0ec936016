"""(model, layer, filters) -> (F, H, W, 3) pictures: what excites each filter, or each class."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.checks import check_indices, check_integer
from cnnviz.progress import progress_bar

PIXELS_AT_ONCE = 32 * 96 * 96  # in one call of the model, unless told; bounds the memory
START_NOISE = 0.02  # standard deviation of the starting noise, as a share of the value range
SETTLING = 0.8  # share of the steps after which a picture is not moved any more, and settles
COARSE_TO_FINE = 1.75, 0.25  # multiples of `smoothness` in the first step and in the last
LEAK = 0.1  # weight of the activation function's input beside its output: slope for silent filters
MOVING = ("AvgPool", "MaxPool", "MaxPoolV2", "MirrorPad", "Pad", "PadV2", "Cast", "Identity")
CLASSES = "class scores"  # in place of a layer's name
LARGEST = 1e15  # of numbers that are given: their products are finite in float32


@dataclasses.dataclass(frozen=True)
class FilterImages:
    """What excites the filters of one layer, F of them; or the classes.

    Attributes:
        images: (F, H, W, C) float32, one picture a filter, in the model's input range.
        filters: (F,) int, the filters' indices, or the classes'.
        activations: (F,) float32, mean activation of the filter on its picture, or the logit of the
            class.
        start_activations: (F,) float32, the same on the starting noise.
        verdicts: F words: "ok", "dead" (the filter does not react to any change of the picture,
            or did not fire within the steps, of which there should be enough: 30, say) or
            "no gain" (the ascent did not raise its activation).
        layer_name: The layer; `CLASSES` where classes were climbed.
    """

    images: np.ndarray
    filters: np.ndarray
    activations: np.ndarray
    start_activations: np.ndarray
    verdicts: tuple[str, ...]
    layer_name: str


def ascend_filters(
    model: keras.Model,
    layer_name: str | None = None,
    filters: int | Sequence[int] | np.ndarray | None = None,
    *,
    class_index: int | Sequence[int] | np.ndarray | None = None,
    image_size: int | tuple[int, int] | None = None,
    steps: int = 30,
    step_size: float = 0.05,
    smoothness: float = 1.0,
    jitter: int = 4,
    value_range: tuple[float, float] = (0.0, 255.0),
    seed: int = 0,
    batch_size: int | None = None,
    output_name: str | int | None = None,
) -> FilterImages:
    """Find pictures that excite filters or classes, by gradient ascent from a grey picture.

    Each picture starts as grey with faint noise and climbs the mean activation of its filter over
    the feature map (Erhan et al. 2009), or the logit of its class. A filter that is silent at the
    start has no slope after its ReLU; a tenth of the input of the ReLU is added to what is climbed
    and gives it one, also where the layer pools, joins or normalises what ReLUs put out. Every step
    has a set length, which falls towards the end; its gradient is smoothed by giving low spatial
    frequencies more weight, the more so the earlier the step, so that shapes come before detail;
    and in all but the first and the last steps the picture is moved by a few pixels at random (both
    from Olah et al. 2017, "Feature Visualization"). All filters share the starting noise and the
    movements, so that a filter's picture does not depend on its neighbours.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        layer_name: A layer that outputs feature maps (N, h, w, F); any name `grad_cam` takes.
        filters: The filters' indices, an integer or a sequence; None takes all of the layer.
        class_index: In place of a layer and its filters: the classes whose logits are climbed, an
            integer or a sequence (Simonyan et al. 2014). With one output, class 1 is that output
            and class 0 its negative.
        image_size: Side length of the pictures in pixels, or (height, width); None takes the
            model's own, or 96.
        steps: Steps of the ascent, 1 or more.
        step_size: Root mean square change of a picture in the first step, as a share of the value
            range; it falls to nothing in even steps.
        smoothness: Exponent by which the weight of a spatial frequency falls, in the mean of the
            steps: 1.75 times it in the first, 0.25 in the last. 0 weighs all alike.
        jitter: Pixels up to which the picture is moved at random in each step; 0 leaves it.
        value_range: Lowest and highest pixel value that the model takes.
        seed: Seed of the noise and the movements.
        batch_size: Pictures in one call of the model, which bounds the memory; None takes as many
            as have the pixels of 32 pictures of 96x96.
        output_name: The output of `class_index`, of a model with several: see `grad_cam`.

    Returns:
        FilterImages

    Raises:
        ValueError: If the layer, a filter or an option is not as said here, or NaN comes out.

    Warns:
        UserWarning: If `value_range` cannot be the one that the model was trained on.
    """
    shape = layers.picture_shape(model, image_size)
    if batch_size is None:
        batch_size = max(1, PIXELS_AT_ONCE // math.prod(shape[:2]))
    _check_options(steps, step_size, smoothness, jitter, value_range, seed, batch_size)
    _check_target(layer_name, filters, class_index)
    low, high = (float(value) for value in value_range)
    random = np.random.default_rng(seed)
    noise = random.normal(size=shape).astype(np.float32)
    start = np.clip((low + high) / 2 + START_NOISE * (high - low) * noise, low, high)
    moves = random.integers(-jitter, jitter + 1, (steps, 2), dtype=np.int32)
    moves[0] = moves[round(SETTLING * steps) :] = 0  # the first step tells how the start does

    start = layers.check_images(model, start)
    if class_index is None:
        path, layer = layers.find_layer(model, layer_name)
        name, owner = "filters", f"layer '{path}'"
        respond = functools.partial(_layer_response, path=path, layer=layer)
    else:
        path, filters = CLASSES, class_index
        name, owner = "class_index", "this model"
        respond = functools.partial(_class_response, output_name=output_name)
    step, count = layers.traced(
        model,
        ("ascent", path, repr(output_name), start.shape[1:]),
        lambda get_model: _trace(get_model, start, path, respond),
    )
    filters = check_indices(name, filters, count, owner)
    lengths = step_size * (high - low) * np.linspace(1, 0, steps, endpoint=False)
    exponents = smoothness * np.linspace(*COARSE_TO_FINE, steps)
    settings = [
        tf.constant([length, exponent, low, high], tf.float32)
        for length, exponent in zip(lengths, exponents, strict=True)
    ]
    ends = np.stack([np.full_like(start[0], low), np.full_like(start[0], high)])
    layers.check_range(model, ends, "value_range")
    plan = list(zip(moves, settings, strict=True))

    batches = np.array_split(filters, range(batch_size, len(filters), batch_size))
    parts = []
    with progress_bar(len(batches) * steps, path, "step") as bar:
        for batch in batches:
            parts.append(_ascend(step, start, batch, plan, bar))
    images, activations, starts, reacts = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    layers.check_finite(model, images, activations, starts)
    verdicts = _verdicts(activations, starts, reacts)
    return FilterImages(images, filters, activations, starts, verdicts, path)


def _check_options(steps, step_size, smoothness, jitter, value_range, seed, batch_size):
    for name, value, least in (
        ("steps", steps, 1),
        ("jitter", jitter, 0),
        ("seed", seed, 0),
        ("batch_size", batch_size, 1),
    ):
        check_integer(name, value, least)
    for name, value, is_right, rule in (
        ("step_size", step_size, _is_number(step_size) and step_size > 0, "above 0, and finite"),
        ("smoothness", smoothness, _is_number(smoothness) and smoothness >= 0, "0 or more"),
        ("value_range", value_range, _is_range(value_range), "two numbers, the lower one first"),
    ):
        if not is_right:
            raise ValueError(f"`{name}` (={value!r}) must be {rule}")


def _is_number(value):
    return isinstance(value, (int, float, np.integer, np.floating)) and abs(value) <= LARGEST


def _is_range(value):
    try:
        low, high = value
    except (TypeError, ValueError):
        return False
    return _is_number(low) and _is_number(high) and low < high


def _check_target(layer_name, filters, class_index):
    if (layer_name is None) == (class_index is None) or not (
        class_index is None or filters is None
    ):
        raise ValueError(
            f"`layer_name` (={layer_name!r}), with `filters` (={filters!r}) if not all of them, or "
            f"`class_index` (={class_index!r}) must be given, and not both"
        )


def _trace(get_model, start, path, respond):
    """Trace one step for any number of filters; also say how many the layer has."""
    spec = layers.image_spec(start)
    found = {}

    @tf.function(
        autograph=False,
        input_signature=[
            spec,
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((2,), tf.int32),
            tf.TensorSpec((4,), tf.float32),
        ],
    )
    def step(images, filters, move, settings):
        step_size, smoothness, low, high = tf.unstack(settings)
        moved = tf.roll(images, move, (1, 2))
        model = get_model()
        responses, before = respond(model, moved)
        found["filters"] = responses.shape[1]
        activation = tf.gather(responses, filters, batch_dims=1)
        # The gradient of one response in each row, without that of the picking, dear to trace.
        of_filter = tf.one_hot(filters, responses.shape[1])
        climbed, weights = [responses], [of_filter]
        if before is not None:
            climbed, weights = [*climbed, before], [*weights, LEAK * of_filter]
        (gradient,) = layers.gradients(model, climbed, images, weights)
        if gradient is None and layers.takes_integers(model):
            raise ValueError(
                f"`model` (='{model.name}') takes pictures as integers, which have no gradient; "
                "build it on a keras.Input of float32"
            )
        if gradient is None:
            argument = "class_index" if path == CLASSES else "layer_name"
            raise ValueError(f"`{argument}` (='{path}') does not depend on the picture")
        reacts = tf.reduce_max(tf.abs(gradient), (1, 2, 3)) > 0
        gradient = _smooth(gradient, smoothness)
        length = tf.sqrt(tf.reduce_mean(tf.square(gradient), (1, 2, 3), keepdims=True))
        images += step_size * tf.math.divide_no_nan(gradient, length)
        return tf.clip_by_value(images, low, high), activation, reacts

    return step.get_concrete_function(), found["filters"]


def _layer_response(model, images, *, path, layer):
    """Mean of each filter over its map, and the same before the layer's activation: (N, F) each."""
    _, outputs = layers.call_and_record(model, images, {path: layer})
    feature_map = layers.required_output(outputs, path)
    if feature_map.shape.rank != 4:
        raise ValueError(
            f"`layer_name` (='{path}') outputs shape {tuple(feature_map.shape)}; ascent needs "
            "feature maps (N, h, w, filters)"
        )
    return _means(feature_map), _means_before(feature_map)


def _means(feature_map):
    return tf.reduce_mean(tf.cast(feature_map, tf.float32), (1, 2))


def _means_before(tensor):
    """Means, (N, F), of what the activation functions behind a feature map were applied to.

    They are found back through pooling, padding, concatenation, and what is done to whole channels,
    as by batch normalisation. None where there is no such function, 0 for channels without one.
    """
    before = layers.activation_input(tensor, layers.ACTIVATIONS)
    if before is not None:
        return _means(before)
    op = tensor.op
    if op.type in MOVING:
        return _means_before(op.inputs[0])
    if op.type == "ConcatV2" and tf.get_static_value(op.inputs[-1]) in (3, -1):
        found = [(_means_before(part), part) for part in op.inputs[:-1]]
        if all(means is None for means, _ in found):
            return None
        parts = [tf.zeros_like(_means(part)) if means is None else means for means, part in found]
        return tf.concat(parts, 1)
    if op.type in ("AddV2", "Mul", "Sub", "BiasAdd"):
        first, second = op.inputs
        maps, other = (second, first) if first.shape.rank != 4 else (first, second)
        numbers = other.shape.num_elements() if other.shape.rank is not None else None
        means = _means_before(maps) if numbers in (1, maps.shape[-1]) else None
        if means is not None and op.type == "Mul":
            return means * tf.reshape(tf.cast(other, tf.float32), (1, -1))
        return -means if means is not None and op.type == "Sub" and maps is second else means
    return None


def _class_response(model, images, *, output_name):
    """The logit of each class: (N, classes). There is nothing flat before it."""
    output, _ = layers.call_and_record(model, images, {})
    return layers.class_scores(layers.pick_output(model, output, output_name)), None


def _smooth(gradient, smoothness):
    """Weight the spatial frequencies of (N, H, W, C) gradients by frequency ** -smoothness."""
    height, width = gradient.shape[1:3]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    longest = max(height, width)
    frequency = np.maximum(frequency * longest, 1).astype(np.float32)  # 1: no power overflows
    spectrum = tf.signal.rfft2d(tf.transpose(gradient, (0, 3, 1, 2)))
    spectrum *= tf.cast(tf.pow(frequency, -smoothness), tf.complex64)
    smooth = tf.signal.irfft2d(spectrum, fft_length=(height, width))
    return tf.transpose(smooth, (0, 2, 3, 1))


def _ascend(step, start, filters, plan, bar):
    """Climb with one batch of filters -> (images, activations, start activations, reacts)."""
    filters = filters.astype(np.int32)
    images = tf.repeat(start, len(filters), axis=0)
    responses, reacts = [], []
    for move, settings in plan:
        images, response, reaction = step(images, filters, move, settings)
        responses.append(response)
        reacts.append(reaction)
        bar.update()
    _, activations, _ = step(images, filters, *plan[0])  # of which the step itself is not used
    return images.numpy(), activations.numpy(), responses[0].numpy(), np.any(reacts, axis=0)


def _verdicts(activations, starts, reacts):
    fires = (activations != 0) | (starts != 0)
    return tuple(
        "dead" if not (alive and fired) else "ok" if gain > 1e-3 * abs(start) else "no gain"
        for alive, fired, gain, start in zip(
            reacts, fires, activations - starts, starts, strict=True
        )
    )
