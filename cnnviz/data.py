"""(folder or file of photographs) -> batches (N, H, W, 3) or (H, W, 3), RGB in 0..255, upright."""

import io
import os
import re
import weakref
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import skimage.data
import tensorflow as tf

from cnnviz.checks import check_integer

CLASS_NAMES = ("cat", "dog")
"""The index is the label; the folders of a split are `cats` and `dogs`."""

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif"}
MOST_READERS = 8  # batches that are read at once: each is held until its turn comes
MAX_PIXELS = 100_000_000  # a header can promise any size; larger than any camera, it is a fault
_TOO_MANY_PIXELS = f"its header promises more than {MAX_PIXELS:,} pixels"

# (height, width), two bytes each, of every start of a frame (ITU-T T.81, B.2.2), and of what looks
# like one.
_JPEG_SIZES = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf](?=...(..)(..))", re.DOTALL)

# EXIF orientation -> what brings the stored pixels upright (EXIF 2.3, tag 0x0112).
_UPRIGHT = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels, 1),
}


def decode_image(data):
    """Decode a picture file's bytes strictly: damaged files are errors, never half grey pictures.

    Training, figures and `data_separator.py` all read pictures through this one function, so they
    agree on what is readable and on which way is up. JPEG goes through TensorFlow's decoder, which
    is the strictest (it refuses a file without its last two bytes), everything else through Pillow.
    Transparent pictures are laid on white; of an animation the first frame is taken.

    Args:
        data: The file's content, bytes.

    Returns:
        (H, W, 3) uint8 array, RGB, EXIF orientation applied.

    Raises:
        ValueError: If the bytes are not a complete picture; the message is the reason.
    """
    if not data:
        raise ValueError("the file is empty")
    pixels = _plain_jpeg(data)
    if pixels is not None:
        return pixels
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ValueError(_TOO_MANY_PIXELS)
            if picture.format in ("JPEG", "MPO"):
                pixels = np.asarray(tf.io.decode_jpeg(data, channels=3))
            else:
                _check_end(picture.format, data)
                pixels = _to_rgb(picture)
            # After the pixels: Pillow turns a TIFF upright itself and then forgets its orientation.
            orientation = _orientation(picture)
    except ValueError:
        raise
    except PIL.Image.DecompressionBombError:
        raise ValueError(_TOO_MANY_PIXELS) from None
    except PIL.UnidentifiedImageError:
        raise ValueError("not a picture in a known format") from None
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"damaged JPEG: {_first_sentence(error.message)}") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise ValueError(f"damaged picture: {_first_sentence(str(error))}") from None
    return np.ascontiguousarray(_UPRIGHT.get(orientation, lambda same: same)(pixels))


def _plain_jpeg(data):
    """The pixels of a whole JPEG that is not said to be turned, without Pillow; None of any other.

    Nearly all photographs are such, and for Pillow to read a header takes a tenth of the time of
    decoding the picture.
    """
    sizes = _JPEG_SIZES.findall(data) if data.startswith(b"\xff\xd8\xff") else ()
    areas = [int.from_bytes(height) * int.from_bytes(width) for height, width in sizes]
    if not areas or max(areas) > MAX_PIXELS or b"Exif" in data or b"Orientation" in data:
        return None
    try:  # what tf.io.decode_jpeg calls; ten microseconds less
        return np.asarray(tf.raw_ops.DecodeJpeg(contents=data, channels=3))
    except tf.errors.InvalidArgumentError:
        return None


def _first_sentence(message):
    """The first line of a decoder's message, without TensorFlow's name of the operation."""
    line = (message.strip().splitlines() or ["no reason given"])[0]
    return line.split("[Op:")[0].strip()


def _orientation(picture):
    """The EXIF orientation; 1, upright, where the EXIF data cannot be read."""
    try:
        return picture.getexif().get(0x0112, 1)
    except Exception:  # as for the pixels; but those are whole here
        return 1


def _check_end(file_format, data):
    """Raise a ValueError where the last bytes are missing and Pillow does not mind."""
    whole = {"PNG": _png_ends, "GIF": _gif_ends}.get(file_format, bool)
    if not whole(data):
        raise ValueError(f"damaged picture: the end of the {file_format} is missing")


def _png_ends(data):
    return b"IEND\xaeB`\x82" in data


def _gif_ends(data):
    """Whether the chain of blocks leads to the trailer (GIF89a specification, appendix A)."""

    def color_table(flags):
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    place = 13 + color_table(data[10])
    while place < len(data) and data[place] != ord(";"):
        if data[place] == ord(","):  # a frame, else an extension
            place += 11 + color_table(data[min(place + 9, len(data) - 1)])
        else:
            place += 2
        while place < len(data) and data[place]:  # blocks of up to 255 bytes, the last one empty
            place += 1 + data[place]
        place += 1
    return place < len(data)


def _to_rgb(picture):
    """Pillow picture of any mode -> (H, W, 3) uint8; 16 bit is scaled, alpha laid on white."""
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels of 32 bit have no fixed range; save it with 8 or 16 bit")
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture, np.float64) / 257).astype(np.uint8)  # 65535 / 255
        return np.repeat(grey[..., None], 3, axis=2)
    if "A" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        picture = PIL.Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))


def resize_image(image, image_size):
    """Resize one picture, as training does: area averaging down, bilinear up.

    Args:
        image: (H, W, 3) array.
        image_size: Side length in pixels of a square, or (height, width).

    Returns:
        (height, width, 3) array of the same dtype. The aspect is not kept.
    """
    height, width = np.broadcast_to(image_size, 2).tolist()
    smaller = min(image.shape[1], width), min(image.shape[0], height)
    # In turn: where one side grows, OpenCV would not average along the other either.
    if smaller != image.shape[1::-1]:
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def load_image(path: str | os.PathLike[str], *, image_size: int | None = None) -> np.ndarray:
    """Load one picture file of any common format.

    Args:
        path: The file.
        image_size: Side length in pixels of the square to resize to; None keeps the size.

    Returns:
        (H, W, 3) float32 array, RGB in 0..255, EXIF orientation applied.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the file may not be read.
        ValueError: If the file is not a complete picture, or `image_size` is below 1.
    """
    if image_size is not None:
        check_integer("image_size", image_size, 1)
    return _read(path, image_size).astype(np.float32)


def _read(path, image_size):
    """One file -> uint8 array; the error names the file."""
    try:
        data = None
        name = os.fspath(path)
        # The second is slower, and raises what kept the first from finding out.
        if os.path.isfile(name) or Path(name).is_file():
            with open(name, "rb", buffering=0) as file:
                data = file.read()
    except TypeError:
        raise ValueError(f"`path` (={path!r}) must be the path of a file") from None
    except OSError as error:  # not allowed, or a name that no file can have
        raise type(error)(f"`path` (='{path}') cannot be read: {error.strerror}") from None
    if data is None:
        raise FileNotFoundError(f"`path` (='{path}') is not a file")
    try:
        image = decode_image(data)
    except ValueError as error:
        raise ValueError(f"`path` (='{path}') cannot be read as a picture: {error}") from None
    as_it_is = image_size is None or image.shape[:2] == (image_size, image_size)
    return image if as_it_is else resize_image(image, image_size)


def list_split(directory):
    """List the photographs of one part, such as `photos/train`.

    Args:
        directory: A folder that holds the folders `cats` and `dogs`.

    Returns:
        (paths, labels): sorted file paths as a list of str, and an (N,) int32 array, 0 for a cat
        and 1 for a dog. Hidden files and files without a picture's suffix are passed over.

    Raises:
        FileNotFoundError: If a class folder is missing or holds no photograph.
    """
    paths, labels = [], []
    for label, name in enumerate(CLASS_NAMES):
        folder = Path(directory) / f"{name}s"
        found = sorted(
            str(path)
            for path in (folder.iterdir() if folder.is_dir() else ())
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        )
        if not found:
            raise FileNotFoundError(
                f"`directory` (='{directory}') must hold photographs in 'cats' and 'dogs', as "
                f"data_separator.py makes them; '{folder}' "
                + ("holds none" if folder.is_dir() else "does not exist")
            )
        paths += found
        labels += [label] * len(found)
    return paths, np.array(labels, np.int32)


def load_split(
    directory: str | os.PathLike[str],
    *,
    image_size: int,
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int = 0,
    cache: bool = True,
) -> tf.data.Dataset:
    """Load one part of the separated photographs as batches.

    Args:
        directory: A folder that holds `cats` and `dogs`, such as `photos/train`.
        image_size: Side length in pixels; pictures are resized to this square.
        batch_size: Pictures in a batch; the last batch may be smaller.
        shuffle: Whether to draw a new order in each pass. In order, cats come before dogs.
        seed: Seed of the order.
        cache: Whether to keep decoded pictures in memory (image_size * image_size * 3 bytes each),
            so that later passes need not read them again.

    Returns:
        tf.data.Dataset of (images, labels): (B, image_size, image_size, 3) float32 in 0..255 and
        (B,) int32, 0 for a cat and 1 for a dog.

    Raises:
        FileNotFoundError: If a class folder is missing or empty.
        ValueError: If a number is out of range. A damaged file raises while reading, by its name.
    """
    check_integer("image_size", image_size, 1)
    check_integer("batch_size", batch_size, 1)
    paths, labels = list_split(directory)
    shape = image_size, image_size, 3
    pictures = np.empty((len(paths) if cache else 0, *shape), np.uint8)
    is_kept = np.zeros(len(paths), bool)
    # By a weak reference: TensorFlow never lets go of `read`, nor of what it holds.
    find_pictures = weakref.ref(pictures)

    def read(indices):
        pictures = find_pictures()
        if not cache or pictures is None:
            return np.stack([_read(paths[index], image_size) for index in indices])
        for index in indices[~is_kept[indices]]:
            pictures[index] = _read(paths[index], image_size)
            is_kept[index] = True
        return pictures.take(indices, axis=0)

    @tf.autograph.experimental.do_not_convert
    def load(indices):
        images = tf.numpy_function(read, [indices], tf.uint8, stateful=False)
        images = tf.cast(tf.ensure_shape(images, (None, *shape)), tf.float32)
        return images, tf.gather(labels, indices)

    data = tf.data.Dataset.range(len(paths))
    if shuffle:
        data = data.shuffle(len(paths), seed=seed)
    data = data.batch(batch_size).map(load, num_parallel_calls=min(os.cpu_count(), MOST_READERS))
    data.pictures = pictures  # which live as long as this dataset and those made of it
    return untuned(data.prefetch(2))


def untuned(data, *, threads=None):
    """The same dataset, whose degree of parallelism TensorFlow does not tune while it runs.

    The tuning has a thread of its own, for which the end of each pass waits: up to 40 seconds were
    seen after a training epoch of 24, with both processors idle (TensorFlow 2.21).

    Args:
        data: tf.data.Dataset.
        threads: How many of its own it has; None shares TensorFlow's.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    if threads is not None:
        options.threading.private_threadpool_size = threads
    return data.with_options(options)


def sample_image() -> np.ndarray:
    """A real photograph of a cat that is there without a download.

    Returns:
        (300, 451, 3) float32 array in 0..255: "Chelsea the cat" by Stéfan van der Walt (CC0), from
        scikit-image.
    """
    return skimage.data.chelsea().astype(np.float32)
