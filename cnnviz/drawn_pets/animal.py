"""Draw an animal in a random pose and coat; its outlines are in radii from the center of its head.

Only its ears and its muzzle depend on the class.
"""

from functools import lru_cache

import cv2
import numpy as np

from cnnviz.drawn_pets import canvas as brush
from cnnviz.drawn_pets.canvas import ANIMAL, PART, fill
from cnnviz.drawn_pets.colors import COATS, CREAM, INK, IRISES, PINK, WHITE
from cnnviz.drawn_pets.shapes import curve, ellipse, mix, rotation, stroke


class Animal:
    """An animal on a canvas, in a random pose and coat."""

    def __init__(self, canvas, rng):
        number = rng.integers(4)
        kind = ("sitting", "portrait", "lying", "standing")[number]
        unit = rng.uniform((0.145, 0.22, 0.155, 0.145), (0.195, 0.3, 0.215, 0.19))[number]
        head_to_feet = (2.95, 2.95, 1.85, 2.8)[number]
        x = rng.uniform(*((0.24, 0.42) if kind in ("lying", "standing") else (0.34, 0.66)))
        if rng.random() < 0.12:  # the edge cuts the head, but leaves one ear and the muzzle
            x = unit * rng.uniform(0.55, 0.8)
        feet = rng.uniform(0.86, 0.97)
        y = 0.45 + (feet - 0.91) if kind == "portrait" else feet - head_to_feet * unit
        mirror = rng.random() < 0.5
        self.canvas, self.kind, self.unit, self.feet = canvas, kind, unit, y + head_to_feet * unit
        self.origin = np.array((1 - x if mirror else x, y))
        self.body_axes = np.diag([-unit if mirror else unit, unit])
        tilt = rotation(rng.normal(0, 0.16))
        stretch = np.diag([rng.uniform(0.98, 1.12), rng.uniform(0.9, 1.0)])
        self.head_axes = stretch @ tilt @ self.body_axes
        self.coat = _choose_coat(rng, len(canvas))

    def head(self, points):
        return np.asarray(points, float) @ self.head_axes + self.origin

    def body(self, points):
        return np.asarray(points, float) @ self.body_axes + self.origin

    def fur(self, outline, color, **options):
        """Paint a furry surface: tufts along its outline, streaks inside."""
        away = outline - outline.mean(axis=0)
        away /= np.hypot(*away.T)[:, None] + 1e-9
        tufted = outline + away * (self.unit * self.coat["tufts"][: len(outline), None])
        self.skin(tufted, color, texture=self.coat["texture"], **options)

    def skin(self, outline, color, shows=ANIMAL, **options):
        brush.fill_round(self.canvas, outline, color, self.coat["lamp"], shows=shows, **options)

    def lines(self, lines, color, width, shows=ANIMAL):
        brush.draw_lines(self.canvas, lines, color, width * self.unit, shows)

    def glow(self, point, radius_x, radius_y, color, strength):
        brush.glow(self.canvas, *point, radius_x * self.unit, radius_y * self.unit, color, strength)


@lru_cache
def _fur(side, strength):
    """Streaks of light and dark as factors, twice `side`; each image cuts its own piece."""
    noise = np.random.default_rng(0).normal(0, 1, (512, 512)).astype(np.float32)
    streaks = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.9, sigmaY=3.5)
    return brush.factors(cv2.resize(1 + strength / streaks.std() * streaks, (2 * side, 2 * side)))


def _choose_coat(rng, side):
    base = np.array(COATS[rng.integers(len(COATS))]) + rng.normal(0, 9) + rng.normal(0, 4, 3)
    other = np.array(COATS[rng.integers(len(COATS))]) + rng.normal(0, 9) + rng.normal(0, 4, 3)
    row, column = (rng.random(2) * side).astype(int)
    texture = _fur(side, (0.02, 0.04, 0.06)[rng.integers(3)])[row:, column:][:side, :side]
    return {
        "base": base,
        "dark": mix(base, INK, 0.42) if base.sum() > 250 else mix(base, CREAM, 0.3),
        "light": mix(base, CREAM, rng.uniform(0.55, 0.9)),
        "other": other,
        "ear": (base, mix(base, INK, 0.25), other)[rng.choice(3, p=(0.5, 0.3, 0.2))],
        "pattern": ("plain", "tabby", "patches", "spots")[rng.integers(4)],
        "bib": rng.random() < 0.5,
        "socks": rng.random() < 0.4,
        "iris": np.array(IRISES[rng.integers(len(IRISES))]) + rng.normal(0, 12, 3),
        "lamp": ((-0.8, 0.8)[rng.integers(2)], -0.7),
        "texture": texture,
        "tufts": rng.uniform(-0.3, 1, 512) * rng.uniform(0.0, 0.07),
    }


_HEAD = [(0, -.92), (-.6, -.8), (-.95, -.32), (-1.0, .2), (-.68, .7), (0, .9),
         (.68, .7), (1.0, .2), (.95, -.32), (.6, -.8)]  # fmt: skip
_BODIES = {
    "sitting": [(-.55, .5), (-.85, 1.3), (-1.08, 2.1), (-1.0, 2.75), (0, 2.95), (1.0, 2.75),
                (1.08, 2.1), (.85, 1.3), (.55, .5)],
    "lying": [(-.8, .7), (-.2, .25), (1.2, .1), (2.4, .3), (3.0, 1.0), (2.85, 1.65), (1, 1.78),
              (-.75, 1.72)],
    "standing": [(-.6, .5), (.3, .3), (1.6, .5), (2.7, .35), (3.05, 1.0), (2.8, 1.75), (1.5, 1.75),
                 (.2, 1.9), (-.6, 1.4)],
}  # fmt: skip
# Knee, foot and half width of the legs on the far side, behind the body, and of the others.
_LEGS = {
    "sitting": ([], [((-.36, 1.5), (-.36, 2.72), .25), ((.36, 1.5), (.36, 2.72), .25)]),
    "lying": ([((.7, 1.5), (-.05, 1.66), .2)], [((-.1, 1.5), (-.85, 1.64), .22)]),
    "standing": ([((.75, 1.5), (.8, 2.5), .23), ((2.1, 1.4), (2.05, 2.5), .23)],
                 [((.0, 1.5), (.0, 2.6), .26), ((2.6, 1.3), (2.7, 2.6), .28)]),
}  # fmt: skip
_TAILS = {
    "sitting": [[(.7, 2.6), (1.6, 2.65), (2.1, 2.2), (1.9, 1.6)],
                [(.7, 2.6), (1.4, 2.1), (1.5, 1.4), (1.9, .9)]],
    "lying": [[(2.7, 1.3), (3.3, 1.7), (3.8, 1.5), (3.9, 1.0)],
              [(2.7, 1.0), (3.2, .6), (3.3, .0), (2.9, -.4)]],
    "standing": [[(2.8, .7), (3.4, .4), (3.6, -.2), (3.2, -.7)],
                 [(2.8, .7), (3.4, .9), (3.7, 1.5), (4.1, 1.6)]],
}  # fmt: skip


def paint_body(animal, rng, collar_color):
    kind = "sitting" if animal.kind == "portrait" else animal.kind
    sideways, unit, coat = kind != "sitting", animal.unit, animal.coat
    left, right = animal.body([(-0.8, 0), (3.0 if sideways else 0.9, 0)])[:, 0]
    shadow = (left + right) / 2, animal.feet, abs(right - left) / 2 + 0.5 * unit
    for height, strength in ((0.4, 0.4), (0.2, 0.45)):
        brush.glow(animal.canvas, *shadow, height * unit, INK, strength)
    tail = stroke(animal.body(_TAILS[kind][rng.integers(2)]), 0.2 * unit, 0.13 * unit)
    animal.fur(tail, mix(coat["base"], coat["dark"], 0.15))
    (far_legs, near_legs), paw_color = _LEGS[kind], coat["light" if coat["socks"] else "base"]
    _paint_legs(animal, far_legs, paw_color, 0.22)
    body = animal.body(curve(_BODIES[kind]))
    marks = _body_marks(rng, coat, body, unit)
    if coat["bib"]:
        chest = (-0.45, 1.05, 0.45, 0.6) if sideways else (0, 1.3, 0.5, 0.75)
        marks.append((animal.body(ellipse(*chest)), coat["light"]))
    animal.fur(body, coat["base"], marks=marks)
    haunches = {"sitting": (-0.88, 0.88), "lying": (2.15,), "standing": (2.52,)}[kind]
    y, sole = {"sitting": (2.38, 2.85), "lying": (1.2, 1.68), "standing": (1.25, None)}[kind]
    for x in haunches:
        haunch = animal.body(ellipse(x, y, 0.6 if sideways else 0.5, 0.55))
        animal.fur(haunch, mix(coat["base"], WHITE, 0.04))
        if sole:
            animal.skin(animal.body(ellipse(x - 0.1 * sideways, sole, 0.4, 0.18)), paw_color)
    _paint_legs(animal, near_legs, paw_color, 0.0)
    animal.glow(animal.body((0, 0.95)), 0.8, 0.35, mix(coat["base"], INK, 0.7), 0.5)
    if rng.random() < 0.35:
        collar = animal.body([(-0.62, 0.72), (0, 1.02), (0.62, 0.72)])
        animal.skin(stroke(collar, 0.09 * unit, 0.09 * unit), collar_color)
        animal.skin(animal.body(ellipse(0, 1.2, 0.13, 0.13)), (240, 202, 92), depth=1.5)


def _body_marks(rng, coat, outline, unit):
    """The coat's pattern as (outline, color) pairs; none on a plain coat."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    numbers = rng.uniform(0, 1, (9, 3))  # every pattern uses up the same numbers
    spots = [*zip(low + numbers[:, :2] * (high - low), numbers[:, 2], strict=True)]
    if coat["pattern"] == "spots":
        sizes = [(p, unit * (0.1 + 0.14 * n)) for p, n in spots]
        return [(ellipse(*p, size, size * 0.85), coat["dark"]) for p, size in sizes]
    if coat["pattern"] == "patches":
        return [(ellipse(*p, unit * 0.65, unit * 0.45, n * 3), coat["other"]) for p, n in spots[:3]]
    if coat["pattern"] == "tabby":
        xs = np.linspace(low[0], high[0], 8) + unit * 0.2 * (numbers[:8, 0] - 0.5)
        return [(stroke([(x, low[1] - unit * 0.1), (x + unit * 0.12, low[1] + unit * 0.4),
                        (x, low[1] + unit * (0.8 + 0.8 * n))], unit * 0.1, unit * 0.02),
                 coat["dark"]) for x, n in zip(xs, numbers[:8, 1], strict=True)]  # fmt: skip
    return []


def _paint_legs(animal, legs, paw_color, shade):
    """Paint legs with paws and toes, darker by `shade`."""
    paw_color = mix(paw_color, INK, 0.2 if shade else 0.0)
    for knee, (x, y), width in legs:
        line = animal.body([knee, mix(knee, (x, y), 0.5), (x, y)])
        outline = stroke(line, width * animal.unit, width * animal.unit)
        animal.fur(outline, mix(animal.coat["base"], INK, shade), depth=0.6)
        animal.skin(animal.body(ellipse(x - 0.06, y + 0.1, width * 1.3, 0.2)), paw_color)
        toes = [animal.body([(x + dx, y + 0.12), (x + dx, y + 0.25)]) for dx in (-0.15, 0.02)]
        animal.lines(toes, mix(paw_color, INK, 0.45), 0.03)


def paint_head(animal, rng, parts_rng, label):
    """Paint the head. Only the ears and the muzzle see `label` and `parts_rng`."""
    paint_ears, paint_muzzle = ((_cat_ears, _cat_muzzle), (_dog_ears, _dog_muzzle))[label]
    hanging = label == 1 and parts_rng.random() < 0.75
    if not hanging:
        paint_ears(animal, parts_rng)
    animal.fur(animal.head(curve(_HEAD)), animal.coat["base"], marks=_head_marks(animal, rng))
    _paint_eyes(animal, rng)
    paint_muzzle(animal, parts_rng)
    if hanging:
        _hanging_ears(animal, parts_rng)


def _head_marks(animal, rng):
    coat, numbers, shapes = animal.coat, rng.uniform(-1, 1, (5, 2)), []
    side, color = 1 if numbers[0, 0] > 0 else -1, coat["dark"]
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
    size, closed, iris = rng.uniform(0.17, 0.225), rng.random() < 0.08, animal.coat["iris"]
    (gaze_x, gaze_y), slit = rng.uniform(-0.03, 0.03, 2), rng.uniform(0.5, 0.75)
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
        inside = animal.head((middle + (ear - middle) * 0.62) * (side, 1))
        animal.skin(inside, mix(PINK, color, 0.2), PART)


def _dog_ears(animal, rng):
    """Paint ears that stand half-way and fold over, with round tips."""
    reach, color = rng.normal(1.2, 0.06), animal.coat["ear"]
    back = [(0.15, -0.7), (0.4, -1.1), (0.8, -reach), (1.1, -0.95), (1.0, -0.2), (0.5, -0.3)]
    flap = [(0.42, -1.12), (0.8, -reach - 0.02), (1.14, -0.98), (1.3, -0.6), (1.18, -0.4),
            (0.95, -0.6)]  # fmt: skip
    for side in (-1, 1):
        ear = animal.head(curve(back) * (side, 1))
        animal.fur(ear, mix(color, INK, 0.2), shows=PART, depth=0.7)
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
    chin, color = ellipse(0, 0.76, 0.26 * size, 0.2), mix(pale, INK, 0.15)
    if tongue:
        chin = curve([(-0.15, 0.7), (-0.17, 1.0), (0, 1.18), (0.17, 1.0), (0.15, 0.7)])
    animal.skin(animal.head(chin), (232, 112, 122) if tongue else color, PART)
    snout = [(0, 0.02), (-0.3, 0.1), (-0.5, 0.45), (-0.4, 0.74), (-0.12, 0.84), (0.12, 0.84),
             (0.4, 0.74), (0.5, 0.45), (0.3, 0.1)]  # fmt: skip
    animal.fur(animal.head(curve(np.array(snout) * (size, 1))), pale, shows=PART, depth=1.2)
    mouth = np.array([(0, 0.3), (0, 0.62), (0.14, 0.72), (0.3, 0.68), (0.4, 0.56)])
    lines = [animal.head(mouth * (side, 1)) for side in (-1, 1)]
    animal.lines(lines, mix(pale, INK, 0.75), 0.04, PART)
    nose = [(0, 0.03), (-0.2, 0.08), (-0.24, 0.22), (0, 0.4), (0.24, 0.22), (0.2, 0.08)]
    animal.skin(animal.head(curve(np.array(nose) * (size, 1))), (58, 44, 46), PART, depth=1.5)
    fill(animal.canvas, animal.head(ellipse(-0.07, 0.11, 0.07, 0.035)), (190, 184, 188), PART)
