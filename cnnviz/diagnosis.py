"""(activations, evidence, masks) -> numbers that say what is wrong with a model or its data."""

import cv2
import numpy as np


def dead_channels(feature_maps):
    """Find the channels that put out one and the same value everywhere, on every picture.

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
    return highest <= lowest


def evidence_share(maps, masks):
    """Share of each heat map's evidence that lies inside a mask.

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
