"""Read images and labels batch by batch, from arrays or from a dataset."""

from __future__ import annotations

import os
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz.checks import whole_numbers
from cnnviz.layers.inputs import check_images, check_model, input_shapes, take
from cnnviz.layers.warn import warn
from cnnviz.progress import progress_bar

Dataset: TypeAlias = tf.data.Dataset | keras.utils.PyDataset
LabeledData: TypeAlias = Dataset | tuple[ArrayLike, ArrayLike]
ImageData: TypeAlias = Dataset | tuple[ArrayLike, ArrayLike] | ArrayLike

BATCH_SIZE = 32  # images in one call of a model; bounds the memory
FORMS = "a tf.data.Dataset of batches (images, labels), a keras.utils.PyDataset, or two arrays"


def batches(model, data, *, name="data", description=None, labels=False, whole=False):
    """Read data batch by batch: yield (inputs, (B,) class indices or None).

    Args:
        model: The keras.Model that the images are for; None takes images of any size.
        data: Dataset of batches, of (images, labels) or of images alone; a pair (images, labels);
            or images. Of a model with several inputs, images are a list or dict of all.
        name: The argument's name, for errors.
        description: What is being done, for a progress bar; None shows none.
        labels: Whether there must be labels; None gives them if they are class indices.
        whole: Whether batches are as they were given, else of at most `BATCH_SIZE` images.
    """
    n_batches, pairs = _pairs(model, data, name)
    empty = True
    with progress_bar(n_batches, description, "batch") as bar:
        for images, given in pairs:
            images = check_images(model, images, name=name)
            if given is None and labels:
                raise ValueError(f"`{name}` (of images without labels) must be {FORMS}")
            rows = len(tf.nest.flatten(images)[0])
            given = class_indices(given, rows, name, labels) if labels is not False else None
            size = max(rows, 1) if whole else BATCH_SIZE
            starts = range(0, max(rows, 1), size)  # one empty batch if there are no images
            if n_batches == 1:
                bar.total = len(starts)
            for start in starts:
                part = slice(start, start + size)
                yield take(images, part), None if given is None else given[part]
                bar.update(n_batches == 1)
            bar.update(n_batches != 1)
            empty = False
    if empty:
        raise ValueError(f"`{name}` (without a single image) must not be empty")


def all_images(model, data, *, fewest=0, name="images"):
    """All images of some data, as `check_images` returns them; labels are left out."""
    check_model(model)
    description = "reading" if isinstance(data, Dataset) else None
    read = batches(model, data, name=name, description=description, whole=True)
    found = [images for images, _ in read]
    shapes = {tuple(one.shape[1:] for one in tf.nest.flatten(images)) for images in found}
    if len(shapes) > 1:
        raise ValueError(f"`{name}` (of batches of shapes {shapes}) must all have one size")
    if len(found) > 1:
        found = [tf.nest.map_structure(lambda *same: np.concatenate(same), *found)]
    shape = tf.nest.flatten(found)[0].shape
    if shape[0] < fewest:
        raise ValueError(f"`{name}` (of shape {shape}) must hold one image or more")
    return found[0]


def _pairs(model, data, name):
    """(number of batches or None, iterable of (images, labels or None))."""
    if isinstance(data, tf.data.Dataset):
        n_batches = int(data.cardinality())
        if n_batches == tf.data.INFINITE_CARDINALITY:
            raise ValueError(f"`{name}` (which never ends) must be finite, as `{name}.take(9)`")
        return (n_batches if n_batches >= 0 else None), map(_pair, data.as_numpy_iterator())
    if isinstance(data, keras.utils.PyDataset):
        if not hasattr(data, "__len__"):
            kind = type(data).__name__
            raise ValueError(f"`{name}` (a {kind} without a length) must have `__len__`")
        return len(data), (_pair(data[index]) for index in range(len(data)))
    if isinstance(data, tuple) and len(data) in (2, 3) and _is_pair(model, *data[:2]):
        images, labels = data[:2]
        is_single = None in input_shapes(model) and not isinstance(images, dict)
        rows = np.shape(images if is_single else tf.nest.flatten(images)[0])
        if np.shape(labels)[:1] != rows[:1]:
            raise ValueError(
                f"`{name}` (images of shape {rows}, labels of shape {np.shape(labels)}) must have "
                "one label for each image"
            )
        return 1, [(images, labels)]
    if hasattr(data, "__next__"):
        raise ValueError(f"`{name}` (a {type(data).__name__}) can be read only once; give {FORMS}")
    first = data[0] if isinstance(data, (list, tuple)) and data else data
    if isinstance(first, (str, bytes, os.PathLike)):
        raise ValueError(f"`{name}` (={data!r:.80}) must be images; `load_image(path)` reads one")
    return 1, [(data, None)]


def _is_pair(model, images, labels):
    """Whether a tuple is (images, labels), and not a tuple of images or of several inputs."""
    shapes = input_shapes(model)
    if None not in shapes:
        return isinstance(images, (dict, list, tuple))
    rank, own = len(shapes[None]), _rank(images)
    is_one = own == rank - 1 and _rank(labels) < min(3, own)  # labels of rank 3 may be masks
    return isinstance(images, dict) or own == rank or is_one


def _pair(part):
    """(images, labels or None) of one batch; sample weights, which `fit` takes, say nothing."""
    return (*part, None)[:2] if isinstance(part, (tuple, list)) else (part, None)


def _rank(values):
    try:
        return np.ndim(values)
    except ValueError:  # lists of different lengths
        return 0


def class_indices(labels, n_images, name="labels", required=True):
    """(N,) int32 class indices of labels (N,), (N, 1) or one-hot (N, classes).

    Other labels are a ValueError, or None if class indices are not `required`.
    """
    classes = whole_numbers(labels)
    if classes is not None and classes.ndim == 2 and classes.shape[1]:
        if classes.shape[1] == 1:
            classes = classes[:, 0]
        elif np.isin(classes, (0, 1)).all() and (classes.sum(axis=1) == 1).all():  # one-hot
            classes = classes.argmax(axis=1)
    if classes is None or classes.shape != (n_images,):
        if not required:
            return None
        given = np.asarray(labels, object)
        raise ValueError(
            f"`{name}` (labels such as {given.ravel()[:3].tolist()}, of shape {given.shape}) must "
            f"have one class index for each of its {n_images} images; where an image has several "
            "classes, give one column of the labels and `keras.Model(model.inputs, that_output)`"
        )
    return classes.astype(np.int32)


def check_labels(labels, classes, name="data"):
    """Raise a ValueError unless the labels are indices of so many classes."""
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        given = f"with labels {labels.min()}..{labels.max()}"
        raise ValueError(f"`{name}` ({given}) must have labels in [0, {classes})")


def warn_if_shuffled(data, name="data"):
    """Warn, and return True, if the first batch of a dataset is another one in a second pass."""
    if not isinstance(data, tf.data.Dataset):
        return False
    first, again = (tf.nest.flatten(next(iter(data)))[0] for _ in range(2))
    if shuffled := not np.array_equal(first, again):
        warn(
            f"`{name}` comes in another order, or with other images, in each pass: indices belong "
            "to one pass and cannot be looked up again; load it with shuffle=False"
        )
    return shuffled
