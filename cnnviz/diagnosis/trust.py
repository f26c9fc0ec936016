"""Measure how far the heat maps of a model can be trusted, without masks drawn by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence

import cv2
import keras
import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from cnnviz import layers
from cnnviz.checks import check_integer
from cnnviz.data import resize_image
from cnnviz.diagnosis.measures import bootstrapped, evidence_share
from cnnviz.grad_cam import METHODS, Method, grad_cam
from cnnviz.results import Result

SHARES = 0.25, 0.5, 0.75  # of the pixels that ROAD removes
NOISE = 0.01  # of what is put in their place, a standard deviation, as a share of the value range
SWEEPS = 8  # of the solver, at each resolution; they miss the exact solution by 1 % of the range
NEIGHBORS = np.float32([[1, 2, 1], [2, 0, 2], [1, 2, 1]])  # their weights for a removed pixel
MOST_SHUFFLED = 12  # images with maps of shuffled weights
MEASURES = {  # what a number is, and what it does not tell
    "focus": "evidence on the 2 images of the class in a mosaic of 4, 0.5 by chance, high is good "
    "(it does not tell where in an image the evidence lies)",
    "pointing": "evidence on the only image of the class, 0.25 by chance, high is good (as focus)",
    "road": "probability without the weakest pixels, less that without the strongest, 0 by chance, "
    "high is good (it does not tell whether they are a shortcut)",
    "survival": "rank correlation with maps of shuffled weights, near 0 is good (it does not tell "
    "whether a map is right: noise is near 0, too)",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MapTrust(Result):
    """How far the maps of M methods can be trusted: (M,) numbers of each measure.

    Attributes:
        methods: M names; the last two are baselines: "random" noise, a Gaussian in the "center".
        focus: Share of the evidence on the two images of the class in a mosaic of four
            (Arias-Duart et al. 2022, https://arxiv.org/abs/2109.15035).
        pointing: The same with one such image (Rao et al. 2022, https://arxiv.org/abs/2205.10435).
        road: Probability of the class without the weakest pixels, less that without the strongest;
            mean over 25, 50 and 75 % removed (Rong et al. 2022, https://arxiv.org/abs/2202.00449).
        survival: Rank correlation with maps of shuffled weights (Adebayo et al. 2018,
            https://arxiv.org/abs/1810.03292). Maps that survive reflect the image, not the model.
        n_constant: Maps that are empty or constant, which `road` and `survival` leave out.
        intervals: (M, 2) by measure: 95 % bootstrap intervals over images, mosaics or shuffles.
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
        lines, frame = [], self.to_frame().set_index("method")
        for name, text in MEASURES.items():
            best = self.best(name)
            value, low, high = frame.loc[best or "random", [name, f"{name}_low", f"{name}_high"]]
            found = f"best '{best}' with {value:.2f} ({low:.2f} to {high:.2f})"
            found += ", which may be chance" if low <= frame[name]["random"] else ""
            lines.append(f"{name}: {text}; {found if best else 'no method has a number'}.")
        counts = zip(self.methods, self.n_constant, strict=True)
        lines += [f"Empty or constant maps of '{method}': {n}." for method, n in counts if n]
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

    No masks are needed: what a good map does is known for mosaics of images, for images from which
    pixels are removed, and for shuffled weights.

    Args:
        model: keras.Model that `grad_cam` takes; it is left as it was.
        images: (N, H, W, C) in the model's input range, or a dataset; 60 of each class are enough.
        labels: (N,) class indices, or one-hot.
        methods: Methods of `grad_cam`.
        n_mosaics, n_shuffles: How many mosaics are made, and how often the weights are shuffled.

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
        maps = {method: maps_of(method) for method in methods}
        survival = {method: [] for method in methods}
        for seed in range(n_shuffles):
            with shuffled_weights(model, seed):
                for method in methods:
                    similarity = map_similarity(maps[method][few], maps_of(method, few))
                    survival[method].append(similarity)
        y, x = (np.linspace(-1, 1, side) for side in images.shape[1:3])
        hill = np.exp(-2 * np.add.outer(y**2, x**2), dtype=np.float32)
        maps["random"] = np.random.default_rng(0).random(images.shape[:3], np.float32)
        maps["center"] = np.broadcast_to(hill, images.shape[:3])
        values = []
        for name, own in maps.items():
            shares, known = [[0.5], [0.25]], survival.get(name, [np.nan])
            if name in survival:  # no baseline
                shares = [focus(model, *each, method=name) for each in mosaics]
            values.append([*shares, road(model, images, own, labels), known])
    found = np.float32([[bootstrapped(one) for one in row] for row in values])
    ends = dict(zip(MEASURES, found[..., 1:].swapaxes(0, 1), strict=True))
    n_constant = np.array([(np.ptp(own, (1, 2)) == 0).sum() for own in maps.values()])
    return MapTrust(tuple(maps), *found[..., 0].T, n_constant, ends)


def make_mosaics(model, images, labels, own, n_mosaics):
    """Mosaics of two by two images, `own` of them of one class and the others of other classes.

    Twice as large as the images, if the model takes that. -> (mosaics, class indices, which take
    turns, and (n, H, W) bool masks of the images of that class).
    """
    check_integer("n_mosaics", n_mosaics, 1)
    classes, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < own or len(labels) - sizes.max() < 4 - own:
        given = f"`labels` (classes {classes}, {sizes} images) must have two classes or more, with"
        raise ValueError(f"{given} at least {own} images of each and {4 - own} of others")
    sides = zip(layers.input_shape(model)[1:3], images.shape[1:3], strict=True)
    size = tuple(fixed or 2 * side for fixed, side in sides)
    if not layers.takes(model, (1, *size, images.shape[3])):
        size = images.shape[1:3]
    random, chosen = np.random.default_rng(0), np.resize(classes, n_mosaics).astype(np.int32)
    mosaics, masks = [], []
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


def road(model, images, maps, class_index):
    """(N,) values of `MapTrust.road`, NaN where a map is constant; ties are broken at random."""
    shape, random = images.shape, np.random.default_rng(0)
    values = np.stack([cv2.resize(one, shape[2:0:-1]) for one in maps]).reshape(len(maps), -1)
    order = np.lexsort((random.random(values.shape), values))  # the weakest first
    rank = (order.argsort(axis=1) / order.shape[1]).reshape(shape[:3])
    noise = random.normal(0, NOISE * np.ptp(images), shape).astype(np.float32)
    differences, rows = 0, np.arange(len(images))
    for share, sign in itertools.product(SHARES, (1, -1)):
        removed = rank < share if sign > 0 else rank >= 1 - share
        filled = np.stack([impute(*pair) for pair in zip(images, removed, strict=True)])
        filled += noise * removed[..., None]
        left = layers.class_probabilities(model, filled)[rows, class_index]
        differences += sign * left / len(SHARES)
    return np.where(np.ptp(maps, (1, 2)) == 0, np.nan, differences)


def impute(image, removed):
    """Make each removed pixel the mean of its 8 neighbors, those at its sides weighted twice.

    This is ROAD's linear system. A few sweeps of Jacobi's method begin at the solution of half the
    resolution, found in the same way.
    """
    shape, removed = image.shape, np.repeat(np.float32(removed)[..., None], image.shape[2], axis=2)
    known = 1 - removed
    kept = image * known
    if max(shape[:2]) > 2:
        half = (shape[1] + 1) // 2, (shape[0] + 1) // 2
        halves = (cv2.resize(array, half, interpolation=cv2.INTER_AREA) for array in (known, kept))
        weight, total = (array.reshape(*half[::-1], -1) for array in halves)
        coarse = impute(total / np.maximum(weight, 1e-6), weight[..., 0] == 0)
        start = cv2.resize(coarse, shape[1::-1]).reshape(shape)
    else:
        start = kept.sum((0, 1)) / max(known[..., 0].sum(), 1)
    filled, gain = kept + removed * start, removed / _sum_of_neighbors(np.ones_like(kept))
    for _ in range(SWEEPS):
        filled = kept + gain * _sum_of_neighbors(filled)
    return filled


def _sum_of_neighbors(array):
    summed = cv2.filter2D(array, -1, NEIGHBORS, borderType=cv2.BORDER_CONSTANT)
    return summed.reshape(array.shape)


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
    """Mean rank correlation (Spearman) of maps (N, h, w) with others, constant ones left out."""
    pairs = [pair for pair in zip(first, second, strict=True) if np.ptp(pair, (1, 2)).all()]
    return np.mean([spearmanr(*map(np.ravel, pair))[0] for pair in pairs]) if pairs else np.nan
