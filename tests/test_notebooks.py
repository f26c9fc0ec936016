"""The committed notebooks are executed, short, and readable for everybody.

The README's first command executes them, and .ci/run runs that.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook, new_output

PATHS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
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
    if not is_constants(cells[0].source):
        yield "the first code cell must hold nothing but constants, and TF_CPP_MIN_LOG_LEVEL"
    for number, cell in enumerate(cells, start=1):
        for fault in (*faults_of_code(cell.source), *faults_of_outputs(cell.outputs)):
            yield f"code cell {number}: {fault}"


def is_constants(source):
    """Whether a cell sets constants and the log level alone."""
    targets = []
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.Import, ast.Assign)):
            return False
        targets += [ast.unparse(target) for target in getattr(node, "targets", ())]
    log_level = "os.environ['TF_CPP_MIN_LOG_LEVEL']"
    return log_level in targets and all(name.isupper() for name in targets if name != log_level)


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
        if output.output_type == "stream" and not output.text.strip():
            yield "blank lines"
        if not all(alternative_texts(output)):
            yield "figure without alternative text"
        data = output.get("data", {}).items()
        texts = [text for kind, text in data if kind.startswith("text/")]
        for text in map(str, (output.get("text", ""), *texts)):
            if WARNING.search(text):
                yield "warning"
            if MACHINE_PATH.search(text):
                yield "path of a machine"


def alternative_texts(output):
    """One for each image of an output; "" where it has none."""
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("image/"):
            yield output.metadata.get(kind, {}).get("alt", "").strip()
    for image in BeautifulSoup(data.get("text/html", ""), "html.parser").find_all("img"):
        yield image.get("alt", "").strip()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_committed_notebook_is_executed_thin_and_readable(path):
    assert list(faults(path)) == []


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def figure(html=None, **metadata):
    data = {"text/html": html} if html else {"image/png": "aaaa"}
    return new_output("display_data", data, metadata=metadata)


CONSTANTS = "import os\n\nos.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\nDATA = 'a'  # a or b"
PLANTED = {  # what is planted -> (source, output, what is said)
    "nothing": ("a = [f(lambda b: b)]", stream("https://a.org/tmp/b, 1/tmp/2"), None),
    "nothing, with magics": ("!ls\n%time a = 1", figure(**{"image/png": {"alt": "b"}}), None),
    "error": ("a", new_output("error", ename="a", evalue="b", traceback=[]), "error"),
    "standard error": ("a", stream("a", "stderr"), "standard error"),
    "progress bar": ("a", stream("\r   \r"), "blank lines"),
    "warning": ("a", stream("a.py:1: UserWarning: b"), "warning"),
    "path": ("a", stream("saved in /home/ann/a"), "path of a machine"),
    "figure": ("a", figure(), "figure without alternative text"),
    "figure as HTML": ("a", figure("<img alt=' ' src='a.png'>"), "figure without"),
    "def": ("if a:\n    def f():\n        pass", stream("a"), "defines a function"),
    "lines": ("a\n" * 13, stream("a"), "over 12 lines"),
}


def write(path, sources, counts=(1, 2), output=None):
    pairs = zip(sources, counts, strict=True)
    cells = [new_code_cell(source, execution_count=n) for source, n in pairs]
    cells[-1].outputs = [output] if output else []
    nbformat.write(new_notebook(cells=cells), path)


@pytest.mark.parametrize(("source", "output", "fault"), PLANTED.values(), ids=PLANTED.keys())
def test_faults_of_a_notebook_are_noticed(tmp_path, source, output, fault):
    write(tmp_path / "a.ipynb", [CONSTANTS, source], output=output)
    found = list(faults(tmp_path / "a.ipynb"))
    assert found == [] if fault is None else len(found) == 1 and fault in found[0]


def test_cells_out_of_order_and_a_first_cell_of_more_than_constants_are_noticed(tmp_path):
    for source, count in ((CONSTANTS, 3), ("A = 1", 2), (CONSTANTS + "\nprint(1)", 2)):
        write(tmp_path / "a.ipynb", [source, "a"], (1, count))
        assert len(list(faults(tmp_path / "a.ipynb"))) == 1
