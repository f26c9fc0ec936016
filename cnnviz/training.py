"""(model, training batches, validation batches) -> the trained model and its history."""

import math
import os
import warnings
from pathlib import Path

import keras
import tensorflow as tf

# The recipe. Low resolution first, because most of what there is to learn shows at 64 pixels, where
# a step costs a quarter: (image size, epochs, peak learning rate) of each stage on photographs.
PHOTOGRAPH_STAGES = ((64, 8, 3e-3), (96, 5, 2e-3), (128, 2, 1e-3))
WEIGHT_DECAY = 0.02  # AdamW; large, since the network has far more parameters than pictures
LABEL_SMOOTHING = 0.05  # keeps the network from growing sure of pictures whose label is wrong
WARM_UP = 0.2  # share of the steps in which the learning rate rises
SMALLEST_CROP = 0.7  # side of the smallest crop, as a share of the picture's side
LIGHTING = 0.2  # contrast is scaled by up to this share, brightness moved by as much of 128
CUT_OUT = 0.35  # side of the square that is painted grey, as a share of the picture's side


def train(
    model,
    train_data,
    validation_data,
    *,
    epochs,
    learning_rate=3e-3,
    augment=True,
    checkpoint=None,
    seed=0,
    verbose="auto",
):
    """Train a classifier that returns one logit, and leave it with its best weights.

    AdamW (Loshchilov & Hutter 2019) with a learning rate that rises and then falls to zero once
    (one cycle, Smith & Topin 2018). The best weights are those with the highest validation
    accuracy. Ctrl-C ends the training early and keeps them too.

    Args:
        model: keras.Model, images (N, H, W, 3) in 0..255 to logits (N, 1). It is compiled here.
        train_data: tf.data.Dataset of (images (B, H, W, 3) float32 in 0..255, labels (B,)).
        validation_data: The same, not augmented.
        epochs: Passes over `train_data`, 1 or more.
        learning_rate: The peak.
        augment: Whether to vary the training pictures: `augment_batch`.
        checkpoint: A `.keras` file that is kept at the best weights so far. Beside it, a folder
            `<checkpoint>.resume` holds what is needed to go on: a training that was killed or
            interrupted continues after its last whole epoch when it is called again. A training
            that ended deletes the folder; the next one starts anew. None writes nothing.
        seed: Seed of the augmentation.
        verbose: As in `keras.Model.fit`.

    Returns:
        keras.callbacks.History: `.history` maps "loss", "accuracy", "val_loss" and "val_accuracy"
        to one number an epoch that this call trained; the loss is the cross-entropy in nats.

    Raises:
        ValueError: If `model` does not return one logit, `epochs` is below 1, a dataset is empty
            or of unknown length, or `checkpoint` does not end in `.keras`.

    Warns:
        UserWarning: If the loss stops being a finite number, which ends the training. The best
            weights before that are kept.
    """
    _check_head(model)
    steps = _count_batches(train_data, "train_data")
    _count_batches(validation_data, "validation_data")
    if epochs < 1:
        raise ValueError(f"`epochs` (={epochs}) must be 1 or more")
    model.compile(
        optimizer=keras.optimizers.AdamW(
            one_cycle(learning_rate, steps * epochs), weight_decay=WEIGHT_DECAY
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
    )
    if augment:
        train_data = _augmented(train_data, seed)
    history, best = keras.callbacks.History(), BestWeights(validation_data, checkpoint)
    callbacks = [history, best, keras.callbacks.TerminateOnNaN(), *_resume_callbacks(checkpoint)]
    try:
        model.fit(
            train_data.prefetch(2),
            validation_data=validation_data,
            epochs=epochs,
            callbacks=callbacks,
            shuffle=False,  # the dataset shuffles itself
            verbose=verbose,
        )
    except KeyboardInterrupt:
        print("\nInterrupted; the best weights so far are kept.")
    finally:
        model._initial_epoch = None  # Keras would start the next training at this one's epoch
    best.restore(model)
    if best.diverged_in is not None:
        warnings.warn(
            f"The loss was not finite in epoch {best.diverged_in}: the training stopped, and the "
            f"best weights before are kept. Lower the `learning_rate` (={learning_rate}).",
            stacklevel=2,
        )
    return history


def _check_head(model):
    ends_in = getattr(model.layers[-1], "activation", keras.activations.linear)
    if model.output_shape != (None, 1) or ends_in is keras.activations.sigmoid:
        raise ValueError(
            f"`model` (='{model.name}', of output shape {model.output_shape}) must return one "
            "logit: end it in Dense(1) without an activation"
        )


def _count_batches(data, name):
    if not isinstance(data, tf.data.Dataset):
        raise ValueError(
            f"`{name}` (of type {type(data).__name__}) must be a tf.data.Dataset of batches; "
            "tf.data.Dataset.from_tensor_slices((images, labels)).batch(32) makes one"
        )
    batches = int(data.cardinality())
    if batches < 1:
        length = {-1: "infinite", -2: "of unknown length"}.get(batches, "empty")
        raise ValueError(
            f"`{name}` (which is {length}) must be a finite tf.data.Dataset with at least one "
            "batch; tf.data.experimental.assert_cardinality tells the length of a generator"
        )
    return batches


def one_cycle(peak, steps):
    """Learning rate that rises linearly from a tenth of `peak` and falls to zero by a cosine."""
    warm_up = max(1, int(steps * WARM_UP))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 10,
        warmup_target=peak,
        warmup_steps=warm_up,
        decay_steps=max(1, steps - warm_up),
    )


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest validation accuracy, also in a file.

    Before the first epoch they are those that the model came with, or, in a training that goes on,
    those in the file.
    """

    def __init__(self, validation_data, checkpoint=None):
        super().__init__()
        self.validation_data, self.checkpoint = validation_data, checkpoint
        self.accuracy, self.weights, self.diverged_in = -math.inf, None, None

    def on_train_begin(self, logs=None):
        goes_on = self.checkpoint and _resume_folder(self.checkpoint).exists()
        if goes_on and Path(self.checkpoint).exists():
            self.model.optimizer.build(self.model.trainable_variables)
            self.model.load_weights(self.checkpoint)
            results = self.model.evaluate(self.validation_data, verbose=0, return_dict=True)
            self.accuracy = results["accuracy"]
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


def _resume_folder(checkpoint):
    return Path(f"{checkpoint}.resume")


def _resume_callbacks(checkpoint):
    if checkpoint is None:
        return []
    if not str(checkpoint).endswith(".keras"):
        raise ValueError(f"`checkpoint` (='{checkpoint}') must end in '.keras'")
    Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
    # Two backups: being killed while it writes one leaves the other.
    return [
        keras.callbacks.BackupAndRestore(str(_resume_folder(checkpoint)), double_checkpoint=True)
    ]


def _augmented(data, seed):
    """Each batch varied, by a sequence of seeds that differs from epoch to epoch."""
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)

    @tf.autograph.experimental.do_not_convert
    def vary(batch, seed):
        images, labels = batch
        return augment_batch(images, seed), labels

    return tf.data.Dataset.zip(data, seeds).map(vary, num_parallel_calls=tf.data.AUTOTUNE)


def augment_batch(images, seed):
    """Vary a batch of pictures: mirrored, cropped, lit differently, a square painted over.

    The size and shape of the crop are drawn once for the batch, everything else for each picture:
    then cropping is an indexing and one resize, which costs next to nothing beside the network.
    Cut-out is from DeVries & Taylor 2017.

    Args:
        images: (B, H, W, 3) float32 in 0..255.
        seed: (2,) int64.

    Returns:
        (B, H, W, 3) float32 in 0..255.
    """
    seeds = tf.unstack(tf.random.split(seed, 6))
    count, height, width = tf.unstack(tf.shape(images))[:3]

    def uniform(which, shape, low, high):
        return tf.random.stateless_uniform(shape, seeds[which], low, high)

    mirrored = uniform(0, (count, 1, 1, 1), 0.0, 1.0) < 0.5
    images = tf.where(mirrored, images[:, :, ::-1], images)

    side = uniform(1, (2,), SMALLEST_CROP, 1.0) * tf.cast((height, width), tf.float32)
    for axis in (0, 1):
        full, crop = (height, width)[axis], tf.cast(side[axis], tf.int32)
        space = tf.cast(full - crop, tf.float32) + 0.999
        first = tf.cast(uniform(2 + axis, (count, 1), 0.0, 1.0) * space, tf.int32)
        images = tf.gather(images, first + tf.range(crop), axis=1 + axis, batch_dims=1)
    images = tf.image.resize(images, (height, width))

    light = uniform(4, (count, 1, 1, 2), -LIGHTING, LIGHTING)
    images = (images - 128.0) * (1.0 + light[..., :1]) + 128.0 * (1.0 + light[..., 1:])

    centre = uniform(5, (count, 2), 0.0, 1.0)
    rows = tf.abs(tf.linspace(0.0, 1.0, height) - centre[:, :1]) < CUT_OUT / 2
    columns = tf.abs(tf.linspace(0.0, 1.0, width) - centre[:, 1:]) < CUT_OUT / 2
    hidden = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(hidden, 128.0, tf.clip_by_value(images, 0.0, 255.0))
