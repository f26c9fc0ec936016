"""Wrong labels that were planted come first in the ranking."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.diagnosis.labels import suspect_labels

L = keras.layers


@pytest.fixture(scope="module")
def flipped():
    """-> (120 noisy images with a blue (0) or a red (1) square, labels, which six are wrong)."""
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, 120).astype(np.int32)
    images = random.normal(0.5, 0.1, (120, 16, 16, 3)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(0, 11, 2)
        image[top : top + 6, left : left + 6] = [1, 0, 0] if label else [0, 0, 1]
    wrong = np.random.default_rng(6).choice(120, 6, replace=False)
    labels[wrong] = 1 - labels[wrong]
    return images, labels, set(wrong.tolist())


@pytest.fixture(scope="module")
def usual(color_model, flipped):
    images, labels, _ = flipped
    return suspect_labels(color_model, (images, labels), class_names=("blue", "red"))


def test_planted_labels_come_first(usual, flipped):
    (images, labels, wrong), result = flipped, usual
    assert set(result.ranking[:6].tolist()) == wrong
    assert sorted(result.ranking) == list(range(120))
    np.testing.assert_array_equal(result.labels, labels)
    assert (result.given[result.ranking[:6]] < 0.5).all()
    assert (np.diff(result.given[result.ranking]) >= 0).all()
    np.testing.assert_array_equal(result.predicted == labels, result.given > 0.5)
    np.testing.assert_array_equal(result.images, images[result.ranking[:24]])
    assert result.n_errors_low <= 6 <= result.n_errors_high and not result.memorized
    first, names = result.to_frame().iloc[0], np.array(["blue", "red"])
    assert first["index"] in wrong and first["label"] == names[labels[first["index"]]]
    assert first["most likely"] == names[1 - labels[first["index"]]]
    assert first["probability of label"] == result.given.min() and "file" not in first


def test_labels_are_names_and_need_not_count_from_zero(color_model, flipped, usual):
    images, labels, _ = flipped
    other = suspect_labels(color_model, (images, np.where(labels, 7, 3)))
    np.testing.assert_array_equal(other.ranking, usual.ranking)
    np.testing.assert_array_equal(other.given, usual.given)
    np.testing.assert_array_equal(other.predicted, np.where(usual.predicted, 7, 3))


def test_a_dataset_gives_the_same_and_the_names_of_its_files(color_model, flipped, usual):
    images, labels, _ = flipped
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(50)
    batches.file_paths = [f"{index}.jpg" for index in range(120)]
    parts = suspect_labels(color_model, batches)
    np.testing.assert_allclose(parts.given, usual.given, atol=1e-5)
    np.testing.assert_array_equal(parts.images, images[parts.ranking[:24]])
    assert parts.to_frame()["file"].tolist() == [f"{index}.jpg" for index in parts.ranking]


def test_a_label_does_not_speak_for_itself(color_model, flipped, usual):
    """Two labels exchanged are at once as unlikely as they were likely before."""
    images, labels, wrong = flipped
    right = [index for index in range(120) if index not in wrong]
    pair = [next(index for index in right if labels[index] == label) for label in (0, 1)]
    exchanged = labels.copy()
    exchanged[pair] = 1, 0
    after = suspect_labels(color_model, (images, exchanged))
    assert (usual.given[pair] > 0.5).all() and (after.given[pair] < 0.5).all()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1] * 3, {"n_folds": 1}, "n_splits=1"),
        ([0, 1] * 3, {"n_folds": 4}, r"at least `n_folds` \(=4\)"),
        ([1] * 6, {}, "two classes"),
        ([0.5] * 6, {}, "one class index"),
        (None, {}, "without labels"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(color_model, spots, labels, options, message):
    data = spots[0] if labels is None else (spots[0], np.array(labels))
    with pytest.raises(ValueError, match=message):
        suspect_labels(color_model, data, **options)


def test_retrained_models_judge_labels_that_they_have_not_seen(color_model, flipped):
    images, labels, wrong = flipped
    calls = []

    def retrain(some, given):
        calls.append((some, given))
        return color_model

    result = suspect_labels(color_model, (images, labels), retrain=retrain, n_folds=4)
    assert [len(given) for _, given in calls] == [90] * 4
    for some, given in calls:
        index = [np.flatnonzero((images == one).all((1, 2, 3)))[0] for one in some]
        np.testing.assert_array_equal(labels[index], given)
    assert set(result.ranking[:6].tolist()) == wrong and not result.memorized


def test_memorized_labels_are_a_warning_and_right_ones_are_not():
    """A network whose last layer sees a mark of the given label, and whose first does not."""
    random, true = np.random.default_rng(0), np.tile([0, 1], 100)
    pattern = np.array([[1, -1], [-1, 1]])
    for share in (0, 0.2):
        labels = np.where(random.uniform(size=200) < share, 1 - true, true)
        images = random.normal(0, 0.1, (200, 8, 8, 1)) + true[:, None, None, None]
        images += (3 * labels - 1)[:, None, None, None] * np.tile(pattern, (4, 4))[..., None]
        steps = [L.Conv2D(1, 1), L.Conv2D(1, 1), L.Conv2D(1, 1), L.Conv2D(1, 2, strides=2)]
        steps += [L.GlobalAveragePooling2D(), L.Dense(1)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *steps])
        unit, zero, mark = np.ones((1, 1, 1, 1)), np.zeros(1), pattern[..., None, None] / 4
        kernels = [unit, zero] * 3 + [mark, zero]
        model.set_weights([*kernels, np.array([[10.0]]), np.array([-5.0])])
        if share:
            with pytest.warns(UserWarning, match="it has memorized their labels"):
                result = suspect_labels(model, (images, labels))
            wrong = set(np.flatnonzero(labels != true))
            assert result.memorized and set(result.ranking[: len(wrong)].tolist()) == wrong
        else:
            result = suspect_labels(model, (images, labels))
            assert not result.memorized and result.n_errors == result.n_errors_low == 0
