"""Batches at the image size of a training, each image changed at random (augmentation)."""

import os

import cv2
import numpy as np
import tensorflow as tf

from cnnviz.data import resize_image
from cnnviz.recipe import CUT_OUT, LIGHTING, SMALLEST_CROP


def augmented(data, *, image_size=0, strength=0.0, cut_mix=0.0, seed=0):
    """Resize the images of a tf.data.Dataset of batches and augment them, differently in each pass.

    `image_size` 0 keeps the size. `cut_mix` is the `share` of `cut_mix_batch`.
    """

    def change(images, labels, seed):
        rng = np.random.default_rng(seed)
        if strength:
            images = augment_batch(images, rng, image_size=image_size, strength=strength)
        elif image_size:
            images = np.stack([resize_image(image, image_size) for image in np.float32(images)])
        if cut_mix:
            images, labels = cut_mix_batch(images, labels, rng, share=cut_mix)
        return np.float32(images), np.float32(labels)

    def change_batch(batch, seed):
        images, labels = batch
        changed, mixed = tf.numpy_function(change, [images, labels, seed], [tf.float32] * 2)
        # The size stays open, so that a model is traced once for all sizes.
        changed.set_shape((images.shape[0], None, None, images.shape[3]))
        return changed, tf.ensure_shape(mixed, labels.shape)

    if strength or image_size or cut_mix:
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
        data = tf.data.Dataset.zip((data, seeds)).map(change_batch, num_parallel_calls=2)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread can hold up the end of a pass for 40 s
    options.threading.private_threadpool_size = max(1, os.cpu_count() // 2)  # the step needs some
    return data.prefetch(4).with_options(options)


def augment_batch(images, rng, *, image_size=0, strength=1.0):
    """Crop, mirror and light each image (B, H, W, 3) in 0..255, and paint a gray square on it.

    The square is cut-out (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552).
    """
    n_images, *whole = images.shape[:3]
    height, width = (image_size, image_size) if image_size else whole
    fractions = 1 - strength * (1 - SMALLEST_CROP) * rng.random((n_images, 2))
    sizes = np.maximum(1, (fractions * whole).astype(int))
    corners = rng.integers(0, whole - sizes + 1)
    mirrored = rng.random(n_images) < 0.5
    lighting = strength * LIGHTING
    contrasts, brightnesses = rng.uniform(1 - lighting, 1 + lighting, (2, n_images))
    squares = (rng.random((n_images, 2)) * (height, width)).astype(int)
    half = int(strength * CUT_OUT * min(height, width) / 2)
    results = np.empty((n_images, height, width, 3), np.float32)
    for index, (image, result) in enumerate(zip(images, results, strict=True)):
        (top, left), (rows, columns), (y, x) = corners[index], sizes[index], squares[index]
        crop = np.float32(image[top : top + rows, left : left + columns])
        crop = resize_image(crop, (height, width))
        if mirrored[index]:
            crop = cv2.flip(crop, 1)
        crop *= contrasts[index]
        crop += 128 * (brightnesses[index] - contrasts[index])
        np.clip(crop, 0, 255, out=result)
        result[max(0, y - half) : y + half, max(0, x - half) : x + half] = 128
    return results


def cut_mix_batch(images, labels, rng, *, share):
    """Paste a piece of another image into a `share` of the images, and mix their labels by area.

    This is CutMix (Yun et al. 2019, https://arxiv.org/abs/1905.04899).
    """
    mixed, mixed_labels = images.copy(), np.array(labels, np.float32)
    size = np.array(images.shape[1:3])
    others = rng.permutation(len(images))
    for index in np.flatnonzero(rng.random(len(images)) < share):
        half = rng.random() ** 0.5 * size / 2  # the area is uniform in 0..1 before it is clipped
        center = rng.random(2) * size
        (top, left), (bottom, right) = np.clip([center - half, center + half], 0, size).astype(int)
        piece, other = (slice(top, bottom), slice(left, right)), others[index]
        mixed[index][piece] = images[other][piece]
        area = (bottom - top) * (right - left) / size.prod()
        mixed_labels[index] = (1 - area) * labels[index] + area * labels[other]
    return mixed, mixed_labels
