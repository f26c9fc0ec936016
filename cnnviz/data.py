"""Loads image files: one as an array, or a split of cats and dogs as batches."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import skimage.data
import tensorflow as tf

from cnnviz.checks import check_integer

CLASS_NAMES = ("cat", "dog")
"""The index is the label; the folders of a split are `cats` and `dogs`."""

IMAGE_SUFFIXES = set(".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .avif".split())


def decode_image(data):
    """Decode the bytes of an image file strictly: a damaged file is an error, not a gray image.

    Training, figures and `data_separator.py` all read images through this one function, so they
    agree on what is readable and on which way is up. Pillow reads the header. TensorFlow decodes
    JPEG, because it rejects damaged data that Pillow fills with gray. Transparent images are laid
    on white. The first frame of an animation is taken.

    Args:
        data: The file's content, bytes.

    Returns:
        (H, W, 3) uint8 array, RGB, EXIF orientation applied.

    Raises:
        ValueError: If the bytes are not a complete image; the message is the reason.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            if image.format in ("JPEG", "MPO"):
                pixels = tf.io.decode_jpeg(data, channels=3).numpy()
            else:
                if image.format in ("PNG", "GIF"):  # Pillow accepts them without their last bytes
                    tf.io.decode_image(data, expand_animations=False)
                pixels = _to_rgb(image)
            # After the pixels: Pillow turns a TIFF upright and then forgets its orientation.
            return _turn_upright(pixels, image)
    except PIL.UnidentifiedImageError:
        raise ValueError("not an image in a known format") from None
    except tf.errors.InvalidArgumentError:  # its message tells a user nothing more
        raise ValueError(f"damaged or incomplete {image.format}") from None
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _to_rgb(image):
    """Pillow image of any mode -> (H, W, 3) uint8; 16 bits are scaled, alpha is laid on white."""
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = PIL.Image.fromarray((np.asarray(image) // 257).astype(np.uint8))  # 65535 / 255
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _turn_upright(pixels, image):
    """Undo the EXIF orientation of 1 to 8 (EXIF 2.3, tag 0x0112) that the header of `image` has."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # unreadable EXIF data beside whole pixels
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def resize_image(image, image_size):
    """Resize one image as training does: area averaging down, bilinear interpolation up.

    Args:
        image: (H, W, 3) array.
        image_size: Side length in pixels of a square, or (height, width).

    Returns:
        (height, width, 3) array of the same dtype. The aspect ratio is not kept.
    """
    height, width = np.broadcast_to(image_size, 2).tolist()
    smaller = min(image.shape[1], width), min(image.shape[0], height)
    # In two steps: where one side grows, OpenCV would not average along the other either.
    if smaller != image.shape[1::-1]:
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def load_image(path: str | os.PathLike[str], *, image_size: int | None = None) -> np.ndarray:
    """Load one image file of any common format.

    Args:
        path: The file.
        image_size: Side length in pixels of the square to resize to; None keeps the size.

    Returns:
        (H, W, 3) float32 array, RGB in 0..255, EXIF orientation applied.

    Raises:
        OSError: If the file cannot be read; FileNotFoundError if there is none.
        ValueError: If the file is not a complete image, or `image_size` is below 1.

    Example:
        >>> images = cnnviz.load_image("cat.jpg", image_size=160)[None]  # (1, 160, 160, 3)
    """
    if image_size is not None:
        check_integer("image_size", image_size, 1)
    return _read(path, image_size).astype(np.float32)


def _read(path, image_size):
    """One file -> uint8 array; the error names the file."""
    try:
        image = decode_image(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"`path` (='{path}') cannot be read as an image: {error}") from None
    as_it_is = image_size is None or image.shape[:2] == (image_size, image_size)
    return image if as_it_is else resize_image(image, image_size)


def list_split(directory):
    """List the image files of one split, such as `photos/train`.

    Args:
        directory: A folder that holds the folders `cats` and `dogs`.

    Returns:
        (paths, labels): sorted file paths as a list of str, and an (N,) int32 array, 0 for a cat
        and 1 for a dog. Hidden files and files without the suffix of an image are left out.

    Raises:
        FileNotFoundError: If a class folder is missing or holds no image.
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
                f"`directory` (='{directory}') must hold images in the folders 'cats' and 'dogs', "
                f"as data_separator.py makes them, but '{folder}' "
                + ("holds none" if folder.is_dir() else "does not exist")
                + "; keras.utils.image_dataset_from_directory loads folders of other classes"
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
    cache: bool = False,
) -> tf.data.Dataset:
    """Load one split of cats and dogs as batches.

    Args:
        directory: A folder that holds `cats` and `dogs`, such as `photos/train`.
        image_size: Side length in pixels; images are resized to this square.
        batch_size: Images in a batch; the last batch may be smaller.
        shuffle: Whether to draw a new order in each pass. In order, cats come before dogs.
        seed: Seed of the order.
        cache: Whether the first full pass keeps the decoded images (image_size * image_size * 3
            bytes each) in memory for the later ones. With `shuffle`, the first batch then comes
            only when all images are decoded.

    Returns:
        tf.data.Dataset of (images, labels): (B, image_size, image_size, 3) float32 in 0..255 and
        (B,) int32, 0 for a cat and 1 for a dog. Its attribute `file_paths` lists the files, in the
        order of the images if `shuffle` is False.

    Raises:
        FileNotFoundError: If a class folder is missing or empty.
        ValueError: If a number is out of range.
        tf.errors.OpError: While reading, if a file is damaged; the message names it.

    Example:
        >>> train = cnnviz.load_split("photos/train", image_size=96, shuffle=True, cache=True)
    """
    check_integer("image_size", image_size, 1)
    check_integer("batch_size", batch_size, 1)
    paths, labels = list_split(directory)

    def load(names, labels):
        images = tf.numpy_function(_read_all, [names, image_size], tf.uint8, stateful=False)
        images = tf.ensure_shape(images, (None, image_size, image_size, 3))
        return (images if cache else tf.cast(images, tf.float32)), labels

    names = [os.fsencode(path) for path in paths]  # which need not be valid UTF-8
    data = tf.data.Dataset.from_tensor_slices((names, labels))
    if shuffle and not cache:
        data = data.shuffle(len(paths), seed=seed)
    # In batches, because every call of a NumPy function costs a third of decoding an image.
    data = data.batch(batch_size).map(load, num_parallel_calls=os.cpu_count())
    if cache:
        cardinality = tf.data.experimental.assert_cardinality(len(paths))  # else unknown
        data = data.unbatch().apply(cardinality).cache()
        if shuffle:  # one more than there are, so that the first pass reads the end and is kept
            data = data.shuffle(len(paths) + 1, seed=seed)
        data = data.batch(batch_size).map(_as_float)
    options = tf.data.Options()
    # The thread that tunes parallelism can hold up the end of a pass for 40 s (TensorFlow 2.21).
    options.autotune.enabled = False
    data = data.prefetch(2).with_options(options)
    data.file_paths = paths
    return data


def _read_all(names, image_size):
    return np.stack([_read(os.fsdecode(name), image_size) for name in names])


def _as_float(images, labels):
    return tf.cast(images, tf.float32), labels


def sample_image() -> np.ndarray:
    """Load a real photograph of a cat that is there without a download.

    Returns:
        (300, 451, 3) float32 array in 0..255: "Chelsea the cat" by Stéfan van der Walt (CC0), from
        scikit-image.

    Example:
        >>> cnnviz.sample_image().shape
        (300, 451, 3)
    """
    return skimage.data.chelsea().astype(np.float32)
