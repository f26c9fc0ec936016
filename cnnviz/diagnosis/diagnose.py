"""Run every check of a model and its data in one call, and rank what is found."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers
from cnnviz.data import is_image_name, load_files
from cnnviz.diagnosis.findings import SEVERITIES, Check, Diagnosis
from cnnviz.diagnosis.questions import QUESTIONS, Case, measured
from cnnviz.progress import progress_bar

CAUSES = ("fault", "nan"), ("fault", "dead filters")


def diagnose(
    model: keras.Model,
    validation: layers.LabeledData | str | os.PathLike[str],
    *,
    train: layers.LabeledData | str | os.PathLike[str] | None = None,
    test: layers.LabeledData | str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    paths: Sequence[str] = (),
    value_range: tuple[float, float] = (0, 255),
) -> Diagnosis:
    """Run every check of a classifier and its data, and rank what is found.

    If a split comes in a form that the model was not trained on, this is a finding, and the checks
    after it use the repaired data.

    Args:
        model: keras.Model, a trained classifier of any kind; it is left as it was.
        validation: Data that the model was not trained on: a dataset of batches (images, labels),
            read several times, a pair of arrays, or a folder with one folder for each class. Load
            datasets with shuffle=False, so that findings name images by their indices.
        train: Its training data, in one of these forms, to find overfitting and leakage.
        test: Test data, best from another source, where a shortcut shows.
        class_names: The names of the classes, by index. None takes those of a dataset or a folder.
        paths: The files of `validation`, in order; else its `file_paths`.
        value_range: The lowest and highest pixel value of the model; folders are scaled to it.

    Returns:
        Diagnosis: `.findings`, ranked, and `.checks`. It displays itself in Jupyter;
        `.save("report.html")` writes a page.

    Raises:
        ValueError: If the model is no classifier, or the data do not fit it.

    Example:
        >>> pets, model = cnnviz.drawn_pets(20), cnnviz.load_pretrained()
        >>> cnnviz.diagnose(model, (pets.images, pets.labels)).faults
        ()
    """
    given = {"validation": validation, "train": train, "test": test}
    given = {name: data for name, data in given.items() if data is not None}
    names, splits, checks = class_names, {}, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the findings say it
        for name, data in given.items():
            if isinstance(data, (str, os.PathLike)):
                data, names = _read_folder(model, name, data, names, value_range)
            names = names or getattr(data, "class_names", None)
            files = (paths if name == "validation" else ()) or getattr(data, "file_paths", ())
            splits[name] = measured(model, name, data, files)
        case = Case(model, splits, tuple(names or ()))
        with progress_bar(len(QUESTIONS), "diagnosis", "check") as bar:
            for name, (ask, limits) in QUESTIONS.items():
                started, ran = time.perf_counter(), True
                try:
                    result = ask(case)
                except Exception as error:  # one check must not end the others
                    reason = " ".join(str(error).split()) or type(error).__name__
                    result, ran = f"could not run: {reason}", False
                checks.append(Check(name, result, limits, ran, time.perf_counter() - started))
                bar.update()
    findings = case.findings
    findings.sort(key=lambda one: (SEVERITIES.index(one.severity), -(one.cost or 0)))
    # First what is the cause of whatever else is found.
    findings.sort(key=lambda one: (one.severity, one.kind) not in CAUSES)
    counts = {name: len(split.labels) for name, split in splits.items()}
    return Diagnosis(tuple(findings), tuple(checks), model.name, counts)


def _read_folder(model, name, folder, class_names, value_range):
    """A folder with one folder of images for each class -> (dataset, names of the classes)."""
    folders = sorted(path.name for path in Path(folder).glob("*") if path.is_dir())
    names = list(class_names or folders)
    if not set(folders) <= set(names):
        given = f"`{name}` (='{folder}' with folders {', '.join(folders)})"
        raise ValueError(f"{given} must have folders named as the classes: {', '.join(names)}")
    files = [[p for p in sorted(Path(folder, n).glob("*")) if is_image_name(p.name)] for n in names]
    if not any(files):
        raise ValueError(f"`{name}` (='{folder}') must hold one folder of images for each class")
    labels = np.repeat(np.arange(len(names), dtype=np.int32), list(map(len, files)))
    (*size, channels), (low, high) = layers.image_shape(model), value_range
    read = load_files([str(path) for each in files for path in each], labels, size)

    def scaled(images, labels):
        images = tf.image.rgb_to_grayscale(images) if channels == 1 else images
        return low + images / 255 * (high - low), labels

    data = read.map(scaled)
    data.file_paths = read.file_paths
    return data, names
