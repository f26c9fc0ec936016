"""Archives written here, in every published form and with planted faults -> the same folders."""

import collections
import contextlib
import csv
import hashlib
import http.server
import importlib.util
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

SCRIPT = Path(__file__).resolve().parents[1] / "data_separator.py"
_spec = importlib.util.spec_from_file_location("data_separator", SCRIPT)
data_separator = importlib.util.module_from_spec(_spec)
sys.modules["data_separator"] = data_separator
_spec.loader.exec_module(data_separator)

GOOD = 24  # readable photographs of each class
UNLABELLED = 6


def jpeg(seed, shape=(32, 48)):
    """A gradient under noise, as a JPEG."""
    noise = np.random.default_rng(seed).integers(0, 100, (*shape, 3))
    pixels = (noise + np.linspace(0, 155, shape[1])[:, None]).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def png_of(jpeg_data):
    """The pixels that TensorFlow sees in a JPEG, as a PNG."""
    file = io.BytesIO()
    PIL.Image.fromarray(tf.io.decode_jpeg(jpeg_data, channels=3).numpy()).save(file, "PNG")
    return file.getvalue()


def make_photographs():
    """(label, file name's end) -> bytes; the faults have numbers from 24 on."""
    photographs = {("cat", f"{i}.jpg"): jpeg(i) for i in range(GOOD)}
    photographs |= {("dog", f"{i}.jpg"): jpeg(1000 + i) for i in range(GOOD)}
    cat, dog = photographs["cat", "0.jpg"], photographs["dog", "0.jpg"]
    return photographs | {
        ("cat", "24.jpg"): b"",
        ("cat", "25.jpg"): b"this is a text",
        ("cat", "26.jpg"): cat[: len(cat) // 2],
        ("cat", "27.jpg"): cat[:-2],
        ("cat", "28.jpg"): photographs["cat", "3.jpg"],
        ("cat", "29.png"): png_of(photographs["cat", "4.jpg"]),
        ("dog", "24.jpg"): photographs["cat", "5.jpg"],
        ("dog", "25.jpg"): dog[:-2],
        ("dog", "26.jpg"): photographs["dog", "7.jpg"],
        ("dog", "27.jpg"): photographs["dog", "7.jpg"],
    }


PHOTOGRAPHS = make_photographs()
LEFT_OUT = {
    **{("cat", f"{i}.jpg"): "unreadable" for i in (24, 25, 26, 27)},
    ("cat", "5.jpg"): "both labels",
    ("dog", "24.jpg"): "both labels",
    ("dog", "25.jpg"): "unreadable",
}
KEPT = len(PHOTOGRAPHS) - len(LEFT_OUT)
IDENTICAL = [(("cat", "28.jpg"), ("cat", "3.jpg")), (("cat", "29.png"), ("cat", "4.jpg"))]
IDENTICAL += [(("dog", f"{i}.jpg"), ("dog", "7.jpg")) for i in (26, 27)]
TRAIN = {f"train/{label}.{end}": data for (label, end), data in PHOTOGRAPHS.items()}
TEST1 = {f"test1/{i}.jpg": jpeg(2000 + i) for i in range(1, UNLABELLED + 1)}
PET_IMAGES = {
    f"PetImages/{label.title()}/{end}": data for (label, end), data in PHOTOGRAPHS.items()
}
PET_IMAGES |= dict.fromkeys(("PetImages/Cat/Thumbs.db", "PetImages/Dog/Thumbs.db"), b"thumbs")
MICROSOFT = PET_IMAGES | {"readme[1].txt": b"read me"}
SUBMISSION = {"sampleSubmission.csv": b"id,label\n1,0\n"}


def zip_of(files, compression=zipfile.ZIP_STORED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def write_files(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


ZIPS = {"train.zip": zip_of(TRAIN), "test1.zip": zip_of(TEST1)}
ZIPPED_NAMES = [f"train.zip/{name}" for name in TRAIN] + [f"test1.zip/{name}" for name in TEST1]

# The form -> what to write, what of it is SOURCE, the files that must be accounted for.
FORMS = {
    "outer zip": ({"a.zip": zip_of(ZIPS | SUBMISSION)}, "a.zip", [*ZIPPED_NAMES, *SUBMISSION]),
    "outer zip, deflated": (
        {"a.zip": zip_of(ZIPS | SUBMISSION, zipfile.ZIP_DEFLATED)},
        "a.zip",
        [*ZIPPED_NAMES, *SUBMISSION],
    ),
    "train.zip": ({"train.zip": ZIPS["train.zip"]}, "train.zip", list(TRAIN)),
    "Microsoft's zip": ({"b.zip": zip_of(MICROSOFT)}, "b.zip", list(MICROSOFT)),
    "outer zip, unpacked": (ZIPS | SUBMISSION, "", [*ZIPPED_NAMES, *SUBMISSION]),
    "outer zip, all unpacked": (TRAIN | TEST1 | SUBMISSION, "", [*TRAIN, *TEST1, *SUBMISSION]),
    "train folder": (TRAIN, "train", [name.removeprefix("train/") for name in TRAIN]),
    "Microsoft's folder": (MICROSOFT, "", list(MICROSOFT)),
    "PetImages folder": (
        PET_IMAGES,
        "PetImages",
        [name.removeprefix("PetImages/") for name in PET_IMAGES],
    ),
}


def run(*arguments):
    return data_separator.main([str(argument) for argument in arguments])


def tree(folder):
    """Relative path -> bytes of every file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def table(folder):
    with open(folder / "separation.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def identity(row):
    """The photograph of a row, whatever form it comes from: ("cat", "0.jpg")."""
    return row["class"], row["source"].rpartition("/")[2].removeprefix(f"{row['class']}.")


def parts(folder):
    """(label, number) -> part, of all that is placed and labelled."""
    return {
        identity(row): row["destination"].split("/")[0]
        for row in table(folder)
        if row["class"] and row["destination"]
    }


@pytest.fixture
def microsoft(tmp_path):
    path = tmp_path / "microsoft.zip"
    path.write_bytes(zip_of(MICROSOFT))
    return path


def no_leftovers(folder):
    return not [path for path in folder.iterdir() if path.name.endswith("-separation")]


# What goes where


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.case("separator", "right")
def test_every_form_gives_the_same_folders(form, tmp_path):
    written, inside, expected_files = FORMS[form]
    source = write_files(tmp_path / "source", written) / inside
    before = tree(tmp_path / "source")

    assert run(source, tmp_path / "photos") == 0

    assert tree(tmp_path / "source") == before
    rows, files = table(tmp_path / "photos"), tree(tmp_path / "photos")
    assert collections.Counter(row["source"] for row in rows) == collections.Counter(expected_files)
    assert set(files) == {row["destination"] for row in rows if row["destination"]} | {
        "separation.csv"
    }
    for row in rows:
        assert bool(row["destination"]) != bool(row["reason"])
        if row["destination"].startswith("unlabelled/"):
            assert files[row["destination"]] == TEST1[f"test1/{identity(row)[1]}"]
        elif row["destination"]:
            assert files[row["destination"]] == PHOTOGRAPHS[identity(row)]
            name = row["source"].rpartition("/")[2]
            part = expected_part(PHOTOGRAPHS[identity(row)])
            assert row["destination"] == f"{part}/{row['class']}s/{name}"
    reasons = {
        identity(row): row["reason"] for row in rows if identity(row) in PHOTOGRAPHS | LEFT_OUT
    }
    assert {key for key, reason in reasons.items() if reason} == set(LEFT_OUT)
    assert all(reasons[key].startswith(reason) for key, reason in LEFT_OUT.items())
    unlabelled = [row for row in rows if row["destination"].startswith("unlabelled/")]
    assert len(unlabelled) == (UNLABELLED if "outer" in form else 0)
    assert no_leftovers(tmp_path)


def expected_part(data):
    """The rule once more, by other means: NumPy reads the first 8 bytes of the digest."""
    pixels = tf.io.decode_jpeg(data, channels=3).numpy()
    digest = hashlib.sha256(f"({pixels.shape[0]}, {pixels.shape[1]}, 3)".encode())
    digest.update(pixels.tobytes())
    position = np.frombuffer(digest.digest()[:8], ">u8")[0] / 2.0**64
    return ("test", "validation", "train")[int(np.digitize(position, [0.1, 0.2]))]


def test_all_three_parts_occur_among_the_photographs():
    good = [data for key, data in PHOTOGRAPHS.items() if key not in LEFT_OUT]
    assert len({expected_part(data) for data in good}) == 3


def test_reasons_name_the_other_file(microsoft, tmp_path):
    run(microsoft, tmp_path / "photos")
    reasons = {row["source"]: row["reason"] for row in table(tmp_path / "photos")}
    assert reasons["PetImages/Cat/5.jpg"] == "both labels: also PetImages/Dog/24.jpg"
    assert reasons["PetImages/Dog/24.jpg"] == "both labels: also PetImages/Cat/5.jpg"
    assert reasons["PetImages/Cat/24.jpg"] == "unreadable: the file is empty"
    assert reasons["PetImages/Cat/Thumbs.db"] == "not a photograph"


@pytest.mark.case("separator", "right")
def test_identical_pictures_are_kept_in_one_part(microsoft, tmp_path):
    run(microsoft, tmp_path / "photos")
    rows = {identity(row): row for row in table(tmp_path / "photos")}
    for copy, original in IDENTICAL:
        assert rows[copy]["destination"] and rows[copy]["sha256"] == rows[original]["sha256"]
        folders = {Path(rows[key]["destination"]).parent for key in (copy, original)}
        assert len(folders) == 1


@pytest.mark.case("separator", "right")
def test_one_file_published_twice_is_taken_once(tmp_path):
    files = {"train.zip": zip_of(TRAIN)} | TRAIN
    assert run(write_files(tmp_path / "source", files), tmp_path / "photos") == 0
    reasons = [row["reason"] for row in table(tmp_path / "photos")]
    assert reasons.count("") == KEPT == sum(r.startswith("duplicate of train") for r in reasons)


def test_the_summary_counts_every_file(tmp_path, capsys):
    source = tmp_path / "dogs-vs-cats.zip"
    source.write_bytes(FORMS["outer zip"][0]["a.zip"])
    assert run(source, tmp_path / "photos") == 0
    shown, errors = capsys.readouterr()
    numbers = {line.split("  ")[0]: line.split()[-1] for line in shown.splitlines()}
    assert errors == ""
    assert numbers["unlabelled"] == "6"
    assert numbers["left out: unreadable"] == "5"
    assert numbers["left out: duplicate"] == "0"
    assert numbers["left out: both labels"] == "2"
    assert numbers["left out: not a photograph"] == "1"
    assert numbers["left out: beyond --count"] == "0"
    assert numbers["files in the source"] == str(len(PHOTOGRAPHS) + UNLABELLED + 1)
    cats, dogs = np.array([line.split()[1:] for line in shown.splitlines()[1:4]], int).sum(
        axis=0
    )  # train, validation, test
    assert (cats, dogs) == (GOOD - 1 + 2, GOOD + 2)  # 2 + 2 identical ones


def test_rows_come_in_natural_order_with_plain_line_ends(microsoft, tmp_path):
    run(microsoft, tmp_path / "photos")
    cats = [row["source"] for row in table(tmp_path / "photos") if row["class"] == "cat"]
    assert cats[:11] == [f"PetImages/Cat/{i}.jpg" for i in range(11)]
    assert b"\r" not in (tmp_path / "photos/separation.csv").read_bytes()


@pytest.mark.case("separator", "right")
def test_a_second_run_gives_the_same_bytes(microsoft, tmp_path, capsys):
    photos = tmp_path / "photos"
    run(microsoft, photos)
    first = tree(photos)
    (photos / "Thumbs.db").write_bytes(b"a file browser was here")
    capsys.readouterr()
    assert run(microsoft, photos) == 0
    assert tree(photos) == first
    assert f"Replacing the earlier separation in {photos}" in capsys.readouterr().out
    assert no_leftovers(tmp_path)


@pytest.mark.case("separator", "right")
def test_more_photographs_move_nothing(tmp_path):
    few = {name: data for i, (name, data) in enumerate(TRAIN.items()) if i % 2}
    run(write_files(tmp_path / "few", few), tmp_path / "from few")
    run(write_files(tmp_path / "all", TRAIN), tmp_path / "from all")
    small, large = parts(tmp_path / "from few"), parts(tmp_path / "from all")
    common = small.keys() & large.keys()
    assert len(common) > 15
    assert {key: small[key] for key in common} == {key: large[key] for key in common}


# Options


def test_count_takes_the_first_of_each_class_and_more_is_a_superset(tmp_path):
    source = write_files(tmp_path / "source", TRAIN | TEST1)
    placed = {}
    for count in (2, 11, 20, 1000):
        assert run(source, tmp_path / f"{count}", "--count", count) == 0
        placed[count] = {row["destination"] for row in table(tmp_path / f"{count}")} - {""}
    assert placed[2] < placed[11] < placed[20] < placed[1000]
    # Cat 5 stands under both labels, by a dog far beyond the count: it is never taken.
    cats = {("cat", f"{i}.jpg") for i in (0, 1, 2, 3, 4, 6)}
    assert set(parts(tmp_path / "11")) == cats | {("dog", f"{i}.jpg") for i in range(5)}
    assert sum(name.startswith("unlabelled/") for name in placed[2]) == 2
    assert sum(name.startswith("unlabelled/") for name in placed[1000]) == UNLABELLED


def test_shares_bound_the_parts():
    generator = np.random.default_rng(0)
    hashes = [generator.bytes(32).hex() for _ in range(20_000)]
    for shares in ((80, 10, 10), (0.5, 0.2, 0.3), (1, 0, 0), (2, 0, 2)):
        counts = collections.Counter(data_separator.part_of(name, shares) for name in hashes)
        found = [counts[part] / len(hashes) for part in ("train", "validation", "test")]
        # Six standard deviations of a share of 20,000 are at most 0.021.
        np.testing.assert_allclose(found, np.divide(shares, sum(shares)), atol=0.021)


@pytest.mark.case("separator", "right")
def test_the_test_part_stays_when_the_others_change(microsoft, tmp_path):
    run(microsoft, tmp_path / "a", "--shares", 80, 10, 10)
    run(microsoft, tmp_path / "b", "--shares", 5, 4, 1)
    run(microsoft, tmp_path / "c", "--shares", 1, 0, 0)
    a, b, c = (parts(tmp_path / name) for name in "abc")
    assert a != b
    assert [key for key in a if a[key] == "test"] == [key for key in b if b[key] == "test"] != []
    assert set(c.values()) == {"train"}
    assert (tmp_path / "c/test/dogs").is_dir()


def test_size_shrinks_and_keeps_aspect_and_part(tmp_path):
    large = {("cat", "90.jpg"): jpeg(90, (400, 300)), ("dog", "91.png"): png_of(jpeg(91))}
    files = TRAIN | {f"train/{label}.{end}": data for (label, end), data in large.items()}
    source = write_files(tmp_path / "source", files)
    assert run(source, tmp_path / "small", "--size", 100) == 0
    assert run(source, tmp_path / "whole") == 0
    assert parts(tmp_path / "small") == parts(tmp_path / "whole")

    names = {identity(row): row["destination"] for row in table(tmp_path / "small")}
    small = tree(tmp_path / "small")
    shrunk = PIL.Image.open(io.BytesIO(small[names["cat", "90.jpg"]]))
    assert (shrunk.format, shrunk.size) == ("JPEG", (75, 100))
    area = PIL.Image.open(io.BytesIO(large["cat", "90.jpg"])).resize((75, 100), PIL.Image.BOX)
    assert np.abs(np.asarray(shrunk, float) - np.asarray(area, float)).mean() < 8
    assert names["dog", "91.png"].endswith("/dog.91.jpg")
    assert PIL.Image.open(io.BytesIO(small[names["dog", "91.png"]])).format == "JPEG"
    # 48 x 32 pixels are small enough: not encoded a second time.
    assert small[names["cat", "0.jpg"]] == PHOTOGRAPHS["cat", "0.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shares", 0, 10, 10], "`--shares` (=0 10 10) must be three numbers >= 0, the first"),
        (["--shares", 80, "nan", 10], "`--shares` (=80 nan 10) must be"),
        (["--shares", 80, "inf", 10], "`--shares` (=80 inf 10) must be"),
        (["--count", 1], "`--count` (=1) must be at least 2."),
        (["--size", 3], "`--size` (=3) must be at least 16."),
    ],
)
@pytest.mark.case("separator", "reported")
def test_options_out_of_range_are_one_line(options, message, microsoft, tmp_path, capsys):
    assert_fails([microsoft, tmp_path / "photos", *options], message, capsys)
    assert not (tmp_path / "photos").exists()


# Sources that are not what they should be


def assert_fails(arguments, message, capsys):
    assert run(*arguments) == 2
    shown, errors = capsys.readouterr()
    assert message in errors
    assert errors.startswith("data_separator.py: ")
    assert errors.count("\n") == 1
    assert "left out" not in shown


def encrypted():
    """A zip whose members are flagged as encrypted, in both of their headers."""
    packed = bytearray(zip_of({"Cat/0.jpg": jpeg(0)}))
    packed[packed.index(b"PK\x03\x04") + 6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    return bytes(packed)


CATS = {name: data for name, data in TRAIN.items() if "cat" in name}
EMPTY_DOGS = {f"train/dog.{i}.jpg": b"" for i in range(3)}
BAD_SOURCES = {
    "page": (b"\n<!DOCTYPE html><html>Sign in</html>", "logged in and have accepted its rules"),
    "text": (b"some text", "source.zip is neither a folder nor a zip"),
    "empty file": (b"", "source.zip is neither a folder nor a zip"),
    "cut": (zip_of(MICROSOFT)[:-2000], "source.zip is an incomplete or damaged zip"),
    "cut inside": (
        zip_of({"train.zip": ZIPS["train.zip"][:-2000]}),
        "train.zip is an incomplete or damaged zip",
    ),
    "page inside": (zip_of({"train.zip": b"<html>"}), "train.zip is not a zip but a web page"),
    "encrypted": (encrypted(), "source.zip is protected by a password"),
    "nothing": (zip_of({}), "no readable photographs of cats and dogs"),
    "no photographs": (zip_of(SUBMISSION), "no readable photographs of cats and dogs"),
    "only test1": (ZIPS["test1.zip"], "no readable photographs of cats and dogs"),
    "only cats": (zip_of(CATS), "no readable photographs of dogs"),
    "no readable dogs": (zip_of(CATS | EMPTY_DOGS), "no readable photographs of dogs"),
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
@pytest.mark.case("separator", "reported")
def test_bad_sources_are_one_line(kind, tmp_path, capsys):
    data, message = BAD_SOURCES[kind]
    (tmp_path / "source.zip").write_bytes(data)
    assert_fails([tmp_path / "source.zip", tmp_path / "photos"], message, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["source.zip"]


@pytest.mark.case("separator", "reported")
def test_a_missing_source_is_named(tmp_path, capsys):
    assert_fails([tmp_path / "none.zip", tmp_path / "photos"], "none.zip does not exist", capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case("separator", "reported")
@pytest.mark.parametrize("kind", ["pipe", "links in a circle", "link to nothing"])
def test_a_source_that_is_no_file_is_named(kind, tmp_path, capsys):
    source, other = tmp_path / "source.zip", tmp_path / "other"
    if kind == "pipe":
        os.mkfifo(source)
    else:
        source.symlink_to(other)
    if kind == "links in a circle":
        other.symlink_to(source)
    before = sorted(tmp_path.iterdir())
    message = "neither a folder nor a zip" if kind == "pipe" else "does not exist"
    assert_fails([source, tmp_path / "photos"], message, capsys)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.case("separator", "right")
def test_names_that_climb_out_stay_inside(tmp_path):
    files = {f"../../{name}": data for name, data in TRAIN.items() if "cat" in name}
    files |= {f"/{name}": data for name, data in TRAIN.items() if "dog" in name}
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/source.zip").write_bytes(zip_of(files))
    assert run(tmp_path / "a/b/source.zip", tmp_path / "a/b/photos") == 0
    assert len(parts(tmp_path / "a/b/photos")) == KEPT
    outside = {name for name in tree(tmp_path) if not name.startswith("a/b/photos/")}
    assert outside == {"a/b/source.zip"}


@pytest.mark.case("separator", "right")
def test_equal_names_and_equal_folders_lose_nothing(tmp_path):
    """Pictures of one name are both kept; a folder beside its own zip is all duplicates."""
    same_name = {f"{folder}/Cat/0.jpg": jpeg(50 + i) for i, folder in enumerate("abcdefgh")}
    same_name |= {f"{folder}/Cat/0.JPG": jpeg(70 + i) for i, folder in enumerate("abcdefgh")}
    dogs = {f"train/dog.{i}.jpg": PHOTOGRAPHS["dog", f"{i}.jpg"] for i in range(GOOD)}
    files = {"train.zip": zip_of(dogs)} | dogs | same_name
    assert run(write_files(tmp_path / "source", files), tmp_path / "photos") == 0
    rows, written = table(tmp_path / "photos"), tree(tmp_path / "photos")
    kept = [row["destination"] for row in rows if row["destination"]]
    assert len(written) == len(kept) + 1
    assert len({name.casefold() for name in kept}) == len(kept)
    assert {written[name] for name in kept} == {*same_name.values(), *dogs.values()}


@pytest.mark.case("separator", "right")
def test_identical_pictures_whose_names_differ_only_in_case_do_not_replace_each_other(tmp_path):
    cats = {f"{i}/Cat/{name}": jpeg(50) for i, name in enumerate(["0.jpg", "0.JPG", "0.Jpg"])}
    files = cats | {"0/Dog/1.jpg": jpeg(51)}
    assert run(write_files(tmp_path / "source", files), tmp_path / "photos") == 0
    kept = [row["destination"] for row in table(tmp_path / "photos")]
    assert len({name.casefold() for name in kept}) == 4
    assert set(tree(tmp_path / "photos")) == {*kept, "separation.csv"}


@pytest.mark.case("separator", "right")
@pytest.mark.parametrize("letter", ["k", "\u00e9", "\udce9"])
def test_equal_names_as_long_as_they_may_be_lose_nothing(letter, tmp_path):
    name = letter * (251 // len(os.fsencode(letter))) + ".jpg"
    cats = {f"{folder}/Cat/{name}": jpeg(50 + i) for i, folder in enumerate("abc")}
    source = write_files(tmp_path / "source", cats | {"a/Dog/1.jpg": jpeg(60)})
    assert run(source, tmp_path / "photos") == 0
    written = tree(tmp_path / "photos")
    assert {data for place, data in written.items() if "/cats/" in place} == set(cats.values())


@pytest.mark.case("separator", "reported")
def test_a_picture_damaged_in_its_zip_is_left_out(tmp_path):
    packed = bytearray(zip_of(TRAIN))
    packed[packed.index(PHOTOGRAPHS["cat", "2.jpg"]) + 300] ^= 255  # now the CRC is wrong
    (tmp_path / "train.zip").write_bytes(packed)
    assert run(tmp_path / "train.zip", tmp_path / "photos") == 0
    reasons = {identity(row): row["reason"] for row in table(tmp_path / "photos")}
    assert reasons["cat", "2.jpg"] == "unreadable: damaged in its archive"
    assert reasons["cat", "1.jpg"] == ""


@pytest.mark.case("separator", "right")
def test_what_macos_adds_is_no_photograph(tmp_path):
    files = PET_IMAGES | {f"__MACOSX/{name}": b"x" for name in ("PetImages/Cat/._0.jpg", ".a.jpg")}
    assert run(write_files(tmp_path / "source", files), tmp_path / "photos") == 0
    added = [row for row in table(tmp_path / "photos") if "MACOSX" in row["source"]]
    assert [row["reason"] for row in added] == ["not a photograph"] * 2


@pytest.mark.case("separator", "right")
@pytest.mark.parametrize("packed", [False, True])
def test_what_macos_adds_to_a_zip_is_no_zip(packed, tmp_path):
    files = {"train.zip": zip_of(TRAIN), "__MACOSX/._train.zip": b"x", "._train.zip": b"x"}
    source = tmp_path / "source.zip"
    if packed:
        source.write_bytes(zip_of(files))
    else:
        source = write_files(tmp_path / "source", files)
    assert run(source, tmp_path / "photos") == 0
    assert len(parts(tmp_path / "photos")) == KEPT
    added = [row for row in table(tmp_path / "photos") if "._train" in row["source"]]
    assert [row["reason"] for row in added] == ["not a photograph"] * 2


def test_few_pictures_are_in_memory_at_a_time():
    reads = []
    files = [
        data_separator.SourceFile(str(i), "cat", lambda: reads.append(None) or b"")
        for i in range(500)
    ]
    ahead = [
        len(reads) - done
        for done, _ in enumerate(data_separator._in_threads(len, files, "testing"))
    ]
    assert len(ahead) == len(reads) == 500
    assert max(ahead) <= 4 * (data_separator.os.cpu_count() or 1) + 1


# Destinations that are in use, and runs that were cut short


@pytest.mark.case("separator", "reported")
def test_destinations_in_use_are_left_alone(microsoft, tmp_path, capsys):
    photos = tmp_path / "photos"
    write_files(photos, {"thesis.txt": b"dear"})
    assert_fails([microsoft, photos], "neither empty nor an earlier separation", capsys)
    write_files(photos, {"separation.csv": b"another,table\n"})
    assert_fails([microsoft, photos], "neither empty nor an earlier separation", capsys)
    assert tree(photos) == {"thesis.txt": b"dear", "separation.csv": b"another,table\n"}
    assert_fails([microsoft, photos / "thesis.txt"], "thesis.txt is a file", capsys)


@pytest.mark.case("separator", "reported")
def test_what_a_user_put_into_a_separation_is_kept(microsoft, tmp_path, capsys):
    photos = tmp_path / "photos"
    run(microsoft, photos)
    capsys.readouterr()
    before = tree(write_files(photos, {"train/cats/mine.jpg": b"dear"}))
    assert_fails([microsoft, photos], "train/cats/mine.jpg is not from there", capsys)
    assert tree(photos) == before


@pytest.mark.case("separator", "right")
def test_an_empty_destination_is_used(microsoft, tmp_path):
    (tmp_path / "photos").mkdir()
    assert run(microsoft, tmp_path / "photos") == 0
    assert len(parts(tmp_path / "photos")) == KEPT


@pytest.mark.parametrize(("source", "destination"), [("s", "s"), ("s", "s/new"), ("s/train", "s")])
@pytest.mark.case("separator", "reported")
def test_source_and_destination_must_lie_apart(source, destination, tmp_path, capsys):
    before = tree(write_files(tmp_path / "s", TRAIN))
    assert_fails([tmp_path / source, tmp_path / destination], "must lie apart", capsys)
    assert tree(tmp_path / "s") == before


@pytest.mark.parametrize("step", ["examine", "write_table"])
@pytest.mark.case("separator", "right")
def test_ctrl_c_leaves_an_earlier_separation_as_it_was(
    step, microsoft, tmp_path, capsys, monkeypatch
):
    run(microsoft, tmp_path / "photos", "--count", 10)
    before = tree(tmp_path)
    capsys.readouterr()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_separator, step, interrupt)
    assert run(microsoft, tmp_path / "photos") == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert tree(tmp_path) == before


def test_a_full_disk_is_one_line(microsoft, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_separator, "write_table", fail)
    assert_fails([microsoft, tmp_path / "photos"], "No space left on device", capsys)
    assert list(tmp_path.iterdir()) == [microsoft]


@pytest.mark.case("separator", "right")
def test_killed_between_the_renames_the_earlier_separation_comes_back(microsoft, tmp_path, capsys):
    photos = tmp_path / "photos"
    run(microsoft, photos)
    before = tree(photos)
    photos.rename(tmp_path / ".photos.replaced-separation")
    write_files(tmp_path / ".photos.unfinished-separation", before)
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no zip")
    capsys.readouterr()
    assert_fails([bad, photos], "neither a folder nor a zip", capsys)
    assert tree(photos) == before
    assert run(microsoft, photos) == 0
    assert tree(photos) == before
    assert no_leftovers(tmp_path)


def test_a_killed_run_is_cleared_away(microsoft, tmp_path):
    """The program itself, from another working directory: killed while it works, then whole."""
    command = [sys.executable, SCRIPT, "microsoft.zip", "photos"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    working = tmp_path / ".photos.unfinished-separation"
    for _ in range(3000):
        if working.exists():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert working.exists()
    assert not (tmp_path / "photos").exists()

    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].split()[-1] == str(len(MICROSOFT))
    assert len(parts(tmp_path / "photos")) == KEPT
    assert no_leftovers(tmp_path)


# Fetching the archive

ARCHIVE = zip_of(MICROSOFT)
ARCHIVE_SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ARCHIVE as `server.script` says: a dict a request, the last one for all that follow.

    `cut`: bytes after which the connection drops. `ranges`: whether Range is heeded. `status`.
    """

    def do_GET(self):
        server = self.server
        server.ranges_asked.append(self.headers["Range"])
        step = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        start = start if step.get("ranges", True) else 0
        if start >= len(ARCHIVE):
            return self.send_error(416)
        if "status" in step:
            return self.send_error(step["status"])
        self.send_response(206 if step.get("ranges", True) else 200)
        self.send_header("Content-Length", str(len(ARCHIVE) - start))
        self.end_headers()
        self.wfile.write(ARCHIVE[start : start + step.get("cut", len(ARCHIVE))])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(*script):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.script, server.ranges_asked = list(script), []
        server.url = f"http://127.0.0.1:{server.server_port}/pets.zip"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(server, path, sha256=ARCHIVE_SHA256):
    data_separator.download(path, url=server.url, sha256=sha256)


@pytest.mark.case("separator", "right")
def test_download_then_separate(tmp_path, monkeypatch):
    download = data_separator.download
    path = tmp_path / "new/pets.zip"
    with serve({}) as server:
        monkeypatch.setattr(
            data_separator,
            "download",
            lambda path: download(path, url=server.url, sha256=ARCHIVE_SHA256),
        )
        assert run("--download", path, tmp_path / "photos") == 0
        assert run("--download", path, tmp_path / "photos") == 0
        assert len(server.ranges_asked) == 1  # what is there is not fetched again
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pets.zip"]
    assert path.read_bytes() == ARCHIVE
    assert len(parts(tmp_path / "photos")) == KEPT


@pytest.mark.parametrize("kept", [1, 1000, len(ARCHIVE) - 1, len(ARCHIVE)])
@pytest.mark.case("separator", "right")
def test_download_resumes_a_part(kept, tmp_path):
    (tmp_path / "pets.zip.part").write_bytes(ARCHIVE[:kept])
    with serve({}) as server:
        fetch(server, tmp_path / "pets.zip")
    assert server.ranges_asked == [f"bytes={kept}-"]
    assert tree(tmp_path) == {"pets.zip": ARCHIVE}


@pytest.mark.case("separator", "right")
def test_download_goes_on_after_cuts(tmp_path):
    with serve({"cut": 5000}, {"cut": 7000}, {}) as server:
        fetch(server, tmp_path / "pets.zip")
    assert server.ranges_asked == ["bytes=0-", "bytes=5000-", "bytes=12000-"]
    assert tree(tmp_path) == {"pets.zip": ARCHIVE}


@pytest.mark.case("separator", "right")
def test_download_gives_up_and_resumes_later(tmp_path):
    with serve({"cut": 5000}, {"cut": 0}) as server:
        with pytest.raises(data_separator.SeparationError, match="run again to resume"):
            fetch(server, tmp_path / "pets.zip")
    assert tree(tmp_path) == {"pets.zip.part": ARCHIVE[:5000]}
    with serve({}) as server:
        fetch(server, tmp_path / "pets.zip")
    assert server.ranges_asked == ["bytes=5000-"]
    assert tree(tmp_path) == {"pets.zip": ARCHIVE}


@pytest.mark.case("separator", "right")
def test_download_starts_over_where_the_server_knows_no_ranges(tmp_path):
    (tmp_path / "pets.zip.part").write_bytes(ARCHIVE[:1000])
    with serve({"ranges": False}) as server:
        fetch(server, tmp_path / "pets.zip")
    assert tree(tmp_path) == {"pets.zip": ARCHIVE}


@pytest.mark.case("separator", "reported")
def test_download_without_ranges_that_is_always_cut_ends(tmp_path):
    with serve({"ranges": False, "cut": 5000}) as server:
        with pytest.raises(data_separator.SeparationError, match="run again to resume"):
            fetch(server, tmp_path / "pets.zip")
    assert len(server.ranges_asked) == 2


@pytest.mark.case("separator", "reported")
def test_download_with_a_wrong_sum_is_not_used(tmp_path):
    with serve({}) as server:
        with pytest.raises(data_separator.SeparationError, match="has the SHA-256"):
            fetch(server, tmp_path / "pets.zip", sha256="0" * 64)
        assert tree(tmp_path) == {}
        (tmp_path / "pets.zip").write_bytes(b"mine")
        with pytest.raises(data_separator.SeparationError, match="is not the archive"):
            fetch(server, tmp_path / "pets.zip")
    assert tree(tmp_path) == {"pets.zip": b"mine"}


@pytest.mark.case("separator", "reported")
def test_download_refused_or_unreachable(tmp_path):
    with serve({"status": 404}) as server:
        with pytest.raises(data_separator.SeparationError, match="answers: 404"):
            fetch(server, tmp_path / "pets.zip")
    with pytest.raises(data_separator.SeparationError, match="cannot be fetched now"):
        fetch(server, tmp_path / "pets.zip")  # the server is gone
    with pytest.raises(data_separator.SeparationError, match="wants a file: .*pets.zip"):
        fetch(server, tmp_path)


@pytest.mark.case("separator", "reported")
def test_download_is_not_begun_for_a_destination_in_use(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data_separator, "download", lambda _: pytest.fail("fetched"))
    write_files(tmp_path / "photos", {"thesis.txt": b"dear"})
    arguments = ["--download", tmp_path / "pets.zip", tmp_path / "photos"]
    assert_fails(arguments, "neither empty nor an earlier separation", capsys)
