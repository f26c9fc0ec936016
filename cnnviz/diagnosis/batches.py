"""(model, data) -> checked batches of NumPy arrays, with a progress bar."""

import warnings
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.checks import whole_numbers
from cnnviz.progress import progress_bar

LabelledData: TypeAlias = tf.data.Dataset | tuple[ArrayLike, ArrayLike]
PictureData: TypeAlias = tf.data.Dataset | tuple[ArrayLike, ArrayLike] | ArrayLike
DATA_FORMS = (
    "a tf.data.Dataset of batches (images, labels), as `load_split` makes it, or a pair of arrays"
)


def image_batches(model, data, description):
    """The pictures of a data set, batch by batch, so that they need not be in memory together.

    Args:
        model: The keras.Model that they are for.
        data: tf.data.Dataset of batches, of (images, labels) or of images alone; a pair of arrays
            (images, labels); or an array of images.
        description: What is being done, for the progress bar.

    Yields:
        (B, H, W, C) float32 arrays.

    Raises:
        ValueError: If `data` is of another form, empty, or does not fit the model.
    """
    for images, _ in _batches(model, data, description):
        yield images


def labelled_batches(model, data, description, name="data", *, in_order=False):
    """As `image_batches`, with the labels: yields (images, (B,) int32 labels).

    `name` is that of the argument, for errors. `in_order` is for who counts the pictures' places.

    Raises:
        ValueError: Also if there are no labels, or they are not one class a picture, as an index or
            one-hot.

    Warns:
        UserWarning: If `in_order`, and the first batch is another one in a second pass.
    """
    first = None
    for images, labels in _batches(model, data, description, name):
        first = images if first is None else first
        if labels is None:
            raise ValueError(f"`{name}` (of pictures without labels) must be {DATA_FORMS}")
        classes = _class_indices(labels)
        if classes is None or classes.shape != (len(images),):
            raise ValueError(
                f"`{name}` (with labels of shape {labels.shape}, {labels.dtype}) must have one "
                f"class index for each of its {len(images)} pictures"
            )
        yield images, classes.astype(np.int32)
    if in_order and isinstance(data, tf.data.Dataset):
        again, _ = next(_as_batches(data, name)[1])
        if not np.array_equal(layers.check_images(model, again), first):
            warnings.warn(
                f"`{name}` comes in another order, or with other pictures, in each pass: the "
                "places that are told are those of one pass, which is gone. Read it with "
                "`shuffle=False`",
                stacklevel=4,
            )


def _class_indices(labels):
    """Class indices of (B,), (B, 1) or one-hot (B, classes) labels, or None if they are no such."""
    numbers = whole_numbers(labels)
    if numbers is None or numbers.ndim != 2 or not numbers.shape[1]:
        return numbers
    if numbers.shape[1] == 1:
        return numbers[:, 0]
    is_one_hot = np.isin(numbers, (0, 1)).all() and (numbers.sum(axis=1) == 1).all()
    return numbers.argmax(axis=1) if is_one_hot else None


def check_labels(labels, classes):
    """Raise a ValueError unless the labels are indices of so many classes."""
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`data` (with labels {labels.min()}..{labels.max()}) must have labels in "
            f"[0, {classes})"
        )


def _batches(model, data, description, name="data"):
    count, batches = _as_batches(data, name)
    empty = True
    with progress_bar(count, description, "batch") as bar:
        for images, labels in batches:
            if isinstance(images, dict):
                raise ValueError(f"`{name}` (of batches that are a dict) must be {DATA_FORMS}")
            images = layers.check_images(model, images)
            labels = None if labels is None else np.asarray(labels)
            if labels is not None and labels.ndim == images.ndim:
                raise ValueError(
                    f"`{name}` (with labels of shape {labels.shape}) must be {DATA_FORMS}"
                )
            yield images, labels
            bar.update()
            empty = False
    if empty:
        raise ValueError(f"`{name}` (without a single picture) must not be empty")


def _as_batches(data, name):
    """(number of batches or None, iterator over (images, labels or None))."""
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        if count == tf.data.INFINITE_CARDINALITY:
            raise ValueError(
                f"`{name}` (which never ends) must be finite: `{name}.take(100)` ends it"
            )
        parts = (part if isinstance(part, tuple) else (part,) for part in data.as_numpy_iterator())
        # `keras.Model.fit` takes weights of the pictures too, which tell nothing here.
        pairs = ((*part, None)[:2] for part in parts)
        return (count if count >= 0 else None), pairs
    is_pair = isinstance(data, (tuple, list)) and len(data) == 2
    is_pair |= isinstance(data, tuple) and len(data) == 3
    images, labels = data[:2] if is_pair else (data, None)
    images = np.asarray(images)
    if images.ndim != 4 or (labels is not None and len(labels) != len(images)):
        raise ValueError(f"`{name}` (of type {type(data).__name__}) must be {DATA_FORMS}")
    starts = range(0, len(images), layers.BATCH_SIZE)
    ends = [slice(start, start + layers.BATCH_SIZE) for start in starts]
    return len(ends), ((images[part], None if labels is None else labels[part]) for part in ends)
