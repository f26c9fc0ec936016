"""Draw heat maps, where the evidence for a class lies, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import scipy.ndimage
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from cnnviz.figures import style
from cnnviz.figures.style import DescribedFigure, styled, subplots, to_units

if TYPE_CHECKING:
    from cnnviz.diagnosis import MapTrust
    from cnnviz.grad_cam import GradCAM

MOST_LINES, MOST_SLICES = 4, 4  # channels of a signal, slices of a volume
ON_DARK = {"color": "white", "path_effects": [withStroke(linewidth=3, foreground="black")]}
DARKEST = 0.25  # what is left of the colors where there is no evidence
TRUST_TITLES = {
    "focus": "evidence on\nthe class's 2 of 4 images\n(high is good)",
    "pointing": "evidence on\nthe class's 1 of 4 images\n(high is good)",
    "road": "probability without the\nweakest, less strongest\n(high is good)",
    "survival": "rank correlation with\nshuffled weights\n(near 0 is good)",
}


@styled
def draw_heat_maps(
    images: ArrayLike | Sequence[ArrayLike],
    results: GradCAM | Sequence[GradCAM],
    class_names: Sequence[str] = (),
    *,
    titles: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw where the evidence lies in the first 12 images: image, heat map, overlay.

    The first 4 channels of a signal are drawn as lines upon their evidence. Of the first 3 volumes
    or videos, 4 spaced slices are drawn, and the one with the strongest evidence.

    Each map has a color scale of its own. If it has hundreds of cells, the scale ends at the 99.5th
    percentile. The overlay dims the image where there is no evidence; signed evidence tints it
    orange (for the class) and purple (against it). An empty map says why it is empty.

    Args:
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays; signals (N, L, C), volumes
            and videos (N, D, H, W, C).
        results: A GradCAM for these N images, or several to stand side by side, as of two classes.
        class_names: The classes' names, by index; others are numbered.
        titles: N strings to stand over the images, or None.
        value_range: The values of black and of white; see `draw_images`.

    Example:
        >>> image = cnnviz.sample_image()
        >>> result = cnnviz.grad_cam(cnnviz.load_pretrained(), image)
        >>> figure = cnnviz.figures.draw_heat_maps(image, result, cnnviz.CLASS_NAMES)
    """
    results = [results] if hasattr(results, "maps") else list(results)
    ranks = {result.maps.ndim for result in results}
    if getattr(images, "ndim", 0) in ranks - {3}:  # one signal or one volume
        images = images[None]
    heading = "evidence at " + "; ".join(dict.fromkeys(result.layer_name for result in results))
    volumes = len(images) > 0 and np.ndim(images[0]) == 4
    most = style.MOST_ROWS // (MOST_SLICES if volumes else 1)
    if len(images) > most:
        heading += f", the first {most} of {len(images)} images"
    if 2 in ranks:
        return _draw_signals(images, results, class_names, titles, heading)
    images, panels = to_units(images, value_range, titles, *(one.maps for one in results)), []
    for row, image in enumerate(images[:most]):
        title = f"image {row}" if titles is None else titles[row]
        about = [_described(result, row, class_names) for result in results]
        for name, shown, maps in _slices(image, [result.maps[row] for result in results]):
            panels.append((shown, title + name))
            for evidence, (words, scale, score) in zip(maps, about, strict=True):
                panels += [(evidence, words, scale), (overlay(shown, evidence), score)]
    return style.draw_grid(panels, 1 + 2 * len(results), heading, side=1.6)


def _slices(image, maps):
    """(name, image, maps): the image itself, or slices of a volume."""
    if image.ndim == 3:
        return [("", image, maps)]
    n = len(image)
    maps = [one if one.ndim == 3 else one[None] for one in maps]  # (h, w) if frames are merged
    maps = [_resized(one, (n, *one.shape[1:])) for one in maps]
    strongest = sum(np.abs(one).max((1, 2)) for one in maps).argmax()
    chosen = sorted({*np.linspace(0, n - 1, MOST_SLICES).astype(int).tolist(), int(strongest)})
    return [(f", slice {i} of {n}", image[i], [one[i] for one in maps]) for i in chosen]


def _draw_signals(signals, results, class_names, titles, heading):
    """A row for each signal, a column for each result: the channels upon their evidence."""
    style.check_counts(signals, titles, *(result.maps for result in results))
    signals = np.asarray(signals, float)[: style.MOST_ROWS]
    n_rows, length, n_channels = signals.shape
    lines = np.arange(min(n_channels, MOST_LINES))
    size = style.PAGE_WIDTH, 0.4 + (0.7 + 0.5 * len(lines)) * n_rows
    figure, axes = subplots(n_rows, len(results), figsize=size, squeeze=False, sharey="row")
    for (row, column), axis in np.ndenumerate(axes):
        title, scale, score = _described(results[column], row, class_names)
        title = f"{f'signal {row}' if titles is None else titles[row]}: {title}; {score}"
        axis.set_title(style.wrapped(title, 7 / len(results)), fontsize=9)
        evidence = _resized(results[column].maps[row], length)
        extent = -0.5, length - 0.5, len(lines), 0
        band = axis.imshow(evidence[None], aspect="auto", extent=extent, **scale)
        figure.colorbar(band, ax=axis, pad=0.01, aspect=10).ax.tick_params(labelsize=9)
        shown = signals[row][:, lines]
        low, high = shown.min(axis=0), shown.max(axis=0)  # each channel has a scale of its own
        axis.plot(lines + 0.9 - 0.8 * (shown - low) / np.maximum(high - low, 1e-9), **ON_DARK)
        names = [f"channel {n}\n{low[n]:.3g} to {high[n]:.3g}" for n in lines]
        axis.set_yticks(lines + 0.5, names, fontsize=9)
    heading += f", {len(lines)} of {n_channels} channels" if len(lines) < n_channels else ""
    figure.suptitle(style.wrapped(heading, size[0]), x=0.01, ha="left")
    return figure


def _described(result, row, class_names):
    """Of a map: its title, its options of `imshow`, and the score in words."""
    name, verdict = style.explained_name(result, row, class_names), result.verdicts[row]
    scale = {"cmap": style.EVIDENCE_COLORS, "vmin": 0, "vmax": _top(result.maps[row])}
    title = f"{result.method} for {name}"
    if result.maps.min() < 0:
        scale |= {"cmap": style.SIGNED_COLORS, "vmin": -scale["vmax"]}
        title = f"{result.method} for/against {name}"
    title += "" if verdict == "ok" else f": {verdict}"
    return title, scale, f"{name}: score {result.scores[row]:+.2f}"


def _top(evidence):
    """Where the color scale of a heat map ends."""
    strength = np.abs(evidence)
    top = float(strength.max(initial=0))
    if strength.size > 200:  # of a map with evidence in a cell or two, nearly all are 0
        top = max(float(np.percentile(strength, 99.5)), top / 20)
    return top or 1.0


def _resized(evidence, shape):
    """Interpolate a map of any rank linearly between the centers of its cells."""
    factors = np.divide(shape, evidence.shape)
    return scipy.ndimage.zoom(evidence, factors, order=1, mode="nearest", grid_mode=True)


def overlay(image, evidence):
    """Dim an image where there is no evidence, and tint it where the evidence has a sign.

    (H, W, 3) in 0..1 and (h, w) evidence of any scale -> (H, W, 3), nowhere brighter than before.
    """
    strength = np.clip(evidence / _top(evidence), -1, 1).astype(np.float32)
    strength = _resized(strength, image.shape[:2])
    shown = image * (DARKEST + (1 - DARKEST) * np.abs(strength))[..., None]
    if (strength < 0).any():
        shown *= matplotlib.colormaps[style.SIGNED_COLORS](0.5 + strength / 3)[..., :3]
    return shown


@styled
def draw_map_trust(result: MapTrust) -> DescribedFigure:
    """Draw what `map_trust` measures, a panel for each, with its 95 % intervals."""
    figure, axes = subplots(1, 4, figsize=(9, 1.5 + 0.3 * len(result.methods)), sharey=True)
    lowest = np.nanmin([0.0, *np.ravel(list(result.intervals.values()))])
    for axis, (measure, text) in zip(axes, TRUST_TITLES.items(), strict=True):
        values, ends = getattr(result, measure), result.intervals[measure]
        look = {"xerr": abs(ends.T - values), "height": 0.5, "color": style.TRAINING_COLOR}
        bars = axis.barh(result.methods, values, **look)
        texts = [f"{value:.2f}" if np.isfinite(value) else "" for value in values]
        axis.bar_label(bars, texts, padding=2)
        axis.axvline(np.nan_to_num(values[-2]), color="0.4", linestyle="--", linewidth=0.8)
        axis.set(xlim=(lowest - 0.5, 1.4), xticks=[0, 0.5, 1])  # with room for the numbers
        axis.set_title(f"{measure}: {text}", fontsize=9)
    axes[0].invert_yaxis()
    figure.suptitle("trust in heat maps; dashed: random maps", x=0.01, ha="left")
    return figure
