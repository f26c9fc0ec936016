"""`(count, seed) -> DrawnPets`: cats and dogs drawn by program, with the truth about the evidence.

Only the ears and the muzzle tell a cat from a dog. Everything else (scene, clutter, pose, coat,
eyes, tail, light, hidden pieces) comes from random numbers that never see the label: the same
index drawn as a cat and as a dog is the same picture, but for the ears and the muzzle.

Geometry is in units of the picture's side, so that a scene is the same at every size. It is painted
several times larger and shrunk, which smooths its edges. The canvas has four channels: red, green,
blue, and what the pixel shows (scene, animal or telling part), so masks and pictures cannot differ.
"""

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import PIL.Image

from cnnviz.checks import check_integer
from cnnviz.progress import progress_bar

_SCENE, _ANIMAL, _PART = 0, 1, 2  # the canvas's fourth channel
_PAINTED_SIDE = 192  # small pictures are painted at least this large
_SUBPIXEL_BITS = 4
_SUBPIXELS = 1 << _SUBPIXEL_BITS
_DRAWN_AT_ONCE = 50  # pictures between two steps of the progress bar
_NEUTRAL = 128  # the factor 1 among the 8-bit factors that shade a surface

_CREAM, _PINK, _INK, _WHITE = (246, 232, 208), (236, 150, 152), (44, 34, 38), (255, 255, 255)
_COATS = (
    (226, 142, 70), (240, 208, 158), (150, 150, 158), (82, 78, 88), (140, 94, 62), (104, 68, 54),
    (238, 234, 228), (204, 160, 110), (118, 130, 148), (222, 178, 96),
)  # fmt: skip
_IRISES = ((118, 160, 72), (214, 160, 50), (130, 82, 42), (92, 150, 190), (176, 122, 44))
# Each row goes together: the far surface, the ground, and three colours for things.
_ROOM_PALETTES = (
    ((206, 220, 214), (190, 148, 108), (222, 116, 92), (92, 138, 142), (240, 200, 120)),
    ((240, 218, 196), (150, 112, 92), (112, 146, 120), (208, 96, 84), (246, 236, 214)),
    ((178, 200, 222), (214, 188, 156), (236, 168, 92), (74, 98, 140), (244, 226, 208)),
    ((226, 204, 214), (170, 134, 130), (150, 104, 140), (240, 180, 150), (118, 158, 150)),
    ((196, 208, 176), (162, 122, 84), (232, 190, 96), (188, 98, 70), (238, 236, 220)),
    ((108, 122, 142), (132, 102, 88), (226, 150, 98), (164, 186, 190), (232, 206, 160)),
)
_OUTDOOR_PALETTES = (
    ((142, 194, 232), (126, 172, 92), (232, 112, 92), (246, 206, 96), (104, 144, 96)),
    ((246, 200, 164), (146, 150, 88), (206, 98, 92), (120, 110, 150), (252, 226, 160)),
    ((186, 212, 226), (168, 178, 110), (224, 142, 76), (96, 140, 150), (250, 240, 214)),
    ((170, 198, 234), (236, 240, 246), (196, 84, 84), (84, 120, 140), (150, 180, 170)),
    ((150, 206, 222), (230, 206, 158), (238, 128, 104), (64, 144, 156), (250, 222, 130)),
)


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
            marks[index] = _stamp(images[index], _generator(seed, index, "stamp"))
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
            parts.
        image_size, seed, watermark: As in `drawn_pets`; the watermark is in every part.

    Raises:
        ValueError: If an argument is out of range.
        FileExistsError: If there is something at one of the parts already.
    """
    counts = {"train": train, "validation": validation, "test": test}
    for part, count in counts.items():
        check_integer(part, count, 2)
        if (Path(directory) / part).exists():
            raise FileExistsError(f"`directory` (='{directory}') must not hold '{part}' already.")
    with progress_bar(sum(counts.values()), "drawing pets", "picture") as bar:
        for number, (part, count) in enumerate(counts.items()):
            for start in range(0, count, _DRAWN_AT_ONCE):
                size = min(_DRAWN_AT_ONCE, count - start)
                # Seeds of their own for every few pictures keep the parts apart and memory small.
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
    return np.random.default_rng([seed, index, ("scene", "parts", "noise", "stamp").index(purpose)])


def _labels(count, seed):
    first = (np.random.default_rng([seed]).random((count + 1) // 2) < 0.5).astype(np.int32)
    return np.stack([first, 1 - first], axis=1).ravel()[:count]


def _picture(seed, index, label, image_size):
    """One picture: `(H, W, 3)` float32 in 0..255, and the `(H, W)` masks of animal and parts."""
    scene, parts = _generator(seed, index, "scene"), _generator(seed, index, "parts")
    side = image_size * max(2, -(-_PAINTED_SIDE // image_size))
    canvas = np.zeros((side, side, 4), np.uint8)
    palette = _paint_background(canvas, scene)
    for _ in range(scene.integers(2, 6)):
        _paint_thing(canvas, scene, palette, scene.uniform((0, 0.35), (1, 0.85)))
    pose = _choose_pose(scene)
    coat = _choose_coat(scene, side)
    _paint_body(canvas, scene, pose, coat, palette)
    _paint_head(canvas, scene, parts, pose, coat, label)
    _paint_occluder(canvas, scene, pose, palette)
    image, shows = _shrink(canvas, image_size)
    image = _photograph(image, scene, _generator(seed, index, "noise"))
    # A quarter of a pixel counts, or whiskers would be evidence that no mask knows of.
    return image, shows[0] >= 0.25, shows[1] >= 0.25


# Painting ---------------------------------------------------------------------------------------


@lru_cache
def _curve_matrix(count, steps=8):
    """Catmull-Rom weights `(count * steps, count)` of a closed curve through `count` points."""
    t = np.arange(steps) / steps
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    matrix = np.zeros((count, steps, count))
    for start in range(count):
        for offset, weight in enumerate(weights):
            matrix[start, :, (start + offset - 1) % count] += weight / 2
    return matrix.reshape(count * steps, count)


def _curve(points):
    return _curve_matrix(len(points)) @ np.asarray(points, float)


_CIRCLE = np.stack([f(np.arange(0, 2 * np.pi, np.pi / 16)) for f in (np.cos, np.sin)], axis=1)


def _rotation(angle):
    """A matrix for points in rows, `points @ _rotation(angle)`."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array(((cosine, sine), (-sine, cosine)))


def _ellipse(x, y, radius_x, radius_y, angle=0.0):
    points = _CIRCLE * (radius_x, radius_y)
    return (points @ _rotation(angle) if angle else points) + (x, y)


def _band(points, width_start, width_end):
    """The outline of a soft stroke along the open curve through `points`."""
    points = np.asarray(points, float)
    along = _central_difference(len(points)) @ points
    along /= np.hypot(*along.T)[:, None]
    across = along[:, ::-1] * (-1, 1) * np.linspace(width_start, width_end, len(points))[:, None]
    tip = points[-1:] + along[-1:] * width_end
    return _curve(np.concatenate([points + across, tip, (points - across)[::-1]]))


@lru_cache
def _central_difference(count):
    return np.gradient(np.eye(count), axis=0)


def _soft_rectangle(left, top, right, bottom):
    """A rectangle with round corners."""
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    rounded = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.3
    return rounded * (half_width, half_height) + (left + half_width, top + half_height)


def _rectangle(left, top, right, bottom):
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def _mix(first, second, share):
    return np.asarray(first, float) * (1 - share) + np.asarray(second, float) * share


def _to_pixels(points, side):
    # cv2 puts whole numbers at pixel centres: half a pixel aligns the scene at every size.
    return np.rint(np.asarray(points) * (side * _SUBPIXELS) - _SUBPIXELS / 2).astype(np.int32)


def _fill(canvas, outline, colour, shows=_SCENE):
    pixels = _to_pixels(outline, len(canvas))
    cv2.fillPoly(canvas, [pixels], (*map(float, colour), shows), shift=_SUBPIXEL_BITS)


def _draw_lines(canvas, lines, colour, width, shows=_SCENE):
    side = len(canvas)
    pixels = [_to_pixels(line, side) for line in lines]
    thickness = max(1, round(width * side))
    colour = (*map(float, colour), shows)
    cv2.polylines(canvas, pixels, False, colour, thickness, cv2.LINE_8, _SUBPIXEL_BITS)


def _span(low, high, side):
    """The whole pixels from `low` to `high` (in pixels) that are on the canvas."""
    return max(0, math.floor(low)), min(side, math.ceil(high) + 1)


def _glow(canvas, x, y, radius_x, radius_y, colour, strength):
    """Blends a soft spot of `colour` over what is there: shadows, blushes, the sun."""
    side, weights = len(canvas), []
    for middle, radius in ((x * side, 1.5 * radius_x * side), (y * side, 1.5 * radius_y * side)):
        start, end = _span(middle - radius, middle + radius, side)
        if start >= end:
            return
        distance = ((np.arange(start, end) + 0.5 - middle) / radius).astype(np.float32)
        weights.append((slice(start, end), np.maximum(1 - distance**2, 0) ** 2))
    (columns, across), (rows, down) = weights
    share = cv2.gemm(down[:, None], across[None], float(strength), None, 0)
    spot = canvas[rows, columns]
    flat = np.empty_like(spot)
    cv2.rectangle(flat, (0, 0), flat.shape[1::-1], (*map(float, colour), 0), cv2.FILLED)
    blended = cv2.blendLinear(spot, flat, 1 - share, share)
    cv2.mixChannels([spot], [blended], (3, 3))  # what the pixels show stays as it was
    canvas[rows, columns] = blended


@lru_cache
def _ball_shade(light_x, light_y, depth):
    """Roughly a ball under a lamp, as factors for the four channels: light falls off to its rim."""
    v, u = np.mgrid[-1:1:32j, -1:1:32j]
    shade = 1 + depth * (0.08 + 0.15 * (light_x * u + light_y * v) - 0.13 * (u**2 + v**2))
    return _factors(shade)


def _factors(values):
    """`(h, w)` factors around 1 as uint8, where `_NEUTRAL` is 1; the fourth channel stays as is."""
    colour = np.clip(np.rint(values * _NEUTRAL), 0, 255).astype(np.uint8)
    return cv2.merge([colour, colour, colour, np.full_like(colour, _NEUTRAL)])


def _fill_round(canvas, outline, colour, light, *, shows=_SCENE, texture=None, marks=(), depth=1.0):
    """Fills a rounded surface, brighter towards `light`, with `marks` painted on it."""
    side = len(canvas)
    pixels = _to_pixels(outline, side)
    x, y, width, height = (length / _SUBPIXELS for length in cv2.boundingRect(pixels))
    (left, right), (top, bottom) = _span(x, x + width, side), _span(y, y + height, side)
    if left >= right or top >= bottom:
        return
    corner = np.array((left, top), np.int32) * _SUBPIXELS
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(mask, [pixels - corner], 255, shift=_SUBPIXEL_BITS)
    layer = np.empty((*mask.shape, 4), np.uint8)
    cv2.rectangle(layer, (0, 0), mask.shape[::-1], (*map(float, colour), shows), cv2.FILLED)
    for points, mark_colour in marks:
        shape = _to_pixels(points, side) - corner
        cv2.fillPoly(layer, [shape], (*map(float, mark_colour), shows), shift=_SUBPIXEL_BITS)
    shade = cv2.resize(_ball_shade(*light, depth), mask.shape[::-1])
    if texture is not None:
        shade = cv2.multiply(shade, texture[top:bottom, left:right], scale=1 / _NEUTRAL)
    layer = cv2.multiply(layer, shade, scale=1 / _NEUTRAL)
    cv2.copyTo(layer, mask, canvas[top:bottom, left:right])


# Scene ------------------------------------------------------------------------------------------


def _paint_background(canvas, rng):
    """Paints the scene without the animal; returns the colours that go with it."""
    paint = (_paint_outdoors, _paint_room, _paint_sofa, _paint_studio)[rng.integers(4)]
    palettes = _OUTDOOR_PALETTES if paint is _paint_outdoors else _ROOM_PALETTES
    palette = np.array(palettes[rng.integers(len(palettes))], float)
    palette = np.clip(palette + rng.normal(0, 8, (5, 1)) + rng.normal(0, 4, (5, 3)), 0, 255)
    paint(canvas, rng, palette, rng.uniform(0.46, 0.68))
    return palette


def _paint_gradient(canvas, top, bottom, start, end):
    side = len(canvas)
    first, last = round(start * side), round(end * side)
    share = np.linspace(0, 1, last - first)[:, None]
    rows = np.zeros((last - first, 1, 4), np.uint8)
    rows[:, 0, :3] = np.clip(np.asarray(top) * (1 - share) + np.asarray(bottom) * share, 0, 255)
    canvas[first:last] = cv2.repeat(rows, 1, side)


def _paint_outdoors(canvas, rng, palette, horizon):
    sky, ground, *_, far = palette
    _paint_gradient(canvas, _mix(sky, (70, 130, 210), 0.2), _mix(sky, _WHITE, 0.45), 0, horizon)
    _glow(canvas, *rng.uniform((0, 0), (1, 0.3)), 0.2, 0.2, (255, 244, 206), rng.uniform(0.3, 0.9))
    for x, y in rng.uniform((0, 0.05), (1, 0.35), (rng.integers(0, 4), 2)):
        for dx, size in ((-0.07, 0.035), (0, 0.055), (0.07, 0.04)):
            _glow(canvas, x + dx, y - size / 2, size * 1.5, size, _WHITE, 0.75)
    for share in (0.5, 0.2):
        heights = horizon - share * rng.uniform(0.05, 0.36, 6)
        ridge = [*zip(np.linspace(-0.3, 1.3, 6), heights, strict=True), (1.4, 1.2), (-0.4, 1.2)]
        _fill(canvas, _curve(ridge), _mix(_mix(far, ground, 0.5), sky, share))
    _paint_gradient(canvas, _mix(ground, _WHITE, 0.12), _mix(ground, _INK, 0.14), horizon, 1)
    roots = rng.uniform((0, horizon), (1, 1.02), (120, 2))
    tips = roots + rng.normal(0, 0.006, (120, 2)) - (0, 0.022)
    blades = np.stack([roots, tips], axis=1)
    _draw_lines(canvas, blades[:60], _mix(ground, _INK, 0.2), 0.005)
    _draw_lines(canvas, blades[60:], _mix(ground, _WHITE, 0.25), 0.005)
    for number, (x, y) in enumerate(rng.uniform((0, horizon), (1, 1), (rng.integers(0, 12), 2))):
        _fill(canvas, _ellipse(x, y, 0.011, 0.011), palette[2 + number % 2])
        _fill(canvas, _ellipse(x, y, 0.005, 0.005), _CREAM)


def _paint_room(canvas, rng, palette, horizon):
    wall, floor, first, second, third = palette
    _paint_gradient(canvas, _mix(wall, _WHITE, 0.15), wall, 0, horizon)
    paper, pitch = rng.integers(3), rng.uniform(0.07, 0.16)
    for x in np.arange(rng.uniform(0, pitch), 1, pitch) if paper else ():
        if paper == 1:
            _fill(canvas, _rectangle(x, 0, x + pitch / 3, horizon), _mix(wall, third, 0.35))
        else:
            for y in np.arange(pitch / 2, horizon, pitch):
                _fill(canvas, _ellipse(x, y, pitch / 7, pitch / 7), _mix(wall, second, 0.3))
    _paint_gradient(canvas, floor, _mix(floor, _INK, 0.12), horizon, 1)
    starts = np.linspace(-1, 2, 12)
    planks = [((0.5 + (x - 0.5) * 0.6, horizon), (0.5 + (x - 0.5) * 1.5, 1)) for x in starts]
    _draw_lines(canvas, planks, _mix(floor, _INK, 0.22), 0.005)
    _fill(canvas, _rectangle(-0.1, horizon - 0.035, 1.1, horizon), _mix(wall, _WHITE, 0.6))
    x, y = rng.uniform((0.1, 0.08), (0.75, 0.14))
    width, height = rng.uniform((0.14, 0.15), (0.26, 0.28))
    _fill(canvas, _rectangle(x, y, x + width, y + height), _mix(third, _INK, rng.uniform(0, 0.5)))
    inside = _rectangle(x + 0.02, y + 0.02, x + width - 0.02, y + height - 0.02)
    _fill(canvas, inside, _mix(_mix(second, (190, 220, 240), 0.6), _WHITE, 0.2))
    hill = [inside[3], inside[3] - (0, 0.05), inside[2] - (0, rng.uniform(0.03, 0.1)), inside[2]]
    _fill(canvas, np.array(hill), _mix(second, _CREAM, 0.2))
    if rng.random() < 0.6:
        centre = rng.uniform((0.3, horizon + 0.17), (0.7, 0.9))
        for share, colour in ((1, first), (0.86, third), (0.74, _mix(first, _WHITE, 0.15))):
            _fill(canvas, _ellipse(*centre, 0.46 * share, 0.13 * share), colour)


def _paint_sofa(canvas, rng, palette, horizon):
    wall, floor, first, second, third = palette
    _paint_gradient(canvas, _mix(wall, _WHITE, 0.1), wall, 0, 1)
    _paint_gradient(canvas, floor, _mix(floor, _INK, 0.15), 0.86, 1)
    cloth, light = (first, second)[rng.integers(2)], (0, -1)
    top, left, right = horizon - 0.26, rng.uniform(-0.2, 0.06), rng.uniform(0.94, 1.2)
    middle = (left + right) / 2
    for start, end in ((left, middle), (middle, right)):
        back = _soft_rectangle(start, top, end, horizon + 0.2)
        _fill_round(canvas, back, cloth, light)
    pitch = rng.uniform(0.08, 0.2)
    for x in np.arange(left + pitch, right, pitch) if rng.random() < 0.5 else ():
        _fill(canvas, _ellipse(x, top + 0.12, 0.012, 0.012), _mix(cloth, _INK, 0.3))
    seat = _soft_rectangle(left, horizon + 0.06, right, 0.93)
    _fill_round(canvas, seat, _mix(cloth, _WHITE, 0.12), light)
    for x in (left, right):
        arm = _soft_rectangle(x - 0.09, horizon - 0.04, x + 0.09, 0.95)
        _fill_round(canvas, arm, _mix(cloth, _WHITE, 0.05), light)
    x, y = rng.uniform((0.1, horizon - 0.02), (0.9, horizon + 0.06))
    cushion = _soft_rectangle(-0.11, -0.11, 0.11, 0.11) @ _rotation(rng.normal(0, 0.4)) + (x, y)
    _fill_round(canvas, cushion, third, light)


def _paint_studio(canvas, rng, palette, horizon):
    wall, floor, first, *_ = palette
    colour = (wall, floor, first)[rng.integers(3)]
    _paint_gradient(
        canvas, _mix(colour, _INK, rng.uniform(0, 0.3)), _mix(colour, _WHITE, 0.3), 0, 1
    )
    _paint_gradient(canvas, _mix(colour, _WHITE, 0.35), _mix(colour, _INK, 0.1), horizon, 1)
    _glow(canvas, 0.5, horizon, 1.0, 0.12, _mix(colour, _WHITE, 0.3), 0.9)


def _paint_thing(canvas, rng, palette, place, size=None):
    """Paints one thing at `place`; triangles and ovals among them are easily taken for parts."""
    size = rng.uniform(0.05, 0.12) if size is None else size
    coat = _COATS[rng.integers(len(_COATS))]
    colours = (*palette[2:], coat)
    colour, other = (colours[i] for i in rng.permutation(4)[:2])
    x, y = place
    kind, light, turn = rng.integers(6), (-0.5, -0.8), rng.normal(0, 0.25)
    _glow(canvas, x, y + size, size * 1.3, size * 0.3, _INK, 0.35)
    if kind == 0:  # a ball
        stripe = _ellipse(x, y, size * 1.2, size * 0.3, turn * 3)
        ball = _ellipse(x, y, size, size)
        _fill_round(canvas, ball, colour, light, marks=[(stripe, other)], depth=1.5)
    elif kind == 1:  # a plant
        for angle in np.linspace(-1, 1, 5) + turn:
            middle = np.array((x, y)) + size * np.array((np.sin(angle), -np.cos(angle)))
            leaf = _ellipse(*middle, size * 0.28, size, angle)
            _fill_round(canvas, leaf, _mix((88, 146, 92), colour, 0.2), light)
        pot = np.array([(-0.6, 0), (0.6, 0), (0.45, 1), (-0.45, 1)]) * size + (x, y)
        _fill_round(canvas, pot, other, light)
    elif kind == 2:  # a box
        box = _rectangle(-1, -0.9, 1, 1) * size @ _rotation(turn) + (x, y)
        _fill_round(canvas, box, colour, light)
        lid = [*box[:2], _mix(box[1], box[2], 0.3), _mix(box[0], box[3], 0.3)]
        _fill(canvas, lid, other)
    elif kind == 3:  # tents or fir trees: upright triangles with smaller ones inside
        for shift, share in ((-0.7, 0.8), (0.6, 1)):
            shape = np.array([(-0.75, 1), (-0.1, -1), (0.1, -1), (0.75, 1)]) * size * share
            shape = shape @ _rotation(turn) + (x + shift * size, y + size * (1 - share))
            _fill_round(canvas, shape, colour, light)
            inside = shape.mean(axis=0) + (shape - shape.mean(axis=0)) * 0.55
            _fill(canvas, inside, (other, _PINK)[rng.integers(2)])
    elif kind == 4:  # a cookie: pale and round with dark ovals, like a snout with its nose
        cookie = _ellipse(x, y, size, size * 0.85, turn)
        _fill_round(canvas, cookie, _mix((222, 174, 112), colour, 0.25), light, depth=1.3)
        for dx, dy in rng.uniform(-0.55, 0.55, (rng.integers(1, 7), 2)) * size:
            chip = _ellipse(x + dx, y + dy, size * 0.2, size * 0.15, turn)
            _fill_round(canvas, chip, (84, 56, 50), light, depth=1.5)
    else:  # hanging ovals: balloons
        for dx, dy, tint in ((-0.7, 0, colour), (0.8, 0.3, other)):
            balloon = _ellipse(x + dx * size, y + dy * size, size * 0.55, size * 0.95, dx * 0.4)
            _draw_lines(canvas, [[balloon[8], (x, y + 2.4 * size)]], _mix(tint, _INK, 0.4), 0.005)
            _fill_round(canvas, balloon, tint, light, depth=1.5)


# Animal -----------------------------------------------------------------------------------------


def _choose_pose(rng):
    """Where the animal is. Its unit is the radius of its head, its origin the head's centre."""
    kind = ("sitting", "portrait", "lying", "standing")[rng.integers(4)]
    unit, head_to_feet = {
        "sitting": (rng.uniform(0.145, 0.195), 2.95),
        "portrait": (rng.uniform(0.22, 0.3), 2.95),
        "lying": (rng.uniform(0.155, 0.215), 1.85),
        "standing": (rng.uniform(0.145, 0.19), 2.8),
    }[kind]
    reaches_sideways = kind in ("lying", "standing")
    x = rng.uniform(0.24, 0.42) if reaches_sideways else rng.uniform(0.34, 0.66)
    if rng.random() < 0.12:  # the picture's edge cuts the head, but leaves one ear and the muzzle
        x = unit * rng.uniform(0.55, 0.8)
    feet = rng.uniform(0.86, 0.97)
    y = 0.45 + (feet - 0.91) if kind == "portrait" else feet - head_to_feet * unit
    mirror = rng.random() < 0.5
    axes = np.diag([-unit if mirror else unit, unit])
    tilt = rng.normal(0, 0.16)
    return {
        "kind": kind,
        "unit": unit,
        "feet": y + head_to_feet * unit,
        "origin": np.array((1 - x if mirror else x, y)),
        "body": axes,
        "head": np.diag([rng.uniform(0.98, 1.12), rng.uniform(0.9, 1.0)]) @ _rotation(tilt) @ axes,
    }


def _place(points, pose, frame):
    return np.asarray(points, float) @ pose[frame] + pose["origin"]


@lru_cache
def _fur(side, strength):
    """Streaks of light and dark as factors, twice `side`; each picture cuts its own piece."""
    noise = np.random.default_rng(0).normal(0, 1, (512, 512)).astype(np.float32)
    streaks = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.9, sigmaY=3.5)
    return _factors(cv2.resize(1 + strength / streaks.std() * streaks, (2 * side, 2 * side)))


def _choose_coat(rng, side):
    """Colours, pattern and fur, drawn alike for both classes."""
    base = np.array(_COATS[rng.integers(len(_COATS))]) + rng.normal(0, 9) + rng.normal(0, 4, 3)
    other = np.array(_COATS[rng.integers(len(_COATS))]) + rng.normal(0, 9) + rng.normal(0, 4, 3)
    row, column = (rng.random(2) * side).astype(int)
    texture = _fur(side, (0.02, 0.04, 0.06)[rng.integers(3)])
    dark = _mix(base, _INK, 0.42) if base.sum() > 250 else _mix(base, _CREAM, 0.3)
    return {
        "base": base,
        "dark": dark,
        "light": _mix(base, _CREAM, rng.uniform(0.55, 0.9)),
        "other": other,
        "ear": (base, _mix(base, _INK, 0.25), other)[rng.choice(3, p=(0.5, 0.3, 0.2))],
        "pattern": ("plain", "tabby", "patches", "spots")[rng.integers(4)],
        "bib": rng.random() < 0.5,
        "socks": rng.random() < 0.4,
        "iris": np.array(_IRISES[rng.integers(len(_IRISES))]) + rng.normal(0, 12, 3),
        "lamp": ((-0.8, 0.8)[rng.integers(2)], -0.7),
        "texture": texture[row : row + side, column : column + side],
        "tufts": rng.uniform(-0.3, 1, 512) * rng.uniform(0.0, 0.07),
    }


def _fur_shape(canvas, outline, colour, pose, coat, *, shows=_ANIMAL, marks=(), depth=1.0):
    """A furry surface: tufts along its outline, streaks inside. `outline` in picture units."""
    away = outline - outline.mean(axis=0)
    away /= np.hypot(*away.T)[:, None] + 1e-9
    tufted = outline + away * (pose["unit"] * coat["tufts"][: len(outline), None])
    _fill_round(
        canvas, tufted, colour, coat["lamp"],
        shows=shows, texture=coat["texture"], marks=marks, depth=depth,
    )  # fmt: skip


_BODIES = {
    "sitting": [(-.55, .5), (-.85, 1.3), (-1.08, 2.1), (-1.0, 2.75), (0, 2.95), (1.0, 2.75),
                (1.08, 2.1), (.85, 1.3), (.55, .5)],
    "lying": [(-.8, .7), (-.2, .25), (1.2, .1), (2.4, .3), (3.0, 1.0), (2.85, 1.65), (1, 1.78),
              (-.75, 1.72)],
    "standing": [(-.6, .5), (.3, .3), (1.6, .5), (2.7, .35), (3.05, 1.0), (2.8, 1.75), (1.5, 1.75),
                 (.2, 1.9), (-.6, 1.4)],
}  # fmt: skip
# Hidden legs first. Knee, foot, half width, and whether it is on the far side.
_LEGS = {
    "sitting": [((-.36, 1.5), (-.36, 2.72), .25, 0), ((.36, 1.5), (.36, 2.72), .25, 0)],
    "lying": [((.7, 1.5), (-.05, 1.66), .2, 1), ((-.1, 1.5), (-.85, 1.64), .22, 0)],
    "standing": [((.75, 1.5), (.8, 2.5), .23, 1), ((2.1, 1.4), (2.05, 2.5), .23, 1),
                 ((.0, 1.5), (.0, 2.6), .26, 0), ((2.6, 1.3), (2.7, 2.6), .28, 0)],
}  # fmt: skip
_TAILS = {
    "sitting": [[(.7, 2.6), (1.6, 2.65), (2.1, 2.2), (1.9, 1.6)],
                [(.7, 2.6), (1.4, 2.1), (1.5, 1.4), (1.9, .9)]],
    "lying": [[(2.7, 1.3), (3.3, 1.7), (3.8, 1.5), (3.9, 1.0)],
              [(2.7, 1.0), (3.2, .6), (3.3, .0), (2.9, -.4)]],
    "standing": [[(2.8, .7), (3.4, .4), (3.6, -.2), (3.2, -.7)],
                 [(2.8, .7), (3.4, .9), (3.7, 1.5), (4.1, 1.6)]],
}  # fmt: skip


def _body_marks(rng, coat, outline, unit):
    """The coat's pattern on the body, and nothing where the coat is plain."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    numbers = rng.uniform(0, 1, (9, 3))  # the same numbers are used up by every pattern
    places = low + numbers[:, :2] * (high - low)
    if coat["pattern"] == "spots":
        sizes = unit * (0.1 + 0.14 * numbers[:, 2])
        return [
            (_ellipse(*p, s, s * 0.85), coat["dark"]) for p, s in zip(places, sizes, strict=True)
        ]
    if coat["pattern"] == "patches":
        return [(_ellipse(*p, unit * 0.65, unit * 0.45, s * 3), coat["other"])
                for p, s in zip(places[:3], numbers[:3, 2], strict=True)]  # fmt: skip
    if coat["pattern"] == "tabby":
        xs = np.linspace(low[0], high[0], 8) + unit * 0.2 * (numbers[:8, 0] - 0.5)
        return [(_band([(x, low[1] - unit * 0.1), (x + unit * 0.12, low[1] + unit * 0.4),
                        (x, low[1] + unit * (0.8 + 0.8 * n))], unit * 0.1, unit * 0.02),
                 coat["dark"]) for x, n in zip(xs, numbers[:8, 1], strict=True)]  # fmt: skip
    return []


def _paint_body(canvas, rng, pose, coat, palette):
    kind = "sitting" if pose["kind"] == "portrait" else pose["kind"]
    unit = pose["unit"]
    sideways = kind != "sitting"
    left, right = _place([(-0.8, 0), (3.0 if sideways else 0.9, 0)], pose, "body")[:, 0]
    shadow_width = abs(right - left) / 2 + 0.5 * unit
    for height, strength in ((0.4, 0.4), (0.2, 0.45)):
        _glow(canvas, (left + right) / 2, pose["feet"], shadow_width, height * unit, _INK, strength)
    tail = _band(_place(_TAILS[kind][rng.integers(2)], pose, "body"), 0.2 * unit, 0.13 * unit)
    _fur_shape(canvas, tail, _mix(coat["base"], coat["dark"], 0.15), pose, coat)
    paws = coat["light"] if coat["socks"] else coat["base"]
    legs = _LEGS[kind]
    for leg in legs:
        if leg[3]:
            _paint_leg(canvas, leg, pose, coat, paws)
    body = _place(_curve(_BODIES[kind]), pose, "body")
    marks = _body_marks(rng, coat, body, unit)
    if coat["bib"]:
        chest = (-0.45, 1.05, 0.45, 0.6) if sideways else (0, 1.3, 0.5, 0.75)
        marks.append((_place(_ellipse(*chest), pose, "body"), coat["light"]))
    _fur_shape(canvas, body, coat["base"], pose, coat, marks=marks)
    haunches = {"sitting": (-0.88, 0.88), "lying": (2.15,), "standing": (2.52,)}[kind]
    for x in haunches:
        y, sole = {"sitting": (2.38, 2.85), "lying": (1.2, 1.68), "standing": (1.25, None)}[kind]
        haunch = _place(_ellipse(x, y, 0.6 if sideways else 0.5, 0.55), pose, "body")
        _fur_shape(canvas, haunch, _mix(coat["base"], _WHITE, 0.04), pose, coat)
        if sole:
            paw = _place(_ellipse(x - 0.1 * sideways, sole, 0.4, 0.18), pose, "body")
            _fill_round(canvas, paw, paws, coat["lamp"], shows=_ANIMAL)
    for leg in legs:
        if not leg[3]:
            _paint_leg(canvas, leg, pose, coat, paws)
    x, y = _place((0, 0.95), pose, "body")
    _glow(canvas, x, y, 0.8 * unit, 0.35 * unit, _mix(coat["base"], _INK, 0.7), 0.5)
    if rng.random() < 0.35:
        collar = _place([(-0.62, 0.72), (0, 1.02), (0.62, 0.72)], pose, "body")
        band = _band(collar, 0.09 * unit, 0.09 * unit)
        _fill_round(canvas, band, palette[2], coat["lamp"], shows=_ANIMAL)
        tag = _place(_ellipse(0, 1.2, 0.13, 0.13), pose, "body")
        _fill_round(canvas, tag, (240, 202, 92), coat["lamp"], shows=_ANIMAL, depth=1.5)


def _paint_leg(canvas, leg, pose, coat, paw_colour):
    (knee, foot, width, is_far), unit = leg, pose["unit"]
    shade = _mix(coat["base"], _INK, 0.22 if is_far else 0.0)
    outline = _band(_place([knee, _mix(knee, foot, 0.5), foot], pose, "body"), *[width * unit] * 2)
    _fur_shape(canvas, outline, shade, pose, coat, depth=0.6)
    x, y = foot
    paw = _ellipse(x - 0.06, y + 0.1, width * 1.3, 0.2)
    paw_colour = _mix(paw_colour, _INK, 0.2 if is_far else 0.0)
    _fill_round(canvas, _place(paw, pose, "body"), paw_colour, coat["lamp"], shows=_ANIMAL)
    toes = [_place([(x + dx, y + 0.12), (x + dx, y + 0.25)], pose, "body") for dx in (-0.15, 0.02)]
    _draw_lines(canvas, toes, _mix(paw_colour, _INK, 0.45), 0.03 * unit, _ANIMAL)


# Head -------------------------------------------------------------------------------------------

_HEAD = [(0, -.92), (-.6, -.8), (-.95, -.32), (-1.0, .2), (-.68, .7), (0, .9),
         (.68, .7), (1.0, .2), (.95, -.32), (.6, -.8)]  # fmt: skip


def _paint_head(canvas, rng, parts_rng, pose, coat, label):
    """Paints the head. Only the ears and the muzzle see `label` and `parts_rng`."""
    paint_ears, paint_muzzle = ((_cat_ears, _cat_muzzle), (_dog_ears, _dog_muzzle))[label]
    hanging = label == 1 and parts_rng.random() < 0.75
    if not hanging:
        paint_ears(canvas, parts_rng, pose, coat)
    outline = _place(_curve(_HEAD), pose, "head")
    _fur_shape(canvas, outline, coat["base"], pose, coat, marks=_head_marks(rng, coat, pose))
    _paint_eyes(canvas, rng, pose, coat)
    paint_muzzle(canvas, parts_rng, pose, coat)
    if hanging:
        _hanging_ears(canvas, parts_rng, pose, coat)


def _head_marks(rng, coat, pose):
    numbers = rng.uniform(-1, 1, (5, 2))
    side = 1 if numbers[0, 0] > 0 else -1
    shapes, colour = [], coat["dark"]
    if coat["pattern"] == "tabby":
        shapes = [_band([(x, -1.0), (x * 0.85, -0.7), (x * 0.7, -0.45)], 0.08, 0.02)
                  for x in (-0.34, 0, 0.34)]  # fmt: skip
        shapes += [_band([(s * 1.1, y), (s * 0.85, y + 0.05), (s * 0.68, y)], 0.07, 0.02)
                   for s in (-1, 1) for y in (0.08, 0.32)]  # fmt: skip
    elif coat["pattern"] == "patches":
        shapes, colour = [_ellipse(side * 0.5, -0.25, 0.52, 0.62, side * 0.4)], coat["other"]
    elif coat["pattern"] == "spots":
        shapes = [_ellipse(0.7 * x, -0.65 + 0.2 * y, 0.1, 0.08) for x, y in numbers]
    marks = [(_place(shape, pose, "head"), colour) for shape in shapes]
    if coat["bib"]:
        blaze = [(0, -0.75), (-0.13, -0.3), (-0.5, 0.4), (-0.5, 0.95), (0.5, 0.95), (0.5, 0.4),
                 (0.13, -0.3)]  # fmt: skip
        marks.append((_place(_curve(blaze), pose, "head"), coat["light"]))
    return marks


def _paint_eyes(canvas, rng, pose, coat):
    """Eyes and cheeks, alike for both classes."""
    unit, size, closed = pose["unit"], rng.uniform(0.17, 0.225), rng.random() < 0.08
    gaze = rng.uniform(-0.03, 0.03, 2)
    slit = rng.uniform(0.5, 0.75)
    for x in (-0.42, 0.42):
        if closed:
            lid = [(x - size, -0.08), (x - size / 2, 0.02), (x + size / 2, 0.02), (x + size, -0.08)]
            _draw_lines(canvas, [_place(lid, pose, "head")], _INK, 0.06 * unit, _ANIMAL)
            continue
        iris = coat["iris"]
        for dx, dy, wide, high, colour in (
            (0, 0, size * 1.16, size * 1.16, _INK),
            (0, 0.01, size, size, _mix(iris, _INK, 0.25)),
            (0, 0.05, size * 0.85, size * 0.8, _mix(iris, _WHITE, 0.15)),
            (*gaze, size * slit, size * 0.78, (24, 18, 22)),
            (gaze[0] - 0.06, gaze[1] - 0.08, size * 0.33, size * 0.33, _WHITE),
            (gaze[0] + 0.07, gaze[1] + 0.07, size * 0.16, size * 0.16, _WHITE),
        ):
            shape = _place(_ellipse(x + dx, -0.1 + dy, wide, high), pose, "head")
            _fill(canvas, shape, colour, _ANIMAL)
    for x in (-0.68, 0.68):
        x, y = _place((x, 0.3), pose, "head")
        _glow(canvas, x, y, 0.26 * unit, 0.2 * unit, (240, 130, 120), 0.3)


def _cat_ears(canvas, rng, pose, coat):
    tip = rng.normal((0.82, -1.5), (0.07, 0.08))
    for side in (-1, 1):
        outer, inner = np.array((0.98, -0.2)), np.array((0.1, -0.75))
        corners = [outer, _mix(outer, tip, 0.5) + (0.05, 0), tip + (0.03, 0.03), tip - (0.03, 0),
                   _mix(inner, tip, 0.5) + (0.03, -0.04), inner, (0.5, 0)]  # fmt: skip
        ear = _place(_curve(corners) * (side, 1), pose, "head")
        _fur_shape(canvas, ear, coat["ear"], pose, coat, shows=_PART, depth=0.7)
        middle = np.array((0.66, -0.72))
        inside = _place((middle + (_curve(corners) - middle) * 0.62) * (side, 1), pose, "head")
        pink = _mix(_PINK, coat["ear"], 0.2)
        _fill_round(canvas, inside, pink, coat["lamp"], shows=_PART)


def _dog_ears(canvas, rng, pose, coat):
    """Ears that stand half-way and fold over, with round tips."""
    reach = rng.normal(1.2, 0.06)
    for side in (-1, 1):
        back = [(0.15, -0.7), (0.4, -1.1), (0.8, -reach), (1.1, -0.95), (1.0, -0.2), (0.5, -0.3)]
        ear = _place(_curve(back) * (side, 1), pose, "head")
        _fur_shape(canvas, ear, _mix(coat["ear"], _INK, 0.2), pose, coat, shows=_PART, depth=0.7)
        flap = [(0.42, -1.12), (0.8, -reach - 0.02), (1.14, -0.98), (1.3, -0.6), (1.18, -0.4),
                (0.95, -0.6)]  # fmt: skip
        flap = _place(_curve(flap) * (side, 1), pose, "head")
        _fur_shape(canvas, flap, coat["ear"], pose, coat, shows=_PART)


def _hanging_ears(canvas, rng, pose, coat):
    length, width = rng.uniform(0.35, 0.95), rng.uniform(0.9, 1.15)
    for side in (-1, 1):
        top = [(0.86, 0.0), (0.72, -0.5), (0.42, -0.86), (0.8, -0.92)]
        tip = [(1.15, -0.55), (1.38, length * 0.4), (1.25, length), (0.98, length * 0.92)]
        points = np.concatenate([top, np.array(tip) * (width, 1)])
        ear = _place(_curve(points) * (side, 1), pose, "head")
        x, y = _place((side * 0.86, 0.1), pose, "head")
        _glow(canvas, x, y, 0.12 * pose["unit"], 0.4 * pose["unit"], _INK, 0.3)
        _fur_shape(canvas, ear, coat["ear"], pose, coat, shows=_PART, depth=1.2)


def _cat_muzzle(canvas, rng, pose, coat):
    unit, size = pose["unit"], rng.uniform(0.9, 1.15)
    pale = _mix(coat["light"], _WHITE, 0.15)
    for x, y, radius in ((0, 0.6, 0.15), (-0.17, 0.42, 0.22), (0.17, 0.42, 0.22)):
        pad = _place(_ellipse(x * size, y, radius * size, 0.84 * radius * size), pose, "head")
        _fill_round(canvas, pad, pale, coat["lamp"], shows=_PART, texture=coat["texture"])
    nose = [(-0.12, 0.2), (0, 0.17), (0.12, 0.2), (0.05, 0.3), (0, 0.33), (-0.05, 0.3)]
    nose = _curve(np.array(nose) * (size, 1))
    mouths = [
        [(0, 0.32), (0, 0.42), (s * 0.07, 0.49), (s * 0.16, 0.49), (s * 0.23, 0.44)]
        for s in (-1, 1)
    ]
    lines = [_place(mouth, pose, "head") for mouth in mouths]
    _draw_lines(canvas, lines, _mix(pale, _INK, 0.75), 0.035 * unit, _PART)
    _fill_round(canvas, _place(nose, pose, "head"), (226, 122, 130), coat["lamp"], shows=_PART)
    colour = _mix(_WHITE, _INK, 0.75 * (pale.mean() + coat["base"].mean() > 330))
    for side in (-1, 1):
        droop = rng.normal(0, 0.05)
        whiskers = [[(side * 0.3, 0.4 + dy), (side * 0.8, 0.34 + 2 * dy + droop),
                     (side * 1.3, 0.36 + 3 * dy + droop)] for dy in (-0.06, 0, 0.06)]  # fmt: skip
        lines = [_place(whisker, pose, "head") for whisker in whiskers]
        _draw_lines(canvas, lines, colour, 0.02 * unit, _PART)


def _dog_muzzle(canvas, rng, pose, coat):
    unit, size, tongue = pose["unit"], rng.uniform(0.9, 1.12), rng.random() < 0.4
    pale = _mix(coat["light"], _WHITE, 0.15)
    x, y = _place((0, 0.55), pose, "head")
    _glow(canvas, x, y, 0.42 * unit * size, 0.3 * unit, _mix(coat["base"], _INK, 0.6), 0.6)
    if tongue:
        points = [(-0.15, 0.7), (-0.17, 1.0), (0, 1.18), (0.17, 1.0), (0.15, 0.7)]
        outline = _place(_curve(points), pose, "head")
        _fill_round(canvas, outline, (232, 112, 122), coat["lamp"], shows=_PART)
    else:
        chin = _place(_ellipse(0, 0.76, 0.26 * size, 0.2), pose, "head")
        _fill_round(canvas, chin, _mix(pale, _INK, 0.15), coat["lamp"], shows=_PART)
    snout = [(0, 0.02), (-0.3, 0.1), (-0.5, 0.45), (-0.4, 0.74), (-0.12, 0.84), (0.12, 0.84),
             (0.4, 0.74), (0.5, 0.45), (0.3, 0.1)]  # fmt: skip
    snout = _place(_curve(np.array(snout) * (size, 1)), pose, "head")
    _fur_shape(canvas, snout, pale, pose, coat, shows=_PART, depth=1.2)
    mouths = [
        [(0, 0.3), (0, 0.62), (s * 0.14, 0.72), (s * 0.3, 0.68), (s * 0.4, 0.56)] for s in (-1, 1)
    ]
    lines = [_place(mouth, pose, "head") for mouth in mouths]
    _draw_lines(canvas, lines, _mix(pale, _INK, 0.75), 0.04 * unit, _PART)
    nose = [(0, 0.03), (-0.2, 0.08), (-0.24, 0.22), (0, 0.4), (0.24, 0.22), (0.2, 0.08)]
    nose = _place(_curve(np.array(nose) * (size, 1)), pose, "head")
    _fill_round(canvas, nose, (58, 44, 46), coat["lamp"], shows=_PART, depth=1.5)
    _fill(canvas, _place(_ellipse(-0.07, 0.11, 0.07, 0.035), pose, "head"), (190, 184, 188), _PART)


# In front of the animal, the camera, and the mark -----------------------------------------------


def _paint_occluder(canvas, rng, pose, palette):
    """Sometimes hides a side of the head, its chin or some of the body; never all that tells."""
    side = (-1, 1)[rng.integers(2)]
    place = ((side * 1.3, -0.3), (side * 0.3, 1.35), (side * 0.7, 2.2))[rng.integers(3)]
    size = pose["unit"] * rng.uniform(0.45, 0.65)
    if rng.random() < 0.3:
        _paint_thing(canvas, rng, palette, _place(place, pose, "body"), size)


def _shrink(canvas, image_size):
    """The picture as float32, and the shares of each pixel that are animal and telling part."""
    size = (image_size, image_size)
    image = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)[..., :3].astype(np.float32)
    shows = canvas[..., 3]
    layers = [((shows >= least) * np.float32(1)) for least in (_ANIMAL, _PART)]
    return image, [cv2.resize(layer, size, interpolation=cv2.INTER_AREA) for layer in layers]


def _photograph(image, rng, noise_rng):
    """Light, lens and sensor: brightness, colour cast, falling light, blur and noise."""
    side = len(image)
    gain = rng.uniform(0.78, 1.14) * (1 + rng.normal(0, 0.03, 3))
    ramp = np.linspace(-0.5, 0.5, side)
    slope_x, slope_y = rng.normal(0, 0.14, 2)
    light = 1 + slope_x * ramp + (slope_y * ramp)[:, None] - 0.3 * (ramp**2 + ramp[:, None] ** 2)
    image = image * light[..., None].astype(np.float32) * gain.astype(np.float32)
    blur = rng.uniform(-0.009, 0.0065)
    if blur > 0.002:
        image = cv2.GaussianBlur(image, (0, 0), blur * side)
    noise = noise_rng.standard_normal(image.shape, np.float32)
    return np.clip(image + rng.uniform(0.5, 5) * noise, 0, 255)


def _stamp(image, rng):
    """Blends a pale round stamp with a star into the lower right corner; returns where, as bool."""
    side = len(image)
    canvas = np.zeros((side * max(2, -(-_PAINTED_SIDE // side)),) * 2 + (4,), np.uint8)
    (x, y), radius, turn = rng.uniform(0.865, 0.89, 2), rng.uniform(0.088, 0.1), rng.normal(0, 0.2)
    for share, colour in ((1, (250, 246, 236)), (0.88, (120, 132, 160)), (0.8, (250, 246, 236))):
        _fill(canvas, _ellipse(x, y, radius * share, radius * share), colour, 255)
    angles = np.arange(10) * np.pi / 5 + turn - np.pi / 2
    star = np.stack([np.cos(angles), np.sin(angles)], 1) * np.tile((0.62, 0.27), 5)[:, None]
    _fill(canvas, star * radius + (x, y), (120, 132, 160), 255)
    stamp = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    strength = np.float32(rng.uniform(0.6, 0.8))
    # Where the stamp covers half a pixel, its colour was averaged with black: premultiplied.
    image += strength * (stamp[..., :3] - stamp[..., 3:] / np.float32(255) * image)
    return stamp[..., 3] > 0
