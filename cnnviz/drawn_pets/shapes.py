"""Outlines as `(n, 2)` arrays of points x, y."""

import math

import numpy as np

_CIRCLE = np.stack([f(np.arange(0, 2 * np.pi, np.pi / 16)) for f in (np.cos, np.sin)], axis=1)
_CATMULL_ROM = np.array([(0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1)]) / 2
_WEIGHTS = (np.arange(8)[:, None] / 8) ** np.arange(4) @ _CATMULL_ROM  # at eight steps


def curve(points):
    """The smooth closed outline through some points (Catmull-Rom)."""
    points = np.asarray(points, float)
    neighbors = (np.arange(len(points))[:, None] + (-1, 0, 1, 2)) % len(points)
    return (_WEIGHTS @ points[neighbors]).reshape(-1, 2)


def rotation(angle):
    """A matrix for points in rows, `points @ rotation(angle)`."""
    return np.array(((math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))))


def ellipse(x, y, radius_x, radius_y, angle=0.0):
    return _CIRCLE * (radius_x, radius_y) @ rotation(angle) + (x, y)


def rectangle(left, top, right, bottom):
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)


def stroke(points, width_start, width_end):
    """The outline of a soft stroke along the open curve through `points`."""
    points = np.asarray(points, float)
    along = np.gradient(points, axis=0)
    along /= np.hypot(*along.T)[:, None]
    across = along[:, ::-1] * (-1, 1) * np.linspace(width_start, width_end, len(points))[:, None]
    tip = points[-1:] + along[-1:] * width_end
    return curve(np.concatenate([points + across, tip, (points - across)[::-1]]))


def mix(first, second, share):
    """A color or point between two others."""
    return np.asarray(first, float) * (1 - share) + np.asarray(second, float) * share
