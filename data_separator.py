"""(published archive or folder of cats and dogs) -> DEST/{train,validation,test}/{cats,dogs}/.

Copies the dogs-vs-cats photographs out of any form they are published in, and leaves the source as
it is: the competition's outer zip (`train.zip` and `test1.zip` inside), `train.zip` alone,
Microsoft's zip (`PetImages/Cat/0.jpg`), or the unpacked folders of each. Photographs without a
label go to `DEST/unlabelled/`. `DEST/separation.csv` has a row for every file of the source: where
it went, or why it was left out. Zips are looked into as folders are, and have no row themselves.

The part of a photograph follows from its decoded pixels alone. So a second run, or one with more
photographs, moves nothing, and the test part stays when the other two change their shares.
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
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import PIL.Image
from tqdm import tqdm

ARCHIVE_URL = (
    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
    "kagglecatsanddogs_5340.zip"
)
ARCHIVE_SHA256 = "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
COMPETITION_RULES = "https://www.kaggle.com/c/dogs-vs-cats/rules"

PARTS = ("train", "validation", "test")
FOLDERS = {"cat": "cats", "dog": "dogs"}
LABELS = {"cat": "cat", "cats": "cat", "dog": "dog", "dogs": "dog"}
OTHER_LABEL = {"cat": "dog", "dog": "cat"}
# Every reason for leaving a file out begins with one of these words; the summary counts by them.
REASONS = ("unreadable", "duplicate", "both labels", "not a photograph", "beyond --count")

TABLE = "separation.csv"
COLUMNS = ["source", "class", "destination", "reason", "sha256"]
# A file's name need not be valid UTF-8.
TABLE_TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
# File browsers drop these into a folder unasked; an earlier separation is replaced with them.
FOLDER_JUNK = {".DS_Store", "Thumbs.db", "desktop.ini"}

JPEG_QUALITY = 95  # shrinking hides what little is lost
BLOCK = 1 << 20  # bytes
# A zip can promise any size. Photographs are far smaller than this, and hardly shrink in a zip.
MAX_BYTES = 200_000_000
MAX_RATIO = 100
MAX_DEPTH = 3  # of zips in zips; the competition's has 2
MAX_NAME = 255  # bytes of a file's name, in nearly all file systems


# What reading a member of a zip raises.
DAMAGED_MEMBER = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_DAMAGED_ZIP = "{} is an incomplete or damaged zip: fetch it again."


class SeparationError(ValueError):
    """An expected failure, told in one line."""


@dataclass(frozen=True)
class SourceFile:
    """One file of the source: its path inside, its label ("cat", "dog" or ""), and its bytes.

    `read` gives the bytes, or in words why there are none.
    """

    name: str
    label: str
    read: Callable[[], bytes | str]


@dataclass(frozen=True)
class Placement:
    """Where one file goes, a path relative to DEST; empty where `reason` says why it does not."""

    file: SourceFile
    destination: str
    reason: str
    sha256: str


def separate(source, destination, *, shares=(80, 10, 10), count=None, size=None):
    """Separate the photographs of `source` into `destination`.

    Args:
        source: Path of the zip or folder.
        destination: Path of a new or empty folder, or of an earlier separation, to be replaced.
        shares: Three numbers on any scale, for train, validation and test.
        count: How many labelled photographs to take, half of each class, the first by natural order
            of names; and at most as many unlabelled ones. None takes all.
        size: Photographs whose longer side has more pixels are shrunk to it, and stored as JPEG of
            quality 95, as are all that are not named as JPEG; the others are copied. None copies.

    Returns:
        List of Placement, one a file, in natural order of names.

    Raises:
        SeparationError: If the source is not what it should be, or the destination is in use.
            `destination` is then as it was.
    """
    source, destination = _real(source), _real(destination)
    if not source.exists():
        raise SeparationError(f"SOURCE {source} does not exist.")
    if not (source.is_dir() or source.is_file()):  # a pipe would be waited for
        raise SeparationError(f"SOURCE {source} is neither a folder nor a zip.")
    check_destination(source, destination)
    with working_folder(destination) as working, contextlib.ExitStack() as archives:
        files = list_files(source, working, archives)
        _require_both_classes((file.label for file in files if is_photograph(file.name)), source)
        placements = place(files, examine(files), shares, count, as_jpeg=size is not None)
        _require_both_classes((p.file.label for p in placements if p.destination), source)
        write_photographs(placements, working, size)
        write_table(placements, working / TABLE)
    return placements


def _real(path):
    return Path(os.path.realpath(path))  # Path.resolve fails on links in a circle


def _require_both_classes(labels, source):
    found = set(labels)
    missing = [folder for label, folder in FOLDERS.items() if label not in found]
    if missing:
        raise SeparationError(
            f"{source} holds no readable photographs of {' and '.join(missing)}: they must lie in "
            f"folders Cat and Dog, or be named as cat.0.jpg and dog.0.jpg."
        )


# What is in the source


def list_files(source, scratch, archives):
    """List the files of a folder or a zip, and of the zips in it, as SourceFile.

    Args:
        source: Path of the folder or zip.
        scratch: Folder for temporary copies of zips that lie inside a zip.
        archives: contextlib.ExitStack that keeps the zips open as long as the files are read.
    """
    if source.is_dir():
        files = _files_in_folder(source, scratch, archives)
    else:
        files = _files_in_zip(source, source.name, "", scratch, archives)
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name):
    """Sort key by which `cat.9.jpg` comes before `cat.10.jpg`."""
    pieces = re.split(r"(\d+)", name.casefold())
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], name


def label_of(name):
    """The label told by the folder directly above, else by a name as `cat.0.jpg`, else ""."""
    path = PurePosixPath(name)
    match = re.match(r"(cat|dog)\.\d+\.", path.name, re.IGNORECASE)
    return LABELS.get(path.parent.name.lower(), match[1].lower() if match else "")


def is_photograph(name):
    """Whether a file has the name of a picture; macOS adds a `._0.jpg` that is none."""
    path = PurePosixPath(name)
    return path.suffix.lower() in _pictures().IMAGE_SUFFIXES and not path.name.startswith(".")


def is_zip(name):
    """Whether a file has the name of a zip; macOS adds a `._train.zip` that is none."""
    path = PurePosixPath(name)
    return path.suffix.lower() == ".zip" and not path.name.startswith(".")


def _files_in_folder(folder, scratch, archives):
    def fail(error):
        raise error  # else os.walk passes over folders that it may not read

    entered = {folder.resolve()}  # each folder once, though links may lead there again

    def is_new(path):
        return not (path in entered or entered.add(path))

    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if is_new(Path(parent, name).resolve())]
        for path in (Path(parent, name) for name in names):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and is_zip(name):
                yield from _files_in_zip(path, name, name + "/", scratch, archives)
            elif path.is_file():
                yield _source_file(name, path.stat().st_size, path.read_bytes)
            elif path.is_symlink():
                yield SourceFile(name, label_of(name), lambda: "a link that leads nowhere")


def _source_file(name, size, read):
    """A SourceFile, which is not read if it is larger than any photograph."""
    too_large = f"its {size:,} bytes are more than {MAX_BYTES:,}"
    return SourceFile(name, label_of(name), read if size <= MAX_BYTES else lambda: too_large)


def _files_in_zip(file, shown_name, prefix, scratch, archives, depth=1):
    if depth > MAX_DEPTH:
        raise SeparationError(f"{shown_name}: zips lie in zips more than {MAX_DEPTH} deep.")
    archive = archives.enter_context(_open_zip(file, shown_name))
    for member in archive.infolist():
        name = prefix + member.filename.replace("\\", "/")
        if member.is_dir():
            continue
        if member.flag_bits & 1:
            raise SeparationError(f"{shown_name} is protected by a password: unpack it first.")
        if not is_zip(name):
            yield _source_file(name, member.file_size, functools.partial(archive.read, member))
            continue
        if member.file_size > MAX_RATIO * max(member.compress_size, 1):
            times = member.file_size // max(member.compress_size, 1)
            raise SeparationError(f"{name} would unpack to {times} times its size: no photographs.")
        # Reading a zip jumps about, and inside another zip each jump back unpacks it anew.
        copy = archives.enter_context(tempfile.TemporaryFile(dir=scratch))
        try:
            with archive.open(member) as packed:
                shutil.copyfileobj(packed, copy, BLOCK)
        except DAMAGED_MEMBER:
            raise SeparationError(_DAMAGED_ZIP.format(name)) from None
        yield from _files_in_zip(copy, name, name + "/", scratch, archives, depth + 1)


def _open_zip(file, shown_name):
    with contextlib.suppress(zipfile.BadZipFile):
        return zipfile.ZipFile(file)
    with open(file, "rb") if isinstance(file, Path) else contextlib.nullcontext(file) as opened:
        opened.seek(0)
        head = opened.read(1024).lstrip()
    if head.startswith(b"<"):
        raise SeparationError(
            f"{shown_name} is not a zip but a web page: the competition gives its files to those "
            f"who are logged in and have accepted its rules ({COMPETITION_RULES})."
        )
    if head.startswith(b"PK"):
        raise SeparationError(_DAMAGED_ZIP.format(shown_name))
    raise SeparationError(f"{shown_name} is neither a folder nor a zip.")


# Which file goes where


def _pictures():
    """The module that decodes, imported late: it takes seconds, for which --help need not wait."""
    import cnnviz.data

    return cnnviz.data


def examine(files):
    """Decode every photograph: (SHA-256 of its shape and pixels, ""), or ("", reason), a file."""
    photographs = [file for file in files if is_photograph(file.name)]
    found = _in_threads(fingerprint, photographs, "decoding")
    nothing = ("", "not a photograph")
    return [next(found) if is_photograph(file.name) else nothing for file in files]


def fingerprint(data):
    """Decode one photograph as the training will; see `examine`.

    TensorFlow's decoder is the strictest; Pillow and OpenCV pass a JPEG without its last two bytes.
    """
    if isinstance(data, str):
        return "", f"unreadable: {data}"
    try:
        picture = _pictures().decode_image(data)
    except ValueError as error:
        return "", f"unreadable: {' '.join(str(error).split())}"
    digest = hashlib.sha256(str(picture.shape).encode())
    digest.update(picture.tobytes())
    return digest.hexdigest(), ""


def part_of(sha256, shares):
    """The part of a picture: the first 8 bytes of its hash are its position in [0, 1]."""
    _, validation, test = (share / sum(shares) for share in shares)
    position = int(sha256[:16], 16) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def place(files, fingerprints, shares, count=None, as_jpeg=False):
    """Decide where each file goes; see `separate`.

    Identical pictures share their hash, and with it their part. Only where they share the name too
    (a folder beside its own zip) is the same file there twice, and left out the second time.
    Duplicates and double labels are sought among all files whatever `count` is, since a larger
    count must not take back what a smaller one has placed.
    """
    first, first_of_name = {}, {}
    for i, (file, (sha256, _)) in enumerate(zip(files, fingerprints, strict=True)):
        first.setdefault((sha256, file.label), i)
        first_of_name.setdefault((sha256, file.label, _base_name(file)), i)
    limits = {"": count, "cat": count and (count + 1) // 2, "dog": count and count // 2}
    taken, names, placements = collections.Counter(), set(), []
    for i, (file, (sha256, reason)) in enumerate(zip(files, fingerprints, strict=True)):
        same = first_of_name[sha256, file.label, _base_name(file)]
        opposite = first.get((sha256, OTHER_LABEL.get(file.label)))
        if not reason and opposite is not None:
            reason = f"both labels: also {files[opposite].name}"
        elif not reason and same != i:
            reason = f"duplicate of {files[same].name}"
        elif not reason and count and taken[file.label] == limits[file.label]:
            reason = "beyond --count"
        taken[file.label] += not reason
        destination = "" if reason else _destination(file, sha256, shares, names, as_jpeg)
        placements.append(Placement(file, destination, reason, sha256))
    return placements


def _base_name(file):
    return PurePosixPath(file.name).name


def _destination(file, sha256, shares, names, as_jpeg):
    # Only the base name: a member called ../../0.jpg must not climb out of DEST.
    name = PurePosixPath(_base_name(file))
    if as_jpeg and name.suffix.lower() not in (".jpg", ".jpeg"):
        name = name.with_suffix(".jpg")
    folder = f"{part_of(sha256, shares)}/{FOLDERS[file.label]}" if file.label else "unlabelled"
    destination, told = f"{folder}/{name}", f"-{sha256[:16]}"
    while destination.casefold() in names:  # two folders of the source can hold one name
        room = MAX_NAME - len(os.fsencode(told + name.suffix))
        stem = os.fsencode(name.stem)[:room].decode(errors="ignore")
        destination = f"{folder}/{stem}{told}{name.suffix}"
        told += "-"
    names.add(destination.casefold())
    return destination


# Reading and writing


def _in_threads(function, files, doing):
    """Yield function(bytes of a file), in order, with few files in memory at a time.

    One thread reads, since a zip is one file; the work on the pictures is done beside it.
    """
    workers = os.cpu_count() or 1
    pending = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for file in tqdm(files, doing, unit=" photographs", disable=None):
            pending.append(pool.submit(function, _read(file)))
            if len(pending) > 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read(file):
    """The bytes of a file, or in words why there are none."""
    try:
        return file.read()
    except DAMAGED_MEMBER:
        return "damaged in its archive"


def write_photographs(placements, folder, size):
    """Copy what is placed into `folder`, shrunk where `size` is given."""
    placed = [placement for placement in placements if placement.destination]
    folders = {f"{part}/{name}" for part in PARTS for name in FOLDERS.values()}
    for name in folders | {str(PurePosixPath(item.destination).parent) for item in placed}:
        (folder / name).mkdir(parents=True)
    function = functools.partial(shrink, size=size) if size else bytes
    contents = _in_threads(function, [item.file for item in placed], "writing")
    for item, content in zip(placed, contents, strict=True):
        (folder / item.destination).write_bytes(content)


def shrink(data, size):
    """A picture's bytes -> those of a JPEG whose longer side has at most `size` pixels."""
    picture = _pictures().decode_image(data)
    if max(picture.shape) <= size and data.startswith(b"\xff\xd8"):  # a JPEG, small enough
        return data
    image = PIL.Image.fromarray(picture)
    image.thumbnail((size, size), PIL.Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return encoded.getvalue()


def write_table(placements, path):
    """Write one row a file of the source: source, class, destination, reason, sha256."""
    with open(path, "w", **TABLE_TEXT) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for item in placements:
            row = (item.file.name, item.file.label, item.destination, item.reason, item.sha256)
            table.writerow(row)


def summary(placements):
    """The table of how many files went where, as text."""
    counts = collections.Counter(str(PurePosixPath(p.destination).parent) for p in placements)
    rows = [f"{'':20}{'cats':>8}{'dogs':>8}"]
    for part in PARTS:
        rows.append(f"{part:20}{counts[f'{part}/cats']:8,}{counts[f'{part}/dogs']:8,}")
    rows.append(f"{'unlabelled':28}{counts['unlabelled']:8,}")
    for reason in REASONS:
        number = sum(placement.reason.startswith(reason) for placement in placements)
        rows.append(f"{'left out: ' + reason:28}{number:8,}")
    rows.append(f"{'files in the source':28}{len(placements):8,}")
    return "\n".join(rows)


# The destination


def check_destination(source, destination):
    """Raise SeparationError unless DEST is new, empty, or an earlier separation and no more."""
    if destination == source or source in destination.parents or destination in source.parents:
        raise SeparationError(f"SOURCE {source} and DEST {destination} must lie apart.")
    if not destination.exists():
        return
    if not destination.is_dir():
        raise SeparationError(f"DEST {destination} is a file; it must be a folder.")
    known = _destinations_in_table(destination)
    if known is None and any(destination.iterdir()):
        raise SeparationError(f"DEST {destination} is neither empty nor an earlier separation.")
    for path in destination.rglob("*"):
        name = path.relative_to(destination).as_posix()
        if not path.is_dir() and name not in known and path.name not in FOLDER_JUNK:
            raise SeparationError(
                f"DEST {destination} is an earlier separation, but {name} is not from there and "
                f"would be lost: move it away."
            )


def _destinations_in_table(destination):
    """The files of an earlier separation; None where there was none."""
    if not (destination / TABLE).is_file():
        return None
    with open(destination / TABLE, **TABLE_TEXT) as file:
        table = csv.DictReader(file)
        if table.fieldnames != COLUMNS:
            return None
        return {row["destination"] for row in table} | {TABLE}


@contextlib.contextmanager
def working_folder(destination):
    """A folder beside DEST that takes its place when the block ends well, and goes otherwise.

    What a killed run left is known by its name, and removed or put back first.
    """
    working = destination.with_name(f".{destination.name}.unfinished-separation")
    replaced = destination.with_name(f".{destination.name}.replaced-separation")
    if replaced.exists() and not destination.exists():  # killed between the two renames below
        replaced.rename(destination)
    for leftover in (working, replaced):
        if leftover.exists():
            shutil.rmtree(leftover)
    working.mkdir(parents=True)
    try:
        yield working
        if (destination / TABLE).exists():
            print(f"Replacing the earlier separation in {destination}.")
            destination.rename(replaced)
        elif destination.exists():
            destination.rmdir()  # empty; some systems do not rename onto it
        working.rename(destination)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        if error.filename:
            raise
        raise SeparationError(  # writing does not say where
            f"DEST {destination} cannot be written: {error.strerror}; it is as it was."
        ) from error
    finally:
        if replaced.exists() and not destination.exists():
            replaced.rename(destination)
        shutil.rmtree(working, ignore_errors=True)


# Fetching the archive


def download(archive, *, url=ARCHIVE_URL, sha256=ARCHIVE_SHA256):
    """Fetch `url` to the path `archive` and check its SHA-256; resume where it was cut off.

    What has come so far lies beside it, in a file named `.part`. An `archive` that is there and
    right is not fetched again.

    Raises:
        SeparationError: If the server gives nothing more, or the sum is wrong.
    """
    archive = Path(archive)
    if archive.is_dir():
        example = archive / url.rpartition("/")[2]
        raise SeparationError(f"SOURCE {archive} is a folder; --download wants a file: {example}")
    if archive.exists():
        if _sha256_of(archive) != sha256:
            raise SeparationError(f"{archive} is there, but is not the archive: move it away.")
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(archive.name + ".part")
    while not _fetch(url, part):
        pass
    if (found := _sha256_of(part)) != sha256:
        part.unlink()
        raise SeparationError(
            f"What {url} gave has the SHA-256 {found} instead of {sha256}, and is deleted."
        )
    part.rename(archive)


def _fetch(url, part):
    """Fetch what `part` lacks; True where it is whole now, False where trying again is of use."""
    before = part.stat().st_size if part.exists() else 0
    trouble, whole = "the connection was cut", False
    try:
        whole = _append(url, part, before)
    except urllib.error.HTTPError as error:
        error.close()
        if before and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing is missing: the last run ended just before the check
        raise SeparationError(f"{url} answers: {error.code} {error.reason}.") from None
    except (OSError, http.client.HTTPException) as error:
        trouble = error
    if not whole and (not part.exists() or part.stat().st_size <= before):
        raise SeparationError(f"{url} cannot be fetched now ({trouble}); run again to resume.")
    return whole


def _append(url, part, start):
    """Fetch from byte `start` on; returns whether all came that the server promised."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
    with urllib.request.urlopen(request, timeout=30) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # the server ignores the range and sends all
        length = response.headers["Content-Length"]
        total = start + int(length) if length else None
        bar = {"total": total, "initial": start, "unit": "B", "unit_scale": True, "disable": None}
        with open(part, "ab" if start else "wb") as file, tqdm(desc="fetching", **bar) as progress:
            while block := response.read(BLOCK):
                progress.update(file.write(block))
            return total is None or file.tell() >= total


def _sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The command line


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
    add("--shares", type=float, nargs=3, help="of the parts (default: 80 10 10)", **shares)
    add("--count", type=int, metavar="N", help="take the first N photographs, half of each class")
    size = "shrink to this longer side, as JPEG (default: copy the files as they are)"
    add("--size", type=int, metavar="PIXELS", help=size)
    add("--download", action="store_true", help="fetch Microsoft's archive to SOURCE first")
    parser.error = _fail
    arguments = parser.parse_args(argv)
    _check_options(arguments.shares, arguments.count, arguments.size)
    return arguments


def _fail(message):
    raise SeparationError(f"{message}; --help tells more.")


def _check_options(shares, count, size):
    if not all(0 <= share < float("inf") for share in shares) or not shares[0]:
        shown = " ".join(f"{share:g}" for share in shares)
        raise SeparationError(f"`--shares` (={shown}) must be three numbers >= 0, the first > 0.")
    if count is not None and count < 2:
        raise SeparationError(f"`--count` (={count}) must be at least 2.")
    if size is not None and size < 16:
        raise SeparationError(f"`--size` (={size}) must be at least 16.")


def main(argv=None):
    """Run the command line; returns the exit code: 0, 2 for an expected failure, 130 for Ctrl-C."""
    try:
        given = parse_arguments(argv)
        source, destination = _real(given.source), _real(given.destination)
        check_destination(source, destination)
        if given.download:
            download(source)
        options = {"shares": given.shares, "count": given.count, "size": given.size}
        print(summary(separate(source, destination, **options)))
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
