"""Read the images of a dataset with the features that a model finds in them, or by their index."""

import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.grad_cam import last_feature_maps


def image_features(model, data, **options):
    """The mean over all positions of the last feature map, in which similar images lie close.

    Args:
        model, data, **options: As for `layers.stream`; the options are `name`, `description` and
            `labels`.

    Yields:
        (images, labels, features) of each batch: (B, H, W, C) float32, (B,) int32 or None unless
        asked for, and (B, F) float32.
    """
    options |= {"key": "features", "record": layers.every_layer}
    for labels, (images, features), _ in layers.stream(model, data, _features, **options):
        yield images, labels, features


def _features(call):
    outputs = [output for output in tf.nest.flatten(call.output) if tf.is_tensor(output)]
    score = tf.add_n([tf.reduce_sum(tf.cast(output, tf.float32)) for output in outputs])
    ((_, feature_map, _),) = last_feature_maps(call, lambda x: tf.gradients(score, x)[0])
    return (call.images, tf.reduce_mean(tf.cast(feature_map, tf.float32), (1, 2))), None


def pick(model, data, indices):
    """The images and labels with these indices, in their order, read in little memory."""
    found, start = {}, 0
    for images, labels in layers.batches(model, data, labels=True):
        for index in indices[(indices >= start) & (indices < start + len(images))]:
            found[index] = images[index - start].copy(), labels[index - start]
        start += len(images)
    images, labels = zip(*(found[index] for index in indices), strict=True)
    return np.stack(images), np.stack(labels)
