"""Measures against planted truths, and indices in shuffled data."""

import numpy as np
import pytest
import tensorflow as tf

import cnnviz
from cnnviz.diagnosis import calibration_bins, evidence_share, expected_calibration_error
from cnnviz.diagnosis.measures import bootstrapped, mean_color


def test_evidence_share_of_maps_that_lie_half_inside_or_are_empty_or_smaller_than_the_mask():
    maps, masks = np.zeros((3, 8, 8), np.float32), np.zeros((3, 8, 8), bool)
    maps[0, 2:4, 2:6], maps[1, 7, 7], masks[:, :, :4] = 3, 1, True
    np.testing.assert_allclose(evidence_share(maps, masks), [0.5, 0.0, np.nan])
    masks = np.broadcast_to(np.arange(96) < 48, (1, 48, 96))
    maps = np.float32([[[1, 1, 1, 0, 0, 0]] * 4])  # the left half; enlarged, it is blurred
    assert 0.9 < evidence_share(maps, masks)[0] < 1.0
    with pytest.raises(ValueError, match=r"`maps` \(of shape \(2, 4, 4\)\)"):
        evidence_share(np.zeros((2, 4, 4)), np.zeros((3, 8, 8), bool))


def test_the_mean_color_of_many_images_is_not_rounded_away():
    images = np.broadcast_to(np.float32([120, 7, 255]), (1, 6000, 6000, 3))  # 36 million pixels
    np.testing.assert_allclose(mean_color(images), [120, 7, 255], rtol=1e-6)


def test_interval_is_that_of_a_mean():
    random, covered = np.random.default_rng(0), 0
    for _ in range(100):
        mean, low, high = bootstrapped(random.normal(0.3, 1, 60))
        covered += low <= 0.3 <= high
        assert low < mean < high and high - low == pytest.approx(4 / 60**0.5, rel=0.4)
    assert 88 <= covered <= 99
    assert np.isnan(bootstrapped([np.nan, np.nan])).all()
    assert bootstrapped([0.5, np.nan]) == (0.5, 0.5, 0.5)


def two_classes(dog):
    dog = np.asarray(dog, np.float64)
    return np.stack([1 - dog, dog], axis=1)


def test_calibration_error_is_the_distance_of_confidence_from_accuracy():
    # 80 % sure of dog ten times, right six times; 70 % sure of cat ten times, right nine times.
    probabilities = two_classes([0.8] * 10 + [0.3] * 10)
    labels = [1] * 6 + [0] * 4 + [0] * 9 + [1]
    error = expected_calibration_error(probabilities, labels)
    assert error == pytest.approx((0.2 + 0.2) / 2)
    # In one bin the two distances cancel: 0.75 sure on average, right 15 times of 20.
    assert expected_calibration_error(probabilities, labels, n_bins=1) == pytest.approx(0)


@pytest.mark.parametrize("classes", [2, 5])
def test_calibrated_predictions_have_nearly_no_error_and_sharpened_ones_have(classes):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, 0.4), 20_000)
    labels = (rng.random((20_000, 1)) < probabilities.cumsum(axis=1)).argmax(axis=1)
    assert expected_calibration_error(probabilities, labels) < 0.012
    sharper = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    # By how much is known: accuracy stays that of the true probabilities.
    gap = sharper.max(axis=1).mean() - probabilities.max(axis=1).mean()
    error = expected_calibration_error(sharper, labels)
    assert error == pytest.approx(gap, abs=0.015) and gap > 0.05


def test_calibration_bins_hold_every_image_once():
    bins = calibration_bins(two_classes([0, 0.5, 0.95, 1]), [0, 1, 1, 0], n_bins=10)
    edges, shares, confidences, accuracies = bins
    np.testing.assert_allclose(edges, np.arange(11) / 10)
    np.testing.assert_allclose(shares, [0, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.75])
    np.testing.assert_allclose(confidences[[5, 9]], [0.5, (1 + 0.95 + 1) / 3])
    np.testing.assert_allclose(accuracies[[5, 9]], [0, 2 / 3])


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]] * 2, [0], r"`labels` \(labels such as .* of shape \(1,\)"),
        (np.zeros((0, 2)), [], r"`probabilities` \(of shape \(0, 2\)"),
        ([[0.99], [0.01]], [1, 0], r"of shape \(2, 1\), \[\[0.99\]\]...\) must be .* two classes"),
        ([[4.0, -2.0], [-1.0, 3.0]], [1, 0], r"\[\[ 4. -2.\]\]...\) must be"),
        ([[0.5, np.nan], [0.5, 0.5]], [1, 0], r"in 0\.\.1"),
    ],
)
def test_calibration_is_of_probabilities_of_all_classes(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(probabilities, labels)


@pytest.mark.parametrize("method", [cnnviz.suspect_labels, cnnviz.confident_mistakes])
def test_indices_in_shuffled_data_mean_nothing_and_a_warning_says_so(color_model, spots, method):
    images, labels = (np.concatenate([part] * 5) for part in spots)
    images += np.arange(len(images), dtype=np.float32)[:, None, None, None] / 1000
    data = tf.data.Dataset.from_tensor_slices((images, 1 - labels))
    with pytest.warns(UserWarning, match="` comes in another order") as caught:
        found = method(color_model, data.shuffle(1000, seed=0).batch(8))
    assert [warning.filename for warning in caught] == [__file__]
    if method is cnnviz.suspect_labels:
        html = found._repr_html_()
        assert found.images is None and "<table" in html and "<img" not in html
    method(color_model, data.shuffle(1000, reshuffle_each_iteration=False).batch(8))  # no warning
