"""Trains a classifier that returns one logit, by `model.fit` and the recipe of `recipe.py`."""

import itertools
import numbers
import os
import shutil
import warnings
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.augmentation import augmented
from cnnviz.callbacks import BestEpoch, LiveCurves, begin_or_continue, read_history
from cnnviz.checks import check_integer
from cnnviz.keras_internals import reset_initial_epoch
from cnnviz.model import processor_has
from cnnviz.optimizer import ConvolutionMuon, one_cycle
from cnnviz.progress import in_notebook
from cnnviz.recipe import LABEL_SMOOTHING, LEARNING_RATE, WEIGHT_DECAY

LEAST_STEPS = 1000  # fewer do not win back the seconds that compiling takes


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

    Muon trains the convolutions and AdamW the rest, while the learning rate rises and falls once
    (one cycle, Smith & Topin 2018, https://arxiv.org/abs/1708.07120). Images can grow with the
    epochs (progressive resizing). The best weights have the highest validation accuracy at the
    largest image size; of equals, the lowest loss. Ctrl-C ends the training early and keeps them
    too. In a notebook, learning curves are drawn after each epoch. To use several GPUs, build the
    model within the `scope()` of a `tf.distribute.MirroredStrategy`.

    Args:
        model: keras.Model from images (N, H, W, 3) in 0..255 to logits (N, 1). It is compiled here.
        train_data: tf.data.Dataset of (images (B, H, W, 3) in 0..255, labels (B,) or (B, 1) in
            0..1: 1 where the logit should be positive).
        validation_data: The same, not augmented.
        epochs: Passes over `train_data`, 1 or more.
        image_sizes: Side length in pixels for each epoch, to which training and validation images
            are resized; None leaves their size.
        learning_rate: The peak.
        augment: Strength of the augmentation (crops, mirroring, lighting, cut-out) of the training
            images, in multiples of the recipe's (True is 1), 0..2. A short training learns more
            with 0.4.
        cut_mix: Fraction of the training images, 0..1, that get a piece of another image and a
            mixed label (CutMix). It helps long trainings. The class with the larger part of the
            image then counts as correct.
        checkpoint: A `.keras` file that holds the best weights so far. Beside it,
            `<checkpoint>.csv` holds the history and the folder `<checkpoint>.resume` the latest
            state. A training that was killed or interrupted continues after its last full epoch
            when `train` is called again with the same arguments. A training that ended deletes the
            folder; the next one renames its files to `<name>.earlier.keras`. None writes nothing.
        seed: Seed of the augmentation.
        verbose: As in `keras.Model.fit`; 0 draws no curves either.

    Returns:
        keras.callbacks.History: `.history` maps "loss", "accuracy", "val_loss", "val_accuracy",
        "image_size" (0 if unchanged) and "seconds" to one number for each epoch, those before a
        kill included. The loss is the cross-entropy in nats with smoothed labels: 0.12 for a
        perfect model, more with `cut_mix`. `.best_epoch` is the index of the best epoch, or None.

    Raises:
        ValueError: If `model` does not return one logit, a dataset or its first batch is not as
            described, an argument is out of range, or `checkpoint` does not end in `.keras` or
            holds the unfinished training of another model.

    Warns:
        UserWarning: If the loss is no longer finite. The training ends and keeps the best weights.

    Example:
        >>> model = cnnviz.build_model(width=4)
        >>> history = cnnviz.train(model, train, validation, epochs=1, verbose=0)
        >>> sorted(history.history)[:2]
        ['accuracy', 'image_size']
    """
    for name, data in (("train_data", train_data), ("validation_data", validation_data)):
        _check_data(name, data, is_augmented=augment and name == "train_data")
    _check_head(model, train_data.element_spec[0].shape)
    _check_arguments(epochs, image_sizes, augment, cut_mix, checkpoint, seed)
    steps = epochs * int(train_data.cardinality())
    with model.distribute_strategy.scope():
        model.compile(
            optimizer=_optimizer(model, one_cycle(learning_rate, steps)),
            loss=keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
            metrics=[keras.metrics.MeanMetricWrapper(_is_correct, name="accuracy")],
            jit_compile=_is_faster_compiled(model, steps),
        )
    history = keras.callbacks.History()
    history.history = begin_or_continue(checkpoint) if checkpoint else {}
    best = BestEpoch(model, checkpoint, history.history)
    callbacks = [best, history, keras.callbacks.TerminateOnNaN()]
    if verbose and in_notebook():
        callbacks.append(LiveCurves(history))
    rows, folder = f"{checkpoint}.csv", f"{checkpoint}.resume"
    sizes = [None] * epochs if image_sizes is None else list(image_sizes)
    try:
        for size, (first, *more) in itertools.groupby(range(epochs), sizes.__getitem__):
            best.image_size = size or 0
            files = []
            if checkpoint:  # rows first: so they hold each epoch that the backup holds
                files.append(keras.callbacks.CSVLogger(rows, append=True))
                keep = {"double_checkpoint": True, "delete_checkpoint": False}
                files.append(keras.callbacks.BackupAndRestore(folder, **keep))
            how = {"strength": float(augment), "cut_mix": cut_mix, "seed": seed + first}
            model.fit(
                augmented(train_data, image_size=size, **how),
                validation_data=augmented(validation_data, image_size=size),
                initial_epoch=first,
                epochs=first + len(more) + 1,
                callbacks=callbacks + files,
                shuffle=False,  # the data set shuffles itself
                verbose=verbose,
            )
            if best.diverged_in is not None:
                break
        if checkpoint:
            shutil.rmtree(folder)
    except KeyboardInterrupt:
        print("\nInterrupted; the best weights so far are kept.", end=" ")
        print("Call `train` again to continue." if checkpoint else "")
    finally:
        reset_initial_epoch(model)
    model.set_weights(best.weights)
    if checkpoint and history.history:
        history.history = read_history(checkpoint)
    history.epoch = list(range(len(history.history.get("loss", ()))))
    history.best_epoch = best.epoch
    if best.diverged_in is not None:
        warnings.warn(
            f"The loss was not finite in epoch {best.diverged_in + 1}. The training stopped and "
            f"kept the best weights before. Lower the `learning_rate` (={learning_rate}), or look "
            "for NaN in the images with cnnviz.check_inputs.",
            stacklevel=2,
        )
    return history


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


def _is_faster_compiled(model, steps):
    """Whether XLA saves time in so many steps; Keras's "auto" never compiles for processors.

    With AVX2 it is 1.4 times faster at 64 pixels, with AVX-512 1.2 to 1.4 times slower.
    """
    can = all(getattr(la, "supports_jit", True) for la in layers.named_layers(model).values())
    gains = tf.config.list_physical_devices("GPU") or not processor_has("avx512f")
    return bool(can and gains and steps >= LEAST_STEPS and not tf.distribute.has_strategy())


def _check_data(name, data, is_augmented):
    """Raise a ValueError unless the data set, by its first batch, can be trained on."""
    spec = getattr(data, "element_spec", None)
    is_pair = isinstance(spec, tuple) and len(spec) == 2 and spec[0].shape.rank in (4, None)
    n_batches = int(data.cardinality()) if isinstance(data, tf.data.Dataset) else 0
    if not is_pair or n_batches < 1:
        length = {-1: "infinite", -2: "of unknown length"}.get(n_batches, f"{n_batches} batches")
        raise ValueError(
            f"`{name}` (={data!r}, {length}) must be a finite tf.data.Dataset of batches: images "
            "(B, H, W, 3) and labels (B,). tf.data.experimental.assert_cardinality sets its length"
        )
    images, labels = (np.asarray(array) for array in next(iter(data.take(1))))
    is_column = labels.ndim == 1 or labels.shape[1:] == (1,)
    if not is_column or labels.dtype.kind not in "iufb" or np.any((labels < 0) | (labels > 1)):
        found = np.unique(labels)[:5].tolist()
        raise ValueError(
            f"`{name}` (with labels of shape {labels.shape}, {found}) must have labels (B,) in "
            "0..1, 1 where the logit should be positive"
        )
    low, high = images.min(), images.max()  # sharp resizing overshoots 0..255 a little
    in_range = low == high == 0 or (low >= -64 and 1 < high < 320)
    if is_augmented and not (in_range and images.shape[3] == 3):
        raise ValueError(
            f"`{name}` (with images {images.shape[1:]} in {low:.3g}..{high:.3g}) must have RGB "
            "images in 0..255 to be augmented; let the model rescale them, or set `augment=False`"
        )


def _check_head(model, images):
    """Raise a ValueError unless the model returns one logit; `images` is the shape of batches."""
    shape, activation = layers.head(model, images)
    if shape != (None, 1) or activation is not None:
        raise ValueError(
            f"`model` (='{model.name}', of output shape {shape}, ending in {activation}) must "
            "return one logit: end it in Dense(1) without an activation"
        )


def _check_arguments(epochs, image_sizes, augment, cut_mix, checkpoint, seed):
    check_integer("epochs", epochs, 1)
    check_integer("seed", seed, 0)
    if image_sizes is not None and np.shape(image_sizes) != (epochs,):
        raise ValueError(
            f"`image_sizes` (={image_sizes!r}) must have one size for each of the {epochs} `epochs`"
        )
    for size in () if image_sizes is None else image_sizes:
        check_integer("image_sizes", size, 1)
    for name, value, most in (("augment", augment, 2), ("cut_mix", cut_mix, 1)):
        if not (isinstance(value, numbers.Real) and 0 <= value <= most):
            raise ValueError(f"`{name}` (={value!r}) must be a number in 0..{most}")
    if checkpoint is not None and not str(checkpoint).endswith(".keras"):
        raise ValueError(f"`checkpoint` (='{checkpoint}') must end in '.keras'")
