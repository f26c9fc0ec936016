"""Turn a canvas into a photograph: shrinking, light, lens and sensor, and the stamp."""

import cv2
import numpy as np

from cnnviz.drawn_pets.canvas import ANIMAL, PART, fill
from cnnviz.drawn_pets.shapes import ellipse


def new_canvas(image_size):
    """A canvas at least twice the image and at least 192 pixels wide."""
    return np.zeros((image_size * max(2, -(-192 // image_size)),) * 2 + (4,), np.uint8)


def shrink(canvas, image_size):
    """The image as float32, and how much of each pixel shows the animal and its ears or muzzle."""
    layers = [canvas, *((canvas[..., 3] >= least).astype(np.float32) for least in (ANIMAL, PART))]
    size = (image_size, image_size)
    image, *shows = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in layers)
    return image[..., :3].astype(np.float32), *shows


def photograph(image, rng, noise_rng):
    """Change brightness and color cast, let light fall off, add blur and noise."""
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
    """Blend a pale round stamp with a star into the lower right corner; return its mask."""
    canvas = new_canvas(len(image))
    (x, y), radius, turn = rng.uniform(0.865, 0.89, 2), rng.uniform(0.088, 0.1), rng.normal(0, 0.2)
    for share, color in ((1, (250, 246, 236)), (0.88, (120, 132, 160)), (0.8, (250, 246, 236))):
        fill(canvas, ellipse(x, y, radius * share, radius * share), color, 255)
    angles = np.arange(10) * np.pi / 5 + turn - np.pi / 2
    star = np.stack([np.cos(angles), np.sin(angles)], 1) * np.tile((0.62, 0.27), 5)[:, None]
    fill(canvas, star * radius + (x, y), (120, 132, 160), 255)
    stamp = cv2.resize(canvas, image.shape[:2], interpolation=cv2.INTER_AREA).astype(np.float32)
    strength = np.float32(rng.uniform(0.6, 0.8))
    # Where the stamp covers half a pixel, its color was averaged with black: premultiplied.
    image += strength * (stamp[..., :3] - stamp[..., 3:] / np.float32(255) * image)
    return stamp[..., 3] > 0
