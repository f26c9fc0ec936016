"""Model files of any origin: made readable here, or why not and the remedy, in two lines."""

import json
import re
import shutil
import zipfile

import h5py
import keras

# The first version whose `safe_mode` is not known to run code that a model file holds. Before 3.9:
# CVE-2025-1550; before 3.11.0: CVE-2025-8747, CVE-2025-9906; before 3.11.3: CVE-2025-9905 (.h5),
# CVE-2025-49655; before 3.13.2: CVE-2026-1462. (3.12.1 has the last fix too.)
SAFE_KERAS = "3.13.2"
# Settings that newer versions of Keras write although they are None, and older ones reject.
NEW_SETTINGS = ("input_axes", "output_axes", "quantization_config")
# Settings that Keras 2 wrote although they had no effect, and Keras 3 rejects.
OLD_SETTINGS = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
}
AGAIN = "Copy or download it again"


def checked_suffix(path, trusted):
    """The suffix that Keras wants for the content of a model file: ".keras" or ".h5"."""
    if not trusted and _version(keras.__version__) < _version(SAFE_KERAS):
        what = f"was not loaded: Keras {keras.__version__} runs code that a malicious file may hold"
        upgrade = f"pip install 'keras>={SAFE_KERAS}'"
        raise problem(path, what, f"{upgrade}, or pass trusted=True if you trust the file")
    if path.is_dir():
        convert = f"tf_keras.models.load_model({str(path)!r}).save('model.h5')"
        raise problem(path, "is a folder", f"Convert a SavedModel by tf_keras: {convert}")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        try:
            with h5py.File(path) as file:
                if "model_config" in file.attrs:
                    return ".h5"
        except OSError:
            raise problem(path, "is damaged", AGAIN) from None
        load = f"model.load_weights({str(path)!r})"
        raise problem(path, "holds weights but no model", f"Build the model, then {load}")
    if not zipfile.is_zipfile(path):
        what = f"is no complete Keras model: {path.stat().st_size} bytes that begin {head[:20]}"
        save = "save the model by model.save('model.keras'); `git lfs pull` fetches from Git LFS"
        raise problem(path, what, f"{AGAIN}, or {save}")
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            inside = ", ".join(archive.namelist()[:3])
            raise problem(path, f"is a zip of {inside}", "Unzip it and load the model file in it")
        if damaged := archive.testzip():
            raise problem(path, f"is damaged in its '{damaged}'", AGAIN)
    return ".keras"


def copy_readable(path, target):
    """Copy a model file so that every supported Keras can read it -> version that wrote it."""
    if target.suffix == ".keras":
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as copy:
            version = json.loads(source.read("metadata.json"))["keras_version"]
            copy.writestr("config.json", _readable(source.read("config.json"), version))
            for name in (name for name in source.namelist() if name != "config.json"):
                copy.writestr(name, source.read(name))
        return version
    shutil.copyfile(path, target)
    with h5py.File(target, "r+") as file:
        version = file.attrs["keras_version"]
        version = version.decode() if isinstance(version, bytes) else version
        file.attrs["model_config"] = _readable(file.attrs["model_config"], version)
        return version


def _readable(config, version):
    def change(node):  # each object in the configuration, innermost first
        for name in NEW_SETTINGS:
            if node.get(name, 0) is None:
                del node[name]
        if version.startswith("2.") and "class_name" in node and isinstance(node["config"], dict):
            _translate(node["class_name"], node["config"], node)
        return node

    return json.dumps(json.loads(config, object_hook=change))


def _translate(kind, settings, node):
    """Change the configuration of one object from Keras 2 to Keras 3."""
    for name in OLD_SETTINGS.get(kind, ()):
        settings.pop(name, None)
    shape = settings.pop("batch_input_shape", None)
    if kind == "InputLayer" and shape:
        settings["batch_shape"] = shape
    elif kind == "BatchNormalization" and isinstance(settings["axis"], list):
        (settings["axis"],) = settings["axis"]
    elif kind in ("Functional", "Model"):
        if "module" in node:
            node["module"] = "keras.src.models.functional"
        for ends in ("input_layers", "output_layers"):
            if len(settings[ends]) == 1:  # a tensor, not a list of one
                (settings[ends],) = settings[ends]
    if isinstance(settings.get("dtype"), dict):  # of mixed precision
        settings["dtype"] = settings["dtype"]["config"]["name"]


def explanation(path, written_by, error):
    """The error to raise instead of the one that Keras raised while it loaded a file."""
    plain = re.sub(r"\x1b\[\d+m", "", str(error))
    reason = re.split(r"Exception encountered(?:: | when calling .*\s+)", plain)[-1].strip()
    reason = re.split(r"(?<=[.!]) |\n", reason)[0][:300].rstrip(".")
    name = re.search(r"(?:class|function|layer:) '(\w+)'", reason)
    load = f"load_model({str(path)!r}"
    if "arbitrary code" in plain:
        reason = "its Lambda layer holds code, which would run"
        remedy = f"If you trust the file: cnnviz.{load}, trusted=True)"
    elif _version(written_by) > _version(keras.__version__):
        remedy = f"pip install 'keras>={written_by}'"
    elif name and "OpLambda" not in name[1]:  # that is how Keras 2 wrote images / 255
        scope = f"keras.saving.custom_object_scope({{{name[1]!r}: {name[1]}}})"
        remedy = f"Import {name[1]}, then: with {scope}: cnnviz.{load})"
    else:
        remedy = f"Build the same layers here, then model.load_weights({str(path)!r})"
    what = f"is a model of Keras {written_by} that Keras {keras.__version__} cannot load: {reason}"
    return problem(path, what, remedy)


def problem(path, what, remedy):
    return ValueError(f"`path` (='{path}') {what}.\n{remedy}.")


def _version(text):
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
