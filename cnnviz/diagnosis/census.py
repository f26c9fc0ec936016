"""Count, over a whole dataset, the filters that do no work."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.diagnosis.measures import is_flat
from cnnviz.results import Result

# Layers, and functions of `keras.ops`, after which a filter may be silent; in lower case.
ACTIVATIONS = "activation relu relu6 leakyrelu prelu elu selu celu gelu silu hardsilu".split()
NO_EFFECT = 1e-3  # of the layer's median spread: less is what a GELU leaves of a dead filter
COPY_CORRELATION = 0.9999  # of activations, from which on two filters count as one
COPY_POSITIONS = 50  # where a filter fires less often, its activations say nothing about copies
COPY_COSINE = 0.998  # of kernels
KERNEL_NUMBERS = 9  # fewer agree by chance: of 64 kernels of 1x1x3, two have a cosine of 0.999
MANY = 0.5  # share of dead filters from which on a layer has a problem
KINDS = ("ok", "never fires", "always fires", "same everywhere", "copy")
ADVICE = {  # by severity
    "fault": "This is not normal: no filter of {idle} has an effect",
    "suspicion": "So many dead filters in one layer are not normal: if the accuracy is low, train "
    "with a lower learning rate or BatchNormalization",
    "note": "Copies and constant filters are not normal, but only waste capacity",
    "": "These counts are normal: no layer has lost half of its filters",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LayerCensus(Result):
    """What the C filters of one layer do over a dataset.

    Attributes:
        firing: (C,) float32, share of all positions in all images with a value above 0.
        verdicts: C words: "ok", "never fires" (dead: 0 everywhere, or nearly), "same everywhere"
            (one other value), "always fires" (a ReLU then does nothing), or "copy of 7".
        correlation: (C,) float32, with the most similar other filter, -1..1: of activations, or
            the cosine of the kernels if they are copies. 0 if the filter fires too rarely.
    """

    layer_name: str
    firing: np.ndarray
    verdicts: tuple[str, ...]
    correlation: np.ndarray

    @property
    def share_dead(self) -> float:
        """Share of the filters that never fire, 0..1."""
        return self.verdicts.count("never fires") / len(self.verdicts)

    def _columns(self):
        columns = {"filter": range(len(self.verdicts)), "firing": self.firing}
        return columns | {"verdict": self.verdicts, "correlation": self.correlation}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FilterCensus(Result):
    """What the filters of a model do over a dataset: layer by layer, on `n_images` images.

    `idle` layers have no effect: each filter has one value everywhere, perhaps only after the
    normalization. `not_judged` are (name, reason) of what was not counted.
    """

    layers: tuple[LayerCensus, ...]
    n_images: int
    idle: tuple[str, ...] = ()
    not_judged: tuple[tuple[str, str], ...] = ()

    _html = ("to_frame", "plot")
    _draw = "draw_census"

    @property
    def dead(self) -> int:
        """The number of filters that never fire."""
        return sum(one.verdicts.count("never fires") for one in self.layers)

    @property
    def share_dead(self) -> float:
        """Share of all filters that never fire, 0..1."""
        return self.dead / sum(len(one.verdicts) for one in self.layers)

    @property
    def worst(self) -> LayerCensus:
        """The layer with the greatest share of dead filters."""
        return max(self.layers, key=lambda one: one.share_dead)

    @property
    def severity(self) -> str:
        """ "fault": an idle layer; "suspicion": many dead filters in one; "note": copies; or ""."""
        if self.idle or self.worst.share_dead >= MANY:
            return "fault" if self.idle else "suspicion"
        return "note" if self.to_frame()[["copy", "same everywhere"]].any(axis=None) else ""

    def __str__(self) -> str:
        counts, worst = self.to_frame().sum(numeric_only=True), self.worst
        text = f"{counts['channels']:,.0f} filters in {len(self.layers)} layers on "
        text += f"{self.n_images:,} images: {self.dead:,} never fire ({self.share_dead:.0%})"
        if self.dead:
            number = worst.verdicts.count("never fires")
            text += f", most in '{worst.layer_name}' ({number} of {len(worst.verdicts)})"
        text += "".join(f"; {counts[kind]:,.0f} '{kind}'" for kind in KINDS[2:] if counts[kind])
        advice = ADVICE[self.severity].format(idle=", ".join(map(repr, self.idle[:3])))
        if self.not_judged:
            skipped = ", ".join(f"'{name}' ({reason})" for name, reason in self.not_judged[:3])
            more = f" and {len(self.not_judged) - 3} more" * (len(self.not_judged) > 3)
            advice += f". Not judged: {skipped}{more}"
        return f"{text}. {advice}."

    def _columns(self):
        columns = {"layer": [one.layer_name for one in self.layers]}
        words = [[verdict.partition(" of ")[0] for verdict in one.verdicts] for one in self.layers]
        columns["channels"] = [len(each) for each in words]
        columns |= {kind: [each.count(kind) for each in words] for kind in KINDS}
        return columns | {"correlation": [np.abs(one.correlation).max() for one in self.layers]}


def filter_census(
    model: keras.Model, data: layers.ImageData, layer_names: str | Sequence[str] | None = None
) -> FilterCensus:
    """Count, over a dataset, the filters that never fire, always fire, are constant or copies.

    After a GELU, whose values can be negative, a filter is dead if all its values are nearly 0.
    Copies have the same activations, or the same kernel up to its sign.

    Args:
        model: keras.Model of any kind; it is left as it was.
        data: Dataset of batches, with labels or without, or what else `grad_cam` takes.
        layer_names: Names of layers that output feature maps (N, h, w, C). None takes all
            activations and convolutions. A convolution is counted after the activation function
            that follows it, such as `tf.nn.relu`, or, without one, after its normalization.

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
        found = layers.feature_maps(call)
        if layer_names is None:
            rows, skipped = _rows(call.named, found), _not_judged(call, found)
        else:
            paths, skipped = layers.find_layers(call.named, layer_names), ()
            rows = {path: (path, layers.filter_map(call, path, "a census")) for path in paths}
        both = [(behind, found.get(source, behind)) for source, behind in rows.values()]
        results = [_moments(behind, layers.normalized(before)) for behind, before in both]
        return results, ({path: source for path, (source, _) in rows.items()}, skipped)

    seen, n_images = None, 0
    options = {"key": ("census", repr(layer_names)), "name": "data", "description": "census"}
    for inputs, _, new, facts in layers.stream(model, data, compute, record=record, **options):
        if not facts[0]:
            raise ValueError(f"`model` (='{model.name}') has no layer that outputs feature maps")
        rows = len(layers.image_of(model, inputs))
        if rows and seen:
            new = [(np.maximum(a, c), b + d) for (a, b), (c, d) in zip(seen, new, strict=True)]
        seen = new if rows else seen
        n_images += rows
    if not n_images:
        raise ValueError("`data` (without a single image) must not be empty")
    (sources, skipped), named, censuses, idle = facts, layers.named_layers(model), [], []
    for (path, source), (extremes, sums) in zip(sources.items(), seen, strict=True):
        censuses.append(LayerCensus(path, *_verdicts(named[source], extremes[0, 0], sums[0])))
        shown, normalized = (is_flat(-low, high).all() for low, high in extremes[0])
        if (shown or normalized) and sums[0, 0, 0] > n_images:  # else a gate: one value an image
            idle.append(source if normalized else path)
    return FilterCensus(tuple(censuses), n_images, tuple(idle), skipped)


def _candidates(named):
    return {
        path: layer
        for path, layer in layers.leaves(named).items()
        if type(layer).__name__.lower() in ACTIVATIONS or layers.is_a(layer, "Conv")
    }


def _rows(named, found):
    """{path that is named: (path of the convolution, feature map)} of what is judged."""
    linear = [path for path in found if layers.is_linear_convolution(named[path])]
    rows = {path: (path, found[path]) for path in found if path not in linear}
    for path in linear:
        behind = layers.activated(found[path])
        behind = layers.normalized(behind) if behind is found[path] else behind
        row = next((row for row, (_, maps) in rows.items() if maps is behind), path)
        rows[row] = path, behind
    return {path: rows[path] for path in found if path in rows}


def _not_judged(call, found):
    """((name, reason), ...) of the convolutions and activations of which there is no map."""
    candidates, reasons = _candidates(call.named), {}
    for path in candidates.keys() - found.keys():
        recorded = path in call.recorded
        reasons[path] = "outputs no feature map" if recorded else "not called on these images"
    known = {part for path in candidates for part in path.split("/")}
    for op in call.images.graph.get_operations():
        scopes = {re.sub(r"_\d+$", "", part) for part in op.name.split("/")} | {*op.name.split("/")}
        if op.type in ("Conv2D", "DepthwiseConv2dNative", "Conv3D") and known.isdisjoint(scopes):
            reasons[op.name] = "no Keras layer"
    return tuple(sorted(reasons.items()))


def _moments(maps, before):
    """-> extremes of each filter, of both maps, the least negated; sums over all positions."""
    maps, before = (tf.reshape(tf.cast(x, tf.float64), (-1, x.shape[-1])) for x in (maps, before))
    extremes = [[-tf.reduce_min(x, 0), tf.reduce_max(x, 0)] for x in (maps, before)]
    fired, total = tf.math.count_nonzero(maps > 0, 0, dtype=tf.float64), tf.reduce_sum(maps, 0)
    count = tf.fill(tf.shape(total), tf.cast(tf.shape(maps)[0], tf.float64))
    products = tf.matmul(maps, maps, transpose_a=True)
    return tf.stack(extremes)[None], tf.concat([[count, fired, total], products], 0)[None]


def _verdicts(convolution, extremes, sums):
    """-> (share of positions at which each filter fires, a word for each, correlations)."""
    (count, fired, total), products, lowest, highest = sums[:3], sums[3:], -extremes[0], extremes[1]
    flat, spread, signed = is_flat(lowest, highest), highest - lowest, lowest.min() < 0
    least = NO_EFFECT * np.median(spread[~flat]) if signed and not flat.all() else 0
    flat |= spread <= least
    dead = flat & (np.maximum(np.abs(lowest), np.abs(highest)) <= least)
    scatter = products - np.outer(total, total) / count
    deviation = np.sqrt(np.maximum(np.diag(scatter), np.finfo(float).tiny))
    alike, cosine = scatter / np.outer(deviation, deviation), _cosines(convolution, len(flat))
    seldom = flat | ((count if signed else fired) < COPY_POSITIONS)
    alike[seldom], alike[:, seldom], cosine[flat], cosine[:, flat] = 0, 0, 0, 0
    same_kernel = np.abs(cosine) > COPY_COSINE
    earlier = np.tril(same_kernel | (np.abs(alike) > COPY_CORRELATION), -1)
    alike = np.where(same_kernel, cosine, alike) * (1 - np.eye(len(flat)))
    nearest = np.abs(alike).argmax(1)[:, None]
    correlation = np.take_along_axis(alike, nearest, 1)[:, 0].astype(np.float32)
    copies = [f"copy of {first}" for first in earlier.argmax(1)]
    cases = [dead, flat, earlier.any(1), lowest > 0]
    words = ["never fires", "same everywhere", copies, "always fires"]
    verdicts = tuple(np.select(cases, words, "ok").tolist())
    return (fired / count).astype(np.float32), verdicts, correlation.clip(-1, 1)


def _cosines(layer, n_filters):
    """(C, C) cosines between the kernels of a convolution; 0 where they say nothing."""
    nothing, kernel = np.zeros((n_filters, n_filters)), getattr(layer, "kernel", None)
    if kernel is None or layers.is_a(layer, "Depthwise") or getattr(layer, "groups", 1) != 1:
        return nothing
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))
    kernel = np.moveaxis(kernel, -2, -1) if layers.is_a(layer, "Transpose") else kernel
    flat = kernel.reshape(-1, kernel.shape[-1])
    if flat.shape[1] != n_filters or len(flat) < KERNEL_NUMBERS:
        return nothing
    flat = flat / np.maximum(np.linalg.norm(flat, axis=0), np.finfo(np.float32).tiny)
    return flat.T @ flat
