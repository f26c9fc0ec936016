"""Draw the animal's head. Only its ears and its muzzle depend on the class."""

import numpy as np

from cnnviz.drawn_pets.canvas import ANIMAL, PART, curve, ellipse, fill, mix, stroke
from cnnviz.drawn_pets.colors import INK, PINK, WHITE

_HEAD = [(0, -.92), (-.6, -.8), (-.95, -.32), (-1.0, .2), (-.68, .7), (0, .9),
         (.68, .7), (1.0, .2), (.95, -.32), (.6, -.8)]  # fmt: skip


def paint_head(animal, rng, parts_rng, label):
    """Paint the head. Only the ears and the muzzle see `label` and `parts_rng`."""
    paint_ears, paint_muzzle = ((_cat_ears, _cat_muzzle), (_dog_ears, _dog_muzzle))[label]
    hanging = label == 1 and parts_rng.random() < 0.75
    if not hanging:
        paint_ears(animal, parts_rng)
    outline = animal.head(curve(_HEAD))
    animal.fur(outline, animal.coat["base"], marks=_head_marks(animal, rng))
    _paint_eyes(animal, rng)
    paint_muzzle(animal, parts_rng)
    if hanging:
        _hanging_ears(animal, parts_rng)


def _head_marks(animal, rng):
    coat, numbers = animal.coat, rng.uniform(-1, 1, (5, 2))
    side = 1 if numbers[0, 0] > 0 else -1
    shapes, color = [], coat["dark"]
    if coat["pattern"] == "tabby":
        shapes = [stroke([(x, -1.0), (x * 0.85, -0.7), (x * 0.7, -0.45)], 0.08, 0.02)
                  for x in (-0.34, 0, 0.34)]  # fmt: skip
        shapes += [stroke([(s * 1.1, y), (s * 0.85, y + 0.05), (s * 0.68, y)], 0.07, 0.02)
                   for s in (-1, 1) for y in (0.08, 0.32)]  # fmt: skip
    elif coat["pattern"] == "patches":
        shapes, color = [ellipse(side * 0.5, -0.25, 0.52, 0.62, side * 0.4)], coat["other"]
    elif coat["pattern"] == "spots":
        shapes = [ellipse(0.7 * x, -0.65 + 0.2 * y, 0.1, 0.08) for x, y in numbers]
    marks = [(animal.head(shape), color) for shape in shapes]
    if coat["bib"]:
        blaze = [(0, -0.75), (-0.13, -0.3), (-0.5, 0.4), (-0.5, 0.95), (0.5, 0.95), (0.5, 0.4),
                 (0.13, -0.3)]  # fmt: skip
        marks.append((animal.head(curve(blaze)), coat["light"]))
    return marks


def _paint_eyes(animal, rng):
    """Paint the eyes and the cheeks."""
    size, closed = rng.uniform(0.17, 0.225), rng.random() < 0.08
    (gaze_x, gaze_y), slit = rng.uniform(-0.03, 0.03, 2), rng.uniform(0.5, 0.75)
    iris = animal.coat["iris"]
    for x in (-0.42, 0.42):
        if closed:
            lid = [(x - size, -0.08), (x - size / 2, 0.02), (x + size / 2, 0.02), (x + size, -0.08)]
            animal.lines([animal.head(lid)], INK, 0.06)
            continue
        for dx, dy, wide, high, color in (
            (0, 0, size * 1.16, size * 1.16, INK),
            (0, 0.01, size, size, mix(iris, INK, 0.25)),
            (0, 0.05, size * 0.85, size * 0.8, mix(iris, WHITE, 0.15)),
            (gaze_x, gaze_y, size * slit, size * 0.78, (24, 18, 22)),
            (gaze_x - 0.06, gaze_y - 0.08, size * 0.33, size * 0.33, WHITE),
            (gaze_x + 0.07, gaze_y + 0.07, size * 0.16, size * 0.16, WHITE),
        ):
            fill(animal.canvas, animal.head(ellipse(x + dx, -0.1 + dy, wide, high)), color, ANIMAL)
    for x in (-0.68, 0.68):
        animal.glow(animal.head((x, 0.3)), 0.26, 0.2, (240, 130, 120), 0.3)


def _cat_ears(animal, rng):
    tip, color = rng.normal((0.82, -1.5), (0.07, 0.08)), animal.coat["ear"]
    outer, inner, middle = np.array(((0.98, -0.2), (0.1, -0.75), (0.66, -0.72)))
    ear = curve([outer, mix(outer, tip, 0.5) + (0.05, 0), tip + (0.03, 0.03), tip - (0.03, 0),
                 mix(inner, tip, 0.5) + (0.03, -0.04), inner, (0.5, 0)])  # fmt: skip
    for side in (-1, 1):
        animal.fur(animal.head(ear * (side, 1)), color, shows=PART, depth=0.7)
        inside = (middle + (ear - middle) * 0.62) * (side, 1)
        animal.skin(animal.head(inside), mix(PINK, color, 0.2), PART)


def _dog_ears(animal, rng):
    """Paint ears that stand half-way and fold over, with round tips."""
    reach, color = rng.normal(1.2, 0.06), animal.coat["ear"]
    back = [(0.15, -0.7), (0.4, -1.1), (0.8, -reach), (1.1, -0.95), (1.0, -0.2), (0.5, -0.3)]
    flap = [(0.42, -1.12), (0.8, -reach - 0.02), (1.14, -0.98), (1.3, -0.6), (1.18, -0.4),
            (0.95, -0.6)]  # fmt: skip
    for side in (-1, 1):
        outline = animal.head(curve(back) * (side, 1))
        animal.fur(outline, mix(color, INK, 0.2), shows=PART, depth=0.7)
        animal.fur(animal.head(curve(flap) * (side, 1)), color, shows=PART)


def _hanging_ears(animal, rng):
    length, width = rng.uniform(0.35, 0.95), rng.uniform(0.9, 1.15)
    top = [(0.86, 0.0), (0.72, -0.5), (0.42, -0.86), (0.8, -0.92)]
    tip = [(1.15, -0.55), (1.38, length * 0.4), (1.25, length), (0.98, length * 0.92)]
    ear = curve(np.concatenate([top, np.array(tip) * (width, 1)]))
    for side in (-1, 1):
        animal.glow(animal.head((side * 0.86, 0.1)), 0.12, 0.4, INK, 0.3)
        animal.fur(animal.head(ear * (side, 1)), animal.coat["ear"], shows=PART, depth=1.2)


def _cat_muzzle(animal, rng):
    coat, size = animal.coat, rng.uniform(0.9, 1.15)
    pale = mix(coat["light"], WHITE, 0.15)
    for x, y, radius in ((0, 0.6, 0.15), (-0.17, 0.42, 0.22), (0.17, 0.42, 0.22)):
        pad = animal.head(ellipse(x * size, y, radius * size, 0.84 * radius * size))
        animal.skin(pad, pale, PART, texture=coat["texture"])
    nose = [(-0.12, 0.2), (0, 0.17), (0.12, 0.2), (0.05, 0.3), (0, 0.33), (-0.05, 0.3)]
    mouth = np.array([(0, 0.32), (0, 0.42), (0.07, 0.49), (0.16, 0.49), (0.23, 0.44)])
    lines = [animal.head(mouth * (side, 1)) for side in (-1, 1)]
    animal.lines(lines, mix(pale, INK, 0.75), 0.035, PART)
    animal.skin(animal.head(curve(np.array(nose) * (size, 1))), (226, 122, 130), PART)
    color = mix(WHITE, INK, 0.75 * (pale.mean() + coat["base"].mean() > 330))
    for side in (-1, 1):
        droop = rng.normal(0, 0.05)
        whiskers = [[(side * 0.3, 0.4 + dy), (side * 0.8, 0.34 + 2 * dy + droop),
                     (side * 1.3, 0.36 + 3 * dy + droop)] for dy in (-0.06, 0, 0.06)]  # fmt: skip
        animal.lines([animal.head(whisker) for whisker in whiskers], color, 0.02, PART)


def _dog_muzzle(animal, rng):
    coat, size, tongue = animal.coat, rng.uniform(0.9, 1.12), rng.random() < 0.4
    pale = mix(coat["light"], WHITE, 0.15)
    animal.glow(animal.head((0, 0.55)), 0.42 * size, 0.3, mix(coat["base"], INK, 0.6), 0.6)
    if tongue:
        points = [(-0.15, 0.7), (-0.17, 1.0), (0, 1.18), (0.17, 1.0), (0.15, 0.7)]
        animal.skin(animal.head(curve(points)), (232, 112, 122), PART)
    else:
        animal.skin(animal.head(ellipse(0, 0.76, 0.26 * size, 0.2)), mix(pale, INK, 0.15), PART)
    snout = [(0, 0.02), (-0.3, 0.1), (-0.5, 0.45), (-0.4, 0.74), (-0.12, 0.84), (0.12, 0.84),
             (0.4, 0.74), (0.5, 0.45), (0.3, 0.1)]  # fmt: skip
    outline = animal.head(curve(np.array(snout) * (size, 1)))
    animal.fur(outline, pale, shows=PART, depth=1.2)
    mouth = np.array([(0, 0.3), (0, 0.62), (0.14, 0.72), (0.3, 0.68), (0.4, 0.56)])
    lines = [animal.head(mouth * (side, 1)) for side in (-1, 1)]
    animal.lines(lines, mix(pale, INK, 0.75), 0.04, PART)
    nose = [(0, 0.03), (-0.2, 0.08), (-0.24, 0.22), (0, 0.4), (0.24, 0.22), (0.2, 0.08)]
    outline = animal.head(curve(np.array(nose) * (size, 1)))
    animal.skin(outline, (58, 44, 46), PART, depth=1.5)
    fill(animal.canvas, animal.head(ellipse(-0.07, 0.11, 0.07, 0.035)), (190, 184, 188), PART)
