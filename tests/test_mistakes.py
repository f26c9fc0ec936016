"""Mistakes and neighbours against what NumPy finds in all pictures at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz.diagnosis.features import picture_features
from cnnviz.diagnosis.mistakes import confident_mistakes
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities


@pytest.fixture(scope="module")
def faint_spots():
    """90 pictures with a red or blue square of some strength, nine under the wrong label."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 90).astype(np.int32)
    images = np.full((90, 16, 16, 3), 0.5, np.float32)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(0, 11, 2)
        image[top : top + 6, left : left + 6, 2 * (1 - label)] += random.uniform(0.1, 0.5)
    labels[::10] = 1 - labels[::10]
    return images, labels


def test_features_are_the_mean_of_the_last_feature_map(color_model, faint_spots):
    images = faint_spots[0][:5]
    red, blue = images[..., 0] - images[..., 2], images[..., 2] - images[..., 0]
    expected = np.stack([np.maximum(x, 0).mean((1, 2)) for x in (red, blue)], axis=1)
    np.testing.assert_allclose(picture_features(color_model, images), expected, atol=1e-6)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_the_worst_mistakes_and_their_neighbours(color_model, faint_spots, as_dataset):
    images, labels = faint_spots
    data = faint_spots
    if as_dataset:
        data = tf.data.Dataset.from_tensor_slices(faint_spots).batch(8)
    result = confident_mistakes(color_model, data, data, count=5, neighbours=3)

    probabilities = class_probabilities(color_model, images)
    given = probabilities[np.arange(90), labels]
    worst = np.argsort(given, kind="stable")[:5]
    assert set(worst) <= set(range(0, 90, 10))
    assert result.image_index.tolist() == worst.tolist()
    np.testing.assert_array_equal(result.images, images[worst])
    np.testing.assert_array_equal(result.labels, labels[worst])
    np.testing.assert_array_equal(result.predicted, 1 - labels[worst])
    np.testing.assert_allclose(result.probabilities, probabilities[worst], atol=1e-6)
    for maps, classes in zip(result.evidence, (labels[worst], 1 - labels[worst]), strict=True):
        own = grad_cam(color_model, images[worst], class_index=classes, method="hires-cam")
        np.testing.assert_allclose(maps.maps, own.maps, atol=1e-6)

    features = picture_features(color_model, images) + [0, 0]
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features[worst] @ features.T
    best = np.sort(similarity, axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(result.similarity, best, atol=1e-6)
    np.testing.assert_array_equal(result.neighbours, images[result.neighbour_index])
    np.testing.assert_array_equal(result.neighbour_labels, labels[result.neighbour_index])
    rows = np.arange(5)[:, None]
    np.testing.assert_allclose(similarity[rows, result.neighbour_index], best, atol=1e-6)


def test_the_most_confident_answer_comes_first_with_several_classes():
    """Not the one whose label is least likely, of which the answer may be unsure."""
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 1, use_bias=False)])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.layers[0].set_weights([np.eye(4, dtype=np.float32)[None, None]])
    rows = np.log([[1e-6, 0.35, 0.33, 0.319999], [0.02, 0.97, 0.005, 0.005]])
    images = np.broadcast_to(rows[:, None, None], (2, 8, 8, 4)).astype(np.float32)
    result = confident_mistakes(model, (images, np.array([0, 0])), count=2)
    assert result.image_index.tolist() == [1, 0]


def test_a_model_without_mistakes_has_none(color_model, spots):
    result = confident_mistakes(color_model, spots, spots)
    assert len(result.images) == 0 and result.evidence is None
    assert result.neighbours.shape == (0, 0, 16, 16, 3)


def test_without_training_data_there_are_no_neighbours(color_model, faint_spots):
    result = confident_mistakes(color_model, faint_spots, count=50)
    assert len(result.images) == 9 and result.neighbours.shape == (9, 0, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, r"`count` \(=0\)"),
        ({"neighbours": 1.5}, r"`neighbours` \(=1.5\)"),
        ({"training_data": (np.zeros((2, 8, 8, 3)), [0, 1])}, "`training_data`"),
    ],
)
def test_wrong_arguments_are_named(color_model, faint_spots, options, message):
    with pytest.raises(ValueError, match=message):
        confident_mistakes(color_model, faint_spots, **options)


def test_labels_that_the_model_does_not_know_are_named(color_model, spots):
    with pytest.raises(ValueError, match=r"labels 2\.\.2"):
        confident_mistakes(color_model, (spots[0], [2] * 6))
