"""Every public call on every kind of model: equal to what is computed by hand, or a clear error.

`CALLS` is the one table of checks; `compatibility.py` writes its outcomes to docs/.
"""

import re
import traceback
import warnings
from unittest import mock

import cv2
import kinds
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cnnviz

REMEDY = r"must|give|choose|pass |use |build|needs|target="  # what a clear error says
LEFT = 2  # masks cover the left half


def target(kind):
    if not isinstance(kind.target, tuple):
        return {} if kind.target is None else {"target": kind.target}
    name, *arguments = kind.target
    return {"target": getattr(cnnviz.targets, name)(*arguments)}


def close(found, expected, tolerance=1e-3):
    limit = tolerance * np.abs(expected).max(initial=1e-6)
    np.testing.assert_allclose(found, expected, tolerance, limit)


def chances(kind, data):
    return kinds.oracle(kind, data).probabilities


def pair(kind):
    return kind.data, np.array(kind.labels)


def grad_cam(kind, right):
    found = cnnviz.grad_cam(kind.model, kind.data, signed=True, **target(kind), **kind.options)
    assert found.layer_name == kind.layer
    close(found.maps, right.maps, kind.tolerance)
    close(found.scores, right.scores, kind.tolerance)


def grad_cam_of_the_class(kind, right):
    """Without a target, which only a classifier may be asked."""
    found = cnnviz.grad_cam(kind.model, kind.data, **kind.options)
    close(found.maps, np.maximum(right.maps, 0), kind.tolerance)


def class_probabilities(kind, right):
    options = {name: value for name, value in kind.options.items() if name == "output_name"}
    found = cnnviz.class_probabilities(kind.model, kind.data, **options)
    close(found, right.probabilities, kind.tolerance)


def extract_activations(kind, right):
    (found,) = cnnviz.extract_activations(kind.model, kind.data, kind.layer).values()
    close(kinds.as_grid(kind, found), right.features, kind.tolerance)


def filter_census(kind, right):
    (found,) = cnnviz.filter_census(kind.model, kind.data, kind.asked or kind.layer).layers
    close(found.firing, (right.features > 0).mean(tuple(range(right.features.ndim - 1))))


def ascend(kind, *arguments, **options):
    size = kind.data.shape[1:3] if isinstance(kind.data, np.ndarray) else None
    options |= {"steps": 3, "value_range": (0, 1), "image_size": size}
    found = cnnviz.ascend_filters(kind.model, *arguments, **options)
    return found, kinds.oracle(kind, found.images)


def ascend_filters(kind, right):
    found, after = ascend(kind, kind.asked or kind.layer, [0, 2])
    expected = after.features.mean((1, 2))[[0, 1], [0, 2]]
    close(found.activations, expected, 10 * kind.tolerance)


def ascend_target(kind, right):
    options = {name: value for name, value in kind.options.items() if name == "output_name"}
    found, after = ascend(kind, **(target(kind) or {"class_index": 0}), **options)
    expected = after.scores
    if kind.target is None:
        expected = after.logits[:, 0] * (-1 if after.logits.shape[1] == 1 else 1)
    close(found.activations, expected, 10 * kind.tolerance)


def top_patches(kind, right):
    name = kind.asked or kind.layer
    found = cnnviz.top_patches(kind.model, kind.data, name, [0, 2], n_patches=3)
    close(found.activations.T, -np.sort(-right.features.max((1, 2))[:, [0, 2]], 0)[:3])


def reliance(kind, right):
    shape = kind.data.shape[:3]
    mask = np.arange(shape[2]) * LEFT < shape[2]
    masks = np.broadcast_to(mask, shape)
    found = cnnviz.reliance(kind.model, kind.data, masks, method="grad-cam")
    maps = [cv2.resize(one, shape[:0:-1]) for one in np.maximum(right.maps, 0)]
    shares = [one[:, mask].sum() / one.sum() for one in maps if one.any()]
    painted = np.where(masks[..., None], kind.data.mean((0, 1, 2)), kind.data).astype("float32")
    changed = right.probabilities.argmax(1) != chances(kind, painted).argmax(1)
    close([found.share, found.changed], [np.mean(shares), changed.mean()], kind.tolerance)


def confident_mistakes(kind, right):
    found = cnnviz.confident_mistakes(kind.model, pair(kind), n_mistakes=kinds.N)
    wrong = np.flatnonzero(right.probabilities.argmax(1) != kind.labels)
    assert sorted(found.image_index) == wrong.tolist()
    close(found.probabilities, right.probabilities[found.image_index], kind.tolerance)


def check_inputs(kind, right):
    found = cnnviz.check_inputs(kind.model, pair(kind))
    close(found.accuracy, np.mean(right.probabilities.argmax(1) == kind.labels))


def suspect_labels(kind, right):
    found = cnnviz.suspect_labels(kind.model, pair(kind), n_folds=2)
    features = right.features.mean(tuple(range(1, right.features.ndim - 1)))
    fit = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    given = cross_val_predict(fit, features, kind.labels, cv=folds, method="predict_proba")
    close(found.given, given[np.arange(kinds.N), kind.labels], 10 * kind.tolerance)


def compare_models(kind, right):
    found = cnnviz.compare_models(kind.model, kind.model, kind.data)
    assert not found.weights.any()
    close(found.probabilities[1], right.probabilities, kind.tolerance)
    close(found.maps[1].maps, np.maximum(right.maps, 0), kind.tolerance)


def map_trust(kind, right):
    """Insertion by an empty map, the second baseline's, is not recomputed; its bounds are known."""
    labels = right.probabilities.argmax(1) if kind.target is None else kind.labels
    labels = labels if np.bincount(labels).min() > 1 and len(set(labels)) > 1 else kind.labels
    with mock.patch("cnnviz.diagnosis.trust.STEPS", 1):  # all or nothing: the images, then gray
        found = cnnviz.map_trust(kind.model, kind.data, labels, methods=["grad-cam"], n_mosaics=2)
    gray = np.broadcast_to(kind.data.mean((0, 1, 2)), kind.data.shape).astype("float32")
    ends = [chances(kind, one)[np.arange(kinds.N), labels].mean() for one in (kind.data, gray)]
    close(found.deletion, np.full(3, np.mean(ends)), kind.tolerance)


def explore(kind, right):
    with mock.patch("cnnviz.explore.display") as display:
        box = cnnviz.explore(kind.model, kind.data, value_range=(0, 1), steps=1)
    menus = {menu.description: menu.options for menu in box.children}
    assert kind.layer in menus["layer"] and display.called
    assert len(menus["for class"]) == 1 + right.probabilities.shape[1]


CALLS = {call.__name__: call for call in (grad_cam, class_probabilities, extract_activations)}
SLOW = {
    call.__name__: call
    for call in (
        grad_cam_of_the_class,
        filter_census,
        ascend_filters,
        ascend_target,
        top_patches,
        explore,
        reliance,
        confident_mistakes,
        check_inputs,
        suspect_labels,
        compare_models,
        map_trust,
    )
}


def outcome(call, name):
    """ "=", "error" or what is wrong."""
    kind, right = kinds.built(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(kind, right)
        return "="
    except ValueError as error:
        raised_by = traceback.extract_tb(error.__traceback__)[-1].filename
        clear = re.search(r"`\w+", str(error)) and re.search(REMEDY, str(error))
        if clear and "/cnnviz/" in raised_by:
            return "error"
        return f"ValueError: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
