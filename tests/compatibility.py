"""Write docs/compatibility.md: kinds of models against calls, and Grad-CAM of other packages.

What other packages computed, once, is in docs/compatibility_peers.json.
"""

import collections
import importlib.metadata
import json
import pathlib

import kinds
import test_compatibility as table

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PEERS = DOCS / "compatibility_peers.json"
PAGE = """# Compatibility

Every call of cnnviz on {total} kinds of small models, each compared with the model recomputed by
hand.

| Grad-CAM by | right, of {total} kinds |
| --- | --- |
| cnnviz {cnnviz} (keras {keras}, tensorflow {tensorflow}) | **{equal[0]}** |
| {peers[0]} | {equal[1]} |
| {peers[1]} | {equal[2]} |

All calls of cnnviz: {counts}.

- `=`: equal to the result by hand (`tests/kinds.py`), for Grad-CAM by a `GradientTape`.
- error: cnnviz raises a ValueError that names an argument and what to do. Of other packages: any
  error.
- WRONG: anything else. Other packages were called in several ways, with the layer by its name, and
  a map that is right up to a factor counts as equal.
- `-`: the call has no `input_name`.

Where a model is no classifier, `grad_cam` gets a target; "of a class" is without. `python
tests/compatibility.py` writes this page.

"""


def write_page():
    peers, calls, rows, notes = json.loads(PEERS.read_text()), table.CALLS, [], []
    for name in kinds.KINDS:
        cells = {call.__name__: table.outcome(call, name) for call in calls}
        wrong = {call: cell for call, cell in cells.items() if cell not in ("=", "error", "-")}
        notes += [f"- {name}, `{call}`: {cell[:300]}" for call, cell in wrong.items()]
        cells |= dict.fromkeys(wrong, "WRONG")
        theirs = [peer["cells"][name].partition(":")[0] for peer in peers.values()]
        rows.append([name, *cells.values(), *theirs])
    own = collections.Counter(cell for row in rows for cell in row[1 : len(calls) + 1])
    text = PAGE.format(
        equal=[sum(row[column] == "=" for row in rows) for column in (1, -2, -1)],
        total=len(rows),
        peers=[peer["title"] for peer in peers.values()],
        counts=f"{own['=']} equal, {own['error']} clear errors, {own['WRONG']} wrong",
        **{name: importlib.metadata.version(name) for name in ("cnnviz", "keras", "tensorflow")},
    )
    named = (f"`{call.__name__}`" for call in calls)
    head = [
        "kind of model",
        *(name.replace("_of_the_class`", "` of a class") for name in named),
        *peers,
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    (DOCS / "compatibility.md").write_text("\n".join([text, *lines, "", *notes]).rstrip() + "\n")


if __name__ == "__main__":
    write_page()
