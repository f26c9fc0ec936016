"""(the output of a model) -> the scores of its classes: logits, whatever the head ends in."""

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz.layers.bounds import PASSED, bounds
from cnnviz.layers.checks import check_finite, check_images
from cnnviz.layers.layout import NOT_SAID, own_input_shape
from cnnviz.layers.recording import call_and_record, hides, one_thread
from cnnviz.layers.tracing import image_spec, in_batches, traced
from cnnviz.layers.value_range import check_range

HEADS = ("Sigmoid", "Softmax")
ACTIVATIONS = (*HEADS, *"Relu Relu6 LeakyRelu Elu Selu Softplus Softsign Tanh".split())
CLIPPING = ("Maximum", "Minimum")
SUMMING = ("Add", "AddN", "AddV2", "ConcatV2", "Mean", "Mul", "Pack", "RealDiv")
ROUNDING = 1e-3  # by which the weights of an average may miss 1, with half precision


def class_probabilities(
    model: keras.Model, images: ArrayLike, *, output_name: str | int | None = None
) -> np.ndarray:
    """Probability of each class, for a head of any kind.

    Args:
        model: keras.Model that returns one logit, one sigmoid, logits, a softmax or its logarithm;
            what cannot leave 0..1 for other reasons, such as the highest of many sigmoids, is taken
            for probabilities.
        images: (N, H, W, C) or (H, W, C), in the model's input range. A model that has channels
            first may get them in its own layout, too.
        output_name: The output to take, of a model with several: its name in
            `model.output_names`, its key or its index.

    Returns:
        (N, classes) float32 array in 0..1. A head with one output has two classes, of which it
        gives the second. Sigmoids of several labels are returned as they are.

    Raises:
        ValueError: If the images or the model's output have another shape, or NaN comes out, or the
            head cannot be seen, as that of a SavedModel.

    Warns:
        UserWarning: If the range of the images cannot be the one that the model was trained on.
    """
    images = check_images(model, images)

    def make(get_model):
        @tf.function(autograph=False, input_signature=[image_spec(images)])
        def probabilities(batch):
            model = get_model()
            output, _ = call_and_record(model, batch, {})
            output = pick_output(model, output, output_name)
            check_output(output)
            if _is_probability(output):
                output = tf.clip_by_value(tf.cast(output, tf.float32), 0.0, 1.0)
                return tf.concat([1.0 - output, output], 1) if output.shape[1] == 1 else output
            scores = class_scores(output)
            if scores.shape[1] > output.shape[1]:
                return tf.sigmoid(scores)
            # Probabilities that came about in some other way: no logits lie and sum like that.
            positive = tf.reduce_all(scores >= 0)
            sums_to_one = tf.reduce_all(tf.abs(tf.reduce_sum(scores, 1) - 1) < 1e-3)
            return tf.where(positive & sums_to_one, scores, tf.nn.softmax(scores))

        return probabilities.get_concrete_function()

    function = traced(model, ("probabilities", repr(output_name), images.shape[1:]), make)
    check_range(model, images)
    found = in_batches(function, images)
    check_finite(model, found)
    return found.copy()


def class_scores(output):
    """The logits of the classes, whatever the head of the model ends in.

    Args:
        output: (N, K) tensor under construction: the model's output.

    Returns:
        (N, classes) float32 tensor: the input of the final sigmoid (also a hard one), softmax or
        log-softmax if there is one; the logit log p - log(1 - p) of an average p of several (an
        ensemble), or of what cannot leave 0..1 for other reasons (the highest of many sigmoids);
        else the output itself. One output z gives the two classes -z and z.

    Raises:
        ValueError: If the model does not return one tensor of rank 2.
    """
    check_output(output)
    logits = _logits_of_head(output)
    if logits is None and _is_average(output):
        logits = _logit_of_average(output)
    if logits is None and _is_probability(output):
        output = tf.cast(output, tf.float32)
        smallest = np.finfo(np.float32).tiny
        logits = tf.math.log(tf.maximum(output, smallest))
        logits -= tf.math.log(tf.maximum(1.0 - output, smallest))
    logits = tf.cast(output if logits is None else logits, tf.float32)
    logits = tf.ensure_shape(logits, (None, output.shape[1]))
    return tf.concat([-logits, logits], axis=1) if logits.shape[1] == 1 else logits


def _is_probability(output):
    """Whether no value of it can lie outside of 0..1, but for rounding."""
    low, high = bounds(output)
    is_inside = low >= -ROUNDING and high <= 1 + ROUNDING
    return is_inside or activation_input(output, HEADS) is not None or _is_average(output)


def _logits_of_head(output):
    """What a sigmoid, hard or not, a softmax or a log-softmax was applied to, or None."""
    op = output.op
    if op.type == "RealDiv" and op.inputs[0].op.type == "Relu6":  # relu6(logits + 3) / 6
        if tf.get_static_value(op.inputs[1]) == 6:
            return op.inputs[0].op.inputs[0] - 3
    return activation_input(output, (*HEADS, "LogSoftmax"))


def _logit_of_average(output):
    """log p - log(1 - p), from the members' logits: where they are sure p is rounded to 1."""
    logs = _log_sum(output, lambda op: _log_of_head(op)[0])
    return logs - _log_sum(output, lambda op: _log_of_head(op)[1])


def _log_of_head(op):
    """log p and log(1 - p) of a sigmoid or a softmax p."""
    logits = tf.cast(op.inputs[0], tf.float32)
    if op.type == "Sigmoid":
        return tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
    logs = tf.nn.log_softmax(logits)
    # Of the class with the highest p, 1 - p may be too small to subtract: the others' sum is it.
    highest = tf.one_hot(tf.argmax(logits, -1), tf.shape(logits)[-1], True, False)
    others = tf.reduce_logsumexp(tf.where(highest, -np.inf, logs), -1, keepdims=True)
    return logs, tf.where(highest, others, tf.math.log1p(-tf.where(highest, 0.0, tf.exp(logs))))


def head(model, images):
    """What a model ends in.

    Args:
        model: keras.Model that returns one tensor.
        images: (N, H, W, C) tf.TensorShape of batches, as far as it is known.

    Returns:
        (shape, activation): the shape of the output, None for what is not known; and the type of
        the operation that squashes it ("Sigmoid", "Softmax", "Relu", "Tanh", ...), "probabilities"
        of what lies in 0..1 otherwise, or None.
    """
    own, given = own_input_shape(model), images.merge_with(NOT_SAID)
    known = [None, *(size or other for size, other in zip(own[1:], given[1:], strict=True))]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(known, tf.float32)])
    def call(batch):
        output = pick_output(model, model(batch, training=False), None)
        ending = [kind for kind in ACTIVATIONS if activation_input(output, (kind,)) is not None]
        ending += ["probabilities"] if _is_probability(output) else []
        found.append((tuple(output.shape), ending[0] if ending else None))
        return output

    found = []
    with one_thread:
        call.get_concrete_function()
        model._clear_losses()
    return found[0]


def activation_input(tensor, activations):
    """The tensor that an activation function was applied to.

    Args:
        tensor: A tensor of a graph under construction.
        activations: Types of TensorFlow operations, such as ("Sigmoid", "Softmax").

    Returns:
        The input of the activation that made `tensor`, in the shape of `tensor`; casts, reshapes
        and a clipping to 0..1 in between are passed over. None if it was made otherwise.
    """
    if tensor.op.type == "Transpose":  # of a layer with channels first
        before = activation_input(tensor.op.inputs[0], activations)
        return None if before is None else tf.transpose(before, tensor.op.inputs[1])
    made = tensor
    while (passed := _passed(made.op)) is not None:
        made = passed
    if made.op.type not in activations:
        return None
    before = made.op.inputs[0]
    return before if made is tensor else tf.reshape(before, tf.shape(tensor))


def _passed(op):
    """What an operation passes on, in another form or clipped to 0..1; None of any other."""
    if op.type in PASSED:
        return op.inputs[0]
    if op.type in CLIPPING:
        for one, other in (op.inputs, reversed(op.inputs)):
            bound = tf.get_static_value(other)
            if bound is not None and np.all((0 <= bound) & (bound <= 1)):
                return one
    return None


def _is_average(tensor):
    """Whether it is an average of several of one of the `HEADS`."""
    kinds = set()

    def weight_of(op):
        kinds.add(op.type)
        return tf.zeros(one_row(op.outputs[0]))

    def one_row(part):
        return [size or 1 for size in part.shape]

    try:
        with tf.init_scope():  # in numbers, at once
            weights = _log_sum(tensor, weight_of, one_row)
    except tf.errors.InvalidArgumentError:  # sizes that are not known do not fit as 1
        return False
    sum_to_one = weights is not None and np.allclose(weights, 0, atol=ROUNDING)
    return bool(sum_to_one and len(kinds) == 1)


def _log_sum(tensor, log_of, shape_of=tf.shape):
    """The logarithm of a sum of `HEADS` with constant weights, none below 0.

    Args:
        tensor: The sum.
        log_of: From the operation of a head to what stands for the logarithm of its output.
        shape_of: From a tensor to the shape of what stands for it.

    Returns:
        A tensor; None if `tensor` is no such sum.
    """
    op = tensor.op
    if op.type in HEADS:
        return log_of(op)
    if op.type not in (*PASSED, *SUMMING):
        return None
    given = op.inputs[:1] if op.type in PASSED else op.inputs
    values = [tf.get_static_value(part) for part in given]
    constants = [np.asarray(value, np.float32) for value in values if value is not None]
    parts = [
        _log_sum(part, log_of, shape_of)
        for part, value in zip(given, values, strict=True)
        if value is None
    ]
    if not parts or any(part is None for part in parts):
        return None
    if op.type in PASSED:
        return tf.reshape(parts[0], shape_of(tensor))
    if op.type in ("Add", "AddN", "AddV2") and not any(map(np.any, constants)):
        parts = [tf.broadcast_to(part, shape_of(tensor)) for part in parts]
        return tf.reduce_logsumexp(tf.stack(parts), 0)
    if op.type == "Pack" and not constants:
        return tf.stack(parts, op.get_attr("axis"))
    if op.type == "ConcatV2" and values[-1] is not None and len(constants) == 1:
        return tf.concat(parts, int(constants[0]))
    if op.type == "Mean":
        axes = np.ravel(constants[0]).astype(int).tolist()
        found = tf.reduce_logsumexp(parts[0], axes, op.get_attr("keep_dims"))
        return found - tf.math.log(tf.cast(tf.size(parts[0]) / tf.size(found), tf.float32))
    if op.type == "Mul" and constants and np.all(constants[0] >= 0):
        return parts[0] + tf.math.log(constants[0])
    if op.type == "RealDiv" and values[1] is not None and np.all(constants[0] > 0):
        return parts[0] - tf.math.log(constants[0])
    return None


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
            + "; where there is no such argument, give keras.Model(model.inputs, one_output)"
        )
    return named[name]


def check_output(output):
    if not tf.is_tensor(output):
        raise ValueError(
            f"`model` returns a {type(output).__name__} where a classifier must return "
            "(N, classes); give keras.Model(model.inputs, one_output)"
        )
    if output.shape.rank != 2:
        raise ValueError(
            f"`model` returns shape {tuple(output.shape)}; a classifier must return (N, classes)"
        )
    ends = []
    bounds(output, ends)
    if any(map(hides, ends)):
        raise ValueError(
            "`model` ends in a function that cannot be looked into, such as that of a SavedModel: "
            "it may return logits or probabilities. Say which by a model around it that ends in "
            "keras.layers.Activation('sigmoid') or 'softmax' of logits, or in keras.ops.log(p) of "
            "the probabilities of a softmax, or in keras.ops.log(p / (1 - p)) of those of sigmoids"
        )
