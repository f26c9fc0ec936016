"""(a tensor of a graph) -> the interval that its values cannot leave, by interval arithmetic."""

import math

import numpy as np
import tensorflow as tf

# Operations that change no value.
PASSED = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "EnsureShape", "CheckNumerics")
# Those that pick, move or average values, and which of their inputs holds these.
KEPT = (*PASSED, "StopGradient", "Transpose", "StridedSlice", "Slice", "GatherV2", "BroadcastTo")
KEPT += ("Tile", "ReverseV2", "Max", "Min", "Mean", "MaxPool", "AvgPool", "SplitV", "Unpack")
VALUES = {**dict.fromkeys(KEPT, 0), "Split": 1}
OF_FUNCTION = {
    **dict.fromkeys(("Sigmoid", "Softmax"), (0.0, 1.0)),
    **dict.fromkeys(("Tanh", "Softsign", "Erf"), (-1.0, 1.0)),
    **dict.fromkeys(("Relu", "Softplus", "Square", "Abs"), (0.0, math.inf)),
    "Relu6": (0.0, 6.0),
}
FREE = (-math.inf, math.inf)
DEEPEST = 150  # operations from the end of a model that are looked at; Python nests no deeper


def bounds(tensor, ends=None):
    """(lowest, highest) value that a tensor under construction can hold, as far as is known.

    To the list `ends` those operations are added whose results may be anything.
    """
    return _bounds(tensor, DEEPEST, {}, [] if ends is None else ends)


def _bounds(tensor, deepest, known, ends):
    if tensor.ref() not in known:
        known[tensor.ref()] = _computed(tensor, deepest, known, ends)
    return known[tensor.ref()]


def _computed(tensor, deepest, known, ends):
    op = tensor.op
    value = tf.get_static_value(tensor)
    if value is not None and value.size and (tensor.dtype.is_floating or tensor.dtype.is_integer):
        return float(value.min()), float(value.max())
    if not tensor.dtype.is_floating:  # integers begin anew at their other end
        return FREE
    if op.type in OF_FUNCTION:
        return OF_FUNCTION[op.type]
    if deepest and op.type in VALUES:
        return _bounds(op.inputs[VALUES[op.type]], deepest - 1, known, ends)
    if deepest and op.type == "IdentityN":
        return _bounds(op.inputs[tensor.value_index], deepest - 1, known, ends)
    if op.type == "Sum" and _sums_a_softmax(op):
        return 0.0, 1.0
    if deepest and op.type == "Sum":
        return _product(_bounds(op.inputs[0], deepest - 1, known, ends), _number_summed(op))
    if deepest and op.type in _COMBINED:
        given = op.inputs[:-1] if op.type in ("ConcatV2", "Prod") else op.inputs
        return _COMBINED[op.type](*(_bounds(part, deepest - 1, known, ends) for part in given))
    ends.append(op)
    return FREE


def _axes(op):
    """The axes that are summed over, or None."""
    axes = tf.get_static_value(op.inputs[1])
    rank = op.inputs[0].shape.rank
    return None if axes is None or rank is None else [int(axis) % rank for axis in np.ravel(axes)]


def _sums_a_softmax(op):
    """Whether it sums classes of a softmax, each of them once."""
    picked = op.inputs[0].op
    while picked.type == "StridedSlice":
        picked = picked.inputs[0].op
    whole = picked.outputs[0].shape.rank == op.inputs[0].shape.rank == 2
    return picked.type == "Softmax" and whole and _axes(op) == [1]


def _number_summed(op):
    """How many values there are in each sum: (fewest, most)."""
    axes = _axes(op)
    sizes = [None] if axes is None else [op.inputs[0].shape[axis] for axis in axes]
    return (0.0, math.inf) if None in sizes else (math.prod(sizes),) * 2


def _union(*parts):
    lows, highs = zip(*parts, strict=True)
    return min(lows), max(highs)


def _sum(*parts):
    lows, highs = zip(*parts, strict=True)
    return sum(lows), sum(highs)


def _negative(part):
    return -part[1], -part[0]


def _product(one, other):
    # Nothing times infinity is nothing here: infinity is no value, but the lack of a bound.
    ends = [0.0 if 0 in (a, b) else a * b for a in one for b in other]
    return min(ends), max(ends)


def _quotient(one, other):
    return _product(one, (1 / other[1], 1 / other[0])) if other[0] > 0 else FREE


def _exponential(part):
    with np.errstate(over="ignore"):
        return tuple(np.exp(part).tolist())


_COMBINED = {
    **dict.fromkeys(("ConcatV2", "Pack"), _union),
    "Pad": lambda part, widths: _union(part, (0.0, 0.0)),
    "PadV2": lambda part, widths, value: _union(part, value),
    "SelectV2": lambda condition, one, other: _union(one, other),
    **dict.fromkeys(("Add", "AddV2", "AddN", "BiasAdd"), _sum),
    "Sub": lambda one, other: _sum(one, _negative(other)),
    "Neg": _negative,
    "Mul": _product,
    "RealDiv": _quotient,
    "Reciprocal": lambda part: _quotient((1.0, 1.0), part),
    "Exp": _exponential,
    "Prod": lambda part: (0.0, 1.0) if 0 <= part[0] and part[1] <= 1 else FREE,
    "Maximum": lambda one, other: (max(one[0], other[0]), max(one[1], other[1])),
    "Minimum": lambda one, other: (min(one[0], other[0]), min(one[1], other[1])),
}
