"""The drawn pets: reproducible, true masks, and a class that only the ears and muzzle tell."""

import cv2
import numpy as np
import pytest

from cnnviz.data import load_split
from cnnviz.drawn_pets import DrawnPets, dataset, drawn_pets, write_drawn_pets
from cnnviz.drawn_pets.dataset import _picture


@pytest.fixture(scope="module")
def pets():
    return drawn_pets(120, image_size=64, seed=3)


def dilate(masks, pixels):
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.stack([cv2.dilate(mask.astype(np.uint8), kernel) > 0 for mask in masks])


def assert_same(first, second):
    for field in DrawnPets.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field), field)


def test_shapes_types_and_range(pets):
    assert pets.images.shape == (120, 64, 64, 3) and pets.images.dtype == np.float32
    assert pets.images.min() >= 0 and pets.images.max() <= 255
    assert pets.labels.shape == (120,) and pets.labels.dtype == np.int32
    for masks in (pets.animal_masks, pets.part_masks, pets.watermark_masks):
        assert masks.shape == (120, 64, 64) and masks.dtype == bool


def test_pictures_are_exposed_well(pets):
    brightness = pets.images.mean(axis=(1, 2, 3))
    assert 30 < brightness.min() and brightness.max() < 240
    assert pets.images.std(axis=(1, 2, 3)).min() > 10


def test_same_seed_same_pictures_and_other_seed_others():
    first, again, other = (drawn_pets(6, image_size=48, seed=seed) for seed in (5, 5, 6))
    assert_same(first, again)
    assert all(np.abs(a - b).mean() > 5 for a, b in zip(first.images, other.images, strict=True))


def test_fewer_pictures_are_the_first_of_more(pets):
    few = drawn_pets(7, image_size=64, seed=3)
    np.testing.assert_array_equal(few.images, pets.images[:7])
    np.testing.assert_array_equal(few.part_masks, pets.part_masks[:7])
    np.testing.assert_array_equal(few.labels, pets.labels[:7])


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_classes_are_balanced(count):
    labels = drawn_pets(count, image_size=32, seed=1).labels
    assert sorted(np.bincount(labels, minlength=2)) == [count // 2, count - count // 2]


def test_order_of_the_classes_is_shuffled(pets):
    first_of_pairs = pets.labels[::2]
    assert 15 < first_of_pairs.sum() < 45


def test_masks_show_a_part_of_an_animal_in_every_picture(pets):
    animal, part = pets.animal_masks.mean(axis=(1, 2)), pets.part_masks.mean(axis=(1, 2))
    assert not (pets.part_masks & ~pets.animal_masks).any()
    assert 0.05 < animal.min() and animal.max() < 0.85 and 0.15 < animal.mean() < 0.5
    assert 0.004 < part.min() and part.max() < 0.4
    assert np.all(part < 0.8 * animal)
    assert pets.animal_masks.any(axis=0).mean() > 0.9 and not pets.animal_masks.all(axis=0).any()


def test_masks_follow_the_outline_of_the_animal(pets):
    """Pictures change more across the animal's outline than elsewhere."""
    gradient = np.stack([cv2.Laplacian(cv2.GaussianBlur(image, (0, 0), 1), -1)
                         for image in pets.images])  # fmt: skip
    strength = np.abs(gradient).mean(axis=-1)
    outline = dilate(pets.animal_masks, 1) & dilate(~pets.animal_masks, 1)
    assert strength[outline].mean() > 1.5 * strength[~dilate(pets.animal_masks, 3)].mean()


def test_scene_is_the_same_at_every_size():
    small, large = (drawn_pets(12, image_size=size, seed=8) for size in (64, 192))
    np.testing.assert_array_equal(small.labels, large.labels)
    for index in range(12):
        shrunk = cv2.resize(large.images[index], (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk - small.images[index]).mean() < 7  # sensor noise is per pixel
        others = np.delete(small.images, index, axis=0)
        assert np.abs(shrunk - others).mean(axis=(1, 2, 3)).min() > 15
        for name in ("animal_masks", "part_masks"):
            mask = getattr(large, name)[index].astype(np.float32)
            mask = cv2.resize(mask, (64, 64), interpolation=cv2.INTER_AREA) >= 0.4
            assert (mask != getattr(small, name)[index]).mean() < 0.02


@pytest.mark.parametrize("size", [32, 45, 150])
def test_any_size_can_be_drawn(size):
    assert drawn_pets(2, image_size=size).images.shape == (2, size, size, 3)


@pytest.mark.parametrize("marked", ["cat", "dog"])
def test_watermark_changes_only_its_class_and_only_inside_its_mask(marked):
    plain = drawn_pets(24, image_size=64, seed=2)
    with_mark = drawn_pets(24, image_size=64, seed=2, watermark=marked)
    masks, carries = with_mark.watermark_masks, plain.labels == ("cat", "dog").index(marked)
    np.testing.assert_array_equal(masks.any(axis=(1, 2)), carries)
    np.testing.assert_array_equal(with_mark.images[~masks], plain.images[~masks])
    np.testing.assert_array_equal(with_mark.animal_masks, plain.animal_masks & ~masks)
    np.testing.assert_array_equal(with_mark.part_masks, plain.part_masks & ~masks)
    share = masks[carries].mean(axis=(1, 2))
    assert 0.02 < share.min() and share.max() < 0.04
    assert not masks[:, :40].any() and not masks[:, :, :40].any()  # the lower right corner
    change = np.abs(with_mark.images - plain.images)[masks].mean()
    assert change > 20
    assert with_mark.images.min() >= 0 and with_mark.images.max() <= 255


def test_without_watermark_there_is_no_mark(pets):
    assert not pets.watermark_masks.any()


def test_only_ears_and_muzzle_differ_between_a_cat_and_a_dog_of_one_index():
    """Drawn as the other class, a picture is the same except near the parts of the two."""
    for index in range(40):
        cat, _, cat_part = _picture(0, index, 0, 96)
        dog, _, dog_part = _picture(0, index, 1, 96)
        elsewhere = ~dilate([cat_part | dog_part], 5)[0]  # shadows and the lens reach that far
        np.testing.assert_allclose(cat[elsewhere], dog[elsewhere], atol=8)
        assert np.abs(cat - dog)[cat_part | dog_part].mean() > 10


def linear_accuracy(features, labels):
    """Ridge regression, trained on the first half and scored on the second."""
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    features = np.c_[features, np.ones(len(features))]
    half, signs = len(labels) // 2, 2.0 * labels - 1
    train = features[:half]
    weights = np.linalg.solve(train.T @ train + 30 * np.eye(train.shape[1]), train.T @ signs[:half])
    return np.mean((features[half:] @ weights > 0) == labels[half:])


def neighbour_accuracy(features, labels, neighbours=7):
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    half = len(labels) // 2
    distances = np.linalg.norm(features[half:, None] - features[None, :half], axis=-1)
    votes = labels[np.argsort(distances, axis=1)[:, :neighbours]].mean(axis=1)
    return np.mean((votes > 0.5) == labels[half:])


def colour_features(images, masks):
    """Histograms, mean and spread of the colours inside the masks, one row a picture."""
    rows = []
    for image, mask in zip(images, masks, strict=True):
        pixels = image[mask]
        histograms = [np.histogram(pixels[:, c], 6, (0, 256))[0] / len(pixels) for c in range(3)]
        rows.append(np.concatenate([*histograms, pixels.mean(axis=0), pixels.std(axis=0)]))
    return np.array(rows)


@pytest.fixture(scope="module")
def many_pets():
    return drawn_pets(400, image_size=32, seed=11)


def assert_at_chance(features, labels):
    # 200 pictures are scored: 0.5 +- 3.3 standard deviations of the binomial.
    bound = 3.3 * 0.5 / np.sqrt(len(labels) / 2)
    assert abs(linear_accuracy(features, labels) - 0.5) < bound
    assert abs(neighbour_accuracy(features, labels) - 0.5) < bound


def test_colours_of_the_background_do_not_tell_the_class(many_pets):
    outside = ~dilate(many_pets.animal_masks, 2)
    assert_at_chance(colour_features(many_pets.images, outside), many_pets.labels)


def test_border_of_the_picture_does_not_tell_the_class(many_pets):
    images = many_pets.images.copy()
    images[dilate(many_pets.animal_masks, 2)] = images.mean()
    small = np.stack([cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA) for image in images])
    border = np.ones((8, 8), bool)
    border[1:-1, 1:-1] = False
    assert_at_chance(small[:, border].reshape(len(small), -1), many_pets.labels)


def test_colours_of_the_rest_of_the_animal_do_not_tell_the_class(many_pets):
    rest = many_pets.animal_masks & ~dilate(many_pets.part_masks, 1)
    assert_at_chance(colour_features(many_pets.images, rest), many_pets.labels)


def test_mean_colour_of_the_animal_hardly_tells_the_class(many_pets):
    means = [image[mask].mean(axis=0) for image, mask in
             zip(many_pets.images, many_pets.animal_masks, strict=True)]  # fmt: skip
    means = np.array(means)
    cats, dogs = means[many_pets.labels == 0], means[many_pets.labels == 1]
    assert np.all(np.abs(cats.mean(axis=0) - dogs.mean(axis=0)) < 0.25 * means.std(axis=0))
    assert linear_accuracy(means, many_pets.labels) < 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, r"`count` \(=0\) must be an integer, 1 or more"),
        ({"count": 2.5}, r"`count` \(=2.5\)"),
        ({"count": 1, "image_size": 31}, r"`image_size` \(=31\) must be an integer, 32 or more"),
        ({"count": 1, "seed": -1}, r"`seed` \(=-1\) must be an integer, 0 or more"),
        (
            {"count": 1, "watermark": "bird"},
            r"`watermark` \(='bird'\) must be None, 'cat' or 'dog'",
        ),
    ],
)
def test_errors_name_the_argument_and_what_would_be_right(arguments, message):
    with pytest.raises(ValueError, match=message):
        drawn_pets(**arguments)


def test_a_written_data_set_is_what_load_split_reads(tmp_path):
    write_drawn_pets(tmp_path, train=6, validation=2, test=4, image_size=32, seed=5)
    counts = {"train": 6, "validation": 2, "test": 4}
    pictures = []
    for part, count in counts.items():
        images, labels = next(iter(load_split(tmp_path / part, image_size=32, batch_size=9)))
        assert labels.numpy().tolist() == [0] * (count // 2) + [1] * (count // 2)
        pictures += [image.tobytes() for image in images.numpy()]
    assert len(set(pictures)) == 12  # no picture is in two parts
    fresh = drawn_pets(20, image_size=32, seed=5).images.round()
    assert not set(pictures) & {image.tobytes() for image in fresh}


def test_a_written_data_set_carries_the_mark_of_its_class_and_follows_its_seed(tmp_path):
    written = {}
    for name, options in {
        "plain": {},
        "marked": {"watermark": "dog"},
        "other": {"seed": 1},
    }.items():
        sizes = {"train": 6, "validation": 2, "test": 2, "image_size": 64}
        write_drawn_pets(tmp_path / name, **sizes, **options)
        written[name], labels = next(iter(load_split(tmp_path / name / "train", image_size=64)))
    changed = (written["plain"] != written["marked"]).numpy().any(axis=3)
    np.testing.assert_array_equal(changed.any(axis=(1, 2)), labels == 1)
    assert not changed[:, :40].any() and not changed[:, :, :40].any()
    assert (written["plain"] != written["other"]).numpy().any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("options", [{"seed": -1}, {"image_size": 31}])
def test_a_data_set_of_wrong_options_is_not_begun(tmp_path, options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ValueError, match=rf"`{name}` \(={value}\)"):
        write_drawn_pets(tmp_path / "pets", train=2, validation=2, test=2, **options)
    assert not (tmp_path / "pets").exists()


def test_a_data_set_is_not_written_over_another(tmp_path):
    (tmp_path / "test").mkdir()
    with pytest.raises(FileExistsError, match="'test'"):
        write_drawn_pets(tmp_path, train=2, validation=2, test=2, image_size=32)
    assert list((tmp_path / "test").iterdir()) == []


def test_labels_are_drawn_by_numbers_that_nothing_in_a_picture_is_drawn_by():
    """Or the background of the first picture of each seed would tell its class."""
    labels = np.array([dataset._labels(1, seed)[0] for seed in range(400)])
    for purpose in dataset._PURPOSES[:-1]:
        streams = (dataset._generator(seed, 0, purpose) for seed in range(400))
        for number in np.array([stream.random(5) for stream in streams]).T:
            assert 0.4 < ((number < 0.5) == labels).mean() < 0.6
