"""Find images that are defective in themselves: black, repeated, not finite, of mixed ranges."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MIXED = "lie in 0..1, while others reach up to 255"
FAULTS = {
    "hold": "NaN or infinity",
    "have": "a single color all over",
    "repeat": "an earlier image",
}
LARGE = 30  # an image in 0..255 reaches it, one that was rescaled does not


def find_image_faults(batches: Iterable[np.ndarray]) -> tuple[tuple[str, np.ndarray], ...]:
    """Find images that are defective in themselves, without a model.

    Args:
        batches: Iterable of arrays (B, H, W, C), read once. They may hold NaN.

    Returns:
        (sentence, (n,) indices) of each fault: images that hold NaN or infinity, have a single
        color, repeat an earlier image, or lie in 0..1 while others reach up to 255.

    Example:
        >>> from cnnviz.diagnosis.images import find_image_faults
        >>> images = np.random.default_rng(0).uniform(0, 255, (9, 8, 8, 3))
        >>> images[4] = 0
        >>> [(sentence, indices)] = find_image_faults([images])
        >>> sentence
        '1 of 9 images has a single color all over: check how it is made and loaded.'
    """
    kinds, seen, found = [], set(), []
    for image in (image for images in batches for image in images):
        kind, key = _kind(image), hash(image.tobytes())
        kinds.append("repeat" if key in seen and kind not in FAULTS else kind)
        seen.add(key)
    kinds, n = np.array(kinds, object), len(kinds)
    for does, what in FAULTS.items():
        if len(indices := np.flatnonzero(kinds == does)):
            number = f"All {n}" if len(indices) == n else f"{len(indices)} of {n}"
            does, they = (does, "they are") if len(indices) > 1 else (f"{does}s", "it is")
            text = f"{number} images {does.replace('haves', 'has')} {what}"
            found.append((f"{text}: check how {they} made and loaded.", indices))
    small, large = np.flatnonzero(kinds == "0..1"), np.flatnonzero(kinds == "large")
    if len(small) and len(large) and not (kinds == "between").any():
        text = f"{len(small)} of {n} images {MIXED}: give all of them in the same range."
        found.append((text, small))
    return tuple(found)


def _kind(image):
    if not np.isfinite(image).all():
        return "hold"
    if (image == image[:1, :1]).all():
        return "have"
    if 0 <= image.min() and image.max() <= 1 and (image % 1).any():
        return "0..1"  # whole numbers would be a very dark image
    return "large" if image.max() > LARGE else "between"
