"""(model, pictures, a region of them) -> how much the model's answers rest on that region."""

import dataclasses

import keras
import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

from cnnviz import layers
from cnnviz.diagnosis.measures import evidence_share, mean_color
from cnnviz.grad_cam import ClassIndex, Method, grad_cam


@dataclasses.dataclass(frozen=True)
class Reliance:
    """How much a model's answers rest on a region of the pictures.

    Attributes:
        share: Mean share of the evidence that lies in the region, in 0..1.
        low, high: Its 95 % confidence interval, bootstrapped over the pictures.
        area: Share of the pictures that the region covers: the share of the evidence of a map that
            knows nothing.
        changed: Share of the answers that change when the region is painted over.
        pictures: How many pictures had any evidence.
    """

    share: float
    low: float
    high: float
    area: float
    changed: float
    pictures: int

    def __str__(self) -> str:
        return (
            f"{self.share:.0%} of the evidence ({self.low:.0%} to {self.high:.0%}; {self.pictures} "
            f"pictures with any) lies on {self.area:.0%} of the picture; {self.changed:.0%} of the "
            "answers change without it"
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

    Two numbers that do not rest on each other: where the heat map lies, and whether the answer
    changes when the region is painted in the mean colour of all the pictures. A shortcut shows in
    both: far more evidence than area, and answers that change.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) pictures in the model's input range.
        masks: (N, H, W) bool, or one (H, W) for all of them: the region.
        class_index: The class whose evidence counts, one or one a picture; None takes the predicted
            one of each.
        method: Of `grad_cam`.
        seed: Seed of the bootstrap.

    Returns:
        Reliance: `share`, `low` and `high` are NaN where no map holds any evidence.

    Raises:
        ValueError: If `masks` does not fit `images`, or as `grad_cam` does.
    """
    images = layers.check_images(model, images)
    masks = np.asarray(masks)
    if masks.dtype != bool or masks.shape not in (images.shape[1:3], images.shape[:3]):
        raise ValueError(
            f"`masks` (of shape {masks.shape}, {masks.dtype}) must be bool, "
            f"{images.shape[:3]} or {images.shape[1:3]}"
        )
    masks = np.broadcast_to(masks, images.shape[:3])
    maps = grad_cam(model, images, class_index=class_index, method=method).maps
    shares = evidence_share(maps, masks)
    shares = shares[np.isfinite(shares)]
    painted = np.where(masks[..., None], mean_color(images), images)
    before, after = (layers.class_probabilities(model, x).argmax(1) for x in (images, painted))
    return Reliance(
        *_mean_and_interval(shares, seed),
        area=float(masks.mean()),
        changed=float((before != after).mean()),
        pictures=len(shares),
    )


def _mean_and_interval(values, seed):
    if len(values) < 2:
        mean = float(values.mean()) if len(values) else float("nan")
        return mean, float("nan"), float("nan")
    random = np.random.default_rng(seed)
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=random)
    return float(values.mean()), *map(float, found.confidence_interval)
