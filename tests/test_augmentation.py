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


# cut_mix_batch


def flat_batch(count=40, size=20):
    """Pictures of one value each, by which it can be told what a pixel is from; and labels."""
    values = np.arange(count, dtype=np.float32)
    return np.broadcast_to(values[:, None, None, None], (count, size, size, 3)).copy(), values % 2


def test_labels_are_mixed_as_the_areas_are():
    images, labels = flat_batch()
    mixed, mixed_labels = cut_mix_batch(images, labels, np.random.default_rng(0), share=1)
    assert mixed.dtype == mixed_labels.dtype == np.float32
    for index, (image, label) in enumerate(zip(mixed, mixed_labels, strict=True)):
        sources = image[..., 0].astype(int)
        assert len(np.unique(sources)) <= 2  # its own, and those of one other
        np.testing.assert_allclose(label, (sources % 2).mean(), atol=1e-6)
        rows, columns = np.nonzero(sources != index)
        if len(rows):  # the piece is a full rectangle
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    np.testing.assert_array_equal(images, flat_batch()[0])  # what was given is as it was


def test_pieces_are_of_every_size_and_come_from_every_picture_as_it_was():
    images, labels = flat_batch(400)
    mixed, _ = cut_mix_batch(images, labels, np.random.default_rng(1), share=1)
    own = np.arange(400)[:, None, None]
    areas = (mixed[..., 0] != own).mean(axis=(1, 2))
    assert areas.min() < 0.05 and areas.max() > 0.8 and 0.25 < areas.mean() < 0.5
    others = {int(source) for image in mixed for source in np.unique(image)}
    assert len(others) > 350


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_share_of_the_pictures_that_get_a_piece(share):
    images, labels = flat_batch(1000, size=12)
    mixed, _ = cut_mix_batch(images, labels, np.random.default_rng(2), share=share)
    changed = (mixed != images).any(axis=(1, 2, 3)).mean()
    assert share - 0.06 < changed < share + 0.04  # a piece may fall beside the picture


# vary


def dark_and_bright():
    """Two batches of four pictures, with labels that can be told from the pictures."""
    labels = np.tile([0, 1], 4)
    images = np.broadcast_to(60.0 + 130 * labels[:, None, None, None], (8, 16, 16, 3))
    return tf.data.Dataset.from_tensor_slices((images.astype(np.float32), labels)).batch(4)


def varied(epoch=0, sizes=(None, None), seed=0, strength=1):
    clock = EpochClock(sizes)
    clock.epoch = epoch
    return list(vary(dark_and_bright(), clock, seed=seed, strength=strength).as_numpy_iterator())


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


def test_mixed_labels_are_shares_and_only_of_training_pictures():
    clock = EpochClock((None,))
    mixed = list(vary(dark_and_bright(), clock, seed=0, strength=1, cut_mix=1.0))
    labels = np.concatenate([labels for _, labels in mixed])
    assert labels.dtype == np.float32 and ((labels > 0) & (labels < 1)).any()
    for images, shares in mixed:
        bright = (np.where(images == 128, np.nan, images) > 128).mean(axis=(1, 2, 3))
        assert np.abs(bright - shares).max() < 0.15  # the grey square hides a part
    plain = vary(dark_and_bright(), EpochClock((8,)), seed=0, strength=0, cut_mix=1.0)
    assert {labels.dtype for _, labels in plain} == {tf.int64}
