"""Both notebooks run from top to bottom, shortened through their constants cell alone.

And what is committed of them was made by their code as it is, and can be read by everybody.
"""

import ast
import base64
import io
import re
from pathlib import Path

import keras
import nbclient
import nbformat
import PIL.Image
import pytest
import regenerate
from bs4 import BeautifulSoup
from IPython.core.inputtransformer2 import TransformerManager
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
SHORTENED = {
    "1_cats_vs_dogs_classifier": {
        "DRAWN_SIZES": "(32,)",
        "DRAWN_COUNTS": '{"train": 48, "validation": 16, "test": 24}',
        "DRAWN_WIDTH": "4",
        "PLANTED": "140",
    },
    "2_visualizing_cnns": {
        "IMAGE_SIZE": "64",
        "FILTERS": "range(3)",
        "FILTER_SIZE": "32",
        "STEPS": "2",
    },
}


def run(path, constants, directory):
    """Execute a notebook in `directory` with other constants in its first code cell."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for name, value in constants.items():
        cell.source, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", cell.source)
        assert count == 1, f"{path.name} has no constant {name}"
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
    return client.execute(cwd=str(directory))


def figures_in(notebook):
    """How many figures there are; each has alternative text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [alternative_text(output) for output in outputs if is_figure(output)]
    assert all(figures)
    return len(figures)


def is_figure(output):
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def alternative_text(output):
    """The text that stands for a figure; "" if one of its formats has none."""
    kinds = [kind for kind in output.data if kind.startswith("image/")]
    texts = [output.metadata.get(kind, {}).get("alt", "").strip() for kind in kinds]
    return texts[0] if all(texts) else ""


def text_of(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = [output.get("data", {}).get("text/markdown", "") for output in outputs]
    return "".join([*(output.get("text", "") for output in outputs), *said])


def test_training_notebook_runs_and_saves_a_model_that_the_other_one_opens(tmp_path):
    first, second = PATHS
    notebook = run(first, SHORTENED[first.stem], tmp_path)
    assert figures_in(notebook) == 6 + 7  # of parts 1 and 2, and of part 3
    assert re.search(r"\d+ of 24 right", text_of(notebook))
    assert (tmp_path / "cats_vs_dogs.keras").is_file()

    own_model = SHORTENED[second.stem] | {"MODEL": '"cats_vs_dogs.keras"'}
    notebook = run(second, own_model, tmp_path)
    convolutions = 10
    assert figures_in(notebook) == 2 + convolutions + convolutions + 7


def test_looking_notebook_runs_on_the_shipped_model(tmp_path):
    path = PATHS[1]
    notebook = run(path, SHORTENED[path.stem], tmp_path)
    assert figures_in(notebook) == 2 + 10 + 10 + 7
    assert re.search(r"Evidence on the animal: \d+%", text_of(notebook))


def test_looking_notebook_runs_on_a_model_of_another_kind(tmp_path):
    """Five classes, a softmax, a fixed picture size: one constant is enough."""
    model = keras.Sequential(
        [
            keras.Input((40, 40, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    model.save(tmp_path / "own.keras")
    path = PATHS[1]
    notebook = run(path, SHORTENED[path.stem] | {"MODEL": '"own.keras"'}, tmp_path)
    assert figures_in(notebook) == 2 + 2 + 1 + 7


# what is committed

MOST_LINES, MOST_BYTES = 12, 5_000_000
MACHINE_PATH = re.compile(r"(?<![\w.~/])/(work|home|tmp|root|Users|private|opt)/|\b[A-Z]:\\")
WARNING = re.compile(r"\b\w*Warning\b|\bWARNING\b|\b[WE]0000 00:00:")  # the last: TensorFlow's log


def faults(path):
    """All that must not be in a committed notebook, in words."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if path.stat().st_size > MOST_BYTES:
        yield f"over {MOST_BYTES} bytes"
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        yield "not executed in order"
    kept = notebook.metadata.get("cnnviz", {}).get("code")
    if kept != regenerate.code_fingerprint(notebook):
        yield "outputs are of other code: python notebooks/regenerate.py"
    for number, cell in enumerate(cells, start=1):
        for fault in (*faults_of_code(cell.source), *faults_of_outputs(cell.outputs)):
            yield f"code cell {number}: {fault}"


def faults_of_code(source):
    if len(source.splitlines()) > MOST_LINES:
        yield f"over {MOST_LINES} lines"
    for node in ast.walk(ast.parse(TransformerManager().transform_cell(source))):
        is_lambda = isinstance(getattr(node, "value", None), ast.Lambda)
        assigned = isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and is_lambda
        if assigned or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield "defines a function or a class"


def faults_of_outputs(outputs):
    for output in outputs:
        if output.output_type == "error":
            yield "error"
        if output.get("name") == "stderr":
            yield "standard error"
        if is_figure(output) and not alternative_text(output):
            yield "figure without alternative text"
        data = output.get("data", {}).items()
        texts = [text for kind, text in data if not kind.startswith("image/")]
        for text in map(str, (output.get("text", ""), *texts)):
            if WARNING.search(text):
                yield "warning"
            if MACHINE_PATH.search(text):
                yield "path of a machine"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_committed_notebook_is_executed_thin_and_readable(path):
    assert list(faults(path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_committed_outputs_are_of_the_library_as_it_is(path):
    kept = nbformat.read(path, as_version=4).metadata["cnnviz"]["library"]
    assert kept == regenerate.library_fingerprint(), "python notebooks/regenerate.py"


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def figure(**metadata):
    return new_output("display_data", {"image/png": "aaaa"}, metadata=metadata)


ALT = {"image/png": {"alt": "2 pictures."}}
PLANTED = {  # what is planted -> (source, output, how it is called)
    "nothing": ("a = [f(lambda b: b)]", stream("https://a.org/tmp/b, 1/tmp/2"), None),
    "nothing, with magics": ("%config a.b = 1\n!ls\n%time a = 1", figure(**ALT), None),
    "error": ("a", new_output("error", ename="a", evalue="b", traceback=[]), "error"),
    "standard error": ("a", stream("a", "stderr"), "standard error"),
    "warning": ("a", stream("a.py:1: UserWarning: b"), "warning"),
    "TensorFlow's log": ("a", stream("W0000 00:00:1700000000.1 1 a.cc:1] b"), "warning"),
    "path": ("a", stream("saved in /home/ann/a"), "path of a machine"),
    "path in a table": ("a", new_output("execute_result", {"text/html": "<b>/tmp/a"}), "path"),
    "figure": ("a", figure(), "figure without alternative text"),
    "figure, blank": ("a", figure(**{"image/png": {"alt": " "}}), "figure without"),
    "def": ("if a:\n    def f():\n        pass", stream("a"), "defines a function"),
    "class": ("class A:\n    pass", stream("a"), "defines a function or a class"),
    "lambda": ("%time 1\nf = lambda a: a", stream("a"), "defines a function"),
    "lines": ("a\n" * 13, stream("a"), "over 12 lines"),
    "bytes": ("a", stream("a" * 5_000_000), "over 5000000 bytes"),
}


def written(path, sources, output=None):
    """A notebook file as `regenerate` leaves it, but with an output of one's own."""
    cells = [new_code_cell(source, execution_count=n) for n, source in enumerate(sources, start=1)]
    notebook = new_notebook(cells=cells)
    cells[-1].outputs = [output] if output else []
    notebook.metadata["cnnviz"] = {"code": regenerate.code_fingerprint(notebook)}
    nbformat.write(notebook, path)
    return notebook


@pytest.mark.parametrize(("source", "output", "fault"), PLANTED.values(), ids=PLANTED.keys())
def test_faults_of_a_notebook_are_noticed(tmp_path, source, output, fault):
    path = tmp_path / "a.ipynb"
    written(path, ["b", source], output)
    found = list(faults(path))
    assert found == [] if fault is None else len(found) == 1 and fault in found[0]


@pytest.mark.parametrize("count", [None, 1, 3])
def test_cells_out_of_order_are_noticed(tmp_path, count):
    path = tmp_path / "a.ipynb"
    notebook = written(path, ["b", "a"])
    notebook.cells[1].execution_count = count
    nbformat.write(notebook, path)
    assert list(faults(path)) == ["not executed in order"]


def test_outputs_of_other_code_are_noticed(tmp_path):
    path = tmp_path / "a.ipynb"
    notebook = written(path, ["b", "a"])
    notebook.cells[0].source = "c"
    nbformat.write(notebook, path)
    (fault,) = faults(path)
    assert "outputs are of other code" in fault
    notebook.cells[0].source = "b"
    notebook.cells.reverse()
    notebook.cells[0].execution_count, notebook.cells[1].execution_count = 1, 2
    nbformat.write(notebook, path)
    assert [*faults(path)] == [fault]


def test_only_what_the_library_does_is_in_its_fingerprint(tmp_path):
    def fingerprint(source):
        (tmp_path / "a.py").write_text(source)
        return regenerate.library_fingerprint(tmp_path)

    before = fingerprint('"""A."""\n\ndef f(a):\n    """Double."""\n    return 2 * a\n')
    assert before == fingerprint("def f(a: int) -> int:  # doubles\n    return 2 * a")
    assert before != fingerprint("def f(a):\n    return 3 * a")


# figures in a notebook

FIGURES = [
    """\
from types import SimpleNamespace

import numpy as np

from cnnviz import figures
from cnnviz.callbacks import LiveCurves

print("one line")
print("another")
pictures = np.zeros((5, 8, 8, 3))""",
    "figures.draw_images(pictures[:2], ['<cat> & \"dog\"', 'b'])",
    "display(figures.draw_images(pictures[:3]))",
    """\
numbers = {name: [0.5, 0.75] for name in ("loss", "val_loss", "accuracy", "val_accuracy")}
curves = LiveCurves(SimpleNamespace(history=numbers))
curves.on_train_begin()
curves.on_epoch_end(0)""",
    """\
%config InlineBackend.figure_formats = ["jpeg"]
%config InlineBackend.print_figure_kwargs = {"dpi": 55}""",
    "figures.draw_images(pictures[:3])",
    "%config InlineBackend.figure_formats = ['retina']",
    "figures.draw_images(pictures)",
]


def test_figures_have_alternative_text_in_the_notebook_and_in_the_page(tmp_path, monkeypatch):
    path = tmp_path / "figures.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in FIGURES]), path)
    regenerate.regenerate(path)
    assert list(faults(path)) == []
    notebook = nbformat.read(path, as_version=4)
    (text,) = notebook.cells[0].outputs
    assert text.text == "one line\nanother\n"

    shown = [output for cell in notebook.cells[1:] for output in cell.get("outputs", [])]
    kinds = ["image/png"] * 3 + ["image/jpeg", "image/png"]
    sizes = [
        PIL.Image.open(io.BytesIO(base64.b64decode(output.data[kind]))).size
        for output, kind in zip(shown, kinds, strict=True)
    ]
    assert sizes[3][0] == pytest.approx(sizes[1][0] / 2, rel=0.2)  # 55 dots an inch, not 110
    assert shown[4].metadata["image/png"]["width"] == sizes[4][0] // 2  # that of retina remains

    monkeypatch.chdir(ROOT)  # where `lab/index.html.j2` is found
    page, _ = HTMLExporter().from_notebook_node(notebook)
    texts = [picture["alt"] for picture in BeautifulSoup(page, "html.parser").find_all("img")]
    assert texts == [alternative_text(output) for output in shown]
    assert texts[0] == '2 pictures of 8x8 pixels: <cat> & "dog", b.'
    assert texts[2].startswith("Learning curves over 2 epochs")
    assert texts[3:] == ["3 pictures of 8x8 pixels.", "5 pictures of 8x8 pixels."]
