"""Augmentation, against images in which every change can be measured afterwards."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from cnnviz.augmentation import augment_batch, augmented, cut_mix_batch
from cnnviz.recipe import CUT_OUT, LIGHTING, SMALLEST_CROP


def changed(images, seed=(0, 0), **options):
    return augment_batch(np.asarray(images, np.float32), np.random.default_rng(seed), **options)


def ramps(n_images, size=24):
    """Images that brighten from left to right, within what lighting cannot push out of range."""
    return np.broadcast_to(np.linspace(64, 192, size)[:, None], (n_images, size, size, 3))


def unhidden(image):
    """The rows and columns of an image that the gray square does not touch."""
    hidden = (image == 128).all(axis=-1)
    return image[~hidden.any(axis=1)][:, ~hidden.any(axis=0)]


def test_augmented_images_keep_shape_type_and_range():
    images = np.random.default_rng(0).choice([0.0, 255.0], (25, 20, 24, 3))
    result = changed(images)
    assert result.shape == images.shape and result.dtype == np.float32
    assert 0 <= result.min() and result.max() <= 255
    assert changed(images, image_size=12).shape == (25, 12, 12, 3)


def test_middle_gray_changes_by_its_brightness_alone():
    for image in changed(np.full((32, 16, 16, 3), 128.0)):
        light = image[image != 128]
        np.testing.assert_allclose(light, light[0], rtol=1e-6)
        assert abs(light[0] - 128) <= 128 * LIGHTING + 1e-3


def test_half_of_the_images_are_mirrored():
    falls = [unhidden(image)[0, 0, 0] > unhidden(image)[0, -1, 0] for image in changed(ramps(400))]
    assert 0.4 < np.mean(falls) < 0.6


@pytest.mark.parametrize("strength", [0.5, 1, 2])
def test_hidden_square_has_the_stated_size_and_moves(strength):
    images = changed(np.full((400, 40, 40, 3), 30.0), strength=strength)
    hidden = (images == 128).all(axis=-1)
    heights, widths = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(hidden.sum(axis=(1, 2)), heights * widths)  # full rectangles
    assert heights.max() == widths.max() == 40 * strength * CUT_OUT
    assert hidden.any(axis=0).mean() > 0.95  # nearly every pixel is hidden somewhere
    assert len({tuple(np.argwhere(one)[0]) for one in hidden}) > 30


@pytest.mark.parametrize("strength", [0.5, 1, 2])
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 1, 3)])
def test_crops_have_the_stated_sizes(strength, axes):
    """On a ramp of known slope, the change over a row or column tells how wide the crop was."""
    image = np.broadcast_to(np.linspace(100, 150, 240)[:, None], (1, 240, 240, 3)).transpose(axes)
    fractions = []
    for seed in range(200):
        lines = changed(image, (seed,), strength=strength).transpose(axes)[0, [0, -1], :, 0]
        line = lines[(lines != 128).all(axis=1)]
        if len(line):
            fractions.append(abs(line[0, -1] - line[0, 0]) / 50)
    lighting = strength * LIGHTING
    low, high = (1 - strength * (1 - SMALLEST_CROP)) * (1 - lighting), 1 + lighting
    assert low - 0.01 < min(fractions) < low + 0.12 and high - 0.12 < max(fractions) < high + 0.01


def flat_batch(n_images=40, size=20):
    """Images of one value each, which tells where a pixel comes from; and labels."""
    values = np.arange(n_images, dtype=np.float32)
    images = np.broadcast_to(values[:, None, None, None], (n_images, size, size, 3))
    return images.copy(), values % 2


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
    np.testing.assert_array_equal(images, flat_batch()[0])  # the input is as it was


def test_pieces_have_all_sizes_come_from_all_images_and_go_to_the_stated_share():
    images, labels = flat_batch(400)
    for share in (0, 0.3, 1):
        mixed, _ = cut_mix_batch(images, labels, np.random.default_rng(1), share=share)
        fraction = (mixed != images).any(axis=(1, 2, 3)).mean()
        assert share - 0.06 < fraction < share + 0.04  # a piece may fall beside the image
    areas = (mixed != images).mean(axis=(1, 2, 3))
    assert areas.min() < 0.05 and areas.max() > 0.8 and 0.25 < areas.mean() < 0.5
    assert len(np.unique(mixed[mixed != images])) > 300


def dark_and_bright():
    """Two batches of four images, whose labels can be told from the images."""
    labels = np.tile([0, 1], 4)
    images = np.broadcast_to(60.0 + 130 * labels[:, None, None, None], (8, 16, 16, 3))
    return tf.data.Dataset.from_tensor_slices((images.astype(np.float32), labels)).batch(4)


def test_labels_stay_with_their_images():
    for images, labels in augmented(dark_and_bright(), strength=1):
        np.testing.assert_array_equal(labels, [0, 1, 0, 1])
        np.testing.assert_array_equal(np.median(images, axis=(1, 2, 3)) > 128, labels == 1)


def test_each_image_is_augmented_in_its_own_way_and_again_by_the_same_seed():
    def passes(seed):
        data = augmented(dark_and_bright(), strength=1, seed=seed)
        assert len(data) == 2 and data.options().autotune.enabled is False
        return np.concatenate([images for _ in range(2) for images, _ in data])

    first = passes(0)
    for one, other in itertools.combinations(first, 2):
        assert np.abs(one - other).mean() > 1
    np.testing.assert_array_equal(passes(0), first)
    assert np.abs(passes(1) - first).mean() > 1


def test_without_augmentation_images_are_only_resized():
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))  # in float64
    data = tf.data.Dataset.from_tensors((images, np.zeros(4)))
    resized, _ = next(iter(augmented(data, image_size=8)))
    blocks = images.reshape(4, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(resized, blocks, atol=1e-3)
    same, _ = next(iter(augmented(data)))
    np.testing.assert_array_equal(same, images)


def test_mixed_labels_are_areas():
    mixed = list(augmented(dark_and_bright(), strength=1, cut_mix=1.0))
    labels = np.concatenate([labels for _, labels in mixed])
    assert labels.dtype == np.float32 and ((labels > 0) & (labels < 1)).any()
    for images, shares in mixed:
        bright = (np.where(images == 128, np.nan, images) > 128).mean(axis=(1, 2, 3))
        assert np.abs(bright - shares).max() < 0.15  # the gray square hides some
