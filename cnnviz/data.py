"""Loads image files: one as an array, or a split of cats and dogs as batches."""

import contextlib
import io
import os
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import skimage.data
import tensorflow as tf

from cnnviz.checks import check_integer

CLASS_NAMES = ("cat", "dog")  # the index is the label; the folders of a split are `cats` and `dogs`
ORIENTATION = 0x0112  # the tag of EXIF
IMAGE_SUFFIXES = set(".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .avif".split())


def is_image_name(name):
    """Whether a file has the name of an image; macOS adds a `._0.jpg` that is none."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def decode_image(data):
    """Decode the bytes of an image file -> (H, W, 3) uint8 array, RGB, EXIF orientation applied.

    A damaged file is a ValueError with the reason: TensorFlow decodes JPEG, because Pillow fills
    what is missing with gray. Alpha is laid on white. The first frame of an animation is taken.
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
            with contextlib.suppress(Exception):  # no orientation, or unreadable EXIF data
                orientation = image.getexif()[ORIENTATION]
                stored = PIL.Image.fromarray(pixels)
                stored.getexif()[ORIENTATION] = orientation
                pixels = np.asarray(PIL.ImageOps.exif_transpose(stored))
            return pixels
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


def resize_image(image, image_size):
    """Resize an (H, W, 3) array to a side or (height, width): area means down, bilinear up."""
    height, width = np.broadcast_to(image_size, 2).tolist()
    smaller = min(image.shape[1], width), min(image.shape[0], height)
    # In two steps: where one side grows, OpenCV would not average along the other either.
    if smaller != image.shape[1::-1]:
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def load_image(
    path: str | os.PathLike[str], *, image_size: int | tuple[int, int] | None = None
) -> np.ndarray:
    """Load an image file as (H, W, 3) float32 array, RGB in 0..255, EXIF orientation applied.

    `image_size` is the side length in pixels of the square to resize to, or (height, width); None
    keeps the size. A file that is no complete image is a ValueError.

    Example:
        >>> import skimage
        >>> image = cnnviz.load_image(skimage.data_dir + "/chelsea.png", image_size=160)
    """
    if image_size is not None:
        for side in np.ravel(image_size).tolist():
            check_integer("image_size", side, 1)
    try:
        image = decode_image(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"`path` (='{path}') cannot be read as an image: {error}") from None
    return np.float32(image if image_size is None else resize_image(image, image_size))


def list_split(directory):
    """List the images of a split -> sorted paths (N,), int32 labels (N,): 0 for cat, 1 for dog."""
    paths, labels = [], []
    for label, name in enumerate(CLASS_NAMES):
        folder = Path(directory) / f"{name}s"
        files = sorted(folder.iterdir()) if folder.is_dir() else ()
        found = [str(path) for path in files if is_image_name(path.name)]
        if not found:
            what = "holds none" if folder.is_dir() else "does not exist"
            must = f"must hold images in cats/ and dogs/, but '{folder}' {what}"
            other = "keras.utils.image_dataset_from_directory loads folders of other classes"
            raise FileNotFoundError(f"`directory` (='{directory}') {must}; {other}")
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
        directory: Folder with images in `cats` and `dogs` (else a FileNotFoundError).
        image_size: Side length in pixels; images are resized to this square.
        batch_size: Images in a batch; the last one may be smaller.
        shuffle: Whether to draw a new order in each pass, from `seed`; else cats come before dogs.
        cache: Whether the first pass keeps the decoded images in memory. With `shuffle`, it decodes
            all images before the first batch.

    Returns:
        tf.data.Dataset of images (B, H, W, 3), float32 in 0..255, and labels (B,), int32. Its
        `file_paths` are in the order without `shuffle`. A damaged file is a tf.errors.OpError that
        names it, while reading.

    Example:
        >>> from cnnviz.drawn_pets import write_drawn_pets
        >>> write_drawn_pets("pets", train=4, validation=2, test=2)
        >>> train = cnnviz.load_split("pets/train", image_size=96, shuffle=True, cache=True)
    """
    check_integer("image_size", image_size, 1)
    check_integer("batch_size", batch_size, 1)
    size, options = (image_size, image_size), {"shuffle": shuffle, "seed": seed, "cache": cache}
    return load_files(*list_split(directory), size, batch_size, **options)


def load_files(paths, labels, size, batch_size=32, *, shuffle=False, seed=0, cache=False):
    """As `load_split`, from paths and labels; `size` is (height, width)."""

    def read(names):
        return np.uint8([load_image(os.fsdecode(name), image_size=size) for name in names])

    def load(names, labels):
        images = tf.numpy_function(read, [names], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (None, *size, 3)), labels

    names = [os.fsencode(path) for path in paths]  # which need not be valid UTF-8
    data = tf.data.Dataset.from_tensor_slices((names, labels))
    if shuffle and not cache:
        data = data.shuffle(len(paths), seed=seed)
    # In batches, because every call of a NumPy function costs a third of decoding an image.
    data = data.batch(batch_size).map(load, num_parallel_calls=os.cpu_count())
    if cache:
        data = data.unbatch().apply(tf.data.experimental.assert_cardinality(len(paths))).cache()
        if shuffle:  # one more than there are, so that the first pass reads the end and is kept
            data = data.shuffle(len(paths) + 1, seed=seed)
        data = data.batch(batch_size)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread can hold up the end of a pass for 40 s
    data = data.map(lambda images, labels: (tf.cast(images, tf.float32), labels))
    data = data.prefetch(2).with_options(options)
    data.file_paths = paths
    return data


def sample_image() -> np.ndarray:
    """A real photograph of a cat, without a download: (300, 451, 3) float32 array in 0..255.

    Example:
        >>> image = cnnviz.sample_image()
    """
    return skimage.data.chelsea().astype(np.float32)  # by Stéfan van der Walt, CC0
