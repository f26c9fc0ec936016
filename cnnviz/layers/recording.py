"""(model, images, layers) -> what the layers put out during a call of the model.

One mechanism serves every kind of model. For the length of a `with` block the `call` of a layer is
wrapped and its output kept; traced once in a `tf.function`, this gives tensors to return or to
differentiate with respect to, and the graph optimiser drops the layers that the result does not
need. Functional, Sequential, nested and subclassed models are all the same to it.
"""

import contextlib
import functools
import re
import threading
import warnings

import tensorflow as tf

from cnnviz.layers.layout import FIRST, LAST, takes_channels_first, with_channels_first
from cnnviz.layers.names import leaf_layers, named_layers

HALF_SCALE = 2.0**12  # of gradients in float16, which holds none of a mean over many places

HIDDEN = (
    "`model` (='{}') calls its layers where they cannot be recorded: in a loop or a condition of "
    "TensorFlow's, or in a tf.function that decides by the values of a tensor; decide by tf.where"
)

one_thread = threading.RLock()  # held while layers are wrapped, or a model is called to be traced


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
    outputs, turned_before = {}, []

    def wrap(path, call):
        @functools.wraps(call)
        def recording_call(*args, **kwargs):
            output = kept = call(*args, **kwargs)
            if path in turned and tf.is_tensor(output) and output.shape.rank == 4:
                # What a layer passes on from one inside it was turned there.
                kept = next((kept for one, kept in turned_before if one is output), None)
                if kept is None:
                    kept = tf.transpose(output, LAST)
                    output = tf.transpose(kept, FIRST)  # so that the result depends on what is kept
                    turned_before.append((output, kept))
            outputs[path] = [*outputs.pop(path, []), kept]
            return output

        return recording_call

    with wrapped_calls(layers, wrap):
        yield outputs


@contextlib.contextmanager
def wrapped_calls(layers, wrap):
    """Put `wrap(path, call)` in the place of each layer's `call`, for the length of the block."""
    before = {}
    with one_thread:
        try:
            for path, layer in layers.items():
                # Keras calls the second in place of the first where weights are quantized.
                name = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"
                before[path] = name, layer.__dict__.get(name)
                # Past Keras's attribute tracking.
                layer.__dict__[name] = wrap(path, getattr(layer, name))
            yield
        finally:
            # A layer may have two paths, two wrappers.
            for path, (name, call) in reversed(before.items()):
                del layers[path].__dict__[name]
                if call is not None:
                    layers[path].__dict__[name] = call


def call_and_record(model, images, layers, *, in_line=False):
    """Call a model in inference mode and return what it and the layers put out.

    Args:
        model: keras.Model with one input.
        images: (N, H, W, C) tensor.
        layers: dict[str, layer] as from `named_layers`.
        in_line: As `call_model` takes it; where layers are hidden without it, it is tried anyway.

    Returns:
        (output, dict[str, list]): the model's output, and the tensors that each layer put out,
        feature maps as (N, h, w, C), layers in the order of their last calls.
    """
    try:
        output, recorded, hidden = _attempt(model, images, layers, in_line)
    except tf.errors.OperatorNotAllowedInGraphError as error:
        raise ValueError(HIDDEN.format(model.name)) from error
    if hidden and not in_line:
        with contextlib.suppress(tf.errors.OperatorNotAllowedInGraphError):
            output, recorded, hidden = _attempt(model, images, layers, True)
    tensors = {path: [y for y in calls if tf.is_tensor(y)] for path, calls in recorded.items()}
    elsewhere = {y.graph for calls in tensors.values() for y in calls} - {images.graph}
    if elsewhere or (hidden and len(layers) > 1 and layers.keys() - recorded.keys()):
        raise ValueError(HIDDEN.format(model.name))
    return output, {path: calls for path, calls in tensors.items() if calls}


def _attempt(model, images, layers, in_line):
    """-> (output, what was recorded, whether a tf.function may hide some of it)."""
    before = len(images.graph.get_operations())
    with record_outputs(layers, turned=with_channels_first(layers, model)) as recorded:
        output = call_model(model, images, in_line=in_line)
    return output, recorded, any(map(hides, images.graph.get_operations()[before:]))


def hides(op):
    """Whether it is a call of a tf.function, but for Keras's own of convolutions in groups."""
    return op.type.endswith("PartitionedCall") and "_conv_xla" not in op.get_attr("f").name


def feature_maps(model, outputs):
    """Of what the layers put out, the feature maps: one of each that makes one.

    Args:
        model: keras.Model.
        outputs: dict[str, list], as `call_and_record` returns it of all `named_layers`.

    Returns:
        dict[str, (N, h, w, C) tensor], in the order of `outputs`. A layer that holds others is
        there if it computes something itself with what they put out, as a residual block does. What
        is inside an attention layer is of rank 4 too, but has no places.
    """
    layers, leaves = named_layers(model), leaf_layers(model)
    maps, passed_on = {}, [y for path in leaves for y in outputs.get(path, ())]
    for path, calls in outputs.items():
        names = path.split("/")
        around = (layers.get("/".join(names[:depth])) for depth in range(1, len(names)))
        if calls[-1].shape.rank != 4 or any("Attention" in type(one).__name__ for one in around):
            continue
        if path in leaves or not any(one is calls[-1] for one in passed_on):
            maps[path] = calls[-1]
        passed_on.append(calls[-1])
    return maps


def call_model(model, images, *, in_line=False):
    """Call it with pictures (N, H, W, C), and with a ValueError if it does not take them.

    `in_line` puts what tf.functions inside it do where it can be seen. Not without need: Keras has
    some of its own, such as that of convolutions in groups, which only XLA can compute everywhere.
    """
    try:
        turned = tf.transpose(images, FIRST) if takes_channels_first(model) else images
        with _functions_in_line() if in_line else contextlib.nullcontext():
            return model(turned, training=False)
    except tf.errors.OperatorNotAllowedInGraphError:
        raise
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        # Keras wraps what a layer raises: escapes for bold type before, all arguments after it.
        reason = re.sub(r"\x1b\[\d+m", "", str(error)).split("\n\nArguments received")[0]
        raise ValueError(
            f"`model` (='{model.name}') cannot be called on `images` of shape "
            f"{tuple(images.shape)}: {' '.join(reason.split())}"
        ) from error
    finally:
        model._clear_losses()  # activity regularisers would leave tensors of this graph behind


@contextlib.contextmanager
def _functions_in_line():
    """Within the block a tf.function that is called puts its operations where they can be seen."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def gradients(model, ys, x, grad_ys):
    """As `tf.gradients` with respect to one tensor, of what a model puts out.

    Where a layer computes in float16, which would make zeros of small gradients, they are scaled on
    their way as far as it holds that, and come as float32.
    """
    plain = tf.gradients(ys, x, grad_ys)
    leaves = leaf_layers(model).values()
    in_half = any(getattr(layer, "compute_dtype", None) == "float16" for layer in leaves)
    if plain == [None] or not in_half:
        return plain
    scaled = tf.gradients(ys, x, tf.nest.map_structure(lambda grad: HALF_SCALE * grad, grad_ys))
    plain, scaled = (tf.cast(found[0], tf.float32) for found in (plain, scaled))
    return [tf.where(tf.math.is_finite(scaled), scaled / HALF_SCALE, plain)]


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
    _warn_of_several(outputs, path)
    return outputs[path][-1]


def warn_of_parallel(outputs, path):
    """Warn if the last output of a layer holds not all that it made, as in a network used twice."""
    *earlier, last = outputs[path]
    before, ahead = set(), [last.op]
    while ahead and earlier:
        op = ahead.pop()
        if op not in before:
            before.add(op)
            ahead.extend(y.op for y in op.inputs)
    if not before.issuperset(y.op for y in earlier):
        _warn_of_several(outputs, path)


def _warn_of_several(outputs, path):
    if len(outputs[path]) > 1:
        warnings.warn(
            f"layer '{path}' is used {len(outputs[path])} times in one call; its last output is "
            "taken",
            stacklevel=3,
        )
