"""Measures of trust on a network whose evidence is known: see `color_model`."""

import re

import keras
import numpy as np
import pytest

from cnnviz.data import resize_image
from cnnviz.diagnosis import trust
from cnnviz.grad_cam import grad_cam


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
        found = trust.focus(color_model, mosaics, class_index, masks, method="hires-cam")
        np.testing.assert_array_equal(found, np.ones(8))


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
        assert np.nanmean(trust.focus(model, *mosaics)) == pytest.approx(chance, abs=0.06)


def exact_solution(image, removed):
    """Of the equations, one for each removed pixel, all at once."""
    height, width, channels = image.shape
    matrix, right = np.eye(height * width), image.reshape(-1, channels).astype(float)
    for y, x in np.argwhere(removed):
        weights = np.zeros((height + 2, width + 2))
        weights[y : y + 3, x : x + 3] = [[1, 2, 1], [2, 0, 2], [1, 2, 1]]
        weights = weights[1:-1, 1:-1].ravel()  # without neighbors beyond the edge
        matrix[y * width + x] -= weights / weights.sum()
        right[y * width + x] = 0
    return np.linalg.solve(matrix, right).reshape(image.shape)


@pytest.mark.parametrize("kind", ["pixels", "a blob", "a corner"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_removed_pixels_are_filled_as_the_exact_solution_of_the_equations(kind, share):
    y, x = np.mgrid[-1:1:24j, -1:1:17j]
    image = np.stack([np.sin(3 * x + y), x * y, np.cos(5 * x)], -1).astype(np.float32)
    values = np.random.default_rng(0).random(y.shape)
    values = {"pixels": values, "a blob": -np.hypot(y, x), "a corner": x + y}[kind]
    removed = values >= np.quantile(values, 1 - share)
    filled, exact = trust.impute(image, removed), exact_solution(image, removed)
    np.testing.assert_array_equal(filled[~removed], image[~removed])
    assert np.abs(filled - exact).mean() < 0.02 * np.ptp(image)
    if kind == "pixels":
        np.testing.assert_allclose(filled, exact, atol=0.05 * np.ptp(image))


def test_road_tells_good_maps_from_none_and_from_wrong_ones(color_model, spots):
    images, labels = spots
    maps = grad_cam(color_model, images, class_index=labels, method="hires-cam").maps
    good, wrong = (trust.road(color_model, images, x, labels) for x in (maps, -maps))
    assert good.shape == (6,) and good.min() > 0.3
    assert wrong.mean() == pytest.approx(-0.4, abs=0.2)
    noise = np.random.default_rng(0).random((60, 16, 16), np.float32)
    random = trust.road(color_model, np.repeat(images, 10, 0), noise, np.repeat(labels, 10))
    assert abs(random.mean()) < 0.05
    maps = np.concatenate([maps[:1], 0 * maps[1:2], 0 * maps[2:3] + 1, maps[3:]])
    found = trust.road(color_model, images, maps, labels)
    assert np.isnan(found).tolist() == [False, True, True, False, False, False]


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
    some = maps * [[[1]], [[0]], [[-1]]]  # one is constant and left out
    assert trust.map_similarity(maps, some) == pytest.approx(0)
    assert np.isnan(trust.map_similarity(np.ones((3, 5, 5)), maps))


def test_one_call_gives_the_table(color_model, spots):
    methods = ("grad-cam", "hires-cam")
    result = trust.map_trust(color_model, *spots, methods=methods, n_mosaics=6, n_shuffles=3)
    assert result.methods == (*methods, "random", "center")
    shares = [[1, 1, 0.5, 0.5], [1, 1, 0.25, 0.25]]
    np.testing.assert_allclose([result.focus, result.pointing], shares)
    assert result.road[:2].min() > 0.3 > np.abs(result.road[2:]).max()
    assert np.isfinite(result.survival).tolist() == [True, True, False, False]
    measures = "focus pointing road survival".split()
    table = result.to_frame().set_index("method")
    for name in measures:
        low, mean, high = (table[name + end][:2] for end in ("_low", "", "_high"))
        assert (low <= mean).all() and (mean <= high).all()
    assert re.findall("^(.*?):", str(result), re.MULTILINE) == measures
    assert "best 'grad-cam' with 1.00 (1.00 to 1.00)." in str(result)


def test_shares_are_those_of_their_mosaics(spots):
    """Of a network that is not sure, so that no measure is 0 or 1 and no two are alike."""
    keras.utils.set_random_seed(4)
    model, (images, labels) = small_model(), spots
    options = {"methods": ("layer-cam",), "n_mosaics": 10, "n_shuffles": 2}
    result = trust.map_trust(model, images, labels, **options)
    for own, measured in ((2, result.focus), (1, result.pointing)):
        mosaics = trust.make_mosaics(model, images, labels, own, 10)
        wanted = np.nanmean(trust.focus(model, *mosaics, method="layer-cam"))
        assert measured[0] == pytest.approx(wanted)
    assert 0.01 < abs(result.focus[0] - result.pointing[0])


def test_neither_baselines_nor_constant_maps_are_best():
    values = {"focus": [0.6, np.nan, 0.7, 0.6], "pointing": [0.4, 0.3, 0.9, 0.8]}
    values |= {"road": [np.nan, np.nan, 0.1, 0.2], "survival": [-0.4, np.nan, np.nan, np.nan]}
    values = {name: np.float32(each) for name, each in values.items()}
    ends = {name: np.stack([each, each], 1) for name, each in values.items()}
    result = trust.MapTrust(("a", "b", "random", "center"), *values.values(), np.arange(4), ends)
    assert [result.best(name) for name in trust.MEASURES] == ["a", "a", None, "a"]
    focus, pointing, road, survival, *others = str(result).splitlines()
    assert focus.endswith("best 'a' with 0.60 (0.60 to 0.60), which may be chance.")
    assert road.endswith("no method has a number.") and survival.endswith("(-0.40 to -0.40).")
    assert others[0] == "Empty or constant maps of 'b': 1."


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
