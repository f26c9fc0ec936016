"""The examples in the docstrings of public functions run, and print what they say."""

import doctest
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnviz
from cnnviz import data, diagnosis, figures, layers, model, targets
from cnnviz.drawn_pets import write_drawn_pets

PUBLIC = {name: getattr(cnnviz, name) for name in cnnviz.__all__}
IN_MODULES = {  # names that few people need
    name: value
    for module in (figures, layers, model, targets, diagnosis)
    for name, value in vars(module).items()
    if getattr(value, "__module__", "").startswith("cnnviz.") and ">>>" in (value.__doc__ or "")
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(folder, names): the files and names that the examples use without making them."""
    folder = tmp_path_factory.mktemp("examples")
    write_drawn_pets(folder / "photos", train=8, validation=8, test=2, image_size=32)
    next((folder / "photos/train/cats").iterdir()).rename(folder / "cat.jpg")
    small = cnnviz.build_model(width=2)
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)]).save(
        folder / "yours.keras"
    )
    options = {"image_size": 32, "batch_size": 4}
    splits = {
        name: data.load_split(folder / "photos" / name, **options)
        for name in ("train", "validation")
    }
    return folder, {
        **IN_MODULES,
        "cnnviz": cnnviz,
        "keras": keras,
        "np": np,
        "tf": tf,
        **splits,
        "model": small,
    }


@pytest.mark.parametrize("name", [name for name in PUBLIC if inspect.isfunction(PUBLIC[name])])
def test_every_public_function_has_an_example(name):
    assert ">>>" in PUBLIC[name].__doc__


@pytest.mark.parametrize("name", [n for n in {**PUBLIC, **IN_MODULES} if n != "figures"])
def test_the_examples_run(name, prepared, monkeypatch):
    folder, names = prepared
    monkeypatch.chdir(folder)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    finder = doctest.DocTestFinder(recurse=False)
    for example in finder.find({**PUBLIC, **IN_MODULES}[name], name, globs=names):
        runner.run(example)
    assert not runner.failures
