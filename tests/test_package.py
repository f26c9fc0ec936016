"""The package: what people install is whole, works away from the source, and is typed."""

import dataclasses
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import typing
import zipfile
from pathlib import Path

import pytest

import cnnviz
from cnnviz import diagnosis, figures

ROOT = Path(__file__).parents[1]
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in (
        (cnnviz, cnnviz.__all__),
        (diagnosis, diagnosis.__all__),
        (figures, [name for name in vars(figures) if name.startswith("draw_")]),
    )
    for name in names
    if callable(getattr(module, name))
}


def methods(kind):
    """What a person calls of a class: its functions and properties that are written in it."""
    for name, member in vars(kind).items():
        member = member.fget if isinstance(member, property) else member
        written = inspect.isfunction(member) and member.__qualname__ == f"{kind.__name__}.{name}"
        if written and (not name.startswith("_") or name == "__str__"):
            yield f"{kind.__name__}.{name}", member


def unannotated(name, function):
    """Names of the arguments, and "return", that a function leaves without a type."""
    signature = inspect.signature(function)
    left_out = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is inspect.Parameter.empty and parameter.name != "self"
    ]
    if signature.return_annotation is inspect.Signature.empty:
        left_out.append("return")
    return [f"{name}: {each}" for each in left_out]


def test_functions_without_types_are_noticed():
    def function(one: int, two, *, three=3):
        pass

    assert unannotated("f", function) == ["f: two", "f: three", "f: return"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_fully_annotated(name):
    public = PUBLIC[name]
    if not inspect.isclass(public):
        assert unannotated(name, public) == []
        return
    assert dataclasses.is_dataclass(public)
    for field in dataclasses.fields(public):
        assert field.type not in (tuple, list, dict, "tuple", "list", "dict"), field.name
    assert [each for method in methods(public) for each in unannotated(*method)] == []


def test_fixed_words_are_those_that_are_taken():
    from cnnviz.grad_cam import METHODS, Method

    assert typing.get_args(Method) == tuple(METHODS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The unpacked wheel, built without a network from nothing but what a wheel needs."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / "cnnviz", source / "cnnviz", ignore=hidden)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", built, source]
    subprocess.run(command, check=True)
    (file,) = built.glob("cnnviz-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(built / "unpacked")
    return built / "unpacked"


def test_wheel_holds_every_module_the_weights_the_mark_of_types_and_the_license(wheel):
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cnnviz").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__" and path.name[0] != "."
    }
    held = {str(path.relative_to(wheel)) for path in (wheel / "cnnviz").rglob("*")}
    assert source <= held
    assert {"cnnviz/py.typed", "cnnviz/weights/cats_vs_dogs.keras"} <= source
    assert [path.read_text() for path in wheel.rglob("LICENSE")] == [(ROOT / "LICENSE").read_text()]


def test_the_examples_of_the_readme_run_as_they_stand(tmp_path, monkeypatch, capsys):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    cnnviz.write_drawn_pets("photos", train=2, validation=20, test=2)
    names = {}
    for example in examples:
        exec(example, names)
    assert len(examples) == 2 and names["layer"] == "block2_conv1"
    assert names["activations"]["block1_conv1"].shape == (1, 80, 80, 24)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "activations.png", "filters.png", "evidence.png",
    }  # fmt: skip
    assert capsys.readouterr().out.count("for its label: ") == 10


def test_citation_and_changelog_are_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert version in (ROOT / "CHANGELOG.md").read_text()


def test_wheel_works_in_an_empty_folder_without_the_source(wheel, tmp_path):
    script = f"""
import sys
sys.path[:] = [place for place in sys.path if place not in ("", {str(ROOT)!r})]
sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
import cnnviz, cnnviz.diagnosis
print(cnnviz.__file__)
print(cnnviz.class_probabilities(cnnviz.load_pretrained(), cnnviz.sample_image()).argmax())
"""
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    place, answer = done.stdout.split()
    assert Path(place).resolve().is_relative_to(wheel.resolve())
    assert cnnviz.CLASS_NAMES[int(answer)] == "cat"
