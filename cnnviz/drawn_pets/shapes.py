"""Outlines as `(n, 2)` arrays of points x, y."""

import math
from functools import lru_cache

import numpy as np

_CIRCLE = np.stack([f(np.arange(0, 2 * np.pi, np.pi / 16)) for f in (np.cos, np.sin)], axis=1)


@lru_cache
def _curve_matrix(count, steps=8):
    """Catmull-Rom weights `(count * steps, count)` of a closed curve through `count` points."""
    t = np.arange(steps) / steps
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    shifted = (np.roll(np.eye(count), offset - 1, axis=1)[:, None] for offset in range(4))
    matrix = sum(eye * weight[:, None] / 2 for eye, weight in zip(shifted, weights, strict=True))
    return matrix.reshape(count * steps, count)


def curve(points):
    return _curve_matrix(len(points)) @ np.asarray(points, float)


def rotation(angle):
    """A matrix for points in rows, `points @ rotation(angle)`."""
    return np.array(((math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))))


def ellipse(x, y, radius_x, radius_y, angle=0.0):
    points = _CIRCLE * (radius_x, radius_y)
    return (points @ rotation(angle) if angle else points) + (x, y)


def stroke(points, width_start, width_end):
    """The outline of a soft stroke along the open curve through `points`."""
    points = np.asarray(points, float)
    along = np.gradient(points, axis=0)
    along /= np.hypot(*along.T)[:, None]
    across = along[:, ::-1] * (-1, 1) * np.linspace(width_start, width_end, len(points))[:, None]
    tip = points[-1:] + along[-1:] * width_end
    return curve(np.concatenate([points + across, tip, (points - across)[::-1]]))


def soft_rectangle(left, top, right, bottom):
    """A rectangle with round corners."""
    half = np.array((right - left, bottom - top)) / 2
    return np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.3 * half + (half + (left, top))


def rectangle(left, top, right, bottom):
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def mix(first, second, share):
    return np.asarray(first, float) * (1 - share) + np.asarray(second, float) * share
