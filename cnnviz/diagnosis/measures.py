"""Measure where evidence lies, and how well probabilities are calibrated."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.checks import check_integer


def evidence_share(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """Share of each heat map's evidence that lies inside a mask.

    This is the energy-based pointing game (Wang et al. 2020, https://arxiv.org/abs/1910.01279). A
    map without any knowledge reaches `masks.mean(axis=(1, 2))` on average.

    Args:
        maps: (N, h, w) evidence >= 0, as in `GradCAM.maps`; enlarged bilinearly to the masks' size.
        masks: (N, H, W) bool, such as `DrawnPets.animal_masks`.

    Returns:
        (N,) float32 in 0..1; NaN where a map holds no evidence at all: use `np.nanmean`.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> from cnnviz.diagnosis import evidence_share
        >>> evidence_share([[[1, 3]]], [[[True, False]]]).tolist()
        [0.25]
    """
    maps, masks = np.asarray(maps, np.float32), np.asarray(masks, bool)
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks):
        raise ValueError(
            f"`maps` (of shape {maps.shape}) and `masks` (of shape {masks.shape}) must be "
            "(N, h, w) and (N, H, W)"
        )
    shares = np.full(len(maps), np.nan, np.float32)
    for index, (evidence, mask) in enumerate(zip(maps, masks, strict=True)):
        evidence = cv2.resize(evidence, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        if evidence.sum() > 0:
            shares[index] = evidence[mask].sum() / evidence.sum()
    return shares


def mean_color(images):
    """(C,) float32 of (N, H, W, C) images; a float32 sum of many pixels would be too coarse."""
    return images.mean((0, 1, 2), dtype=np.float64).astype(np.float32)


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, n_bins: int = 15
) -> float:
    """How far the confidence of a model is from its accuracy.

    See Guo et al. 2017, https://arxiv.org/abs/1706.04599. For few images the error is
    overestimated: a perfectly calibrated model of 97 % accuracy shows about 0.013 on 500 images.

    Args:
        probabilities: (N, classes) array, as `class_probabilities` returns it.
        labels: (N,) class indices, or one-hot.
        n_bins: Bins of equal width between 0 and 1.

    Returns:
        float in 0..1: the mean difference over the images.

    Raises:
        ValueError: If the shapes do not fit together, there is no image, or `probabilities` are not
            those of all classes.

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
    """Sort predictions into bins by their confidence, for a reliability diagram.

    Args:
        probabilities, labels, n_bins: As for `expected_calibration_error`.

    Returns:
        (edges, shares, confidences, accuracies): (n_bins + 1,) array and three (n_bins,) arrays:
        the share of the images, their mean probability of the predicted class, and their accuracy.
        A bin without images has zeros.

    Raises:
        ValueError: As `expected_calibration_error`.
    """
    check_integer("n_bins", n_bins, 1)
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or not len(probabilities):
        raise ValueError(
            f"`probabilities` (of shape {probabilities.shape}) must be (N, classes) of one image "
            "or more"
        )
    labels = layers.class_indices(labels, len(probabilities))
    if probabilities.shape[1] < 2 or not np.all((0 <= probabilities) & (probabilities <= 1)):
        raise ValueError(
            f"`probabilities` (of shape {probabilities.shape}, in {probabilities.min():.3g}.."
            f"{probabilities.max():.3g}) must be those of two classes or more, in 0..1, as "
            "`class_probabilities` returns them for any head"
        )
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts, confidences, accuracies = (
        np.bincount(index, weights, n_bins) for weights in (None, confidence, correct)
    )
    filled = np.maximum(counts, 1)
    edges = np.linspace(0, 1, n_bins + 1)
    return edges, counts / len(labels), confidences / filled, accuracies / filled
