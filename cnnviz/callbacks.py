"""What `train` does around its epochs: keep the best weights, continue after a kill, draw curves.

Beside a checkpoint `best.keras`, the file `best.keras.csv` holds the history, and the folder
`best.keras.resume` the state of a training that has not ended.
"""

import math
import os
import time
from pathlib import Path

import keras
import pandas as pd

from cnnviz import figures
from cnnviz.model import save_model


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and adds image size and seconds to each epoch's log.

    The best epoch has the highest validation accuracy, and of equals the lowest loss. Accuracies at
    different image sizes cannot be compared: only the largest size counts. Keras's ModelCheckpoint
    compares one number, and writes in place: a kill would lose the file.

    Attributes:
        image_size: Of the epochs to come; set by the caller.
        epoch: Index of the best epoch so far, or None.
        diverged_in: Index of the epoch whose loss was not finite, or None.
    """

    def __init__(self, model, checkpoint, past):
        super().__init__()
        self.checkpoint, self.image_size = checkpoint, 0
        self.epoch, self.diverged_in, self.quality = None, None, (-math.inf,) * 3
        if past and Path(checkpoint).exists():
            try:
                model.optimizer.build(model.trainable_variables)  # it is in the file
                model.load_weights(checkpoint)
            except Exception as error:  # Keras raises several kinds
                raise ValueError(
                    f"`checkpoint` (='{checkpoint}') holds the unfinished training of another "
                    f"model; choose another file, or delete '{checkpoint}.resume'"
                ) from error
            qualities = [_quality(epoch) for epoch in pd.DataFrame(past).to_dict("records")]
            self.quality = max(qualities)
            self.epoch = qualities.index(self.quality)
        self.weights = model.get_weights()

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        seconds = round(time.perf_counter() - self.started, 1)
        logs |= {"image_size": self.image_size, "seconds": seconds}
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            self.diverged_in, self.model.stop_training = epoch, True
        elif _quality(logs) > self.quality:
            self.epoch, self.quality = epoch, _quality(logs)
            self.weights = self.model.get_weights()
            if self.checkpoint:
                save_model(self.model, self.checkpoint)


def _quality(epoch):
    return epoch["image_size"], epoch["val_accuracy"], -epoch["val_loss"]


class LiveCurves(keras.callbacks.Callback):
    """Learning curves above a notebook's progress bars, drawn again after each epoch."""

    def __init__(self, history):
        super().__init__()
        self.past, self.output = history, None

    def on_train_begin(self, logs=None):
        from IPython.display import HTML, display

        self.output = self.output or display(HTML(""), display_id=True)

    def on_epoch_end(self, epoch, logs=None):
        self.output.update(figures.draw_learning_curves(self.past.history))


def begin_or_continue(checkpoint):
    """The history of an unfinished training; an empty dict if there is none.

    The files of a training that ended are renamed to `<name>.earlier.keras`, since the first epochs
    of the next one are worse.
    """
    rows, folder = Path(f"{checkpoint}.csv"), Path(f"{checkpoint}.resume")
    if folder.exists():
        return read_history(checkpoint) if rows.exists() and rows.stat().st_size else {}
    earlier = Path(checkpoint).with_suffix(".earlier.keras")
    for file, kept in ((Path(checkpoint), earlier), (rows, f"{earlier}.csv")):
        if file.exists():
            os.replace(file, kept)
    folder.mkdir(parents=True)
    return {}


def read_history(checkpoint):
    """Read the history that `train` keeps beside its checkpoint.

    Returns:
        dict of lists, one number for each epoch, as `keras.callbacks.History.history`.
    """
    rows = pd.read_csv(f"{checkpoint}.csv")
    # An epoch that was killed while its state was written was run again.
    return rows.drop_duplicates("epoch", keep="last").drop(columns="epoch").to_dict("list")
