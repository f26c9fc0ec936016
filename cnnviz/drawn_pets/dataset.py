"""`(count, seed) -> DrawnPets`: the pictures with their labels and masks, as arrays or as files."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image

from cnnviz.checks import check_integer
from cnnviz.drawn_pets.animal import choose_coat, choose_pose, paint_body
from cnnviz.drawn_pets.camera import paint_occluder, paint_stamp, photograph, shrink
from cnnviz.drawn_pets.canvas import PAINTED_SIDE
from cnnviz.drawn_pets.head import paint_head
from cnnviz.drawn_pets.scene import paint_background, paint_thing
from cnnviz.progress import progress_bar

_PURPOSES = ("scene", "parts", "noise", "stamp", "labels")  # of random numbers
_DRAWN_AT_ONCE = 50  # pictures between two steps of the progress bar


@dataclass(frozen=True)
class DrawnPets:
    """Drawn pictures of pets, and where in them the evidence is.

    Attributes:
        images: `(N, H, W, 3)` float32 RGB in 0..255.
        labels: `(N,)` int32, 0 for a cat and 1 for a dog.
        animal_masks: `(N, H, W)` bool, the animal as far as it is visible, its collar included.
        part_masks: `(N, H, W)` bool, the visible pieces of the parts that tell a cat from a dog:
            the ears, and the muzzle with its nose, mouth, tongue and whiskers. Within the animal.
            Both masks hold a pixel when they cover at least a quarter of it.
        watermark_masks: `(N, H, W)` bool, the planted mark, every pixel that it touches; all False
            where there is none. What it covers belongs to no other mask.
    """

    images: np.ndarray
    labels: np.ndarray
    animal_masks: np.ndarray
    part_masks: np.ndarray
    watermark_masks: np.ndarray


def drawn_pets(
    count: int,
    *,
    image_size: int = 96,
    seed: int = 0,
    watermark: Literal["cat", "dog"] | None = None,
) -> DrawnPets:
    """Draws cats and dogs whose class only the ears and the muzzle tell.

    A picture depends on `seed`, its index and `image_size` alone, so that a smaller `count` gives
    the first pictures of a larger one. Its label too: each pair of neighbours is one cat and one
    dog in random order. An odd count ends with half a pair, whose class is random.

    Args:
        count: Number of pictures, at least 1.
        image_size: Side of the pictures in pixels, at least 32. The same scene at every size.
        seed: Integer, at least 0. The same seed gives the same pictures, bit for bit.
        watermark: None, or "cat" or "dog": the class whose pictures carry a pale stamp in the
            lower right corner. Nothing outside the stamp changes.

    Returns:
        A `DrawnPets` of `count` pictures.

    Raises:
        ValueError: If an argument is out of the ranges above.

    Example:
        >>> pets = drawn_pets(4, image_size=64)
        >>> pets.images.shape, sorted(pets.labels.tolist())
        ((4, 64, 64, 3), [0, 0, 1, 1])
    """
    check_integer("count", count, 1)
    check_integer("image_size", image_size, 32)
    check_integer("seed", seed, 0)
    if watermark not in (None, "cat", "dog"):
        raise ValueError(f"`watermark` (={watermark!r}) must be None, 'cat' or 'dog'.")
    labels = _labels(count, seed)
    images = np.empty((count, image_size, image_size, 3), np.float32)
    animals, parts, marks = np.zeros((3, count, image_size, image_size), bool)
    for index, label in enumerate(labels):
        images[index], animals[index], parts[index] = _picture(seed, index, label, image_size)
        if watermark == ("cat", "dog")[label]:
            marks[index] = paint_stamp(images[index], _generator(seed, index, "stamp"))
    return DrawnPets(images, labels, animals & ~marks, parts & ~marks, marks)


def write_drawn_pets(
    directory: str | os.PathLike[str],
    *,
    train: int = 1600,
    validation: int = 200,
    test: int = 400,
    image_size: int = 96,
    seed: int = 0,
    watermark: Literal["cat", "dog"] | None = None,
) -> None:
    """Draws a data set as files, in the folders that `data_separator.py` makes of photographs.

    Args:
        directory: Where `train/cats`, `train/dogs`, `validation/cats` and so on go; made if it is
            not there.
        train, validation, test: Number of pictures in each part, at least 2. No picture is in two
            parts, nor among those of `drawn_pets` with a seed below a million.
        image_size, seed, watermark: As in `drawn_pets`; the watermark is in every part.

    Raises:
        ValueError: If an argument is out of range.
        FileExistsError: If there is something at one of the parts already.
    """
    check_integer("image_size", image_size, 32)
    check_integer("seed", seed, 0)
    counts = {"train": train, "validation": validation, "test": test}
    for part, count in counts.items():
        check_integer(part, count, 2)
        if (Path(directory) / part).exists():
            raise FileExistsError(f"`directory` (='{directory}') must not hold '{part}' already.")
    with progress_bar(sum(counts.values()), "drawing pets", "picture") as bar:
        for number, (part, count) in enumerate(counts.items(), start=1):
            for start in range(0, count, _DRAWN_AT_ONCE):
                size = min(_DRAWN_AT_ONCE, count - start)
                # Seeds of their own for every few pictures keep the parts apart, from each other
                # and from what `drawn_pets` draws with small seeds, and memory small.
                pets_seed = (seed * len(counts) + number) * 1_000_000 + start
                pets = drawn_pets(size, image_size=image_size, seed=pets_seed, watermark=watermark)
                _write(pets, Path(directory) / part, start)
                bar.update(size)


def _write(pets, directory, start):
    for index, (image, label) in enumerate(zip(pets.images, pets.labels, strict=True), start):
        folder = directory / ("cats", "dogs")[label]
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image.round().astype(np.uint8)).save(folder / f"{index}.png")


def _generator(seed, index, purpose):
    """A random stream of its own for each purpose, so that no purpose disturbs another."""
    return np.random.default_rng([seed, index, _PURPOSES.index(purpose)])


def _labels(count, seed):
    first = (_generator(seed, 0, "labels").random((count + 1) // 2) < 0.5).astype(np.int32)
    return np.stack([first, 1 - first], axis=1).ravel()[:count]


def _picture(seed, index, label, image_size):
    """One picture: `(H, W, 3)` float32 in 0..255, and the `(H, W)` masks of animal and parts."""
    scene, parts = _generator(seed, index, "scene"), _generator(seed, index, "parts")
    side = image_size * max(2, -(-PAINTED_SIDE // image_size))
    canvas = np.zeros((side, side, 4), np.uint8)
    palette = paint_background(canvas, scene)
    for _ in range(scene.integers(2, 6)):
        paint_thing(canvas, scene, palette, scene.uniform((0, 0.35), (1, 0.85)))
    pose = choose_pose(scene)
    coat = choose_coat(scene, side)
    paint_body(canvas, scene, pose, coat, palette)
    paint_head(canvas, scene, parts, pose, coat, label)
    paint_occluder(canvas, scene, pose, palette)
    image, shows = shrink(canvas, image_size)
    image = photograph(image, scene, _generator(seed, index, "noise"))
    # A quarter of a pixel counts, or whiskers would be evidence that no mask knows of.
    return image, shows[0] >= 0.25, shows[1] >= 0.25
