"""Check a model, and bring its images into the form that every method works on."""

import numpy as np
import tensorflow as tf

from cnnviz.checks import check_integer
from cnnviz.keras_internals import input_names
from cnnviz.layers.names import is_a, leaves, named_layers

AXES = {2: "(N, F)", 3: "(N, L, C)", 4: "(N, H, W, C)", 5: "(N, D, H, W, C)"}
DEFAULT_IMAGE_SIZE = 96  # pixels, for a model that takes any size


def check_model(model):
    """Check that a model is built and has channels last; return its `named_layers`."""
    named = named_layers(model)
    if not model.built:
        raise ValueError(f"`model` (='{model.name}') is not built; call it once on an image")
    for path, layer in leaves(named).items():
        if is_a(layer, "2D") and getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f"`model` (='{model.name}') has channels first in layer '{path}'; build it with "
                "data_format='channels_last', and axis=-1 in BatchNormalization, and `set_weights`"
            )
    return named


def check_images(model, images, *, name="images"):
    """What a model takes, with a batch axis: an array, or a list or dict of several inputs.

    Images (N, H, W, C), signals (N, L, C) and volumes (N, D, H, W, C) become float32. The batch
    axis of a single one may be missing, as may the last axis of gray images (N, H, W).

    Raises:
        ValueError: If rank, size, channels or values do not fit the model.
    """
    shapes = input_shapes(model)
    if None in shapes:
        if isinstance(images, dict) and len(images) == 1:
            (images,) = images.values()
        return _check_array(model, images, shapes[None], name)
    given = images
    if isinstance(images, (list, tuple)) and len(images) == len(shapes):
        given = dict(zip(shapes, images, strict=True))
    if not (isinstance(given, dict) and {*given} >= {*shapes}):
        found = f"keys {list(images)}" if isinstance(images, dict) else type(images).__name__
        raise ValueError(
            f"`{name}` ({found}) must be a list or a dict of the {len(shapes)} inputs of model "
            f"'{model.name}': {', '.join(map(repr, shapes))}"
        )
    found = {k: _check_array(model, given[k], shapes[k], f"{name}[{k!r}]") for k in shapes}
    counts = {key: len(array) for key, array in found.items()}
    if len({*counts.values()}) > 1:
        raise ValueError(f"`{name}` (of {counts} rows) must have as many rows in each input")
    return _as_called(model, found)


def _as_called(model, inputs):
    """A dict of inputs by name, as the dict or list that the model was built with."""
    if getattr(model, "inputs", None):
        return inputs if isinstance(model.input, dict) else list(inputs.values())
    return inputs if isinstance(next(iter(inputs)), str) else list(inputs.values())


def _check_array(model, images, expected, name):
    """One input, as an array with a batch axis."""
    kind, rank, axes = type(images).__name__, len(expected), AXES.get(len(expected), "an array")
    try:
        images = np.asarray(images)
    except ValueError:
        raise ValueError(
            f"`{name}` (of different shapes) must all have one size; "
            "`load_image(path, image_size=...)` resizes"
        ) from None
    if images.dtype.kind not in "fiub" and images.dtype.name != "bfloat16":
        given = f"a {kind} of dtype {images.dtype}"
        raise ValueError(f"`{name}` ({given}) must be an array of numbers, {axes}")
    if rank > 2 or images.dtype.kind not in "iub":  # indices, for an embedding, stay integers
        with np.errstate(over="ignore"):  # infinity is reported below
            images = images.astype(np.float32, copy=False)
    given = images.shape
    if images.ndim == rank - 1:  # gray images, or one image
        is_gray = expected[-1] == 1 or (model is None and given[-1] > 4)
        images = images[..., None] if is_gray and given[-1:] != (1,) else images[None]
    if images.ndim != rank:
        raise ValueError(f"`{name}` (of shape {given}) must be {axes}, or one without N")
    if 0 in images.shape[1:]:
        raise ValueError(f"`{name}` (of shape {images.shape}) must have pixels")
    if not np.isfinite(images).all():
        raise ValueError(f"`{name}` holds NaN or infinity; every value must be a finite float32")
    sizes = zip(expected[1:], images.shape[1:], strict=True)
    if any(size not in (None, own) for size, own in sizes):
        letters = axes.strip("()").split(", ")
        wanted = ", ".join(str(s or n) for n, s in zip(letters, (None, *expected[1:]), strict=True))
        raise ValueError(f"`{name}` (of shape {given}) must be ({wanted}) for model '{model.name}'")
    return images


def input_shapes(model, *, known=False):
    """{name: shape} of the inputs of a model, in its order; None is the name of a single one.

    Names are those of `keras.Input`, or the keys or indices of what a subclassed model was first
    called with. A size is None where it is free; the sizes of that first call are, unless `known`.
    """
    if model is None:  # images of any size
        return {None: (None,) * 4}
    if getattr(model, "inputs", None):
        inputs = getattr(model, "input", None)  # a Sequential that was never called has none
        if not isinstance(inputs, dict):
            inputs = dict(zip(input_names(model), model.inputs, strict=True))
        if not all(hasattr(one, "shape") for one in inputs.values()):
            raise ValueError(
                f"`model` (='{model.name}') takes nested inputs; it must take a list or a dict"
            )
        single = len(inputs) == 1
        shapes = {None if single else name: tuple(one.shape) for name, one in inputs.items()}
    else:
        shapes = (model.get_build_config() or {}).get("input_shape") or (None,) * 4
        if not isinstance(shapes, dict):
            are_several = isinstance(shapes[0], (tuple, list))
            shapes = dict(enumerate(shapes)) if are_several else {None: shapes}
        if not known:
            shapes = {name: (None,) * len(shape) for name, shape in shapes.items()}
    if not any(3 <= len(shape) <= 5 for shape in shapes.values()):
        raise ValueError(
            f"`model` (='{model.name}') takes {[*shapes.values()]}; it must have an input of "
            "images (N, H, W, C), signals (N, L, C) or volumes (N, D, H, W, C)"
        )
    return shapes


def image_key(model, input_name=None):
    """The name, in `input_shapes`, of the input to look at: the chosen one, or the first image."""
    shapes = input_shapes(model)
    names, able = list(shapes), [name for name, shape in shapes.items() if 3 <= len(shape) <= 5]
    if input_name is None or None in shapes:
        return max(able, key=lambda name: len(shapes[name]) == 4)
    is_index = isinstance(input_name, int) and 0 <= input_name < len(names)
    name = names[input_name] if is_index else input_name
    if name not in able:
        raise ValueError(
            f"`input_name` (={input_name!r}) must be one of the inputs of model '{model.name}' "
            f"that have positions: {', '.join(map(repr, able))}"
        )
    return name


def _index(model, inputs, input_name):
    """Where the input to look at is in a dict or a list of inputs."""
    key = image_key(model, input_name)
    return key if isinstance(inputs, dict) else list(input_shapes(model)).index(key)


def image_of(model, inputs, input_name=None):
    """The input to look at, of what `check_images` returned."""
    several = isinstance(inputs, (dict, list))
    return inputs[_index(model, inputs, input_name)] if several else inputs


def only_image_of(model, inputs, input_name=None):
    """As `image_of`; a ValueError unless it is images (N, H, W, C)."""
    images = image_of(model, inputs, input_name)
    if images.ndim != 4:
        raise ValueError(f"`images` (of shape {images.shape}) must be images (N, H, W, C)")
    return images


def with_image(model, inputs, images, input_name=None):
    """The same inputs with another array as the input to look at."""
    if not isinstance(inputs, (dict, list)):
        return images
    changed = inputs.copy()
    changed[_index(model, inputs, input_name)] = images
    return changed


def with_zeros(model, images, input_name=None):
    """What a model takes: images, and zeros in its other inputs."""
    shapes = input_shapes(model, known=True)
    if None in shapes:
        return images
    zeros = {
        name: np.zeros((len(images), *(size or 1 for size in shape[1:])), np.float32)
        for name, shape in shapes.items()
    }
    return with_image(model, _as_called(model, zeros), images, input_name)


def take(inputs, rows):
    """Some rows, an index of any kind, of each input."""
    return tf.nest.map_structure(lambda array: array[rows], inputs)


def only_images(model, purpose):
    """Raise a ValueError unless a model has a single input, of images (N, H, W, C)."""
    shapes = list(input_shapes(model).values())
    if len(shapes) > 1 or len(shapes[0]) != 4:
        raise ValueError(
            f"`model` (='{model.name}') takes {', '.join(map(str, shapes))}; {purpose} needs a "
            "model whose only input is images (N, H, W, C)"
        )


def input_shape(model):
    """Shape, such as (None, H, W, C), of the input to look at; None where a size is free."""
    return input_shapes(model)[image_key(model)]


def image_shape(model, image_size=None, input_name=None):
    """(height, width, channels) of an image for a model.

    `image_size` is a side in pixels, or (height, width). None takes the model's own size, or the
    size that a subclassed model was first called with, or 96.
    """
    key = image_key(model, input_name)
    own, known = input_shapes(model)[key], input_shapes(model, known=True)[key]
    if len(own) != 4:
        raise ValueError(f"`model` (='{model.name}') takes {own}; this needs images (N, H, W, C)")
    channels = known[3] or 3
    if image_size is None:
        return *(side or DEFAULT_IMAGE_SIZE for side in known[1:3]), channels
    size = tuple(image_size) if np.shape(image_size) == (2,) else (image_size, image_size)
    for side in size:
        check_integer("image_size", side, 1)
    if any(fixed not in (None, side) for fixed, side in zip(own[1:3], size, strict=True)):
        wanted = f"{own[1]}x{own[2]} for model '{model.name}', which takes no other"
        raise ValueError(f"`image_size` (={image_size}) must be {wanted}")
    return *size, channels


def takes_integers(model):
    """Whether Keras rounds the images before the model gets them."""
    return any("int" in str(one.dtype) for one in getattr(model, "inputs", None) or ())
