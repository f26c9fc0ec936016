"""(activations, evidence, masks) -> numbers that say what is wrong with a model or its data."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from cnnviz.checks import check_integer

FLAT = 1e-6  # values nearer to each other than this share of the largest differ by rounding alone


def dead_channels(feature_maps: ArrayLike) -> np.ndarray:
    """Find the channels that put out one and the same value everywhere, on every picture.

    That is what `filter_census`, over a whole data set, calls "never fires", of a channel of zeros,
    or "same everywhere". `ascend_filters` calls a filter dead that no picture it tried could wake.

    Args:
        feature_maps: (N, h, w, C) array: a layer's output, as `extract_activations` returns it.
            The more pictures, the more can be said.

    Returns:
        (C,) bool array.

    Raises:
        ValueError: If `feature_maps` has another rank or holds no picture.
    """
    feature_maps = np.asarray(feature_maps)
    if feature_maps.ndim != 4 or not len(feature_maps):
        raise ValueError(f"`feature_maps` (of shape {feature_maps.shape}) must be (N, h, w, C)")
    lowest, highest = feature_maps.min(axis=(0, 1, 2)), feature_maps.max(axis=(0, 1, 2))
    return highest - lowest <= FLAT * np.maximum(np.abs(lowest), np.abs(highest))


def evidence_share(maps: ArrayLike, masks: ArrayLike) -> np.ndarray:
    """Share of each heat map's evidence that lies inside a mask: the energy-based pointing game.

    Wang et al. 2020 (Score-CAM) measure localisation so, with boxes for masks.

    The share of the picture that the mask covers is what a map without any knowledge would reach
    on the average; `masks.mean(axis=(1, 2))` gives it.

    Args:
        maps: (N, h, w) evidence >= 0, as in `GradCAM.maps`. Enlarged bilinearly to the masks' size.
        masks: (N, H, W) bool, such as `DrawnPets.animal_masks`.

    Returns:
        (N,) float32 in 0..1; NaN where a map holds no evidence at all, so that an empty map counts
        neither for nor against (`np.nanmean`).

    Raises:
        ValueError: If the shapes do not belong together.
    """
    maps, masks = np.asarray(maps, np.float32), np.asarray(masks, bool)
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks):
        raise ValueError(
            f"`maps` (of shape {maps.shape}) and `masks` (of shape {masks.shape}) must be "
            "(N, h, w) and (N, H, W)"
        )
    height, width = masks.shape[1:]
    shares = np.full(len(maps), np.nan, np.float32)
    for index, (evidence, mask) in enumerate(zip(maps, masks, strict=True)):
        evidence = cv2.resize(evidence, (width, height), interpolation=cv2.INTER_LINEAR)
        if evidence.sum() > 0:
            shares[index] = evidence[mask].sum() / evidence.sum()
    return shares


def mean_color(images):
    """Of (N, H, W, C) float32 pictures: (C,) float32. In float32 sums of many would stand still."""
    return images.mean((0, 1, 2), dtype=np.float64).astype(np.float32)


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15
) -> float:
    """How far the model's confidence is from how often it is right (Guo et al. 2017).

    The pictures are put into bins by the probability of their predicted class; in each bin the
    share that is right is compared with the mean probability. Of few pictures the error is
    overestimated: even a perfectly calibrated model that is right on 97 % shows about 0.013 on 500.

    Args:
        probabilities: (N, classes) array, as `class_probabilities` returns it.
        labels: (N,) class indices.
        bins: Bins of equal width between 0 and 1.

    Returns:
        float in 0..1: the mean difference over the pictures.

    Raises:
        ValueError: If the shapes do not belong together, there is no picture, or what is given are
            no probabilities of all classes.
    """
    _, shares, confidences, right = calibration_bins(probabilities, labels, bins=bins)
    return float((shares * np.abs(right - confidences)).sum())


def calibration_bins(
    probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sort predictions by their confidence: what a reliability diagram shows.

    Args:
        probabilities: (N, classes) array.
        labels: (N,) class indices.
        bins: Bins of equal width between 0 and 1.

    Returns:
        (edges, shares, confidences, right): (bins + 1,) array and three (bins,) arrays, the share
        of the pictures, their mean probability of the predicted class, and the share of them that
        is right. A bin without pictures has zeros.

    Raises:
        ValueError: As `expected_calibration_error`.
    """
    check_integer("bins", bins, 1)
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"`probabilities` (of shape {probabilities.shape}) must be (N, classes), and `labels` "
            f"(of shape {labels.shape}) one class for each of the N pictures, 1 or more"
        )
    if probabilities.shape[1] < 2 or not np.all((0 <= probabilities) & (probabilities <= 1)):
        raise ValueError(
            f"`probabilities` (of shape {probabilities.shape}, in {probabilities.min():.3g}.."
            f"{probabilities.max():.3g}) must be those of two classes or more, in 0..1, as "
            "`class_probabilities` returns them for any head"
        )
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = np.maximum(counts, 1)
    return (
        np.linspace(0, 1, bins + 1),
        counts / len(labels),
        np.bincount(index, weights=confidence, minlength=bins) / filled,
        np.bincount(index, weights=hit, minlength=bins) / filled,
    )
