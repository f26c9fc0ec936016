"""Find images that are defective in themselves: black, repeated, not finite, of mixed ranges."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MIXED = "lie in 0..1, while others reach up to 255"
LARGE = 30  # an image in 0..255 reaches it, one that was rescaled does not


def find_image_faults(batches: Iterable[np.ndarray]) -> tuple[tuple[str, np.ndarray], ...]:
    """Find images that are defective in themselves, without a model.

    Of each image only its kind and a hash are kept, so there may be many images.

    Args:
        batches: Iterable of arrays (B, H, W, C), read once. They may hold NaN.

    Returns:
        (sentence, (n,) indices) of each fault: images that hold NaN or infinity, have a single
        color, repeat an earlier image, or lie in 0..1 while others reach up to 255. The number of
        indices tells how much it matters: one black image of 1,000 is no disaster.

    Example:
        >>> from cnnviz.diagnosis.images import find_image_faults
        >>> images = np.random.default_rng(0).uniform(0, 255, (9, 8, 8, 3))
        >>> images[4] = 0
        >>> [(sentence, indices)] = find_image_faults([images])
        >>> sentence
        '1 of 9 images has a single color all over: check how it is made and loaded.'
    """
    kinds, repeated, seen = [], [], set()
    for image in (image for images in batches for image in images):
        kinds.append(_kind(image))
        key = hash(image.tobytes())
        repeated.append(key in seen and kinds[-1] not in ("not finite", "one color"))
        seen.add(key)
    kinds, n = np.array(kinds, object), len(kinds)
    found = []
    for indices, one, several in (
        (kinds == "not finite", "holds NaN or infinity", "hold NaN or infinity"),
        (kinds == "one color", "has a single color all over", "have a single color all over"),
        (np.array(repeated, bool), "repeats an earlier image", "repeat an earlier image"),
    ):
        if len(indices := np.flatnonzero(indices)):
            them = "it is" if len(indices) == 1 else "they are"
            number = f"All {n}" if len(indices) == n else f"{len(indices)} of {n}"
            does = one if len(indices) == 1 else several
            found.append((f"{number} images {does}: check how {them} made and loaded.", indices))
    small, large = np.flatnonzero(kinds == "0..1"), np.flatnonzero(kinds == "large")
    if len(small) and len(large) and not (kinds == "between").any():
        text = f"{len(small)} of {n} images {MIXED}"
        found.append((f"{text}: give all of them in the same range.", small))
    return tuple(found)


def _kind(image):
    if not np.isfinite(image).all():
        return "not finite"
    if (image == image[:1, :1]).all():
        return "one color"
    if 0 <= image.min() and image.max() <= 1 and (image % 1).any():
        return "0..1"  # whole numbers would be a very dark image
    return "large" if image.max() > LARGE else "between"
