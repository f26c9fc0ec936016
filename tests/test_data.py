"""Files written here, sound and damaged -> the pixels they hold, or an error that says why not."""

import contextlib
import gc
import io
import os
import weakref

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf
from conftest import nobody
from picture_corpus import (
    NOISE,
    SMOOTH,
    bad_files,
    encode,
    exif_of,
    good_files,
    segment,
    smooth_picture,
    stored_turned,
)

from cnnviz import data, figures
from cnnviz.activations import extract_activations
from cnnviz.data import (
    CLASS_NAMES,
    decode_image,
    list_split,
    load_image,
    load_split,
    resize_image,
    sample_image,
)
from cnnviz.grad_cam import grad_cam

RNG = np.random.default_rng(0)


def mean_difference(first, second):
    assert first.shape == second.shape
    return np.abs(first.astype(float) - second.astype(float)).mean()


# decode_image: sound files


GOOD, BAD = good_files(), bad_files()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's; it is only that
@pytest.mark.case("pictures", "right")
@pytest.mark.parametrize("name", GOOD)
def test_good_file_gives_its_pixels_upright(name):
    decoded, good = decode_image(GOOD[name].data), GOOD[name]
    assert decoded.dtype == np.uint8 and decoded.flags["C_CONTIGUOUS"]
    assert mean_difference(decoded, good.pixels) <= good.tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("name", [name for name in GOOD if name.startswith("JPEG")])
def test_without_pillow_a_jpeg_is_the_same(name, monkeypatch):
    decoded = decode_image(GOOD[name].data)
    monkeypatch.setattr(data, "_plain_jpeg", lambda content: None)
    np.testing.assert_array_equal(decode_image(GOOD[name].data), decoded)


@pytest.mark.parametrize("comment", [b"", b"\xff\xc0", b"\xff\xc0\0\x11\x08\0\x01\0"])
def test_the_size_of_a_jpeg_is_not_hidden_by_what_looks_like_one(comment, monkeypatch):
    jpeg = GOOD["JPEG"].data
    frame = jpeg.index(b"\xff\xc0\0\x11\x08")
    jpeg = jpeg[:frame] + segment(jpeg[frame - 2 :], 0xFE, comment)[2:]
    pixels = SMOOTH.shape[0] * SMOOTH.shape[1]
    monkeypatch.setattr(data, "MAX_PIXELS", pixels)
    np.testing.assert_array_equal(decode_image(jpeg), decode_image(GOOD["JPEG"].data))
    monkeypatch.setattr(data, "MAX_PIXELS", pixels - 1)
    with pytest.raises(ValueError, match="its header promises more than"):
        decode_image(jpeg)


def test_the_corpus_turns_as_pillow_does():
    """A second way to upright: the files above are turned by what this undoes."""
    for orientation in range(1, 9):
        data = encode(stored_turned(SMOOTH, orientation), exif=exif_of(orientation))
        by_pillow = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(np.asarray(by_pillow), SMOOTH)


# load_image: damaged files


@pytest.mark.case("pictures", "reported")
@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_an_error_with_its_name_and_its_reason(name, tmp_path):
    data, reason = BAD[name]
    path = tmp_path / "my cat.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason) as error:
        load_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value) and "[Op:" not in str(error.value)


# load_image


def link(path, target):
    path.symlink_to(target)
    return path


def circle(folder):
    (folder / "b.jpg").symlink_to(folder / "a.jpg")
    return link(folder / "a.jpg", folder / "b.jpg")


def pipe(folder):
    os.mkfifo(folder / "pipe.jpg")
    return folder / "pipe.jpg"


NO_FILES = {
    "missing": lambda folder: folder / "nobody.jpg",
    "folder": lambda folder: folder,
    "link to nothing": lambda folder: link(folder / "cat.jpg", folder / "nobody.jpg"),
    "links in a circle": circle,
    "pipe": pipe,
    "inside a file": lambda folder: write(folder / "a.jpg", b"") / "cat.jpg",
    "empty name": lambda folder: "",
}


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.case("pictures", "reported")
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_an_error_that_names_it(kind, tmp_path):
    path = NO_FILES[kind](tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load_image(path)
    assert f"`path` (='{path}') is not a file" == str(error.value)


@pytest.mark.case("pictures", "reported")
@pytest.mark.parametrize("name", [None, 3, b"cat.jpg"])
def test_what_is_no_path_is_an_error(name):
    with pytest.raises(ValueError, match="`path` .* must be the path of a file"):
        load_image(name)


@pytest.mark.case("pictures", "reported")
def test_a_name_that_no_file_can_have_is_an_error(tmp_path):
    with pytest.raises(OSError, match="`path` .*cannot be read: File name too long"):
        load_image(tmp_path / ("a" * 300 + ".jpg"))


@pytest.mark.case("pictures", "reported")
def test_a_file_that_may_not_be_read_is_an_error(tmp_path):
    path = write(tmp_path / "cat.jpg", encode(NOISE))
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o011)
    with nobody(), pytest.raises(PermissionError, match="cat.jpg'. cannot be read: Permission"):
        load_image(path)


NAMES = {
    "upper-case extension": "CAT.PNG",
    "non-ASCII": "Кошка 猫 ñ.jpg",
    "spaces": "  my  cat .jpg",
    "very long": "c" * 251 + ".jpg",
    "shell characters": "$(cat) 'a' \"b\" *?[0]#%20.jpg",
    "line break": "c\nat.jpg",
    "no extension": "cat",
    "not UTF-8": os.fsdecode(b"k\xe4tzchen.jpg"),
}


@pytest.mark.case("pictures", "right")
@pytest.mark.parametrize("kind", NAMES)
def test_names_do_not_matter(kind, tmp_path):
    path = write(tmp_path / NAMES[kind], encode(NOISE))
    np.testing.assert_array_equal(load_image(path), NOISE)
    np.testing.assert_array_equal(load_image(link(tmp_path / "link.jpg", path)), NOISE)


def test_load_image_keeps_the_size_and_gives_float32(tmp_path):
    pixels = smooth_picture(20, 31)
    path = tmp_path / "cat.png"
    path.write_bytes(encode(pixels))
    for name in (path, str(path)):
        image = load_image(name)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("image_size", [1, 7, 16, 100])
def test_load_image_resizes_to_a_square_within_range(tmp_path, image_size):
    path = tmp_path / "cat.png"
    path.write_bytes(encode(smooth_picture(40, 60)))
    image = load_image(path, image_size=image_size)
    assert image.shape == (image_size, image_size, 3) and image.dtype == np.float32
    assert 0 <= image.min() and image.max() <= 255
    assert abs(image.mean() - smooth_picture().mean()) < 3


@pytest.mark.parametrize("image_size", [0, -3, 2.5])
def test_image_size_must_be_a_whole_positive_number(tmp_path, image_size):
    path = tmp_path / "cat.png"
    path.write_bytes(encode(smooth_picture()))
    with pytest.raises(ValueError, match=f"image_size.*{image_size}"):
        load_image(path, image_size=image_size)


def test_enlarging_interpolates_linearly():
    ramp = np.broadcast_to(np.arange(0, 80, 10, dtype=np.float32)[:, None], (8, 8, 3))
    row = resize_image(ramp, 16)[3, :, 0]
    np.testing.assert_allclose(row, np.clip(np.arange(16) * 5 - 2.5, 0, 70), atol=1e-3)


def test_shrinking_averages_areas():
    picture = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    averages = picture.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(picture, 8) - averages).max() <= 0.51


@pytest.mark.parametrize("axis", [0, 1])
def test_one_side_is_averaged_also_where_the_other_grows(axis):
    picture = np.zeros((24, 8, 3), np.float32)
    picture[::3] = 90
    flipped, size = (picture, (8, 16)) if axis == 0 else (picture.swapaxes(0, 1), (16, 8))
    np.testing.assert_allclose(resize_image(flipped, size), 30, atol=1e-3)


def test_a_picture_that_has_the_size_is_copied():
    picture = RNG.random((8, 8, 3))
    resized = resize_image(picture, 8)
    np.testing.assert_array_equal(resized, picture)
    assert not np.shares_memory(resized, picture)


# list_split and load_split


@pytest.fixture
def split(tmp_path):
    """7 cats, whose red is 10 times their number, and 6 dogs; a dog's green is 200."""
    numbers = {"cats": range(7), "dogs": range(7, 13)}
    for folder, members in numbers.items():
        (tmp_path / folder).mkdir()
        for number in members:
            color = (10 * number, 200 if folder == "dogs" else 0, 50)
            path = tmp_path / folder / f"{number:02d}_ñ.png"
            path.write_bytes(encode(np.full((12, 12, 3), color, np.uint8)))
    return tmp_path


def read_all(data):
    """Dataset -> (images, labels, number of each picture)."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in data]
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    return images, labels, (images[:, 0, 0, 0] / 10).astype(int).tolist()


def test_batches_equal_load_image_of_the_files_in_order(split):
    data = load_split(split, image_size=8, batch_size=5)
    assert [len(images) for images, _ in data] == [5, 5, 3] and len(data) == 3
    paths, labels = list_split(split)
    images, labels_read, _ = read_all(data)
    expected = np.stack([load_image(path, image_size=8) for path in paths])
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels_read, labels)
    assert images.dtype == np.float32 and labels_read.dtype == np.int32
    assert labels.tolist() == [0] * 7 + [1] * 6


def test_dataset_tells_its_shapes(split):
    images, labels = load_split(split, image_size=8).element_spec
    assert images.shape.as_list() == [None, 8, 8, 3] and images.dtype == tf.float32
    assert labels.shape.as_list() == [None] and labels.dtype == tf.int32


@pytest.mark.parametrize("cache", [True, False])
def test_shuffle_keeps_every_file_and_its_label(split, cache):
    data = load_split(split, image_size=8, batch_size=4, shuffle=True, cache=cache)
    images, labels, numbers = read_all(data)
    assert sorted(numbers) == list(range(13)) and numbers != list(range(13))
    np.testing.assert_array_equal(labels, images[:, 0, 0, 1] == 200)


@pytest.mark.parametrize("cache", [True, False])
def test_shuffle_draws_a_new_order_in_each_pass_and_the_same_for_a_seed(split, cache):
    def passes(seed):
        data = load_split(split, image_size=8, shuffle=True, seed=seed, cache=cache)
        return [read_all(data)[2] for _ in range(3)]

    first, second, third = passes(seed=4)
    assert first != second != third != first
    assert passes(seed=4) == [first, second, third]
    assert passes(seed=5)[0] != first


def test_cache_changes_nothing_but_the_time(split):
    kept, fresh = (load_split(split, image_size=8, cache=cache) for cache in (True, False))
    for _ in range(2):
        np.testing.assert_array_equal(read_all(kept)[0], read_all(fresh)[0])


def test_cached_pictures_are_not_read_again(split):
    data = load_split(split, image_size=8)
    first = read_all(data)[0]
    (split / "cats" / "00_ñ.png").unlink()
    np.testing.assert_array_equal(read_all(data)[0], first)


def test_a_pass_that_is_broken_off_leaves_the_cache_right(split):
    data = load_split(split, image_size=8, batch_size=2)
    next(iter(data))
    again = read_all(data)[0]
    np.testing.assert_array_equal(again, read_all(load_split(split, image_size=8))[0])


def test_the_cache_goes_when_its_dataset_goes(split):
    """And not before, while there is a dataset that was made of it, or an iterator."""
    data = load_split(split, image_size=8)
    (pictures,) = (weakref.ref(one.pictures) for one in ancestors(data) if hasattr(one, "pictures"))
    used = [data.take(1).prefetch(1), iter(data)]
    del data
    while used:
        gc.collect()
        assert pictures() is not None
        used.pop()
    gc.collect()
    assert pictures() is None


def test_files_are_read_again_where_the_cache_is_gone(split):
    """TensorFlow may hold a dataset of which no Python object is left."""
    data = load_split(split, image_size=8)
    first = read_all(data)[0]
    for one in ancestors(data):
        vars(one).pop("pictures", None)
    np.testing.assert_array_equal(read_all(data)[0], first)


def ancestors(data):
    """A dataset and those that it was made of."""
    yield data
    for made_of in data._inputs():
        yield from ancestors(made_of)


def test_nothing_is_tuned_that_the_end_of_a_pass_would_wait_for(split):
    """`untuned` tells why; it shows as idle seconds after some passes only."""
    assert load_split(split, image_size=8).options().autotune.enabled is False


@pytest.mark.case("pictures", "right")
@pytest.mark.parametrize(
    "name", ["Thumbs.db", ".DS_Store", "._01.jpg", ".jpg", "notes.txt", "a.d/"]
)
def test_files_that_are_no_photographs_are_passed_over(split, name):
    path = split / "cats" / name
    path.mkdir() if name.endswith("/") else path.write_bytes(b"no picture")
    assert len(list_split(split)[0]) == 13
    assert len(read_all(load_split(split, image_size=8))[1]) == 13


@pytest.mark.case("pictures", "right")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_activations_and_overlays_see_the_same_way_up(orientation, tmp_path, color_model):
    """The two ways to read a file, what a layer makes of it, and what figures then show."""
    data = encode(stored_turned(SMOOTH, orientation), "JPEG", quality=95, exif=exif_of(orientation))
    for name in CLASS_NAMES:
        (tmp_path / f"{name}s").mkdir()
        path = write(tmp_path / f"{name}s" / "0.jpg", data)
    images, _ = next(iter(load_split(tmp_path, image_size=32)))
    image = load_image(path, image_size=32)
    np.testing.assert_array_equal(images[0], image)
    assert mean_difference(image, resize_image(SMOOTH, 32)) < 3
    figure = figures.draw_images(image[None])
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert np.abs(shown / shown.max() * 255 - image / image.max() * 255).max() < 2
    image = image / 255
    upright = resize_image(SMOOTH, 32) / 255
    redder = np.maximum(upright[..., 0] - upright[..., 2], 0)  # what the first filter sees
    assert (
        mean_difference(extract_activations(color_model, image)["conv"][0, ..., 0], redder) < 0.02
    )
    evidence = grad_cam(color_model, image, class_index=1, layer_name="conv")
    figure = figures.draw_heat_maps(image[None], evidence, CLASS_NAMES, value_range=(0, 1))
    picture, overlay = figure.axes[0].images[0], figure.axes[2].images[1]
    assert picture.origin == overlay.origin == "upper"
    assert picture.get_extent() == overlay.get_extent()
    assert mean_difference(np.asarray(picture.get_array()), upright) < 0.02
    assert mean_difference(np.asarray(overlay.get_array()), redder / redder.max()) < 0.03


@pytest.mark.case("pictures", "right")
def test_suffixes_in_capitals_are_read(split):
    path = split / "cats" / "00_ñ.png"
    path.rename(path.with_suffix(".PNG"))
    assert len(list_split(split)[0]) == 13


@pytest.mark.case("pictures", "reported")
def test_missing_class_folder_is_named(split, tmp_path):
    (split / "dogs").rename(split / "doggies")
    with pytest.raises(FileNotFoundError, match="dogs' does not exist"):
        load_split(split, image_size=8)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_split(tmp_path / "nowhere", image_size=8)


@pytest.mark.case("pictures", "reported")
def test_empty_class_folder_is_named(split):
    for path in (split / "dogs").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="dogs' holds none"):
        load_split(split, image_size=8)


@pytest.mark.case("pictures", "reported")
def test_a_link_to_nothing_is_named_while_reading(split):
    link(split / "dogs" / "broken.jpg", split / "nothing.jpg")
    with pytest.raises(tf.errors.OpError, match="broken.jpg'. is not a file"):
        read_all(load_split(split, image_size=8))


@pytest.mark.case("pictures", "reported")
@pytest.mark.parametrize("cache", [True, False])
def test_damaged_file_is_named_while_reading(split, cache):
    path = split / "dogs" / "broken.jpg"
    path.write_bytes(encode(NOISE, "JPEG")[:-2])
    with pytest.raises(tf.errors.OpError, match="broken.jpg.*damaged JPEG"):
        read_all(load_split(split, image_size=8, cache=cache))


@pytest.mark.parametrize("options", [{"image_size": 0}, {"image_size": 8, "batch_size": 0}])
def test_numbers_out_of_range_are_errors(split, options):
    with pytest.raises(ValueError, match=r"\(=0\)"):
        load_split(split, **options)


# sample_image


def test_sample_image_is_a_photograph_in_range():
    image = sample_image()
    assert image.shape == (300, 451, 3) and image.dtype == np.float32
    assert 0 <= image.min() < 30 and 200 < image.max() <= 255
