"""Find images that are defective in themselves: black, repeated, not finite, of mixed ranges."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MIXED = "while others reach up to"
FAULTS = {
    "hold": "NaN or infinity",
    "have": "a single color all over",
    "repeat": "an earlier image",
}
OFTEN = 3  # times that an image must be there to be a defect; two are near duplicates
SMALL, GAP = 5, 8  # largest value of rescaled images; how many times smaller their contrast is


def find_image_faults(batches: Iterable[np.ndarray]) -> tuple[tuple[str, np.ndarray], ...]:
    """Find images that are defective in themselves, without a model.

    Args:
        batches: Iterable of arrays (B, H, W, C), read once. They may hold NaN.

    Returns:
        (sentence, (n,) indices) of each fault: images that hold NaN or infinity, have a single
        color, repeat an image that is there three times or more, or were rescaled, to 0..1 for
        instance, while others were not.

    Example:
        >>> from cnnviz.diagnosis.images import find_image_faults
        >>> images = np.random.default_rng(0).uniform(0, 255, (9, 8, 8, 3))
        >>> images[4] = 0
        >>> [(sentence, indices)] = find_image_faults([images])
        >>> sentence
        '1 of 9 images has a single color all over: check how it is made and loaded.'
    """
    rows = [_described(image) for images in batches for image in images]
    if not (n := len(rows)):
        return ()
    kinds, hashes, *rest = (np.array(column) for column in zip(*rows, strict=True))
    _, first, group, counts = np.unique(hashes, True, True, True)
    again = (counts[group] >= OFTEN) & (first[group] != np.arange(n))
    kinds = np.where((kinds == "") & again, "repeat", kinds)
    found = []
    for does, what in FAULTS.items():
        if len(indices := np.flatnonzero(kinds == does)):
            number = f"{len(indices)} of {n}" if len(indices) < n else f"All {n}"
            does, they = (does, "they are") if len(indices) > 1 else (f"{does}s", "it is")
            text = f"{number} images {does.replace('haves', 'has')} {what}"
            found.append((f"{text}: check how {they} made and loaded.", indices))
    return (*found, *_find_mixed(np.flatnonzero(kinds == ""), *rest))


def _described(image):
    """(what is wrong with an image, its hash, lowest and highest value, whether it is whole)."""
    if not np.isfinite(image).all():
        return "hold", hash(image.tobytes()), 0, 0, True
    kind = "have" if (image == image[:1, :1]).all() else ""
    return kind, hash(image.tobytes()), image.min(), image.max(), not (image % 1).any()


def _find_mixed(indices, lows, highs, whole):
    """Images that were rescaled, if others were not: a wide gap separates their contrasts."""
    spans = (highs - lows)[indices]
    order = spans.argsort(kind="stable")
    jumps = spans[order][1:] / spans[order][:-1]
    if not len(jumps) or jumps.max() <= GAP:
        return ()
    small = np.sort(indices[order[: jumps.argmax() + 1]])
    low, high = lows[small].min(), highs[small].max()
    if max(-low, high) > SMALL or whole[small].any():  # whole numbers are a very dark image
        return ()
    text = f"{len(small)} of {len(lows)} images lie in {low:.3g}..{high:.3g}, {MIXED} "
    return ((f"{text}{highs.max():.4g}: give all of them in the same range.", small),)
