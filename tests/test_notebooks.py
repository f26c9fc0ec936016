"""Both notebooks run from top to bottom, shortened through their constants cell alone."""

import re
from pathlib import Path

import keras
import nbclient
import nbformat
import pytest

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
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    return sum(kind.startswith("image/") for kind in kinds)


def text_of(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_training_notebook_runs_and_saves_a_model_that_the_other_one_opens(tmp_path):
    first, second = PATHS
    notebook = run(first, SHORTENED[first.stem], tmp_path)
    assert figures_in(notebook) == 5 + 4
    assert re.search(r"\d+ of 24 right", text_of(notebook))
    assert (tmp_path / "cats_vs_dogs.keras").is_file()

    own_model = SHORTENED[second.stem] | {"MODEL": '"cats_vs_dogs.keras"'}
    notebook = run(second, own_model, tmp_path)
    convolutions = 10
    assert figures_in(notebook) == 1 + convolutions + convolutions + 5


def test_looking_notebook_runs_on_the_shipped_model(tmp_path):
    path = PATHS[1]
    notebook = run(path, SHORTENED[path.stem], tmp_path)
    assert figures_in(notebook) == 1 + 10 + 10 + 5
    assert re.search(r"evidence on the animal: \d+%", text_of(notebook))


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
    assert figures_in(notebook) == 1 + 2 + 1 + 5


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_committed_notebook_is_executed_in_order_without_errors(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [(output.output_type, output.get("name")) for cell in cells for output in cell.outputs]
    assert ("error", None) not in kinds and ("stream", "stderr") not in kinds


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_is_thin_and_small(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert max(len(cell.source.splitlines()) for cell in cells) <= 12
    assert not any(re.search(r"(?m)^\s*(def|class) ", cell.source) for cell in cells)
    assert path.stat().st_size < 5_000_000
