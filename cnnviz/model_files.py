"""(keras.Model) <-> a file: written whole or not at all, and no code in it is ever run."""

import contextlib
import os
import re
import zipfile
from pathlib import Path

import keras

HDF5 = b"\x89HDF\r\n\x1a\n"  # the first bytes of such a file
PICKLE = b"\x80"


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Save a model so that the file is there whole or as it was before, whenever this is cut short.

    `keras.Model.save` writes in place: a process that is killed while it does, or a full disk,
    leaves a file that cannot be read, and the one before is gone.

    Args:
        model: keras.Model.
        path: A file that ends in `.keras`; its folder is made if need be. While it is written,
            `<path>.new.keras` stands beside it. A link stays one, and its target is written.

    Raises:
        ValueError: If `path` does not end in `.keras`, or `model` is no keras.Model.
        OSError: If the file cannot be written; `path` is then as it was.
    """
    path = _as_path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` (='{path}') must end in '.keras'")
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` (of type {type(model).__name__}) must be a keras.Model")
    path = Path(os.path.realpath(path))
    unfinished = Path(f"{path}.new.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(
            f"`path` (='{path}') cannot be written, and is as it was: {error.strerror or error}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a whole model from a file, to look into it.

    Args:
        path: A `.keras` file, or an `.h5` file that Keras 3 can read.

    Returns:
        keras.Model, not compiled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds no model, or one that cannot be read without its
            classes or without running code; the message says what to do.
    """
    path = _as_path(path)
    try:
        trouble = _trouble(path)
    except FileNotFoundError:
        raise
    except OSError as error:  # not allowed, or a name that no file can have
        raise type(error)(f"`path` (='{path}') cannot be read: {error.strerror}") from None
    if trouble:
        raise ValueError(f"`path` (='{path}') {trouble}")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly anything on what it cannot read
        reason = _reason(str(error), path.suffix)
        raise ValueError(f"`path` (='{path}') cannot be loaded: {reason}") from error


def _as_path(path):
    try:
        return Path(path)
    except TypeError:
        raise ValueError(f"`path` (={path!r}) must be the path of a file") from None


def _trouble(path):
    """What is wrong with a file, as far as that can be told without Keras; "" if nothing is."""
    if path.is_dir():
        raise FileNotFoundError(
            f"`path` (='{path}') is a folder; keras.layers.TFSMLayer runs a SavedModel, but its "
            "layers cannot be looked into"
        )
    if not path.is_file():
        raise FileNotFoundError(f"`path` (='{path}') is not a file")
    with path.open("rb") as file:
        head = file.read(len(HDF5))
    if head == HDF5:
        return "" if path.suffix == ".h5" else "is an HDF5 file; rename it to end in '.h5'"
    if head.startswith(PICKLE):
        return (
            "is a pickle, which runs code when it is read, so it is not; save the model with "
            "cnnviz.save_model"
        )
    if not zipfile.is_zipfile(path):
        size = path.stat().st_size
        return (
            f"({size} bytes) is not a whole '.keras' file: it is empty, cut off or something else"
        )
    if path.suffix != ".keras":
        return "is a zip; if it is a model, rename it to end in '.keras'"
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            return "is a zip without a model in it"
        try:
            broken = archive.testzip()
        except Exception as error:  # zlib's and zipfile's own
            broken = error
    return f"is damaged, in its '{broken}'" if broken else ""


def _reason(message, suffix):
    if "arbitrary code" in message:
        return (
            "it holds a Lambda layer, whose code would run; that was not done. If you trust the "
            "file, load it with keras.saving.load_model(path, safe_mode=False)"
        )
    unknown = re.search(r"Could not locate (class|function) '(\w+)'", message)
    if unknown:
        return (
            f"its {unknown[1]} '{unknown[2]}' is not known here; import the code that defines it, "
            f"with @keras.saving.register_keras_serializable() above the {unknown[1]}"
        )
    if "No model config" in message:
        return "it holds weights alone; build the model, then model.load_weights(path)"
    first = re.split(r"(?<=[.!]) |\n", message.strip())[0]
    if suffix == ".h5":
        return (
            f"{first} If it was saved by Keras 2, carry the weights over: there (pip install "
            "tf_keras), model.save_weights('carried.weights.h5'); here, build the same layers and "
            "model.load_weights('carried.weights.h5')"
        )
    return first
