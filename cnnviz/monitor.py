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
CLASSIFYING = "binarycrossentropy", "categoricalcrossentropy", "sparsecategoricalcrossentropy"


class Monitor(keras.callbacks.Callback, Result):
    """Watch a training; a callback for the `fit` of any model that `grad_cam` takes.

    Before the first step it checks the value range of the images against the model's own rescaling,
    looks for images that are constant or all alike, and compares labels, outputs and loss. A plain
    fault ends `fit` with a ValueError before anything is trained.

    After each epoch it records of each layer with a kernel: dead filters (behind the activation,
    one value at all positions of all images), the spread of the activations (standard deviation of
    a filter, root mean square over filters) and the relative change of the weights per epoch; and
    Grad-CAM maps of the images. Of more than 60 records it drops every second one and then records
    half as often. If the loss is not finite, it names the first broken layer, and stops watching.

    It calls the model in inference mode, so losses do not change. An error of its own becomes a
    warning, and it stops watching; the training goes on.

    Args:
        images: A few images in the form that `fit` gets; the first 8 get heat maps.
        labels: Their labels in the form that `fit` gets. The maps explain these classes, else the
            predicted ones.
        validation_data: A dataset or arrays to count filters on, the first 4 batches of at most 32
            images. They are read once; a dataset that shuffles has another order afterwards. None
            counts on `images`; on few images more filters are dead.
        every: Epochs from one record to the next.
        folder: Where to write the records, too: as `monitor.csv` and `maps.npz`.
        stop_on_fault: Whether a plain fault is an error; else it is a warning.
        class_names: The names of the classes, by index, for the figure.

    Attributes:
        records: A dict each: "epoch", how many were done; "layers", by path a tuple (filters, dead
            filters, spread, weight change); "maps", (n, h, w), and "class_index", (n,), or None.
        notes: What was found or left out, a sentence each; each was a warning, too.

    Raises:
        ValueError: From `fit`, if there is a plain fault.

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
        self._given = [data for data in (images, validation_data) if data is not None]
        self._labels, self._watched, self._quiet = labels, None, False

    def on_train_begin(self, logs=None):
        self._quiet = False
        for fault in self._guarded(self._begin) or ():
            if self.stop_on_fault:
                raise ValueError(f"{fault}; `stop_on_fault=False` trains nevertheless")
            self._guarded(layers.warn, fault)

    def on_epoch_end(self, epoch, logs=None):
        self._guarded(self._end, epoch + 1, (logs or {}).get("loss", 0.0))

    def _guarded(self, function, *arguments):
        """Call a function; its warnings become notes, and an error of its own becomes the last."""
        found = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                found = None if self._quiet else function(*arguments)
            except Exception as error:
                self._quiet = True
                layers.warn(f"the monitor stops watching: {error}")
        for text in dict.fromkeys(str(one.message) for one in caught):
            if text not in self.notes:
                self.notes.append(text)
                layers.warn(text)
        return found

    def _begin(self):
        """Read the images, once for a model; -> sentences of plain faults."""
        if self._watched is not self.model:
            self._watched, self.records, self._step, self._maps = self.model, [], self.every, True
            self._epoch = self._since = 0
            self._inputs, self._counted = [_first(self.model, one) for one in self._given * 2][:2]
        if not self.model.built:  # a subclassed model, which the first step would build
            self.model(layers.take(self._inputs, slice(1)), training=False)
        images, self._weights = layers.image_of(self.model, self._inputs), _weights(self.model)
        self.images = images[:MOST_IMAGES]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            (_, output), (_, is_single) = _look(self.model, self._inputs)
        faults = list(_faults(self.model, images, self._labels, output, is_single))
        for text in (str(one.message) for one in caught):
            faults.append(text) if any(map(text.count, PLAIN)) else layers.warn(text)
        return faults

    @np.errstate(all="ignore")  # of weights that are zero or not finite
    def _end(self, epoch, loss):
        """Record, if it is time: the numbers of each layer, and the heat maps."""
        self._epoch, self._since = max(epoch, self._epoch + 1), self._since + 1
        if not np.isfinite(loss):
            broken = layers.broken_layer(self.model)
            text = f"'{broken}' is the first layer whose weights hold NaN or infinity"
            text = text if broken else "all weights are finite: look at images, labels and loss"
            layers.warn(f"the loss is {loss} in epoch {self._epoch}, and {text}")
            self._quiet = True  # nothing that follows would say more
            return
        if self._epoch % self._step:
            return
        (found, _), (paths, _) = _look(self.model, self._counted)
        before, self._weights = self._weights, _weights(self.model)
        rows, epochs, self._since = {}, self._since, 0
        for path, moments in zip(paths, found, strict=True):
            low, high = moments[:, 0].min(0), moments[:, 1].max(0)
            mean, square = moments[:, 2:].mean(0)
            dead = high - low <= FLAT * np.maximum(np.abs(low), np.abs(high))
            spread = np.sqrt(np.maximum(square - mean**2, 0).mean())
            change = np.linalg.norm(self._weights[path] - before[path])
            change /= np.linalg.norm(before[path]) * epochs
            rows[path] = len(dead), int(dead.sum()), float(spread), float(change)
        maps, classes = self._heat_maps()
        self.records.append(
            {"epoch": self._epoch, "layers": rows, "maps": maps, "class_index": classes}
        )
        if len(self.records) > MOST_RECORDS:
            self._step *= 2
            self.records = [one for one in self.records if one["epoch"] % self._step == 0]
        if self.folder is not None:
            self._write(Path(self.folder))

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

    def _write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.to_frame().to_csv(folder / "monitor.csv", index=False)
        maps = {str(one["epoch"]): one["maps"] for one in self.records if one["maps"] is not None}
        np.savez(folder / "maps.npz", **maps)

    def __repr__(self):
        return f"Monitor({len(self.records)} records)"

    def __str__(self):
        lines = [] if self.records else ["No record yet: give it to `fit(callbacks=[...])`."]
        for record in self.records[:: max(1, len(self.records) - 1)]:  # the first and the last
            total, dead, *_ = np.sum([*record["layers"].values()], 0)
            dead = f"{dead:.0f} of {total:.0f} filters and units are dead"
            lines.append(f"Epoch {record['epoch']}: {dead}.")
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
    """Call the model: (moments by layer, first output), (paths, whether it is the only one)."""
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
    output, *others = tf.nest.flatten(call.output)
    return (list(moments.values()), tf.cast(output, tf.float32)), (list(moments), not others)


def _faults(model, images, labels, output, is_single):
    """Yield sentences about images, and about labels, outputs and a loss that do not fit."""
    flat, n_outputs = images.reshape(len(images), -1), output.shape[-1]
    if not np.ptp(flat, 1).any():
        yield "all `images` are constant, each of one value"
    elif len(flat) > 1 and (flat == flat[0]).all():
        yield f"all {len(flat)} `images` are the same"
    loss = keras.losses.get(tf.nest.flatten(model.loss)[0])
    loss_name = getattr(loss, "__name__", type(loss).__name__)
    kind = loss_name.lower().replace("_", "")
    is_own = not getattr(loss, "__module__", "").startswith("keras.")
    is_own |= getattr(loss, "ignore_class", None) is not None
    if not is_single or is_own or kind not in CLASSIFYING or output.ndim != 2:
        return
    if np.abs(output - 0.5).max() > 0.51 and not getattr(loss, "from_logits", False):
        yield (
            f"model '{model.name}' gives {output.min():.3g}..{output.max():.3g}, which the loss "
            "takes for probabilities: set its `from_logits=True`"
        )
    sparse, labels = kind.startswith("sparse"), np.asarray([] if labels is None else labels)
    most, one_hot = n_outputs - 1 if sparse else 1, labels.ndim == 2 and labels.shape[1] > 1
    if labels.size and one_hot == sparse and not kind.startswith("binary"):
        wanted = "class indices" if sparse else "one-hot vectors"
        yield f"`labels` (of shape {labels.shape}) must be {wanted} for the loss {loss_name}"
    elif labels.size and (labels.min() < 0 or labels.max() > most):
        given = f"`labels` (in {labels.min()}..{labels.max()})"
        yield f"{given} must be in 0..{most} for the loss {loss_name} and {n_outputs} outputs"
