"""Measures of trust on a network whose evidence is known: see `color_model`."""

import re

import cv2
import keras
import numpy as np
import pytest

from cnnviz.data import resize_image
from cnnviz.diagnosis import trust
from cnnviz.grad_cam import grad_cam
from cnnviz.layers import class_probabilities


def small_model():
    layers = [keras.layers.Conv2D(4, 3, activation="relu") for _ in range(2)]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((None, None, 3)), *layers])


def test_mosaics_show_the_class_where_the_mask_and_the_evidence_are(color_model, spots):
    for own in (1, 2, 3):
        mosaics, class_index, masks = trust.make_mosaics(color_model, *spots, own, 8)
        assert mosaics.shape == (8, 32, 32, 3)
        assert class_index.tolist() == [0, 1] * 4
        assert masks.mean() == own / 4
        for image, mask, index in zip(mosaics, masks, class_index, strict=True):
            redder = image[..., 0] - image[..., 2] if index else image[..., 2] - image[..., 0]
            assert mask[redder > 0].all() and not mask[redder < 0].any()
            assert (redder > 0).sum() == own * 36 and (redder < 0).sum() == (4 - own) * 36
        assert trust.focus(color_model, mosaics, class_index, masks, method="hires-cam") == 1


def test_mosaics_keep_to_the_size_that_the_model_takes(spots):
    model = keras.Sequential([keras.Input((17, 17, 3)), keras.layers.Flatten()])
    images = np.stack([resize_image(image, 17) for image in spots[0]])
    mosaics, class_index, masks = trust.make_mosaics(model, images, spots[1], 2, 3)
    assert mosaics.shape == (3, 17, 17, 3) and masks.shape == (3, 17, 17)
    beside_seam = np.ix_(np.arange(17) != 8, np.arange(17) != 8)
    for image, mask, index in zip(mosaics, masks, class_index, strict=True):
        redder = (image[..., 0] - image[..., 2])[beside_seam] * (1 if index else -1)
        assert mask[beside_seam][redder > 0].all() and not mask[beside_seam][redder < 0].any()
        assert redder.max() > 0.5 and redder.min() < -0.5


def test_focus_of_a_network_that_knows_nothing_is_chance():
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(1)
    images, labels = random.uniform(0, 1, (40, 16, 16, 3)), np.tile([0, 1], 20)
    model = small_model()
    for own, chance in ((2, 0.5), (1, 0.25)):
        mosaics = trust.make_mosaics(model, images.astype(np.float32), labels, own, 60)
        assert trust.focus(model, *mosaics) == pytest.approx(chance, abs=0.06)


@pytest.mark.parametrize("height", [16, 12])
def test_deletion_and_insertion_are_areas_under_curves_done_by_hand(color_model, spots, height):
    images, labels = spots
    images, pixels = images[:, :height], height * 16
    maps = grad_cam(color_model, images, class_index=labels, method="hires-cam").maps
    mean = images.mean((0, 1, 2))
    curves = np.zeros((2, trust.STEPS + 1, len(images)))
    for which, (image, heat, label) in enumerate(zip(images, maps, labels, strict=True)):
        order = sorted(range(pixels), key=lambda pixel, heat=heat: -heat.ravel()[pixel])
        blurred = cv2.GaussianBlur(image, (0, 0), trust.BLUR * 16)
        for step in range(trust.STEPS + 1):
            taken = order[: int(np.ceil(pixels * step / trust.STEPS))]
            deleted, inserted = image.reshape(pixels, 3).copy(), blurred.reshape(pixels, 3).copy()
            deleted[taken], inserted[taken] = mean, image.reshape(pixels, 3)[taken]
            both = np.stack([deleted, inserted]).reshape(2, height, 16, 3)
            curves[:, step, which] = class_probabilities(color_model, both)[:, label]
    curves = curves.mean(axis=2)
    areas = (curves[:, :-1] + curves[:, 1:]).mean(axis=1) / 2
    result = trust.deletion_and_insertion(color_model, images, maps, labels)
    np.testing.assert_allclose(result, areas, atol=1e-4)
    assert curves[0, 0] > 0.9 and curves[0, -1] == pytest.approx(0.5, abs=1e-3)


def test_shuffled_weights_come_back_also_after_an_error(color_model):
    before = color_model.get_weights()
    with pytest.raises(RuntimeError), trust.shuffled_weights(color_model):
        changed = color_model.get_weights()
        assert not np.array_equal(changed[0], before[0])
        for one, other in zip(changed, before, strict=True):
            np.testing.assert_array_equal(np.sort(one, axis=None), np.sort(other, axis=None))
        raise RuntimeError
    keras.tree.map_structure(np.testing.assert_array_equal, color_model.get_weights(), before)


def test_similarity_of_maps_is_their_rank_correlation():
    maps = np.random.default_rng(0).random((3, 5, 5))
    assert trust.map_similarity(maps, maps**3) == pytest.approx(1)
    assert trust.map_similarity(maps, -maps) == pytest.approx(-1)
    assert trust.map_similarity(maps, np.zeros((3, 5, 5))) == 0


def test_one_call_gives_the_table(color_model, spots):
    methods = ("grad-cam", "hires-cam")
    result = trust.map_trust(color_model, *spots, methods=methods, n_mosaics=6)
    assert result.methods == (*methods, "random", "center")
    np.testing.assert_allclose(
        [result.focus, result.pointing], [[1, 1, 0.5, 0.5], [1, 1, 0.25, 0.25]]
    )
    assert result.deletion[0] < result.deletion[2:].min()
    assert result.insertion[0] > result.insertion[2:].max()
    assert np.isfinite(result.survival).tolist() == [True, True, False, False]
    table, measures = result.to_frame(), "focus pointing deletion insertion survival".split()
    assert table.columns.tolist() == ["method", *measures]
    assert table["method"].tolist() == list(result.methods) and table["focus"][2] == 0.5
    assert re.findall("^(.*?):", str(result), re.MULTILINE) == measures
    assert "high is good; best 'grad-cam' with 1.000" in str(result)


def test_each_measure_is_what_its_own_function_gives(spots):
    """Of a network that is not sure, so that no measure is 0 or 1 and no two are alike."""
    keras.utils.set_random_seed(4)
    model, (images, labels) = small_model(), spots
    result = trust.map_trust(model, images, labels, methods=("layer-cam",), n_mosaics=10)
    for own, measured in ((2, result.focus), (1, result.pointing)):
        mosaics = trust.make_mosaics(model, images, labels, own, 10)
        assert measured[0] == pytest.approx(trust.focus(model, *mosaics, method="layer-cam"))
    assert 0.01 < abs(result.focus[0] - result.pointing[0])
    options = {"class_index": labels, "method": "layer-cam"}
    maps = grad_cam(model, images, **options).maps
    with trust.shuffled_weights(model):
        shuffled = grad_cam(model, images, **options).maps
    assert result.survival[0] == pytest.approx(trust.map_similarity(maps, shuffled))
    assert result.survival[0] < 0.99
    areas = trust.deletion_and_insertion(model, images, maps, labels)
    np.testing.assert_allclose([result.deletion[0], result.insertion[0]], areas, rtol=1e-4)


def test_baselines_are_no_methods_to_choose():
    rows = [[0.6, 0.3, 0.7, 0.6, -0.4], [0.4, 0.9, 0.6, np.nan, 0.5]]
    columns = np.float32(rows + [[0.9, 0.95, 0.1, 0.9, 0.0]] * 2).T
    result = trust.MapTrust(("a", "b", "random", "center"), *columns)
    best = [result.best(name) for name in trust.MEASURES]
    assert best == ["a", "b", "b", "a", "a"]


def test_one_call_gives_one_warning(spots):
    with pytest.warns(UserWarning, match="too large") as caught:
        trust.map_trust(small_model(), 255 * spots[0], spots[1], methods=("grad-cam",), n_mosaics=2)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    ("labels", "n_mosaics", "message"),
    [
        ([0, 1], 9, r"`labels` \(labels such as .* of shape \(2,\)"),
        ([0.5] * 6, 9, "`labels`"),
        ([0] * 6, 9, "two classes"),
        ([0] * 5 + [1], 9, "at least 2 images of each"),
        ([0, 1] * 3, -1, r"`n_mosaics` \(=-1\)"),
    ],
)
def test_wrong_labels_and_numbers_are_errors(color_model, spots, labels, n_mosaics, message):
    with pytest.raises(ValueError, match=message):
        trust.map_trust(color_model, spots[0], labels, n_mosaics=n_mosaics)
