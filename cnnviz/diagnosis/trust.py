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
from cnnviz.diagnosis.measures import evidence_share
from cnnviz.grad_cam import METHODS, Method, grad_cam
from cnnviz.results import Result

SHARES = 0.25, 0.5, 0.75  # of the pixels that ROAD removes
NOISE = 0.01  # of what is put in their place, a standard deviation, as a share of the value range
SWEEPS = 8  # of the solver, at each resolution; they miss the exact solution by 1 % of the range
MOST_SHUFFLED = 24  # images whose maps are made again with shuffled weights
RESAMPLES = 1000  # of a bootstrap interval
MEASURES = {  # what a number is, and what it does not tell
    "focus": "share of the evidence on the 2 images of the class in a mosaic of 4; 0.5 by chance, "
    "high is good; it does not tell where in an image the evidence lies",
    "pointing": "the same with 1 image of the class in 4; 0.25 by chance, high is good; it does "
    "not tell where in an image the evidence lies",
    "road": "how much more probability is left when the weakest pixels are removed than when the "
    "strongest are; 0 by chance, high is good; it does not tell whether they are a shortcut",
    "survival": "rank correlation with maps of shuffled weights; near 0 is good; it does not tell "
    "whether a map is right, as noise is near 0, too",
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
        road: Probability of the class without the weakest pixels, less that without the strongest;
            mean over 25, 50 and 75 % removed (Rong et al. 2022, https://arxiv.org/abs/2202.00449).
        survival: Rank correlation with maps of shuffled weights (Adebayo et al. 2018,
            https://arxiv.org/abs/1810.03292). A map that survives reflects the image, not what the
            model learned.
        n_constant: Maps that are empty or constant. They are left out of `road` and `survival`,
            which are NaN if all maps are.
        intervals: (M, 2) by measure: the ends of its 95 % bootstrap interval, over images or
            mosaics, and for `survival` over shuffles, too.
    """

    methods: tuple[str, ...]
    focus: np.ndarray
    pointing: np.ndarray
    road: np.ndarray
    survival: np.ndarray
    n_constant: np.ndarray
    intervals: dict[str, np.ndarray]

    _html = ("to_frame", "plot")
    _draw = "draw_map_trust"

    def __str__(self) -> str:
        lines = []
        for name, text in MEASURES.items():
            index, best = self.best(name), "no method has a number"
            if index is not None:
                index = self.methods.index(index)
                low, high = self.intervals[name][index]
                best = f"best '{self.methods[index]}' with {getattr(self, name)[index]:.2f}"
                best += f" ({low:.2f} to {high:.2f})"
                if low <= getattr(self, name)[-2]:  # random; NaN for survival
                    best += ", which may be chance"
            lines.append(f"{name}: {text}; {best}.")
        for method, count in zip(self.methods, self.n_constant, strict=True):
            if count:
                lines.append(f"Empty or constant maps of '{method}': {count}.")
        return "\n".join(lines)

    def best(self, measure: str) -> str | None:
        """The method that is best by one of `MEASURES`, baselines aside; None if all are NaN."""
        values = getattr(self, measure)[:-2]
        badness = np.abs(values) if measure == "survival" else -values
        return self.methods[np.nanargmin(badness)] if np.isfinite(values).any() else None

    def _columns(self):
        columns = {"method": self.methods}
        for name in MEASURES:
            low, high = self.intervals[name].T
            columns |= {name: getattr(self, name), f"{name}_low": low, f"{name}_high": high}
        return columns | {"n_constant": self.n_constant}


def map_trust(
    model: keras.Model,
    images: layers.ImageData,
    labels: ArrayLike,
    *,
    methods: Sequence[Method] = tuple(METHODS),
    n_mosaics: int = 40,
    n_shuffles: int = 8,
) -> MapTrust:
    """Measure how far heat maps of a model can be trusted, for several methods.

    Where the evidence should lie is known because an image is a mosaic of others, because parts of
    it are removed, or because the weights are shuffled.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) in the model's input range, or a dataset of batches; sixty of each
            class will do.
        labels: (N,) class indices, or one-hot.
        methods: Methods of `grad_cam`.
        n_mosaics: Mosaics that are made of the images.
        n_shuffles: How often the weights are shuffled; a single shuffle is off by 0.1.

    Raises:
        ValueError: If there are too few images of a class, or as `grad_cam` does.

    Example:
        >>> pets, model = cnnviz.drawn_pets(8, image_size=64), cnnviz.load_pretrained()
        >>> options = {"methods": ["grad-cam"], "n_mosaics": 2, "n_shuffles": 2}
        >>> cnnviz.map_trust(model, pets.images, pets.labels, **options).methods
        ('grad-cam', 'random', 'center')
    """
    layers.only_images(model, "`map_trust`")
    check_integer("n_shuffles", n_shuffles, 1)
    images = layers.all_images(model, images)
    labels = layers.class_indices(labels, len(images))
    mosaics = [make_mosaics(model, images, labels, own, n_mosaics) for own in (2, 1)]
    few = slice(None, None, -(-len(images) // MOST_SHUFFLED))

    def maps_of(method, rows=slice(None)):
        return grad_cam(model, images[rows], class_index=labels[rows], method=method).maps

    with layers.warn_once():
        maps, shuffled = [maps_of(method) for method in methods], []
        for seed in range(n_shuffles):
            with shuffled_weights(model, seed):
                shuffled.append([maps_of(method, few) for method in methods])
        rows = [
            [
                *(focus(model, *each, method=method) for each in mosaics),
                road(model, images, own, labels),
                np.stack([map_similarity(own[few], other[index]) for other in shuffled]),
            ]
            for index, (method, own) in enumerate(zip(methods, maps, strict=True))
        ]
        y, x = (np.linspace(-1, 1, side) for side in images.shape[1:3])
        hill = np.exp(-2 * (y[:, None] ** 2 + x**2)).astype(np.float32)
        noise = np.random.default_rng(0).random(images.shape[:3], np.float32)
        for baseline in noise, np.broadcast_to(hill, images.shape[:3]):
            rows.append([[0.5], [0.25], road(model, images, baseline, labels), [np.nan]])
    found = np.float32([[estimate(values) for values in row] for row in rows])
    numbers, ends = found[..., 0].T, dict(zip(MEASURES, found[..., 1:].swapaxes(0, 1), strict=True))
    n_constant = np.array([int(is_constant(own).sum()) for own in maps] + [0, 0])
    return MapTrust((*methods, "random", "center"), *numbers, n_constant, ends)


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
    """(N,) shares of the evidence on the right images of mosaics; NaN if there is no evidence."""
    return evidence_share(grad_cam(model, mosaics, class_index=class_index, **options).maps, masks)


def is_constant(maps):
    """(N,) bool of (N, h, w) maps."""
    return np.ptp(maps, axis=(1, 2)) == 0


def road(model, images, maps, class_index):
    """(N,) probabilities of the class without the weakest pixels, less those without the strongest.

    NaN where a map is constant. Equal pixels are removed in random order.
    """
    shape, random = images.shape, np.random.default_rng(0)
    values = np.stack([cv2.resize(one, shape[2:0:-1]) for one in maps]).reshape(len(maps), -1)
    order = np.lexsort((random.random(values.shape), values))  # the weakest first
    rank = (order.argsort(axis=1) / order.shape[1]).reshape(shape[:3])
    rows, differences = np.arange(len(images)), []
    for share in SHARES:
        left = []
        for removed in rank < share, rank >= 1 - share:
            filled = np.stack([impute(*pair) for pair in zip(images, removed, strict=True)])
            noise = random.normal(0, NOISE * np.ptp(images), shape).astype(np.float32)
            filled += noise * removed[..., None]
            left.append(layers.class_probabilities(model, filled)[rows, class_index])
        differences.append(left[0] - left[1])
    return np.where(is_constant(maps), np.nan, np.mean(differences, axis=0))


def impute(image, removed):
    """Make each removed pixel the mean of its 8 neighbors, those at its sides weighted twice.

    This is ROAD's linear system. It is solved from coarse to fine: at each resolution a few sweeps
    of Jacobi's method begin at the solution of half the resolution.
    """
    shape, known = image.shape, np.float32(~removed)
    kept = image * known[..., None]
    guess = np.broadcast_to(kept.sum((0, 1)) / max(known.sum(), 1), shape)
    if max(shape[:2]) > 2:
        half = (shape[1] + 1) // 2, (shape[0] + 1) // 2
        weight = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(kept, half, interpolation=cv2.INTER_AREA).reshape(*half[::-1], -1)
        coarse = impute(coarse / np.maximum(weight, 1e-6)[..., None], weight == 0)
        guess = cv2.resize(coarse, shape[1::-1]).reshape(shape)
    gain = (removed / _sum_of_neighbors(np.ones_like(known)))[..., None]
    filled = np.where(removed[..., None], guess, image)
    for _ in range(SWEEPS):
        filled = kept + gain * _sum_of_neighbors(filled)
    return filled


def _sum_of_neighbors(array):
    ends = np.float32([1, 2, 1])
    summed = cv2.sepFilter2D(array, -1, ends, ends, borderType=cv2.BORDER_CONSTANT)
    return summed.reshape(array.shape) - 4 * array


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
    """(N,) rank correlations (Spearman) of maps with others; NaN where one is constant."""
    blank = is_constant(first) | is_constant(second)
    pairs = zip(first, second, blank, strict=True)
    return np.array([np.nan if b else spearmanr(a.ravel(), o.ravel())[0] for a, o, b in pairs])


def estimate(values):
    """(mean, lower and upper end of its 95 % bootstrap interval) of (N,) or (shuffles, N) values.

    NaN is left out. Rows and columns are both drawn anew.
    """
    values, random = np.atleast_2d(values), np.random.default_rng(0)
    if not np.isfinite(values).any():
        return (np.nan,) * 3
    rows, columns = (random.integers(n, size=(RESAMPLES, n)) for n in values.shape)
    drawn = values[rows[:, :, None], columns[:, None, :]].reshape(RESAMPLES, -1)
    drawn = drawn[np.isfinite(drawn).any(axis=1)]
    return np.nanmean(values), *np.quantile(np.nanmean(drawn, axis=1), (0.025, 0.975))
