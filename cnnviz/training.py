"""(model, training batches, validation batches) -> the trained model and its history."""

import numbers
import os
import warnings
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers, memory
from cnnviz.augmentation import vary
from cnnviz.callbacks import (
    BestWeights,
    EpochClock,
    LiveCurves,
    TimedHistory,
    check_unfinished,
    checkpoint_callbacks,
    finished_epochs,
)
from cnnviz.checks import check_integer
from cnnviz.data import untuned
from cnnviz.model import processor_has
from cnnviz.optimizer import ConvolutionMuon, one_cycle
from cnnviz.progress import in_notebook
from cnnviz.recipe import LABEL_SMOOTHING, LEARNING_RATE, ORTHOGONALIZING_STEPS, WEIGHT_DECAY

STEPS_WORTH_COMPILING = 1000  # fewer do not win back the seconds that compiling takes


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

    Muon for the convolutions (Jordan et al. 2024) and AdamW for the rest (Loshchilov & Hutter
    2019), with a learning rate that rises and then falls to zero once (one cycle, Smith & Topin
    2018), on pictures that grow with the epochs if asked (progressive resizing, Howard 2018). The
    best weights are those with the highest validation accuracy at the largest image size, and of
    equals the lowest loss.
    Ctrl-C ends the training early and keeps them too. In a notebook the learning curves draw
    themselves.

    Several GPUs: build the model within the `scope()` of a `tf.distribute.MirroredStrategy`, then
    call this as ever; each batch is shared out among them.

    Args:
        model: keras.Model, images (N, H, W, 3) in 0..255 to logits (N, 1). It is compiled here.
        train_data: tf.data.Dataset of (images (B, H, W, 3) float32 in 0..255, labels (B,) or (B, 1)
            in 0..1: 1 where the logit should be positive).
        validation_data: The same, not augmented.
        epochs: Passes over `train_data`, 1 or more.
        image_sizes: Side length in pixels for each epoch, to which training and validation pictures
            are resized; None keeps them as they come.
        learning_rate: The peak.
        augment: Whether to vary the training pictures, by crops, mirroring, lighting and cut-out; a
            number says how far to go, in multiples of the recipe's (True: 1), 0..2. A short
            training learns more with 0.4.
        cut_mix: Share of the training pictures, 0..1, into which a piece of another is pasted,
            whose label is mixed in (CutMix, Yun et al. 2019); it needs `augment`. It pays in long
            trainings. "accuracy" is then the share of them that get the class of the larger part.
        checkpoint: A `.keras` file that is kept at the best weights so far. Beside it,
            `<checkpoint>.csv` holds the history, and the folder `<checkpoint>.resume` what is
            needed to go on: a training that was killed or interrupted continues after its last
            whole epoch when it is called again. A training that ended deletes the folder; the next
            one starts anew, and keeps its checkpoint as `<name>.earlier.keras`, and the history
            beside it. None writes nothing.
        seed: Seed of the augmentation.
        verbose: As in `keras.Model.fit`; 0 draws no curves either.

    Returns:
        keras.callbacks.History: `.history` maps "loss", "accuracy", "val_loss", "val_accuracy",
        "image_size" (0: as they come) and "seconds" to one number an epoch; the loss is the
        cross-entropy in nats with the labels smoothed (0.12 for a perfect model, more of mixed
        pictures). A training that went on has its earlier epochs too.

    Raises:
        ValueError: If `model` does not return one logit, `epochs` is below 1, `image_sizes` has
            not one size for each epoch, `augment` or `cut_mix` is out of range, a dataset is empty
            or of unknown length, or `checkpoint` does not end in `.keras`, is that of another
            model, or of a training that began with other `image_sizes`, `learning_rate`, `augment`,
            `cut_mix` or `seed`; or if the labels of the first batch are not as said here.

    Warns:
        UserWarning: If the loss stops being a finite number, which ends the training. The best
            weights before that are kept.
    """
    steps = _count_batches(train_data, "train_data")
    _count_batches(validation_data, "validation_data")
    for name, data in (("train_data", train_data), ("validation_data", validation_data)):
        _check_labels(data, name)
    _check_head(model, train_data.element_spec[0].shape)
    sizes = _check_sizes(image_sizes, epochs)
    check_integer("seed", seed, 0)
    _check_variation(augment, cut_mix, sizes, train_data.element_spec[0].shape)
    settings = {"learning_rate": learning_rate, "augment": augment, "cut_mix": cut_mix}
    settings = {name: float(value) for name, value in settings.items()} | {"seed": int(seed)}
    check_unfinished(checkpoint, sizes, settings)
    memory.keep_freed()
    with model.distribute_strategy.scope():
        model.compile(
            optimizer=_optimizer(model, one_cycle(learning_rate, steps * epochs)),
            loss=keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
            metrics=[keras.metrics.MeanMetricWrapper(_is_right, name="accuracy")],
            jit_compile=is_faster_compiled(model, steps * epochs),
        )
    given, clock = {"train_data": train_data, "validation_data": validation_data}, EpochClock(sizes)
    resize = image_sizes is not None
    if augment or resize:
        train_data = vary(train_data, clock, seed=seed, strength=augment, cut_mix=cut_mix)
    if resize:
        validation_data = vary(validation_data, clock, seed=seed, strength=0)
    history, best = TimedHistory(clock), BestWeights(clock, checkpoint)
    callbacks = [clock, history, best, keras.callbacks.TerminateOnNaN()]
    callbacks += checkpoint_callbacks(checkpoint, history, settings)
    if verbose and in_notebook():
        callbacks.append(LiveCurves(history))
    # Half of the cores: with more, the pictures of later steps get in the way of this one's.
    train_data = untuned(train_data.prefetch(4), threads=max(1, os.cpu_count() // 2))
    validation_data = untuned(validation_data)
    # Each iterator of shuffled data has an order of its own, and Keras makes two in an epoch.
    for _ in range(2 * finished_epochs(checkpoint)):
        iter(train_data)
    try:
        model.fit(
            train_data,
            validation_data=validation_data,
            epochs=epochs,
            callbacks=callbacks,
            shuffle=False,  # the dataset shuffles itself
            verbose=verbose,
        )
    except KeyboardInterrupt:
        again = "to go on." if checkpoint else "to begin anew; with a `checkpoint` it would go on."
        print(f"\nInterrupted; the best weights so far are kept. Call `train` again {again}")
    finally:
        model._initial_epoch = None  # Keras would start the next training at this one's epoch
    best.restore(model)
    if best.diverged_in is not None:
        warnings.warn(
            f"The loss was not finite in epoch {best.diverged_in}: the training stopped, and the "
            f"best weights before are kept. {_remedy(given, learning_rate)}",
            stacklevel=2,
        )
    return history


@keras.saving.register_keras_serializable("cnnviz")
def _is_right(labels, logits):
    """Whether a logit is on the side of its label, which may be a mixture of both classes."""
    labels = keras.ops.reshape(labels, keras.ops.shape(logits))
    return keras.ops.equal(keras.ops.greater(labels, 0.5), keras.ops.greater(logits, 0))


def _remedy(data, learning_rate):
    """What made the loss NaN; `data` are the datasets by their argument's name."""
    for name, batches in data.items():
        for index, (images, _) in enumerate(batches):
            if images.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(images))):
                return f"`{name}` holds NaN or infinity, in its batch {index}."
    return f"Lower the `learning_rate` (={learning_rate})."


def _optimizer(model, learning_rate):
    optimizer = ConvolutionMuon(
        learning_rate,
        weight_decay=WEIGHT_DECAY,
        adam_weight_decay=WEIGHT_DECAY,
        ns_steps=ORTHOGONALIZING_STEPS,
    )
    # A filter whose scale decays to zero fires no more, and no gradient brings it back.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    # Gradients in float16 vanish unless the loss is scaled; Keras looks at the model's policy only.
    float16 = any(layer.compute_dtype == "float16" for layer in model.layers)
    return keras.optimizers.LossScaleOptimizer(optimizer) if float16 else optimizer


def is_faster_compiled(model, steps):
    """Whether XLA can take it, and is faster; Keras's "auto" never takes it on processors.

    With AVX2 it is (1.4x at 64 pixels); with AVX-512 TensorFlow's own kernels are (1.2x in float32
    and 1.4x in bfloat16). To compile takes 10 to 25 seconds, which few `steps` do not win back.
    """
    if steps < STEPS_WORTH_COMPILING:
        return False
    parts = layers.named_layers(model).values()
    able = all(getattr(layer, "supports_jit", True) for layer in parts)
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return able and not tf.distribute.has_strategy() and (on_gpu or not processor_has("avx512f"))


def _check_variation(augment, cut_mix, sizes, images):
    if not (isinstance(augment, numbers.Real) and 0 <= augment <= 2):
        raise ValueError(f"`augment` (={augment!r}) must be True, False or a number in 0..2")
    if not (isinstance(cut_mix, numbers.Real) and 0 <= cut_mix <= 1):
        raise ValueError(f"`cut_mix` (={cut_mix!r}) must be a number in 0..1")
    if cut_mix and not augment:
        raise ValueError(f"`cut_mix` (={cut_mix}) needs `augment` (={augment}) above 0")
    changes = augment or sizes[0] is not None
    if changes and images.rank is not None and images[3] not in (None, 3):
        raise ValueError(
            f"`train_data` (images of shape {images}) must be (B, H, W, 3) to be resized or "
            "varied; other pictures need `augment=False` and no `image_sizes`"
        )


def _check_sizes(image_sizes, epochs):
    check_integer("epochs", epochs, 1)
    if image_sizes is None:
        return (None,) * epochs
    if np.ndim(image_sizes) != 1:
        raise ValueError(f"`image_sizes` (={image_sizes!r}) must be a sequence, a size an epoch")
    for size in image_sizes:
        check_integer("image_sizes", size, 1)
    if len(image_sizes) != epochs:
        raise ValueError(
            f"`image_sizes` (={image_sizes}) must have one size for each of the {epochs} `epochs`, "
            f"not {len(image_sizes)}"
        )
    return tuple(image_sizes)


def _check_head(model, images):
    """Raise a ValueError unless the model returns one logit; `images` is the shape of batches."""
    shape, activation = layers.head(model, images)
    if shape != (None, 1) or activation is not None:
        ending = f" and ending in {activation}" if activation else ""
        raise ValueError(
            f"`model` (='{model.name}', of output shape {shape}{ending}) must return one "
            "logit: end it in Dense(1) without an activation"
        )


def _count_batches(data, name):
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(
            f"`{name}` (of type {type(data).__name__}) must be a tf.data.Dataset of batches; "
            "tf.data.Dataset.from_tensor_slices((images, labels)).batch(32) makes one"
        )
    spec = data.element_spec
    shape = getattr(spec[0], "shape", None) if isinstance(spec, tuple) and len(spec) == 2 else None
    if shape is None or shape.rank not in (4, None):
        raise ValueError(f"`{name}` (of {spec}) must give pairs: images (B, H, W, 3), labels (B,)")
    batches = int(data.cardinality())
    if batches < 1:
        length = {-1: "infinite", -2: "of unknown length"}.get(batches, "empty")
        raise ValueError(
            f"`{name}` (which is {length}) must be a finite tf.data.Dataset with at least one "
            "batch; tf.data.experimental.assert_cardinality tells the length of a generator"
        )
    return batches


def _check_labels(data, name):
    """Raise a ValueError unless the labels, by those of the first batch, are 0, 1 or between."""
    _, labels = next(iter(data.take(1)))
    labels = np.asarray(labels)
    is_column = labels.ndim == 1 or labels.shape[1:] == (1,)
    if not is_column or labels.dtype.kind not in "iufb" or np.any((labels < 0) | (labels > 1)):
        found = np.unique(labels)[:5].tolist()
        raise ValueError(
            f"`{name}` (with labels of shape {labels.shape}, {found}) must have labels (B,) in "
            "0..1, 1 where the logit should be positive"
        )
