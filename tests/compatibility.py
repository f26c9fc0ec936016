"""Write docs/compatibility.md: kinds of models against calls, and Grad-CAM of other packages.

python tests/compatibility.py
python tests/compatibility.py --peer tf-keras-vis    (or xplique, in an environment that has it)
"""

import argparse
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

{equal} of {total} kinds of models: Grad-CAM equals an oracle. Of {cells:,} cells of this package,
{=:,} are equal, {error:,} are clear errors, and {WRONG:,} are wrong.

The oracle is a `GradientTape` through a function that recomputes the model by hand
(`tests/kinds.py`); probabilities, activations and the others are recomputed as well
(`tests/test_compatibility.py`). `python tests/compatibility.py` writes this page.

- `=`: equal to the oracle
- error: a ValueError that names an argument and a remedy
- WRONG: anything else
- -: takes no `input_name`

The last two columns are Grad-CAM of {peers}. They count as equal if, for one of several ways to
call them, the map is that of the oracle up to a factor, and as error if all ways raise any error.
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
                same = found.shape == expected.shape and np.allclose(found, expected, atol=0.02)
                results.append("=" if same else "WRONG")
            except Exception as error:
                results.append(f"error: {type(error).__name__}: {error}"[:200])
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
    PEERS.write_text(json.dumps(found, indent=1) + "\n")


def write_page():
    import test_compatibility as table  # imports cnnviz, which a peer's environment lacks

    peers = json.loads(PEERS.read_text()) if PEERS.exists() else {}
    calls = [call.__name__ for call in table.CALLS]
    rows, counts, notes = [], dict.fromkeys(("=", "error", "WRONG", "-"), 0), []
    for name in kinds.KINDS:
        cells = [table.outcome(call, name) for call in table.CALLS]
        for call, cell in zip(calls, cells, strict=True):
            counts[cell if cell in counts else "WRONG"] += 1
            notes += [] if cell in counts else [f"- {name}, `{call}`: {cell[:300]}"]
        cells = [cell if cell in counts else "WRONG" for cell in cells]
        theirs = [peer["cells"].get(name, "not run").partition(":")[0] for peer in peers.values()]
        rows.append([name, *cells, *theirs])
    head = ["kind of model", *(f"`{call}`" for call in calls), *peers]
    lines = [head, ["---"] * len(head), *rows]
    equal = [sum(row[column] == "=" for row in rows) for column in (1, -2, -1)]
    text = PAGE.format(
        equal=equal, total=len(rows), cells=len(rows) * len(calls) - counts["-"], **counts
    )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    (DOCS / "compatibility.md").write_text("\n".join([text, table, "", *notes]).rstrip() + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=("tf-keras-vis", "xplique"))
    peer = parser.parse_args().peer
    run_peer(peer) if peer else write_page()
