"""What happens around each epoch of `train`: the clock, the best weights, files, live curves."""

import math
import os
import sys
import time
from pathlib import Path

import keras
import numpy as np

from cnnviz import figures


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest validation accuracy, also in a file.

    Before the first epoch they are those that the model came with, or, in a training that goes on,
    those in the file.
    """

    def __init__(self, checkpoint=None):
        super().__init__()
        self.checkpoint = checkpoint
        self.accuracy, self.weights, self.diverged_in = -math.inf, None, None

    def on_train_begin(self, logs=None):
        goes_on = self.checkpoint and resume_folder(self.checkpoint).exists()
        if goes_on and Path(self.checkpoint).exists():
            self.model.optimizer.build(self.model.trainable_variables)
            self.model.load_weights(self.checkpoint)
            self.accuracy = max(read_history(history_file(self.checkpoint))["val_accuracy"])
        self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            self.diverged_in = epoch + 1
            self.model.stop_training = True
        elif logs["val_accuracy"] > self.accuracy:
            self.accuracy, self.weights = logs["val_accuracy"], self.model.get_weights()
            if self.checkpoint:
                unfinished = f"{self.checkpoint}.new.keras"  # whole or not at all, if killed here
                self.model.save(unfinished)
                os.replace(unfinished, self.checkpoint)

    def restore(self, model):
        if self.weights is not None:
            model.set_weights(self.weights)


class EpochClock(keras.callbacks.Callback):
    """Knows the epoch, for what varies with it, and writes size and seconds into the history."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes, self.epoch, self.started = sizes, 0, None

    @property
    def size(self):
        return self.sizes[self.epoch]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.started = epoch, time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["image_size"] = self.size or 0
        logs["seconds"] = round(time.perf_counter() - self.started, 1)


def in_notebook():
    """Whether this runs in a notebook's kernel, where a cell's output can be drawn again."""
    return "ipykernel" in sys.modules


class LiveCurves(keras.callbacks.Callback):
    """Learning curves above a notebook's progress bars, drawn again after each epoch."""

    def __init__(self, history):
        super().__init__()
        self.past, self.place = history, None

    def on_train_begin(self, logs=None):
        from IPython.display import HTML, display

        self.place = display(HTML(""), display_id=True)

    def on_epoch_end(self, epoch, logs=None):
        self.place.update(figures.draw_learning_curves(self.past.history))


class HistoryFile(keras.callbacks.Callback):
    """Keeps the history in a CSV file, a row an epoch; a training that goes on starts from it."""

    def __init__(self, path, history, *, goes_on):
        super().__init__()
        self.path, self.past, self.goes_on = path, history, goes_on

    def on_epoch_begin(self, epoch, logs=None):
        if self.goes_on and epoch:
            earlier = read_history(self.path).items()
            self.past.history = {name: values[:epoch] for name, values in earlier}
        self.goes_on = False

    def on_epoch_end(self, epoch, logs=None):
        columns = self.past.history
        rows = np.column_stack(list(columns.values()))
        np.savetxt(self.path, rows, "%.6g", delimiter=",", header=",".join(columns), comments="")


def read_history(path):
    """Read the history that `train` kept beside its checkpoint.

    Args:
        path: `<checkpoint>.csv`.

    Returns:
        dict of lists, one number an epoch, as `keras.callbacks.History.history`.
    """
    rows = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    return {name: rows[name].tolist() for name in rows.dtype.names}


def history_file(checkpoint):
    return Path(f"{checkpoint}.csv")


def resume_folder(checkpoint):
    return Path(f"{checkpoint}.resume")


def checkpoint_callbacks(checkpoint, history):
    if checkpoint is None:
        return []
    if not str(checkpoint).endswith(".keras"):
        raise ValueError(f"`checkpoint` (='{checkpoint}') must end in '.keras'")
    Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
    # Two backups: being killed while it writes one leaves the other.
    return [
        HistoryFile(history_file(checkpoint), history, goes_on=resume_folder(checkpoint).exists()),
        keras.callbacks.BackupAndRestore(str(resume_folder(checkpoint)), double_checkpoint=True),
    ]
