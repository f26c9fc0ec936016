"""Measure features of images, where evidence lies, and how well probabilities are calibrated."""

from __future__ import annotations

import cv2
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from cnnviz import layers
from cnnviz.grad_cam import last_feature_map, positions

FLAT = 1e-6  # values that differ by less than this share of the largest differ by rounding alone


def mean_features(call):
    """-> ((N, C) means of the last feature map, None), of a model that is being called."""
    outputs = [output for output in tf.nest.flatten(call.output) if tf.is_tensor(output)]
    if len(outputs) == 1:  # of several, nothing says which one the labels belong to
        layers.classifier_output(call)
    score = tf.add_n([tf.reduce_sum(tf.cast(output, tf.float32)) for output in outputs])
    _, feature_map, _ = last_feature_map(call, lambda x: tf.gradients(score, x)[0])
    return tf.reduce_mean(tf.cast(feature_map, tf.float32), positions(feature_map)), None


def predictions(model, data, **options):
    """As `layers.stream` of labeled data; the results are (B, classes) probabilities."""

    def compute(call):
        return layers.probabilities(layers.classifier_output(call)), None

    return layers.stream(model, data, compute, key="predictions", labels=True, **options)


def is_flat(lowest, highest):
    """Whether values differ by rounding alone, from the lowest and the highest of each filter."""
    return highest - lowest <= FLAT * np.maximum(np.abs(lowest), np.abs(highest))


def pick(model, data, indices):
    """The images and labels with these indices, in their order, read in little memory."""
    found, start = {}, 0
    for inputs, labels in layers.batches(model, data, labels=True):
        images = layers.image_of(model, inputs)
        for index in indices[(indices >= start) & (indices < start + len(images))]:
            found[index] = images[index - start].copy(), labels[index - start]
        start += len(images)
    images, labels = zip(*(found[index] for index in indices), strict=True)
    return np.stack(images), np.stack(labels)


def evidence_share(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """Share of each heat map's evidence that lies inside a mask.

    This is the energy-based pointing game (Wang et al. 2020, https://arxiv.org/abs/1910.01279). A
    map without any knowledge reaches `masks.mean(axis=(1, 2))` on average.

    Args:
        maps: (N, h, w) evidence >= 0, as in `GradCAM.maps`; enlarged to the masks' size.
        masks: (N, H, W) bool, such as `DrawnPets.animal_masks`.

    Returns:
        (N,) float32 in 0..1; NaN where a map holds no evidence at all: use `np.nanmean`.

    Example:
        >>> from cnnviz.diagnosis import evidence_share
        >>> evidence_share([[[1, 3]]], [[[True, False]]]).tolist()
        [0.25]
    """
    maps, masks = np.asarray(maps, np.float32), np.asarray(masks, bool)
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks):
        shapes = f"`maps` (of shape {maps.shape}) and `masks` (of shape {masks.shape})"
        raise ValueError(f"{shapes} must be (N, h, w) and (N, H, W)")
    shares = np.full(len(maps), np.nan, np.float32)
    for index, (evidence, mask) in enumerate(zip(maps, masks, strict=True)):
        evidence = cv2.resize(evidence, mask.shape[::-1])  # bilinearly
        if evidence.sum() > 0:
            shares[index] = evidence[mask].sum() / evidence.sum()
    return shares


def mean_color(images):
    """(C,) float32 of (N, H, W, C) images; a float32 sum of many pixels would be too coarse."""
    return images.mean((0, 1, 2), dtype=np.float64).astype(np.float32)


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, n_bins: int = 15
) -> float:
    """How far the confidence of a model is from its accuracy, 0..1, on average over the images.

    See Guo et al. 2017, https://arxiv.org/abs/1706.04599. For few images the error is
    overestimated: a perfectly calibrated model of 97 % accuracy shows about 0.013 on 500 images.

    Args:
        probabilities: (N, classes) array in 0..1, as `class_probabilities` returns it.
        labels: (N,) class indices, or one-hot.
        n_bins: Bins of equal width between 0 and 1.

    Example:
        >>> from cnnviz.diagnosis import expected_calibration_error
        >>> expected_calibration_error([[0.25, 0.75], [0.25, 0.75]], [1, 0])
        0.25
    """
    _, shares, confidences, accuracies = calibration_bins(probabilities, labels, n_bins=n_bins)
    return float((shares * np.abs(accuracies - confidences)).sum())


def calibration_bins(
    probabilities: ArrayLike, labels: ArrayLike, *, n_bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sort predictions by confidence, as `expected_calibration_error`, for a reliability diagram.

    -> (n_bins + 1,) edges of the bins, and for each bin the share of the images, their mean
    probability of the predicted class, and their accuracy.
    """
    probabilities = np.asarray(probabilities, np.float64)
    is_table = probabilities.ndim == 2 and len(probabilities) and probabilities.shape[1] > 1
    if not is_table or not np.all((0 <= probabilities) & (probabilities <= 1)):
        given = f"`probabilities` (of shape {probabilities.shape}, {probabilities[:1]}...)"
        raise ValueError(f"{given} must be (N, classes), two classes or more, in 0..1")
    labels = layers.class_indices(labels, len(probabilities))
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts, sure, right = (np.bincount(index, w, n_bins) for w in (None, confidence, correct))
    edges, filled = np.linspace(0, 1, n_bins + 1), np.maximum(counts, 1)
    return edges, counts / len(labels), sure / filled, right / filled


def interval(hits, n):
    """Share of hits, with the ends of its 95 % confidence interval (Wilson 1927)."""
    ends = binomtest(int(hits), int(n)).proportion_ci(method="wilson")
    return hits / n, ends.low, ends.high


def difference(hits, n, other_hits, other_n):
    """Share of hits less another one, with the ends of its 95 % interval (Newcombe 1998)."""
    (p, low, high), (q, q_low, q_high) = interval(hits, n), interval(other_hits, other_n)
    return p - q, p - q - np.hypot(p - low, q_high - q), p - q + np.hypot(high - p, q - q_low)


def bootstrapped(values, n_draws=1000):
    """(mean, lower and upper end of its 95 % bootstrap interval) of values; NaN is left out."""
    values, random = np.asarray(values)[np.isfinite(values)], np.random.default_rng(0)
    if not len(values):
        return (np.nan,) * 3
    means = random.choice(values, (n_draws, len(values))).mean(axis=1)
    return values.mean(), *np.quantile(means, (0.025, 0.975))
