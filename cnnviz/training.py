"""Trains a classifier that returns one logit, by `model.fit` and the recipe of `recipe.py`."""

import itertools
import math
import numbers
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cnnviz import layers
from cnnviz.augmentation import augmented
from cnnviz.checks import check_integer
from cnnviz.keras_internals import reset_initial_epoch
from cnnviz.model import save_model
from cnnviz.optimizer import ConvolutionMuon, one_cycle
from cnnviz.recipe import LABEL_SMOOTHING, LEARNING_RATE, WEIGHT_DECAY


def train(
    model: keras.Model,
    train_data: tf.data.Dataset,
    validation_data: tf.data.Dataset,
    *,
    epochs: int,
    image_sizes: Sequence[int] | None = None,
    learning_rate: float = LEARNING_RATE,
    augment: float = True,
    cut_mix: float = 0.0,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    verbose: Literal["auto", 0, 1, 2] = "auto",
) -> keras.callbacks.History:
    """Train a classifier that returns one logit, and leave it with its best weights.

    Muon trains the convolutions and AdamW the rest; the learning rate rises and falls once (one
    cycle, Smith & Topin 2018, https://arxiv.org/abs/1708.07120). The best weights have the highest
    validation accuracy at the largest image size; of equals, the lowest loss. Ctrl-C keeps them
    too. For several GPUs, build the model in the `scope()` of a `tf.distribute.MirroredStrategy`.

    Args:
        model: From images (N, H, W, 3) in 0..255 to logits (N, 1). It is compiled here.
        train_data: tf.data.Dataset of (images (B, H, W, 3) in 0..255, labels (B,) or (B, 1) in
            0..1, where 1 stands for a positive logit).
        validation_data: The same, not augmented.
        epochs: Passes over `train_data`, 1 or more.
        image_sizes: Side length in pixels to which images are resized, for each epoch, or None.
        learning_rate: The peak.
        augment: Strength of the augmentation (crops, mirroring, lighting, cut-out), in multiples of
            the recipe's, 0..2. A short training learns more with 0.4.
        cut_mix: Fraction of the training images, 0..1, with a piece of another image and a mixed
            label (CutMix); for long trainings. Accuracy takes the label of the larger part.
        checkpoint: A `.keras` file for the best weights so far; `<checkpoint>.csv` beside it holds
            the history. The same call again continues a training that was killed or interrupted,
            after its last full epoch; after one that ended, it renames files to `*.earlier.keras`.
        seed: Seed of the augmentation.
        verbose: As in `keras.Model.fit`.

    Returns:
        keras.callbacks.History: `.history` maps "loss", "accuracy", "val_loss", "val_accuracy",
        "image_size" (0 if unchanged) and "seconds" to one number an epoch, also from before a kill.
        The loss is the cross-entropy in nats with smoothed labels: 0.12 for a perfect model, more
        with `cut_mix`. `.best_epoch` is the index of the best epoch, or None.

    Raises:
        ValueError: If an argument is not as described, or `checkpoint` holds the unfinished
            training of another model. A loss that is not finite ends the training with a warning.

    Example:
        >>> pets = cnnviz.drawn_pets(8, image_size=32)
        >>> data = tf.data.Dataset.from_tensors((pets.images, pets.labels))
        >>> model = cnnviz.build_model(width=1)
        >>> history = cnnviz.train(model, data, data, epochs=1, verbose=0)
    """
    images = _check_data("train_data", train_data, is_augmented=augment)
    _check_data("validation_data", validation_data, is_augmented=False)
    check_integer("epochs", epochs, 1)
    sizes = [0] * epochs if image_sizes is None else np.ravel(image_sizes).tolist()
    _check_arguments(epochs, sizes, augment, cut_mix, checkpoint)
    check_integer("seed", seed, 0)
    _check_model(model, images)
    steps = epochs * int(train_data.cardinality())
    with model.distribute_strategy.scope():
        model.compile(
            _optimizer(model, one_cycle(learning_rate, steps)),
            keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
            metrics=[keras.metrics.MeanMetricWrapper(_is_correct, name="accuracy")],
        )
    history, folder = keras.callbacks.History(), f"{checkpoint}.resume"
    history.history = _begin_or_continue(checkpoint) if checkpoint else {}
    best = BestEpoch(model, checkpoint, history.history)
    callbacks = [best, history, keras.callbacks.TerminateOnNaN()]
    if checkpoint:  # rows first: so they hold each epoch that the backup holds
        callbacks.append(keras.callbacks.CSVLogger(f"{checkpoint}.csv", append=True))
        keep = {"double_checkpoint": True, "delete_checkpoint": False}
        callbacks.append(keras.callbacks.BackupAndRestore(folder, **keep))
    options = {"callbacks": callbacks, "verbose": verbose, "shuffle": False}  # the data shuffles
    try:
        for size, of_size in itertools.groupby(range(epochs), sizes.__getitem__):
            best.image_size, stage = size, list(of_size)
            how = {"strength": float(augment), "cut_mix": cut_mix, "seed": seed + stage[0]}
            data = augmented(train_data, image_size=size, **how)
            options["validation_data"] = augmented(validation_data, image_size=size)
            model.fit(data, initial_epoch=stage[0], epochs=stage[-1] + 1, **options)
            if best.diverged_in is not None:
                break
        if checkpoint:
            shutil.rmtree(folder)
    except KeyboardInterrupt:
        again = " Call `train` again to continue." if checkpoint else ""
        print(f"\nInterrupted; the best weights so far are kept.{again}")
    finally:
        reset_initial_epoch(model)
    model.set_weights(best.weights)
    if checkpoint and history.history:
        history.history = read_history(checkpoint)
    history.epoch = list(range(len(history.history.get("loss", ()))))
    history.best_epoch = best.epoch
    if best.diverged_in is not None:
        warnings.warn(
            f"The loss was not finite in epoch {best.diverged_in + 1}; the best weights are kept. "
            f"Lower the `learning_rate` (={learning_rate}), or see cnnviz.check_inputs.",
            stacklevel=2,
        )
    return history


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, as a file that no kill can harm; completes the logs."""

    def __init__(self, model, checkpoint, past):
        super().__init__()
        self.checkpoint, self.image_size = checkpoint, 0  # `train` sets it for the epochs to come
        self.epoch, self.diverged_in, self.quality = None, None, (-math.inf,) * 3
        if past and Path(checkpoint).exists():
            try:
                model.optimizer.build(model.trainable_variables)  # it is in the file
                model.load_weights(checkpoint)
            except Exception as error:  # Keras raises several kinds
                what = f"holds the training of another model; delete '{checkpoint}.resume' to begin"
                raise ValueError(f"`checkpoint` (='{checkpoint}') {what}") from error
            losses = -np.array(past["val_loss"])
            qualities = list(zip(past["image_size"], past["val_accuracy"], losses, strict=True))
            self.quality = max(qualities)
            self.epoch = qualities.index(self.quality)
        self.weights, self.started = model.get_weights(), time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        logs |= {"image_size": self.image_size, "seconds": time.perf_counter() - self.started}
        self.started = time.perf_counter()
        quality = self.image_size, logs["val_accuracy"], -logs["val_loss"]
        if not math.isfinite(logs["loss"] + logs["val_loss"]):
            self.diverged_in, self.model.stop_training = epoch, True
        elif quality > self.quality:
            self.epoch, self.quality, self.weights = epoch, quality, self.model.get_weights()
            if self.checkpoint:
                save_model(self.model, self.checkpoint)


def _begin_or_continue(checkpoint):
    """The history of an unfinished training; else {}, and files that are there get other names."""
    rows, folder = Path(f"{checkpoint}.csv"), Path(f"{checkpoint}.resume")
    if folder.exists():
        return read_history(checkpoint) if rows.exists() and rows.stat().st_size else {}
    earlier = Path(checkpoint).with_suffix(".earlier.keras")
    for file, kept in ((Path(checkpoint), earlier), (rows, f"{earlier}.csv")):
        if file.exists():
            file.replace(kept)
    folder.mkdir(parents=True)
    return {}


def read_history(checkpoint):
    """The history that `train` keeps beside its checkpoint, as `History.history`."""
    rows = pd.read_csv(f"{checkpoint}.csv")
    # An epoch that was killed while its state was written was run again.
    return rows.drop_duplicates("epoch", keep="last").drop(columns="epoch").to_dict("list")


@keras.saving.register_keras_serializable("cnnviz")
def _is_correct(labels, logits):
    """Whether a logit is on the side of its label, which may be a mixture of both classes."""
    labels = keras.ops.reshape(labels, keras.ops.shape(logits))
    return keras.ops.equal(keras.ops.greater(labels, 0.5), keras.ops.greater(logits, 0))


def _optimizer(model, learning_rate):
    optimizer = ConvolutionMuon(learning_rate, weight_decay=WEIGHT_DECAY)
    # A filter whose scale decays to zero never fires again, and no gradient brings it back.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    # Gradients in float16 vanish unless the loss is scaled. Keras looks at the model's policy only.
    float16 = any(layer.compute_dtype == "float16" for layer in model.layers)
    return keras.optimizers.LossScaleOptimizer(optimizer) if float16 else optimizer


def _check_data(name, data, is_augmented):
    """The images of the first batch; a ValueError unless they can be trained on."""
    spec = getattr(data, "element_spec", None)
    is_pair = isinstance(spec, tuple) and len(spec) == 2 and spec[0].shape.rank in (4, None)
    n_batches = int(data.cardinality()) if isinstance(data, tf.data.Dataset) else 0
    if not is_pair or n_batches < 1:
        must = "must be a tf.data.Dataset of finite cardinality: images (B, H, W, 3), labels (B,)"
        raise ValueError(f"`{name}` (={data!r}, cardinality {n_batches}) {must}")
    images, labels = map(np.asarray, next(iter(data.take(1))))
    is_column = labels.ndim == 1 or labels.shape[1:] == (1,)
    if not is_column or labels.dtype.kind not in "iufb" or np.any((labels < 0) | (labels > 1)):
        found = f"with labels of shape {labels.shape}, {np.unique(labels)[:5].tolist()}"
        raise ValueError(f"`{name}` ({found}) must hold labels (B,) in 0..1, 1 for positive logits")
    low, high = images.min(), images.max()  # sharp resizing overshoots 0..255 a little
    in_range = low == high == 0 or (low >= -64 and 1 < high < 320)
    if is_augmented and not (in_range and images.shape[3] == 3):
        found = f"with images {images.shape[1:]} in {low:.3g}..{high:.3g}"
        must = "must have RGB images in 0..255; let the model rescale them, or set `augment=False`"
        raise ValueError(f"`{name}` ({found}) {must}")
    return images


def _check_model(model, images):
    """The model must return one logit for each image."""
    blank = np.zeros_like(images[:1])
    probability, output = layers.class_probabilities(model, blank)[0, -1], np.float32(model(blank))
    if output.shape != (1, 1) or abs(probability - tf.sigmoid(output)[0, 0]) > 1e-3:
        must = "must return one logit (N, 1): end it in Dense(1) without an activation"
        raise ValueError(f"`model` (with output {(None, *output.shape[1:])}) {must}")


def _check_arguments(epochs, sizes, augment, cut_mix, checkpoint):
    for size in sizes if any(sizes) else ():
        check_integer("image_sizes", size, 1)
    if len(sizes) != epochs:
        must = f"must have one size for each of the {epochs} `epochs`"
        raise ValueError(f"`image_sizes` (={sizes}) {must}")
    for name, value, most in (("augment", augment, 2), ("cut_mix", cut_mix, 1)):
        if not (isinstance(value, numbers.Real) and 0 <= value <= most):
            raise ValueError(f"`{name}` (={value!r}) must be a number in 0..{most}")
    if checkpoint is not None and not str(checkpoint).endswith(".keras"):
        raise ValueError(f"`checkpoint` (='{checkpoint}') must end in '.keras'")
