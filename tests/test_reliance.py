"""Reliance on regions that a network is known to use or not to use."""

import numpy as np
import pytest

from cnnviz.diagnosis.measures import evidence_share
from cnnviz.diagnosis.reliance import reliance
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities


@pytest.mark.parametrize("margin", [0, 4])
def test_a_network_relies_on_the_spot_and_on_nothing_else(color_model, spots, margin):
    images, labels = spots
    images = np.pad(images, ((0, 0), (0, 0), (0, margin), (0, 0)), constant_values=0.5)
    masks = np.abs(images - 0.5).max(axis=3) > 0
    on_spot = reliance(color_model, images, masks, class_index=labels)
    assert on_spot.share == 1 and (on_spot.low, on_spot.high) == (1, 1)
    assert on_spot.area == pytest.approx(36 / (16 * (16 + margin))) and on_spot.n_images == 6
    beside = reliance(color_model, images, ~masks)
    assert beside.share == 0 and beside.changed == 0
    assert "100% of the evidence" in str(on_spot)


def test_predictions_change_with_the_region_that_they_rest_on(color_model):
    # Two red stripes, a strong one on the right: without it a blue one decides.
    images = np.zeros((4, 16, 16, 3), np.float32)
    images[:, :, :2, 2], images[:, :, 10:, 0] = 1, 1
    images[3] = images[3, :, :, ::-1]  # blue wins, and loses what it rests on
    right, left = (np.tile(stripe, (16, 1)) for stripe in (np.arange(16) >= 10, np.arange(16) < 2))
    result = reliance(color_model, images, right)
    assert result.changed == 1 and result.share == 1
    assert reliance(color_model, images, left).changed == 0


def test_the_region_is_painted_in_the_mean_color(color_model, spots, monkeypatch):
    images, _ = spots
    mask = np.zeros((16, 16), bool)
    mask[2:9, 3:5] = True
    seen = []

    def keep(model, images):
        seen.append(np.array(images))
        return class_probabilities(model, images)

    monkeypatch.setattr("cnnviz.layers.class_probabilities", keep)
    reliance(color_model, images, mask)
    expected = images.copy()
    expected[:, mask] = images.mean((0, 1, 2))
    np.testing.assert_array_equal(seen[0], images)
    np.testing.assert_allclose(seen[1], expected)


def test_evidence_is_that_of_the_method(color_model, spots):
    (images, labels), mask = spots, np.arange(16)[:, None] < np.full(16, 8)
    for method in ("grad-cam", "layer-cam"):
        maps = grad_cam(color_model, images, class_index=labels, method=method).maps
        shares = evidence_share(maps, np.broadcast_to(mask, (6, 16, 16)))
        found = reliance(color_model, images, mask, class_index=labels, method=method)
        assert found.share == pytest.approx(np.nanmean(shares))


def test_the_interval_is_that_of_a_mean(color_model):
    masks = np.random.default_rng(1).random((400, 8, 8)) < 0.3
    shares = masks.mean((1, 2))  # of the evidence, which lies everywhere
    found = reliance(color_model, np.full((400, 8, 8, 3), [1, 0, 0], np.float32), masks)
    error = shares.std(ddof=1) / 20
    found = np.array([found.low, found.share, found.high]) - shares.mean()
    np.testing.assert_allclose(found, [-1.96 * error, 0, 1.96 * error], atol=error / 5)


def test_maps_without_evidence_count_neither_for_nor_against(color_model, spots):
    images, labels = spots
    result = reliance(color_model, images, np.ones((16, 16), bool), class_index=1 - labels)
    assert result.n_images == 0 and np.isnan([result.share, result.low, result.high]).all()


@pytest.mark.parametrize("masks", [np.ones((3, 16, 16), bool), np.ones((6, 16, 16))])
def test_masks_must_fit_the_images(color_model, spots, masks):
    with pytest.raises(ValueError, match="`masks`"):
        reliance(color_model, spots[0], masks)
