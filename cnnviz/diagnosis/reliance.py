"""Measure how much the predictions of a model rest on a region of the images."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.diagnosis.measures import evidence_share, mean_color
from cnnviz.grad_cam import ClassIndex, Method, grad_cam
from cnnviz.results import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Reliance(Result):
    """How much the predictions of a model rest on a region of the images.

    Attributes:
        share: Mean share of the evidence that lies in the region, in 0..1.
        low, high: Its 95 % confidence interval, bootstrapped over the images.
        area: Share of the images that the region covers: the share of the evidence of a map without
            any knowledge.
        changed: Share of the predictions that change when the region is painted over.
        n_images: How many images had any evidence.
    """

    share: float
    low: float
    high: float
    area: float
    changed: float
    n_images: int

    _html = ()

    def __str__(self) -> str:
        return (
            f"{self.share:.0%} of the evidence ({self.low:.0%} to {self.high:.0%}; "
            f"{self.n_images} images with any) lies on {self.area:.0%} of the image; "
            f"{self.changed:.0%} of the predictions change without it"
        )


def reliance(
    model: keras.Model,
    images: ArrayLike,
    masks: ArrayLike,
    *,
    class_index: ClassIndex | None = None,
    method: Method = "hires-cam",
    seed: int = 0,
) -> Reliance:
    """Measure how much a model relies on a region, such as a corner or the background.

    Two independent numbers: where the heat map lies, and whether the prediction changes when the
    region is painted in the mean color of all images. A shortcut shows in both: far more evidence
    than area, and predictions that change.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) in the model's input range.
        masks: (N, H, W) bool, or one (H, W) for all of them: the region.
        class_index: The class whose evidence counts, one or one for each image; None takes the
            predicted class of each.
        method: Of `grad_cam`.
        seed: Seed of the bootstrap.

    Returns:
        Reliance: `share`, `low` and `high` are NaN if no map holds any evidence.

    Raises:
        ValueError: If `masks` does not fit `images`, or as `grad_cam` does.

    Warns:
        UserWarning: As `grad_cam` does.

    Example:
        >>> import cnnviz, numpy
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.reliance(model, image, numpy.ones(image.shape[:2], bool)).area
        1.0
    """
    images = layers.check_images(model, images, fewest=1)
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.shape not in (images.shape[1:3], images.shape[:3]):
        raise ValueError(
            f"`masks` (of shape {masks.shape}, {masks.dtype}) must be bool, "
            f"{images.shape[:3]} or {images.shape[1:3]}"
        )
    masks = np.broadcast_to(masks, images.shape[:3])
    painted = np.where(masks[..., None], mean_color(images), images)
    with layers.warn_once():
        maps = grad_cam(model, images, class_index=class_index, method=method).maps
        before, after = (layers.class_probabilities(model, x).argmax(1) for x in (images, painted))
    shares = evidence_share(maps, masks)
    shares = shares[np.isfinite(shares)]
    area, changed = float(masks.mean()), float((before != after).mean())
    return Reliance(*_mean_and_interval(shares, seed), area, changed, len(shares))


def _mean_and_interval(values, seed):
    mean, means = values.mean() if len(values) else np.nan, np.nan
    if len(values) > 1:
        random = np.random.default_rng(seed)
        means = random.choice(values, (2000, len(values))).mean(axis=1)
    return tuple(map(float, (mean, *np.percentile(means, (2.5, 97.5)))))
