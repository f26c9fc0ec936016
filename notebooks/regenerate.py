"""Run notebooks again, in place: python notebooks/regenerate.py [notebook ...], by default all.

Each keeps fingerprints of the code that made its outputs, so that the tests can tell outdated ones.
"""

import ast
import hashlib
import sys
from pathlib import Path

import nbclient
import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

NOTEBOOKS = Path(__file__).resolve().parent
LIBRARY = NOTEBOOKS.parent / "cnnviz"


def regenerate(path):
    """Run one notebook from a clean kernel; if a cell fails, its file stays as it was."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(Path(path).parent)}}
    client = nbclient.NotebookClient(notebook, resources=place, record_timing=False)
    client.execute()
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    notebook.metadata["cnnviz"] = {
        "code": code_fingerprint(notebook),
        "library": library_fingerprint(),
    }
    nbformat.write(notebook, path)


def code_fingerprint(notebook):
    """Of the code cells of a notebook."""
    return _fingerprint(cell.source for cell in notebook.cells if cell.cell_type == "code")


def library_fingerprint(library=LIBRARY):
    """Of what the library does: comments, docstrings and annotations of functions do nothing."""
    sources = (_meaning(path.read_text("utf-8")) for path in sorted(library.rglob("*.py")))
    weights = (path.read_bytes().hex() for path in sorted(library.glob("weights/*")))
    return _fingerprint([*sources, *weights])


def _meaning(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(tree)


def _fingerprint(texts):
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    for notebook_path in sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"running {notebook_path}", flush=True)
        regenerate(notebook_path)
