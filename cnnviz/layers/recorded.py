"""Take feature maps, and gradients with respect to them, from a recorded call of a model."""

import math

import tensorflow as tf

from cnnviz.layers.inputs import takes_integers
from cnnviz.layers.names import leaves
from cnnviz.layers.warn import warn

MAKE_MAPS = "Conv2D", "Conv2dNative", "Pool", "ExtractImagePatches"  # in names of operations
HALF_SCALE = 2.0**12  # of float16 gradients: the gradient of a mean over a large map underflows


def feature_maps(call):
    """{path: output} of all recorded layers that make a feature map, as `as_map` takes them.

    A layer that holds others is included if it computes something itself from their outputs, as a
    residual block does. What is inside an attention layer is left out: its axes are no positions.
    """
    maps, inner, named = {}, leaves(call.named), call.named.items()
    attends = tuple(f"{path}/" for path, layer in named if "Attention" in type(layer).__name__)
    recorded = {path: y for path, y in call.recorded.items() if not path.startswith(attends)}
    passed_on = [y for path in recorded if path in inner for y in recorded[path]]
    for path, calls in recorded.items():
        output = _own(call, calls)[-1]
        if as_map(call, output) is None:
            continue
        if path in inner or not any(one is output for one in passed_on):
            maps[path] = output
        passed_on.append(output)
    return maps


def as_map(call, output):
    """Function from a layer's output, or its gradient, to a feature map; None if it is none.

    A feature map has the positions of the input: (N, h, w, C) for images, (N, l, C) for signals,
    (N, d, h, w, C) for volumes and video, or (N, h, w, C) where the frames of a video are merged.
    The tokens (N, T, C) of a transformer of images are brought into the grid of their patches,
    without the class token. Heads of attention are no positions.
    """
    rank, own = call.images.shape.rank, output.shape.rank
    if own == rank == 4 and any(_has_heads(output, weights) for weights in call.attention):
        return None
    if own == rank or (own, rank) == (4, 5):
        return lambda output: output
    grid = token_grid(call, output) if (own, rank) == (3, 4) else None
    if grid is None:
        return None
    height, width, before = grid
    end = before + height * width
    return lambda tokens: tf.reshape(tokens[:, before:end], (-1, height, width, tokens.shape[2]))


def _has_heads(output, weights):
    """Whether the axes of an output are the heads and tokens of attention, and no positions."""
    if weights.shape.rank < 4:
        return False
    heads, *lengths = map(str, weights.shape[1:4])
    axes = sorted(map(str, output.shape[1:3]))
    return any(axes == sorted((heads, length)) for length in lengths)


def token_grid(call, tokens):
    """(height, width, number of other tokens before them) of tokens (N, T, C), or None.

    The grid is that of a feature map before with as many positions, perhaps joined with other
    tokens, such as a class token. Without one, in a network with attention, it is a square.
    """
    length, sizes, joined = tokens.shape[1], [], []
    if length is None or length < 2:
        return None
    for op in tokens.graph.get_operations():
        shape = op.outputs[0].shape if op.outputs else tf.TensorShape(None)
        if (
            shape.rank == 4
            and None not in shape[1:3]
            and any(word in op.type for word in MAKE_MAPS)
        ):
            sizes.append(tuple(shape[1:3]))
        if op.type == "ConcatV2" and shape.rank == 3 and shape[1] == length:
            parts = [part.shape[1] for part in op.inputs[:-1]]
            if None not in parts and sum(parts) == length:
                joined.append(parts)
    for height, width in reversed(sizes):
        for parts in joined:
            if height * width in parts:
                return height, width, sum(parts[: parts.index(height * width)])
        if height * width in (length, length - 1):
            return height, width, length - height * width
    for count in (length, length - 1) if call.attention else ():
        side = math.isqrt(count)
        height, width = sizes[-1] if sizes else (side, side)
        # Else it may be the columns of a text, or one row.
        if side**2 == count and height == width and height % side == 0 and count != height:
            return side, side, length - count
    return None


def attention_of(graph):
    """The weights of all attention over positions: what a softmax gives into a matrix product."""
    weights = [op.outputs[0] for op in graph.get_operations() if op.type == "Softmax"]
    return [one for one in weights if one.shape.rank > 2 and _weights_others(one)]


def _weights_others(tensor):
    ahead = list(tensor.consumers())
    while ahead:
        op = ahead.pop()
        if op.type.startswith(("BatchMatMul", "Einsum")):
            return True
        if op.type in ("Cast", "Identity", "Reshape", "Transpose"):
            ahead += op.outputs[0].consumers()
    return False


def required_output(call, path):
    """The recorded output of a layer that a person asked for.

    Of several calls it is the last that depends on the input to look at.
    """
    if path not in call.recorded:
        raise ValueError(
            f"`layer_name` (='{path}') is not used, or returns no single tensor, or is hidden in a "
            "tf.function of the model's own, when the model is called in inference mode"
        )
    calls = _own(call, call.recorded[path])
    if len(calls) > 1:
        warn(f"layer '{path}' is used {len(calls)} times in one call; its last output is taken")
    return calls[-1]


def required_feature_map(call, path, purpose):
    """(`required_output`, its `as_map`); a ValueError if it is none says what needs one."""
    output = required_output(call, path)
    to_map = as_map(call, output)
    if to_map is None:
        raise ValueError(
            f"`layer_name` (='{path}') outputs shape {tuple(output.shape)}; {purpose} needs "
            "feature maps (N, h, w, C), or tokens in a known grid, so choose a layer before the "
            "pooling or flattening"
        )
    return output, to_map


def gradients(ys, x, grad_ys=None):
    """The gradient of some tensors with respect to one; None if they do not depend on it.

    Where something is computed in float16, small gradients would become zero: they are scaled on
    their way, as far as they stay finite.
    """
    (plain,) = tf.gradients(ys, x, grad_ys)
    outputs = (output for op in x.graph.get_operations() for output in op.outputs)
    if plain is None or all(output.dtype != tf.float16 for output in outputs):
        return plain
    grad_ys = tf.ones_like(ys) if grad_ys is None else grad_ys
    (scaled,) = tf.gradients(ys, x, tf.nest.map_structure(lambda grad: HALF_SCALE * grad, grad_ys))
    plain, scaled = tf.cast(plain, tf.float32), tf.cast(scaled, tf.float32)
    return tf.where(tf.math.is_finite(scaled), scaled / HALF_SCALE, plain)


def _own(call, calls):
    """Of the outputs of several calls of a layer, those of the input to look at, if there are."""
    if not call.others or len(calls) == 1:
        return calls
    return [y for y in calls if sees_images(call, y)] or calls


def sees_images(call, output):
    """Whether an output depends on the input to look at, and not on other inputs alone."""
    return takes_integers(call.model) or depends([output], call.images)


def depends(ys, x):
    """Whether one of some tensors depends on another, as far as gradients pass."""
    return tf.gradients(ys, x) != [None]
