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
    """As `required_feature_map`; of a convolution without an activation, behind its activation."""
    output = required_feature_map(call, path, purpose)
    return activated(output) if is_linear_convolution(call.named[path]) else output


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
    inside, ahead, nonlinear = {tensor.op}, _uses(tensor), False

    def follows(op):
        """Whether an operation needs only what is inside, constants, and perhaps a shortcut."""
        same = all(one.shape == tensor.shape for one in op.inputs)
        shortcut = same and op.type in ("AddV2", "Add") and len(ahead) == 1
        return op.type in NONLINEAR | PASSED and (_needs_only(inside, op) or shortcut)

    while (op := next(filter(follows, ahead), None)) is not None:
        made, earlier, inside = op.outputs[0], inside, inside | {op}
        ahead = [one for one in dict.fromkeys([*ahead, *_uses(*op.outputs)]) if one is not op]
        nonlinear |= op.type in NONLINEAR and made.shape == tensor.shape  # else a gate
        part = any(one.op in earlier for use in ahead for one in use.inputs)
        ends = len(ahead) != 1 or ahead[0].type not in LAST or not follows(ahead[0])
        if nonlinear and ends and not part:
            return made if made.shape == tensor.shape else tensor
    return tensor


def normalized(tensor):
    """A symbolic feature map behind the normalization that follows it; else the map itself."""
    inside, ahead, found = {tensor.op}, _uses(tensor), tensor
    while ops := [op for op in ahead if op.type in PASSED and _needs_only(inside, op)]:
        made, earlier, inside = ops[0].outputs[0], inside, inside | {ops[0]}
        ahead = [one for one in dict.fromkeys([*ahead, *_uses(*ops[0].outputs)]) if one != ops[0]]
        part = any(one.op in earlier for use in ahead for one in use.inputs)
        found = made if made.shape == tensor.shape and not part else found
    return found


def _needs_only(inside, op):
    """Whether all inputs of an operation come from some others, or are constants."""
    return all(one.op in inside or one.shape.is_fully_defined() for one in op.inputs)


def _uses(*tensors):
    """The operations that take tensors for more than their shape, or for nothing."""
    uses = [op for one in tensors for op in one.consumers() if op.type != "Shape"]
    return [op for op in uses if op.type != "Identity" or op.outputs[0].consumers()]
