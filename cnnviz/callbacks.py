"""What happens around each epoch of `train`: the clock, the best weights, files, live curves."""

import itertools
import json
import math
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np

from cnnviz import figures
from cnnviz.model_files import save_model


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest validation accuracy, also in a file.

    Epochs of different image sizes cannot be compared: those of the largest so far count. Of
    several with the same accuracy, as on easy data, it is the one with the lowest validation loss.

    Before the first epoch they are those that the model came with, or, in a training that goes on,
    those in the file.
    """

    def __init__(self, clock, checkpoint=None):
        super().__init__()
        self.clock, self.checkpoint = clock, checkpoint
        self.quality, self.weights, self.diverged_in = (-math.inf,) * 3, None, None

    def on_train_begin(self, logs=None):
        goes_on = self.checkpoint and resume_state(self.checkpoint)
        if goes_on and Path(self.checkpoint).exists():
            load_state(self.model, self.checkpoint, self.checkpoint)
            history = read_history(history_file(self.checkpoint))
            names = ("image_size", "val_accuracy", "val_loss")
            self.quality = max(map(_quality, *(history[name] for name in names)))
        elif self.checkpoint and not resume_folder(self.checkpoint).exists():
            keep_earlier(self.checkpoint)
        self.weights = self.model.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            self.diverged_in = epoch + 1
            self.model.stop_training = True
            return
        quality = _quality(self.clock.size, logs["val_accuracy"], logs["val_loss"])
        if quality > self.quality:
            self.quality, self.weights = quality, self.model.get_weights()
            if self.checkpoint:
                save_model(self.model, self.checkpoint)

    def restore(self, model):
        if self.weights is not None:
            model.set_weights(self.weights)


def _quality(image_size, accuracy, loss):
    return image_size or 0, accuracy, -loss


class EpochClock(keras.callbacks.Callback):
    """Knows the epoch, its image size and how long it took."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes, self.epoch, self.started, self.seconds = sizes, 0, None, None

    def set_model(self, model):
        """Knows no model: tf.data holds the clock for ever, and would hold the model with it."""

    @property
    def size(self):
        return self.sizes[self.epoch]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.started = epoch, time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = round(time.perf_counter() - self.started, 1)


class TimedHistory(keras.callbacks.History):
    """Keras's history, with the image size and the seconds of each epoch."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def on_epoch_end(self, epoch, logs=None):
        timed = {"image_size": self.clock.size or 0, "seconds": self.clock.seconds}
        super().on_epoch_end(epoch, {**logs, **timed})


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
    """Keeps the history in a CSV file, a row an epoch."""

    def __init__(self, checkpoint, history):
        super().__init__()
        self.path, self.past = history_file(checkpoint), history

    def on_epoch_end(self, epoch, logs=None):
        columns = self.past.history
        rows, unfinished = np.column_stack(list(columns.values())), f"{self.path}.new"
        # All digits: when they are read again, equal epochs must be told from others.
        digits = ["%d" if name == "image_size" else "%s" for name in columns]
        np.savetxt(unfinished, rows, digits, delimiter=",", header=",".join(columns), comments="")
        os.replace(unfinished, self.path)


class Resume(keras.callbacks.Callback):
    """Keeps the state after the last whole epoch, and goes on from it.

    Keras's own `BackupAndRestore` writes in place: killed while it does, it cannot be read again.
    """

    def __init__(self, checkpoint, history, settings):
        super().__init__()
        self.checkpoint, self.past, self.settings = checkpoint, history, settings

    def on_train_begin(self, logs=None):
        resume_folder(self.checkpoint).mkdir(parents=True, exist_ok=True)
        state = resume_state(self.checkpoint)
        if not state:
            _settings_file(self.checkpoint).write_text(json.dumps(self.settings))
        else:
            load_state(self.model, state, self.checkpoint)
            self.model._initial_epoch = epochs = finished_epochs(self.checkpoint)
            # The learning rate goes by the steps, of which there may be others in an epoch now.
            optimizer = self.model.optimizer
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            optimizer.iterations.assign(epochs * self.params["steps"])
            earlier = read_history(history_file(self.checkpoint)).items()
            self.past.history = {name: values[:epochs] for name, values in earlier}

    def on_epoch_end(self, epoch, logs=None):
        folder, before = resume_folder(self.checkpoint), resume_state(self.checkpoint)
        unfinished = folder / "unfinished.weights.h5"
        self.model.save_weights(unfinished, overwrite=True)
        os.replace(unfinished, folder / f"{epoch + 1:06d}.weights.h5")
        if before:
            before.unlink(missing_ok=True)

    def on_train_end(self, logs=None):
        shutil.rmtree(resume_folder(self.checkpoint))


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


def resume_state(checkpoint):
    """The file that holds the state after the last whole epoch, called by its number, or None."""
    return max(resume_folder(checkpoint).glob("[0-9]*.weights.h5"), default=None)


def finished_epochs(checkpoint):
    """How many epochs a training that goes on has behind it."""
    state = checkpoint and resume_state(checkpoint)
    return int(state.name.split(".")[0]) if state else 0


def check_unfinished(checkpoint, sizes, settings):
    """Raise a ValueError if an unfinished training cannot go on so.

    Args:
        checkpoint: Of `train`.
        sizes: Image size of each epoch, or None.
        settings: dict of the other arguments that make a training another one, numbers by name.
    """
    done = finished_epochs(checkpoint)
    if not done:
        return
    anew = f"To begin anew, choose another file or delete '{resume_folder(checkpoint)}'"
    earlier = [int(size) for size in read_history(history_file(checkpoint))["image_size"][:done]]
    now = [size or 0 for size in sizes]
    if now[:done] != earlier:
        raise ValueError(
            f"`checkpoint` (='{checkpoint}') holds an unfinished training, whose first {done} "
            f"epochs had the image sizes {earlier}; `epochs` and `image_sizes` (now {now}, 0 for "
            f"None) must begin so, too. {anew}"
        )
    file = _settings_file(checkpoint)
    began_with = json.loads(file.read_text()) if file.exists() else {}
    for name, value in settings.items():
        if began_with.get(name, value) != value:
            raise ValueError(
                f"`{name}` (={value}) must be {began_with[name]}, with which the unfinished "
                f"training in `checkpoint` (='{checkpoint}') began. {anew}"
            )


def _settings_file(checkpoint):
    return resume_folder(checkpoint) / "settings.json"


def keep_earlier(checkpoint):
    """Copy checkpoint and history of a training that ended: the next one's first epochs are worse.

    Each copy has a name of its own, so that no later one takes its place.
    """
    checkpoint = Path(checkpoint)
    names = (f".earlier{number or ''}.keras" for number in itertools.count())
    if checkpoint.exists():
        earlier = next(p for p in map(checkpoint.with_suffix, names) if not p.exists())
        shutil.copy2(checkpoint, earlier)
        if history_file(checkpoint).exists():
            shutil.copy2(history_file(checkpoint), history_file(earlier))


def load_state(model, file, checkpoint):
    """Load weights and optimizer from `file`; a model that it does not fit stays as it is."""
    before = model.get_weights()
    try:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(file)
    except Exception as error:  # Keras raises several kinds
        model.set_weights(before)
        raise ValueError(
            f"`checkpoint` (='{checkpoint}') holds the unfinished training of another model; "
            f"choose another file, or delete '{resume_folder(checkpoint)}' to begin anew"
        ) from error


def checkpoint_callbacks(checkpoint, history, settings):
    if checkpoint is None:
        return []
    if not str(checkpoint).endswith(".keras"):
        raise ValueError(f"`checkpoint` (='{checkpoint}') must end in '.keras'")
    # In this order: what `Resume` knows of, the file of the history has.
    return [HistoryFile(checkpoint, history), Resume(checkpoint, history, settings)]
