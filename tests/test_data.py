"""Files written here, sound and damaged -> the pixels they hold, or an error that says why not."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tensorflow as tf

from cnnviz.data import (
    decode_image,
    list_split,
    load_image,
    load_split,
    resize_image,
    sample_image,
)

RNG = np.random.default_rng(0)


def smooth_picture(height=40, width=60):
    """No two corners alike, and smooth, so that JPEG keeps it."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * rows / (height - 1), 255 * columns / (width - 1)
    return np.stack([red, green, 255 - (red + green) / 2], axis=-1).astype(np.uint8)


def encode(pixels, file_format="PNG", mode=None, **options):
    """Pixels -> a file's bytes."""
    picture = PIL.Image.fromarray(np.asarray(pixels))
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, file_format, **options)
    return file.getvalue()


def exif_of(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def mean_difference(first, second):
    assert first.shape == second.shape
    return np.abs(first.astype(float) - second.astype(float)).mean()


# decode_image: sound files


@pytest.mark.parametrize(
    "file_format, options",
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_pixels_written(file_format, options):
    pixels = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    decoded = decode_image(encode(pixels, file_format, **options))
    assert decoded.dtype == np.uint8 and decoded.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    "file_format, mode, options",
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {}),
        ("WEBP", "RGB", {}),
        ("GIF", "P", {}),
    ],
)
def test_lossy_formats_give_nearly_the_pixels_written(file_format, mode, options):
    quality = {} if file_format == "GIF" else {"quality": 95}
    picture = PIL.Image.fromarray(smooth_picture()).convert(mode)
    file = io.BytesIO()
    picture.save(file, file_format, **quality, **options)
    decoded = decode_image(file.getvalue())
    assert decoded.dtype == np.uint8
    assert mean_difference(decoded, np.asarray(picture.convert("RGB"))) < 4


def test_grey_becomes_three_equal_channels():
    grey = RNG.integers(0, 256, (8, 9), np.uint8)
    np.testing.assert_array_equal(decode_image(encode(grey)), np.stack([grey] * 3, axis=-1))


def test_16_bit_grey_is_scaled_to_8_bit():
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    decoded = decode_image(encode(grey * 257))
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3, axis=-1))


def test_palette_gives_its_colours():
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    colors = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], np.uint8)
    picture = PIL.Image.fromarray(indices, "L").convert("P")
    picture.putpalette(colors.ravel())
    file = io.BytesIO()
    picture.save(file, "PNG")
    np.testing.assert_array_equal(decode_image(file.getvalue()), colors[indices])


def test_transparent_palette_entry_becomes_white():
    picture = PIL.Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    picture.putpalette([250, 10, 20, 30, 240, 50])
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=0)
    np.testing.assert_array_equal(decode_image(file.getvalue()), [[[255, 255, 255], [30, 240, 50]]])


def test_alpha_is_laid_on_white():
    pixels = np.array([[(200, 100, 0, alpha) for alpha in (0, 51, 255)]], np.uint8)
    expected = [[255, 255, 255], [244, 224, 204], [200, 100, 0]]  # 255 - alpha * (255 - color)
    assert np.abs(decode_image(encode(pixels))[0].astype(int) - expected).max() <= 1


def test_animation_gives_its_first_frame():
    frames = [PIL.Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(file.getvalue()), np.full((8, 8, 3), (255, 0, 0)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_gives_the_same_upright_picture(file_format, orientation):
    upright = smooth_picture()
    # Pillow turns "stored as `orientation`" upright; the inverse of that stores it so.
    undone_by = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    source = PIL.Image.fromarray(upright)
    source.getexif()[0x0112] = undone_by
    stored = np.asarray(PIL.ImageOps.exif_transpose(source))
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 95}
    options = {} if file_format in ("PNG", "TIFF") else options
    data = encode(stored, file_format, exif=exif_of(orientation), **options)

    tolerance = 3 if file_format == "JPEG" else 0
    decoded = decode_image(data)
    by_pillow = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data)))
    assert mean_difference(decoded, upright) <= tolerance
    assert mean_difference(decoded, np.asarray(by_pillow)) <= tolerance


# decode_image and load_image: damaged files


def half(data):
    return data[: len(data) // 2]


def png_that_promises(width, height):
    data = encode(smooth_picture())
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


NOISE = RNG.integers(0, 256, (64, 64, 3), np.uint8)
DAMAGED = {
    "empty": (b"", "empty"),
    "text": (b"this is no picture", "known format"),
    "half JPEG": (half(encode(NOISE, "JPEG")), "damaged JPEG"),
    "half progressive JPEG": (half(encode(NOISE, "JPEG", progressive=True)), "damaged JPEG"),
    "JPEG without its last two bytes": (encode(NOISE, "JPEG")[:-2], "damaged JPEG"),
    "JPEG header alone": (encode(NOISE, "JPEG")[:200], "damaged|known format"),
    "half PNG": (half(encode(NOISE)), "truncated"),
    "half TIFF": (half(encode(NOISE, "TIFF")), "truncated"),
    "half WebP": (half(encode(NOISE, "WEBP")), "damaged"),
    "PNG of 20,000 x 20,000": (png_that_promises(20_000, 20_000), "400000000 pixels"),
}


@pytest.mark.parametrize("data, reason", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_file_is_an_error_with_its_reason(data, reason):
    with pytest.raises(ValueError, match=reason) as error:
        decode_image(data)
    assert "\n" not in str(error.value) and "[Op:" not in str(error.value)


@pytest.mark.parametrize("data, reason", DAMAGED.values(), ids=DAMAGED.keys())
def test_load_image_names_the_damaged_file(data, reason, tmp_path):
    path = tmp_path / "my cat.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason) as error:
        load_image(path)
    assert str(path) in str(error.value)


# load_image


def test_missing_file_is_an_error_that_names_it(tmp_path):
    for path in (tmp_path / "nobody.jpg", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)):
            load_image(path)


def test_load_image_keeps_the_size_and_gives_float32(tmp_path):
    pixels = smooth_picture(20, 31)
    path = tmp_path / "cat.png"
    path.write_bytes(encode(pixels))
    for name in (path, str(path)):
        image = load_image(name)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, pixels)


def test_wrong_suffix_and_non_ascii_names_do_not_matter(tmp_path):
    pixels = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    path = tmp_path / "Кошка 猫 ñ.jpg"
    path.write_bytes(encode(pixels))
    np.testing.assert_array_equal(load_image(path), pixels)


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


def test_shrinking_averages_areas():
    picture = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    averages = picture.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(picture, 8) - averages).max() <= 0.51


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


def test_files_that_are_no_photographs_are_passed_over(split):
    for name in ("Thumbs.db", ".DS_Store", "._01.jpg", "notes.txt"):
        (split / "cats" / name).write_bytes(b"no picture")
    assert len(list_split(split)[0]) == 13
    assert len(read_all(load_split(split, image_size=8))[1]) == 13


def test_suffixes_in_capitals_are_read(split):
    path = split / "cats" / "00_ñ.png"
    path.rename(path.with_suffix(".PNG"))
    assert len(list_split(split)[0]) == 13


def test_missing_class_folder_is_named(split, tmp_path):
    (split / "dogs").rename(split / "doggies")
    with pytest.raises(FileNotFoundError, match="dogs' does not exist"):
        load_split(split, image_size=8)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_split(tmp_path / "nowhere", image_size=8)


def test_empty_class_folder_is_named(split):
    for path in (split / "dogs").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="dogs' holds none"):
        load_split(split, image_size=8)


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
