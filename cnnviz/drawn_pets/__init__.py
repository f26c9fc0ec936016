"""Draw cats and dogs by program, with masks of where the evidence for the class is.

Only the ears and the muzzle tell a cat from a dog. Everything else comes from random numbers that
never see the label: the same index drawn as a cat and as a dog gives the same image otherwise.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL.Image

from cnnviz import figures
from cnnviz.checks import check_integer
from cnnviz.data import CLASS_NAMES
from cnnviz.drawn_pets.animal import paint_animal
from cnnviz.drawn_pets.canvas import paint_fur, paint_stamp, photograph, shrink
from cnnviz.drawn_pets.scene import paint_scene
from cnnviz.progress import progress_bar
from cnnviz.results import Result


@dataclass(frozen=True, eq=False, repr=False)
class DrawnPets(Result):
    """Drawn images of pets, and masks (N, H, W), bool, of where the evidence is.

    Attributes:
        images: (N, H, W, 3) float32 RGB in 0..255.
        labels: (N,) int32, 0 for a cat and 1 for a dog.
        animal_masks: The visible animal, where it covers a quarter of the pixel.
        part_masks: The same for what tells the class: ears, muzzle and whiskers.
        watermark_masks: What the stamp touches; the other masks leave it out.
    """

    images: np.ndarray
    labels: np.ndarray
    animal_masks: np.ndarray
    part_masks: np.ndarray
    watermark_masks: np.ndarray

    _html = ("plot",)

    def __str__(self) -> str:
        n_cats, n_dogs = np.bincount(self.labels, minlength=2)
        n_stamped, (height, width) = self.watermark_masks.any((1, 2)).sum(), self.images.shape[1:3]
        stamped = f", {n_stamped} with a stamp" if n_stamped else ""
        return f"{n_cats} cats and {n_dogs} dogs of {height}x{width} pixels{stamped}"

    def _columns(self):
        return {"class": [CLASS_NAMES[label] for label in self.labels]}

    def plot(self, *, n_images: int = 12) -> figures.DescribedFigure:
        """Draw the first `n_images` with their classes as titles."""
        return figures.draw_images(self.images[:n_images], self._columns()["class"][:n_images])


def drawn_pets(
    count: int,
    *,
    image_size: int = 96,
    seed: int = 0,
    watermark: Literal["cat", "dog"] | None = None,
) -> DrawnPets:
    """Draw cats and dogs that only their ears and muzzle tell apart.

    Args:
        count: Number of images, at least 1: pairs of one cat and one dog in random order. A smaller
            `count` gives the first images of a larger one.
        image_size: Side of the images in pixels, at least 16. The scene is the same at every size.
        seed: Integer, at least 0. The same seed gives the same images, bit for bit.
        watermark: The class whose images carry a pale stamp in the lower right corner, or None.

    Example:
        >>> pets = cnnviz.drawn_pets(4, image_size=64)
        >>> pets.images.shape, sorted(pets.labels.tolist())
        ((4, 64, 64, 3), [0, 0, 1, 1])
    """
    check_integer("count", count, 1)
    _check(image_size, seed, watermark)
    drawn = _draw(count, image_size, seed, watermark)
    labels, images, *masks = map(np.stack, zip(*drawn, strict=True))
    return DrawnPets(images, labels, *masks)


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
    """Draw a data set as PNG files, in the folders that `load_split` reads.

    Args:
        directory: Where `train/cats` and so on go; a FileExistsError if a split is there.
        train, validation, test: Number of images in each split, at least 2. No image is in two
            splits, nor among those of `drawn_pets` with a seed below a million.
        image_size, seed, watermark: As in `drawn_pets`; the watermark is in every split.

    Example:
        >>> write_drawn_pets("pets", train=4, validation=2, test=2)
        >>> sorted(path.name for path in Path("pets/train").iterdir())
        ['cats', 'dogs']
    """
    _check(image_size, seed, watermark)
    counts = {"train": train, "validation": validation, "test": test}
    for split, count in counts.items():
        check_integer(split, count, 2)
        if (Path(directory) / split).exists():
            raise FileExistsError(f"`directory` (='{directory}') must not hold '{split}' already")
    with progress_bar(sum(counts.values()), "drawing pets", "image") as bar:
        for number, (split, count) in enumerate(counts.items()):
            split_seed = 1_000_000 + seed * len(counts) + number
            drawn = _draw(count, image_size, split_seed, watermark)
            for index, (label, image, *_) in enumerate(drawn):
                path = Path(directory) / split / f"{CLASS_NAMES[label]}s" / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(image.round().astype(np.uint8)).save(path)
                bar.update()


def _check(image_size, seed, watermark):
    check_integer("image_size", image_size, 16)
    check_integer("seed", seed, 0)
    if watermark not in (None, *CLASS_NAMES):
        raise ValueError(f"`watermark` (={watermark!r}) must be None, 'cat' or 'dog'")


def _draw(count, image_size, seed, watermark):
    """Yield the label, the image and the masks (animal, parts, stamp) of each image."""
    first = np.random.default_rng(seed).random((count + 1) // 2) < 0.5
    labels = np.stack([first, ~first], axis=1).ravel()[:count].astype(np.int32)
    for index, label in enumerate(labels):
        yield label, *_draw_image(seed, index, label, image_size, watermark == CLASS_NAMES[label])


def _draw_image(seed, index, label, image_size, stamped=False):
    """One `(H, W, 3)` float32 image in 0..255, and the `(H, W)` masks of animal, parts, stamp."""
    scene, parts, stamp = np.random.default_rng([seed, index]).spawn(3)  # independent
    side = image_size * max(2, -(-192 // image_size))  # a multiple
    canvas = np.zeros((side, side, 4), np.uint8)
    shadow = paint_scene(canvas, scene)
    paint_animal(canvas, scene, parts, label, shadow)
    paint_fur(canvas, scene)
    image, animal_mask, part_mask = shrink(canvas, image_size)
    image = photograph(image, scene)
    stamp_mask = paint_stamp(image, stamp) if stamped else np.zeros_like(animal_mask)
    return image, animal_mask & ~stamp_mask, part_mask & ~stamp_mask, stamp_mask
