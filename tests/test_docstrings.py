"""The examples in the docstrings of public functions run, and print what they say."""

import doctest
import inspect

import pytest

import cnnviz
from cnnviz import figures, layers, model

PUBLIC = {name: getattr(cnnviz, name) for name in cnnviz.__all__}
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
IN_MODULES = {  # names that few people need
    f"{module.__name__}.{name}": value
    for module in (figures, layers, model)
    for name, value in vars(module).items()
    if getattr(value, "__module__", "").startswith("cnnviz.") and ">>>" in (value.__doc__ or "")
}


def examples_of(value, name):
    found = doctest.DocTestFinder(recurse=False).find(value, name, globs={})
    return [one for one in found if one.examples]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert examples_of(PUBLIC[name], name)


@pytest.mark.parametrize("name", [name for name in {**PUBLIC, **IN_MODULES} if name != "figures"])
def test_the_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for those that write files
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in examples_of({**PUBLIC, **IN_MODULES}[name], name):
        runner.run(example)
    assert not runner.failures
