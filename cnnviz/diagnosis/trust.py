"""(model, labelled pictures) -> how far its heat maps can be trusted, in numbers.

Nobody has to mark anything: where the evidence should lie is known because the picture is put
together from others, because parts of it are taken away, or because the weights are.
"""

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

STEPS = 20  # in which a picture's pixels are taken away or put back: a twentieth of them each
BLUR = 1 / 12  # standard deviation of the blur that insertion starts from, as a share of the side


@dataclasses.dataclass(frozen=True)
class Mosaics:
    """Pictures put together from four, N of them.

    Attributes:
        images: (N, H, W, C) float32.
        class_index: (N,) int32, the class that each is about.
        masks: (N, H, W) bool, where its pictures of that class are.
    """

    images: np.ndarray
    class_index: np.ndarray
    masks: np.ndarray


@dataclasses.dataclass(frozen=True)
class MapTrust:
    """How far the maps of M methods can be trusted; each array holds one number a method.

    Attributes:
        methods: M names, as `grad_cam` takes them; the last two are "random" and "centre", which
            know nothing and know only that pictures show things in their middle.
        focus: Share of the evidence on the right half of a mosaic of two and two (0.5: by chance).
        pointing: The same with one right picture in four (0.25: by chance).
        deletion: Mean probability of the class while its evidence is taken away, the strongest
            first; low is good.
        insertion: Mean probability while it is put back into a blurred picture; high is good.
        survival: Rank correlation of a map with that of the same network with shuffled weights;
            near 0 is good: then the map shows what was learned, and not only the picture.
    """

    methods: tuple[str, ...]
    focus: np.ndarray
    pointing: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    survival: np.ndarray

    def __str__(self) -> str:
        names = [field.name for field in dataclasses.fields(self)][1:]
        lines = [f"{'method':>12}" + "".join(f"{name:>11}" for name in names)]
        for index, method in enumerate(self.methods):
            values = (getattr(self, name)[index] for name in names)
            lines.append(f"{method:>12}" + "".join(f"{value:11.3f}" for value in values))
        return "\n".join(lines)


def map_trust(
    model: keras.Model,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    methods: Sequence[Method] = tuple(METHODS),
    mosaics: int = 60,
    seed: int = 0,
) -> MapTrust:
    """Measure how far heat maps of a model can be trusted, for several methods.

    Args:
        model: keras.Model that `grad_cam` takes. It is left as it was.
        images: (N, H, W, C) pictures in the model's input range; forty of each class will do.
        labels: (N,) their classes.
        methods: Methods of `grad_cam`.
        mosaics: Mosaics that are made of the pictures.
        seed: Seed of the mosaics, of the random order and of the shuffled weights.

    Returns:
        MapTrust: Focus (Arias-Duart et al. 2022), the grid pointing game's setting (Rao et al.
        2022), deletion and insertion (Petsiuk et al. 2018) and parameter randomisation (Adebayo et
        al. 2018).

    Raises:
        ValueError: If the pictures are too few or an argument is not as said here.
    """
    images, labels = _check_labelled(model, images, labels)
    halves, quarters = (
        make_mosaics(model, images, labels, own=own, count=mosaics, seed=seed) for own in (2, 1)
    )
    shuffled = {}
    with shuffled_weights(model, seed=seed):
        for method in methods:
            shuffled[method] = grad_cam(model, images, class_index=labels, method=method).maps
    rows = []
    for method in methods:
        maps = grad_cam(model, images, class_index=labels, method=method).maps
        rows.append(
            (
                focus(model, halves, method=method),
                focus(model, quarters, method=method),
                *deletion_and_insertion(model, images, maps, labels),
                map_similarity(maps, shuffled[method]),
            )
        )
    for maps in _knowing_nothing(images, seed):
        curves = deletion_and_insertion(model, images, maps, labels)
        rows.append((0.5, 0.25, *curves, np.nan))
    return MapTrust((*methods, "random", "centre"), *np.array(rows, np.float32).T)


def _knowing_nothing(images, seed):
    """Two maps to compare with: noise, and a hill in the middle."""
    count, height, width, _ = images.shape
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    hill = np.exp(-2 * (rows**2 + columns**2)).astype(np.float32)
    noise = np.random.default_rng(seed).random((count, height, width), np.float32)
    return noise, np.repeat(hill[None], count, axis=0)


def _check_labelled(model, images, labels):
    images, labels = layers.check_images(model, images), np.asarray(labels)
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` (of shape {labels.shape}, {labels.dtype}) must be one class index for each "
            f"of the {len(images)} `images`"
        )
    return images, labels.astype(np.int32)


def make_mosaics(
    model: keras.Model,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    own: int = 2,
    count: int = 60,
    seed: int = 0,
) -> Mosaics:
    """Put pictures together, two by two, some of a class and the rest of others.

    Args:
        model: The keras.Model that will see them: where it takes one size only, the four are shrunk
            to fit (of an odd size, those on the right and below are one pixel larger); else the
            mosaics are twice as large as the pictures.
        images: (N, H, W, C) pictures in the model's input range.
        labels: (N,) their classes.
        own: How many of the four are of the class, 1 to 3.
        count: Mosaics, 1 or more; the classes take turns.
        seed: Seed of the choice and of the places.

    Returns:
        Mosaics

    Raises:
        ValueError: If a class has too few pictures, or there is only one.
    """
    images, labels = _check_labelled(model, images, labels)
    check_integer("count", count, 1)
    classes, sizes = np.unique(labels, return_counts=True)
    if own not in (1, 2, 3):
        raise ValueError(f"`own` (={own}) must be 1, 2 or 3")
    if len(classes) < 2 or sizes.min() < own or len(labels) - sizes.max() < 4 - own:
        raise ValueError(
            f"`labels` (classes {classes.tolist()}, {sizes.tolist()} pictures) must have two "
            f"classes or more, with at least {own} pictures of each and {4 - own} of others"
        )
    random = np.random.default_rng(seed)
    height, width = _mosaic_size(model, images)
    made = np.empty((count, height, width, images.shape[3]), np.float32)
    halves_of = [(slice(side // 2), slice(side // 2, side)) for side in (height, width)]
    masks = np.zeros(made.shape[:3], bool)
    chosen = classes[np.arange(count) % len(classes)]
    for mosaic, mask, index in zip(made, masks, chosen, strict=True):
        four = [
            *random.choice(np.flatnonzero(labels == index), own, replace=False),
            *random.choice(np.flatnonzero(labels != index), 4 - own, replace=False),
        ]
        for place, which in enumerate(random.permutation(4)):
            tile = halves_of[0][place // 2], halves_of[1][place % 2]
            shape = mosaic[tile].shape
            mosaic[tile] = resize_image(images[four[which]], shape[:2]).reshape(shape)
            mask[tile] = which < own
    return Mosaics(made, chosen.astype(np.int32), masks)


def _mosaic_size(model, images):
    shape = layers.input_shape(model)
    return tuple(
        2 * given if own is None else own
        for own, given in zip(shape[1:3], images.shape[1:3], strict=True)
    )


def focus(model, mosaics, **options):
    """Mean share of the evidence that lies on the right pictures of mosaics.

    Args:
        model: keras.Model that `grad_cam` takes.
        mosaics: Mosaics, as `make_mosaics` returns them.
        **options: Of `grad_cam`: `method`, `layer_name`, `output_name`.

    Returns:
        float in 0..1: maps without any evidence are left out; NaN if none has any.
    """
    maps = grad_cam(model, mosaics.images, class_index=mosaics.class_index, **options).maps
    shares = evidence_share(maps, mosaics.masks)
    return float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def deletion_and_insertion(model, images, maps, class_index):
    """How fast the probability of a class falls and rises with its evidence (Petsiuk et al. 2018).

    The pixels are painted in the mean colour of all the pictures, those with the strongest evidence
    first; or a blurred picture gets its pixels back in that order.

    Args:
        model: keras.Model that `class_probabilities` takes.
        images: (N, H, W, C) pictures in the model's input range.
        maps: (N, h, w) evidence, enlarged bilinearly to the pictures' size.
        class_index: (N,) the classes.

    Returns:
        (deletion, insertion): two floats in 0..1, the mean probability of the class along the way,
        which is the area under its curve.
    """
    rows = np.arange(len(images))
    size = images.shape[2], images.shape[1]
    enlarged = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in maps])
    order = (-enlarged.reshape(len(images), -1)).argsort(axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    rank = (rank / order.shape[1]).reshape(enlarged.shape)[..., None]
    painted = np.broadcast_to(mean_color(images), images.shape)
    sigma = BLUR * max(size)
    blurred = np.stack([cv2.GaussianBlur(one, (0, 0), sigma).reshape(one.shape) for one in images])
    areas = []
    for first, second in ((painted, images), (images, blurred)):  # above the cut, and below it
        curve = [
            layers.class_probabilities(model, np.where(rank < share, first, second))
            for share in np.linspace(0, 1, STEPS + 1)
        ]
        curve = np.stack(curve)[:, rows, class_index].mean(axis=1)
        areas.append(float((curve[:-1] + curve[1:]).mean() / 2))
    return tuple(areas)


@contextlib.contextmanager
def shuffled_weights(model, *, seed=0):
    """A `with` block in which the entries of each of a model's weights stand in another order."""
    before, random = model.get_weights(), np.random.default_rng(seed)
    try:
        model.set_weights([random.permutation(w.ravel()).reshape(w.shape) for w in before])
        yield
    finally:
        model.set_weights(before)


def map_similarity(first, second):
    """Mean rank correlation (Spearman) of maps (N, h, w) with others of the same shape.

    Returns:
        float in -1..1; pairs of which one map is the same everywhere count as 0.
    """
    correlations = [
        0.0 if np.ptp(one) == 0 or np.ptp(other) == 0 else spearmanr(one, other, axis=None)[0]
        for one, other in zip(first, second, strict=True)
    ]
    return float(np.mean(correlations))
