"""Find the scores of the classes in the output of a model: logits, whatever its head ends in."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from cnnviz.layers.batches import ImageData
from cnnviz.layers.run import hides, is_grouped_convolution, run
from cnnviz.layers.warn import warn

# Types of TensorFlow operations, and "HardSigmoid", which is no single one.
SQUASHING = ("Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax")
ACTIVATIONS = (*SQUASHING, *"Relu Relu6 LeakyRelu Elu Selu Softplus Softsign Tanh".split())
NO_CLASSES = ("Relu", "Relu6", "Softplus", "Exp")  # outputs of 0 and more, such as ages or counts
PASSED = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "EnsureShape")  # change no value
KERNELS = ("MatMul", "Conv", "Einsum")  # in the names of operations
# Operations whose result can be any number if one of their inputs can.
UNBOUNDED = {*PASSED, *"IdentityN StopGradient AddV2 Add BiasAdd Sub Neg Mul RealDiv".split()}
UNBOUNDED |= {*"Mean Sum Max Min MaxPool MaxPoolV2 AvgPool LeakyRelu FusedBatchNormV3".split()}
UNBOUNDED |= {*"ConcatV2 Pack StridedSlice GatherV2 SplitV Split Transpose".split()}
REGRESSION = (  # names of losses, without "_"
    *"mse mae mape msle meansquarederror meanabsoluteerror meanabsolutepercentageerror".split(),
    *"meansquaredlogarithmicerror huber huberloss logcosh poisson cosinesimilarity".split(),
)
OTHER_TARGETS = (
    "`grad_cam` and `ascend_filters` explain other outputs: `target=cnnviz.targets.regression()` "
    "a number, `similarity(...)` an embedding, `region(class_index)` a segmentation, or any "
    "function of the output"
)
ROUNDING = 0.02  # by which a sum of probabilities may miss 1; bfloat16 has 8 bits


def class_probabilities(
    model: keras.Model, images: ImageData, *, output_name: str | int | None = None
) -> np.ndarray:
    """Probability of each class, for a head of any kind.

    Args:
        model: keras.Model that returns one logit, one sigmoid, logits, a softmax or a log-softmax.
        images: (N, H, W, C) in the model's input range, or what else `grad_cam` takes.
        output_name: Of a model with several outputs, the one to take: its name, key or index.

    Returns:
        (N, classes) float32 array in 0..1. A head with one output has two classes; it gives the
        probability of the second. Sigmoids of several labels are returned as they are.

    Raises:
        ValueError: If images or output do not fit, NaN comes out, the head cannot be seen, or the
            model is no classifier: it was compiled with a loss of regression, or its outputs cannot
            be scores of classes.

    Warns:
        UserWarning: If the value range is hardly that of the training, or the head is unknown: then
            outputs in 0..1 (that, if several, sum to one) are probabilities, others logits.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> cnnviz.class_probabilities(model, image).shape
        (1, 2)
    """

    def compute(call):
        return probabilities(classifier_output(call, output_name)), None

    found, _ = run(model, images, compute, key=("probabilities", repr(output_name)))
    return found


def classifier_output(call, output_name=None):
    """One output of a model that is being called; a ValueError if it cannot be of a classifier."""
    output = pick_output(call.model, call.output, output_name)
    loss, (kind, _) = _loss(call.model, output_name), _head(output)
    found = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    if found.lower().replace("_", "") in REGRESSION and kind in ("logits", "unknown"):
        raise ValueError(
            f"`model` (='{call.model.name}') is no classifier: it was compiled with the loss "
            f"{found}. {OTHER_TARGETS}"
        )
    return output


def _loss(model, output_name):
    """The loss that a model was compiled with for one output, or None."""
    losses, names = getattr(model, "loss", None), list(getattr(model, "output_names", None) or ())
    if isinstance(losses, (list, tuple)):
        losses = dict(zip(names, losses, strict=False))
    if not isinstance(losses, dict):
        return losses
    if output_name is None:
        return next(iter(losses.values()), None)
    is_index = isinstance(output_name, int) and output_name < len(names)
    return losses.get(names[output_name] if is_index else output_name)


def probabilities(output):
    """As `class_probabilities`, on the symbolic output of a traced model: (N, classes) tensor."""
    kind, _ = _head(output)
    scores = class_scores(output)
    if kind in ("Sigmoid", "HardSigmoid", "Softmax"):
        output = tf.clip_by_value(tf.cast(output, tf.float32), 0.0, 1.0)
        return tf.concat([1.0 - output, output], 1) if output.shape[1] == 1 else output
    if output.shape[1] == 1:
        return tf.sigmoid(scores)
    if kind == "unknown":
        return tf.where(_are_probabilities(output), tf.sigmoid(scores), tf.nn.softmax(scores))
    return tf.nn.softmax(scores)


def class_scores(output, *, positions=False):
    """(N, classes) float32 logits; with `positions`, the output may be (N, ..., classes).

    They are the input of the final sigmoid (also a hard one), softmax or log-softmax if there is
    one, else the output itself. One output z gives the two classes -z and z. Outputs p of an
    unknown head that look like probabilities give log p - log(1 - p), and a warning.
    """
    kind, logits = _head(output, positions)
    logits = tf.cast(logits, tf.float32)
    if kind == "unknown":
        warn(
            f"the model ends in '{output.op.type}', an unknown head: outputs in 0..1 (that sum to "
            "one, if several) are taken for probabilities, others for logits. To be sure, end it "
            "in logits, or in keras.layers.Activation('sigmoid') or 'softmax'; `grad_cam` takes "
            "any output by `target`"
        )
        tiny = np.finfo(np.float32).tiny
        p = tf.clip_by_value(logits, 0.0, 1.0)
        logit = tf.math.log(tf.maximum(p, tiny)) - tf.math.log(tf.maximum(1.0 - p, tiny))
        logits = tf.where(_are_probabilities(output), logit, logits)
    logits = tf.ensure_shape(logits, output.shape)
    return tf.concat([-logits, logits], axis=-1) if logits.shape[-1] == 1 else logits


def _are_probabilities(output):
    """(N, 1) bool: whether all outputs for an image lie in 0..1 and, if several, sum to one."""
    output = tf.cast(output, tf.float32)
    inside = tf.reduce_all((output >= 0) & (output <= 1), -1, keepdims=True)
    if output.shape[-1] == 1:
        return inside
    return inside & (tf.abs(tf.reduce_sum(output, -1, keepdims=True) - 1) < ROUNDING)


def _head(output, positions=False):
    """-> (one of `SQUASHING`, "logits" or "unknown"; the logits, or the output if unknown)."""
    if not tf.is_tensor(output) or (output.shape.rank != 2 and not positions):
        found = f"shape {output.shape}" if tf.is_tensor(output) else f"a {type(output).__name__}"
        raise ValueError(
            f"`model` returns {found}; a classifier must return (N, classes): give "
            f"keras.Model(model.inputs, one_output). {OTHER_TARGETS}"
        )
    if hides(output.op):
        raise ValueError(
            "`model` ends in a tf.function or SavedModel, which cannot be looked into: remove the "
            "decorator, or put a model around it that ends in keras.layers.Softmax()(logits) or "
            "keras.layers.Softmax()(keras.ops.log(probabilities)); for one output in "
            "keras.layers.Activation('sigmoid') of its logit, which is log(p / (1 - p))"
        )
    for kind in SQUASHING:
        logits = activation_input(output, (kind,))
        if logits is not None:
            return kind, logits
    if activation_input(output, NO_CLASSES) is not None or _is_normalized(output.op):
        raise ValueError(
            f"`model` is no classifier: it ends in '{output.op.type}', which gives no scores of "
            f"classes. {OTHER_TARGETS}"
        )
    return ("logits" if _is_unbounded(output) else "unknown"), output


def _is_unbounded(tensor):
    """Whether a kernel made it, with only sums, products and the like behind the kernel."""
    ahead, seen = [tensor.op], set()
    while ahead:
        op = ahead.pop()
        if any(word in op.type for word in KERNELS) or is_grouped_convolution(op):
            return True
        if op.type in UNBOUNDED and op not in seen:
            ahead += [one.op for one in op.inputs]
        seen.add(op)
    return False


def _is_normalized(op):
    """Whether vectors of length 1 come out of it: an embedding."""
    if op.type not in ("Mul", "RealDiv"):
        return False
    vectors, length = op.inputs
    while length.op.type in ("Maximum", "Minimum", "AddV2", "Sqrt", "Rsqrt", "Reshape", "Identity"):
        length = length.op.inputs[0]
    squares = length.op.inputs[0].op if length.op.type in ("Sum", "SumV2") else None
    return squares is not None and any(one is vectors for one in squares.inputs)


def activation_input(tensor, activations):
    """The input of the activation that made a tensor, in its shape; None if it was made otherwise.

    Casts and reshapes behind the activation are passed over.
    """
    op = tensor.op
    while op.type in PASSED:
        op = op.inputs[0].op
    if op.type in activations:
        before = op.inputs[0]
    elif "HardSigmoid" in activations and op.type == "RealDiv" and op.inputs[0].op.type == "Relu6":
        before = op.inputs[0].op.inputs[0] - 3  # relu6(before + 3) / 6
    else:
        return None
    return before if op is tensor.op else tf.reshape(before, tf.shape(tensor))


def pick_output(model, output, name):
    """One of the outputs of a model, by its name in `model.output_names`, its key or its index."""
    named = output
    if not isinstance(output, dict):
        outputs = list(output) if isinstance(output, (list, tuple)) else [output]
        names = getattr(model, "output_names", None) or ()
        names = names if len(names) == len(outputs) else range(len(outputs))
        named = dict(zip(names, outputs, strict=True))
        if isinstance(name, int) and 0 <= name < len(outputs):
            return outputs[name]
    if name is None and len(named) == 1:
        return next(iter(named.values()))
    if name not in list(named):  # a list has no hash to look up
        raise ValueError(
            f"`output_name` (={name!r}) must be one of the outputs of model '{model.name}': "
            f"{', '.join(map(repr, named))}; or give keras.Model(model.inputs, one_output)"
        )
    return named[name]
