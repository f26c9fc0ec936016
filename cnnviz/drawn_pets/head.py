"""(canvas, pose, coat, label) -> the head, of which only ears and muzzle see the label."""

import numpy as np

from cnnviz.drawn_pets.animal import fur_shape, placed
from cnnviz.drawn_pets.canvas import (
    ANIMAL,
    PART,
    curve,
    draw_lines,
    ellipse,
    fill,
    fill_round,
    glow,
    mix,
    stroke,
)
from cnnviz.drawn_pets.colours import INK, PINK, WHITE

_HEAD = [(0, -.92), (-.6, -.8), (-.95, -.32), (-1.0, .2), (-.68, .7), (0, .9),
         (.68, .7), (1.0, .2), (.95, -.32), (.6, -.8)]  # fmt: skip


def paint_head(canvas, rng, parts_rng, pose, coat, label):
    """Paints the head. Only the ears and the muzzle see `label` and `parts_rng`."""
    paint_ears, paint_muzzle = ((_cat_ears, _cat_muzzle), (_dog_ears, _dog_muzzle))[label]
    hanging = label == 1 and parts_rng.random() < 0.75
    if not hanging:
        paint_ears(canvas, parts_rng, pose, coat)
    outline = placed(curve(_HEAD), pose, "head")
    fur_shape(canvas, outline, coat["base"], pose, coat, marks=_head_marks(rng, coat, pose))
    _paint_eyes(canvas, rng, pose, coat)
    paint_muzzle(canvas, parts_rng, pose, coat)
    if hanging:
        _hanging_ears(canvas, parts_rng, pose, coat)


def _head_marks(rng, coat, pose):
    numbers = rng.uniform(-1, 1, (5, 2))
    side = 1 if numbers[0, 0] > 0 else -1
    shapes, colour = [], coat["dark"]
    if coat["pattern"] == "tabby":
        shapes = [stroke([(x, -1.0), (x * 0.85, -0.7), (x * 0.7, -0.45)], 0.08, 0.02)
                  for x in (-0.34, 0, 0.34)]  # fmt: skip
        shapes += [stroke([(s * 1.1, y), (s * 0.85, y + 0.05), (s * 0.68, y)], 0.07, 0.02)
                   for s in (-1, 1) for y in (0.08, 0.32)]  # fmt: skip
    elif coat["pattern"] == "patches":
        shapes, colour = [ellipse(side * 0.5, -0.25, 0.52, 0.62, side * 0.4)], coat["other"]
    elif coat["pattern"] == "spots":
        shapes = [ellipse(0.7 * x, -0.65 + 0.2 * y, 0.1, 0.08) for x, y in numbers]
    marks = [(placed(shape, pose, "head"), colour) for shape in shapes]
    if coat["bib"]:
        blaze = [(0, -0.75), (-0.13, -0.3), (-0.5, 0.4), (-0.5, 0.95), (0.5, 0.95), (0.5, 0.4),
                 (0.13, -0.3)]  # fmt: skip
        marks.append((placed(curve(blaze), pose, "head"), coat["light"]))
    return marks


def _paint_eyes(canvas, rng, pose, coat):
    """Eyes and cheeks, alike for both classes."""
    unit, size, closed = pose["unit"], rng.uniform(0.17, 0.225), rng.random() < 0.08
    gaze = rng.uniform(-0.03, 0.03, 2)
    slit = rng.uniform(0.5, 0.75)
    for x in (-0.42, 0.42):
        if closed:
            lid = [(x - size, -0.08), (x - size / 2, 0.02), (x + size / 2, 0.02), (x + size, -0.08)]
            draw_lines(canvas, [placed(lid, pose, "head")], INK, 0.06 * unit, ANIMAL)
            continue
        iris = coat["iris"]
        for dx, dy, wide, high, colour in (
            (0, 0, size * 1.16, size * 1.16, INK),
            (0, 0.01, size, size, mix(iris, INK, 0.25)),
            (0, 0.05, size * 0.85, size * 0.8, mix(iris, WHITE, 0.15)),
            (*gaze, size * slit, size * 0.78, (24, 18, 22)),
            (gaze[0] - 0.06, gaze[1] - 0.08, size * 0.33, size * 0.33, WHITE),
            (gaze[0] + 0.07, gaze[1] + 0.07, size * 0.16, size * 0.16, WHITE),
        ):
            shape = placed(ellipse(x + dx, -0.1 + dy, wide, high), pose, "head")
            fill(canvas, shape, colour, ANIMAL)
    for x in (-0.68, 0.68):
        x, y = placed((x, 0.3), pose, "head")
        glow(canvas, x, y, 0.26 * unit, 0.2 * unit, (240, 130, 120), 0.3)


def _cat_ears(canvas, rng, pose, coat):
    tip = rng.normal((0.82, -1.5), (0.07, 0.08))
    for side in (-1, 1):
        outer, inner = np.array((0.98, -0.2)), np.array((0.1, -0.75))
        corners = [outer, mix(outer, tip, 0.5) + (0.05, 0), tip + (0.03, 0.03), tip - (0.03, 0),
                   mix(inner, tip, 0.5) + (0.03, -0.04), inner, (0.5, 0)]  # fmt: skip
        ear = placed(curve(corners) * (side, 1), pose, "head")
        fur_shape(canvas, ear, coat["ear"], pose, coat, shows=PART, depth=0.7)
        middle = np.array((0.66, -0.72))
        inside = placed((middle + (curve(corners) - middle) * 0.62) * (side, 1), pose, "head")
        pink = mix(PINK, coat["ear"], 0.2)
        fill_round(canvas, inside, pink, coat["lamp"], shows=PART)


def _dog_ears(canvas, rng, pose, coat):
    """Ears that stand half-way and fold over, with round tips."""
    reach = rng.normal(1.2, 0.06)
    for side in (-1, 1):
        back = [(0.15, -0.7), (0.4, -1.1), (0.8, -reach), (1.1, -0.95), (1.0, -0.2), (0.5, -0.3)]
        ear = placed(curve(back) * (side, 1), pose, "head")
        fur_shape(canvas, ear, mix(coat["ear"], INK, 0.2), pose, coat, shows=PART, depth=0.7)
        flap = [(0.42, -1.12), (0.8, -reach - 0.02), (1.14, -0.98), (1.3, -0.6), (1.18, -0.4),
                (0.95, -0.6)]  # fmt: skip
        flap = placed(curve(flap) * (side, 1), pose, "head")
        fur_shape(canvas, flap, coat["ear"], pose, coat, shows=PART)


def _hanging_ears(canvas, rng, pose, coat):
    length, width = rng.uniform(0.35, 0.95), rng.uniform(0.9, 1.15)
    for side in (-1, 1):
        top = [(0.86, 0.0), (0.72, -0.5), (0.42, -0.86), (0.8, -0.92)]
        tip = [(1.15, -0.55), (1.38, length * 0.4), (1.25, length), (0.98, length * 0.92)]
        points = np.concatenate([top, np.array(tip) * (width, 1)])
        ear = placed(curve(points) * (side, 1), pose, "head")
        x, y = placed((side * 0.86, 0.1), pose, "head")
        glow(canvas, x, y, 0.12 * pose["unit"], 0.4 * pose["unit"], INK, 0.3)
        fur_shape(canvas, ear, coat["ear"], pose, coat, shows=PART, depth=1.2)


def _cat_muzzle(canvas, rng, pose, coat):
    unit, size = pose["unit"], rng.uniform(0.9, 1.15)
    pale = mix(coat["light"], WHITE, 0.15)
    for x, y, radius in ((0, 0.6, 0.15), (-0.17, 0.42, 0.22), (0.17, 0.42, 0.22)):
        pad = placed(ellipse(x * size, y, radius * size, 0.84 * radius * size), pose, "head")
        fill_round(canvas, pad, pale, coat["lamp"], shows=PART, texture=coat["texture"])
    nose = [(-0.12, 0.2), (0, 0.17), (0.12, 0.2), (0.05, 0.3), (0, 0.33), (-0.05, 0.3)]
    nose = curve(np.array(nose) * (size, 1))
    mouths = [
        [(0, 0.32), (0, 0.42), (s * 0.07, 0.49), (s * 0.16, 0.49), (s * 0.23, 0.44)]
        for s in (-1, 1)
    ]
    lines = [placed(mouth, pose, "head") for mouth in mouths]
    draw_lines(canvas, lines, mix(pale, INK, 0.75), 0.035 * unit, PART)
    fill_round(canvas, placed(nose, pose, "head"), (226, 122, 130), coat["lamp"], shows=PART)
    colour = mix(WHITE, INK, 0.75 * (pale.mean() + coat["base"].mean() > 330))
    for side in (-1, 1):
        droop = rng.normal(0, 0.05)
        whiskers = [[(side * 0.3, 0.4 + dy), (side * 0.8, 0.34 + 2 * dy + droop),
                     (side * 1.3, 0.36 + 3 * dy + droop)] for dy in (-0.06, 0, 0.06)]  # fmt: skip
        lines = [placed(whisker, pose, "head") for whisker in whiskers]
        draw_lines(canvas, lines, colour, 0.02 * unit, PART)


def _dog_muzzle(canvas, rng, pose, coat):
    unit, size, tongue = pose["unit"], rng.uniform(0.9, 1.12), rng.random() < 0.4
    pale = mix(coat["light"], WHITE, 0.15)
    x, y = placed((0, 0.55), pose, "head")
    glow(canvas, x, y, 0.42 * unit * size, 0.3 * unit, mix(coat["base"], INK, 0.6), 0.6)
    if tongue:
        points = [(-0.15, 0.7), (-0.17, 1.0), (0, 1.18), (0.17, 1.0), (0.15, 0.7)]
        outline = placed(curve(points), pose, "head")
        fill_round(canvas, outline, (232, 112, 122), coat["lamp"], shows=PART)
    else:
        chin = placed(ellipse(0, 0.76, 0.26 * size, 0.2), pose, "head")
        fill_round(canvas, chin, mix(pale, INK, 0.15), coat["lamp"], shows=PART)
    snout = [(0, 0.02), (-0.3, 0.1), (-0.5, 0.45), (-0.4, 0.74), (-0.12, 0.84), (0.12, 0.84),
             (0.4, 0.74), (0.5, 0.45), (0.3, 0.1)]  # fmt: skip
    snout = placed(curve(np.array(snout) * (size, 1)), pose, "head")
    fur_shape(canvas, snout, pale, pose, coat, shows=PART, depth=1.2)
    mouths = [
        [(0, 0.3), (0, 0.62), (s * 0.14, 0.72), (s * 0.3, 0.68), (s * 0.4, 0.56)] for s in (-1, 1)
    ]
    lines = [placed(mouth, pose, "head") for mouth in mouths]
    draw_lines(canvas, lines, mix(pale, INK, 0.75), 0.04 * unit, PART)
    nose = [(0, 0.03), (-0.2, 0.08), (-0.24, 0.22), (0, 0.4), (0.24, 0.22), (0.2, 0.08)]
    nose = placed(curve(np.array(nose) * (size, 1)), pose, "head")
    fill_round(canvas, nose, (58, 44, 46), coat["lamp"], shows=PART, depth=1.5)
    fill(canvas, placed(ellipse(-0.07, 0.11, 0.07, 0.035), pose, "head"), (190, 184, 188), PART)
