"""Watch a training while it runs: check it before its first step, and record what it does."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.grad_cam import grad_cam
from cnnviz.results import Result

MOST_IMAGES, MOST_BATCHES = 8, 4  # that get heat maps; of 32 or less, that filters are counted on
MOST_RECORDS = 60  # that are kept; then every second one goes
FLAT = 1e-6  # values that differ by less than this share of the largest differ by rounding alone
PLAIN = "look too small", "are all the same"  # warnings of value ranges that no training can want
LOSSES = "binarycrossentropy", "categoricalcrossentropy", "sparsecategoricalcrossentropy"


class Fault(UserWarning):
    """Images or labels from which no training can learn."""


class Monitor(keras.callbacks.Callback, Result):
    """Watch a training: a callback for the `fit` of any model.

    Before the first step it checks the value range of the images against the model's own rescaling,
    looks for images that are constant or all alike, and compares labels, outputs and loss. A plain
    fault ends `fit` with a ValueError.

    After each epoch it records dead filters (behind the activation, one value at all positions of
    all images), the spread of the activations (standard deviation of a filter, root mean square
    over filters) and the relative change of the weights per epoch, for each layer with a kernel;
    and Grad-CAM maps. Of more than 60 records it drops every second one, and records half as often.

    Losses do not change. An error of its own becomes a warning, and it stops watching.

    Args:
        images: A few images in the form that `fit` gets; the first 8 get heat maps.
        labels: Their labels. The maps explain these classes, else the predicted ones.
        validation_data: A dataset or arrays; filters are counted on the first 4 batches of at most
            32 images, which are read once. None counts on `images`.
        every: Epochs from one record to the next.
        folder: Where to write the records, too: as `monitor.csv` and `maps.npz`.
        stop_on_fault: Whether a plain fault is an error; else it is a warning.
        class_names: The names of the classes, by index, for the figure.

    Attributes:
        records: A dict each: "epoch", how many were done; "layers", by path a tuple (filters, dead
            filters, spread, weight change); "maps", (n, h, w), and "class_index", (n,), or None.
        notes: What was found or left out, a sentence each; each was a warning, too.

    Example:
        >>> pets, model = cnnviz.drawn_pets(16, image_size=32), cnnviz.build_model(width=1)
        >>> model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
        >>> monitor = cnnviz.Monitor(pets.images[:4], pets.labels[:4])
        >>> history = model.fit(pets.images, pets.labels, callbacks=[monitor], verbose=0)
        >>> figure = monitor.plot()
    """

    _html = ("plot",)
    _draw = "draw_monitor"

    def __init__(
        self,
        images: layers.ImageData,
        labels: ArrayLike | None = None,
        *,
        validation_data: layers.ImageData | None = None,
        every: int = 1,
        folder: str | os.PathLike[str] | None = None,
        stop_on_fault: bool = True,
        class_names: Sequence[str] = (),
    ):
        super().__init__()
        check_integer("every", every, 1)
        self.every, self.folder, self.stop_on_fault = every, folder, stop_on_fault
        self.class_names, self.records, self.notes = class_names, [], []
        self._given = images, images if validation_data is None else validation_data
        self._labels, self._watched, self._quiet = labels, None, False

    def on_train_begin(self, logs=None):
        self._quiet = False
        self._guarded(self._begin, self.stop_on_fault)

    def on_epoch_end(self, epoch, logs=None):
        self._guarded(lambda: self._quiet or self._end(epoch + 1))

    def _guarded(self, function, stop=False):
        """Call a function; its warnings become notes, and an error of its own becomes the last."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                function()
            except Exception as error:
                self._quiet = True
                layers.warn(f"the monitor stops watching: {error}")
        for text, kind in {str(one.message): one.category for one in caught}.items():
            if stop and (kind is Fault or any(map(text.count, PLAIN))):
                raise ValueError(f"{text}; `stop_on_fault=False` trains nevertheless")
            if text not in self.notes:
                self.notes.append(text)
                layers.warn(text)

    def _begin(self):
        """Read the images, once for a model, and look for plain faults."""
        if is_new := self._watched is not self.model:
            self._inputs, self._counted = (_first(self.model, one) for one in self._given)
        if not self.model.built:  # a subclassed model, which the first step would build
            self.model(layers.take(self._inputs, slice(1)), training=False)
        if is_new:
            self._watched, self._weights, self.records = self.model, _weights(self.model), []
            self._epoch, self._step, self._maps = 0, self.every, True
        images = layers.image_of(self.model, self._inputs)
        self.images, ((_, output), (_, n_outputs)) = images[:MOST_IMAGES], self._look(self._inputs)
        _find_faults(self.model, images, self._labels, output if n_outputs == 1 else None)

    def _look(self, inputs):
        """Call the model: (moments by layer, first output), (paths, number of outputs)."""
        options = {"key": "monitor", "record": _kernels, "finite": False}
        return layers.run(self.model, inputs, _measure, **options)

    @np.errstate(all="ignore")  # of weights that are zero or not finite
    def _end(self, epoch):
        """Record, if it is time: the numbers of each layer, and the heat maps."""
        self._epoch = max(epoch, self._epoch + 1)
        if self._epoch % self._step:
            return
        (found, _), (paths, _) = self._look(self._counted)
        before, self._weights, rows = self._weights, _weights(self.model), {}
        for path, moments in zip(paths, found, strict=True):
            low, high = moments[:, 0].min(0), moments[:, 1].max(0)
            mean, square = moments[:, 2:].mean(0)
            dead = high - low <= FLAT * np.maximum(np.abs(low), np.abs(high))
            spread = np.sqrt(np.maximum(square - mean**2, 0).mean())
            change = np.linalg.norm(self._weights[path] - before[path]) / self._step
            change /= np.linalg.norm(before[path])
            rows[path] = len(dead), int(dead.sum()), float(spread), float(change)
        maps, classes = self._heat_maps()
        record = {"epoch": self._epoch, "layers": rows, "maps": maps, "class_index": classes}
        self.records.append(record)
        if len(self.records) > MOST_RECORDS:
            self._step *= 2
            self.records = [one for one in self.records if one["epoch"] % self._step == 0]
        if self.folder is not None:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            self.to_frame().to_csv(Path(self.folder, "monitor.csv"), index=False)
            kept = {str(r["epoch"]): r["maps"] for r in self.records if r["maps"] is not None}
            np.savez(Path(self.folder, "maps.npz"), **kept)

    def _heat_maps(self):
        """Maps (n, h, w) and classes (n,) of the first images, or a note that says why not."""
        first, labels = layers.take(self._inputs, slice(MOST_IMAGES)), self._labels
        try:
            if labels is not None:
                labels = layers.class_indices(labels, len(labels))[:MOST_IMAGES]
            found = grad_cam(self.model, first, class_index=labels) if self._maps else None
        except ValueError as error:
            self._maps, found = False, None
            layers.warn(f"no heat maps from epoch {self._epoch} on: {error}")
        return (found.maps, found.class_index) if found else (None, None)

    def __repr__(self):
        return f"Monitor({len(self.records)} records)"

    def __str__(self):
        lines = [] if self.records else ["No record yet: give it to `fit(callbacks=[...])`."]
        for record in self.records[:: max(1, len(self.records) - 1)]:  # the first and the last
            total, dead = np.sum([row[:2] for row in record["layers"].values()], 0)
            lines.append(f"Epoch {record['epoch']}: {dead} of {total} filters and units are dead.")
        return "\n".join(lines + self.notes)

    def _columns(self):
        rows = [(r["epoch"], path, *row) for r in self.records for path, row in r["layers"].items()]
        names = "epoch", "layer", "filters", "dead filters", "spread", "weight change"
        return {name: [row[index] for row in rows] for index, name in enumerate(names)}


def _first(model, data):
    """The first images of some data, as the model takes them."""
    parts = [inputs for inputs, _ in itertools.islice(layers.batches(model, data), MOST_BATCHES)]
    return tf.nest.map_structure(lambda *same: np.concatenate(same), *parts)


def _weights(model):
    """{path: all weights of a layer with a kernel, in one vector}."""
    named, join = _kernels(layers.named_layers(model)), np.concatenate
    return {p: join([np.ravel(np.float32(w)) for w in la.get_weights()]) for p, la in named.items()}


def _kernels(named):
    return {path: layer for path, layer in layers.leaves(named).items() if layers.has_kernel(layer)}


def _measure(call):
    """Of each layer (N, 4, C): lowest, highest, mean and mean square over the positions."""
    moments = {}
    for path, (*_, output) in call.recorded.items():
        if output.dtype.is_floating and (output.shape.rank or 0) > 1:
            if getattr(call.named[path], "activation", None) in (None, keras.activations.linear):
                output = layers.activated(output)
            output, axes = tf.cast(output, tf.float32), list(range(1, output.shape.rank - 1))
            pairs = (tf.reduce_min, 1), (tf.reduce_max, 1), (tf.reduce_mean, 1), (tf.reduce_mean, 2)
            moments[path] = tf.stack([reduce(output**power, axes) for reduce, power in pairs], 1)
    outputs = tf.nest.flatten(call.output)
    return (list(moments.values()), tf.cast(outputs[0], tf.float32)), (list(moments), len(outputs))


def _find_faults(model, images, labels, output):
    """Warn of images, and of labels, an only output and a loss that do not fit."""
    if (images == images[:, :1, :1]).all():
        layers.warn(Fault("all `images` are constant, each of one color"))
    elif len(images) > 1 and (images == images[:1]).all():
        layers.warn(Fault(f"all {len(images)} `images` are the same"))
    loss = keras.losses.get(tf.nest.flatten(model.loss)[0])
    name = getattr(loss, "__name__", type(loss).__name__)
    kind = name.lower().replace("_", "")
    if kind not in LOSSES or output is None or output.ndim != 2 or labels is None:
        return
    labels, sparse = np.asarray(labels), kind.startswith("sparse")
    most, one_hot = output.shape[1] - 1 if sparse else 1, labels.ndim == 2 and labels.shape[1] > 1
    if one_hot == sparse and not kind.startswith("binary"):
        wanted = "class indices" if sparse else "one-hot vectors"
        given = f"`labels` (of shape {labels.shape}) must be {wanted}"
        layers.warn(Fault(f"{given} for the loss {name}"))
    elif labels.min() < 0 or labels.max() > most:
        given = f"`labels` (in {labels.min()}..{labels.max()}) must be in 0..{most}"
        layers.warn(Fault(f"{given} for the loss {name} and {output.shape[1]} outputs"))
