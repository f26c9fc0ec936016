"""The separator under faults: after each, a second run makes what an undisturbed one makes."""

import contextlib
import hashlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import nobody
from test_data_separator import (
    KEPT,
    MICROSOFT,
    SCRIPT,
    assert_fails,
    data_separator,
    no_leftovers,
    run,
    splits,
    tree,
    write_files,
    zip_of,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(source, the tree that an undisturbed run makes of it, the source's SHA-256)."""
    folder = tmp_path_factory.mktemp("whole")
    source = folder / "source.zip"
    source.write_bytes(zip_of({"train.zip": zip_of(MICROSOFT)}))
    assert run(source, folder / "photos") == 0
    return source, tree(folder / "photos"), hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.fixture
def earlier(whole, tmp_path, capsys):
    """The folder `photos` with a smaller separation, which no fault may harm."""
    run(whole[0], tmp_path / "photos", "--count", 20)
    capsys.readouterr()
    return tmp_path / "photos"


def assert_a_second_run_makes_the_whole(whole, photos):
    source, expected, sha256 = whole
    assert run(source, photos) == 0
    assert tree(photos) == expected
    assert no_leftovers(photos.parent)
    assert hashlib.sha256(source.read_bytes()).hexdigest() == sha256


def test_killed_while_it_writes(whole, earlier):
    before = tree(earlier)
    process = subprocess.Popen([sys.executable, SCRIPT, whole[0], earlier])
    working = earlier.with_name(".photos.unfinished-separation")
    started = time.monotonic()
    while not list(working.rglob("*.jpg")) and time.monotonic() < started + 120:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert working.exists() and tree(earlier) == before
    assert_a_second_run_makes_the_whole(whole, earlier)


def test_killed_between_the_renames_the_earlier_separation_comes_back(whole, earlier, capsys):
    before = tree(earlier)
    earlier.rename(earlier.with_name(".photos.replaced-separation"))
    write_files(earlier.with_name(".photos.unfinished-separation"), before)
    bad = earlier.with_name("bad.zip")
    bad.write_bytes(b"no zip")
    assert_fails([bad, earlier], "not a complete zip", capsys)
    assert tree(earlier) == before
    assert_a_second_run_makes_the_whole(whole, earlier)


@pytest.mark.parametrize("step", ["examine", "write_table"])
def test_ctrl_c_leaves_an_earlier_separation(step, whole, earlier, capsys, monkeypatch):
    before = tree(earlier.parent)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(data_separator, step, interrupt)
        assert run(whole[0], earlier) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert tree(earlier.parent) == before
    assert_a_second_run_makes_the_whole(whole, earlier)


@contextlib.contextmanager
def largest_file(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_full_leaves_an_earlier_separation(whole, earlier, capsys):
    before = tree(earlier.parent)
    sizes = sorted(len(data) for data in whole[1].values())
    with largest_file(sizes[len(sizes) // 2]):  # some photographs are written
        assert_fails([whole[0], earlier], "File too large", capsys)
    assert tree(earlier.parent) == before
    assert_a_second_run_makes_the_whole(whole, earlier)


@pytest.fixture
def open_folder():
    """A folder that everybody may write into, below none that they may not enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["PetImages/Cat/3.jpg", "PetImages/Dog"])
def test_a_file_or_folder_that_may_not_be_read(name, open_folder, capsys):
    source = write_files(open_folder / "source", MICROSOFT)
    (source / name).chmod(0)
    with nobody():
        assert_fails([source, open_folder / "photos"], name, capsys)
    (source / name).chmod(0o755)
    assert [path.name for path in open_folder.iterdir()] == ["source"]


def test_links_are_followed_and_those_to_nothing_are_named(tmp_path, capsys):
    real, source = write_files(tmp_path / "elsewhere", MICROSOFT), tmp_path / "source"
    source.mkdir()
    (source / "PetImages").symlink_to(real / "PetImages")
    assert run(source, tmp_path / "photos") == 0
    assert len(splits(tmp_path / "photos")) == KEPT
    capsys.readouterr()
    (source / "cat.900.jpg").symlink_to(tmp_path / "nothing")
    assert_fails([source, tmp_path / "photos"], "cat.900.jpg", capsys)
