"""(any Keras 3 model) -> its layers by name, their outputs in a call, the scores of its classes.

One mechanism serves every kind of model. For the length of a `with` block the `call` of a layer is
wrapped and its output kept; traced once in a `tf.function`, this gives tensors to return or to
differentiate with respect to, and the graph optimiser drops the layers that the result does not
need. Functional, Sequential, nested and subclassed models are all the same to it.

Pictures and feature maps are (N, H, W, C) everywhere but inside a model whose layers have channels
first: what such a model receives is turned here, and what its layers put out is turned back.
"""

import contextlib
import difflib
import functools
import re
import warnings
import weakref

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

BATCH_SIZE = 32  # pictures in one call of the model; bounds the memory
RANGE_SAMPLE = 4  # pictures whose range is looked at
CHANNELS = (1, 3, 4)  # that pictures have: by these the layout of pictures is told
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # turn (N, C, H, W) to channels last, and back
LARGE = 50  # what reaches the first kernel of a network trained on rescaled pictures is less


def named_layers(model: keras.Model) -> dict[str, keras.Layer | keras.Operation]:
    """List every layer of a model, those inside nested models and composite layers too.

    Args:
        model: keras.Model of any kind.

    Returns:
        dict[str, keras.layers.Layer or keras.Operation]: by path, such as
        "backbone/block_13_expand"; a nested model comes before its own layers.
    """
    found = {}

    def visit(parent, prefix, above):
        for layer in _children(parent):
            if layer in above:  # a layer that holds its parent
                continue
            path = prefix + layer.name
            while path in found:  # only subclassed models can use a name twice
                path += "'"
            found[path] = layer
            visit(layer, path + "/", [*above, layer])

    visit(model, "", [model])
    return found


def _children(parent):
    """The layers and operations directly inside a model or a composite layer."""
    if isinstance(parent, keras.Sequential):
        return parent.layers
    if isinstance(parent, keras.Model) and hasattr(parent, "operations"):  # functional
        return [op for op in parent.operations if not isinstance(op, keras.layers.InputLayer)]
    if isinstance(parent, keras.Layer):
        return parent._flatten_layers(include_self=False, recursive=False)
    return []


def convolution_layers(model: keras.Model, *, pooling: bool = False) -> list[str]:
    """Names of the convolution layers of a model, in the model's order.

    Args:
        model: keras.Model of any kind.
        pooling: Whether pooling layers that leave a feature map belong to them.

    Returns:
        list[str]: paths, as `named_layers` gives them.
    """
    kinds = ("Conv", "Pool") if pooling else ("Conv",)
    return [
        path
        for path, layer in leaf_layers(model).items()
        if any(kind in type(layer).__name__ for kind in kinds)
        and (not type(layer).__name__.startswith("Global") or getattr(layer, "keepdims", False))
    ]


def leaf_layers(model):
    """As `named_layers`, without those that only hold other layers."""
    return {path: layer for path, layer in named_layers(model).items() if not _children(layer)}


def find_layer(model, name):
    """Find one layer by its path or, while that is unambiguous, by its bare name.

    Args:
        model: keras.Model of any kind.
        name: "backbone/block_13_expand" or "block_13_expand".

    Returns:
        (path, layer).

    Raises:
        ValueError: If no layer or more than one answers to `name`; the nearest names are offered.
    """
    layers = named_layers(model)
    name = str(name)
    if name in layers:
        return name, layers[name]
    paths = [path for path in layers if path.endswith(f"/{name}")]
    if len(paths) == 1:
        return paths[0], layers[paths[0]]
    if paths:
        raise ValueError(f"`layer_name` (='{name}') is ambiguous in model '{model.name}': {paths}")
    nearest = difflib.get_close_matches(name, layers, n=3, cutoff=0.3) or list(layers)[-3:]
    raise ValueError(
        f"`layer_name` (={name!r}) is no layer of model '{model.name}'; the nearest are "
        + ", ".join(f"'{path}'" for path in nearest)
    )


@contextlib.contextmanager
def record_outputs(layers, *, turned=()):
    """Keep what layers return while the model is called inside the `with` block.

    Args:
        layers: dict[str, layer] as from `named_layers`.
        turned: Paths of those that put out (N, C, h, w), which is kept as (N, h, w, C).

    Yields:
        dict[str, list]: each layer's outputs under its path, in the order of the layers' last
        calls; a layer that is used twice has two. On leaving, every layer's `call` is as it was.
    """
    outputs = {}

    def wrap(path, call):
        @functools.wraps(call)
        def recording_call(*args, **kwargs):
            output = kept = call(*args, **kwargs)
            if path in turned and tf.is_tensor(output) and output.shape.rank == 4:
                kept = tf.transpose(output, LAST)
                output = tf.transpose(kept, FIRST)  # so that the result depends on what is kept
            outputs[path] = [*outputs.pop(path, []), kept]
            return output

        return recording_call

    with _wrapped_calls(layers, wrap):
        yield outputs


@contextlib.contextmanager
def _wrapped_calls(layers, wrap):
    """Put `wrap(path, call)` in the place of each layer's `call`, for the length of the block."""
    before = {}
    try:
        for path, layer in layers.items():
            before[path] = layer.__dict__.get("call")
            layer.__dict__["call"] = wrap(path, layer.call)  # past Keras's attribute tracking
        yield
    finally:
        for path, call in reversed(before.items()):  # a layer may have two paths, two wrappers
            del layers[path].__dict__["call"]
            if call is not None:
                layers[path].__dict__["call"] = call


def call_and_record(model, images, layers):
    """Call a model in inference mode and return what it and the layers put out.

    Args:
        model: keras.Model with one input.
        images: (N, H, W, C) tensor.
        layers: dict[str, layer] as from `named_layers`.

    Returns:
        (output, dict[str, list]): the model's output, and the tensors that each layer put out,
        feature maps as (N, h, w, C), layers in the order of their last calls.
    """
    with record_outputs(layers, turned=_with_channels_first(layers, model)) as recorded:
        output = _call(model, images)
    tensors = {path: [y for y in calls if tf.is_tensor(y)] for path, calls in recorded.items()}
    graphs = {getattr(y, "graph", None) for calls in tensors.values() for y in calls}
    # A tf.function that was traced before does not run its Python code again: nothing is recorded.
    if graphs - {images.graph, None} or (len(layers) > 1 and not recorded):
        raise ValueError(
            f"`model` (='{model.name}') calls its layers inside a tf.function of its own, where "
            "they cannot be recorded; remove the @tf.function from its `call`"
        )
    return output, {path: calls for path, calls in tensors.items() if calls}


def _call(model, images):
    try:
        turned = tf.transpose(images, FIRST) if _takes_channels_first(model) else images
        return model(turned, training=False)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        # Keras wraps what a layer raises: escapes for bold type before, all arguments after it.
        reason = re.sub(r"\x1b\[\d+m", "", str(error)).split("\n\nArguments received")[0]
        raise ValueError(
            f"`model` (='{model.name}') cannot be called on `images` of shape "
            f"{tuple(images.shape)}: {' '.join(reason.split())}"
        ) from error
    finally:
        model._clear_losses()  # activity regularisers would leave tensors of this graph behind


def _with_channels_first(layers, model):
    """Of some layers of a model, the paths of those that put out (N, C, h, w).

    A layer for pictures says so itself; one that says nothing, such as an activation, does as all
    the others of its model do, if they agree.
    """
    first = {"channels_first"}
    turned = {*first, None} if _layouts(model) == first else first
    return {path for path, layer in layers.items() if _data_format(layer) in turned}


def _layouts(model):
    """The layouts that the layers for pictures of a model work in."""
    return {_data_format(layer) for layer in leaf_layers(model).values()} - {None}


def _data_format(layer):
    """The layout that a layer for pictures works in; None of other layers, which may name one."""
    is_for_pictures = any("2D" in kind.__name__ for kind in type(layer).__mro__)
    return getattr(layer, "data_format", None) if is_for_pictures else None


def _takes_channels_first(model):
    """Whether it takes pictures (N, C, H, W); it may also turn them itself."""
    if _layouts(model) != {"channels_first"}:
        return False
    # A subclassed model knows at least what it was built with.
    built = (model.get_build_config() or {}).get("input_shape")
    shape = _own_input_shape(model) or built or (None,) * 4
    return not (shape[3] in CHANNELS and shape[1] not in CHANNELS)


def required_output(outputs, path):
    """The recorded output of one layer that a person asked for.

    Raises:
        ValueError: If the layer was not called or returned no single tensor.

    Warns:
        UserWarning: If the layer is used several times; the last output is taken.
    """
    if path not in outputs:
        raise ValueError(
            f"`layer_name` (='{path}') is not used, or returns no single tensor, or is hidden in a "
            "tf.function of the model's own, when the model is called in inference mode"
        )
    if len(outputs[path]) > 1:
        warnings.warn(
            f"layer '{path}' is used {len(outputs[path])} times in one call; its last output is "
            "taken",
            stacklevel=2,
        )
    return outputs[path][-1]


_traced = weakref.WeakKeyDictionary()  # model -> {key: function}; goes when the model goes


def traced(model, key, make):
    """A function that was traced for this model before, or a new one.

    Args:
        model: keras.Model.
        key: What tells the function from others of the same model; hashable.
        make: `make(get_model)` returns the function. It reaches the model through `get_model()`,
            so that the cache does not keep the model alive.

    Returns:
        What `make` returned, now or at an earlier call with the same key. Layers or activations
        that were exchanged since then count as another key; new weights are seen anyway.
    """
    # Normalization keeps its mean as a constant, which a new `adapt` replaces.
    parts = [
        (layer, getattr(layer, "activation", None), getattr(layer, "mean", None))
        for layer in named_layers(model).values()
    ]
    key = key, tuple(tuple(map(id, part)) for part in parts)
    functions = _traced.setdefault(model, {})
    if key not in functions:
        # What is identified by its id must live as long as the entry, or the id could be reused.
        functions[key] = make(weakref.ref(model)), [part[1:] for part in parts]
    return functions[key][0]


def activation_input(tensor, activations):
    """The tensor that an activation function was applied to.

    Args:
        tensor: A tensor of a graph under construction.
        activations: Types of TensorFlow operations, such as ("Sigmoid", "Softmax").

    Returns:
        The input of the activation that made `tensor`, in the shape of `tensor`; casts and reshapes
        in between are passed over. None if it was made otherwise.
    """
    if tensor.op.type == "Transpose":  # of a layer with channels first
        before = activation_input(tensor.op.inputs[0], activations)
        return None if before is None else tf.transpose(before, tensor.op.inputs[1])
    made = tensor
    while made.op.type in ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims"):
        made = made.op.inputs[0]
    if made.op.type not in activations:
        return None
    before = made.op.inputs[0]
    return before if made is tensor else tf.reshape(before, tf.shape(tensor))


def class_scores(output):
    """The logits of the classes, whatever the head of the model ends in.

    Args:
        output: (N, K) tensor under construction: the model's output.

    Returns:
        (N, classes) float32 tensor: the input of the final sigmoid or softmax if there is one,
        else the output itself. One output z gives the two classes -z and z.

    Raises:
        ValueError: If the model does not return one tensor of rank 2.
    """
    check_output(output)
    logits = activation_input(output, ("Sigmoid", "Softmax"))
    logits = tf.cast(output if logits is None else logits, tf.float32)
    logits = tf.ensure_shape(logits, (None, output.shape[1]))
    return tf.concat([-logits, logits], axis=1) if logits.shape[1] == 1 else logits


def pick_output(model, output, name):
    """One of the outputs of a model.

    Args:
        model: keras.Model.
        output: What it returned: a tensor, or a list or dict of several.
        name: Its name in `model.output_names`, its key or its index; None if there is only one.

    Raises:
        ValueError: If there is no such output, or several and `name` is None.
    """
    if isinstance(output, dict):
        named = output
    else:
        outputs = list(output) if isinstance(output, (list, tuple)) else [output]
        names = getattr(model, "output_names", None) or ()
        names = names if len(names) == len(outputs) else range(len(outputs))
        named = dict(zip(names, outputs, strict=True))
        if isinstance(name, int) and 0 <= name < len(outputs):
            return outputs[name]
    if name is None and len(named) == 1:
        return next(iter(named.values()))
    if name not in list(named):  # a list is in no dict, and has no hash either
        raise ValueError(
            f"`output_name` (={name!r}) must be one of the outputs of model '{model.name}': "
            + ", ".join(map(repr, named))
        )
    return named[name]


def check_output(output):
    if output.shape.rank != 2:
        raise ValueError(
            f"`model` returns shape {tuple(output.shape)}; a classifier must return (N, classes)"
        )


def class_probabilities(
    model: keras.Model, images: ArrayLike, *, output_name: str | int | None = None
) -> np.ndarray:
    """Probability of each class, for a head of any kind.

    Args:
        model: keras.Model that returns one logit, one sigmoid, logits or a softmax.
        images: (N, H, W, C) or (H, W, C), in the model's input range. A model that has channels
            first may get them in its own layout, too.
        output_name: The output to take, of a model with several: its name in
            `model.output_names`, its key or its index.

    Returns:
        (N, classes) float32 array in 0..1. A head with one output has two classes, of which it
        gives the second. Sigmoids of several labels are returned as they are.

    Raises:
        ValueError: If the images or the model's output have another shape, or NaN comes out.

    Warns:
        UserWarning: If the range of the images cannot be the one that the model was trained on.
    """
    images = check_images(model, images)

    def make(get_model):
        @tf.function(autograph=False, input_signature=[image_spec(images)])
        def probabilities(batch):
            model = get_model()
            output = pick_output(model, _call(model, batch), output_name)
            check_output(output)
            if activation_input(output, ("Sigmoid", "Softmax")) is None:
                scores = class_scores(output)
                if scores.shape[1] > output.shape[1]:
                    return tf.sigmoid(scores)
                # Probabilities that came about in some other way: no logits lie and sum like that.
                positive = tf.reduce_all(scores >= 0)
                sums_to_one = tf.reduce_all(tf.abs(tf.reduce_sum(scores, 1) - 1) < 1e-3)
                return tf.where(positive & sums_to_one, scores, tf.nn.softmax(scores))
            output = tf.cast(output, tf.float32)
            return tf.concat([1.0 - output, output], 1) if output.shape[1] == 1 else output

        return probabilities.get_concrete_function()

    function = traced(model, ("probabilities", repr(output_name), images.shape[1:]), make)
    check_range(model, images)
    found = in_batches(function, images)
    check_finite(model, found)
    return found.copy()


def check_finite(model, *results):
    """Raise a ValueError that says where to look if NaN or infinity is in the model or came out."""
    broken = broken_layer(model)
    if broken:
        raise ValueError(
            f"`model` (='{model.name}') computes with NaN or infinity: the weights of its layer "
            f"'{broken}' hold it"
        )
    if not all(np.isfinite(result).all() for result in results):
        raise ValueError(
            f"`model` (='{model.name}') gives NaN or infinity for pictures it was shown: its "
            "weights are finite; extract_activations shows where it begins"
        )


def broken_layer(model):
    """Path of the first layer whose weights hold NaN or infinity, or None.

    Its output need not tell: on some processors TensorFlow computes a convolution and its ReLU at
    once, and makes zeros of NaN.
    """
    for path, layer in leaf_layers(model).items():
        # By the tensor, of which NumPy takes no copy: this comes with every call.
        if not all(np.isfinite(tf.convert_to_tensor(w)).all() for w in _floats(layer)):
            return path
    return None


def _floats(layer):
    """The weights of a layer, or of an operation, that are floating-point numbers."""
    return [w for w in getattr(layer, "weights", ()) if "float" in str(w.dtype)]


def check_images(model, images):
    """Bring pictures into the form that every method works on.

    Args:
        model: The keras.Model that they are for.
        images: (N, H, W, C) or (H, W, C), numbers; for a model that takes (N, C, H, W) they may be
            of that layout.

    Returns:
        (N, H, W, C) float32 array.

    Raises:
        ValueError: If the rank, the size, the channels or the values cannot be right for `model`,
            or if `model` is not built or has several inputs.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` (of type {type(model).__name__}) must be a keras.Model")
    if not model.built:
        raise ValueError(f"`model` (='{model.name}') is not built; call it once on a picture")
    try:
        images = np.asarray(images)
    except ValueError:
        raise ValueError(
            "`images` (of different shapes) must all have one size; "
            "`load_image(path, image_size=...)` resizes"
        ) from None
    if images.dtype.kind not in "fiub" and images.dtype.name != "bfloat16":
        raise ValueError(f"`images` (of dtype {images.dtype}) must be numbers")
    with np.errstate(over="ignore"):  # infinity is told below
        images = images.astype(np.float32)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4:
        raise ValueError(f"`images` (of shape {images.shape}) must be (N, H, W, C) or (H, W, C)")
    if 0 in images.shape[1:]:
        raise ValueError(f"`images` (of shape {images.shape}) must have pixels")
    if not np.isfinite(images).all():
        raise ValueError("`images` holds NaN or infinity; every value must be a finite float32")
    if _takes_channels_first(model):
        own = _own_input_shape(model) or (None,) * 4
        is_own = own[1] is not None or images.shape[1] in CHANNELS
        images = images.transpose(LAST) if is_own and _fit(images.shape, own) else images
    expected = input_shape(model)
    if expected is not None and not _fit(images.shape, expected):
        raise ValueError(
            f"`images` (of shape {images.shape}) must be {_shape_text(expected)} for model "
            f"'{model.name}'"
        )
    return images


def _fit(shape, expected):
    """Whether pictures of a shape can be what is expected, with None for what is free."""
    sizes = zip(expected[1:], shape[1:], strict=True)
    return all(size is None or size == given for size, given in sizes)


def check_range(model, images, name="images"):
    """Warn if the pictures' range cannot be the one that the model was trained on.

    What the model does to the pictures before its first kernel tells. A model that makes them far
    smaller takes 0..255; one that leaves numbers up to 255 as they are was hardly trained on them.

    Args:
        model: keras.Model.
        images: (N, H, W, C) float32 array.
        name: The argument's name, for the warning.
    """
    images = images[:: max(1, len(images) // RANGE_SAMPLE)][:RANGE_SAMPLE]
    if not len(images):
        return
    low, high, spread = _range_of(images)
    if spread == 0:
        return
    # Pictures of a range like that of earlier ones, which were right, are so too: to look again
    # would take as long as a fifth of the call proper.
    kind = -1 <= low and high <= 1, low >= 0, int(np.frexp(high)[1])
    right = traced(model, "kinds of range that are right", lambda get_model: set())
    if kind in right:
        return
    try:
        received = _received_by_first_kernel(model, images)
    except Exception:  # it comes again, and is told, in the call proper
        return
    if received is None:
        right.add(kind)
        return
    values, may_change = received
    first, last, spread_then = _range_of(values)
    gain = spread_then / spread
    given = f"`{name}` (in {low:.3g}..{high:.3g})"
    # Around 1 and below 0: the mean was subtracted, as VGG and ResNet want it.
    as_they_are = 0.5 < gain < 1.5 and first >= 0
    if -1 <= low and high <= 1 and 0 < gain < 1 / LARGE:
        warnings.warn(
            f"{given} look too small for model '{model.name}', which divides them by "
            f"{1 / gain:.0f} before its first weights: it takes pictures in 0..255",
            stacklevel=3,
        )
    elif low >= 0 and last > LARGE and (as_they_are or gain >= 1.5):
        warnings.warn(
            f"{given} look too large for model '{model.name}', at whose first weights they arrive "
            f"as {first:.3g}..{last:.3g}: rescale them as it was done for its "
            "training, to 0..1 perhaps; if there was no rescaling, all is well",
            stacklevel=3,
        )
    elif gain > 0 and not may_change:
        right.add(kind)


def _range_of(images):
    """Lowest and highest value, and the largest difference within a channel."""
    channels = np.ascontiguousarray(images.reshape(-1, images.shape[-1]).T)  # many times faster
    low, high = channels.min(axis=1), channels.max(axis=1)
    return float(low.min()), float(high.max()), float((high - low).max())


class _Stop(BaseException):
    """No error: ends a call of the model where there is nothing more to learn."""


def _received_by_first_kernel(model, images):
    """What a model has made of the pictures where its first kernel receives them.

    Called, not traced: there is next to nothing before the first kernel.

    Returns:
        (float32 array, whether new weights can change it), or None where no layer has a kernel or
        a tf.function of the model's own hides it.
    """
    received, before = [], []

    def wrap(path, call):
        @functools.wraps(call)
        def stopping_call(*args, **kwargs):
            if path not in with_kernel:
                before.append(path)
                return call(*args, **kwargs)
            received.extend([*args, *kwargs.values()][:1])
            raise _Stop

        return stopping_call

    leaves = leaf_layers(model)
    learning = {path: layer for path, layer in leaves.items() if getattr(layer, "weights", ())}
    with_kernel = {
        path for path, layer in learning.items() if any(len(w.shape) >= 2 for w in layer.weights)
    }
    with contextlib.suppress(_Stop), _wrapped_calls(learning, wrap):
        _call(model, tf.constant(images))
    if not (received and tf.is_tensor(received[0]) and hasattr(received[0], "numpy")):
        return None
    found = tf.cast(received[0], tf.float32).numpy()
    turned = _takes_channels_first(model) and found.ndim == 4
    return (found.transpose(LAST) if turned else found), bool(before)


def input_shape(model):
    """(None, H, W, C) with None for what is free; None where a subclassed model does not say."""
    shape = _own_input_shape(model)
    return tuple(shape[i] for i in LAST) if shape and _takes_channels_first(model) else shape


def _own_input_shape(model):
    """The same in the model's own layout."""
    try:
        shape = model.input_shape
    except (AttributeError, ValueError):
        return None
    if isinstance(shape, (list, dict)):
        raise ValueError(f"`model` (='{model.name}') has several inputs; it must have one picture")
    if len(shape) != 4:
        raise ValueError(
            f"`model` (='{model.name}') takes shape {shape}, not pictures (N, H, W, C)"
        )
    return shape


def _shape_text(shape):
    names = ("N", "H", "W", "C")
    return (
        "(" + ", ".join(n if s is None else str(s) for n, s in zip(names, shape, strict=True)) + ")"
    )


def check_indices(name, indices, count, owner):
    """Bring the chosen ones of `count` filters or classes into one form; None takes all.

    Args:
        name: The argument's name, for the error.
        indices: An integer, a sequence of integers, or None.
        count: How many there are.
        owner: Whose they are, such as "layer 'conv1'", for the error.

    Returns:
        (F,) integer array.

    Raises:
        ValueError: If one of them does not exist, or there is none.
    """
    given = indices
    try:
        indices = np.arange(count) if given is None else np.atleast_1d(given)
    except ValueError:  # lists of different lengths
        indices = np.empty(0)
    if indices.dtype.kind not in "iu" or indices.ndim != 1 or not len(indices):
        raise ValueError(f"`{name}` (={given!r}) must be integers, or None for all")
    for wrong in indices[(indices < 0) | (indices >= count)]:
        raise ValueError(f"`{name}` (={wrong}) must be in [0, {count}) for {owner}")
    return indices


def image_spec(images):
    """What a traced function is traced for: pictures of this size, in any number."""
    return tf.TensorSpec((None, *images.shape[1:]), tf.float32)


def in_batches(function, *arrays):
    """Apply a function of tensors to arrays, `BATCH_SIZE` rows at a time.

    Returns:
        What `function` returns, as read-only NumPy arrays over all rows, which are not copied where
        they come from one call; no rows give empty arrays.
    """
    rows = len(arrays[0])
    if not rows:  # TensorFlow's convolutions of nothing have a wrong shape on some processors
        one = in_batches(function, *(np.zeros((1, *a.shape[1:]), a.dtype) for a in arrays))
        return tf.nest.map_structure(lambda values: values[:0], one)
    parts = [
        tf.nest.map_structure(
            np.asarray,
            function(*(array[start : start + BATCH_SIZE] for array in arrays)),
        )
        for start in range(0, rows, BATCH_SIZE)
    ]
    if len(parts) == 1:  # not copied again
        return parts[0]
    return tf.nest.map_structure(lambda *same: _read_only(np.concatenate(same)), *parts)


def _read_only(array):
    array.flags.writeable = False
    return array
