"""Draw heat maps: where the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
from numpy.typing import ArrayLike

from cnnviz.figures import style
from cnnviz.figures.style import DescribedFigure, class_name, styled, to_units

if TYPE_CHECKING:
    from cnnviz.grad_cam import GradCAM

MANY_CELLS = 256  # of a heat map, so that 1 in 200 is more than one
DARKEST = 0.25  # what is left of the colors where there is no evidence


@styled
def draw_heat_maps(
    images: ArrayLike | Sequence[ArrayLike],
    results: GradCAM | Sequence[GradCAM],
    class_names: Sequence[str] = (),
    *,
    titles: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
) -> DescribedFigure:
    """Draw where the evidence lies: image, heat map, overlay; for several results side by side.

    Args:
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays; see `draw_images`.
        results: A GradCAM for these images, or a sequence of them, such as one for each class.
        class_names: The classes' names, by index; others are numbered.
        titles: N strings to stand over the images, or None.
        names: A string for each result, to stand over its maps where class and method alone do not
            tell them apart, such as the name of the model; or None.
        value_range: The values of black and of white; None finds them: see `draw_images`.

    Returns:
        Figure: a row for each of the first 12 images. Each map has a color scale of its own, with a
        color bar. In a map of hundreds of cells it ends at the 99.5th percentile, so that a few
        extreme cells do not leave the rest dark. The overlay dims the image where there is no
        evidence; signed evidence tints it orange (for the class) and purple (against it). An empty
        map says why it is empty.

    Raises:
        ValueError: If images, maps and titles, or results and names, are not equally many.

    Example:
        >>> image = cnnviz.sample_image()
        >>> result = cnnviz.grad_cam(cnnviz.load_pretrained(), image)
        >>> figure = cnnviz.figures.draw_heat_maps(image, result, cnnviz.CLASS_NAMES)
    """
    results = [results] if hasattr(results, "maps") else list(results)
    images = to_units(images, value_range, titles, *(result.maps for result in results))
    names = [""] * len(results) if names is None else names
    if len(names) != len(results):
        raise ValueError(f"`names` (={names!r}) must be {len(results)}, one for each result")
    rows, shape = [], np.shape(images[0])
    for row, image in enumerate(images[: style.MOST_ROWS]):
        rows.append([(image, f"image {row}" if titles is None else titles[row])])
        for result, name in zip(results, names, strict=True):
            evidence, verdict, signed = (
                result.maps[row],
                result.verdicts[row],
                result.maps.min() < 0,
            )
            of, top = class_name(class_names, result.class_index[row]), _top(evidence)
            colors = style.SIGNED_COLORS if signed else style.EVIDENCE_COLORS
            scale = {"cmap": colors, "vmin": -top if signed else 0, "vmax": top}
            scale["extent"] = (0, shape[1], shape[0], 0)  # as large as the image
            found = "{}x{}".format(*evidence.shape) if verdict == "ok" else verdict
            title = f"{result.method} for{'/against' if signed else ''} {of}, {found}"
            shown = f"{name} {of}: score {result.scores[row]:+.2f}"
            rows[-1] += [(evidence, title, scale), (overlay(image, evidence), shown)]
    heading = "evidence at " + "; ".join(dict.fromkeys(result.layer_name for result in results))
    heading += f", the first {len(rows)} of {len(images)} images" if len(rows) < len(images) else ""
    return style.draw_grid(rows, 1.6, heading)


def _top(evidence):
    """Where the color scale of a heat map (h, w) ends."""
    strength = np.abs(evidence)
    top = float(strength.max(initial=0))
    if strength.size >= MANY_CELLS:  # of a map with evidence in a cell or two, nearly all are 0
        top = max(float(np.percentile(strength, 99.5)), top / 20)
    return top or 1.0


def overlay(image, evidence):
    """Dim an image where there is no evidence, and tint it where the evidence has a sign.

    (H, W, 3) in 0..1 and (h, w) evidence of any scale -> (H, W, 3), nowhere brighter than before.
    """
    strength = np.clip(evidence / _top(evidence), -1, 1).astype(np.float32)
    strength = cv2.resize(strength, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    shown = image * (DARKEST + (1 - DARKEST) * np.abs(strength))[..., None]
    if (strength < 0).any():
        shown *= matplotlib.colormaps[style.SIGNED_COLORS](0.5 + strength / 3)[..., :3]
    return shown


@styled
def draw_exploration(image, feature_map, ascended, evidence, titles, value_range):
    """Draw an image, what one channel outputs, what excites it, and the evidence, with titles.

    `ascended` is FilterImages and `evidence` a GradCAM, of one image each, or words in their place.
    """
    (image,), feature_map = to_units([image], value_range), np.asarray(feature_map, np.float32)
    low, high = min(0.0, feature_map.min()), feature_map.max()
    scale = {"cmap": style.ACTIVATION_COLORS, "vmin": low, "vmax": max(high, low + 1e-6)}
    scale["extent"] = (0, image.shape[1], image.shape[0], 0)
    excites = explains = np.full_like(image, style.NOTHING_TO_SEE)
    if not isinstance(ascended, str) and ascended.verdicts[0] == "ok":
        (excites,) = to_units(ascended.images[:1], ascended.value_range)
    if not isinstance(evidence, str):
        explains = overlay(image, evidence.maps[0])
    row = list(zip((image, feature_map, excites, explains), titles, strict=True))
    row[1] += (scale,)
    figure = style.draw_grid([row], 2.1)
    for axis, words in zip(figure.axes[2:4], (ascended, evidence), strict=True):
        text = style.wrapped(words, 2, lines=10) if isinstance(words, str) else ""
        look = {"transform": axis.transAxes, "ha": "center", "va": "center", "fontsize": 9}
        axis.text(0.5, 0.5, text, **look)
    return figure
