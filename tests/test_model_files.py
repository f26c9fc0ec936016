"""Model files: sound, old, damaged and malicious ones, and what interrupts saving."""

import json
import pickle
import re
import resource
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from cnnviz import model_files
from cnnviz.model import load_model, save_model

L = keras.layers
OLD_KERAS = model_files._version(keras.__version__) < model_files._version("3.13.2")
safe_keras = pytest.mark.skipif(OLD_KERAS, reason="older versions of Keras need trusted=True")
IMAGES = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 3)).astype(np.float32)
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")


@pytest.fixture(autouse=True)
def taken_for_safe(monkeypatch):
    """As on the newest Keras, but for the tests of what is not run."""
    monkeypatch.setattr(model_files, "SAFE_KERAS", "3.8")


def small_model(*layers):
    keras.utils.set_random_seed(0)
    head = [L.GlobalAveragePooling2D(name="pooling"), L.Dense(2, name="dense")]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, L.Conv2D(4, 3, name="conv"), *head])


def saved(path, *layers):
    small_model(*layers).save(path)
    return path


def edited(path, change, version):
    """Apply `change(kind, settings, node)` to each object in the configuration of a model file.

    `version` is that of the Keras which is said to have written it.
    """

    def hook(node):
        if isinstance(node.get("config"), dict) and "class_name" in node:
            change(node["class_name"], node["config"], node)
        return node

    def edit(config):
        return json.dumps(json.loads(config, object_hook=hook)).encode()

    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = edit(file.attrs["model_config"])
            file.attrs["keras_version"] = version.encode()
        return path
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["config.json"] = edit(files["config.json"])
    files["metadata.json"] = json.dumps({"keras_version": version})
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["модель.keras", "new/model.keras"])
def test_a_saved_model_comes_back(name, tmp_path):
    model, path = small_model(), tmp_path / name
    save_model(model, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    for again in (load_model(path), load_model(str(path))):
        assert not again.compiled
        np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert not re.search("|".join(model_files.NEW_SETTINGS), config)  # which older versions reject


def new_settings(kind, settings, node):
    if kind == "GlorotUniform":
        settings |= {"input_axes": None, "output_axes": None}
    if kind == "Dense":
        settings |= {"quantization_config": None}


def keras_2(kind, settings, node):
    """What real files of Keras 2.4 to 2.15 hold, and Keras 3 rejects."""
    if kind == "InputLayer":
        settings["batch_input_shape"] = settings.pop("batch_shape")
    elif kind == "DepthwiseConv2D":
        settings |= {"groups": 1, "batch_input_shape": [None, 8, 8, 3]}
    elif kind == "SeparableConv2D":
        settings |= {"groups": 1, "kernel_initializer": None, "kernel_regularizer": None}
    elif kind == "BatchNormalization":
        settings["axis"] = [settings["axis"]]
    elif kind == "Dense":
        settings["dtype"] = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    elif kind == "Functional":
        node["module"] = "keras.src.engine.functional"
        for ends in ("input_layers", "output_layers"):
            settings[ends] = [settings[ends]]


def old_model():
    """Two nested models, as Teachable Machine makes them."""
    keras.utils.set_random_seed(0)
    images = features = keras.Input((8, 8, 3))
    layers = [L.DepthwiseConv2D(3), L.BatchNormalization(), L.SeparableConv2D(4, 3)]
    for layer in layers:
        features = layer(features)
    body = keras.Sequential([keras.Model(images, features), L.GlobalAveragePooling2D()])
    return keras.Sequential([keras.Input((8, 8, 3)), body, keras.Sequential([L.Dense(2)])])


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("change, version", [(keras_2, "2.4.0"), (new_settings, "9.0.0")])
def test_files_of_other_versions_are_loaded(change, version, suffix, tmp_path):
    model = old_model()
    path = tmp_path / f"keras_model{suffix}"
    model.save(path)
    edited(path, change, version)
    tolerance = 2e-3 if change is keras_2 else 0  # its dense layer computes in float16
    np.testing.assert_allclose(load_model(path)(IMAGES), model(IMAGES), atol=tolerance)


@pytest.mark.parametrize("before, after", [("model.h5", "m.keras"), ("model.keras", "m.hdf5")])
def test_the_content_counts_and_not_the_suffix(before, after, tmp_path):
    path = shutil.copy(saved(tmp_path / before), tmp_path / after)
    np.testing.assert_array_equal(load_model(path)(IMAGES), small_model()(IMAGES))


def in_file(data, name="model.keras"):
    """A function of a folder that writes a file of these bytes there and returns its path."""
    return lambda folder: ((folder / name).write_bytes(data), folder / name)[1]


def changed(change, name="model.keras"):
    """The same for a model file whose bytes are changed after saving."""
    return lambda folder: in_file(change(saved(folder / name).read_bytes()), name)(folder)


def flipped(data):
    """One byte of the weights."""
    place = data.index(b"\x89HDF") + 3000
    return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]


def as_zip(folder):
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        for name in ("model.h5", "a.txt"):
            archive.writestr(name, "content")
    return folder / "model.keras"


def operation_of_keras_2(suffix):
    """`images / 255` in a model of Keras 2."""

    def change(kind, settings, node):
        if kind == "Rescaling":
            node |= {"class_name": "TFOpLambda", "module": "keras.src.layers.core.tf_op_layer"}
            node["config"] = {"name": "truediv", "function": "math.truediv"}

    return lambda folder: edited(saved(folder / f"model{suffix}", L.Rescaling(1)), change, "2.15.0")


def of_a_newer_keras(folder):
    def change(kind, settings, node):
        settings |= {"new_setting": 1} if kind == "Dense" else {}

    return edited(saved(folder / "model.keras"), change, "9.1.0")


class Unregistered(keras.layers.Layer):
    def call(self, images):
        return images


Unregistered.__module__ = "elsewhere"  # as in the file of a stranger


def as_pickle(folder):
    class Harmful:  # makes a file when it is unpickled
        def __reduce__(self):
            return Path.touch, (folder / "was here",)

    return in_file(pickle.dumps(Harmful()))(folder)


def weights_alone(folder):
    small_model().save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


CLASS = r"'Unregistered'.*\nImport Unregistered, then: with keras.saving.custom_object_scope"
OPERATION = r"of Keras 2.15.0 that Keras \S+ cannot load: .*'TFOpLambda'.*\nBuild the same layers"
REJECTED = {
    "folder": (lambda folder: folder, r"is a folder.\nConvert a SavedModel by tf_keras"),
    "empty": (
        in_file(b""),
        "is no complete Keras model: 0 bytes .*\nCopy or download it again, or save",
    ),
    "half": (changed(lambda data: data[: len(data) // 2]), "is no complete .* begin b'PK"),
    "all but two bytes": (changed(lambda data: data[:-2]), "is no complete|is damaged"),
    "a flipped byte": (changed(flipped), "is damaged in its 'model.weights.h5'.\nCopy"),
    "half an h5": (changed(lambda data: data[:3000], "m.h5"), "is damaged.\nCopy"),
    "Git LFS": (in_file(b"version https://git-lfs.github"), "begin b'version.*\n.* `git lfs pull`"),
    "pickle": (as_pickle, "is no complete Keras model"),
    "zip": (as_zip, "is a zip of model.h5, a.txt.\nUnzip"),
    "weights alone": (weights_alone, r"holds weights but no model.\nBuild the model, then model"),
    "operation of Keras 2": (operation_of_keras_2(".keras"), OPERATION),
    "operation in h5": (operation_of_keras_2(".h5"), OPERATION),
    "newer Keras": (of_a_newer_keras, r"of Keras 9.1.0 .*new_.*\npip install 'keras>=9.1.0'"),
    "class": (lambda folder: saved(folder / "model.keras", Unregistered()), CLASS),
    "class in h5": (lambda folder: saved(folder / "model.h5", Unregistered()), CLASS),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_what_cannot_be_loaded_is_an_error_of_two_lines(kind, tmp_path):
    write, message = REJECTED[kind]
    path = write(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        load_model(path)
    assert str(raised.value).startswith(f"`path` (='{path}')")
    assert str(raised.value).count("\n") == 1 and len(str(raised.value)) < 700 + 3 * len(str(path))
    assert not (tmp_path / "was here").exists()
    with pytest.raises(FileNotFoundError, match="missing.keras"):
        load_model(tmp_path / "missing.keras")


def remedy(path):
    with pytest.raises(ValueError) as raised:
        load_model(path)
    return str(raised.value).splitlines()[1]


@pytest.mark.parametrize("kind", ["class", "class in h5"])
def test_the_remedy_for_a_class_works_as_it_stands(kind, tmp_path):
    path = REJECTED[kind][0](tmp_path)
    code = remedy(path).removeprefix("Import Unregistered, then: ").rstrip(".")
    names = {"keras": keras, "Unregistered": Unregistered, "load_model": load_model}
    exec(code.replace("cnnviz.load_model", "loaded = load_model"), names)
    np.testing.assert_array_equal(names["loaded"](IMAGES), small_model()(IMAGES))


@pytest.mark.parametrize("kind", ["weights alone", "operation of Keras 2", "operation in h5"])
def test_the_remedy_by_weights_works_as_it_stands(kind, tmp_path):
    path = REJECTED[kind][0](tmp_path)
    model = small_model() if kind == "weights alone" else small_model(L.Rescaling(1))
    expected = model(IMAGES).numpy()
    model.set_weights([weights * 0 for weights in model.get_weights()])
    exec(re.search(r"model\.load_weights\(.*\)", remedy(path))[0], {"model": model})
    np.testing.assert_array_equal(model(IMAGES), expected)


@safe_keras
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_code_in_a_file_runs_only_if_the_file_is_trusted(name, tmp_path):
    mark = tmp_path / "was here"
    file = str(mark)
    # A function with a name would be looked up by it; one without is stored as code.
    harmful = L.Lambda(lambda images: (open(file, "w").close(), images * 2)[1])
    path = saved(tmp_path / name, harmful)
    mark.unlink()
    with pytest.raises(ValueError, match="Lambda .*code.*\nIf you trust .*trusted=True"):
        load_model(path)
    assert not mark.exists()
    expected = small_model()(2 * IMAGES)
    np.testing.assert_allclose(load_model(path, trusted=True)(IMAGES), expected, rtol=1e-5)
    assert mark.exists()


def test_an_older_keras_loads_only_trusted_files(monkeypatch, tmp_path):
    monkeypatch.setattr(model_files, "SAFE_KERAS", "99.0.1")
    path = saved(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"runs code .*\npip install 'keras>=99.0.1'.*trusted="):
        load_model(path)
    np.testing.assert_array_equal(load_model(path, trusted=True)(IMAGES), small_model()(IMAGES))


def test_what_cannot_be_saved_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="must end in '.keras'"):
        save_model(small_model(), tmp_path / "model.h5")
    with pytest.raises(OSError, match="File name too long"):
        save_model(small_model(), tmp_path / ("a" * 300 + ".keras"))
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        save_model(small_model(), tmp_path / "folder.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.keras"]


def test_a_link_stays_one_and_its_target_is_written(tmp_path):
    real, link = tmp_path / "disk" / "real.keras", tmp_path / "link.keras"
    link.symlink_to(real)
    save_model(small_model(), link)
    assert link.is_symlink()
    np.testing.assert_array_equal(load_model(real)(IMAGES), small_model()(IMAGES))


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_full_disk_leaves_the_file_before(share, tmp_path):
    """The largest size that a file may have stands for the disk."""
    path = tmp_path / "model.keras"
    save_model(small_model(), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(before)), limits[1]))
    try:
        with pytest.raises(OSError, match="model.keras|File too large"):
            save_model(small_model(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
