"""Model files, sound, damaged and hostile, and a process that is killed while it saves."""

import contextlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import nobody

from cnnviz.layers import class_probabilities
from cnnviz.model_files import load_model, save_model

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")


def small_model(*layers):
    keras.utils.set_random_seed(0)
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Conv2D(4, 3), *head])


PICTURES = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 3)).astype(np.float32)


def saved(path, *layers):
    small_model(*layers).save(path)
    return path


@pytest.mark.case("model files", "right")
@pytest.mark.parametrize("name", ["model.keras", "модель.keras", "new/model.keras"])
def test_a_saved_model_comes_back(name, tmp_path):
    model, path = small_model(), tmp_path / name
    save_model(model, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    for again in (load_model(path), load_model(str(path))):
        assert not again.compiled
        np.testing.assert_array_equal(
            class_probabilities(again, PICTURES), class_probabilities(model, PICTURES)
        )


@pytest.mark.case("model files", "right")
def test_an_h5_file_that_keras_3_can_read_is_read(tmp_path):
    expected = class_probabilities(small_model(), PICTURES)
    found = load_model(saved(tmp_path / "model.h5"))
    np.testing.assert_array_equal(class_probabilities(found, PICTURES), expected)


# what cannot be read


def changed(change):
    """A file whose bytes are changed after saving."""

    def write(folder):
        path = saved(folder / "model.keras")
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


def flipped(data):
    """One byte of the weights."""
    place = data.index(b"\x89HDF") + 3000
    return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]


def of_keras_2(folder):
    """Keras 2 wrote operations on tensors as a layer that Keras 3 does not have."""
    path = saved(folder / "model.h5")
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        operation = {"name": "truediv", "function": "math.truediv", "dtype": "float32"}
        config["config"]["layers"][1] = {"class_name": "TFOpLambda", "config": operation}
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
    return path


def weights_alone(folder):
    small_model().save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


class Unregistered(keras.layers.Layer):
    def call(self, images):
        return images


def zip_of_text(folder):
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    return folder / "model.keras"


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def as_pickle(folder):
    (folder / "model.keras").write_bytes(pickle.dumps(Harmful(folder / "was here")))
    return folder / "model.keras"


def with_lambda(name):
    def write(folder):
        mark = str(folder / "was here")

        # A function with a name would be looked for by it; one without is stored as code.
        harmful = keras.layers.Lambda(lambda images: (open(mark, "w").close(), images * 2)[1])
        path = saved(folder / name, harmful)
        os.remove(mark)
        return path

    return write


def renamed(before, after):
    return lambda folder: shutil.copy(saved(folder / before), folder / after)


def circle(folder):
    (folder / "b.keras").symlink_to(folder / "a.keras")
    (folder / "a.keras").symlink_to(folder / "b.keras")
    return folder / "a.keras"


UNREADABLE = {
    "missing": (lambda folder: folder / "model.keras", "model.keras'. is not a file"),
    "links in a circle": (circle, "a.keras'. is not a file"),
    "folder": (lambda folder: folder, "is a folder; keras.layers.TFSMLayer"),
    "empty": (changed(lambda data: b""), r"\(0 bytes\) is not a whole '.keras' file"),
    "a quarter": (changed(lambda data: data[: len(data) // 4]), "is not a whole '.keras' file"),
    "a half": (changed(lambda data: data[: len(data) // 2]), "is not a whole '.keras' file"),
    "all but two bytes": (changed(lambda data: data[:-2]), "is not a whole|is damaged"),
    "a flipped byte": (changed(flipped), "is damaged, in its 'model.weights.h5'"),
    "HTML": (changed(lambda data: b"<html>404</html>"), "cut off or something else"),
    "a zip of text": (zip_of_text, "is a zip without a model in it"),
    "half an h5": (
        lambda folder: shutil.copy(cut(saved(folder / "model.h5")), folder / "cut.h5"),
        "cannot be loaded: .*truncated",
    ),
    "h5 called .keras": (renamed("model.h5", "m.keras"), "rename it to end in '.h5'"),
    ".keras called h5": (renamed("model.keras", "m.h5"), "rename it to end in '.keras'"),
    "Keras 2": (of_keras_2, "TFOpLambda.*saved by Keras 2, carry the weights over: .*load_weights"),
    "weights alone": (weights_alone, "holds weights alone; build the model"),
    "unknown class": (
        lambda folder: saved(folder / "model.keras", Unregistered()),
        "class 'Unregistered' is not known here; .*register_keras_serializable",
    ),
    "pickle": (as_pickle, "is a pickle, which runs code"),
    "Lambda": (with_lambda("model.keras"), "a Lambda layer, whose code would run; that was not"),
    "Lambda in h5": (with_lambda("model.h5"), "a Lambda layer, whose code would run; that was not"),
}


@pytest.mark.case("model files", "reported")
@pytest.mark.parametrize("function", ["module: os", "module: posix", "module: builtins"])
def test_a_lambda_that_names_a_function_runs_no_code(function, tmp_path):
    """No code in the file, but the name of some."""
    module = function.removeprefix("module: ")
    name = {"os": "system", "posix": "system", "builtins": "exec"}[module]
    path = saved(tmp_path / "model.keras", keras.layers.Rescaling(1.0))
    mark = tmp_path / "was here"
    argument = f"open({str(mark)!r}, 'w')" if name == "exec" else f"touch '{mark}'"
    with zipfile.ZipFile(path) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    config = json.loads(files["config.json"])
    named = {"class_name": "function", "module": module, "config": name, "registered_name": name}
    layer = next(la for la in config["config"]["layers"] if la["class_name"] == "Rescaling")
    layer["class_name"] = "Lambda"
    layer["config"] |= {"function": named, "arguments": {"command": argument}}
    del layer["config"]["scale"], layer["config"]["offset"]
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    with pytest.raises(ValueError, match="cannot be loaded: ") as raised:
        load_model(path)
    assert "\n" not in str(raised.value) and not mark.exists()


@pytest.mark.case("model files", "reported")
@pytest.mark.parametrize("name", [None, 3, b"model.keras"])
def test_what_is_no_path_is_an_error(name):
    with pytest.raises(ValueError, match="`path` .* must be the path of a file"):
        load_model(name)
    with pytest.raises(ValueError, match="`path` .* must be the path of a file"):
        save_model(small_model(), name)


@pytest.mark.case("model files", "reported")
def test_a_model_file_that_may_not_be_read_is_an_error(tmp_path):
    path = saved(tmp_path / "model.keras")
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o011)
    with nobody(), pytest.raises(PermissionError, match="model.keras'. cannot be read: Permission"):
        load_model(path)


@pytest.mark.case("model files", "reported")
def test_a_name_that_no_file_can_have_is_an_error(tmp_path):
    with pytest.raises(OSError, match="cannot be read: File name too long"):
        load_model(tmp_path / ("a" * 300 + ".keras"))
    with pytest.raises(OSError, match="cannot be written, and is as it was: File name too long"):
        save_model(small_model(), tmp_path / ("a" * 300 + ".keras"))


@pytest.mark.case("model files", "reported")
def test_what_is_no_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="`model` .of type str. must be a keras.Model"):
        save_model("model", tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case("model files", "right")
def test_a_link_stays_one_and_its_target_is_written(tmp_path):
    real, link = tmp_path / "disk" / "real.keras", tmp_path / "link.keras"
    model = small_model()
    save_model(model, real)
    link.symlink_to(real)
    model.set_weights([weights + 1 for weights in model.get_weights()])
    save_model(model, link)
    assert link.is_symlink()
    for path in (real, link):
        for one, other in zip(load_model(path).get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.case("model files", "reported")
def test_a_folder_in_the_place_of_the_file_is_left(tmp_path):
    (tmp_path / "model.keras").mkdir()
    with pytest.raises(
        OSError, match="model.keras'. cannot be written, and is as it was: Is a dir"
    ):
        save_model(small_model(), tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def cut(path):
    path.write_bytes(path.read_bytes()[:3000])
    return path


@pytest.mark.case("model files", "reported")
@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_an_error_and_runs_no_code(kind, tmp_path):
    write, message = UNREADABLE[kind]
    path = write(tmp_path)
    error = FileNotFoundError if kind in ("missing", "folder", "links in a circle") else ValueError
    with pytest.raises(error, match=message) as raised:
        load_model(path)
    assert str(raised.value).startswith(f"`path` (='{path}')")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "was here").exists()


def test_the_planted_code_would_run_if_it_were_let(tmp_path):
    """So that the test above can fail."""
    pickle.loads(as_pickle(tmp_path).read_bytes())
    assert (tmp_path / "was here").exists()
    path = with_lambda("model.keras")(tmp_path)
    keras.saving.load_model(path, safe_mode=False)
    assert (tmp_path / "was here").exists()


# what cannot be written


@pytest.mark.case("model files", "reported")
@pytest.mark.parametrize("name", ["model.h5", "model", "model.keras.zip"])
def test_another_ending_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="must end in '.keras'"):
        save_model(small_model(), tmp_path / name)


@pytest.mark.case("model files", "reported")
@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_a_full_disk_leaves_the_file_before(share, tmp_path):
    """The largest size that a file may have stands for the disk."""
    path = tmp_path / "model.keras"
    save_model(small_model(), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(before)), limits[1]))
    try:
        with pytest.raises(OSError, match="model.keras'. cannot be written, and is as it was"):
            save_model(small_model(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


# In a process of its own, since the child of a process with other threads could wait forever.
KILLED_WHILE_SAVING = """
import os, random, signal, sys, time
import cnnviz, keras, numpy as np

def lost(save, path, rounds=20):
    model = keras.Sequential([keras.Input((4, 4, 256)), keras.layers.Conv2D(512, 3)])
    set_to(model, 0)
    save(model, path)
    seconds, bad = time_of(save, model, path), 0
    for number in range(1, rounds + 1):
        set_to(model, number)
        child = os.fork()
        if not child:
            while True:
                save(model, path)
        time.sleep(random.Random(number).uniform(0, 2 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        bad += not is_whole(path, (number - 1, number))
        save(model, path)
    return bad

def set_to(model, number):
    model.set_weights([np.full(w.shape, number, np.float32) for w in model.get_weights()])

def time_of(save, model, path):
    start = time.perf_counter()
    save(model, path)
    return time.perf_counter() - start

def is_whole(path, numbers):
    try:
        weights = keras.saving.load_model(path, compile=False).get_weights()
    except Exception:
        return False
    values = set(np.concatenate([w.ravel() for w in weights]).tolist())
    return len(values) == 1 and values <= set(numbers)

def in_place(model, path):
    model.save(path)

print(lost(cnnviz.save_model, "whole.keras"), lost(in_place, "in_place.keras"))
"""


@pytest.mark.case("model files", "right")
def test_killed_while_saving_twenty_times_nothing_is_lost(tmp_path):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lost, lost_in_place = map(int, done.stdout.split()[-2:])
    assert lost == 0
    assert lost_in_place > 0  # so the kills did come while a file was written
