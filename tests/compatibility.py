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

Grad-CAM of {equal[0]} of {total} kinds of models equals an oracle, and that of {peers}: {equal[1]}
and {equal[2]}. All calls of cnnviz {cnnviz} (keras {keras}, tensorflow {tensorflow}): {counts}.

- `=`: equal to an oracle: the model recomputed by hand (`tests/kinds.py`), for Grad-CAM with a
  `GradientTape` through it, and the result from that (`tests/test_compatibility.py`)
- error: a ValueError that names an argument and a remedy; of the other packages, any error
- WRONG: anything else; of the other packages, no way to call them gives the map up to a factor
- `-`: the call takes no `input_name`

`python tests/compatibility.py` writes this page.

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
        peers=" and ".join(peer["title"] for peer in peers.values()),
        counts=", ".join(f"{own[cell]} {cell}" for cell in ("=", "error", "WRONG")),
        **{name: importlib.metadata.version(name) for name in ("cnnviz", "keras", "tensorflow")},
    )
    head = ["kind of model", *(f"`{call.__name__}`" for call in calls), *peers]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    (DOCS / "compatibility.md").write_text("\n".join([text, *lines, "", *notes]).rstrip() + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=("tf-keras-vis", "xplique"))
    peer = parser.parse_args().peer
    run_peer(peer) if peer else write_page()
