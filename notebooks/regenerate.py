"""Run notebooks again, in place: python notebooks/regenerate.py [notebook ...], by default all.

Each keeps fingerprints of the code that made its outputs, so that the tests can tell outdated ones.
The figure of a cell with the metadata `"gallery": "name.jpg"` goes to `docs/` too, and from there
into the notebook's first cell, where that one shows it.
"""

import ast
import base64
import hashlib
import io
import sys
from pathlib import Path

import nbclient
import nbformat
import PIL.Image
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

NOTEBOOKS = Path(__file__).resolve().parent
LIBRARY = NOTEBOOKS.parent / "cnnviz"
DOCS = NOTEBOOKS.parent / "docs"


def regenerate(path, docs=DOCS):
    """Run one notebook from a clean kernel; if a cell fails, its file stays as it was."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(Path(path).parent)}}
    client = nbclient.NotebookClient(notebook, resources=place, record_timing=False)
    client.execute()
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    for cell in notebook.cells:  # what progress bars leave behind
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("text", "seen").strip()]
    notebook.metadata["cnnviz"] = {
        "code": code_fingerprint(notebook),
        "library": library_fingerprint(),
    }
    _keep_gallery(notebook, docs)
    nbformat.write(notebook, path)


def _keep_gallery(notebook, docs):
    for cell in notebook.cells:
        if "gallery" in cell.metadata:
            data = [output.data for output in cell.outputs if "data" in output]
            figure = next(
                kinds[kind] for kinds in data for kind in kinds if kind.startswith("image/")
            )
            picture = PIL.Image.open(io.BytesIO(base64.b64decode(figure))).convert("RGB")
            picture.save(docs / cell.metadata["gallery"], quality=85)
    for name, kinds in notebook.cells[0].get("attachments", {}).items():
        kinds["image/jpeg"] = base64.b64encode((docs / name).read_bytes()).decode()


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
