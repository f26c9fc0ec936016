"""Separates the dogs-vs-cats photographs into DEST/{train,validation,test}/{cats,dogs}/.

SOURCE is any form in which they are published: the competition's zip (`train.zip` and `test1.zip`
inside), `train.zip` alone, Microsoft's zip (`PetImages/Cat/0.jpg`), or the unpacked folders of
each. It is left as it is. Photographs without a label go to `DEST/unlabeled/`.
`DEST/separation.csv` has a row for every file of the source: where it went, or why it did not.

The split of a photograph depends only on its decoded pixels. So a second run, or one with more
photographs, moves nothing, and identical images never lie in two splits. Near copies (encoded
again, resized, cropped by 10 %, mirrored, brighter) can: they are reported, or share a split with
`--keep-near-copies-together`. Then more photographs can move those that are near copies of them.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import csv
import functools
import hashlib
import http.client
import io
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
from tqdm import tqdm

ARCHIVE_URL = (
    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
    "kagglecatsanddogs_5340.zip"
)
ARCHIVE_SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
COMPETITION_RULES = "https://www.kaggle.com/c/dogs-vs-cats/rules"

SPLITS = ("train", "validation", "test")
FOLDERS = {"cat": "cats", "dog": "dogs"}
OTHER_LABEL = {"cat": "dog", "dog": "cat"}

TABLE = "separation.csv"
COLUMNS = ["source", "class", "destination", "reason", "sha256", "near copy in another split"]
MOST_SHOWN = 5  # pairs of near copies in the summary; the table has all
# File names need not be valid UTF-8.
TABLE_TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}


class SeparationError(ValueError):
    """An expected failure, stated in one line."""


@dataclass
class SourceFile:
    """One file of the source, and what becomes of it."""

    name: str  # its path in the source
    read: Callable[[], bytes]
    sha256: str = ""  # of its decoded pixels and their shape
    thumbnail: np.ndarray | None = None
    destination: str = ""  # relative to DEST; empty where `reason` says why
    reason: str = ""
    near_copy: str = ""  # destination of a near copy in another split

    @property
    def base_name(self):
        return PurePosixPath(self.name).name

    @property
    def label(self):
        """By the folder directly above, else by a name like `cat.0.jpg`, else ""."""
        folder = PurePosixPath(self.name).parent.name.lower().removesuffix("s")
        by_name = re.match(r"(cat|dog)\.\d+\.", self.base_name.lower())
        return folder if folder in FOLDERS else by_name[1] if by_name else ""


def separate(given):
    """Do what the command line asks -> SourceFiles, in natural order of their names."""
    source, destination = given.source.resolve(), given.destination.resolve()
    if not source.exists():
        raise SeparationError(f"SOURCE {source} does not exist.")
    check_destination(source, destination)
    with working_folder(destination) as working:
        files = list_files(source)
        examine(files)
        pairs = near_copies(files, given.shares)
        leaders = leaders_of(pairs) if given.keep_near_copies_together else {}
        place(files, given, leaders)
        mark_near_copies(files, pairs)
        found = {file.label for file in files if file.destination}
        if missing := [folder for label, folder in FOLDERS.items() if label not in found]:
            raise SeparationError(
                f"{source} holds no readable photographs of {' and '.join(missing)}: they must lie "
                f"in folders Cat and Dog, or be named like cat.0.jpg and dog.0.jpg."
            )
        write_photographs(files, working, given.size)
        write_table(files, working / TABLE)
    return files


def list_files(source):
    """List the files of a folder or a zip, and of the zips in it; `9.jpg` is before `10.jpg`."""

    def natural_key(file):
        pieces = re.split(r"(\d+)", file.name.casefold())
        return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], file.name

    folder = source.is_dir()
    files = _files_in_folder(source) if folder else _files_in_zip(source, source.name, "")
    return sorted(files, key=natural_key)


def _is_zip(path):
    return path.suffix.lower() == ".zip" and not path.name.startswith(".")


def _library():
    """What decodes and compares, imported late: it takes seconds, and --help need not wait."""
    import cnnviz.data
    import cnnviz.diagnosis.duplicates

    return cnnviz.data, cnnviz.diagnosis.duplicates


def _files_in_folder(folder):
    def fail(error):
        raise error  # else os.walk passes over folders that it may not read

    for parent, _, names in os.walk(folder, onerror=fail, followlinks=True):
        for path in (Path(parent, name) for name in names):
            name = path.relative_to(folder).as_posix()
            if _is_zip(path):
                yield from _files_in_zip(path, name, name + "/")
            else:
                yield SourceFile(name, path.read_bytes)


def _files_in_zip(file, shown_name, prefix):
    try:
        archive = zipfile.ZipFile(file)  # closed when the last SourceFile is gone
    except zipfile.BadZipFile:
        raise SeparationError(
            f"{shown_name} is not a complete zip: fetch it again, for the competition's files "
            f"logged in and after you have accepted its rules ({COMPETITION_RULES})."
        ) from None
    for member in (member for member in archive.infolist() if not member.is_dir()):
        name = prefix + member.filename.replace("\\", "/")
        read = functools.partial(_read_member, archive, member, name)
        if _is_zip(PurePosixPath(name)):  # in memory: reading a zip jumps about
            yield from _files_in_zip(io.BytesIO(read()), name, name + "/")
        else:
            yield SourceFile(name, read)


def _read_member(archive, member, name):
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise SeparationError(f"{name} cannot be unpacked ({error}): fetch it again.") from None


def examine(files):
    """Decode each photograph: give it a hash and a thumbnail, or the reason why it has none."""
    data, duplicates = _library()

    def fingerprint(content):
        try:
            image = data.decode_image(content)  # as the training will
        except ValueError as error:
            return "", None, f"unreadable: {error}"
        code = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
        return code, duplicates.thumbnail(image), ""

    photographs = [file for file in files if data.is_image_name(file.base_name)]
    for file in files:
        file.reason = "not a photograph"
    found = _in_threads(fingerprint, photographs, "decoding")
    for file, one in zip(photographs, found, strict=True):
        file.sha256, file.thumbnail, file.reason = one


def near_copies(files, shares):
    """Pairs of hashes of labeled near copies, in the order of hashes."""
    labeled = {file.sha256: file.thumbnail for file in files if file.label and file.sha256}
    names = sorted(labeled)  # whatever the order of the files
    splits = np.array([SPLITS.index(split_of(name, shares)) for name in names])
    small = np.array([labeled[name] for name in names])
    pairs = _library()[1].near_copies(small, splits) if names else ()
    return sorted((names[i], names[j]) for i, j in pairs)


def leaders_of(pairs):
    """The lowest hash of all near copies of near copies, for each hash that has some."""
    groups = {}
    for pair in pairs:
        group = set().union(*(groups.get(name, {name}) for name in pair))
        groups |= dict.fromkeys(group, group)
    return {name: min(group) for name, group in groups.items()}


def mark_near_copies(files, pairs):
    """Set the near copy in another split where there is one."""
    placed = {file.sha256: file.destination for file in files if file.destination and file.label}
    others = {}
    for pair in pairs:
        paths = [placed[name] for name in pair if name in placed]
        if len({path.split("/")[0] for path in paths}) == 2:
            others |= zip(pair, reversed(paths), strict=True)
    for file in files:
        file.near_copy = others.get(file.sha256, "") if file.destination else ""


def split_of(sha256, shares):
    """The split of an image: the first 8 bytes of its hash are its position in [0, 1]."""
    _, validation, test = (share / sum(shares) for share in shares)
    position = int(sha256[:16], 16) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def place(files, given, leaders):
    """Decide where each file goes; `leaders` maps hashes to those that decide their split.

    Identical images share their split. Only where they share the name too (a folder beside its own
    zip) is the same file there twice, and left out the second time. Duplicates and double labels
    are sought among all files, so that a larger `--count` takes back nothing.
    """
    first, first_of_name = {}, {}
    for file in files:
        first.setdefault((file.sha256, file.label), file)
        first_of_name.setdefault((file.sha256, file.label, file.base_name), file)
    n_most = sys.maxsize if given.count is None else given.count
    limits = {"": n_most, "cat": (n_most + 1) // 2, "dog": n_most // 2}
    taken, names = collections.Counter(), set()
    for file in (file for file in files if not file.reason):
        same = first_of_name[file.sha256, file.label, file.base_name]
        opposite = first.get((file.sha256, OTHER_LABEL.get(file.label)))
        if opposite is not None:
            file.reason = f"both labels: also {opposite.name}"
        elif same is not file:
            file.reason = f"duplicate: also {same.name}"
        elif taken[file.label] == limits[file.label]:
            file.reason = "beyond --count"
        else:
            taken[file.label] += 1
            split = split_of(leaders.get(file.sha256, file.sha256), given.shares)
            file.destination = _destination(file, split, names, as_jpeg=bool(given.size))


def _destination(file, split, names, as_jpeg):
    # Only the base name: a member called ../../0.jpg must not climb out of DEST.
    name = PurePosixPath(file.base_name)
    if as_jpeg and name.suffix.lower() not in (".jpg", ".jpeg"):
        name = name.with_suffix(".jpg")
    folder = f"{split}/{FOLDERS[file.label]}" if file.label else "unlabeled"
    while f"{folder}/{name}".casefold() in names:  # two folders of the source can hold one name
        name = name.with_stem(f"{name.stem}-{file.sha256[:16]}")
    names.add(f"{folder}/{name}".casefold())
    return f"{folder}/{name}"


def _in_threads(function, files, doing):
    """Yield function(bytes of a file), in order; one thread reads, since a zip is one file."""
    workers, pending = os.cpu_count() or 1, collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for file in tqdm(files, doing, unit=" photographs", disable=None):
            pending.append(pool.submit(function, file.read()))
            if len(pending) > 4 * workers:  # few files in memory at a time
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def write_photographs(files, folder, size):
    """Copy what is placed into `folder`, shrunk where `size` is given."""
    placed = [file for file in files if file.destination]
    for name in (f"{split}/{name}" for split in SPLITS for name in FOLDERS.values()):
        (folder / name).mkdir(parents=True)
    function = functools.partial(shrink, size=size) if size else bytes
    for file, content in zip(placed, _in_threads(function, placed, "writing"), strict=True):
        (folder / file.destination).parent.mkdir(exist_ok=True)  # unlabeled/
        (folder / file.destination).write_bytes(content)


def shrink(data, size):
    """An image's bytes -> those of a JPEG whose longer side has at most `size` pixels."""
    pixels = _library()[0].decode_image(data)
    if max(pixels.shape) <= size and data.startswith(b"\xff\xd8"):  # a JPEG, small enough
        return data
    image = PIL.Image.fromarray(pixels)
    image.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=95)  # shrinking hides what little is lost
    return encoded.getvalue()


def write_table(files, path):
    rows = [(f.name, f.label, f.destination, f.reason, f.sha256, f.near_copy) for f in files]
    with open(path, "w", **TABLE_TEXT) as table:
        csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])


def summary(files):
    """How many files went where, as text."""
    counts = collections.Counter(
        file.destination.rpartition("/")[0] or "left out: " + file.reason.partition(":")[0]
        for file in files
    )
    rows = [*sorted(counts.items()), ("files in the source", len(files))]
    lines = [f"{name:28}{number:8,}" for name, number in rows]
    pairs = [tuple(sorted((f.destination, f.near_copy))) for f in files if f.near_copy]
    if pairs:
        lines.append(f"{len(pairs):,} photographs have a near copy in another split, such as")
        shown = list(dict.fromkeys(pairs))[:MOST_SHOWN]
        lines += [f"  {first} and {second}" for first, second in shown]
        lines.append("`--keep-near-copies-together` puts near copies into one split.")
    return "\n".join(lines)


def check_destination(source, destination):
    """Raise SeparationError unless DEST is new, empty, or an earlier separation and no more."""
    if destination == source or source in destination.parents or destination in source.parents:
        raise SeparationError(f"SOURCE {source} and DEST {destination} must lie apart.")
    if destination.is_file():
        raise SeparationError(f"DEST {destination} is a file; it must be a folder.")
    known = set()
    if (destination / TABLE).is_file():
        with open(destination / TABLE, **TABLE_TEXT) as file:
            table = csv.DictReader(file)
            if table.fieldnames == COLUMNS:
                known = {row["destination"] for row in table} | {TABLE}
    for path in destination.rglob("*"):
        name = path.relative_to(destination).as_posix()
        if not path.is_dir() and name not in known:
            mine = f"{name}, which is not from an earlier separation and would be lost"
            raise SeparationError(f"DEST {destination} holds {mine}: move it away.")


@contextlib.contextmanager
def working_folder(destination):
    """A folder beside DEST that takes its place when the block ends well, and goes otherwise."""
    working = destination.with_name(f".{destination.name}.unfinished-separation")
    replaced = destination.with_name(f".{destination.name}.replaced-separation")

    def tidy():  # at first what a killed run has left
        if replaced.exists() and not destination.exists():  # killed between the two renames below
            replaced.rename(destination)
        for leftover in (working, replaced):
            shutil.rmtree(leftover, ignore_errors=True)

    tidy()
    working.mkdir(parents=True)
    try:
        yield working
        if destination.exists():
            destination.rename(replaced)
        working.rename(destination)
    finally:
        tidy()


def download(archive, *, url=ARCHIVE_URL, sha256=ARCHIVE_SHA256):
    """Fetch `url` to the path `archive` and check its SHA-256, unless it is there already.

    What has come so far lies beside it, in a file named `.part`, and is not fetched again.
    """
    if archive.exists():
        if _sha256_of(archive) != sha256:
            raise SeparationError(f"{archive} is there, but is not the archive: move it away.")
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(archive.name + ".part")
    try:
        _fetch_rest(url, part)
    except (OSError, http.client.HTTPException) as error:
        raise SeparationError(f"{url} cannot be fetched ({error}); run again to resume.") from None
    if (found := _sha256_of(part)) != sha256:
        part.unlink()
        raise SeparationError(f"{url} has the SHA-256 {found}, not {sha256}, and is deleted.")
    part.rename(archive)


def _fetch_rest(url, part):
    """Append to `part` what it lacks."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        error.close()
        if start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing: the last run ended just before the check
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server ignores the range and sends all
        total = start + int(response.headers["Content-Length"])
        bar = {"total": total, "initial": start, "unit": "B", "unit_scale": True, "disable": None}
        with open(part, "ab" if start else "wb") as file, tqdm(desc="fetching", **bar) as progress:
            while block := response.read(1 << 20):
                progress.update(file.write(block))
            if file.tell() < total:
                raise ConnectionError("the connection was cut")


def _sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_arguments(argv):
    """Read the command line; raises SeparationError where a number is out of range."""
    parser = argparse.ArgumentParser(
        description="Separate the dogs-vs-cats photographs into DEST/{train,validation,test}/"
        "{cats,dogs}. SOURCE is left as it is; DEST/separation.csv tells where each file went.",
        epilog="example: python data_separator.py dogs-vs-cats.zip photos --size 256",
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", type=Path, help="zip or folder, in any form it is published in")
    add("destination", metavar="DEST", type=Path, help="new folder, or an earlier one to replace")
    shares = {"metavar": ("TRAIN", "VALIDATION", "TEST"), "default": (80, 10, 10)}
    add("--shares", type=float, nargs=3, help="of the splits (default: 80 10 10)", **shares)
    add("--count", type=int, metavar="N", help="take the first N photographs, half of each class")
    size = "shrink to this longer side, as JPEG (default: copy the files as they are)"
    add("--size", type=int, metavar="PIXELS", help=size)
    together = "put near copies into one split; more photographs can then move some"
    add("--keep-near-copies-together", action="store_true", help=together)
    add("--download", action="store_true", help="fetch Microsoft's archive to SOURCE first")
    given = parser.parse_args(argv)
    if not all(0 <= share < float("inf") for share in given.shares) or not given.shares[0]:
        shown = " ".join(f"{share:g}" for share in given.shares)
        raise SeparationError(f"`--shares` (={shown}) must be three numbers >= 0, the first > 0.")
    for name, value, least in (("count", given.count, 2), ("size", given.size, 16)):
        if value is not None and value < least:
            raise SeparationError(f"`--{name}` (={value}) must be at least {least}.")
    return given


def main(argv=None):
    """Run the command line; returns the exit code: 0, 2 for an expected failure, 130 for Ctrl-C."""
    try:
        given = parse_arguments(argv)
        if given.download:
            check_destination(given.source.resolve(), given.destination.resolve())
            download(given.source)
        print(summary(separate(given)))
    except (SeparationError, OSError, csv.Error) as error:
        print(f"data_separator.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("data_separator.py: interrupted; run it again to finish.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # Read when TensorFlow is imported. Its GPU would not help with copying.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.exit(main())
