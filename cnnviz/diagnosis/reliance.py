"""Measure how much the predictions of a model rest on a region of the images."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from numpy.typing import ArrayLike

from cnnviz import layers
from cnnviz.diagnosis.measures import bootstrapped, evidence_share, mean_color
from cnnviz.grad_cam import Method, grad_cam
from cnnviz.results import Result
from cnnviz.targets import ClassIndex


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Reliance(Result):
    """How much the predictions of a model rest on a region of the images.

    Attributes:
        share: Mean share of the evidence that lies in the region, in 0..1; NaN without any.
        low, high: Its 95 % confidence interval, bootstrapped over the images.
        area: Share of the images that the region covers, which a map without knowledge reaches.
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
        interval = f"{self.low:.0%} to {self.high:.0%}; {self.n_images} images"
        text = f"{self.share:.0%} of the evidence ({interval}) lies on {self.area:.0%} of the image"
        return f"{text}; {self.changed:.0%} of the predictions change without it"


def reliance(
    model: keras.Model,
    images: layers.ImageData,
    masks: ArrayLike,
    *,
    class_index: ClassIndex | None = None,
    method: Method = "hires-cam",
    input_name: str | int | None = None,
) -> Reliance:
    """Measure how much a model relies on a region, such as a corner or the background.

    Two numbers tell: where the heat map lies, and whether predictions change when the region gets
    the mean color of all images. A shortcut has more evidence than area, and predictions change.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) in the model's input range, or what else `grad_cam` takes.
        masks: (N, H, W) bool, or one (H, W) for all of them: the region.
        class_index: The class whose evidence counts, or one for each image; None is the predicted.
        method, input_name: Of `grad_cam`.

    Raises:
        ValueError: If `masks` do not fit `images`, or as `grad_cam` does.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.reliance(model, image, np.ones(image.shape[:2], bool)).area
        1.0
    """
    inputs, masks = layers.all_images(model, images, fewest=1), np.asarray(masks)
    images = layers.only_image_of(model, inputs, input_name)
    if masks.dtype != bool or masks.shape not in (images.shape[1:3], images.shape[:3]):
        raise ValueError(f"`masks` ({masks.dtype}, {masks.shape}) must be bool, {images.shape[:3]}")
    masks = np.broadcast_to(masks, images.shape[:3])
    painted = np.where(masks[..., None], mean_color(images), images)
    painted = layers.with_image(model, inputs, painted, input_name)
    options = {"class_index": class_index, "method": method, "input_name": input_name}
    with layers.warn_once():
        maps = grad_cam(model, inputs, **options).maps
        before, after = (layers.class_probabilities(model, x).argmax(1) for x in (inputs, painted))
    shares, changed = evidence_share(maps, masks), (before != after).mean()
    n_images = int(np.isfinite(shares).sum())
    share, *ends = bootstrapped(shares, 2000)
    ends = ends if n_images > 1 else [np.nan, np.nan]
    return Reliance(*map(float, (share, *ends, masks.mean(), changed)), n_images)
