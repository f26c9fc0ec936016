"""(canvas) -> the photograph: what stands in front of the animal, lens and sensor, the mark."""

import cv2
import numpy as np

from cnnviz.drawn_pets.animal import placed
from cnnviz.drawn_pets.canvas import ANIMAL, PAINTED_SIDE, PART, ellipse, fill
from cnnviz.drawn_pets.scene import paint_thing


def paint_occluder(canvas, rng, pose, palette):
    """Sometimes hides a side of the head, its chin or some of the body; never all that tells."""
    side = (-1, 1)[rng.integers(2)]
    place = ((side * 1.3, -0.3), (side * 0.3, 1.35), (side * 0.7, 2.2))[rng.integers(3)]
    size = pose["unit"] * rng.uniform(0.45, 0.65)
    if rng.random() < 0.3:
        paint_thing(canvas, rng, palette, placed(place, pose, "body"), size)


def shrink(canvas, image_size):
    """The picture as float32, and the shares of each pixel that are animal and telling part."""
    size = (image_size, image_size)
    image = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)[..., :3].astype(np.float32)
    shows = canvas[..., 3]
    layers = [((shows >= least) * np.float32(1)) for least in (ANIMAL, PART)]
    return image, [cv2.resize(layer, size, interpolation=cv2.INTER_AREA) for layer in layers]


def photograph(image, rng, noise_rng):
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


def paint_stamp(image, rng):
    """Blends a pale round stamp with a star into the lower right corner; returns where, as bool."""
    side = len(image)
    canvas = np.zeros((side * max(2, -(-PAINTED_SIDE // side)),) * 2 + (4,), np.uint8)
    (x, y), radius, turn = rng.uniform(0.865, 0.89, 2), rng.uniform(0.088, 0.1), rng.normal(0, 0.2)
    for share, colour in ((1, (250, 246, 236)), (0.88, (120, 132, 160)), (0.8, (250, 246, 236))):
        fill(canvas, ellipse(x, y, radius * share, radius * share), colour, 255)
    angles = np.arange(10) * np.pi / 5 + turn - np.pi / 2
    star = np.stack([np.cos(angles), np.sin(angles)], 1) * np.tile((0.62, 0.27), 5)[:, None]
    fill(canvas, star * radius + (x, y), (120, 132, 160), 255)
    stamp = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    strength = np.float32(rng.uniform(0.6, 0.8))
    # Where the stamp covers half a pixel, its colour was averaged with black: premultiplied.
    image += strength * (stamp[..., :3] - stamp[..., 3:] / np.float32(255) * image)
    return stamp[..., 3] > 0
