"""(canvas, random numbers) -> pose, coat and body of the animal, alike for both classes."""

from functools import lru_cache

import cv2
import numpy as np

from cnnviz.drawn_pets.canvas import (
    ANIMAL,
    curve,
    draw_lines,
    ellipse,
    factors,
    fill_round,
    glow,
    mix,
    rotation,
    stroke,
)
from cnnviz.drawn_pets.colours import COATS, CREAM, INK, IRISES, WHITE


def choose_pose(rng):
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
        "head": np.diag([rng.uniform(0.98, 1.12), rng.uniform(0.9, 1.0)]) @ rotation(tilt) @ axes,
    }


def placed(points, pose, frame):
    return np.asarray(points, float) @ pose[frame] + pose["origin"]


@lru_cache
def _fur(side, strength):
    """Streaks of light and dark as factors, twice `side`; each picture cuts its own piece."""
    noise = np.random.default_rng(0).normal(0, 1, (512, 512)).astype(np.float32)
    streaks = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.9, sigmaY=3.5)
    return factors(cv2.resize(1 + strength / streaks.std() * streaks, (2 * side, 2 * side)))


def choose_coat(rng, side):
    """Colours, pattern and fur, drawn alike for both classes."""
    base = np.array(COATS[rng.integers(len(COATS))]) + rng.normal(0, 9) + rng.normal(0, 4, 3)
    other = np.array(COATS[rng.integers(len(COATS))]) + rng.normal(0, 9) + rng.normal(0, 4, 3)
    row, column = (rng.random(2) * side).astype(int)
    texture = _fur(side, (0.02, 0.04, 0.06)[rng.integers(3)])
    dark = mix(base, INK, 0.42) if base.sum() > 250 else mix(base, CREAM, 0.3)
    return {
        "base": base,
        "dark": dark,
        "light": mix(base, CREAM, rng.uniform(0.55, 0.9)),
        "other": other,
        "ear": (base, mix(base, INK, 0.25), other)[rng.choice(3, p=(0.5, 0.3, 0.2))],
        "pattern": ("plain", "tabby", "patches", "spots")[rng.integers(4)],
        "bib": rng.random() < 0.5,
        "socks": rng.random() < 0.4,
        "iris": np.array(IRISES[rng.integers(len(IRISES))]) + rng.normal(0, 12, 3),
        "lamp": ((-0.8, 0.8)[rng.integers(2)], -0.7),
        "texture": texture[row : row + side, column : column + side],
        "tufts": rng.uniform(-0.3, 1, 512) * rng.uniform(0.0, 0.07),
    }


def fur_shape(canvas, outline, colour, pose, coat, *, shows=ANIMAL, marks=(), depth=1.0):
    """A furry surface: tufts along its outline, streaks inside. `outline` in picture units."""
    away = outline - outline.mean(axis=0)
    away /= np.hypot(*away.T)[:, None] + 1e-9
    tufted = outline + away * (pose["unit"] * coat["tufts"][: len(outline), None])
    fill_round(
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
            (ellipse(*p, s, s * 0.85), coat["dark"]) for p, s in zip(places, sizes, strict=True)
        ]
    if coat["pattern"] == "patches":
        return [(ellipse(*p, unit * 0.65, unit * 0.45, s * 3), coat["other"])
                for p, s in zip(places[:3], numbers[:3, 2], strict=True)]  # fmt: skip
    if coat["pattern"] == "tabby":
        xs = np.linspace(low[0], high[0], 8) + unit * 0.2 * (numbers[:8, 0] - 0.5)
        return [(stroke([(x, low[1] - unit * 0.1), (x + unit * 0.12, low[1] + unit * 0.4),
                        (x, low[1] + unit * (0.8 + 0.8 * n))], unit * 0.1, unit * 0.02),
                 coat["dark"]) for x, n in zip(xs, numbers[:8, 1], strict=True)]  # fmt: skip
    return []


def paint_body(canvas, rng, pose, coat, palette):
    kind = "sitting" if pose["kind"] == "portrait" else pose["kind"]
    unit = pose["unit"]
    sideways = kind != "sitting"
    left, right = placed([(-0.8, 0), (3.0 if sideways else 0.9, 0)], pose, "body")[:, 0]
    shadow_width = abs(right - left) / 2 + 0.5 * unit
    for height, strength in ((0.4, 0.4), (0.2, 0.45)):
        glow(canvas, (left + right) / 2, pose["feet"], shadow_width, height * unit, INK, strength)
    tail = stroke(placed(_TAILS[kind][rng.integers(2)], pose, "body"), 0.2 * unit, 0.13 * unit)
    fur_shape(canvas, tail, mix(coat["base"], coat["dark"], 0.15), pose, coat)
    paws = coat["light"] if coat["socks"] else coat["base"]
    legs = _LEGS[kind]
    for leg in legs:
        if leg[3]:
            _paint_leg(canvas, leg, pose, coat, paws)
    body = placed(curve(_BODIES[kind]), pose, "body")
    marks = _body_marks(rng, coat, body, unit)
    if coat["bib"]:
        chest = (-0.45, 1.05, 0.45, 0.6) if sideways else (0, 1.3, 0.5, 0.75)
        marks.append((placed(ellipse(*chest), pose, "body"), coat["light"]))
    fur_shape(canvas, body, coat["base"], pose, coat, marks=marks)
    haunches = {"sitting": (-0.88, 0.88), "lying": (2.15,), "standing": (2.52,)}[kind]
    for x in haunches:
        y, sole = {"sitting": (2.38, 2.85), "lying": (1.2, 1.68), "standing": (1.25, None)}[kind]
        haunch = placed(ellipse(x, y, 0.6 if sideways else 0.5, 0.55), pose, "body")
        fur_shape(canvas, haunch, mix(coat["base"], WHITE, 0.04), pose, coat)
        if sole:
            paw = placed(ellipse(x - 0.1 * sideways, sole, 0.4, 0.18), pose, "body")
            fill_round(canvas, paw, paws, coat["lamp"], shows=ANIMAL)
    for leg in legs:
        if not leg[3]:
            _paint_leg(canvas, leg, pose, coat, paws)
    x, y = placed((0, 0.95), pose, "body")
    glow(canvas, x, y, 0.8 * unit, 0.35 * unit, mix(coat["base"], INK, 0.7), 0.5)
    if rng.random() < 0.35:
        collar = placed([(-0.62, 0.72), (0, 1.02), (0.62, 0.72)], pose, "body")
        band = stroke(collar, 0.09 * unit, 0.09 * unit)
        fill_round(canvas, band, palette[2], coat["lamp"], shows=ANIMAL)
        tag = placed(ellipse(0, 1.2, 0.13, 0.13), pose, "body")
        fill_round(canvas, tag, (240, 202, 92), coat["lamp"], shows=ANIMAL, depth=1.5)


def _paint_leg(canvas, leg, pose, coat, paw_colour):
    (knee, foot, width, is_far), unit = leg, pose["unit"]
    shade = mix(coat["base"], INK, 0.22 if is_far else 0.0)
    outline = stroke(placed([knee, mix(knee, foot, 0.5), foot], pose, "body"), *[width * unit] * 2)
    fur_shape(canvas, outline, shade, pose, coat, depth=0.6)
    x, y = foot
    paw = ellipse(x - 0.06, y + 0.1, width * 1.3, 0.2)
    paw_colour = mix(paw_colour, INK, 0.2 if is_far else 0.0)
    fill_round(canvas, placed(paw, pose, "body"), paw_colour, coat["lamp"], shows=ANIMAL)
    toes = [placed([(x + dx, y + 0.12), (x + dx, y + 0.25)], pose, "body") for dx in (-0.15, 0.02)]
    draw_lines(canvas, toes, mix(paw_colour, INK, 0.45), 0.03 * unit, ANIMAL)
