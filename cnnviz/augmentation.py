"""(batches, the epoch) -> batches at the epoch's image size, each picture varied."""

import numpy as np
import tensorflow as tf

from cnnviz.data import resize_image
from cnnviz.recipe import CUT_OUT, LIGHTING, SMALLEST_CROP


def vary(data, clock, *, seed, augment):
    """Each batch as the current epoch wants it: at its size, and varied by seeds of its own.

    The seeds are told by epoch and batch, so a training that goes on varies its batches as one that
    never stopped.

    Args:
        data: tf.data.Dataset of (images (B, H, W, 3) in 0..255, labels (B,)).
        clock: EpochClock, which knows the epoch and its image size.
        seed: int.
        augment: Whether to vary the pictures; False only resizes them.

    Returns:
        tf.data.Dataset of as many batches.
    """

    def vary_arrays(images, batch):
        if augment:
            rng = np.random.default_rng((seed, clock.epoch, batch))
            return augment_batch(images, rng, image_size=clock.size)
        return np.stack([resize_image(image, clock.size) for image in images])

    @tf.autograph.experimental.do_not_convert
    def vary_batch(batch, images_and_labels):
        images, labels = images_and_labels
        images = tf.cast(images, tf.float32)
        varied = tf.numpy_function(vary_arrays, [images, batch], tf.float32)
        varied.set_shape((images.shape[0], None, None, images.shape[3]))
        return varied, labels

    return data.enumerate().map(vary_batch, num_parallel_calls=2)


def augment_batch(images, rng, *, image_size=None):
    """Vary a batch of pictures, each in its own way: cropped, mirrored, lit, a square painted over.

    Cut-out is from DeVries & Taylor 2017. OpenCV does it in a fraction of a millisecond a
    picture, a small part of what the network takes.

    Args:
        images: (B, H, W, 3) float32 array in 0..255.
        rng: numpy.random.Generator.
        image_size: Side length in pixels of the results; None keeps (H, W).

    Returns:
        (B, image_size, image_size, 3) float32 array in 0..255.
    """
    height, width = images.shape[1:3] if image_size is None else (image_size, image_size)
    varied = np.empty((len(images), height, width, 3), np.float32)
    for image, result in zip(images, varied, strict=True):
        share = rng.uniform(SMALLEST_CROP, 1, 2)
        rows, columns = np.maximum(1, (share * image.shape[:2]).astype(int))
        top, left = rng.integers(0, np.array(image.shape[:2]) - (rows, columns) + 1)
        crop = image[top : top + rows, left : left + columns]
        crop = resize_image(crop, (height, width))
        contrast, brightness = rng.uniform(1 - LIGHTING, 1 + LIGHTING, 2)
        crop = np.clip((crop - 128) * contrast + 128 * brightness, 0, 255)
        result[:] = crop[:, ::-1] if rng.random() < 0.5 else crop
        y, x = (rng.random(2) * (height, width)).astype(int)
        half = int(CUT_OUT * min(height, width) / 2)
        result[max(0, y - half) : y + half, max(0, x - half) : x + half] = 128
    return varied
