"""Measure how far the heat maps of a model can be trusted.

Nobody has to mark anything: where the evidence should lie is known because an image is a mosaic of
others, because parts of it are deleted, or because the weights are shuffled.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from cnnviz import figures, layers
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.measures import evidence_share, mean_color
from cnnviz.grad_cam import METHODS, Method, grad_cam
from cnnviz.results import Result

STEPS = 20  # in which an image's pixels are deleted or inserted: a twentieth of them each
BLUR = 1 / 12  # standard deviation of the blur that insertion starts from, as a share of the side
MEASURES = {
    "focus": "share of the evidence on the right half of mosaics; 0.5 by chance; high is good",
    "pointing": "share of the evidence on the right quarter; 0.25 by chance; high is good",
    "deletion": "mean probability while the evidence is deleted; low is good",
    "insertion": "mean probability while the evidence is inserted; high is good",
    "survival": "rank correlation with maps of shuffled weights; near 0 is good",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MapTrust(Result):
    """How far the maps of M methods can be trusted; each array holds one number for each method.

    Attributes:
        methods: M names, as `grad_cam` takes them; the last two are baselines: "random" values, and
            "center", a hill in the middle of the image.
        focus: Share of the evidence on the right two of the four images of a mosaic (Arias-Duart et
            al. 2022, https://arxiv.org/abs/2109.15035).
        pointing: The same with one right image of four, the grid pointing game (Rao et al. 2022,
            https://arxiv.org/abs/2205.10435).
        deletion, insertion: Mean probability of the class while its evidence is deleted, the
            strongest first, or inserted into a blurred image (Petsiuk et al. 2018,
            https://arxiv.org/abs/1806.07421).
        survival: Rank correlation of a map with that of the same model with shuffled weights
            (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292), which shows the image only.
    """

    methods: tuple[str, ...]
    focus: np.ndarray
    pointing: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    survival: np.ndarray

    def __str__(self) -> str:
        lines = []
        for name, meaning in MEASURES.items():
            best = self.best(name)
            value = getattr(self, name)[self.methods.index(best)]
            lines.append(f"{name}: {meaning}; best '{best}' with {value:.3f}")
        return "\n".join(lines)

    def best(self, measure: str) -> str:
        """The method that is best by one of `MEASURES`, baselines aside."""
        values = getattr(self, measure)[:-2]
        badness = {"deletion": values, "survival": np.abs(values)}.get(measure, -values)
        return self.methods[np.nan_to_num(badness, nan=np.inf).argmin()]

    def _columns(self):
        return {"method": self.methods} | {name: getattr(self, name) for name in MEASURES}

    def plot(self, **options: Any) -> figures.DescribedFigure:
        """Draw a panel for each measure; options of `figures.draw_map_trust`."""
        return figures.draw_map_trust(self, **options)


def map_trust(
    model: keras.Model,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    methods: Sequence[Method] = tuple(METHODS),
    n_mosaics: int = 60,
    seed: int = 0,
) -> MapTrust:
    """Measure how far heat maps of a model can be trusted, for several methods.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) in the model's input range; forty of each class will do.
        labels: (N,) class indices, or one-hot.
        methods: Methods of `grad_cam`.
        n_mosaics: Mosaics that are made of the images.
        seed: Seed of the mosaics, of the random baseline and of the shuffled weights.

    Returns:
        MapTrust

    Raises:
        ValueError: If there are too few images, or an argument is out of range.

    Warns:
        UserWarning: As `grad_cam` does.

    Example:
        >>> pets = cnnviz.drawn_pets(8, image_size=64, seed=0)
        >>> options = {"methods": ["grad-cam"], "n_mosaics": 2}
        >>> trust = cnnviz.map_trust(cnnviz.load_pretrained(), pets.images, pets.labels, **options)
        >>> trust.methods
        ('grad-cam', 'random', 'center')
    """
    images = layers.check_images(model, images)
    labels = layers.class_indices(labels, len(images))
    mosaics = [make_mosaics(model, images, labels, own, n_mosaics, seed) for own in (2, 1)]

    def maps_of(method):
        return grad_cam(model, images, class_index=labels, method=method).maps

    rows = []
    with layers.warn_once():
        with shuffled_weights(model, seed):
            shuffled = [maps_of(method) for method in methods]
        for method, others in zip(methods, shuffled, strict=True):
            maps = maps_of(method)
            shares = [focus(model, *each, method=method) for each in mosaics]
            curves = deletion_and_insertion(model, images, maps, labels)
            rows.append((*shares, *curves, map_similarity(maps, others)))
        for maps in _baselines(images, seed):
            curves = deletion_and_insertion(model, images, maps, labels)
            rows.append((0.5, 0.25, *curves, np.nan))
    return MapTrust((*methods, "random", "center"), *np.array(rows, np.float32).T)


def _baselines(images, seed):
    """Two maps for each image: noise, and a hill in the middle."""
    rows, columns = (np.linspace(-1, 1, side) for side in images.shape[1:3])
    hill = np.exp(-2 * (rows[:, None] ** 2 + columns**2)).astype(np.float32)
    noise = np.random.default_rng(seed).random(images.shape[:3], np.float32)
    return noise, np.repeat(hill[None], len(images), axis=0)


def make_mosaics(model, images, labels, own, n_mosaics, seed=0):
    """Mosaics of two by two images, `own` of them of one class and the others of other classes.

    They are twice as large as the images; if the model takes one size only, the four are shrunk.

    Returns:
        (mosaics, class_index, masks): (n, H, W, C) float32, (n,) int32, and (n, H, W) bool: where
        the images of that class are. The classes take turns.
    """
    check_integer("n_mosaics", n_mosaics, 1)
    classes, sizes = np.unique(labels, return_counts=True)
    if len(classes) < 2 or sizes.min() < own or len(labels) - sizes.max() < 4 - own:
        raise ValueError(
            f"`labels` (classes {classes.tolist()}, {sizes.tolist()} images) must have two classes "
            f"or more, with at least {own} images of each and {4 - own} of others"
        )
    random, free = np.random.default_rng(seed), [2 * side for side in images.shape[1:3]]
    size = [own or twice for own, twice in zip(layers.input_shape(model)[1:3], free, strict=True)]
    mosaics = np.empty((n_mosaics, *size, images.shape[3]), np.float32)
    masks = np.zeros(mosaics.shape[:3], bool)
    halves = [(slice(side // 2), slice(side // 2, side)) for side in size]
    chosen = np.resize(classes, n_mosaics)
    for mosaic, mask, index in zip(mosaics, masks, chosen, strict=True):
        four = [
            *random.choice(np.flatnonzero(labels == index), own, replace=False),
            *random.choice(np.flatnonzero(labels != index), 4 - own, replace=False),
        ]
        for position, which in enumerate(random.permutation(4)):
            tile = halves[0][position // 2], halves[1][position % 2]
            shape = mosaic[tile].shape
            mosaic[tile] = resize_image(images[four[which]], shape[:2]).reshape(shape)
            mask[tile] = which < own
    return mosaics, chosen.astype(np.int32), masks


def focus(model, mosaics, class_index, masks, **options):
    """Mean share of the evidence on the right images of mosaics; NaN if there is no evidence."""
    maps = grad_cam(model, mosaics, class_index=class_index, **options).maps
    shares = evidence_share(maps, masks)
    return float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def deletion_and_insertion(model, images, maps, class_index):
    """Mean probability of the class while its evidence is deleted, and while it is inserted.

    Pixels are painted in the mean color of all images, those with the strongest evidence first; or
    a blurred image gets its pixels back in that order. The mean is the area under the curve.
    """
    size = images.shape[2], images.shape[1]
    enlarged = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in maps])
    order = (-enlarged.reshape(len(images), -1)).argsort(axis=1, kind="stable")
    rank = order.argsort(axis=1) / order.shape[1]
    rank = rank.reshape(enlarged.shape)[..., None]
    painted = np.broadcast_to(mean_color(images), images.shape)
    sigma = BLUR * max(size)
    blurred = np.stack([cv2.GaussianBlur(one, (0, 0), sigma).reshape(one.shape) for one in images])
    areas = []
    for first, second in ((painted, images), (images, blurred)):
        curve = [
            layers.class_probabilities(model, np.where(rank < share, first, second))
            for share in np.linspace(0, 1, STEPS + 1)
        ]
        curve = np.stack(curve)[:, np.arange(len(images)), class_index].mean(axis=1)
        areas.append(float((curve[:-1] + curve[1:]).mean() / 2))
    return tuple(areas)


@contextlib.contextmanager
def shuffled_weights(model, seed=0):
    """A `with` block in which the entries of each of a model's weights are shuffled."""
    before, random = model.get_weights(), np.random.default_rng(seed)
    try:
        model.set_weights([random.permutation(w.ravel()).reshape(w.shape) for w in before])
        yield
    finally:
        model.set_weights(before)


def map_similarity(first, second):
    """Mean rank correlation (Spearman) of maps with others; 0 for maps that are constant."""
    correlations = [
        0.0 if np.ptp(one) == 0 or np.ptp(other) == 0 else spearmanr(one, other, axis=None)[0]
        for one, other in zip(first, second, strict=True)
    ]
    return float(np.mean(correlations))
