"""The separator under faults: after each, a second run makes what an undisturbed one makes."""

import contextlib
import hashlib
import io
import os
import resource
import shutil
import stat
import subprocess
import sys
import time
import zipfile

import numpy as np
import PIL.Image
import pytest
from conftest import nobody
from test_data_separator import (
    KEPT,
    MICROSOFT,
    PHOTOGRAPHS,
    SCRIPT,
    TRAIN,
    assert_fails,
    data_separator,
    identity,
    jpeg,
    no_leftovers,
    parts,
    run,
    table,
    tree,
    write_files,
    zip_of,
)

reported = pytest.mark.case("separator", "reported")
right = pytest.mark.case("separator", "right")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(source, the tree that an undisturbed run makes of it, the source's SHA-256).

    The pictures are of many sizes, so that a limit on the size of a file stops at one of them.
    """
    folder = tmp_path_factory.mktemp("whole")
    larger = {
        f"PetImages/{label}/{100 + i}.jpg": jpeg(7000 + 100 * i + len(label), (8 * i, 16 * i))
        for label in ("Cat", "Dog")
        for i in range(1, 25)
    }
    source = folder / "source.zip"
    source.write_bytes(zip_of({"train.zip": zip_of(MICROSOFT | larger)}))
    assert run(source, folder / "photos") == 0
    return source, tree(folder / "photos"), sha256(source)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_a_second_run_makes_the_whole(whole, photos):
    source, expected, digest = whole
    assert sha256(source) == digest
    assert run(source, photos) == 0
    assert tree(photos) == expected
    assert no_leftovers(photos.parent)
    assert sha256(source) == digest


# killed


# Says when it begins: the seconds before, in which TensorFlow is imported, are of no interest.
BEGIN = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("data_separator", {str(SCRIPT)!r})
sys.modules["data_separator"] = data_separator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(data_separator)
import cnnviz.data
print("begun", flush=True)
sys.exit(data_separator.main(sys.argv[1:]))
"""


def begin(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.fixture(scope="module")
def seconds(whole, tmp_path_factory):
    """How long a run takes that is left alone."""
    process = begin(whole[0], tmp_path_factory.mktemp("timed") / "photos")
    started = time.perf_counter()
    process.communicate()
    assert process.returncode == 0
    return time.perf_counter() - started


@pytest.mark.slow
@right
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment(moment, whole, seconds, tmp_path):
    """Every second one replaces an earlier separation, of which nothing may be lost either."""
    photos, earlier = tmp_path / "photos", {}
    if moment % 2:
        assert run(whole[0], photos, "--count", 20) == 0
        earlier = tree(photos)
    process = begin(whole[0], photos)
    time.sleep(np.random.default_rng(moment).uniform(0, seconds))
    process.kill()
    process.communicate()
    there = tree(tmp_path)
    kept = {name: there.get(f"photos/{name}", there.get(f".photos.replaced-separation/{name}"))
            for name in earlier}  # fmt: skip
    assert kept == earlier or tree(photos) == whole[1]
    assert_a_second_run_makes_the_whole(whole, photos)


# a full disk


@contextlib.contextmanager
def largest_file(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@reported
@pytest.mark.parametrize("place", range(10))
def test_no_file_larger_than_this(place, whole, tmp_path, capsys):
    """From the copy of the inner zip, the largest, down to the first small picture."""
    photos = tmp_path / "photos"
    sizes = sorted({len(data) for data in whole[1].values()} | {whole[0].stat().st_size - 500})
    limit = sizes[(place + 1) * (len(sizes) - 1) // 10] - 1
    with largest_file(limit):
        assert_fails([whole[0], photos], f"DEST {photos} cannot be written: File too large", capsys)
    assert list(tmp_path.iterdir()) == []
    assert_a_second_run_makes_the_whole(whole, photos)


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(kilobytes)` -> a folder on a file system of that size, which can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def resize(kilobytes):
        size = f"size={kilobytes}k"
        if not (mount("-o", f"remount,{size}") if os.path.ismount(folder) else mount("-o", size)):
            pytest.skip("no file system can be mounted here")
        return folder

    yield resize
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@reported
@pytest.mark.parametrize("place", range(10))
def test_a_full_disk(place, whole, small_disk, tmp_path, capsys):
    needed = whole[0].stat().st_size + sum(len(data) for data in whole[1].values())
    disk = small_disk(needed * (place + 1) // 11 // 1024)
    photos = disk / "photos"
    message = f"DEST {photos} cannot be written: No space left on device; it is as it was."
    assert_fails([whole[0], photos], message, capsys)
    assert list(disk.iterdir()) == []
    small_disk(10 * needed // 1024)
    assert_a_second_run_makes_the_whole(whole, photos)


@reported
def test_a_full_disk_leaves_an_earlier_separation(whole, tmp_path, capsys):
    photos = tmp_path / "photos"
    run(whole[0], photos, "--count", 20)
    before = tree(tmp_path)
    capsys.readouterr()
    with largest_file(2000):
        assert_fails([whole[0], photos], f"DEST {photos} cannot be written: File too large", capsys)
    assert tree(tmp_path) == before
    assert_a_second_run_makes_the_whole(whole, photos)


# what may not be read or written


@pytest.fixture
def open_folder():
    """A folder that everybody may write into, below none that they may not enter."""
    folder = data_separator.Path(data_separator.tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@right
def test_a_source_that_cannot_be_written(open_folder):
    source = write_files(open_folder / "source", MICROSOFT)
    before = tree(source)
    for path in [*source.rglob("*"), source]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with nobody():
        assert run(source, open_folder / "photos") == 0
    assert len(parts(open_folder / "photos")) == KEPT
    assert tree(source) == before


@reported
@pytest.mark.parametrize("name", ["PetImages/Cat/3.jpg", "PetImages/Dog"])
def test_a_file_or_folder_that_may_not_be_read(name, open_folder, capsys):
    source = write_files(open_folder / "source", MICROSOFT)
    (source / name).chmod(0)
    with nobody():
        assert_fails([source, open_folder / "photos"], "Permission denied", capsys)
    (source / name).chmod(0o755)
    assert [path.name for path in open_folder.iterdir()] == ["source"]


@reported
def test_a_destination_that_cannot_be_written(open_folder, capsys):
    source = write_files(open_folder / "source", MICROSOFT)
    (open_folder / "closed").mkdir()
    (open_folder / "closed").chmod(0o555)
    with nobody():
        assert_fails([source, open_folder / "closed/photos"], "Permission denied", capsys)
    assert list((open_folder / "closed").iterdir()) == []


# links


@right
def test_links_are_followed_once_and_those_to_nothing_are_listed(tmp_path):
    real = write_files(tmp_path / "elsewhere", MICROSOFT)
    source = tmp_path / "source"
    source.mkdir()
    (source / "PetImages").symlink_to(real / "PetImages")
    (source / "again").symlink_to(source)
    (source / "Cat").mkdir()
    (source / "Cat/900.jpg").symlink_to(tmp_path / "nothing")
    (source / "Cat/901.jpg").symlink_to(source / "Cat/901.jpg")
    before = tree(real)
    assert run(source, tmp_path / "photos") == 0
    rows = {row["source"]: row["reason"] for row in table(tmp_path / "photos")}
    assert len(parts(tmp_path / "photos")) == KEPT
    for name in ("Cat/900.jpg", "Cat/901.jpg"):
        assert rows[name] == "unreadable: a link that leads nowhere"
    assert len(rows) == len(MICROSOFT) - 1 + 2  # all but the readme beside PetImages
    assert tree(real) == before


# zips


def zip_with(members, **files):
    """A zip of ZipInfo or names and data, in this order, repeated names too."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return packed.getvalue()


@reported
def test_links_in_a_zip_are_not_followed(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg(99))
    link = zipfile.ZipInfo("train/cat.99.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    members = [*TRAIN.items(), (link, str(tmp_path / "secret.jpg"))]
    (tmp_path / "a.zip").write_bytes(zip_with(members))
    assert run(tmp_path / "a.zip", tmp_path / "photos") == 0
    reasons = {identity(row): row["reason"] for row in table(tmp_path / "photos")}
    assert reasons["cat", "99.jpg"] == "unreadable: not a picture in a known format"
    assert len(parts(tmp_path / "photos")) == KEPT


@pytest.mark.filterwarnings("ignore:Duplicate name")  # of writing it
@right
@pytest.mark.parametrize("second", ["train/cat.0.jpg", "train/CAT.0.JPG"])
def test_two_members_of_one_name_are_both_kept(second, tmp_path):
    pictures = jpeg(60), jpeg(61)
    members = [
        ("train/cat.0.jpg", pictures[0]),
        (second, pictures[1]),
        ("train/dog.0.jpg", jpeg(62)),
    ]
    (tmp_path / "a.zip").write_bytes(zip_with(members))
    assert run(tmp_path / "a.zip", tmp_path / "photos") == 0
    rows, written = table(tmp_path / "photos"), tree(tmp_path / "photos")
    cats = [written[row["destination"]] for row in rows if row["class"] == "cat"]
    assert sorted(cats) == sorted(pictures)


@reported
def test_a_picture_that_unpacks_to_a_thousand_times_its_size_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(data_separator, "MAX_BYTES", 2_000_000)
    packed = zip_with([*TRAIN.items(), ("train/cat.99.jpg", bytes(2_000_001))])
    assert len(packed) < 2_000_000
    (tmp_path / "a.zip").write_bytes(packed)
    assert run(tmp_path / "a.zip", tmp_path / "photos") == 0
    reasons = {identity(row): row["reason"] for row in table(tmp_path / "photos")}
    assert reasons["cat", "99.jpg"] == "unreadable: its 2,000,001 bytes are more than 2,000,000"
    assert len(parts(tmp_path / "photos")) == KEPT


def nested(depth):
    packed = zip_of(TRAIN)
    for level in range(depth):
        packed = zip_of({f"{level}.zip": packed})
    return packed


def damaged_inside():
    """The inner zip's own bytes are not those of its checksum."""
    packed = bytearray(zip_of({"train.zip": zip_of(TRAIN)}))
    packed[packed.index(PHOTOGRAPHS["cat", "2.jpg"]) + 300] ^= 255
    return bytes(packed)


BAD_ZIPS = {
    "a zip of a thousand times its size": (
        zip_with([("train.zip", bytes(3_000_000))]), "train.zip would unpack to .* times its size"
    ),
    "zips in zips without end": (nested(9), "zips lie in zips"),
    "a damaged zip in a zip": (damaged_inside(), "train.zip is an incomplete or damaged zip"),
}  # fmt: skip


@reported
@pytest.mark.parametrize("kind", BAD_ZIPS)
def test_bad_zips_in_zips_are_one_line(kind, tmp_path, capsys):
    data, message = BAD_ZIPS[kind]
    (tmp_path / "a.zip").write_bytes(data)
    assert run(tmp_path / "a.zip", tmp_path / "photos") == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and data_separator.re.search(message, errors)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    assert (tmp_path / "a.zip").read_bytes() == data


# few and many photographs


@right
def test_ten_photographs(tmp_path):
    few = {f"train/{label}.{i}.jpg": jpeg(300 + i + 10 * len(label) * (label == "dog"))
           for label in ("cat", "dog") for i in range(5)}  # fmt: skip
    assert run(write_files(tmp_path / "source", few), tmp_path / "photos") == 0
    assert set(tree(tmp_path / "photos").values()) > set(few.values())
    assert sum(bool(row["destination"]) for row in table(tmp_path / "photos")) == 10


@right
@pytest.mark.parametrize("more", [2, 20])
def test_growth_by_one_percent_and_by_ten_moves_nothing(more, tmp_path):
    def photographs(count):
        return {f"train/{'cat' if i % 2 else 'dog'}.{i}.jpg": tiny(i) for i in range(count)}

    source = write_files(tmp_path / "source", photographs(200))
    photos = tmp_path / "photos"
    assert run(source, photos) == 0
    before, first = parts(photos), tree(photos)
    assert run(write_files(source, photographs(200 + more)), photos) == 0
    after = parts(photos)
    assert len(after) == 200 + more and len(set(before.values())) == 3
    assert {key: after[key] for key in before} == before
    second = tree(photos)
    assert all(second[name] == data for name, data in first.items() if name != "separation.csv")


def tiny(seed):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.slow
@right
def test_fifty_thousand_photographs(tmp_path):
    count = 50_000
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for i in range(count):
            archive.writestr(f"PetImages/{'Cat' if i % 2 else 'Dog'}/{i // 2}.jpg", tiny(i))
    assert run(tmp_path / "source.zip", tmp_path / "photos") == 0
    placed = list(parts(tmp_path / "photos").values())
    assert len(placed) == count
    shares = [placed.count(part) / count for part in ("train", "validation", "test")]
    # Six standard deviations of a share of 50,000 are at most 0.011.
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.011)
