"""How pictures vary: against pictures of which every change can be told afterwards."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from cnnviz.augmentation import augment_batch, cut_mix_batch, vary
from cnnviz.callbacks import EpochClock
from cnnviz.recipe import CUT_OUT, LIGHTING, SMALLEST_CROP


def augmented(images, seed=(0, 0), **options):
    return augment_batch(np.asarray(images, np.float32), np.random.default_rng(seed), **options)


def ramps(count, size=24):
    """Pictures that brighten from left to right, within what lighting cannot push out of range."""
    return np.broadcast_to(np.linspace(64, 192, size)[:, None], (count, size, size, 3))


def unhidden(image):
    """The rows and columns of a picture that the painted square does not touch."""
    hidden = (image == 128).all(axis=-1)
    return image[~hidden.any(axis=1)][:, ~hidden.any(axis=0)]


@pytest.mark.parametrize("shape", [(5, 20, 24, 3), (1, 16, 16, 3)])
def test_augmented_pictures_keep_shape_type_and_range(shape):
    images = np.random.default_rng(0).choice([0.0, 255.0], shape)
    for seed in range(5):
        result = augmented(images, (seed, 1))
        assert result.shape == shape and result.dtype == np.float32
        assert 0 <= result.min() and result.max() <= 255


def test_each_picture_of_a_batch_is_varied_in_its_own_way():
    results = augmented(ramps(8))
    for one, other in itertools.combinations(results, 2):
        assert np.abs(one - other).mean() > 0.5


def test_same_seed_same_variation_and_other_seed_another():
    np.testing.assert_array_equal(augmented(ramps(4), (1, 2)), augmented(ramps(4), (1, 2)))
    assert np.abs(augmented(ramps(4), (1, 2)) - augmented(ramps(4), (1, 3))).mean() > 1


def test_middle_grey_changes_by_its_brightness_alone():
    for image in augmented(np.full((32, 16, 16, 3), 128.0)):
        light = image[image != 128]
        np.testing.assert_allclose(light, light[0], rtol=1e-6)
        assert abs(light[0] - 128) <= 128 * LIGHTING + 1e-3


def test_half_of_the_pictures_are_mirrored():
    falls = [
        unhidden(image)[0, 0, 0] > unhidden(image)[0, -1, 0] for image in augmented(ramps(400))
    ]
    assert 0.4 < np.mean(falls) < 0.6


def test_crop_keeps_neighbours_neighbours():
    for image in augmented(ramps(64)):
        for rows in (image, image[::-1]):  # the square leaves the first or the last row whole
            row = rows[0, :, 0]
            if (row != 128).all():
                steps = np.diff(row)
                assert (steps >= -1e-3).all() or (steps <= 1e-3).all()
                assert 128 * 0.6 * (1 - LIGHTING) < np.abs(steps).sum() < 128 * (1 + LIGHTING)


def test_crop_differs_from_picture_to_picture_in_place():
    lefts = [unhidden(image)[0, :, 0].mean() for image in augmented(ramps(32))]
    assert np.std(lefts) > 3


@pytest.mark.parametrize("strength", [0.5, 1, 2])
def test_hidden_square_has_the_stated_size_and_moves(strength):
    images = augmented(np.full((400, 40, 40, 3), 30.0), strength=strength)
    hidden = (images == 128).all(axis=-1)
    heights, widths = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(hidden.sum(axis=(1, 2)), heights * widths)  # full rectangles
    assert heights.max() == widths.max() == 40 * strength * CUT_OUT
    assert hidden.any(axis=0).mean() > 0.95  # hardly a place is spared
    assert len({tuple(np.argwhere(one)[0]) for one in hidden}) > 30


@pytest.mark.parametrize("image_size", [12, 40])
def test_pictures_come_at_the_size_asked_for(image_size):
    assert augmented(ramps(2), image_size=image_size).shape == (2, image_size, image_size, 3)


@pytest.mark.parametrize("strength", [0.5, 1, 2])
@pytest.mark.parametrize("axis", ["width", "height"])
def test_crops_are_as_large_as_stated(strength, axis):
    """On a ramp of known slope the change over a row tells how wide the crop was."""
    image = np.broadcast_to(np.linspace(100, 150, 240)[:, None], (1, 240, 240, 3))
    image = image if axis == "width" else image.transpose(0, 2, 1, 3)
    shares = []
    for seed in range(200):
        row = augmented(image, (seed,), strength=strength)[0]
        row = row if axis == "width" else row.transpose(1, 0, 2)
        lines = row[[0, -1], :, 0]
        line = lines[(lines != 128).all(axis=1)]
        if len(line):
            shares.append(abs(line[0, -1] - line[0, 0]) / 50)
    lighting = strength * LIGHTING
    low, high = (1 - strength * (1 - SMALLEST_CROP)) * (1 - lighting), 1 + lighting
    assert low - 0.01 < min(shares) < low + 0.12 and high - 0.12 < max(shares) < high + 0.01


# CutMix


def test_labels_of_mixed_pictures_are_the_shares_of_their_pixels():
    """Black and white pictures tell for themselves how much of each is in them."""
    labels = np.tile([0, 1], 200)
    images = np.broadcast_to(labels[:, None, None, None] * 255.0, (400, 20, 30, 3))
    mixed, mixed_labels = cut_mix_batch(images, labels, np.random.default_rng(0), share=1.0)
    np.testing.assert_allclose(mixed.mean((1, 2, 3)) / 255, mixed_labels, atol=1e-6)
    partly = (mixed_labels > 0) & (mixed_labels < 1)
    assert 0.3 < partly.mean() < 0.5  # about half of the others are of the same class
    assert mixed_labels[partly].min() < 0.1 and mixed_labels[partly].max() > 0.9
    assert set(images.ravel()) == {0, 255} and labels.max() == 1  # what was given stays


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_so_many_pictures_are_mixed(share):
    """Of pictures that are all different every piece of another shows."""
    images = np.arange(400.0)[:, None, None, None] * np.ones((1, 16, 16, 3))
    mixed, _ = cut_mix_batch(images, np.zeros((400, 1)), np.random.default_rng(1), share=share)
    changed = (mixed != images).any(axis=(1, 2, 3))
    assert abs(changed.mean() - share) < 0.08
    for image, own in zip(mixed, images, strict=True):
        piece = (image != own).all(axis=-1)
        assert piece.sum() == piece.any(0).sum() * piece.any(1).sum()  # a full rectangle
        assert len(np.unique(image)) <= 2


# vary


def dark_and_bright():
    """Two batches of four pictures, with labels that can be told from the pictures."""
    labels = np.tile([0, 1], 4)
    images = np.broadcast_to(60.0 + 130 * labels[:, None, None, None], (8, 16, 16, 3))
    return tf.data.Dataset.from_tensor_slices((images.astype(np.float32), labels)).batch(4)


def varied(epoch=0, sizes=(None, None), seed=0, strength=1, cut_mix=0):
    clock = EpochClock(sizes)
    clock.epoch = epoch
    data = vary(dark_and_bright(), clock, seed=seed, strength=strength, cut_mix=cut_mix)
    return list(data.as_numpy_iterator())


def test_varied_pictures_are_mixed_as_far_as_was_asked():
    labels = [np.concatenate([each for _, each in varied(cut_mix=share)]) for share in (0, 1)]
    assert labels[0].dtype.kind == "i" and labels[1].dtype == np.float32
    assert set(labels[0]) == {0, 1} and ((labels[1] > 0) & (labels[1] < 1)).any()
    again = np.concatenate([each for _, each in varied(cut_mix=1)])
    np.testing.assert_array_equal(labels[1], again)


def test_labels_stay_with_their_pictures():
    for (images, labels), (_, original) in zip(varied(), dark_and_bright(), strict=True):
        np.testing.assert_array_equal(labels, original)
        np.testing.assert_array_equal(np.median(images, axis=(1, 2, 3)) > 128, labels == 1)


def test_each_epoch_batch_and_seed_varies_in_its_own_way_and_the_same_again_the_same():
    first = [images for images, _ in varied()]
    assert np.abs(first[0] - first[1]).mean() > 1
    for other in (varied(epoch=1), varied(seed=1)):
        assert np.abs(first[0] - other[0][0]).mean() > 1
    for batch, (images, _) in zip(first, varied(), strict=True):
        np.testing.assert_array_equal(batch, images)


def test_batches_have_the_size_of_their_epoch():
    sizes = [varied(epoch, (8, 12), strength=strength)[0][0].shape
             for epoch in (0, 1) for strength in (1, 0)]  # fmt: skip
    assert sizes == [(4, 8, 8, 3)] * 2 + [(4, 12, 12, 3)] * 2


def test_without_augmentation_pictures_are_only_resized():
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)
    data = tf.data.Dataset.from_tensors((images, np.zeros(4)))
    resized, _ = next(iter(vary(data, EpochClock((8,)), seed=0, strength=0)))
    blocks = images.reshape(4, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(resized, blocks, atol=1e-3)


def test_number_of_batches_stays_known():
    assert int(vary(dark_and_bright(), EpochClock((None,)), seed=0, strength=1).cardinality()) == 2
