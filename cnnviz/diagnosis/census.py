"""Count, over a whole dataset, the filters that do no work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnviz import figures, layers
from cnnviz.results import Result

# Layers, and functions of `keras.ops`, behind which a filter may be silent; in small letters.
ACTIVATIONS = "activation relu relu6 leakyrelu prelu elu selu celu gelu silu hardsilu".split()
FLAT = 1e-6  # values that differ by less than this share of the largest differ by rounding alone
COPY_CORRELATION = 0.9999  # from which on two channels count as one
COPY_POSITIONS = 50  # where a channel fires less often, nothing is said about copies
MANY = 0.5  # share of dead filters from which on a layer has a problem
KINDS = ("ok", "never fires", "always fires", "same everywhere", "copy")
ADVICE = (  # without dead filters, with some, with a layer that has many
    "No filter is dead.",
    "In this number dead filters do no harm.",
    "If the accuracy is low, train with a lower learning rate or BatchNormalization; if not, the "
    "layer needs no more filters than those that fire.",
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerCensus(Result):
    """What the C filters of one layer do over a dataset.

    Attributes:
        layer_name: The layer.
        firing: (C,) float32, share of all positions in all images with a value above 0.
        verdicts: C words: "ok", "never fires" (a dead filter: nowhere above 0), "same everywhere"
            (one value, above 0), "always fires" (above 0 everywhere: a ReLU then does nothing) or
            "copy of 7" (follows filter 7 in all that it does, up to scale and offset).
    """

    layer_name: str
    firing: np.ndarray
    verdicts: tuple[str, ...]

    _html = ()

    def count(self, kind: str) -> int:
        """How many filters have the verdict `kind`, one of `KINDS`."""
        return sum(verdict.startswith(kind) for verdict in self.verdicts)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FilterCensus(Result):
    """What the filters of a model do over a dataset.

    Attributes:
        layers: LayerCensus of each layer, in the order of the calls.
        n_images: How many images were seen.
    """

    layers: tuple[LayerCensus, ...]
    n_images: int

    _html = ("to_frame", "plot")

    def __str__(self) -> str:
        counts = self.to_frame()
        total, dead = counts["channels"].sum(), counts["never fires"].sum()
        shares = counts["never fires"] / counts["channels"]
        worst = counts.loc[shares.argmax()]
        text = f"{total:,} filters in {len(counts)} layers on {self.n_images:,} images: "
        text += f"{dead:,} never fire ({dead / total:.0%})"
        if dead:
            text += f", most in '{worst['layer']}' ({worst['never fires']} of {worst['channels']})"
        others = ((kind, counts[kind].sum()) for kind in KINDS[2:])
        text += "".join(f"; {count:,} '{kind}'" for kind, count in others if count)
        return f"{text}. {ADVICE[int(dead > 0) + int(shares.max() >= MANY)]}"

    def _columns(self):
        columns = {"layer": [one.layer_name for one in self.layers]}
        columns["channels"] = [len(one.verdicts) for one in self.layers]
        return columns | {kind: [one.count(kind) for one in self.layers] for kind in KINDS}

    def plot(self, **options: Any) -> figures.DescribedFigure:
        """Draw a bar for each layer; options of `figures.draw_census`."""
        return figures.draw_census(self, **options)


def filter_census(
    model: keras.Model, data: layers.ImageData, layer_names: str | Sequence[str] | None = None
) -> FilterCensus:
    """Count, over a dataset, the filters that never fire, always fire, are constant or copies.

    The dataset is streamed: memory does not grow with the number of images.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        data: Dataset of batches, of (images, labels) or images; a pair of arrays; or an array of
            images, in the model's input range. The more images, the surer is a "never".
        layer_names: Names of layers that output feature maps (N, h, w, C). None takes each layer
            that applies an activation function, or the convolutions if there is none.

    Returns:
        FilterCensus

    Raises:
        ValueError: If a layer is unknown or outputs no feature maps, the data do not fit, or NaN
            comes out.

    Warns:
        UserWarning: If the value range of the images can hardly be the one of the training.

    Example:
        >>> images = cnnviz.drawn_pets(8, seed=0).images
        >>> census = cnnviz.filter_census(cnnviz.load_pretrained(), images, "block1_conv1")
        >>> len(census.layers[0].verdicts)
        24
    """

    def record(named):
        return _firing(named) if layer_names is None else layers.find_layers(named, layer_names)

    def compute(call):
        if layer_names is None:
            paths = [path for path, calls in call.recorded.items() if calls[-1].shape.rank == 4]
        else:
            paths = list(layers.find_layers(call.named, layer_names))
        maps = [layers.required_feature_map(call, path, "a census") for path in paths]
        return (tf.shape(call.images)[:1], [_moments(one) for one in maps]), paths

    seen, n_images = {}, 0
    options = {"key": ("census", repr(layer_names)), "name": "data", "description": "census"}
    for _, (count, found), paths in layers.stream(model, data, compute, record=record, **options):
        if not paths:
            raise ValueError(f"`model` (='{model.name}') has no layer that outputs feature maps")
        for path, moments in zip(paths, found, strict=True) if len(count) else ():
            moments = [np.asarray(moment[0], np.float64) for moment in moments]
            seen[path] = _combined(seen[path], moments) if path in seen else moments
        n_images += int(count.sum())
    if not n_images:
        raise ValueError("`data` (without a single image) must not be empty")
    censuses = (LayerCensus(path, *_verdicts(*moments)) for path, moments in seen.items())
    return FilterCensus(tuple(censuses), n_images)


def _firing(named):
    """The layers that apply an activation function; the convolutions if there is none."""
    leaves = layers.leaves(named)
    convolutions = {path: layer for path, layer in leaves.items() if layers.is_a(layer, "Conv")}
    linear = (None, keras.activations.linear)
    firing = {
        path: layer
        for path, layer in leaves.items()
        if type(layer).__name__.lower() in ACTIVATIONS
        or (path in convolutions and getattr(layer, "activation", None) not in linear)
    }
    return firing or convolutions


def _moments(maps):
    """Number of positions, at how many of them each filter fires, lowest, highest and mean value,
    and scatter matrix; each with a first axis of 1."""
    flat = tf.reshape(tf.cast(maps, tf.float32), (-1, maps.shape[3]))
    mean = tf.reduce_mean(flat, 0)
    centered = flat - mean
    moments = [tf.shape(flat)[0], tf.math.count_nonzero(flat > 0, 0)]
    moments += [tf.reduce_min(flat, 0), tf.reduce_max(flat, 0), mean]
    moments.append(tf.matmul(centered, centered, transpose_a=True))
    return [moment[None] for moment in moments]


def _combined(one, other):
    """The moments of two sets of positions together (Chan, Golub & LeVeque 1983)."""
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
    """-> (share of the positions at which each filter fires, one word for each)."""
    flat = highest - lowest <= FLAT * np.maximum(np.abs(lowest), np.abs(highest))
    deviation = np.sqrt(np.maximum(np.diag(scatter), np.finfo(float).tiny))
    similar = np.abs(scatter) > COPY_CORRELATION * np.outer(deviation, deviation)
    comparable = ~flat & (fired >= COPY_POSITIONS)
    earlier = np.tril(similar & np.outer(comparable, comparable), -1)
    copies = [f"copy of {first}" for first in earlier.argmax(1)]
    cases = [highest <= 0, flat, earlier.any(1), lowest > 0]
    words = ["never fires", "same everywhere", copies, "always fires"]
    verdicts = np.select(cases, words, "ok").tolist()
    return (fired / count).astype(np.float32), tuple(verdicts)
