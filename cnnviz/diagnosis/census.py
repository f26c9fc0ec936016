"""(model, data) -> the filters of each layer that do no work."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.diagnosis.batches import PictureData, image_batches
from cnnviz.diagnosis.measures import FLAT

# Layers, and functions of `keras.ops`, after which a filter may be silent; in small letters.
ACTIVATIONS = "activation relu relu6 leakyrelu prelu elu selu celu gelu silu hardsilu".split()
COPY_CORRELATION = 0.9999  # from which on two channels count as one
COPY_POSITIONS = 50  # where a channel fires less often, nothing is said about copies
KINDS = ("ok", "never fires", "always fires", "same everywhere", "copy")


@dataclasses.dataclass(frozen=True)
class LayerCensus:
    """What the C channels of one layer do over a data set.

    Attributes:
        layer_name: The layer.
        firing: (C,) float32, share of all positions of all pictures with a value above 0.
        verdicts: C words: "ok", "never fires" (nowhere above 0), "same everywhere" (one value,
            above 0), "always fires" (above 0 everywhere: after a ReLU, which then does nothing) or
            "copy of 7" (follows channel 7 in all that it does, up to scale and offset).
    """

    layer_name: str
    firing: np.ndarray
    verdicts: tuple[str, ...]

    def count(self, kind: str) -> int:
        """How many channels have the verdict `kind`, one of `KINDS`."""
        return sum(verdict.startswith(kind) for verdict in self.verdicts)


@dataclasses.dataclass(frozen=True)
class FilterCensus:
    """What the channels of a network's layers do over a data set; printed, a table.

    Attributes:
        layers: LayerCensus of each layer, in the model's order.
        pictures: How many pictures were seen.
    """

    layers: tuple[LayerCensus, ...]
    pictures: int

    def __str__(self) -> str:
        width = max(len(layer.layer_name) for layer in self.layers)
        lines = [f"{'layer':{width}}  channels" + "".join(f"{kind:>17}" for kind in KINDS)]
        for layer in self.layers:
            counts = "".join(f"{layer.count(kind):17}" for kind in KINDS)
            lines.append(f"{layer.layer_name:{width}}  {len(layer.verdicts):8}" + counts)
        return "\n".join(lines)


def filter_census(
    model: keras.Model, data: PictureData, layer_names: str | Sequence[str] | None = None
) -> FilterCensus:
    """Count, over a data set, the filters that never fire, always fire, are constant or copies.

    The data set is streamed: memory does not grow with the number of pictures.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        data: tf.data.Dataset of batches, of (images, labels) or images; a pair of arrays; or an
            array of images. The more pictures, the surer is a "never".
        layer_names: Names of layers that output feature maps (N, h, w, C). None takes each layer
            that applies an activation: there it is decided who fires. A network whose layers show
            none is looked at after its convolutions.

    Returns:
        FilterCensus

    Raises:
        ValueError: If a layer is unknown or outputs no feature maps, the data do not fit, or NaN
            comes out.

    Warns:
        UserWarning: If the range of the pictures cannot be the one that the model was trained on.
    """
    if layer_names is None:
        chosen = _firing_layers(model)
    else:
        chosen = layers.find_layers(model, layer_names)
    seen, pictures = {}, 0
    for images in image_batches(model, data, "census"):
        if not seen:
            layers.check_range(model, images, "data")
        function, paths = _traced(model, images, chosen, layer_names is None)
        pictures += len(images)
        for path, moments in zip(paths, function(images), strict=True):
            moments = [np.asarray(moment, np.float64) for moment in moments]
            seen[path] = _combined(seen[path], moments) if path in seen else moments
    if not seen:
        raise ValueError(f"`model` (='{model.name}') has no layer that outputs feature maps")
    layers.check_finite(model, *(mean for *_, mean, _ in seen.values()))
    censuses = (LayerCensus(path, *_verdicts(*moments)) for path, moments in seen.items())
    return FilterCensus(tuple(censuses), pictures)


def _firing_layers(model):
    """The layers that apply an activation; the convolutions, if there is none."""
    leaves = layers.leaf_layers(model)
    firing = {
        path: layer
        for path, layer in leaves.items()
        if type(layer).__name__.lower() in ACTIVATIONS
        or (layers.is_a(layer, "Conv") and _is_activated(layer))
    }
    return firing or {path: leaves[path] for path in layers.convolution_layers(model)}


def _is_activated(layer):
    return getattr(layer, "activation", None) not in (None, keras.activations.linear)


def _traced(model, images, chosen, by_default):
    """-> (function from pictures to the moments of each layer, the layers' paths)."""

    def make(get_model):
        paths = []

        @tf.function(autograph=False, input_signature=[layers.image_spec(images)])
        def moments(batch):
            _, outputs = layers.call_and_record(get_model(), batch, chosen)
            if by_default:
                paths[:] = [path for path, calls in outputs.items() if calls[-1].shape.rank == 4]
            else:
                paths[:] = chosen
            return [_moments(layers.required_output(outputs, path), path) for path in paths]

        return moments.get_concrete_function(), paths

    return layers.traced(model, ("census", tuple(chosen), by_default, images.shape[1:]), make)


def _moments(maps, path):
    """(N, h, w, C) tensor -> positions, how many fire, lowest, highest, mean, scatter matrix."""
    if maps.shape.rank != 4:
        raise ValueError(
            f"`layer_names` ('{path}') outputs shape {tuple(maps.shape)}, not feature maps "
            "(N, h, w, C)"
        )
    flat = tf.reshape(tf.cast(maps, tf.float32), (-1, maps.shape[3]))
    mean = tf.reduce_mean(flat, 0)
    centred = flat - mean
    return (
        tf.shape(flat)[0],
        tf.math.count_nonzero(flat > 0, 0),
        tf.reduce_min(flat, 0),
        tf.reduce_max(flat, 0),
        mean,
        tf.matmul(centred, centred, transpose_a=True),
    )


def _combined(one, other):
    """Moments of two sets of positions -> of both together (Chan, Golub & LeVeque 1983)."""
    count = one[0] + other[0]
    step = other[4] - one[4]
    return [
        count,
        one[1] + other[1],
        np.minimum(one[2], other[2]),
        np.maximum(one[3], other[3]),
        one[4] + step * other[0] / count,
        one[5] + other[5] + np.outer(step, step) * one[0] * other[0] / count,
    ]


def _verdicts(count, fired, lowest, highest, mean, scatter):
    """-> (share of the positions at which each channel fires, one word for each)."""
    flat = highest - lowest <= FLAT * np.maximum(np.abs(lowest), np.abs(highest))
    deviation = np.sqrt(np.maximum(np.diag(scatter), np.finfo(float).tiny))
    alike = np.abs(scatter) > COPY_CORRELATION * np.outer(deviation, deviation)
    tellable = ~flat & (fired >= COPY_POSITIONS)
    alike &= np.outer(tellable, tellable)
    words = []
    for channel, others in enumerate(alike):
        earlier = np.flatnonzero(others[:channel])
        if highest[channel] <= 0:
            words.append("never fires")
        elif flat[channel]:
            words.append("same everywhere")
        elif len(earlier):
            words.append(f"copy of {earlier[0]}")
        elif lowest[channel] > 0:
            words.append("always fires")
        else:
            words.append("ok")
    return (fired / count).astype(np.float32), tuple(words)
