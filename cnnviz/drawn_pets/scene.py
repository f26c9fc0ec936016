"""Draw the scene around the animal: a meadow or a room, with things in it."""

import colorsys

import numpy as np

from cnnviz.drawn_pets.canvas import INK, PINK, SQUARE, WHITE, Brush, curve, ellipse, mix

_CLOUD = curve([(-0.15, 0), (-0.08, -0.04), (0, -0.06), (0.07, -0.03), (0.13, 0)])


def paint_scene(canvas, rng):
    """Paint the scene without the animal; return the color of shadows on its ground."""
    brush, horizon = Brush(canvas), rng.uniform(0.46, 0.68)
    choose = (_meadow, _room)[rng.integers(2)]
    far, far_marks, ground, ground_marks = choose(rng, horizon)
    brush.fill(SQUARE * (1, horizon), far, marks=far_marks, depth=0.6)
    brush.fill(SQUARE + (0, horizon), ground, marks=ground_marks, depth=0.6)
    shadow = mix(ground, INK, 0.35)
    for _ in range(rng.integers(1, 5)):
        _paint_thing(canvas, rng, shadow)
    return shadow


def _color(rng, hues, saturation, value):
    """A random color with a hue between two, in turns of the color wheel."""
    return 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(*hues), saturation, value))


def _meadow(rng, horizon):
    """The colors of sky and grass, and what is on them."""
    sky, grass = _color(rng, (0.52, 0.62), 0.35, 0.9), _color(rng, (0.1, 0.4), 0.42, 0.72)
    marks = [(ellipse(*rng.uniform((0, 0), (1, 0.25)), 0.08, 0.08), (255, 240, 196))]  # the sun
    for place in rng.uniform((0, 0.05), (1, 0.3), (rng.integers(1, 4), 2)):
        marks.append((_CLOUD + place, mix(sky, WHITE, 0.8)))
    marks.append((ellipse(rng.random(), horizon, 0.8, 0.2), mix(grass, sky, 0.5)))  # a hill
    return sky, marks, grass, []


def _room(rng, horizon):
    """The colors of wall and floor, and what is on them."""
    wall, floor = _color(rng, (0, 1), 0.2, 0.85), _color(rng, (0.02, 0.12), 0.38, 0.72)
    frame = SQUARE * rng.uniform(0.14, 0.28, 2) + rng.uniform((0.1, 0.06), (0.7, 0.14))
    window = mix(frame, frame.mean(axis=0), 0.2)
    marks = [(frame, mix(wall, INK, 0.5)), (window, _color(rng, (0, 1), 0.3, 0.85))]
    marks.append((SQUARE + (0, horizon - 0.035), mix(wall, WHITE, 0.6)))
    gaps = [[(x / 8, 0), (x / 2 - 1.5, 1), (x / 2 - 1.49, 1)] for x in range(9)]
    return wall, marks, floor, [(gap, mix(floor, INK, 0.25)) for gap in gaps]


def _paint_thing(canvas, rng, shadow):
    """Paint two tents or a cookie: their triangles and ovals look like ears and muzzles."""
    place, size = rng.uniform((0, 0.4), (1, 0.85)), rng.uniform(0.05, 0.1)
    thing, color = Brush(canvas, place, size, rng.normal(0, 0.25)), _color(rng, (0, 1), 0.5, 0.85)
    thing.fill(ellipse(0, 1, 1.3, 0.25), shadow, depth=0)
    if rng.random() < 0.5:
        for x in (-0.7, 0.6):
            tent = np.array([(x - 0.75, 1), (x - 0.1, -1), (x + 0.1, -1), (x + 0.75, 1)])
            thing.fill(tent, color)
            thing.fill(mix(tent, tent.mean(axis=0), 0.45), mix(PINK, color, 0.3))
    else:
        thing.fill(ellipse(0, 0, 1, 0.85), mix((222, 174, 112), color, 0.25))
        for x, y in rng.uniform(-0.55, 0.55, (rng.integers(1, 7), 2)):
            thing.fill(ellipse(x, y, 0.2, 0.15), (84, 56, 50))
