"""Watch a training while it runs: check it before its first step, and record its progress."""

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
from cnnviz.diagnosis.measures import is_flat
from cnnviz.grad_cam import grad_cam
from cnnviz.results import Result

MOST_IMAGES, MOST_BATCHES = 8, 4  # that get heat maps; of 32 or less, that filters are counted on
MOST_RECORDS = 60  # that are kept; then every second one goes
FAULTS = "look too small", "are all the same", "are constant", "for the loss"  # in a warning
LOSSES = "sparsecategoricalcrossentropy", "categoricalcrossentropy", "binarycrossentropy"


class Monitor(keras.callbacks.Callback, Result):
    """Watch a training: a callback for the `fit` of any model.

    Before the first step it checks the value range of the images against the model's own rescaling,
    looks for images that are constant or all alike, and compares labels, output and loss. A plain
    fault ends `fit` with a ValueError.

    After each epoch it records, for each layer with a kernel, dead filters (one value
    everywhere after the activation), the spread of the activations (standard deviation of
    a filter, root mean square over filters) and the relative change of the weights per epoch; and
    Grad-CAM maps. Beyond 60 records it drops every second one and records half as often.

    It does not change the losses. If the monitor itself fails, it warns and stops watching.

    Args:
        images: A few images in the form that `fit` gets; the first 8 get heat maps.
        labels: Their labels. The maps explain these classes; without labels, the predicted ones.
        validation_data: A dataset or arrays; filters are counted on its first 4 batches of at most
            32 images, which are read once. None counts on `images`.
        every: Epochs from one record to the next.
        folder: Where to write the records: `monitor.csv` and `maps.npz`. None writes no files.
        stop_on_fault: Whether a plain fault is an error; else it is a warning.
        class_names: The names of the classes, by index, for the figure.

    Attributes:
        records: A dict each: "epoch"; "layers", by path a tuple (filters, dead filters, spread,
            weight change); "maps", (n, h, w), and "class_index", (n,), or None.
        notes: What was found or left out, a sentence each; each was a warning, too.

    Example:
        >>> pets, model = cnnviz.drawn_pets(16, image_size=32), cnnviz.build_model(width=1)
        >>> model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
        >>> monitor = cnnviz.Monitor(pets.images[:4], pets.labels[:4])
        >>> history = model.fit(pets.images, pets.labels, callbacks=[monitor], verbose=0)
    """

    _draw, _html = "draw_monitor", ("plot",)

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
        if labels is not None:
            labels = layers.class_indices(labels, len(labels), required=False)
        self._classes = None if labels is None else labels[:MOST_IMAGES]

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
        for text in dict.fromkeys(str(one.message) for one in caught):
            if stop and any(map(text.count, FAULTS)):
                raise ValueError(f"{text}; `stop_on_fault=False` trains anyway")
            if text not in self.notes:
                self.notes.append(text)
                layers.warn(text)

    def _begin(self):
        """Read the images, once for a model, and look for plain faults."""
        if self._watched is not self.model:
            self._inputs, self._counted = (_first(self.model, one) for one in self._given)
            if not self.model.built:  # a subclassed model, which the first step would build
                self.model(layers.take(self._inputs, slice(1)), training=False)
            self._watched, self._weights, self.records = self.model, _weights(self.model), []
            self._epoch, self._step, self._maps = 0, self.every, True
        images = layers.image_of(self.model, self._inputs)
        (_, output), (_, n_outputs) = _look(self.model, self._inputs)
        self.images = images[:MOST_IMAGES]
        _find_faults(self.model, images, self._labels, output if n_outputs == 1 else None)

    @np.errstate(all="ignore")  # of weights that are zero or not finite
    def _end(self, epoch):
        """Record, if it is time: the numbers of each layer, and the heat maps."""
        self._epoch = max(epoch, self._epoch + 1)
        if self._epoch % self._step:
            return
        (found, _), (paths, _) = _look(self.model, self._counted)
        before, self._weights, rows = self._weights, _weights(self.model), {}
        for path, moments in zip(paths, found, strict=True):
            low, high = moments[:, 0].min(0), moments[:, 1].max(0)
            mean, square = moments[:, 2:].mean(0)
            dead = is_flat(low, high)
            spread = np.sqrt(np.maximum(square - mean**2, 0).mean())
            change = np.linalg.norm(self._weights[path] - before[path]) / self._step
            change /= np.linalg.norm(before[path])
            rows[path] = len(dead), int(dead.sum()), float(spread), float(change)
        record = {"epoch": self._epoch, "layers": rows, "maps": None, "class_index": None}
        try:
            first = layers.take(self._inputs, slice(MOST_IMAGES))
            found = self._maps and grad_cam(self.model, first, class_index=self._classes)
            record |= {"maps": found.maps, "class_index": found.class_index} if found else {}
        except ValueError as error:
            self._maps = False
            layers.warn(f"no heat maps from epoch {self._epoch} on: {error}")
        self.records.append(record)
        if len(self.records) > MOST_RECORDS:
            self._step *= 2
            self.records = [one for one in self.records if one["epoch"] % self._step == 0]
        if self.folder is not None:
            folder = Path(self.folder)
            folder.mkdir(parents=True, exist_ok=True)
            self.to_frame().to_csv(folder / "monitor.csv", index=False)
            kept = {str(r["epoch"]): r["maps"] for r in self.records if r["maps"] is not None}
            np.savez(folder / "maps.npz", **kept)

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


def _look(model, inputs):
    """Call the model: (moments by layer, first output), (paths, number of outputs)."""
    return layers.run(model, inputs, _measure, key="monitor", record=_kernels, finite=False)


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
    flat = images.reshape(len(images), -1)
    if not np.ptp(flat, 1).any():
        layers.warn("all `images` are constant, each of one value")
    elif len(flat) > 1 and (flat == flat[0]).all():
        layers.warn(f"{len(flat)} `images` are all the same")
    loss = keras.losses.get(tf.nest.flatten(model.loss)[0])
    name = getattr(loss, "__name__", type(loss).__name__)
    kind, ignores = name.lower().replace("_", ""), getattr(loss, "ignore_class", None) is not None
    if labels is None or kind not in LOSSES or np.ndim(output) != 2 or ignores:
        return
    labels, most = np.asarray(labels), output.shape[1] - 1 if kind == LOSSES[0] else 1
    fits = (labels.ndim == 2 and labels.shape[1] > 1) == (kind == LOSSES[1]) or kind == LOSSES[2]
    if not fits or labels.min() < 0 or labels.max() > most:
        given = f"`labels` (of shape {labels.shape}, in {labels.min()}..{labels.max()})"
        wanted = "one-hot vectors" if kind == LOSSES[1] else f"numbers in 0..{most}"
        layers.warn(f"{given} must be {wanted} for the loss {name} and this output")
