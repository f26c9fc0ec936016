"""Mistakes and neighbors against what NumPy finds in all images at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz import layers
from cnnviz.diagnosis.measures import mean_features
from cnnviz.diagnosis.mistakes import confident_mistakes
from cnnviz.grad_cam import grad_cam


@pytest.fixture(scope="module")
def faint_spots():
    """90 images with a red or blue square of some strength, nine under the wrong label."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 90).astype(np.int32)
    images = np.full((90, 16, 16, 3), 0.5, np.float32)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(0, 11, 2)
        image[top : top + 6, left : left + 6, 2 * (1 - label)] += random.uniform(0.1, 0.5)
    labels[::10] = 1 - labels[::10]
    return images, labels


def features(model, images):
    return layers.run(model, images, mean_features, key="features", record=layers.every_layer)[0]


def test_features_are_the_mean_of_the_last_feature_map(color_model, faint_spots):
    images = faint_spots[0][:40]
    red, blue = images[..., 0] - images[..., 2], images[..., 2] - images[..., 0]
    expected = np.stack([np.maximum(x, 0).mean((1, 2)) for x in (red, blue)], axis=1)
    np.testing.assert_allclose(features(color_model, images), expected, atol=1e-6)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_the_worst_mistakes_and_their_neighbors(color_model, faint_spots, as_dataset):
    images, labels = data = faint_spots
    if as_dataset:
        data = tf.data.Dataset.from_tensor_slices(faint_spots).batch(8)
    names = ("blue", "red")
    options = {"n_mistakes": 5, "n_neighbors": 3, "class_names": names}
    result = confident_mistakes(color_model, data, data, **options)

    probabilities = layers.class_probabilities(color_model, images)
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

    directions = features(color_model, images)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    similarity = directions[worst] @ directions.T
    best = np.sort(similarity, axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(result.similarity, best, atol=1e-6)
    np.testing.assert_array_equal(result.neighbors, images[result.neighbor_index])
    np.testing.assert_array_equal(result.neighbor_labels, labels[result.neighbor_index])
    rows = np.arange(5)[:, None]
    np.testing.assert_allclose(similarity[rows, result.neighbor_index], best, atol=1e-6)

    share = (result.neighbor_labels == result.predicted[:, None]).mean()
    assert str(result).startswith(f"5 mistakes, the most confident first; {share:.0%} of")
    table = result.to_frame()
    assert table["index"].tolist() == worst.tolist()
    assert table["label"].tolist() == [names[label] for label in labels[worst]]
    assert table["predicted"].tolist() == [names[label] for label in result.predicted]


def test_the_most_confident_prediction_comes_first_with_several_classes():
    """Not the one whose label is least likely, of which the prediction may be unsure."""
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(4, 1, use_bias=False)])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.layers[0].set_weights([np.eye(4, dtype=np.float32)[None, None]])
    rows = np.log([[1e-6, 0.35, 0.33, 0.319999], [0.02, 0.97, 0.005, 0.005]])
    images = np.broadcast_to(rows[:, None, None], (2, 8, 8, 4)).astype(np.float32)
    result = confident_mistakes(model, (images, np.array([0, 0])), n_mistakes=2)
    assert result.image_index.tolist() == [1, 0]


def test_without_mistakes_or_training_data_there_are_no_neighbors(color_model, spots, faint_spots):
    result = confident_mistakes(color_model, spots, spots)
    assert len(result.images) == len(result.to_frame()) == 0 and result.evidence is None
    assert result.neighbors.shape == (0, 0, 16, 16, 3) and str(result).startswith("0 mistakes")
    result = confident_mistakes(color_model, faint_spots, n_mistakes=50)
    assert len(result.images) == 9 and result.neighbors.shape == (9, 0, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_mistakes": 0}, r"`n_mistakes` \(=0\)"),
        ({"n_neighbors": 1.5}, r"`n_neighbors` \(=1.5\)"),
        ({"train": (np.zeros((2, 8, 8, 3)), [0, 1])}, "`train`"),
        ({"test": (np.zeros((6, 8, 8, 3)), [2] * 6)}, r"`test` .*labels 2\.\.2"),
    ],
)
def test_wrong_arguments_are_named(color_model, faint_spots, options, message):
    with pytest.raises(ValueError, match=message):
        confident_mistakes(color_model, **{"test": faint_spots} | options)
