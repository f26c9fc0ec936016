"""Measure how far the heat maps of a model can be trusted, without any marking by hand."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import cv2
import keras
import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.measures import evidence_share, mean_color
from cnnviz.grad_cam import METHODS, Method, grad_cam
from cnnviz.results import Result

STEPS = 20  # of deletion and insertion, each of a twentieth of the pixels
BLUR = 1 / 12  # standard deviation of the blur that insertion starts from, as a share of the side
MEASURES = {
    "focus": "share of the evidence on the 2 images of the class in 4; 0.5 by chance; high is good",
    "pointing": "the same with 1 image of the class in 4; 0.25 by chance; high is good",
    "deletion": "mean probability while the evidence is deleted; low is good",
    "insertion": "mean probability while the evidence is inserted; high is good",
    "survival": "rank correlation with maps of shuffled weights; near 0 is good",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MapTrust(Result):
    """How far the maps of M methods can be trusted; each array holds one number for each method.

    Attributes:
        methods: M names; the last two are baselines, "random" values and a hill in the "center",
            with focus and pointing by chance.
        focus, pointing: Share of the evidence on the two images of the class in a mosaic of four
            (Arias-Duart et al. 2022, https://arxiv.org/abs/2109.15035), and with one such image,
            the grid pointing game (Rao et al. 2022, https://arxiv.org/abs/2205.10435).
        deletion, insertion: Mean probability of the class while its evidence is deleted or inserted
            into a blurred image (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421).
        survival: Rank correlation with the map of shuffled weights (Adebayo et al. 2018,
            https://arxiv.org/abs/1810.03292). A map that survives reflects the image, not what the
            model learned.
    """

    methods: tuple[str, ...]
    focus: np.ndarray
    pointing: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    survival: np.ndarray

    _draw = "draw_map_trust"

    def __str__(self) -> str:
        table, best = self.to_frame().set_index("method"), map(self.best, MEASURES)
        rows = zip(MEASURES.items(), best, strict=True)
        return "\n".join(f"{n}: {text}; best '{b}' with {table[n][b]:.3f}" for (n, text), b in rows)

    def best(self, measure: str) -> str:
        """The method that is best by one of `MEASURES`, baselines aside."""
        values = getattr(self, measure)[:-2]
        badness = {"deletion": values, "survival": np.abs(values)}.get(measure, -values)
        return self.methods[np.nan_to_num(badness, nan=np.inf).argmin()]

    def _columns(self):
        return {"method": self.methods} | {name: getattr(self, name) for name in MEASURES}


def map_trust(
    model: keras.Model,
    images: layers.ImageData,
    labels: ArrayLike,
    *,
    methods: Sequence[Method] = tuple(METHODS),
    n_mosaics: int = 60,
) -> MapTrust:
    """Measure how far heat maps of a model can be trusted, for several methods.

    Where the evidence should lie is known because an image is a mosaic of others, because parts of
    it are deleted, or because the weights are shuffled.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) in the model's input range, or a dataset of batches; forty of each
            class will do.
        labels: (N,) class indices, or one-hot.
        methods: Methods of `grad_cam`.
        n_mosaics: Mosaics that are made of the images.

    Raises:
        ValueError: If there are too few images of a class, or as `grad_cam` does.

    Example:
        >>> pets, model = cnnviz.drawn_pets(8, image_size=64), cnnviz.load_pretrained()
        >>> options = {"methods": ["hires-cam"], "n_mosaics": 2}
        >>> cnnviz.map_trust(model, pets.images, pets.labels, **options).methods
        ('hires-cam', 'random', 'center')
    """
    layers.only_images(model, "`map_trust`")
    images, rows = layers.all_images(model, images), []
    labels = layers.class_indices(labels, len(images))
    mosaics = [make_mosaics(model, images, labels, own, n_mosaics) for own in (2, 1)]
    with layers.warn_once():
        for method in methods:
            options = {"class_index": labels, "method": method}
            maps = grad_cam(model, images, **options).maps
            with shuffled_weights(model):
                survival = map_similarity(maps, grad_cam(model, images, **options).maps)
            shares = [focus(model, *each, method=method) for each in mosaics]
            rows.append((*shares, *deletion_and_insertion(model, images, maps, labels), survival))
        y, x = (np.linspace(-1, 1, side) for side in images.shape[1:3])
        hill = np.exp(-2 * (y[:, None] ** 2 + x**2)).astype(np.float32)
        noise = np.random.default_rng(0).random(images.shape[:3], np.float32)
        for maps in noise, np.broadcast_to(hill, images.shape[:3]):
            rows.append((0.5, 0.25, *deletion_and_insertion(model, images, maps, labels), np.nan))
    return MapTrust((*methods, "random", "center"), *np.array(rows, np.float32).T)


def make_mosaics(model, images, labels, own, n_mosaics):
    """Mosaics of two by two images, `own` of them of one class and the others of other classes.

    They are twice as large as the images, or of the one size that the model takes. -> (mosaics,
    class indices, which take turns, and (n, H, W) bool masks of the images of that class).
    """
    check_integer("n_mosaics", n_mosaics, 1)
    classes, sizes = np.unique(labels, return_counts=True)
    if len(classes) < 2 or sizes.min() < own or len(labels) - sizes.max() < 4 - own:
        given = f"`labels` (classes {classes}, {sizes} images) must have two classes or more, with"
        raise ValueError(f"{given} at least {own} images of each and {4 - own} of others")
    sides = zip(layers.input_shape(model)[1:3], images.shape[1:3], strict=True)
    size = tuple(fixed or 2 * side for fixed, side in sides)
    if not layers.takes(model, (1, *size, images.shape[3])):
        size = images.shape[1:3]
    random, mosaics, masks = np.random.default_rng(0), [], []
    chosen = np.resize(classes, n_mosaics).astype(np.int32)
    for index in chosen:
        same = random.choice(np.flatnonzero(labels == index), own, replace=False)
        others = random.choice(np.flatnonzero(labels != index), 4 - own, replace=False)
        order = random.permutation(4)
        tiles = images[np.append(same, others)[order]]
        mosaic = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
        mosaics.append(resize_image(mosaic, size).reshape(*size, -1))
        quarters = np.uint8(order < own).reshape(2, 2)
        masks.append(cv2.resize(quarters, size[::-1], interpolation=cv2.INTER_NEAREST) > 0)
    return np.stack(mosaics), chosen, np.stack(masks)


def focus(model, mosaics, class_index, masks, **options):
    """Mean share of the evidence on the right images of mosaics; NaN if there is no evidence."""
    maps = grad_cam(model, mosaics, class_index=class_index, **options).maps
    shares = evidence_share(maps, masks)
    return float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def deletion_and_insertion(model, images, maps, class_index):
    """Mean probability of the class while its evidence is deleted, and while it is inserted.

    Pixels, those with the strongest evidence first, are painted in the mean color of all images, or
    return to a blurred image. The mean is the area under the curve.
    """
    size = images.shape[2], images.shape[1]
    enlarged = np.stack([cv2.resize(one, size) for one in maps])
    order = (-enlarged.reshape(len(images), -1)).argsort(axis=1, kind="stable")
    rank = (order.argsort(axis=1) / order.shape[1]).reshape(*enlarged.shape, 1)
    painted = np.broadcast_to(mean_color(images), images.shape)
    blurred = np.stack([cv2.GaussianBlur(one, (0, 0), BLUR * max(size)) for one in images])
    each, areas = (np.arange(len(images)), class_index), []
    for first, second in (painted, images), (images, blurred.reshape(images.shape)):
        mixed = (np.where(rank < share, first, second) for share in np.linspace(0, 1, STEPS + 1))
        curve = [layers.class_probabilities(model, step)[each].mean() for step in mixed]
        areas.append(np.trapezoid(curve, dx=1 / STEPS))
    return tuple(areas)


@contextlib.contextmanager
def shuffled_weights(model):
    """A `with` block in which the entries of each of a model's weights are shuffled."""
    before, random = model.get_weights(), np.random.default_rng(0)
    try:
        model.set_weights([random.permutation(w.ravel()).reshape(w.shape) for w in before])
        yield
    finally:
        model.set_weights(before)


def map_similarity(first, second):
    """Mean rank correlation (Spearman) of maps with others; 0 for maps that are constant."""
    pairs = [(np.ravel(one), np.ravel(other)) for one, other in zip(first, second, strict=True)]
    return float(np.mean([spearmanr(*p)[0] if all(map(np.ptp, p)) else 0 for p in pairs]))
