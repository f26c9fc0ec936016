"""Numbers against planted truths, and the calibration of Grad-CAM on drawn pets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnviz
from cnnviz.diagnosis.batches import image_batches, labelled_batches
from cnnviz.diagnosis.measures import mean_color


def test_evidence_share_of_a_map_that_lies_half_inside():
    maps = np.zeros((2, 8, 8), np.float32)
    maps[0, 2:4, 2:6] = 3.0
    maps[1, 7, 7] = 1.0
    masks = np.zeros((2, 8, 8), bool)
    masks[:, :, :4] = True
    np.testing.assert_allclose(cnnviz.evidence_share(maps, masks), [0.5, 0.0])


def test_evidence_share_enlarges_the_map_to_the_mask():
    maps = np.zeros((1, 4, 6), np.float32)
    maps[0, :, :3] = 1.0  # the left half, blurred over the border by the enlargement
    masks = np.zeros((1, 48, 96), bool)
    masks[:, :, :48] = True
    assert 0.9 < cnnviz.evidence_share(maps, masks)[0] < 1.0


def test_an_empty_map_counts_neither_for_nor_against():
    shares = cnnviz.evidence_share(np.zeros((1, 4, 4)), np.ones((1, 8, 8), bool))
    assert np.isnan(shares).all()


def test_evidence_share_names_shapes_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"`maps` \(of shape \(2, 4, 4\)\)"):
        cnnviz.evidence_share(np.zeros((2, 4, 4)), np.zeros((3, 8, 8), bool))


def test_dead_channels_are_those_that_never_change():
    maps = np.random.default_rng(0).normal(size=(5, 4, 4, 6))
    maps[..., 1] = 0.0
    maps[..., 4] = 2.5
    maps[:-1, ..., 5] = 0.0  # fires on the last picture only
    assert cnnviz.dead_channels(maps).tolist() == [False, True, False, False, True, False]


def two_classes(dog):
    dog = np.asarray(dog, np.float64)
    return np.stack([1 - dog, dog], axis=1)


def test_calibration_error_is_the_distance_of_confidence_from_accuracy():
    # 80 % sure of dog ten times, right six times; 70 % sure of cat ten times, right nine times.
    probabilities = two_classes([0.8] * 10 + [0.3] * 10)
    labels = [1] * 6 + [0] * 4 + [0] * 9 + [1]
    error = cnnviz.expected_calibration_error(probabilities, labels)
    assert error == pytest.approx((0.2 + 0.2) / 2)
    # In one bin the two distances cancel: 0.75 sure on average, right 15 times of 20.
    assert cnnviz.expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(0)


@pytest.mark.parametrize("classes", [2, 5])
def test_calibrated_predictions_have_nearly_no_error_and_sharpened_ones_have(classes):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, 0.4), 20_000)
    labels = (rng.random((20_000, 1)) < probabilities.cumsum(axis=1)).argmax(axis=1)
    assert cnnviz.expected_calibration_error(probabilities, labels) < 0.012
    sharper = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    # By how much is known: accuracy stays that of the true probabilities.
    gap = sharper.max(axis=1).mean() - probabilities.max(axis=1).mean()
    error = cnnviz.expected_calibration_error(sharper, labels)
    assert error == pytest.approx(gap, abs=0.015) and gap > 0.05


def test_calibration_bins_hold_every_picture_once():
    edges, shares, confidences, right = cnnviz.calibration_bins(
        two_classes([0, 0.5, 0.95, 1]), [0, 1, 1, 0], bins=10
    )
    np.testing.assert_allclose(edges, np.arange(11) / 10)
    np.testing.assert_allclose(shares, [0, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.75])
    np.testing.assert_allclose(confidences[[5, 9]], [0.5, (1 + 0.95 + 1) / 3])
    np.testing.assert_allclose(right[[5, 9]], [0, 2 / 3])


@pytest.mark.parametrize("labels", [[0], [[0], [1]], []])
def test_calibration_names_shapes_that_do_not_belong_together(labels):
    probabilities = np.full((2 if len(labels) else 0, 2), 0.5)
    with pytest.raises(ValueError, match=r"`probabilities` \(of shape .* `labels`"):
        cnnviz.expected_calibration_error(probabilities, labels)


@pytest.fixture(scope="module")
def drawn_pets_model():
    """A small network trained on drawn pets, and fresh pictures."""
    keras.utils.set_random_seed(0)
    parts = [cnnviz.drawn_pets(count, image_size=96, seed=count) for count in (1000, 100)]
    train, validation = (
        tf.data.Dataset.from_tensor_slices((pets.images, pets.labels)).batch(50) for pets in parts
    )
    model = cnnviz.build_model(width=12)
    cnnviz.train(model, train, validation, epochs=9, verbose=0)
    return model, cnnviz.drawn_pets(200, image_size=96, seed=3)


def test_a_network_trained_on_drawn_pets_finds_its_evidence_on_the_animal(drawn_pets_model):
    model, pets = drawn_pets_model
    accuracy = (cnnviz.class_probabilities(model, pets.images).argmax(1) == pets.labels).mean()
    assert accuracy > 0.9
    maps = cnnviz.grad_cam(model, pets.images).maps
    # Measured: 0.54 on the animal, which fills 0.34 of the picture; 0.16 on ears and muzzle, 0.08.
    assert evidence(maps, pets.animal_masks) > pets.animal_masks.mean() + 0.05
    assert evidence(maps, pets.part_masks) > 1.3 * pets.part_masks.mean()


def test_hires_cam_an_earlier_layer_finds_the_animal_better(drawn_pets_model):
    model, pets = drawn_pets_model
    layer = {"layer_name": "block4_conv1_relu", "method": "hires-cam"}
    maps = cnnviz.grad_cam(model, pets.images, **layer).maps
    # Measured: 0.68 on the animal, 0.22 on ears and muzzle.
    assert evidence(maps, pets.animal_masks) > pets.animal_masks.mean() + 0.15
    assert evidence(maps, pets.part_masks) > 1.8 * pets.part_masks.mean()


def evidence(maps, masks):
    return np.nanmean(cnnviz.evidence_share(maps, masks))


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([[0.99], [0.01]], r"of shape \(2, 1\), in 0.01..0.99\) must be those of two classes"),
        ([[4.0, -2.0], [-1.0, 3.0]], r"in -2..4\) must be"),
        ([[0.5, np.nan], [0.5, 0.5]], "must be those of two classes"),
    ],
)
def test_calibration_is_of_probabilities_of_all_classes(probabilities, message):
    with pytest.raises(ValueError, match=f"`probabilities` .*{message}"):
        cnnviz.expected_calibration_error(probabilities, [1, 0])


def test_the_mean_colour_of_many_pictures_is_not_rounded_away():
    pictures = np.broadcast_to(np.float32([120, 7, 255]), (1, 6000, 6000, 3))  # 36 million pixels
    np.testing.assert_allclose(mean_color(pictures), [120, 7, 255], rtol=1e-6)


# the forms of data


@pytest.mark.parametrize("form", ["pair", "weights", "arrays", "arrays and weights"])
def test_what_fit_takes_the_diagnoses_take_too(color_model, spots, form):
    images, labels = spots
    data = (images, labels, np.ones(len(labels)))[: 3 if "weights" in form else 2]
    if "arrays" not in form:
        data = tf.data.Dataset.from_tensor_slices(data).batch(4)
    batches = list(labelled_batches(color_model, data, "reading"))
    np.testing.assert_array_equal(np.concatenate([one for one, _ in batches]), images)
    np.testing.assert_array_equal(np.concatenate([other for _, other in batches]), labels)
    pictures = np.concatenate(list(image_batches(color_model, data, "reading")))
    np.testing.assert_array_equal(pictures, images)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_one_hot_labels_are_class_indices(color_model, spots, dtype):
    images, labels = spots
    data = tf.data.Dataset.from_tensor_slices((images, np.eye(2)[labels].astype(dtype))).batch(4)
    found = [other for _, other in labelled_batches(color_model, data, "reading")]
    np.testing.assert_array_equal(np.concatenate(found), labels)


@pytest.mark.parametrize("look", [cnnviz.suspect_labels, cnnviz.confident_mistakes])
def test_places_in_shuffled_data_mean_nothing_and_that_is_said(color_model, spots, look):
    images, labels = (np.concatenate([part] * 5) for part in spots)
    images += np.arange(len(images), dtype=np.float32)[:, None, None, None] / 1000
    data = tf.data.Dataset.from_tensor_slices((images, 1 - labels))
    with pytest.warns(UserWarning, match="`data` comes in another order") as caught:
        look(color_model, data.shuffle(1000, seed=0).batch(8))
    assert [warning.filename for warning in caught] == [__file__]
    look(color_model, data.shuffle(1000, reshuffle_each_iteration=False).batch(8))  # no warning


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda images, labels: (images,), "without labels"),
        (lambda images, labels: (images, np.eye(3)[labels] / 2), "one class index"),
        (lambda images, labels: (images, np.ones((len(labels), 2))), "one class index"),
        (lambda images, labels: {"images": images, "labels": labels}, "a dict"),
        (lambda images, labels: (images, np.array(["cat"] * len(labels))), "one class index"),
        (lambda images, labels: (images, labels + 0.5), "one class index"),
        (lambda images, labels: (images, labels + np.inf), "one class index"),
        (lambda images, labels: (images, images), "labels of shape"),
    ],
)
def test_other_forms_of_data_are_errors_that_name_it(color_model, spots, make, message):
    data = tf.data.Dataset.from_tensor_slices(make(*spots)).batch(4)
    with pytest.raises(ValueError, match=f"`data` .*{message}"):
        list(labelled_batches(color_model, data, "reading"))
