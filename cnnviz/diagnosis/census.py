"""Count, over a whole dataset, the filters that do no work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
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
    "If the accuracy is low, train with a lower learning rate or BatchNormalization.",
)
MERGE = (np.add, np.add, np.minimum, np.maximum, np.add, np.add)  # merges the `_moments` of batches


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerCensus(Result):
    """What the C filters of one layer do over a dataset.

    Attributes:
        firing: (C,) float32, share of all positions in all images with a value above 0.
        verdicts: C words: "ok", "never fires" (a dead filter: nowhere above 0), "same everywhere"
            (one value, above 0), "always fires" (above 0 everywhere: a ReLU then does nothing) or
            "copy of 7" (follows filter 7, up to scale and offset).
    """

    layer_name: str
    firing: np.ndarray
    verdicts: tuple[str, ...]

    _html = ()


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FilterCensus(Result):
    """What the filters of a model do over a dataset: layer by layer, on `n_images` images."""

    layers: tuple[LayerCensus, ...]
    n_images: int

    _html = ("to_frame", "plot")
    _draw = "draw_census"

    def __str__(self) -> str:
        counts = self.to_frame()
        total, dead = counts["channels"].sum(), counts["never fires"].sum()
        shares = counts["never fires"] / counts["channels"]
        worst = counts.loc[shares.argmax()]
        text = f"{total:,} filters in {len(counts)} layers on {self.n_images:,} images: "
        text += f"{dead:,} never fire ({dead / total:.0%})"
        if dead:
            text += f", most in '{worst['layer']}' ({worst['never fires']} of {worst['channels']})"
        others = [kind for kind in KINDS[2:] if counts[kind].any()]
        text += "".join(f"; {counts[kind].sum():,} '{kind}'" for kind in others)
        return f"{text}. {ADVICE[int(dead > 0) + int(shares.max() >= MANY)]}"

    def _columns(self):
        columns = {"layer": [one.layer_name for one in self.layers]}
        words = [[verdict.partition(" of ")[0] for verdict in one.verdicts] for one in self.layers]
        columns["channels"] = [len(each) for each in words]
        return columns | {kind: [each.count(kind) for each in words] for kind in KINDS}


def filter_census(
    model: keras.Model, data: layers.ImageData, layer_names: str | Sequence[str] | None = None
) -> FilterCensus:
    """Count, over a dataset, the filters that never fire, always fire, are constant or copies.

    Args:
        model: keras.Model of any kind; it is left as it was.
        data: Dataset of batches, with labels or without, or what else `grad_cam` takes. More images
            make "never fires" more certain.
        layer_names: Names of layers that output feature maps (N, h, w, C). A convolution without
            an activation is counted behind the one that follows it. None takes each layer that
            applies an activation function, each convolution behind which a function such as
            `tf.nn.relu` applies one, or all convolutions if there is no activation.

    Raises:
        ValueError: If a layer is unknown or outputs no feature maps, or NaN comes out.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> len(cnnviz.filter_census(model, image, "block1_conv1").layers[0].verdicts)
        24
    """

    def record(named):
        return _candidates(named) if layer_names is None else layers.find_layers(named, layer_names)

    def compute(call):
        if layer_names is None:
            paths = _firing(call)
        else:
            paths = list(layers.find_layers(call.named, layer_names))
        maps = [layers.filter_map(call, path, "a census") for path in paths]
        return [_moments(one) for one in maps], paths

    seen, n_images = {}, 0
    options = {"key": ("census", repr(layer_names)), "name": "data", "description": "census"}
    for inputs, _, found, paths in layers.stream(model, data, compute, record=record, **options):
        rows = len(layers.image_of(model, inputs))
        if not paths:
            raise ValueError(f"`model` (='{model.name}') has no layer that outputs feature maps")
        for path, new in zip(paths, found, strict=True) if rows else ():
            old = seen.setdefault(path, new)
            if old is not new:
                seen[path] = [merge(*both) for merge, *both in zip(MERGE, old, new, strict=True)]
        n_images += rows
    if not n_images:
        raise ValueError("`data` (without a single image) must not be empty")
    censuses = [LayerCensus(path, *_verdicts(*moments)) for path, moments in seen.items()]
    return FilterCensus(tuple(censuses), n_images)


def _candidates(named):
    """The convolutions and the layers that apply an activation function."""
    return {
        path: layer
        for path, layer in layers.leaves(named).items()
        if type(layer).__name__.lower() in ACTIVATIONS or layers.is_a(layer, "Conv")
    }


def _firing(call):
    """Paths of the layers to name for each activation; of the convolutions if there is none."""
    found = layers.feature_maps(call)
    linear = [path for path in found if layers.is_linear_convolution(call.named[path])]
    counted = {path: maps for path, maps in found.items() if path not in linear}
    for path in linear:
        behind = layers.activated(found[path])
        if not any(behind is maps for maps in (found[path], *counted.values())):
            counted[path] = behind
    return [path for path in found if path in counted] or list(found)


def _moments(maps):
    """Number of positions, and of each filter: of those where it fires, extremes, sum, products."""
    flat = tf.reshape(tf.cast(maps, tf.float64), (1, -1, maps.shape[-1]))
    fired = tf.math.count_nonzero(flat > 0, 1)
    lowest, highest = tf.reduce_min(flat, 1), tf.reduce_max(flat, 1)
    products = tf.matmul(flat, flat, transpose_a=True)
    return tf.shape(flat, tf.int64)[1:2], fired, lowest, highest, tf.reduce_sum(flat, 1), products


def _verdicts(*moments):
    """-> (share of the positions at which each filter fires, one word for each)."""
    count, fired, lowest, highest, total, products = (moment[0] for moment in moments)
    scatter = products - np.outer(total, total) / count
    flat = highest - lowest <= FLAT * np.maximum(np.abs(lowest), np.abs(highest))
    deviation = np.sqrt(np.maximum(np.diag(scatter), np.finfo(float).tiny))
    similar = np.abs(scatter) > COPY_CORRELATION * np.outer(deviation, deviation)
    comparable = ~flat & (fired >= COPY_POSITIONS)
    earlier = np.tril(similar & np.outer(comparable, comparable), -1)
    copies = [f"copy of {first}" for first in earlier.argmax(1)]
    cases = [highest <= 0, flat, earlier.any(1), lowest > 0]
    words = ["never fires", "same everywhere", copies, "always fires"]
    return (fired / count).astype(np.float32), tuple(np.select(cases, words, "ok").tolist())
