"""(batches, the epoch) -> batches at the epoch's image size, each picture varied."""

import cv2
import numpy as np
import tensorflow as tf

from cnnviz.data import resize_image
from cnnviz.recipe import CUT_OUT, LIGHTING, SMALLEST_CROP

OVERSHOOT = 64  # beyond 0..255, by the ringing of sharp resizing


def vary(data, clock, *, seed, strength, cut_mix=0.0):
    """Each batch as the current epoch wants it: at its size, and varied by seeds of its own.

    The seeds are told by epoch and batch, so a training that goes on varies its batches as one that
    never stopped.

    Args:
        data: tf.data.Dataset of (images (B, H, W, 3) in 0..255, labels (B,)).
        clock: EpochClock, which knows the epoch and its image size.
        seed: int.
        strength: Of `augment_batch`; 0 only resizes the pictures.
        cut_mix: Share of the varied pictures that get a piece of another one: `cut_mix_batch`.
            Labels are float32 then.

    Returns:
        tf.data.Dataset of as many batches.
    """

    mixes = bool(strength and cut_mix)

    def vary_arrays(images, labels, batch):
        if not strength:
            images = [resize_image(image.astype(np.float32), clock.size) for image in images]
            return np.stack(images), labels
        if not can_be_varied(images):
            raise ValueError(
                f"`train_data` (in {images.min():.3g}..{images.max():.3g}) must be pictures in "
                "0..255 to be varied: let the model rescale them, or give `augment=False`"
            )
        rng = np.random.default_rng((seed, clock.epoch, batch))
        images = augment_batch(images, rng, image_size=clock.size, strength=strength)
        return cut_mix_batch(images, labels, rng, share=cut_mix) if mixes else (images, labels)

    @tf.autograph.experimental.do_not_convert
    def vary_batch(batch, images_and_labels):
        images, labels = images_and_labels
        types = tf.float32, tf.float32 if mixes else labels.dtype
        varied, mixed = tf.numpy_function(vary_arrays, [images, labels, batch], types)
        varied.set_shape((images.shape[0], None, None, images.shape[3]))
        return varied, tf.ensure_shape(mixed, labels.shape)

    return data.enumerate().map(vary_batch, num_parallel_calls=2)


def can_be_varied(images):
    """Whether pictures look like those in 0..255, and not like those in 0..1 or around zero."""
    low, high = float(images.min()), float(images.max())
    return low == high == 0 or (1 < high <= 255 + OVERSHOOT and low >= -OVERSHOOT)


def augment_batch(images, rng, *, image_size=None, strength=1.0):
    """Vary a batch of pictures, each in its own way: cropped, mirrored, lit, a square painted over.

    Cut-out is from DeVries & Taylor 2017. OpenCV does it in a fraction of a millisecond a
    picture, a small part of what the network takes.

    Args:
        images: (B, H, W, 3) float32 array in 0..255.
        rng: numpy.random.Generator.
        image_size: Side length in pixels of the results; None keeps (H, W).
        strength: How far to go, in multiples of the recipe's crops, lighting and squares; 0..2.

    Returns:
        (B, image_size, image_size, 3) float32 array in 0..255.
    """
    count, *whole = images.shape[:3]
    height, width = whole if image_size is None else (image_size, image_size)
    shares = 1 - strength * (1 - SMALLEST_CROP) * rng.random((count, 2))
    sizes = np.maximum(1, (shares * whole).astype(int))
    corners = rng.integers(0, whole - sizes + 1)
    mirrored = rng.random(count) < 0.5
    lighting = strength * LIGHTING
    contrasts, brightnesses = rng.uniform(1 - lighting, 1 + lighting, (2, count))
    squares = (rng.random((count, 2)) * (height, width)).astype(int)
    half = int(strength * CUT_OUT * min(height, width) / 2)

    varied = np.empty((count, height, width, 3), np.float32)
    for index, (image, result) in enumerate(zip(images, varied, strict=True)):
        (top, left), (rows, columns), (y, x) = corners[index], sizes[index], squares[index]
        crop = image[top : top + rows, left : left + columns].astype(np.float32, copy=False)
        crop = resize_image(crop, (height, width))
        if mirrored[index]:
            crop = cv2.flip(crop, 1)
        crop *= contrasts[index]
        crop += 128 * (brightnesses[index] - contrasts[index])
        np.clip(crop, 0, 255, out=result)
        result[max(0, y - half) : y + half, max(0, x - half) : x + half] = 128
    return varied


def cut_mix_batch(images, labels, rng, *, share):
    """Paste a piece of another picture into some pictures of a batch, and mix their labels alike.

    CutMix, Yun et al. 2019: a network that saw it bases its answer on more of an animal than the
    one part that would do.

    Args:
        images: (B, H, W, 3) float32 array.
        labels: (B,) or (B, 1) array.
        rng: numpy.random.Generator.
        share: Of the pictures, 0..1, drawn for each.

    Returns:
        (images, labels): (B, H, W, 3) float32, and float32 labels, each weighed by the area that
        its picture has in the mixture.
    """
    mixed, mixed_labels = images.copy(), np.array(labels, np.float32)
    height, width = images.shape[1:3]
    others = rng.permutation(len(images))
    for index in np.flatnonzero(rng.random(len(images)) < share):
        side = rng.random() ** 0.5  # the piece's area is uniform in 0..1 before it is clipped
        y, x = rng.random(2) * (height, width)
        top, bottom = (int(np.clip(y + sign * side * height / 2, 0, height)) for sign in (-1, 1))
        left, right = (int(np.clip(x + sign * side * width / 2, 0, width)) for sign in (-1, 1))
        piece, other = (slice(top, bottom), slice(left, right)), others[index]
        mixed[index][piece] = images[other][piece]
        area = (bottom - top) * (right - left) / (height * width)
        mixed_labels[index] = (1 - area) * labels[index] + area * labels[other]
    return mixed, mixed_labels
