"""Find what the filters of a convolution become behind the activation function that follows it."""

import keras

from cnnviz.layers.heads import ACTIVATIONS, activation_input
from cnnviz.layers.names import is_a
from cnnviz.layers.recorded import required_feature_map

NONLINEAR = {*ACTIVATIONS, *"Erf Erfc Exp Expm1 Maximum Minimum".split()}
NONLINEAR -= {"Softmax", "LogSoftmax"}  # which compare the channels
# Operations of normalizations, and those between the parts of an activation such as a SiLU.
PASSED = {*"Identity IdentityN Cast Reshape AddV2 Add BiasAdd Sub Neg Mul RealDiv".split()}
PASSED |= {*"FusedBatchNormV3 Mean SquaredDifference StopGradient Square Sqrt Rsqrt Pow".split()}
# A ReLU with a highest value ends with the first, a hard sigmoid and a log-sigmoid with the others.
LAST = ("Maximum", "Minimum", "RealDiv", "Neg")


def filter_map(call, path, purpose):
    """The feature map of a layer; of a convolution without an activation, behind the next one."""
    output, to_map = required_feature_map(call, path, purpose)
    feature_map = to_map(output)
    return activated(feature_map) if is_linear_convolution(call.named[path]) else feature_map


def is_linear_convolution(layer):
    """Whether it is a convolution that applies no activation function itself."""
    linear = (None, keras.activations.linear)
    return is_a(layer, "Conv") and getattr(layer, "activation", None) in linear


def activated(tensor):
    """The output of the activation that follows a symbolic feature map; else the map itself.

    Between them may lie a normalization, and the sum with the shortcut of a residual block; no
    kernel, pooling or gate, and nothing that is used for anything else than the activation.
    """
    if activation_input(tensor, ACTIVATIONS) is not None:
        return tensor
    is_activated = False
    for op, is_all, following in _followers(tensor, NONLINEAR | PASSED, shortcut=True):
        made = op.outputs[0]
        is_activated |= op.type in NONLINEAR and made.shape == tensor.shape  # else a gate
        if is_activated and is_all and following not in LAST:
            return made if made.shape == tensor.shape else tensor
    return tensor


def normalized(tensor):
    """A symbolic feature map behind the normalization that follows it; else the map itself."""
    found = tensor
    for op, is_all, _ in _followers(tensor, PASSED):
        if is_all and op.outputs[0].shape == tensor.shape:
            found = op.outputs[0]
    return found


def _followers(tensor, types, shortcut=False):
    """Yield (operation, is_all, following) of the operations that need only a tensor, in order.

    `is_all` says that nothing else uses what was made before, `following` is the type of the one
    operation that comes next, or None. With `shortcut`, an addition may need another tensor too.
    """
    inside, ahead = {tensor.op}, _uses(tensor)

    def follows(op):
        needs_only = all(one.op in inside or one.shape.is_fully_defined() for one in op.inputs)
        is_sum = op.type in ("AddV2", "Add") and all(one.shape == tensor.shape for one in op.inputs)
        return op.type in types and (needs_only or (shortcut and is_sum and len(ahead) == 1))

    while (op := next(filter(follows, ahead), None)) is not None:
        used = inside  # by what came before this operation
        inside = inside | {op}
        ahead = [one for one in dict.fromkeys([*ahead, *_uses(*op.outputs)]) if one is not op]
        is_all = not any(one.op in used for use in ahead for one in use.inputs)
        following = ahead[0].type if len(ahead) == 1 and follows(ahead[0]) else None
        yield op, is_all, following


def _uses(*tensors):
    """The operations that take tensors for more than their shape, or for nothing."""
    uses = [op for one in tensors for op in one.consumers() if op.type != "Shape"]
    return [op for op in uses if op.type != "Identity" or op.outputs[0].consumers()]
