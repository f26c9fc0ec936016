"""What people install is complete, typed, and works away from the source; the README is true."""

import dataclasses
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import keras
import pytest
from packaging.requirements import Requirement

import cnnviz
from cnnviz import diagnosis, figures
from cnnviz.drawn_pets import write_drawn_pets

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module, names in (
        (cnnviz, cnnviz.__all__),
        (diagnosis, [name for name in vars(diagnosis) if not name.startswith("_")]),
        (figures, [name for name in vars(figures) if name.startswith("draw_")]),
    )
    for name in names
    if callable(getattr(module, name))
}


def methods(kind):
    """The functions and properties that are written in a class."""
    for name, member in vars(kind).items():
        member = member.fget if isinstance(member, property) else member
        written = inspect.isfunction(member) and member.__qualname__ == f"{kind.__name__}.{name}"
        if written and (not name.startswith("_") or name == "__str__"):
            yield f"{kind.__name__}.{name}", member


def unannotated(name, function):
    """The arguments, and "return", that a function leaves without a type."""
    signature = inspect.signature(function)
    missing = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.annotation is inspect.Parameter.empty and parameter.name != "self"
    ]
    if signature.return_annotation is inspect.Signature.empty:
        missing.append("return")
    return [f"{name}: {each}" for each in missing]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_and_fully_annotated(name):
    public = PUBLIC[name]
    assert public.__doc__
    if not inspect.isclass(public):
        assert unannotated(name, public) == []
        return
    if issubclass(public, keras.callbacks.Callback):
        return
    assert dataclasses.is_dataclass(public)
    for field in dataclasses.fields(public):
        assert field.type not in (tuple, list, dict, "tuple", "list", "dict"), field.name
    assert [each for method in methods(public) for each in unannotated(*method)] == []


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


def test_wheel_is_complete(wheel):
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "cnnviz").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__" and path.name[0] != "."
    }
    assert source <= {str(path.relative_to(wheel)) for path in (wheel / "cnnviz").rglob("*")}
    assert {"cnnviz/py.typed", "cnnviz/weights/cats_vs_dogs.keras"} <= source
    assert [path.read_text() for path in wheel.rglob("LICENSE")] == [(ROOT / "LICENSE").read_text()]


def test_wheel_works_in_an_empty_folder_without_the_source(wheel, tmp_path):
    script = f"""
import sys
sys.path[:] = [path for path in sys.path if path not in ("", {str(ROOT)!r})]
sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
import cnnviz
print(cnnviz.__file__)
print(cnnviz.class_probabilities(cnnviz.load_pretrained(), cnnviz.sample_image()).argmax())
"""
    options = {"env": os.environ | {"PYTHONPATH": str(wheel)}, "cwd": tmp_path}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    path, predicted = done.stdout.split()
    assert Path(path).resolve().is_relative_to(wheel.resolve())
    assert cnnviz.CLASS_NAMES[int(predicted)] == "cat"


def test_versions_agree_and_every_range_has_a_lowest_version():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line[0] not in "#-")
    assert lines[-1] == "-e ." and len(pins) == len([line for line in lines if line[0] != "#"]) - 1
    for dependency in map(Requirement, PROJECT["dependencies"]):
        (bound,) = dependency.specifier
        assert bound.operator == ">=" and dependency.specifier.contains(pins[dependency.name])
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()


def test_the_example_of_the_readme_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_drawn_pets(".", train=2, validation=40, test=2, image_size=48)
    Path("validation").rename("photos")
    layers = [keras.Input((48, 48, 3)), keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.Conv2D(8, 5, strides=2, activation="relu")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")]
    keras.Sequential(layers).save("yours.keras")
    exec(example, {})
    assert Path("evidence.png").stat().st_size > 10_000
    assert "never fire" in capsys.readouterr().out


def test_links_of_the_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), (page.name, link)
