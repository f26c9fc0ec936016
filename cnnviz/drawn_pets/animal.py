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

# Pose, smallest and largest radius of the head, its height above the ground in radii, its lowest
# and highest x. The second shows head and chest.
_POSES = (
    ("sitting", 0.145, 0.195, 2.95, 0.2, 0.8),
    ("sitting", 0.22, 0.28, 1.75, 0.25, 0.75),
    ("lying", 0.155, 0.215, 1.85, 0.24, 0.42),
    ("standing", 0.145, 0.19, 2.8, 0.24, 0.42),
)
_HEAD = [(0, -.92), (-.6, -.8), (-.95, -.32), (-1.0, .2), (-.68, .7), (0, .9),
         (.68, .7), (1.0, .2), (.95, -.32), (.6, -.8)]  # fmt: skip
_BLAZE = [(0, -.75), (-.13, -.3), (-.5, .4), (-.5, .95), (.5, .95), (.5, .4),
          (.13, -.3)]  # fmt: skip
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
_HAUNCHES = {
    "sitting": [(-.88, 2.38, .5, .55), (.88, 2.38, .5, .55)],
    "lying": [(2.15, 1.2, .6, .55)],
    "standing": [(2.52, 1.25, .6, .55)],
}  # fmt: skip
_TAILS = {
    "sitting": [[(.7, 2.6), (1.6, 2.65), (2.1, 2.2), (1.9, 1.6)],
                [(.7, 2.6), (1.4, 2.1), (1.5, 1.4), (1.9, .9)]],
    "lying": [[(2.7, 1.3), (3.3, 1.7), (3.8, 1.5), (3.9, 1.0)],
              [(2.7, 1.0), (3.2, .6), (3.3, .0), (2.9, -.4)]],
    "standing": [[(2.8, .7), (3.4, .4), (3.6, -.2), (3.2, -.7)],
                 [(2.8, .7), (3.4, .9), (3.7, 1.5), (4.1, 1.6)]],
}  # fmt: skip


class Animal:
    """An animal on a canvas, in a random pose and coat."""

    def __init__(self, canvas, rng):
        self.pose, least, most, height, left, right = _POSES[rng.integers(len(_POSES))]
        self.canvas, self.unit, mirror = canvas, rng.uniform(least, most), rng.random() < 0.5
        x, y = rng.uniform((left, 0.86), (right, 0.97)) - (0, height * self.unit)
        self.origin = np.array((1 - x if mirror else x, y))
        self.body_axes = np.diag([-self.unit if mirror else self.unit, self.unit])
        stretch = np.diag(rng.uniform((0.98, 0.9), (1.12, 1.0)))
        self.head_axes = stretch @ rotation(rng.normal(0, 0.16)) @ self.body_axes
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
    base, other = (
        np.array(COATS[rng.integers(len(COATS))]) + rng.normal(0, 9) + rng.normal(0, 4, 3)
        for _ in range(2)
    )
    row, column = (rng.random(2) * side).astype(int)
    texture = _fur(side, (0.02, 0.04, 0.06)[rng.integers(3)])[row:, column:][:side, :side]
    return {
        "base": base,
        "dark": mix(base, INK, 0.42) if base.sum() > 250 else mix(base, CREAM, 0.3),
        "light": mix(base, CREAM, rng.uniform(0.55, 0.9)),
        "other": other,
        "ear": (base, mix(base, INK, 0.25), other)[rng.choice(3, p=(0.5, 0.3, 0.2))],
        "pattern": ("plain", "tabby", "patches")[rng.integers(3)],
        "bib": rng.random() < 0.5,  # a pale chest, blaze and paws
        "iris": np.array(IRISES[rng.integers(len(IRISES))]) + rng.normal(0, 12, 3),
        "lamp": ((-0.8, 0.8)[rng.integers(2)], -0.7),
        "texture": texture,
        "tufts": rng.uniform(-0.3, 1, 512) * rng.uniform(0.0, 0.07),
    }


def _marks(coat, rng, low, high, length):
    """The coat's pattern between two corners, as (outline, color) pairs."""
    if coat["pattern"] == "tabby":
        starts = np.linspace(low, (high[0], low[1]), 8)[:, None]
        steps = [[(0, -0.1), (0.1, length / 2), (0, length * rng.uniform(1, 2))] for _ in starts]
        return [(stroke(stripe, 0.1, 0.02), coat["dark"]) for stripe in starts + steps]
    if coat["pattern"] == "patches":
        patches = rng.uniform((*low, 0), (*high, 3), (3, 3))
        return [(ellipse(x, y, 0.65, 0.45, turn), coat["other"]) for x, y, turn in patches]
    return []


def paint_body(animal, rng):
    pose, unit, coat = animal.pose, animal.unit, animal.coat
    sideways, outline = pose != "sitting", curve(_BODIES[pose])
    low, high = outline.min(axis=0), outline.max(axis=0)
    shadow = animal.body(((low[0] + high[0]) / 2, high[1]))
    animal.glow(shadow, (high[0] - low[0]) / 2 + 0.5, 0.3, INK, 0.7)
    tail = stroke(animal.body(_TAILS[pose][rng.integers(2)]), 0.2 * unit, 0.13 * unit)
    animal.fur(tail, mix(coat["base"], coat["dark"], 0.15))
    far_legs, near_legs = _LEGS[pose]
    _paint_legs(animal, far_legs, 0.22)
    marks = _marks(coat, rng, low, high, 0.8)
    if coat["bib"]:
        chest = (-0.45, 1.05, 0.45, 0.6) if sideways else (0, 1.3, 0.5, 0.75)
        marks.append((ellipse(*chest), coat["light"]))
    marks = [(animal.body(shape), color) for shape, color in marks]
    animal.fur(animal.body(outline), coat["base"], marks=marks)
    for haunch in _HAUNCHES[pose]:
        animal.fur(animal.body(ellipse(*haunch)), mix(coat["base"], WHITE, 0.04))
    _paint_legs(animal, near_legs, 0.0)
    animal.glow(animal.body((0, 0.95)), 0.8, 0.35, mix(coat["base"], INK, 0.7), 0.5)


def _paint_legs(animal, legs, shade):
    """Paint legs with paws, darker by `shade`."""
    coat = animal.coat
    for knee, (x, y), width in legs:
        line = animal.body([knee, mix(knee, (x, y), 0.5), (x, y)])
        outline = stroke(line, width * animal.unit, width * animal.unit)
        animal.fur(outline, mix(coat["base"], INK, shade), depth=0.6)
        paw = animal.body(ellipse(x - 0.06, y + 0.1, width * 1.3, 0.2))
        animal.skin(paw, mix(coat["light" if coat["bib"] else "base"], INK, shade))


def paint_head(animal, rng, parts_rng, label):
    """Paint the head. Only the ears and the muzzle see `label` and `parts_rng`."""
    coat = animal.coat
    if label == 0:
        _cat_ears(animal, parts_rng)
    marks = _marks(coat, rng, (-0.6, -1.0), (0.6, 0.2), 0.25)
    if coat["bib"]:
        marks.append((curve(_BLAZE), coat["light"]))
    marks = [(animal.head(shape), color) for shape, color in marks]
    animal.fur(animal.head(curve(_HEAD)), coat["base"], marks=marks)
    _paint_eyes(animal, rng)
    if label == 0:
        _cat_muzzle(animal, parts_rng)
    else:
        _dog_muzzle(animal, parts_rng)
        _dog_ears(animal, parts_rng)


def _paint_eyes(animal, rng):
    size, iris = rng.uniform(0.17, 0.225), animal.coat["iris"]
    (gaze_x, gaze_y), slit = rng.uniform(-0.03, 0.03, 2), rng.uniform(0.5, 0.75)
    for x in (-0.42, 0.42):
        for dx, dy, width, height, color in (
            (0, 0, 1.16, 1.16, INK),
            (0, 0.01, 1, 1, mix(iris, INK, 0.25)),
            (0, 0.05, 0.85, 0.8, mix(iris, WHITE, 0.15)),
            (gaze_x, gaze_y, slit, 0.78, (24, 18, 22)),
            (gaze_x - 0.06, gaze_y - 0.08, 0.33, 0.33, WHITE),
        ):
            eye = ellipse(x + dx, dy - 0.1, width * size, height * size)
            fill(animal.canvas, animal.head(eye), color, ANIMAL)


def _cat_ears(animal, rng):
    tip, color = rng.normal((0.82, -1.5), (0.07, 0.08)), animal.coat["ear"]
    outer, inner, middle = np.array(((0.98, -0.2), (0.1, -0.75), (0.66, -0.72)))
    ear = curve([outer, mix(outer, tip, 0.5) + (0.05, 0), tip + (0.03, 0.03), tip - (0.03, 0),
                 mix(inner, tip, 0.5) + (0.03, -0.04), inner, (0.5, 0)])  # fmt: skip
    for side in (-1, 1):
        animal.fur(animal.head(ear * (side, 1)), color, shows=PART, depth=0.7)
        inside = animal.head(mix(ear, middle, 0.38) * (side, 1))
        animal.skin(inside, mix(PINK, color, 0.2), PART)


def _dog_ears(animal, rng):
    """Paint ears that hang down beside the head."""
    length, width = rng.uniform(0.35, 0.95), rng.uniform(0.9, 1.15)
    top = [(0.86, 0.0), (0.72, -0.5), (0.42, -0.86), (0.8, -0.92)]
    tip = [(1.15, -0.55), (1.38, length * 0.4), (1.25, length), (0.98, length * 0.92)]
    ear = curve(np.concatenate([top, np.array(tip) * (width, 1)]))
    for side in (-1, 1):
        animal.fur(animal.head(ear * (side, 1)), animal.coat["ear"], shows=PART, depth=1.2)


def _cat_muzzle(animal, rng):
    coat, size = animal.coat, rng.uniform(0.9, 1.15)
    pale = mix(coat["light"], WHITE, 0.15)
    for x, y, radius in ((0, 0.6, 0.15), (-0.17, 0.42, 0.22), (0.17, 0.42, 0.22)):
        pad = animal.head(ellipse(x * size, y, radius * size, 0.84 * radius * size))
        animal.skin(pad, pale, PART, texture=coat["texture"])
    mouth = [(0, 0.32), (0, 0.42), (0.07, 0.49), (0.16, 0.49), (0.23, 0.44)]
    _paint_mouth(animal, mouth, mix(pale, INK, 0.75))
    nose = [(-0.12, 0.2), (0, 0.17), (0.12, 0.2), (0.05, 0.3), (0, 0.33), (-0.05, 0.3)]
    animal.skin(animal.head(curve(nose) * (size, 1)), (226, 122, 130), PART)
    color = mix(WHITE, INK, 0.75 * (pale.mean() + coat["base"].mean() > 330))
    for side in (-1, 1):
        droop = rng.normal(0, 0.05)
        whiskers = [[(side * 0.3, 0.4 + dy), (side * 0.8, 0.34 + 2 * dy + droop),
                     (side * 1.3, 0.36 + 3 * dy + droop)] for dy in (-0.06, 0, 0.06)]  # fmt: skip
        animal.lines([animal.head(whisker) for whisker in whiskers], color, 0.02, PART)


def _dog_muzzle(animal, rng):
    coat, size = animal.coat, rng.uniform(0.9, 1.12)
    pale = mix(coat["light"], WHITE, 0.15)
    animal.glow(animal.head((0, 0.55)), 0.42 * size, 0.3, mix(coat["base"], INK, 0.6), 0.6)
    chin = ellipse(0, 0.76, 0.26 * size, 0.2)
    animal.skin(animal.head(chin), mix(pale, INK, 0.15), PART)
    snout = [(0, 0.02), (-0.3, 0.1), (-0.5, 0.45), (-0.4, 0.74), (-0.12, 0.84), (0.12, 0.84),
             (0.4, 0.74), (0.5, 0.45), (0.3, 0.1)]  # fmt: skip
    animal.fur(animal.head(curve(snout) * (size, 1)), pale, shows=PART, depth=1.2)
    mouth = [(0, 0.3), (0, 0.62), (0.14, 0.72), (0.3, 0.68), (0.4, 0.56)]
    _paint_mouth(animal, mouth, mix(pale, INK, 0.75))
    nose = [(0, 0.03), (-0.2, 0.08), (-0.24, 0.22), (0, 0.4), (0.24, 0.22), (0.2, 0.08)]
    animal.skin(animal.head(curve(nose) * (size, 1)), (58, 44, 46), PART, depth=1.5)
    fill(animal.canvas, animal.head(ellipse(-0.07, 0.11, 0.07, 0.035)), (190, 184, 188), PART)


def _paint_mouth(animal, half, color):
    lines = [animal.head(np.array(half) * (side, 1)) for side in (-1, 1)]
    animal.lines(lines, color, 0.037, PART)
