"""Draw a sitting animal; its outlines are in radii from the center of its head."""

import numpy as np

from cnnviz.drawn_pets.canvas import ANIMAL, INK, PART, PINK, WHITE, Brush, curve, ellipse, mix

_COATS = np.array([(226, 142, 70), (240, 208, 158), (150, 150, 158), (82, 78, 88), (140, 94, 62),
                   (104, 68, 54), (238, 234, 228), (118, 130, 148)])  # fmt: skip
_IRISES = np.array([(118, 160, 72), (214, 160, 50), (130, 82, 42), (92, 150, 190)])
_BODY = curve([(0, 0.3), (-0.8, 1.2), (-1.1, 2.3), (0, 2.95), (1.1, 2.3), (0.8, 1.2)])
_TAIL = curve([(0.7, 2.5), (1.5, 2.4), (1.75, 1.4), (2, 1.2), (2.2, 1.9), (1.8, 2.7), (0.7, 2.9)])
_BLAZE = curve([(0, -0.8), (-0.13, -0.3), (-0.5, 0.5), (0, 1.1), (0.5, 0.5), (0.13, -0.3)])
_CAT_EAR = curve([(0.98, -0.2), (0.93, -0.9), (0.83, -1.5), (0.48, -1.16), (0.1, -0.75), (0.5, 0)])
_CAT_NOSE = curve([(-0.12, 0.19), (0.12, 0.19), (0, 0.34)])
_DOG_EAR = curve([(0.8, 0), (0.42, -0.86), (0.9, -0.9), (1.3, -0.3), (1.3, 0.6), (1, 0.7)])


def paint_animal(canvas, rng, parts_rng, label, shadow):
    """Paint an animal, and its shadow. Only ears and muzzle see `parts_rng` and `label`."""
    base, other = rng.choice(_COATS, 2, replace=False) + rng.normal(0, 9, (2, 1))
    pale, ear_color = mix(base, (246, 232, 208), 0.75), mix(base, INK, rng.uniform(0, 0.3))
    patches = rng.uniform((-1, -1), (1, 2.5), (rng.choice((0, 0, 6)), 2))
    marks = [(ellipse(x, y, 0.5, 0.35), other) for x, y in patches]
    if rng.random() < 0.3:
        marks += [(_BLAZE, pale), (ellipse(0, 1.5, 0.5, 0.6), pale)]
    place, unit = rng.uniform((0.2, 0.3), (0.8, 0.5)), rng.uniform(0.14, 0.23)
    body = Brush(canvas, place, (rng.choice((-unit, unit)), unit))
    _paint_body(body, base, marks, shadow)
    head = Brush(canvas, place, unit * rng.uniform((0.98, 0.9), (1.12, 1.0)), rng.normal(0, 0.16))
    paint_ears = (_paint_cat_ears, _paint_dog_ears)[label]
    paint_muzzle = (_paint_cat_muzzle, _paint_dog_muzzle)[label]
    paint_ears(head, parts_rng, ear_color)
    head.fill(ellipse(0, 0, 1, 0.92), base, ANIMAL, marks)
    _paint_eyes(head, rng)
    paint_muzzle(head, parts_rng, pale)


def _paint_body(body, color, marks, shadow):
    body.fill(ellipse(0.1, 2.85, 1.8, 0.3), shadow, depth=0)
    body.fill(_TAIL, mix(color, INK, 0.1), ANIMAL)
    below_head = (ellipse(0, 0.75, 0.8, 0.4), mix(color, INK, 0.35))
    body.fill(_BODY, color, ANIMAL, [*marks, below_head])
    for side in (-1, 1):
        body.fill(ellipse(side * 0.88, 2.38, 0.5, 0.55), color, ANIMAL)
        body.fill(ellipse(side * 0.36, 2.15, 0.27, 0.75), color, ANIMAL)
        body.fill(ellipse(side * 0.4, 2.8, 0.34, 0.2), mix(color, WHITE, 0.3), ANIMAL)


def _paint_eyes(head, rng):
    size, pupil, iris = rng.uniform(0.15, 0.2), rng.uniform(0.5, 0.75), rng.choice(_IRISES)
    for x in (-0.42, 0.42):
        head.fill(ellipse(x, -0.1, 1.16 * size, 1.16 * size), INK, ANIMAL)
        head.fill(ellipse(x, -0.095, size, size), iris, ANIMAL)
        head.fill(ellipse(x, -0.1, pupil * size, 0.78 * size), (24, 18, 22), ANIMAL)
        head.fill(ellipse(x - 0.06, -0.18, 0.3 * size, 0.3 * size), WHITE, ANIMAL)


def _paint_cat_ears(head, rng, color):
    ear = mix(_CAT_EAR, (0.6, -0.4), rng.normal(0, 0.06))
    inside = mix(ear, (0.66, -0.72), 0.38)
    for side in ((-1, 1), (1, 1)):
        head.fill(ear * side, color, PART)
        head.fill(inside * side, mix(PINK, color, 0.2), PART)


def _paint_dog_ears(head, rng, color):
    ear = (_DOG_EAR - (0.6, -0.9)) * rng.uniform((0.9, 0.75), (1.15, 1.2)) + (0.6, -0.9)
    for side in ((-1, 1), (1, 1)):
        head.fill(ear * side, color, PART)


def _paint_cat_muzzle(head, rng, color):
    size = (rng.uniform(0.75, 1), 1)
    for y, pad_color in ((0.46, mix(color, INK, 0.35)), (0.42, mix(color, WHITE, 0.15))):
        for x in (-0.17, 0.17):
            head.fill(ellipse(x, y, 0.22, 0.185) * size, pad_color, PART)
    head.fill(_CAT_NOSE * size, (226, 122, 130), PART)
    for y in (0.34, 0.4, 0.46):
        whisker = np.array([(0.3, y), (1.3, 3 * y - 0.84), (0.3, y + 0.03)])
        for side in ((-1, 1), (1, 1)):
            head.fill(whisker * side, WHITE, PART)


def _paint_dog_muzzle(head, rng, color):
    size = (rng.uniform(0.9, 1.12), 1)
    head.fill(ellipse(0, 0.5, 0.48, 0.42) * size, mix(color, INK, 0.5), PART)
    head.fill(ellipse(0, 0.44, 0.48, 0.42) * size, mix(color, WHITE, 0.15), PART)
    head.fill(ellipse(0, 0.2, 0.24, 0.18) * size, (58, 44, 46), PART)
    head.fill(ellipse(-0.07, 0.11, 0.07, 0.035) * size, (190, 184, 188), PART)
