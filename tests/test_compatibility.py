"""Every public call on every kind of model: equal to what is computed by hand, or a clear error.

`CALLS` is the one table of checks; `compatibility.py` writes its outcomes to docs/.
"""

import dataclasses
import re
import traceback
import warnings
from unittest import mock

import cv2
import keras
import kinds
import numpy as np
import pytest
import tensorflow as tf
from sklearn.model_selection import StratifiedKFold

import cnnviz
from cnnviz.diagnosis import labels, trust

REMEDY = r"\b(must|give|choose|pass|use|build|needs|put)\b|target="  # what a clear error says


def target(kind):
    if not isinstance(kind.target, tuple):
        return {} if kind.target is None else {"target": kind.target}
    name, *arguments = kind.target
    return {"target": getattr(cnnviz.targets, name)(*arguments)}


def named(kind, *names):
    return {name: value for name in names if (value := getattr(kind, name)) is not None}


def close(found, expected, tolerance=1e-3):
    assert expected is not None, "no classes, and yet a result"
    np.testing.assert_allclose(found, expected, tolerance, tolerance * np.abs(expected).max())


def image_of(kind):
    return kind.data if kind.look is None else kind.data[kind.look]


def with_image(kind, image, others=1):
    """What `predict` takes, with another image; `others` is what the other inputs are times."""
    if kind.look is None:
        return image
    items = dict(kind.data if isinstance(kind.data, dict) else enumerate(kind.data))
    items = {key: others * value[: len(image)] for key, value in items.items()} | {kind.look: image}
    return items if isinstance(kind.data, dict) else list(items.values())


def grad_cam(kind, right):
    options = target(kind) | named(kind, "output_name", "input_name")
    found = cnnviz.grad_cam(kind.model, kind.data, signed=True, **options)
    assert found.layer_name == kind.layer
    close(found.maps, right.maps, kind.tolerance)
    close(found.scores, right.scores, kind.tolerance)


def grad_cam_of_the_class(kind, right):
    """Without a target, which only a classifier may be asked."""
    options = named(kind, "output_name", "input_name")
    found = cnnviz.grad_cam(kind.model, kind.data, **options)
    assert right.probabilities is not None
    close(found.maps, np.maximum(right.maps, 0), kind.tolerance)


def class_probabilities(kind, right):
    found = cnnviz.class_probabilities(kind.model, kind.data, **named(kind, "output_name"))
    close(found, right.probabilities, kind.tolerance)


def extract_activations(kind, right):
    (found,) = cnnviz.extract_activations(kind.model, kind.data, kind.layer).values()
    close(kinds.as_grid(kind, found), right.features, kind.tolerance)


def filter_census(kind, right):
    (found,) = cnnviz.filter_census(kind.model, kind.data, kind.asked or kind.layer).layers
    firing = (right.features > 0).mean(tuple(range(right.features.ndim - 1)))
    close(found.firing, firing, kind.tolerance)


def ascend(kind, *arguments, **options):
    size = image_of(kind).shape[1:3] if isinstance(kind.data, np.ndarray) else None
    options |= {"steps": 3, "value_range": (0, 1), "image_size": size} | named(kind, "input_name")
    found = cnnviz.ascend_filters(kind.model, *arguments, **options)
    return found.activations, kinds.oracle(kind, with_image(kind, found.images, others=0))


def ascend_filters(kind, right):
    found, after = ascend(kind, kind.asked or kind.layer, [0, 2])
    close(found, after.features.mean((1, 2))[[0, 1], [0, 2]], 10 * kind.tolerance)


def ascend_filters_of_the_class(kind, right):
    options = target(kind) or {"class_index": 0}
    found, after = ascend(kind, **options, **named(kind, "output_name"))
    if kind.target is None:
        sign = -1 if after.logits.shape[1] == 1 else 1
        after.scores = sign * after.logits[:, 0]
    close(found, after.scores, 10 * kind.tolerance)


def top_patches(kind, right):
    name = kind.asked or kind.layer
    found = cnnviz.top_patches(kind.model, kind.data, name, [0, 2], n_patches=3)
    strongest = np.sort(right.features.max((1, 2))[:, [0, 2]], axis=0)
    close(found.activations.T, strongest[:-4:-1], 2 * kind.tolerance)


def explore(kind, right):
    with mock.patch("cnnviz.explore.display") as display:
        options = {"value_range": (0, 1), "steps": 1} | named(kind, "output_name")
        box = cnnviz.explore(kind.model, kind.data, **options)
    menus = {menu.description: menu.options for menu in box.children}
    assert kind.layer in menus["layer"] and display.called
    classes = 0 if right.probabilities is None else right.probabilities.shape[1]
    assert len(menus["for class"]) == 1 + classes


def reliance(kind, right):
    image = image_of(kind)
    masks = np.zeros(image.shape[:3], bool)
    masks[:, :, : image.shape[2] // 2] = True
    found = cnnviz.reliance(kind.model, kind.data, masks, method="grad-cam")
    maps = [cv2.resize(one, image.shape[2:0:-1]) for one in np.maximum(right.maps, 0)]
    shares = [(one * masks[0]).sum() / one.sum() for one in maps if one.any()]
    painted = np.where(masks[..., None], image.mean((0, 1, 2)), image).astype("float32")
    after = kinds.oracle(kind, with_image(kind, painted)).probabilities
    changed = np.mean(right.probabilities.argmax(1) != after.argmax(1))
    close([found.share, found.changed], [np.mean(shares), changed], kind.tolerance)


def confident_mistakes(kind, right):
    found = cnnviz.confident_mistakes(
        kind.model, (kind.data, np.array(kind.labels)), n_mistakes=kinds.N
    )
    wrong = np.flatnonzero(right.probabilities.argmax(1) != kind.labels)
    assert sorted(found.image_index) == wrong.tolist()
    close(found.probabilities, right.probabilities[found.image_index], kind.tolerance)


def check_inputs(kind, right):
    found = cnnviz.check_inputs(kind.model, (kind.data, np.array(kind.labels)))
    close(found.accuracy, np.mean(right.probabilities.argmax(1) == kind.labels))


def suspect_labels(kind, right):
    """The same fits on the last feature map and the probabilities, both computed by hand."""
    found = cnnviz.suspect_labels(kind.model, (kind.data, np.array(kind.labels)), n_folds=2)
    features = right.features.mean(tuple(range(1, right.features.ndim - 1)))
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    own, outputs = getattr(right, "probabilities", None), getattr(kind.model, "outputs", None)
    several = len(outputs or ()) > 1  # nothing says which one the labels belong to
    own = None if own is None or several else labels._of_classes(own, np.unique(kind.labels))
    assert not found.memorized
    scores = labels._scores(features, own, np.array(kind.labels), folds)
    close(found.given, np.exp(scores)[np.arange(kinds.N), kind.labels], 10 * kind.tolerance)


def compare_models(kind, right):
    found = cnnviz.compare_models(kind.model, kind.model, kind.data)
    assert not found.weights.any()
    close(found.probabilities[1], right.probabilities, kind.tolerance)
    close(found.maps[1].maps, np.maximum(right.maps, 0), kind.tolerance)


def map_trust(kind, right):
    """ROAD of the maps that were computed by hand."""
    options = {"methods": ["grad-cam"], "n_mosaics": 2, "n_shuffles": 1}
    found = cnnviz.map_trust(kind.model, kind.data, np.array(kind.labels), **options)

    def score(logits):
        logits = tf.concat([-logits, logits], 1) if logits.shape[1] == 1 else logits
        return tf.gather(logits, np.array(kind.labels), batch_dims=1)

    maps = kinds.oracle(dataclasses.replace(kind, score=score)).maps
    expected = trust.road(kind.model, image_of(kind), np.maximum(maps, 0), np.array(kind.labels))
    close(found.road[0], np.nanmean(expected), kind.tolerance)


FAST = (grad_cam, class_probabilities, extract_activations)
OF_AN_INPUT = (grad_cam, grad_cam_of_the_class, ascend_filters, ascend_filters_of_the_class)
DIAGNOSIS = (reliance, confident_mistakes, check_inputs, suspect_labels, compare_models, map_trust)
CALLS = (*FAST, *OF_AN_INPUT[1:], filter_census, top_patches, explore, *DIAGNOSIS)
OF_CLASSES = {*DIAGNOSIS, class_probabilities, grad_cam_of_the_class} - {suspect_labels}
MUST_RAISE = {  # what the name of a kind begins with: the calls that raise a clear error
    "channels first": CALLS,
    "regression|U-Net|embedding": {*OF_CLASSES, suspect_labels},
    "detector": OF_CLASSES,
    "multi-label": {confident_mistakes, check_inputs, suspect_labels, map_trust},
    "two outputs": {*DIAGNOSIS} - {suspect_labels},
    "two images|image and table|Siamese": {ascend_filters_of_the_class, check_inputs, map_trust},
    "signal|volume|video": {
        *(
            ascend_filters,
            ascend_filters_of_the_class,
            top_patches,
            explore,
            reliance,
            check_inputs,
            map_trust,
        )
    },
}


def outcome(call, name):
    """ "=", "error", "-" where a call takes no `input_name`, or what is wrong."""
    kind, right = kinds.built(name)
    if kind.input_name is not None and call not in OF_AN_INPUT:
        return "-"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(kind, right)
        return "="
    except Exception as error:
        path = traceback.extract_tb(error.__traceback__)[-1].filename
        told = re.search(r"`\w+", str(error)) and re.search(REMEDY, str(error))
        clear = isinstance(error, ValueError) and told and "/cnnviz/" in path
        return "error" if clear else f"{type(error).__name__}: {' '.join(str(error).split())}"


@pytest.mark.parametrize("name", kinds.KINDS)
@pytest.mark.parametrize(
    "call", [pytest.param(c, marks=[] if c in FAST else pytest.mark.slow) for c in CALLS]
)
def test_call_is_right_or_says_what_to_do(call, name):
    if name.startswith("keras_hub"):
        pytest.importorskip("keras_hub")
    raising = any(call in calls for start, calls in MUST_RAISE.items() if re.match(start, name))
    assert outcome(call, name) in ("-", "error" if raising else "=")


@pytest.mark.parametrize("name", [name for name in kinds.KINDS if "keras_hub" not in name])
def test_oracle_computes_what_the_model_does(name):
    kind, right = kinds.built(name)
    found = kind.model(kind.data, training=False)
    if kind.output_name is not None:
        found = found[kind.model.output_names.index(kind.output_name)]
    end = kinds.ENDS.get(kind.end, lambda logits: logits)
    keras.tree.map_structure(lambda x, y: close(x, end(y), kind.tolerance), found, right.logits)
