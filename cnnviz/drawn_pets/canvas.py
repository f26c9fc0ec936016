"""Paint on a canvas, in units of its side, and turn it into a photograph and its masks.

It is larger than the image; shrinking smooths its edges. It has four channels: red, green, blue,
and what the pixel shows (scene, animal, or ears and muzzle). Outlines are (n, 2) points x, y.
"""

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

SCENE, ANIMAL, PART = 0, 1, 2  # the canvas's fourth channel
INK, WHITE, PINK = (44, 34, 38), (255, 255, 255), (236, 150, 152)
SQUARE = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


def ellipse(x, y, radius_x, radius_y):
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    return np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1)


def curve(points):
    """The smooth closed outline through some points."""
    spline = CubicSpline(np.arange(len(points) + 1), [*points, points[0]], bc_type="periodic")
    return spline(np.arange(0, len(points), 1 / 8))


def mix(first, second, share):
    """A color or outline between two others."""
    return np.asarray(first) * (1 - share) + np.asarray(second) * share


class Brush:
    """Paints in coordinates of its own, which are scaled, turned and moved to the canvas's."""

    def __init__(self, canvas, origin=(0, 0), scale=1.0, angle=0.0):
        rotation = [(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))]
        self.canvas, self.origin, self.axes = canvas, origin, (np.eye(2) * scale) @ rotation

    def fill(self, outline, color, shows=SCENE, marks=(), *, depth=1.0):
        """Fill an outline as a surface that is round or flat, with marks (outline, color) on it."""
        layer, mask = np.zeros_like(self.canvas), np.zeros(self.canvas.shape[:2], np.uint8)
        for shape, shape_color in ((outline, color), *marks):
            self._fill_polygon(layer, shape, (*map(float, shape_color), shows))
        self._fill_polygon(mask, outline, 255)
        x, y, width, height = cv2.boundingRect(mask)
        u, v = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
        shade = 1 + depth * (0.08 - 0.12 * u - 0.1 * v - 0.13 * (u**2 + v**2))
        surface = layer[y : y + height, x : x + width, :3]
        surface[:] = np.clip(surface * shade[..., None], 0, 255)
        cv2.copyTo(layer, mask, self.canvas)

    def _fill_polygon(self, target, outline, color):
        # cv2 puts whole numbers at pixel centers: half a pixel aligns the scene at every size.
        pixels = (np.asarray(outline) @ self.axes + self.origin) * len(target) - 0.5
        sixteenths = np.rint(16 * pixels).astype(np.int32)
        cv2.fillPoly(target, [sixteenths], color, cv2.LINE_8, shift=4)


def paint_fur(canvas, rng):
    """Paint streaks of light and dark on the animal."""
    noise = rng.normal(1, rng.uniform(0.03, 0.1), (64, 180))
    streaks = cv2.resize(noise, canvas.shape[:2], interpolation=cv2.INTER_CUBIC)
    streaks[canvas[..., 3] == SCENE] = 1
    canvas[..., :3] = np.clip(canvas[..., :3] * streaks[..., None], 0, 255)


def shrink(canvas, image_size):
    """The image as float32, and masks of the animal and of its ears and muzzle."""
    shows = canvas[..., 3]
    layers = np.dstack([canvas[..., :3], shows >= ANIMAL, shows >= PART]).astype(np.float32)
    small = cv2.resize(layers, (image_size, image_size), interpolation=cv2.INTER_AREA)
    # A quarter of a pixel counts, or whiskers would be evidence outside of every mask.
    return small[..., :3], small[..., 3] >= 0.25, small[..., 4] >= 0.25


def photograph(image, rng):
    """Change brightness and color cast, darken the corners, and add noise."""
    gain = rng.uniform(0.78, 1.14) * (1 + rng.normal(0, 0.03, 3))
    x = np.linspace(-0.5, 0.5, len(image))
    light = 1 - 0.4 * (x**2 + x[:, None] ** 2)
    noise = rng.normal(0, rng.uniform(0.5, 5), image.shape)
    return np.clip(image * light[..., None] * gain + noise, 0, 255).astype(np.float32)


def paint_stamp(image, rng):
    """Blend a pale round stamp into the lower right corner; return its mask."""
    (x, y), radius = rng.uniform(0.865, 0.89, 2), rng.uniform(0.088, 0.1)
    positions = (np.arange(len(image)) + 0.5) / len(image)
    distance = np.hypot(positions - x, positions[:, None] - y) / radius
    is_dark = (distance < 0.4) | ((distance > 0.7) & (distance < 0.88))
    colors = np.where(is_dark[..., None], (120, 132, 160), (250, 246, 236))
    mask = distance < 1
    image[mask] = mix(image[mask], colors[mask], rng.uniform(0.6, 0.8))
    return mask
