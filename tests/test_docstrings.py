"""The examples in the public docstrings run and print what they say."""

import doctest
import inspect

import keras
import matplotlib
import numpy as np
import pytest

import cnnviz
from cnnviz import layers, model

PUBLIC = {name: getattr(cnnviz, name) for name in cnnviz.__all__}
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
# Names that few people need live in their modules.
OWN = {
    f"{module.__name__}.{name}": value
    for module in (layers, model)
    for name, value in vars(module).items()
    if callable(value) and not name.startswith("_") and (value.__doc__ or "").count(">>>")
}


def examples(value, name):
    return [found for found in doctest.DocTestFinder(recurse=False).find(value, name, globs={})
            if found.examples]  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert examples(PUBLIC[name], name)


@pytest.mark.parametrize("name", [*PUBLIC, *OWN])
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for those that write files
    value = {**PUBLIC, **OWN}[name]
    if not callable(value):
        pytest.skip("has no docstring of its own")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with matplotlib.rc_context({"backend": "agg"}):
        for example in examples(value, name):
            runner.run(example)
    assert runner.failures == 0
