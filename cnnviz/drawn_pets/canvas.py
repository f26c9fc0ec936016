"""Paint on a canvas, in units of the image's side, and turn it into a photograph.

The canvas is larger than the image; shrinking smooths its edges. It has four channels: red, green,
blue, and what the pixel shows (scene, animal, or ears and muzzle), so masks fit the images.
"""

from functools import lru_cache

import cv2
import numpy as np

from cnnviz.drawn_pets.shapes import ellipse

SCENE, ANIMAL, PART = 0, 1, 2  # the canvas's fourth channel
_SUBPIXEL_BITS, _SUBPIXELS = 4, 16
_NEUTRAL = 128  # the factor 1 among the 8-bit factors that shade a surface


def new_canvas(image_size):
    """A canvas at least twice the image and at least 192 pixels wide."""
    return np.zeros((image_size * max(2, -(-192 // image_size)),) * 2 + (4,), np.uint8)


def _to_pixels(points, side):
    # cv2 puts whole numbers at pixel centers: half a pixel aligns the scene at every size.
    return np.rint(np.asarray(points) * (side * _SUBPIXELS) - _SUBPIXELS / 2).astype(np.int32)


def fill(canvas, outline, color, shows=SCENE):
    pixels = _to_pixels(outline, len(canvas))
    cv2.fillPoly(canvas, [pixels], (*map(float, color), shows), shift=_SUBPIXEL_BITS)


def draw_lines(canvas, lines, color, width, shows=SCENE):
    pixels = [_to_pixels(line, len(canvas)) for line in lines]
    color, thickness = (*map(float, color), shows), max(1, round(width * len(canvas)))
    cv2.polylines(canvas, pixels, False, color, thickness, cv2.LINE_8, _SUBPIXEL_BITS)


def glow(canvas, x, y, radius_x, radius_y, color, strength):
    """Blend a soft spot of `color` over what is there: shadows, blushes, the sun."""
    positions, spans, shares = (np.arange(len(canvas)) + 0.5) / len(canvas), [], []
    for middle, radius in ((y, radius_y), (x, radius_x)):
        share = np.maximum(1 - ((positions - middle) / (1.5 * radius)) ** 2, 0) ** 2
        touched = np.flatnonzero(share)
        spans.append(slice(touched[0], touched[-1] + 1) if len(touched) else slice(0))
        shares.append(share[spans[-1]].astype(np.float32))
    share = np.float32(strength) * np.multiply.outer(*shares)
    for channel, value in enumerate(color):
        spot = canvas[*spans, channel]
        spot[:] = spot + share * (np.float32(value) - spot)


@lru_cache
def _ball_shade(light_x, light_y, depth):
    """Roughly a ball under a lamp, as factors for the four channels; its rim is darker."""
    v, u = np.mgrid[-1:1:32j, -1:1:32j]
    return factors(1 + depth * (0.08 + 0.15 * (light_x * u + light_y * v) - 0.13 * (u**2 + v**2)))


def factors(values):
    """`(h, w)` factors around 1 as uint8, where `_NEUTRAL` is 1; the fourth channel stays as is."""
    color = np.clip(np.rint(values * _NEUTRAL), 0, 255).astype(np.uint8)
    return cv2.merge([color, color, color, np.full_like(color, _NEUTRAL)])


def fill_round(canvas, outline, color, light, *, shows=SCENE, texture=None, marks=(), depth=1.0):
    """Fill a round surface, brighter toward `light`, with `marks` painted on it."""
    side = len(canvas)
    pixels = _to_pixels(outline, side)
    x, y, width, height = cv2.boundingRect(pixels)
    left, right = max(0, x // _SUBPIXELS), min(side, (x + width) // _SUBPIXELS + 2)
    top, bottom = max(0, y // _SUBPIXELS), min(side, (y + height) // _SUBPIXELS + 2)
    if left >= right or top >= bottom:
        return
    corner = np.array((left, top), np.int32) * _SUBPIXELS
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(mask, [pixels - corner], 255, shift=_SUBPIXEL_BITS)
    layer = np.empty((*mask.shape, 4), np.uint8)
    cv2.rectangle(layer, (0, 0), mask.shape[::-1], (*map(float, color), shows), cv2.FILLED)
    for points, mark_color in marks:
        shape = _to_pixels(points, side) - corner
        cv2.fillPoly(layer, [shape], (*map(float, mark_color), shows), shift=_SUBPIXEL_BITS)
    shade = cv2.resize(_ball_shade(*light, depth), mask.shape[::-1])
    if texture is not None:
        shade = cv2.multiply(shade, texture[top:bottom, left:right], scale=1 / _NEUTRAL)
    layer = cv2.multiply(layer, shade, scale=1 / _NEUTRAL)
    cv2.copyTo(layer, mask, canvas[top:bottom, left:right])


def shrink(canvas, image_size):
    """The image as float32, and how much of each pixel shows the animal and its ears or muzzle."""
    layers = [canvas, *((canvas[..., 3] >= least).astype(np.float32) for least in (ANIMAL, PART))]
    size = (image_size, image_size)
    image, *shows = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in layers)
    return image[..., :3].astype(np.float32), *shows


def photograph(image, rng, noise_rng):
    """Change brightness and color cast, let light fall off, and add noise."""
    gain = rng.uniform(0.78, 1.14) * (1 + rng.normal(0, 0.03, 3))
    ramp = np.linspace(-0.5, 0.5, len(image))
    slope_x, slope_y = rng.normal(0, 0.14, 2)
    light = 1 + slope_x * ramp + (slope_y * ramp)[:, None] - 0.3 * (ramp**2 + ramp[:, None] ** 2)
    image = image * light[..., None].astype(np.float32) * gain.astype(np.float32)
    noise = noise_rng.standard_normal(image.shape, np.float32)
    return np.clip(image + rng.uniform(0.5, 5) * noise, 0, 255)


def paint_stamp(image, rng):
    """Blend a pale round stamp into the lower right corner; return its mask."""
    canvas, pale, dark = new_canvas(len(image)), (250, 246, 236), (120, 132, 160)
    (x, y), radius = rng.uniform(0.865, 0.89, 2), rng.uniform(0.088, 0.1)
    for share, color in ((1, pale), (0.88, dark), (0.8, pale), (0.4, dark)):
        fill(canvas, ellipse(x, y, radius * share, radius * share), color, 255)
    stamp = cv2.resize(canvas, image.shape[:2], interpolation=cv2.INTER_AREA).astype(np.float32)
    # Where the stamp covers half a pixel, its color was averaged with black: premultiplied.
    strength = np.float32(rng.uniform(0.6, 0.8))
    image += strength * (stamp[..., :3] - stamp[..., 3:] / np.float32(255) * image)
    return stamp[..., 3] > 0
