"""Take feature maps, and gradients with respect to them, from a recorded call of a model."""

import tensorflow as tf

from cnnviz.layers.inputs import computes_in_float16
from cnnviz.layers.names import leaves
from cnnviz.layers.warn import warn

HALF_SCALE = 2.0**12  # of float16 gradients: the gradient of a mean over a large map underflows


def feature_maps(call):
    """{path: (N, h, w, C) tensor} of all recorded layers that make a feature map.

    A layer that holds others is included if it computes something itself from their outputs, as a
    residual block does. Inside an attention layer, tensors of rank 4 are no feature maps: their
    axes are not positions.
    """
    maps, inner = {}, leaves(call.named)
    passed_on = [y for path in inner for y in call.recorded.get(path, ())]
    for path, calls in call.recorded.items():
        names = path.split("/")
        around = (call.named.get("/".join(names[:depth])) for depth in range(1, len(names)))
        if calls[-1].shape.rank != 4 or any("Attention" in type(one).__name__ for one in around):
            continue
        if path in inner or not any(one is calls[-1] for one in passed_on):
            maps[path] = calls[-1]
        passed_on.append(calls[-1])
    return maps


def required_output(call, path):
    """The recorded output of a layer that a person asked for; of several calls the last."""
    if path not in call.recorded:
        raise ValueError(
            f"`layer_name` (='{path}') is not used, or returns no single tensor, or is hidden in a "
            "tf.function of the model's own, when the model is called in inference mode"
        )
    if len(call.recorded[path]) > 1:
        warn(
            f"layer '{path}' is used {len(call.recorded[path])} times in one call; its last output "
            "is taken"
        )
    return call.recorded[path][-1]


def required_feature_map(call, path, purpose):
    """As `required_output`; a ValueError says what needs feature maps if it is none."""
    output = required_output(call, path)
    if output.shape.rank != 4:
        raise ValueError(
            f"`layer_name` (='{path}') outputs shape {tuple(output.shape)}; {purpose} needs "
            "feature maps (N, h, w, C), so choose a layer before the pooling or flattening"
        )
    return output


def gradients(model, ys, x, grad_ys):
    """The gradient of what a model outputs with respect to one tensor; None if there is none.

    Where a layer computes in float16, small gradients would become zero: they are scaled on their
    way, as far as they stay finite.
    """
    (plain,) = tf.gradients(ys, x, grad_ys)
    if plain is None or not computes_in_float16(model):
        return plain
    (scaled,) = tf.gradients(ys, x, tf.nest.map_structure(lambda grad: HALF_SCALE * grad, grad_ys))
    plain, scaled = tf.cast(plain, tf.float32), tf.cast(scaled, tf.float32)
    return tf.where(tf.math.is_finite(scaled), scaled / HALF_SCALE, plain)
