"""Wrong labels that were planted come first in the ranking."""

import numpy as np
import pytest
import tensorflow as tf

from cnnviz.diagnosis.labels import suspect_labels


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


def test_planted_labels_come_first(color_model, flipped):
    images, labels, wrong = flipped
    result = suspect_labels(color_model, (images, labels), class_names=("blue", "red"))
    assert set(result.ranking[:6].tolist()) == wrong
    assert sorted(result.ranking) == list(range(120))
    np.testing.assert_array_equal(result.labels, labels)
    assert (result.given[result.ranking[:6]] < 0.5).all()
    assert (np.diff(result.given[result.ranking]) >= 0).all()
    np.testing.assert_array_equal(result.predicted == labels, result.given > 0.5)
    np.testing.assert_array_equal(result.images, images[result.ranking[:24]])
    assert "for 6 of 120 images" in str(result)
    first, names = result.to_frame().iloc[0], np.array(["blue", "red"])
    assert first["index"] in wrong and first["label"] == names[labels[first["index"]]]
    assert first["most likely"] == names[1 - labels[first["index"]]]
    assert first["probability of label"] == result.given.min() and "file" not in first


def test_labels_are_names_and_need_not_count_from_zero(color_model, flipped):
    images, labels, _ = flipped
    usual = suspect_labels(color_model, (images, labels))
    other = suspect_labels(color_model, (images, np.where(labels, 7, 3)))
    np.testing.assert_array_equal(other.ranking, usual.ranking)
    np.testing.assert_array_equal(other.given, usual.given)
    np.testing.assert_array_equal(other.predicted, np.where(usual.predicted, 7, 3))


def test_a_dataset_gives_the_same_and_the_names_of_its_files(color_model, flipped):
    images, labels, _ = flipped
    whole = suspect_labels(color_model, (images, labels))
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(50)
    batches.file_paths = [f"{index}.jpg" for index in range(120)]
    parts = suspect_labels(color_model, batches)
    np.testing.assert_allclose(parts.given, whole.given, atol=1e-5)
    np.testing.assert_array_equal(parts.images, images[parts.ranking[:24]])
    assert parts.to_frame()["file"].tolist() == [f"{index}.jpg" for index in parts.ranking]


def test_a_label_does_not_speak_for_itself(color_model, flipped):
    """Two labels exchanged are at once as unlikely as they were likely before."""
    images, labels, wrong = flipped
    right = [index for index in range(120) if index not in wrong]
    pair = [next(index for index in right if labels[index] == label) for label in (0, 1)]
    exchanged = labels.copy()
    exchanged[pair] = 1, 0
    before, after = (suspect_labels(color_model, (images, y)) for y in (labels, exchanged))
    assert (before.given[pair] > 0.5).all() and (after.given[pair] < 0.5).all()


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
