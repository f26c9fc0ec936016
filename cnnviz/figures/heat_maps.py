"""Draw heat maps, where the evidence for a class lies, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
from numpy.typing import ArrayLike

from cnnviz.figures import style
from cnnviz.figures.style import DescribedFigure, class_name, styled, subplots, to_units

if TYPE_CHECKING:
    from cnnviz.diagnosis import MapTrust
    from cnnviz.grad_cam import GradCAM

DARKEST = 0.25  # what is left of the colors where there is no evidence
TRUST_TITLES = {
    "focus": "evidence on the\nright two of four:\nhigh is good",
    "pointing": "evidence on the\nright one of four:\nhigh is good",
    "deletion": "probability while\nit is deleted:\nlow is good",
    "insertion": "probability while\nit is inserted:\nhigh is good",
    "survival": "what is left with\nshuffled weights:\nnear 0 is good",
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

    Each map has a color scale of its own. If it has hundreds of cells, the scale ends at the 99.5th
    percentile, so that a few extreme cells do not leave the rest dark. The overlay dims the image
    where there is no evidence; signed evidence tints it orange (for the class) and purple (against
    it). An empty map says why it is empty.

    Args:
        images: (N, H, W, C) array, or a sequence of (H, W, C) arrays; see `draw_images`.
        results: A GradCAM for these N images, or several to stand side by side, as of two classes.
        class_names: The classes' names, by index; others are numbered.
        titles: N strings to stand over the images, or None.
        value_range: The values of black and of white; None finds them: see `draw_images`.

    Example:
        >>> image = cnnviz.sample_image()
        >>> result = cnnviz.grad_cam(cnnviz.load_pretrained(), image)
        >>> figure = cnnviz.figures.draw_heat_maps(image, result, cnnviz.CLASS_NAMES)
    """
    results, rows = [results] if hasattr(results, "maps") else list(results), []
    images = to_units(images, value_range, titles, *(result.maps for result in results))
    for row, image in enumerate(images[: style.MOST_ROWS]):
        rows.append([(image, f"image {row}" if titles is None else titles[row])])
        for result in results:
            evidence, verdict = result.maps[row], result.verdicts[row]
            name, top = class_name(class_names, result.class_index[row]), _top(evidence)
            scale = {"cmap": style.EVIDENCE_COLORS, "vmin": 0, "vmax": top}
            if signed := result.maps.min() < 0:
                scale |= {"cmap": style.SIGNED_COLORS, "vmin": -top}
            found = "{}x{}".format(*evidence.shape) if verdict == "ok" else verdict
            title = f"{result.method} for{'/against' if signed else ''} {name}, {found}"
            shown = f"{name}: score {result.scores[row]:+.2f}"
            rows[row] += [(evidence, title, scale), (overlay(image, evidence), shown)]
    heading = "evidence at " + "; ".join(dict.fromkeys(result.layer_name for result in results))
    heading += f", the first {len(rows)} of {len(images)} images" if len(rows) < len(images) else ""
    return style.draw_grid(rows, 1.6, heading)


def _top(evidence):
    """Where the color scale of a heat map (h, w) ends."""
    strength = np.abs(evidence)
    top = float(strength.max(initial=0))
    if strength.size > 200:  # of a map with evidence in a cell or two, nearly all are 0
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
def draw_map_trust(result: MapTrust) -> DescribedFigure:
    """Draw what `map_trust` measures, a panel for each; the dashed line is what random maps get."""
    rows = np.arange(len(result.methods))
    figure, axes = subplots(1, 5, figsize=(9, 1.1 + 0.3 * len(rows)), sharey=True)
    for axis, (measure, title) in zip(axes, TRUST_TITLES.items(), strict=True):
        values = np.asarray(getattr(result, measure), float)
        bars = axis.barh(rows, values, 0.5, color=style.TRAINING_COLOR)
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
        random = np.nan_to_num(values[list(result.methods).index("random")])
        axis.axvline(random, color="0.4", linestyle="--", linewidth=0.8)
        axis.set(xlim=(min(0, np.nanmin(values) - 0.4), 1.4), xticks=(0, 0.5, 1))
        axis.set_title(title, fontsize=9)
    axes[0].set_yticks(rows, result.methods)
    axes[0].invert_yaxis()
    return figure
