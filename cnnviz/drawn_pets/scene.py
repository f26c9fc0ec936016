"""Draw the scene around the animal: a meadow, a room or a studio, with things in it."""

import numpy as np

from cnnviz.drawn_pets.canvas import draw_lines, fill, fill_round, glow
from cnnviz.drawn_pets.colors import COATS, INK, OUTDOOR_PALETTES, PINK, ROOM_PALETTES, WHITE
from cnnviz.drawn_pets.shapes import curve, ellipse, mix, rectangle, rotation


def paint_background(canvas, rng):
    """Paint the scene without the animal; return the colors that go with it."""
    paint = (_paint_outdoors, _paint_room, _paint_studio)[rng.integers(3)]
    palettes = OUTDOOR_PALETTES if paint is _paint_outdoors else ROOM_PALETTES
    palette = np.array(palettes[rng.integers(len(palettes))], float)
    palette = np.clip(palette + rng.normal(0, 8, (5, 1)) + rng.normal(0, 4, (5, 3)), 0, 255)
    paint(canvas, rng, palette, rng.uniform(0.46, 0.68))
    return palette


def _paint_gradient(canvas, top, bottom, start, end):
    rows = canvas[round(start * len(canvas)) : round(end * len(canvas)), :, :3]
    rows[:] = np.clip(mix(top, bottom, np.linspace(0, 1, len(rows))[:, None, None]), 0, 255)


def _paint_outdoors(canvas, rng, palette, horizon):
    sky, ground, *_, far = palette
    _paint_gradient(canvas, mix(sky, (70, 130, 210), 0.2), mix(sky, WHITE, 0.45), 0, horizon)
    glow(canvas, *rng.uniform((0, 0), (1, 0.3)), 0.2, 0.2, (255, 244, 206), rng.uniform(0.3, 0.9))
    for x, y in rng.uniform((0, 0.05), (1, 0.35), (rng.integers(0, 4), 2)):
        for dx, size in ((-0.07, 0.035), (0, 0.055), (0.07, 0.04)):
            glow(canvas, x + dx, y - size / 2, size * 1.5, size, WHITE, 0.75)
    for share in (0.5, 0.2):
        heights = horizon - share * rng.uniform(0.05, 0.36, 6)
        ridge = [*zip(np.linspace(-0.3, 1.3, 6), heights, strict=True), (1.4, 1.2), (-0.4, 1.2)]
        fill(canvas, curve(ridge), mix(mix(far, ground, 0.5), sky, share))
    _paint_gradient(canvas, mix(ground, WHITE, 0.12), mix(ground, INK, 0.14), horizon, 1)


def _paint_room(canvas, rng, palette, horizon):
    wall, floor, _, second, third = palette
    _paint_gradient(canvas, mix(wall, WHITE, 0.15), wall, 0, horizon)
    pitch, striped = rng.uniform(0.07, 0.16), rng.random() < 0.5
    for x in np.arange(0, 1, pitch) if striped else ():
        fill(canvas, rectangle(x, 0, x + pitch / 3, horizon), mix(wall, third, 0.35))
    _paint_gradient(canvas, floor, mix(floor, INK, 0.12), horizon, 1)
    starts = np.linspace(-1, 2, 12)
    planks = [((0.5 + (x - 0.5) * 0.6, horizon), (0.5 + (x - 0.5) * 1.5, 1)) for x in starts]
    draw_lines(canvas, planks, mix(floor, INK, 0.22), 0.005)
    fill(canvas, rectangle(-0.1, horizon - 0.035, 1.1, horizon), mix(wall, WHITE, 0.6))
    frame = rectangle(0, 0, *rng.uniform((0.14, 0.15), (0.26, 0.28)))
    frame += rng.uniform((0.1, 0.08), (0.75, 0.14))
    fill(canvas, frame, mix(third, INK, rng.uniform(0, 0.5)))
    fill(canvas, mix(frame, frame.mean(axis=0), 0.2), mix(second, (208, 227, 244), 0.6))


def _paint_studio(canvas, rng, palette, horizon):
    color = palette[rng.integers(3)]
    _paint_gradient(canvas, mix(color, INK, rng.uniform(0, 0.3)), mix(color, WHITE, 0.3), 0, 1)
    _paint_gradient(canvas, mix(color, WHITE, 0.35), mix(color, INK, 0.1), horizon, 1)
    glow(canvas, 0.5, horizon, 1.0, 0.12, mix(color, WHITE, 0.3), 0.9)


def paint_thing(canvas, rng, palette):
    """Paint one of four things; some have triangles and ovals, like ears and muzzles."""
    x, y, size = rng.uniform((0, 0.35, 0.05), (1, 0.85, 0.12))
    colors = (*palette[2:], COATS[rng.integers(len(COATS))])
    color, other = (colors[i] for i in rng.permutation(4)[:2])
    kind, light, turn = rng.integers(4), (-0.5, -0.8), rng.normal(0, 0.25)
    glow(canvas, x, y + size, size * 1.3, size * 0.3, INK, 0.35)
    if kind == 0:  # a ball
        stripes = [(ellipse(x, y, size * 1.2, size * 0.3, turn * 3), other)]
        fill_round(canvas, ellipse(x, y, size, size), color, light, marks=stripes, depth=1.5)
    elif kind == 1:  # a plant
        for angle in np.linspace(-1, 1, 5) + turn:
            middle = np.array((x, y)) + size * np.array((np.sin(angle), -np.cos(angle)))
            leaf = ellipse(*middle, size * 0.28, size, angle)
            fill_round(canvas, leaf, mix((88, 146, 92), color, 0.2), light)
        pot = np.array([(-0.6, 0), (0.6, 0), (0.45, 1), (-0.45, 1)]) * size + (x, y)
        fill_round(canvas, pot, other, light)
    elif kind == 2:  # tents or fir trees: upright triangles with smaller ones inside
        for shift, share in ((-0.7, 0.8), (0.6, 1)):
            shape = np.array([(-0.75, 1), (-0.1, -1), (0.1, -1), (0.75, 1)]) * size * share
            shape = shape @ rotation(turn) + (x + shift * size, y + size * (1 - share))
            fill_round(canvas, shape, color, light)
            fill(canvas, mix(shape, shape.mean(axis=0), 0.45), (other, PINK)[rng.integers(2)])
    else:  # a cookie: pale and round with dark ovals, like a snout with its nose
        cookie = ellipse(x, y, size, size * 0.85, turn)
        fill_round(canvas, cookie, mix((222, 174, 112), color, 0.25), light, depth=1.3)
        for dx, dy in rng.uniform(-0.55, 0.55, (rng.integers(1, 7), 2)) * size:
            chip = ellipse(x + dx, y + dy, size * 0.2, size * 0.15, turn)
            fill_round(canvas, chip, (84, 56, 50), light, depth=1.5)
