"""Find images that the data hold twice: exact and near copies, within and across splits."""

from __future__ import annotations

import dataclasses
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
LIKELY, SURE = 0.7, 0.8  # least correlation of a candidate's frequencies; of a near copy's detail
# Detail tells images apart if it holds more of the contrast, is spread over more of the 64 * 64
# pixels and waves (unlike strokes, and blur), and the contrast is more of the value range.
SMALLEST, FAINT, LEAST_PIXELS, LEAST_WAVES, LEAST_CONTRAST = 32, 0.1, 500, 40, 0.02
BLOCK, NEAREST = 256, 2  # images that are sought at a time; candidates for each, in each split
MOST_DRAWN = 12  # pairs whose images are kept
ALL, *CUT = slice(0, SIDE), slice(0, SIDE - 6), slice(3, SIDE - 3), slice(6, SIDE)  # by 10 %
CROPS = [(ALL, ALL), *itertools.product(CUT, CUT)]  # rows and columns
CROPS += [(ALL, CUT[0]), (ALL, CUT[2]), (CUT[0], ALL), (CUT[2], ALL)]
MIDDLE = np.s_[SIDE // 5 : -SIDE // 5, SIDE // 5 : -SIDE // 5]


def thumbnail(image):
    """(contrast, (SIDE, SIDE) float16 of deviation 1, or 0 if too plain) of an image (H, W, C)."""
    gray = np.asarray(image, np.float32).mean(axis=-1)
    # Rows and columns that differ from the one before: repeated ones add no detail.
    size = min(np.diff(gray, axis=axis).any(axis=1 - axis).sum() + 1 for axis in (0, 1))
    method = cv2.INTER_AREA if min(gray.shape) >= SIDE else cv2.INTER_LINEAR
    gray = cv2.resize(gray, (SIDE, SIDE), interpolation=method)
    gray -= gray.mean()
    contrast = float(gray.std())
    gray /= contrast or 1
    share, fine = _detail(gray)
    waves = scipy.fft.dctn(fine, norm="ortho") ** 2
    tells = size >= SMALLEST and share >= FAINT and _spread(fine**2) >= LEAST_PIXELS
    return contrast, (gray * (tells and _spread(waves) >= LEAST_WAVES)).astype(np.float16)


def _detail(gray):
    """The deviation of a thumbnail's fine detail, and that detail with its contrast made even."""
    fine = gray - cv2.GaussianBlur(gray, (0, 0), 3)
    return fine.std(), fine / (np.sqrt(cv2.GaussianBlur(fine**2, (0, 0), 6)) + FAINT)


def _spread(energies):
    """How many of the energies carry their sum (participation ratio)."""
    return energies.sum() ** 2 / max((energies**2).sum(), 1e-9)


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
    flags, images = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (_detail(first)[1], 1 + 0 * first)
    moved, inside = (cv2.warpAffine(each, warp, first.shape, flags=flags) for each in images)
    scales, turned = warp.diagonal(), max(abs(warp[0, 1]), abs(warp[1, 0])) > 0.05
    if turned or scales.min() < 0.8 or scales.max() > 1.1 or (inside > 0.99).mean() < 0.7:
        return 0.0, ""
    # In the middle too: one frame around two photographs makes no copy.
    parts = [(moved[at], _detail(second)[1][at]) for at in (inside > 0.99, MIDDLE)]
    same = min((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6) for a, b in parts)
    signs = {"mirrored": mirrored, "cropped": abs(scales - 1).max() > 0.04}
    return float(same), " and ".join(sign for sign in signs if signs[sign]) or "near copy"


def near_copies(thumbnails, splits):
    """Pairs of thumbnails (N, SIDE, SIDE) that show one image: {(i, j): (similarity, how)}, i < j.

    `splits` (N,) are indices. In each split, an image's `NEAREST` candidates are compared with it.
    """
    usable, found = np.flatnonzero(thumbnails.any(axis=(1, 2))), {}
    blocks = [usable[start : start + BLOCK] for start in range(0, len(usable), BLOCK)]
    whole = [_frequencies(thumbnails[part], *CROPS[0]) for part in blocks]
    whole = np.concatenate(whole, axis=1) if blocks else None
    owned = [np.flatnonzero(splits[usable] == split) for split in np.unique(splits[usable])]
    with progress_bar(len(usable), "comparing", "image") as bar:
        for part in blocks:
            views = np.stack([_frequencies(thumbnails[part], *crop) for crop in CROPS])
            alike = np.full((len(part), len(usable)), -1, np.float32)
            for even, odd in views:
                np.maximum(alike, even @ whole[0].T + abs(odd @ whole[1].T), out=alike)
            alike[part[:, None] == usable] = -1
            for own in owned:
                n = min(NEAREST, len(own))
                nearest = own[np.argpartition(-alike[:, own], n - 1)[:, :n]]
                for row, rank in np.argwhere(np.take_along_axis(alike, nearest, 1) > LIKELY):
                    pair = part[row], usable[nearest[row, rank]]
                    even, odd = (views[:, :, row] * whole[:, nearest[row, rank]]).sum(axis=2).T
                    best = (even + abs(odd)).argmax()
                    likeness = _compare(*thumbnails[[*pair]], *CROPS[best], bool(odd[best] < 0))
                    pair = min(pair), max(pair)
                    found[pair] = max(found.get(pair, likeness), likeness)
            bar.update(len(part))
    return {pair: likeness for pair, likeness in found.items() if likeness[0] >= SURE}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Duplicates(Result):
    """P pairs of copies, those in two splits first; of identical images, each with the first.

    Attributes:
        split: (P, 2) int, the splits of both images, as indices of `names`.
        index: (P, 2) int, their indices in the splits.
        labels: (P, 2) int32, their class indices; -1 where there is none.
        kinds: P texts: "exact" (equal pixel values), "mirrored", "cropped", "mirrored and cropped",
            or "near copy" (encoded again, resized or of other brightness).
        similarity: (P,) float64, 1 for exact copies; else the correlation of the fine detail.
        copied: For each split, the indices of its images that have a copy in another split.
        names: The names of the splits.
        n_images: How many images each split has.
        class_names: The names of the classes, by index; may be empty.
        file_paths: The files of each split; empty where they are unknown.
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
    def leaked(self) -> np.ndarray:
        """Indices of the images of the first split that have a copy in another split."""
        return self.copied[0]

    @property
    def conflicting(self) -> np.ndarray:
        """Indices of the pairs whose labels differ."""
        return np.flatnonzero((np.ptp(self.labels, axis=1) > 0) & (self.labels.min(axis=1) >= 0))

    def __str__(self) -> str:
        lines = []
        for copied, n, name in zip(self.copied, self.n_images, self.names, strict=True):
            has = "has a copy" if len(copied) == 1 else "have copies"
            lines += [f"{name}: {len(copied):,} of {counted(n, 'image')} {has} in another split."]
        within, exact = (np.ptp(self.split, axis=1) == 0).sum(), self.kinds.count("exact")
        pairs = f"{counted(len(self.kinds), 'pair')} of copies: {exact:,} exact; {within:,} within "
        pairs += f"a split; {len(self.conflicting):,} with different labels."
        return "\n".join([*lines[: len(lines) * (len(lines) > 1)], pairs])

    def _columns(self):
        columns = {}
        for column, end in enumerate(("", " of copy")):
            split, index = self.split[:, column], self.index[:, column]
            columns[f"split{end}"], columns[f"index{end}"] = [self.names[s] for s in split], index
            if any(map(len, self.file_paths)):
                files = [(self.file_paths[s], i) for s, i in zip(split, index, strict=True)]
                columns[f"file{end}"] = [str(paths[i]) if len(paths) else "" for paths, i in files]
            named = {i: figures.class_name(self.class_names, i) for i in self.labels.flat}
            columns[f"label{end}"] = [(named | {-1: ""})[i] for i in self.labels[:, column]]
        return columns | {"recognized as": self.kinds, "similarity": self.similarity}


def find_duplicates(
    data: layers.ImageData,
    *others: layers.ImageData,
    names: Sequence[str] = (),
    class_names: Sequence[str] = (),
    paths: Sequence[Sequence[str] | None] = (),
) -> Duplicates:
    """Find images that the data hold twice: exact and near copies, within and across splits.

    It finds copies that were encoded again, resized, cropped by up to 10 %, mirrored, or made
    brighter or darker. Low frequencies of gray thumbnails yield candidates. A pair counts if its
    fine detail correlates after alignment (Evangelidis and Psarakis 2008,
    https://doi.org/10.1109/TPAMI.2008.113). Of images below 32 pixels, or with little detail, only
    exact copies are found. An image takes 17 KB; the time grows with the square of their number.

    Args:
        data: A split: a dataset of batches, a pair (images, labels) or images alone, of 1 or 3
            channels, in any value range. Sizes may differ between splits.
        *others: More splits, such as the training images.
        names: The name of each split, for texts; "data", "other 1", ... by default.
        class_names: The names of the classes, by index.
        paths: For each split, the files of its images in their order, or None, which takes the
            `file_paths` of a dataset that is not shuffled.

    Raises:
        ValueError: If data do not fit, or there are not as many names, paths or files as needed.

    Example:
        >>> images = cnnviz.drawn_pets(8).images
        >>> print(cnnviz.find_duplicates(images, images[:2, :, ::-1]))
        data: 2 of 8 images have copies in another split.
        other 1: 2 of 2 images have copies in another split.
        2 pairs of copies: 0 exact; 0 within a split; 0 with different labels.
    """
    names = tuple(names) or ("data", *(f"other {i + 1}" for i in range(len(others))))
    for word, given in (("names", names), ("paths", paths or names)):
        if len(given) != 1 + len(others):
            raise ValueError(f"`{word}` (={given!r:.70}) must be {1 + len(others)}, one a split")
    splits = list(zip((data, *others), names, strict=True))
    parts = [_read(*one) for one in splits]
    counts, n = [len(part[0]) for part in parts], range(len(parts))
    hashes, labels, shown = (list(itertools.chain(*each)) for each in zip(*parts, strict=True))
    split, index = np.repeat(n, counts), np.concatenate([*map(np.arange, counts)])
    seen, labels, shown = {}, np.array(labels, np.int32), np.array(shown)
    first = np.array([seen.setdefault(code, i) for i, code in enumerate(hashes)])
    again = np.flatnonzero(first != np.arange(len(first)))
    shown[again] = 0
    near = near_copies(shown, split)
    own = np.zeros((len(first), len(parts)), bool)  # splits that hold the image, or a copy of it
    own[first, split] = True
    copied = own.copy()
    for i, j in near:
        copied[i], copied[j] = copied[i] | own[j], copied[j] | own[i]
    copied = (copied[first] & (split[:, None] != n)).any(axis=1)
    found = near | {(first[i], i): (1.0, "exact") for i in again}
    pairs = sorted(found, key=lambda pair: (np.ptp(split[[*pair]]) == 0, -found[pair][0], pair))
    pairs, alike = np.array(pairs, int).reshape(-1, 2), [found[pair] for pair in pairs]
    mixed = [bool(pairs.size) and layers.warn_if_shuffled(*one) for one in splits]
    files = [() if mixed[s] else getattr(splits[s][0], "file_paths", ()) for s in n]
    files = [files[s] if not paths or paths[s] is None else paths[s] for s in n]
    for name, count, of_split in zip(names, counts, files, strict=True):
        if len(of_split) not in (0, count):
            raise ValueError(f"`paths` ({len(of_split)} of '{name}') must be {count}, one an image")
    drawn = pairs[: 0 if any(mixed) else MOST_DRAWN]
    kept = {}
    for s, one in enumerate(splits):
        wanted = [i for i in np.unique(drawn) if split[i] == s]
        kept |= zip(wanted, _pick(*one, index[wanted].tolist()), strict=True)
    return Duplicates(
        split[pairs],
        index[pairs],
        labels[pairs],
        [how for _, how in alike],
        np.array([similarity for similarity, _ in alike]),
        [index[copied & (split == s)] for s in n],
        names,
        counts,
        tuple(class_names),
        files,
        [(kept[i], kept[j]) for i, j in drawn],
    )


def _read(data, name):
    """Hashes, labels and thumbnails of all images of a split."""
    hashes, classes, shown, low, high = [], [], [], np.inf, -np.inf
    for images, labels in layers.batches(None, data, name=name, description=name, labels=None):
        hashes += [hashlib.sha256(f"{i.shape}".encode() + i.tobytes()).digest() for i in images]
        classes += [-1] * len(images) if labels is None else labels.tolist()
        shown += map(thumbnail, images)
        low, high = images.min(initial=low), images.max(initial=high)
    faint = LEAST_CONTRAST * (high - low)
    return hashes, classes, [small * (contrast >= faint) for contrast, small in shown]


def _pick(data, name, indices):
    """The images with these ascending indices, in a second pass."""
    images = (image for part, _ in layers.batches(None, data, name=name) for image in part)
    passed = itertools.islice(images, indices[-1] + 1 if indices else 0)
    return [image.copy() for index, image in enumerate(passed) if index in indices]
