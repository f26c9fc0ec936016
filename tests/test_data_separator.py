"""Archives written here, in every published form and with planted faults -> the same folders."""

import collections
import contextlib
import csv
import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from image_corpus import encode

import data_separator

SCRIPT = Path(data_separator.__file__)

SPLITS = data_separator.SPLITS
GOOD, UNLABELED = 24, 6  # readable photographs of each class, and of none


def jpeg(seed, shape=(32, 48)):
    """A gradient under noise, as a JPEG."""
    noise = np.random.default_rng(seed).integers(0, 100, (*shape, 3))
    pixels = noise + np.linspace(0, 155, shape[1])[:, None]
    return encode(pixels.astype(np.uint8), "JPEG", quality=90)


def png_of(jpeg_data):
    """The pixels that TensorFlow sees in a JPEG, as a PNG."""
    return encode(tf.io.decode_jpeg(jpeg_data, channels=3))


# (label, file name's end) -> bytes; the unusual ones have numbers from 24 on.
CATS = {("cat", f"{i}.jpg"): jpeg(i) for i in range(GOOD)}
DOGS = {("dog", f"{i}.jpg"): jpeg(1000 + i) for i in range(GOOD)}
CAT, DOG = CATS["cat", "0.jpg"], DOGS["dog", "0.jpg"]
PHOTOGRAPHS = CATS | DOGS
PHOTOGRAPHS |= {
    ("cat", "24.jpg"): b"",
    ("cat", "25.jpg"): b"this is a text",
    ("cat", "26.jpg"): CAT[: len(CAT) // 2],
    ("cat", "27.jpg"): CAT[:-2],
    ("cat", "28.jpg"): CATS["cat", "3.jpg"],
    ("cat", "29.png"): png_of(CATS["cat", "4.jpg"]),
    ("cat", "30.jfif"): jpeg(30),
    ("dog", "24.jpg"): CATS["cat", "5.jpg"],
    ("dog", "25.jpg"): DOG[:-2],
    ("dog", "26.jpg"): DOGS["dog", "7.jpg"],
    ("dog", "27.jpg"): DOGS["dog", "7.jpg"],
    ("dog", "28.jpe"): jpeg(1028),
}
LEFT_OUT = {
    **{("cat", f"{i}.jpg"): "unreadable" for i in (24, 25, 26, 27)},
    ("cat", "5.jpg"): "both labels",
    ("dog", "24.jpg"): "both labels",
    ("dog", "25.jpg"): "unreadable",
}
KEPT = len(PHOTOGRAPHS) - len(LEFT_OUT)
ORIGINALS = [(label, i) for label in ("cat", "dog") for i in range(10, 20)]
IDENTICAL = [(("cat", "28.jpg"), ("cat", "3.jpg")), (("cat", "29.png"), ("cat", "4.jpg"))]
IDENTICAL += [(("dog", f"{i}.jpg"), ("dog", "7.jpg")) for i in (26, 27)]
TRAIN = {f"train/{label}.{end}": data for (label, end), data in PHOTOGRAPHS.items()}
TEST1 = {f"test1/{i}.jpg": jpeg(2000 + i) for i in range(1, UNLABELED + 1)}
PET_IMAGES = {f"PetImages/{key[0].title()}/{key[1]}": data for key, data in PHOTOGRAPHS.items()}
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
OUTER = ZIPS | SUBMISSION
OUTER_NAMES = [f"train.zip/{name}" for name in TRAIN] + [f"test1.zip/{name}" for name in TEST1]
OUTER_NAMES += SUBMISSION
UNPACKED = TRAIN | TEST1 | SUBMISSION

# The form -> what to write, what of it is SOURCE, the files that must be accounted for.
FORMS = {
    "outer zip": ({"a.zip": zip_of(OUTER)}, "a.zip", OUTER_NAMES),
    "outer zip, deflated": ({"a.zip": zip_of(OUTER, zipfile.ZIP_DEFLATED)}, "a.zip", OUTER_NAMES),
    "train.zip": (ZIPS, "train.zip", TRAIN),
    "Microsoft's zip": ({"b.zip": zip_of(MICROSOFT)}, "b.zip", MICROSOFT),
    "outer zip, unpacked": (OUTER, "", OUTER_NAMES),
    "outer zip, all unpacked": (UNPACKED, "", UNPACKED),
    "train folder": (TRAIN, "train", [name.removeprefix("train/") for name in TRAIN]),
    "Microsoft's folder": (MICROSOFT, "", MICROSOFT),
    "PetImages folder": (PET_IMAGES, "PetImages", [name[10:] for name in PET_IMAGES]),
}


def run(*arguments):
    return data_separator.main([str(argument) for argument in arguments])


def tree(folder):
    """Relative path -> bytes of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def table(folder):
    with open(folder / "separation.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def identity(row):
    """The photograph of a row, whatever form it comes from: ("cat", "0.jpg")."""
    return row["class"], row["source"].rpartition("/")[2].removeprefix(f"{row['class']}.")


def splits(folder):
    """(label, number) -> split, of all that is placed and labeled."""
    rows = [row for row in table(folder) if row["class"] and row["destination"]]
    return {identity(row): row["destination"].split("/")[0] for row in rows}


def no_leftovers(folder):
    return not [path for path in folder.iterdir() if path.name.endswith("-separation")]


def assert_fails(arguments, message, capsys):
    assert run(*arguments) == 2
    shown, errors = capsys.readouterr()
    assert errors.startswith("data_separator.py: ") and message in errors
    assert errors.count("\n") == 1 and "files in the source" not in shown


@pytest.fixture
def microsoft(tmp_path):
    path = tmp_path / "microsoft.zip"
    path.write_bytes(zip_of(MICROSOFT))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_folders(form, tmp_path):
    written, inside, expected_files = FORMS[form]
    source = write_files(tmp_path / "source", written) / inside
    before = tree(tmp_path / "source")
    assert run(source, tmp_path / "photos") == 0
    assert tree(tmp_path / "source") == before
    rows, files = table(tmp_path / "photos"), tree(tmp_path / "photos")
    assert sorted(row["source"] for row in rows) == sorted(expected_files)
    placed = {row["destination"] for row in rows if row["destination"]}
    assert set(files) == placed | {"separation.csv"}
    for row in rows:
        assert bool(row["destination"]) != bool(row["reason"])
        if row["destination"].startswith("unlabeled/"):
            assert files[row["destination"]] == TEST1[f"test1/{identity(row)[1]}"]
        elif row["destination"]:
            assert files[row["destination"]] == PHOTOGRAPHS[identity(row)]
            name = row["source"].rpartition("/")[2]
            split = expected_split(PHOTOGRAPHS[identity(row)])
            assert row["destination"] == f"{split}/{row['class']}s/{name}"
    reasons = {identity(row): row["reason"] for row in rows if identity(row) in PHOTOGRAPHS}
    assert {key for key, reason in reasons.items() if reason} == set(LEFT_OUT)
    assert all(reasons[key].startswith(reason) for key, reason in LEFT_OUT.items())
    unlabeled = [row for row in rows if row["destination"].startswith("unlabeled/")]
    assert len(unlabeled) == (UNLABELED if "outer" in form else 0)
    assert set(splits(tmp_path / "photos").values()) == set(SPLITS)
    assert no_leftovers(tmp_path)


def expected_split(data):
    """The rule once more, by other means: NumPy reads the first 8 bytes of the digest."""
    pixels = tf.io.decode_image(data, channels=3).numpy()
    digest = hashlib.sha256(f"({pixels.shape[0]}, {pixels.shape[1]}, 3)".encode())
    digest.update(pixels.tobytes())
    position = np.frombuffer(digest.digest()[:8], ">u8")[0] / 2.0**64
    return ("test", "validation", "train")[int(np.digitize(position, [0.1, 0.2]))]


def test_the_table_gives_reasons_in_order_and_the_split_of_identical_images(microsoft, tmp_path):
    (tmp_path / "photos").mkdir()  # empty, it is used
    run(microsoft, tmp_path / "photos")
    rows = table(tmp_path / "photos")
    reasons = {row["source"]: row["reason"] for row in rows}
    assert reasons["PetImages/Cat/5.jpg"] == "both labels: also PetImages/Dog/24.jpg"
    assert reasons["PetImages/Dog/24.jpg"] == "both labels: also PetImages/Cat/5.jpg"
    assert reasons["PetImages/Cat/24.jpg"] == "unreadable: the file is empty"
    assert reasons["PetImages/Cat/Thumbs.db"] == "not a photograph"
    cats = [row["source"] for row in rows if row["class"] == "cat"]
    assert cats[:11] == [f"PetImages/Cat/{i}.jpg" for i in range(11)]
    assert b"\r" not in (tmp_path / "photos/separation.csv").read_bytes()
    rows = {identity(row): row for row in rows}
    for copy, original in IDENTICAL:
        assert rows[copy]["destination"] and rows[copy]["sha256"] == rows[original]["sha256"]
        folders = {Path(rows[key]["destination"]).parent for key in (copy, original)}
        assert len(folders) == 1


def test_one_file_published_twice_is_taken_once(tmp_path):
    files = {"train.zip": zip_of(TRAIN)} | TRAIN
    assert run(write_files(tmp_path / "source", files), tmp_path / "photos") == 0
    reasons = [row["reason"] for row in table(tmp_path / "photos")]
    assert reasons.count("") == KEPT == sum(r.startswith("duplicate: also train") for r in reasons)


def test_the_summary_counts_every_file(tmp_path, capsys):
    source = tmp_path / "dogs-vs-cats.zip"
    source.write_bytes(FORMS["outer zip"][0]["a.zip"])
    assert run(source, tmp_path / "photos") == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    numbers = {line[:28].strip(): int(line[28:]) for line in shown.splitlines()}
    total = numbers.pop("files in the source")
    assert total == sum(numbers.values()) == len(PHOTOGRAPHS) + UNLABELED + 1
    assert sum(numbers.pop(f"{split}/cats") for split in SPLITS) == GOOD - 1 + 3
    assert sum(numbers.pop(f"{split}/dogs") for split in SPLITS) == GOOD + 3
    left_out = {"unreadable": 5, "both labels": 2, "not a photograph": 1}
    expected = {f"left out: {reason}": number for reason, number in left_out.items()}
    assert numbers == expected | {"unlabeled": UNLABELED}


def test_more_photographs_move_nothing(tmp_path):
    few = {name: data for i, (name, data) in enumerate(TRAIN.items()) if i % 2}
    photos = tmp_path / "photos"
    run(write_files(tmp_path / "source", few), photos)
    before, first = splits(photos), tree(photos)
    run(write_files(tmp_path / "source", TRAIN), photos)
    after, second = splits(photos), tree(photos)
    common = before.keys() & after.keys()
    assert len(common) > 15 and len(after) == KEPT
    assert {key: before[key] for key in common} == {key: after[key] for key in common}
    assert all(second[name] == first[name] for name in first.keys() & second.keys() if "/" in name)


def test_count_takes_the_first_of_each_class_and_more_is_a_superset(tmp_path):
    source = write_files(tmp_path / "source", TRAIN | TEST1)
    placed = {}
    for count in (2, 11, 20, 1000):
        assert run(source, tmp_path / f"{count}", "--count", count) == 0
        placed[count] = {row["destination"] for row in table(tmp_path / f"{count}")} - {""}
    assert placed[2] < placed[11] < placed[20] < placed[1000]
    # Cat 5 stands under both labels, by a dog far beyond the count: it is never taken.
    cats = {("cat", f"{i}.jpg") for i in (0, 1, 2, 3, 4, 6)}
    assert set(splits(tmp_path / "11")) == cats | {("dog", f"{i}.jpg") for i in range(5)}
    assert sum(name.startswith("unlabeled/") for name in placed[2]) == 2
    assert sum(name.startswith("unlabeled/") for name in placed[1000]) == UNLABELED


def test_shares_bound_the_splits():
    generator = np.random.default_rng(0)
    hashes = [generator.bytes(32).hex() for _ in range(20_000)]
    for shares in ((80, 10, 10), (0.5, 0.2, 0.3), (1, 0, 0), (2, 0, 2)):
        counts = collections.Counter(data_separator.split_of(name, shares) for name in hashes)
        found = [counts[split] / len(hashes) for split in SPLITS]
        # Six standard deviations of a share of 20,000 are at most 0.021.
        np.testing.assert_allclose(found, np.divide(shares, sum(shares)), atol=0.021)


def test_the_test_split_stays_when_the_others_change(microsoft, tmp_path):
    run(microsoft, tmp_path / "a", "--shares", 80, 10, 10)
    run(microsoft, tmp_path / "b", "--shares", 5, 4, 1)
    run(microsoft, tmp_path / "c", "--shares", 1, 0, 0)
    a, b, c = (splits(tmp_path / name) for name in "abc")
    assert a != b
    assert [key for key in a if a[key] == "test"] == [key for key in b if b[key] == "test"] != []
    assert set(c.values()) == {"train"}
    assert (tmp_path / "c/test/dogs").is_dir()


def test_size_shrinks_and_keeps_aspect_and_split(tmp_path):
    large = {("cat", "90.jpg"): jpeg(90, (400, 300)), ("dog", "91.png"): png_of(jpeg(91))}
    files = TRAIN | {f"train/{label}.{end}": data for (label, end), data in large.items()}
    source = write_files(tmp_path / "source", files)
    assert run(source, tmp_path / "small", "--size", 100) == 0
    assert run(source, tmp_path / "whole") == 0
    assert splits(tmp_path / "small") == splits(tmp_path / "whole")

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


def test_near_copies_in_two_splits_are_reported_or_kept_together(tmp_path, capsys):
    mirrored = {}
    for name, data in TRAIN.items():
        if name.removeprefix("train/") in {f"{label}.{i}.jpg" for label, i in ORIGINALS}:
            pixels = tf.io.decode_jpeg(data, channels=3).numpy()
            mirrored[name.replace(".jpg", "00.png")] = encode(pixels[:, ::-1])
    source, photos = write_files(tmp_path / "source", TRAIN | mirrored), tmp_path / "photos"
    column, pairs = "near copy in another split", len(mirrored)
    assert run(source, photos) == 0
    rows = {row["destination"].split("/")[-1]: row for row in table(photos) if row["destination"]}
    parted = 0
    for name in (f"{label}.{i}" for label, i in ORIGINALS):
        both = rows[f"{name}.jpg"], rows[f"{name}00.png"]
        paths = [row["destination"] for row in both]
        apart = paths[0].split("/")[0] != paths[1].split("/")[0]
        assert [row[column] for row in both] == (paths[::-1] if apart else ["", ""])
        parted += 2 * apart
    assert 0 < parted < 2 * pairs == 40
    assert sum(bool(row[column]) for row in table(photos)) == parted
    shown = capsys.readouterr().out
    assert f"{parted} photographs have a near copy in another split, such as" in shown

    assert run(source, photos, "--keep-near-copies-together") == 0
    assert not any(row[column] for row in table(photos))
    assert "near copy" not in capsys.readouterr().out
    first = tree(photos)
    assert set(splits(photos).values()) == set(SPLITS)
    assert run(source, photos, "--keep-near-copies-together") == 0
    assert tree(photos) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shares", 0, 10, 10], "`--shares` (=0 10 10) must be three numbers >= 0, the first"),
        (["--shares", 80, "nan", 10], "`--shares` (=80 nan 10) must be"),
        (["--count", 1], "`--count` (=1) must be at least 2."),
        (["--size", 3], "`--size` (=3) must be at least 16."),
    ],
)
def test_options_out_of_range_are_one_line(options, message, microsoft, tmp_path, capsys):
    assert_fails([microsoft, tmp_path / "photos", *options], message, capsys)
    assert not (tmp_path / "photos").exists()


def damaged():
    """A zip in which a photograph's bytes are not those of its checksum."""
    packed = bytearray(zip_of(TRAIN))
    packed[packed.index(PHOTOGRAPHS["cat", "2.jpg"]) + 300] ^= 255
    return bytes(packed)


ONLY_CATS = {name: data for name, data in TRAIN.items() if "cat" in name}
EMPTY_DOGS = {f"train/dog.{i}.jpg": b"" for i in range(3)}
BAD_SOURCES = {
    "page": (b"\n<!DOCTYPE html><html>Sign in</html>", "have accepted its rules"),
    "cut": (zip_of(MICROSOFT)[:-2000], "source.zip is not a complete zip"),
    "cut inside": (zip_of({"train.zip": ZIPS["train.zip"][:-2000]}), "train.zip is not a complete"),
    "damaged": (damaged(), "train/cat.2.jpg cannot be unpacked (Bad CRC-32"),
    "no photographs": (zip_of(SUBMISSION), "no readable photographs of cats and dogs"),
    "only test1": (ZIPS["test1.zip"], "no readable photographs of cats and dogs"),
    "no readable dogs": (zip_of(ONLY_CATS | EMPTY_DOGS), "no readable photographs of dogs"),
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_bad_sources_are_one_line(kind, tmp_path, capsys):
    data, message = BAD_SOURCES[kind]
    (tmp_path / "source.zip").write_bytes(data)
    assert_fails([tmp_path / "source.zip", tmp_path / "photos"], message, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["source.zip"]
    assert_fails([tmp_path / "none.zip", tmp_path / "photos"], "none.zip does not exist", capsys)


def test_names_that_climb_out_stay_inside(tmp_path):
    files = {f"../../{name}": data for name, data in TRAIN.items() if "cat" in name}
    files |= {f"/{name}": data for name, data in TRAIN.items() if "dog" in name}
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/source.zip").write_bytes(zip_of(files))
    assert run(tmp_path / "a/b/source.zip", tmp_path / "a/b/photos") == 0
    assert len(splits(tmp_path / "a/b/photos")) == KEPT
    outside = {name for name in tree(tmp_path) if not name.startswith("a/b/photos/")}
    assert outside == {"a/b/source.zip"}


def test_equal_names_lose_nothing(tmp_path):
    """Also names that differ only in case, of identical images too."""
    files = {f"{folder}/Cat/0.jpg": jpeg(50 + i) for i, folder in enumerate("abcdefgh")}
    files |= {f"{folder}/Cat/0.JPG": jpeg(70 + i) for i, folder in enumerate("abcdefgh")}
    files |= {f"{i}/Cat/{name}": jpeg(90) for i, name in enumerate(["1.jpg", "1.JPG", "1.Jpg"])}
    files |= {"0/Dog/0.jpg": jpeg(91)}
    assert run(write_files(tmp_path / "source", files), tmp_path / "photos") == 0
    rows, written = table(tmp_path / "photos"), tree(tmp_path / "photos")
    assert len({row["destination"].casefold() for row in rows}) == len(rows) == len(files)
    assert set(written) == {row["destination"] for row in rows} | {"separation.csv"}
    assert {row["source"]: written[row["destination"]] for row in rows} == files


@pytest.mark.parametrize("packed", [False, True])
def test_what_macos_adds_is_neither_a_photograph_nor_a_zip(packed, tmp_path):
    added = dict.fromkeys(("__MACOSX/._train.zip", "._train.zip", "Cat/._0.jpg", ".a.jpg"), b"x")
    files = {"train.zip": zip_of(TRAIN)} | added
    source = write_files(tmp_path / "source", {"a.zip": zip_of(files)} if packed else files)
    source = source / "a.zip" if packed else source
    assert run(source, tmp_path / "photos") == 0
    assert len(splits(tmp_path / "photos")) == KEPT
    reasons = {row["source"]: row["reason"] for row in table(tmp_path / "photos")}
    assert {reasons[name] for name in added} == {"not a photograph"}


def test_destinations_in_use_are_left_alone(microsoft, tmp_path, capsys):
    photos, separated = tmp_path / "photos", tmp_path / "separated"
    before = tree(write_files(photos, {"a.txt": b"dear", "separation.csv": b"another,table\n"}))
    assert_fails([microsoft, photos], "which is not from an earlier separation", capsys)
    assert tree(photos) == before
    assert_fails([microsoft, photos / "a.txt"], "a.txt is a file", capsys)
    run(microsoft, separated)
    capsys.readouterr()
    before = tree(write_files(separated, {"train/cats/mine.jpg": b"dear"}))
    assert_fails([microsoft, separated], "holds train/cats/mine.jpg, which is not from", capsys)
    assert tree(separated) == before


@pytest.mark.parametrize(("source", "destination"), [("s", "s"), ("s", "s/new"), ("s/train", "s")])
def test_source_and_destination_must_lie_apart(source, destination, tmp_path, capsys):
    before = tree(write_files(tmp_path / "s", TRAIN))
    assert_fails([tmp_path / source, tmp_path / destination], "must lie apart", capsys)
    assert tree(tmp_path / "s") == before


ARCHIVE = zip_of(MICROSOFT)
ARCHIVE_SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if self.server.ranges else 0
        status = 416 if start >= len(ARCHIVE) else self.server.status
        if status:
            return self.send_error(status)
        self.send_response(206 if self.server.ranges else 200)
        self.send_header("Content-Length", str(len(ARCHIVE) - start))
        self.end_headers()
        self.wfile.write(ARCHIVE[start : start + self.server.cut])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(ranges=True, cut=10**9, status=None):
    """Serve ARCHIVE; drop the connection after `cut` bytes, heed Range or not, or give a status."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.ranges, server.cut, server.status, server.asked = ranges, cut, status, []
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


def not_fetched(reason):
    return pytest.raises(data_separator.SeparationError, match=reason)


def test_download_then_separate(tmp_path, monkeypatch):
    path = tmp_path / "new/pets.zip"
    with serve() as server:
        told = {"url": server.url, "sha256": ARCHIVE_SHA256}
        monkeypatch.setattr(data_separator.download, "__kwdefaults__", told)
        assert run("--download", path, tmp_path / "photos") == 0
        assert run("--download", path, tmp_path / "photos") == 0
        assert len(server.asked) == 1  # what is there is not fetched again
    assert tree(tmp_path / "new") == {"pets.zip": ARCHIVE}
    assert len(splits(tmp_path / "photos")) == KEPT


@pytest.mark.parametrize("kept, ranges", [(1, True), (len(ARCHIVE), True), (1000, False)])
def test_download_resumes_a_part_or_starts_over_without_ranges(kept, ranges, tmp_path):
    (tmp_path / "pets.zip.part").write_bytes(ARCHIVE[:kept])
    with serve(ranges=ranges) as server:
        fetch(server, tmp_path / "pets.zip")
    assert server.asked == [f"bytes={kept}-"]
    assert tree(tmp_path) == {"pets.zip": ARCHIVE}


def test_a_download_that_is_cut_goes_on_when_called_again(tmp_path):
    for come in (5000, 10_000):
        with serve(cut=5000) as server, not_fetched("was cut.*run again to resume"):
            fetch(server, tmp_path / "pets.zip")
        assert tree(tmp_path) == {"pets.zip.part": ARCHIVE[:come]}
    with serve() as server:
        fetch(server, tmp_path / "pets.zip")
    assert server.asked == ["bytes=10000-"] and tree(tmp_path) == {"pets.zip": ARCHIVE}


def test_download_with_a_wrong_sum_is_not_used(tmp_path):
    with serve() as server:
        with not_fetched("has the SHA-256"):
            fetch(server, tmp_path / "pets.zip", sha256="0" * 64)
        assert tree(tmp_path) == {}
        (tmp_path / "pets.zip").write_bytes(b"mine")
        with not_fetched("is not the archive"):
            fetch(server, tmp_path / "pets.zip")
    assert tree(tmp_path) == {"pets.zip": b"mine"}


def test_download_refused_unreachable_or_not_begun(tmp_path, capsys):
    with serve(status=404) as server, not_fetched("cannot be fetched .*404"):
        fetch(server, tmp_path / "pets.zip")
    with not_fetched("cannot be fetched .*refused"):
        fetch(server, tmp_path / "pets.zip")  # the server is gone
    write_files(tmp_path / "photos", {"thesis.txt": b"dear"})
    arguments = ["--download", tmp_path / "pets.zip", tmp_path / "photos"]
    assert_fails(arguments, "holds thesis.txt", capsys)
