"""Files written here, sound and damaged -> the pixels they hold, or an error that says why not."""

import os

import numpy as np
import pytest
import tensorflow as tf
from image_corpus import NOISE, SMOOTH, bad_files, encode, good_files

from cnnviz.data import (
    decode_image,
    list_split,
    load_image,
    load_split,
    resize_image,
    sample_image,
)

GOOD, BAD = good_files(), bad_files()
cached_or_not = pytest.mark.parametrize("cache", [True, False])


def mean_difference(first, second):
    assert first.shape == second.shape
    return np.abs(first.astype(float) - second.astype(float)).mean()


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's; it is only that
@pytest.mark.parametrize("name", GOOD)
def test_good_file_gives_its_pixels_upright(name):
    decoded, good = decode_image(GOOD[name].data), GOOD[name]
    assert decoded.dtype == np.uint8 and decoded.flags["C_CONTIGUOUS"]
    assert mean_difference(decoded, good.pixels) <= good.tolerance


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_an_error_with_its_name_and_its_reason(name, tmp_path):
    data, reason = BAD[name]
    path = write(tmp_path / "my cat.jpg", data)
    with pytest.raises(ValueError, match=f"cannot be read as an image: .*({reason})") as error:
        load_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value) and "[Op:" not in str(error.value)


def test_what_is_no_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody.jpg"):
        load_image(tmp_path / "nobody.jpg")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        load_image(tmp_path)


@pytest.mark.parametrize("image_size", [1, 16, 100])
def test_load_image_resizes_to_a_square_within_range(tmp_path, image_size):
    path = write(tmp_path / "cat.png", encode(SMOOTH))
    np.testing.assert_array_equal(load_image(str(path)), SMOOTH)
    image = load_image(path, image_size=image_size)
    assert image.shape == (image_size, image_size, 3) and image.dtype == np.float32
    assert 0 <= image.min() and image.max() <= 255
    assert abs(image.mean() - SMOOTH.mean()) < 3
    with pytest.raises(ValueError, match=r"`image_size` \(=2.5\)"):
        load_image(path, image_size=2.5)


def test_enlarging_interpolates_linearly_and_shrinking_averages_areas():
    ramp = np.broadcast_to(np.arange(0, 80, 10, dtype=np.float32)[:, None], (8, 8, 3))
    row = resize_image(ramp, 16)[3, :, 0]
    np.testing.assert_allclose(row, np.clip(np.arange(16) * 5 - 2.5, 0, 70), atol=1e-3)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    averages = image.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(image, 8) - averages).max() <= 0.51


@pytest.mark.parametrize("axis", [0, 1])
def test_one_side_is_averaged_also_where_the_other_grows(axis):
    image = np.zeros((24, 8, 3), np.float32)
    image[::3] = 90
    image, size = (image, (8, 16)) if axis == 0 else (image.swapaxes(0, 1), (16, 8))
    np.testing.assert_allclose(resize_image(image, size), 30, atol=1e-3)


@pytest.fixture
def split(tmp_path):
    """7 cats, whose red is 10 times their number, and 6 dogs; a dog's green is 200."""
    for folder, numbers in {"cats": range(7), "dogs": range(7, 13)}.items():
        (tmp_path / folder).mkdir()
        for number in numbers:
            color = (10 * number, 200 if folder == "dogs" else 0, 50)
            image = np.full((12, 12, 3), color, np.uint8)
            write(tmp_path / folder / f"{number:02d}_ñ.png", encode(image))
    return tmp_path


def read_all(data):
    """Dataset -> (images, labels, number of each image)."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in data]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return images, labels, (images[:, 0, 0, 0] / 10).astype(int).tolist()


@cached_or_not
def test_batches_equal_load_image_of_the_files_in_order(split, cache):
    data = load_split(split, image_size=8, batch_size=5, cache=cache)
    assert data.options().autotune.enabled is False  # else some passes end with idle seconds
    paths, labels = list_split(split)
    assert data.file_paths == paths and labels.tolist() == [0] * 7 + [1] * 6
    for _ in range(2):
        assert [len(images) for images, _ in data] == [5, 5, 3]
        images, labels_read, _ = read_all(data)
        expected = np.stack([load_image(path, image_size=8) for path in paths])
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels_read, labels)
    assert images.dtype == np.float32 and labels_read.dtype == np.int32


@cached_or_not
def test_shuffle_keeps_every_file_and_its_label_and_the_shapes_and_the_length(split, cache):
    data = load_split(split, image_size=8, batch_size=4, shuffle=True, cache=cache)
    images, labels, numbers = read_all(data)
    assert sorted(numbers) == list(range(13)) and numbers != list(range(13))
    np.testing.assert_array_equal(labels, images[:, 0, 0, 1] == 200)
    shapes = [(spec.shape.as_list(), spec.dtype) for spec in data.element_spec]
    assert shapes == [([None, 8, 8, 3], tf.float32), ([None], tf.int32)] and len(data) == 4


@cached_or_not
def test_shuffle_draws_a_new_order_in_each_pass_and_the_same_for_a_seed(split, cache):
    def passes(seed):
        data = load_split(split, image_size=8, shuffle=True, seed=seed, cache=cache)
        return [read_all(data)[2] for _ in range(3)]

    first, second, third = passes(seed=4)
    assert first != second != third != first
    assert passes(seed=4) == [first, second, third]
    assert passes(seed=5)[0] != first


@pytest.mark.parametrize("shuffle", [True, False])
def test_cached_images_are_not_read_again(split, shuffle):
    data = load_split(split, image_size=8, batch_size=2, shuffle=shuffle, cache=True)
    next(iter(data))  # a pass that is broken off leaves the cache right
    first = read_all(data)[2]
    (split / "cats" / "00_ñ.png").unlink()
    assert sorted(read_all(data)[2]) == sorted(first) == list(range(13))


def test_files_that_are_no_images_are_left_out(split):
    for name in ("Thumbs.db", ".DS_Store", "._01.jpg", ".jpg", "notes.txt"):
        write(split / "cats" / name, b"no image")
    (split / "cats" / "a.d").mkdir()
    assert len(list_split(split)[0]) == len(read_all(load_split(split, image_size=8))[1]) == 13


def test_names_do_not_matter(split):
    names = ["CAT.JPG", "a.jfif", "b.jpe", "Кошка 猫.jpeg", "  my  cat .jpg", "c" * 251 + ".jpg"]
    names += ["$(cat) 'a' \"b\" *?[0]#%20.jpg", "c\nat.jpg", os.fsdecode(b"k\xe4tzchen.jpg")]
    for path in (split / "dogs").iterdir():
        path.unlink()
    for name in names:
        path = write(split / "dogs" / name, encode(NOISE))
        np.testing.assert_array_equal(load_image(path), NOISE)
    images, _, _ = read_all(load_split(split, image_size=64))
    assert len(images) == 7 + len(names)
    for image in images[7:]:
        np.testing.assert_array_equal(image, NOISE)


def test_missing_and_empty_class_folders_and_wrong_numbers_are_named(split, tmp_path):
    (split / "dogs").rename(split / "doggies")
    with pytest.raises(FileNotFoundError, match="dogs' does not exist; .*_from_directory"):
        load_split(split, image_size=8)
    (split / "dogs").mkdir()
    with pytest.raises(FileNotFoundError, match="dogs' holds none"):
        load_split(split, image_size=8)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_split(tmp_path / "nowhere", image_size=8)
    for options in ({"image_size": 0}, {"image_size": 8, "batch_size": 0}):
        with pytest.raises(ValueError, match=r"\(=0\)"):
            load_split(split, **options)


@cached_or_not
def test_damaged_file_is_named_while_reading(split, cache):
    path = write(split / "dogs" / "broken.jpg", encode(NOISE, "JPEG")[:-2])
    with pytest.raises(tf.errors.OpError, match="broken.jpg.*damaged or incomplete JPEG"):
        read_all(load_split(split, image_size=8, cache=cache))
    path.unlink()
    path.symlink_to(split / "nothing.jpg")
    with pytest.raises(tf.errors.OpError, match="No such file.*broken.jpg"):
        read_all(load_split(split, image_size=8, cache=cache))


def test_sample_image_is_a_photograph_in_range():
    image = sample_image()
    assert image.shape == (300, 451, 3) and image.dtype == np.float32
    assert 0 <= image.min() < 30 and 200 < image.max() <= 255
