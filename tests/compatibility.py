"""Write docs/compatibility.md: kinds of models against calls, and Grad-CAM of other packages.

python tests/compatibility.py
python tests/compatibility.py --peer tf-keras-vis    (or xplique, in an environment that has it)
"""

import argparse
import collections
import importlib.metadata
import json
import pathlib

import keras
import kinds
import numpy as np
import tensorflow as tf

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PEERS = DOCS / "compatibility_peers.json"
DATE = "2026-11-29"
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


def tf_keras_vis(kind, right, linear, layer):
    from tf_keras_vis import gradcam
    from tf_keras_vis.utils import model_modifiers, scores

    data, names = kind.data, getattr(kind.model, "output_names", None) or [None]
    if isinstance(data, dict):
        data = [data[one.name] for one in kind.model.inputs]
    score = [kind.score if kind.output_name in (None, n) else scores.InactiveScore() for n in names]
    if isinstance(right.logits, dict):
        score = [scores.InactiveScore(), lambda classes: kind.score({"classes": classes})]
    method = gradcam.Gradcam(kind.model, model_modifiers.ReplaceToLinear() if linear else None)
    options = {"penultimate_layer": layer, "seek_penultimate_conv_layer": layer is None}
    return method(score, data, expand_cam=False, normalize_cam=False, **options), right.maps


def xplique(kind, right, linear, layer):
    from xplique import attributions

    with tf.GradientTape() as tape:
        tape.watch(right.logits)
        score = kind.score(right.logits)
    targets, head, before = tape.gradient(score, right.logits), kind.model.layers[-1], None
    if linear and hasattr(head, "activation"):
        head.activation = keras.activations.linear
    elif linear:
        before = -2
    found = attributions.GradCAM(kind.model, before, conv_layer=layer)(kind.data, targets)
    maps = np.maximum(right.maps, 0)[..., None]  # theirs come in the size of the images
    return found[..., 0], tf.image.resize(maps, kind.data.shape[1:-1], "bicubic")[..., 0]


def peer_outcome(peer, kind, right):
    results = []
    for linear in (False, True):
        for layer in (kind.layer, kind.layer.rpartition("/")[2], None):
            try:
                found, expected = peer(kind, right, linear, layer)
                found, expected = (relative(np.maximum(x, 0)) for x in (found, expected))
                same = found.size == expected.size  # tokens come in one row
                same = same and np.allclose(found.ravel(), expected.ravel(), atol=0.02)
                results.append("=" if same else "WRONG")
            except Exception as error:
                results.append(f"error: {type(error).__name__}")
    return "=" if "=" in results else "WRONG" if "WRONG" in results else results[0]


def relative(maps):
    highest = maps.max(tuple(range(1, maps.ndim)), keepdims=True)
    return maps / np.maximum(highest, 1e-9)


def run_peer(name):
    peer = {"tf-keras-vis": tf_keras_vis, "xplique": xplique}[name]
    cells = {each: peer_outcome(peer, *kinds.built(each)) for each in kinds.KINDS}
    title = ", ".join(f"{one} {importlib.metadata.version(one)}" for one in (name, "tensorflow"))
    found = json.loads(PEERS.read_text()) if PEERS.exists() else {}
    found[name] = {"title": f"{title}, {DATE}", "cells": cells}
    PEERS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def write_page():
    import test_compatibility as table  # imports cnnviz, which a peer's environment lacks

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=("tf-keras-vis", "xplique"))
    peer = parser.parse_args().peer
    run_peer(peer) if peer else write_page()
