"""Drawn pets are reproducible, their masks are true, and only ears and muzzle tell the class."""

import sys

import cv2
import numpy as np
import pytest

from cnnviz.data import CLASS_NAMES, load_split
from cnnviz.drawn_pets import drawn_pets, write_drawn_pets

drawn = sys.modules["cnnviz.drawn_pets"]  # `cnnviz.drawn_pets` is the function


@pytest.fixture(scope="module")
def pets():
    return drawn_pets(120, image_size=64, seed=3)


def dilate(masks, pixels):
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.stack([cv2.dilate(mask.astype(np.uint8), kernel) > 0 for mask in masks])


def test_images_are_well_exposed_and_classes_balanced_in_random_order(pets):
    assert pets.images.shape == (120, 64, 64, 3) and pets.images.dtype == np.float32
    assert pets.images.min() >= 0 and pets.images.max() <= 255
    brightness = pets.images.mean(axis=(1, 2, 3))
    assert 30 < brightness.min() and brightness.max() < 240
    assert pets.images.std(axis=(1, 2, 3)).min() > 10
    assert pets.labels.shape == (120,) and pets.labels.dtype == np.int32
    for count in (1, 9, 120):
        assert abs(np.sum(pets.labels[:count] == 0) - count / 2) <= 0.5
    assert 15 < pets.labels[::2].sum() < 45  # pairs of 60 in random order


def test_text_table_and_figure_say_what_was_drawn():
    pets = drawn_pets(5, image_size=32, seed=1, watermark="dog")
    n_dogs = int(pets.labels.sum())
    stamped = f"{5 - n_dogs} cats and {n_dogs} dogs of 32x32 pixels, {n_dogs} with a stamp"
    assert str(pets) == stamped and "\n" not in repr(pets)
    stamped = pets.watermark_masks.any(axis=(1, 2))
    assert ((pets.to_frame()["class"] == "dog") == stamped).all()
    assert len([axes for axes in pets.plot(n_images=3).axes if axes.images]) == 3


def test_same_seed_gives_the_same_first_images_and_another_seed_others(pets):
    few, other = (drawn_pets(7, image_size=64, seed=seed) for seed in (3, 4))
    for field in ("images", "labels", "animal_masks", "part_masks", "watermark_masks"):
        np.testing.assert_array_equal(getattr(few, field), getattr(pets, field)[:7], field)
    assert all(np.abs(a - b).mean() > 5 for a, b in zip(few.images, other.images, strict=True))


def test_masks_show_some_of_the_animal_in_every_image(pets):
    for masks in (pets.animal_masks, pets.part_masks, pets.watermark_masks):
        assert masks.shape == (120, 64, 64) and masks.dtype == bool
    animal, part = pets.animal_masks.mean(axis=(1, 2)), pets.part_masks.mean(axis=(1, 2))
    assert not (pets.part_masks & ~pets.animal_masks).any() and not pets.watermark_masks.any()
    assert 0.05 < animal.min() and animal.max() < 0.85 and 0.15 < animal.mean() < 0.5
    assert 0.004 < part.min() and part.max() < 0.4 and np.all(part < 0.8 * animal)
    assert pets.animal_masks.any(axis=0).mean() > 0.9 and not pets.animal_masks.all(axis=0).any()


def test_masks_follow_the_outline_of_the_animal(pets):
    """Images change more across the animal's outline than elsewhere."""
    smooth = [cv2.GaussianBlur(image, (0, 0), 1) for image in pets.images]
    strength = np.stack([np.abs(cv2.Laplacian(image, -1)).mean(axis=-1) for image in smooth])
    outline = dilate(pets.animal_masks, 1) & dilate(~pets.animal_masks, 1)
    assert strength[outline].mean() > 1.5 * strength[~dilate(pets.animal_masks, 3)].mean()


def test_scene_is_the_same_at_every_size():
    small, large = (drawn_pets(12, image_size=size, seed=8) for size in (64, 192))
    np.testing.assert_array_equal(small.labels, large.labels)
    for index in range(12):
        shrunk = cv2.resize(large.images[index], (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk - small.images[index]).mean() < 7  # noise is per pixel
        others = np.delete(small.images, index, axis=0)
        assert np.abs(shrunk - others).mean(axis=(1, 2, 3)).min() > 15
        for name in ("animal_masks", "part_masks"):
            mask = getattr(large, name)[index].astype(np.float32)
            mask = cv2.resize(mask, (64, 64), interpolation=cv2.INTER_AREA) >= 0.4
            assert (mask != getattr(small, name)[index]).mean() < 0.02
    for size in (16, 45):
        pets = drawn_pets(2, image_size=size)
        assert pets.images.shape == (2, size, size, 3) and pets.part_masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize("marked", CLASS_NAMES)
def test_watermark_changes_only_its_class_and_only_inside_its_mask(marked):
    plain = drawn_pets(24, image_size=64, seed=2)
    with_mark = drawn_pets(24, image_size=64, seed=2, watermark=marked)
    masks, carries = with_mark.watermark_masks, plain.labels == CLASS_NAMES.index(marked)
    np.testing.assert_array_equal(masks.any(axis=(1, 2)), carries)
    np.testing.assert_array_equal(with_mark.images[~masks], plain.images[~masks])
    np.testing.assert_array_equal(with_mark.animal_masks, plain.animal_masks & ~masks)
    np.testing.assert_array_equal(with_mark.part_masks, plain.part_masks & ~masks)
    share = masks[carries].mean(axis=(1, 2))
    assert 0.02 < share.min() and share.max() < 0.04
    assert not masks[:, :40].any() and not masks[:, :, :40].any()  # the lower right corner
    assert np.abs(with_mark.images - plain.images)[masks].mean() > 20
    assert with_mark.images.min() >= 0 and with_mark.images.max() <= 255


def test_only_ears_and_muzzle_differ_between_a_cat_and_a_dog_of_one_index():
    for index in range(40):
        cat, _, cat_part, _ = drawn._draw_image(0, index, 0, 96)
        dog, _, dog_part, _ = drawn._draw_image(0, index, 1, 96)
        elsewhere = ~dilate([cat_part | dog_part], 2)[0]  # tips of whiskers are in no mask
        np.testing.assert_array_equal(cat[elsewhere], dog[elsewhere])
        assert np.abs(cat - dog)[cat_part | dog_part].mean() > 10


def test_mean_colors_hardly_tell_the_class():
    """Nor would they if the labels and the scene came from the same random numbers."""
    pets = drawn_pets(400, image_size=32, seed=11)
    for masks in (pets.animal_masks, ~pets.animal_masks):
        pairs = zip(pets.images, masks, strict=True)
        means = np.array([image[mask].mean(axis=0) for image, mask in pairs])
        cats, dogs = means[pets.labels == 0], means[pets.labels == 1]
        assert np.all(np.abs(cats.mean(axis=0) - dogs.mean(axis=0)) < 0.25 * means.std(axis=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, r"`count` \(=0\) must be an integer, 1 or more"),
        ({"image_size": 15}, r"`image_size` \(=15\) must be an integer, 16 or more"),
        ({"seed": -1}, r"`seed` \(=-1\) must be an integer, 0 or more"),
        ({"watermark": "bird"}, r"`watermark` \(='bird'\) must be None, 'cat' or 'dog'"),
    ],
)
def test_errors_name_the_argument_and_the_remedy(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        drawn_pets(**{"count": 1} | options)
    if "count" not in options:
        with pytest.raises(ValueError, match=message):
            write_drawn_pets(tmp_path / "pets", **options)
        assert not (tmp_path / "pets").exists()


def test_a_written_data_set_is_read_by_load_split_and_has_no_image_twice(tmp_path):
    options = {"train": 6, "validation": 2, "test": 4, "image_size": 64}
    written = {}
    for name, more in {"plain": {}, "stamped": {"watermark": "dog"}, "other": {"seed": 1}}.items():
        write_drawn_pets(tmp_path / name, **options, **more)
        splits = [tmp_path / name / split for split in ("train", "validation", "test")]
        batches = [next(iter(load_split(split, image_size=64))) for split in splits]
        written[name], labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        assert labels.tolist() == [0] * 3 + [1] * 3 + [0, 1] + [0] * 2 + [1] * 2
    fresh = drawn_pets(20, image_size=64).images.round()
    all_images = [*written["plain"], *written["other"], *fresh]
    assert len({image.tobytes() for image in all_images}) == 44
    changed = (written["plain"] != written["stamped"]).any(axis=3)
    np.testing.assert_array_equal(changed.any(axis=(1, 2)), labels == 1)
    assert not changed[:, :40].any() and not changed[:, :, :40].any()


def test_a_data_set_is_not_written_over_another(tmp_path):
    (tmp_path / "test").mkdir()
    with pytest.raises(FileExistsError, match="'test'"):
        write_drawn_pets(tmp_path, train=2, validation=2, test=2, image_size=32)
    assert not (tmp_path / "train").exists()
