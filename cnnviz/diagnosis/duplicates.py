"""Find images that the data hold twice: exact and near copies, within and across splits."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import scipy.fft

from cnnviz import figures, layers
from cnnviz.figures.style import counted
from cnnviz.progress import progress_bar
from cnnviz.results import Result

SIDE, FREQUENCIES = 64, 12  # of a thumbnail, along each axis: pixels, and cosines to seek it by
LIKELY, SURE = 0.7, 0.88  # least correlation of a candidate's frequencies; of a near copy's detail
SMALLEST, LEAST_WAVES = 32, 40  # that tell images apart: pixels of a side, waves of the detail
BLOCK, NEAREST = 64, 2  # images that are sought at a time; candidates for each, in each split
MOST_DRAWN = 12  # pairs whose images are kept
CUTS = slice(0, SIDE), slice(0, SIDE - 6), slice(3, SIDE - 3), slice(6, SIDE)  # none, and by 10 %
CROPS = [*itertools.product(CUTS, CUTS)]  # rows and columns
MIDDLE = np.s_[SIDE // 5 : -SIDE // 5, SIDE // 5 : -SIDE // 5]


def thumbnail(image):
    """(SIDE, SIDE) float16 of deviation 1, of an image (H, W, C); 0 if it is small or plain."""
    gray = np.asarray(image, np.float32).mean(axis=-1)
    # Rows and columns that differ from the one before: an enlarged image has no more detail.
    size = min(np.diff(gray, axis=axis).any(axis=1 - axis).sum() + 1 for axis in (0, 1))
    method = cv2.INTER_AREA if min(gray.shape) >= SIDE else cv2.INTER_LINEAR
    gray = cv2.resize(gray, (SIDE, SIDE), interpolation=method)
    gray = (gray - gray.mean()) / (gray.std() or 1)
    waves = scipy.fft.dctn(_detail(gray), norm="ortho") ** 2
    n_waves = waves.sum() ** 2 / max((waves**2).sum(), 1e-9)  # that carry the sum (participation)
    return (gray * (size >= SMALLEST and n_waves >= LEAST_WAVES)).astype(np.float16)


def _detail(gray):
    """The fine detail of a thumbnail, with its contrast made even."""
    fine = gray - cv2.GaussianBlur(gray, (0, 0), 3)
    return fine / (np.sqrt(cv2.GaussianBlur(fine**2, (0, 0), 6)) + 0.1)


def _frequencies(thumbnails, *crop):
    """(2, N, F) low frequencies of a crop: even ones, and odd ones, which a mirror negates."""
    cosines, size = scipy.fft.dct(np.eye(FREQUENCIES), axis=0, norm="ortho"), (SIDE, FREQUENCIES)
    kept = [cv2.resize(np.eye(SIDE)[part], size, interpolation=cv2.INTER_AREA) for part in crop]
    down, across = (np.float32(cosines @ each) for each in kept)
    found = down @ thumbnails.astype(np.float32) @ across.T
    found *= np.hypot(*np.indices(found.shape[1:], np.float32))  # photographs have few high ones
    found /= np.maximum(np.linalg.norm(found, axis=(1, 2), keepdims=True), 1e-6)
    return np.stack([found[..., odd::2].reshape(len(found), -1) for odd in (0, 1)])


def _compare(first, second, rows, columns, mirrored):
    """Align two thumbnails, the second a crop: (correlation of their detail, how related)."""
    first, second = np.float32(first), np.float32(second[:, ::-1] if mirrored else second)
    warp = [[(columns.stop - columns.start) / SIDE, 0, columns.start]]
    warp = np.float32([*warp, [0, (rows.stop - rows.start) / SIDE, rows.start]])
    stop = cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4
    try:
        _, warp = cv2.findTransformECC(second, first, warp, cv2.MOTION_AFFINE, stop, None, 5)
    except cv2.error:  # they have nothing in common
        return 0.0, ""
    flags, images = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (_detail(first), np.ones_like(first))
    moved, inside = (cv2.warpAffine(each, warp, first.shape, flags=flags) for each in images)
    scales = warp.diagonal()
    turned = max(abs(warp[0, 1]), abs(warp[1, 0]))  # alike things may fit if they are turned
    if turned > 0.04 or np.abs(scales - 0.95).max() > 0.12 or (inside > 0.99).mean() < 0.7:
        return 0.0, ""
    # In the middle too: one frame around two photographs makes no copy.
    parts = [(moved[at], _detail(second)[at]) for at in (inside > 0.99, MIDDLE)]
    same = min((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6) for a, b in parts)
    signs = {"mirrored": mirrored, "cropped": abs(scales - 1).max() > 0.04}
    return float(same), " and ".join(sign for sign in signs if signs[sign]) or "near copy"


def near_copies(thumbnails, splits):
    """{(i, j): (similarity, how)}, i < j, of thumbnails (N, SIDE, SIDE) that show one image.

    In each of the splits (N,), an image is compared with its `NEAREST` candidates.
    """
    usable, found = np.flatnonzero(thumbnails.any(axis=(1, 2))), {}
    blocks = [usable[start : start + BLOCK] for start in range(0, len(usable), BLOCK)]
    whole = [_frequencies(thumbnails[part], *CROPS[0]) for part in blocks]
    whole = np.concatenate(whole, axis=1) if blocks else None
    owned = [np.flatnonzero(splits[usable] == split) for split in np.unique(splits[usable])]
    with progress_bar(len(usable), "comparing", "image") as bar:
        for part in blocks:
            views = np.stack([_frequencies(thumbnails[part], *crop) for crop in CROPS])
            by_crop = (even @ whole[0].T + abs(odd @ whole[1].T) for even, odd in views)
            alike = functools.reduce(np.maximum, by_crop)  # one after the other, for the memory
            alike[part[:, None] == usable] = -1
            for own in owned * NEAREST:  # the most alike of each split, then the second
                nearest = own[alike[:, own].argmax(axis=1)]
                for row in np.flatnonzero(alike[range(len(part)), nearest] > LIKELY):
                    alike[row, nearest[row]], pair = -1, [part[row], usable[nearest[row]]]
                    even, odd = (views[:, :, row] * whole[:, nearest[row]]).sum(axis=2).T
                    best = (even + abs(odd)).argmax()
                    likeness = _compare(*thumbnails[pair], *CROPS[best], bool(odd[best] < 0))
                    pair = min(pair), max(pair)
                    found[pair] = max(found.get(pair, likeness), likeness)
            bar.update(len(part))
    return {pair: likeness for pair, likeness in found.items() if likeness[0] >= SURE}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Duplicates(Result):
    """P pairs of copies, those across splits first. Each exact copy is paired with the first one.

    Attributes:
        split, index, labels: (P, 2) int: of both images, the split (an index of `names`), the index
            and the class index, -1 where there is none.
        kinds: P texts: "exact" (equal pixel values), "mirrored", "cropped", "mirrored and cropped",
            or "near copy" (encoded again, resized or of other brightness).
        similarity: (P,) float64, 1 for exact copies; else the correlation of the fine detail.
        copied: For each split, the indices of its images that have a copy in another split.
        names, n_images, file_paths: Of each split, its name, its size, and its files or ().
        class_names: The names of the classes, by index; may be empty.
        images: The images of the first 12 pairs; empty if a split is shuffled.
    """

    split: np.ndarray
    index: np.ndarray
    labels: np.ndarray
    kinds: Sequence[str]
    similarity: np.ndarray
    copied: Sequence[np.ndarray]
    names: Sequence[str]
    n_images: Sequence[int]
    class_names: Sequence[str] = ()
    file_paths: Sequence[Sequence[str]] = ()
    images: Sequence[tuple[np.ndarray, np.ndarray]] = ()

    _draw, _html = "draw_duplicates", ("plot", "to_frame")

    @property
    def conflicting(self) -> np.ndarray:
        """Indices of the pairs whose labels differ."""
        return np.flatnonzero((np.ptp(self.labels, axis=1) > 0) & (self.labels.min(axis=1) >= 0))

    def __str__(self) -> str:
        lines = [
            f"{name}: {len(copied):,} of {counted(n, 'image')} with a copy in another split."
            for name, copied, n in zip(self.names, self.copied, self.n_images, strict=True)
        ]
        within, exact = (np.ptp(self.split, axis=1) == 0).sum(), self.kinds.count("exact")
        pairs = f"{counted(len(self.kinds), 'pair')} of copies: {exact:,} exact; {within:,} within "
        pairs += f"a split; {len(self.conflicting):,} with different labels."
        return "\n".join([*lines, pairs] if len(lines) > 1 else [pairs])

    def _columns(self):
        columns = {}
        for column, end in enumerate(("", " of copy")):
            split, index, labels = np.stack([self.split, self.index, self.labels])[..., column]
            columns |= {f"split{end}": [self.names[s] for s in split], f"index{end}": index}
            if any(map(len, self.file_paths)):
                files = [(self.file_paths[s], i) for s, i in zip(split, index, strict=True)]
                columns[f"file{end}"] = [str(paths[i]) if len(paths) else "" for paths, i in files]
            named = [figures.class_name(self.class_names, i) if i >= 0 else "" for i in labels]
            columns[f"label{end}"] = named
        return columns | {"recognized as": self.kinds, "similarity": self.similarity}


def find_duplicates(
    data: layers.ImageData,
    *others: layers.ImageData,
    names: Sequence[str] = (),
    class_names: Sequence[str] = (),
    paths: Sequence[Sequence[str]] = (),
) -> Duplicates:
    """Find images that the data hold twice: exact and near copies, within and across splits.

    It finds copies that were encoded again, resized, cropped by up to 10 %, mirrored, or made
    brighter or darker. Candidates have similar low frequencies. A pair counts if its
    fine detail correlates after alignment (Evangelidis and Psarakis 2008,
    https://doi.org/10.1109/TPAMI.2008.113). Of images below 32 pixels, or with little detail, only
    exact copies are found. Memory: 18 KB per image. Time: quadratic in the number of images.

    Args:
        data, *others: Splits: datasets of batches, pairs (images, labels) or images alone, of 1 or
            3 channels, in any value range. Sizes may differ between splits.
        names: The name of each split; "data", "other 1", ... by default.
        class_names: The names of the classes, by index.
        paths: The files of each split, in its order, or (); else the `file_paths` of the datasets.

    Example:
        >>> images = cnnviz.drawn_pets(8).images
        >>> cnnviz.find_duplicates(images, images[:2, :, ::-1]).kinds
        ['mirrored', 'mirrored']
    """
    names = tuple(names) or ("data", *(f"other {i + 1}" for i in range(len(others))))
    if len(names) != 1 + len(others):
        raise ValueError(f"`names` (={names}) must be {1 + len(others)}, one a split")
    splits = list(zip((data, *others), names, strict=True))
    parts = [_read(*one) for one in splits]
    counts, n = [len(part[0]) for part in parts], range(len(parts))
    hashes, labels, shown = (np.array(sum(each, [])) for each in zip(*parts, strict=True))
    split, index = np.repeat(n, counts), np.concatenate([*map(np.arange, counts)])
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    first = first[group]  # of identical images
    again = np.flatnonzero(first != np.arange(len(first)))
    shown[again] = 0
    near = near_copies(shown, split)
    own = np.zeros((len(first), len(parts)), bool)  # splits that hold the image, or a copy of it
    own[first, split] = True
    copied = own.copy()
    for i, j in near:
        copied[[i, j]] |= own[[j, i]]
    copied = (copied[first] & (split[:, None] != n)).any(axis=1)
    found = near | {(first[i], i): (1.0, "exact") for i in again}
    pairs = sorted(found, key=lambda pair: (np.ptp(split[[*pair]]) == 0, -found[pair][0], pair))
    similarity, kinds = np.array([found[p][0] for p in pairs]), [found[p][1] for p in pairs]
    pairs = np.array(pairs, int).reshape(-1, 2)
    mixed = [len(pairs) > 0 and layers.warn_if_shuffled(*one) for one in splits]
    files = [() if mixed[s] else getattr(splits[s][0], "file_paths", ()) for s in n]
    drawn = pairs[: 0 if any(mixed) else MOST_DRAWN]
    kept = [_pick(*one, index[drawn[split[drawn] == s]]) for s, one in enumerate(splits)]
    images = [tuple(kept[split[i]][index[i]] for i in pair) for pair in drawn]
    about = split[pairs], index[pairs], labels[pairs], kinds, similarity
    of_splits = [index[copied & (split == s)] for s in n], names, counts
    return Duplicates(*about, *of_splits, tuple(class_names), paths or files, images)


def _read(data, name):
    """Hashes, labels and thumbnails of all images of a split."""
    hashes, classes, shown = [], [], []
    for images, labels in layers.batches(None, data, name=name, description=name, labels=None):
        for image in images:  # of one color they are no copies, but defective: each has its own
            code = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
            hashes.append(code if np.ptp(image) else f"{id(hashes)}, {len(hashes)}")
        classes += [-1] * len(images) if labels is None else labels.tolist()
        shown += map(thumbnail, images)
    return hashes, classes, shown


def _pick(data, name, indices):
    """{index: image}, in a second pass."""
    images = (image for part, _ in layers.batches(None, data, name=name) for image in part)
    passed = itertools.islice(images, max(indices, default=-1) + 1)
    return {index: image.copy() for index, image in enumerate(passed) if index in indices}
