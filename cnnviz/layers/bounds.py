"""(a tensor of a graph) -> the interval that its values cannot leave, by interval arithmetic."""

import math

import tensorflow as tf

PASSED = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims")  # operations that change no value
# These pick, move or average values.
KEPT = (*PASSED, "Transpose", "StridedSlice", "Slice", "GatherV2", "BroadcastTo", "Tile")
KEPT += ("ReverseV2", "Max", "Min", "Mean", "MaxPool", "AvgPool")
OF_FUNCTION = {
    **dict.fromkeys(("Sigmoid", "Softmax"), (0.0, 1.0)),
    **dict.fromkeys(("Tanh", "Softsign", "Erf"), (-1.0, 1.0)),
    **dict.fromkeys(("Relu", "Softplus", "Exp", "Square", "Abs"), (0.0, math.inf)),
    "Relu6": (0.0, 6.0),
}
FREE = (-math.inf, math.inf)
DEEPEST = 40  # operations from the end of a model that are looked at; a head has fewer


def bounds(tensor):
    """(lowest, highest) value that a tensor under construction can hold, as far as is known."""
    return _bounds(tensor, DEEPEST, {})


def _bounds(tensor, deepest, known):
    if tensor.ref() not in known:
        known[tensor.ref()] = _computed(tensor, deepest, known)
    return known[tensor.ref()]


def _computed(tensor, deepest, known):
    op = tensor.op
    if op.type in OF_FUNCTION:
        return OF_FUNCTION[op.type]
    value = tf.get_static_value(tensor)
    if value is not None and value.size and value.dtype.kind in "fiu":
        return float(value.min()), float(value.max())
    if deepest == 0:
        return FREE
    if op.type in KEPT:
        return _bounds(op.inputs[0], deepest - 1, known)
    if op.type == "Sum" and _picks_of_softmax(op.inputs[0].op):
        return 0.0, 1.0
    combine = _COMBINED.get(op.type)
    if combine is None:
        return FREE
    given = op.inputs[:-1] if op.type == "ConcatV2" else op.inputs
    parts = [_bounds(part, deepest - 1, known) for part in given]
    return FREE if FREE in parts and op.type not in ("Maximum", "Minimum") else combine(*parts)


def _picks_of_softmax(op):
    """Whether it picks values of a softmax, whose sum over any axis but the first is at most 1."""
    while op.type in ("StridedSlice", "GatherV2"):
        op = op.inputs[0].op
    return op.type == "Softmax" and op.outputs[0].shape.rank == 2


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
    if other[0] <= 0:
        return FREE
    return _product(one, (1 / other[1], 1 / other[0]))


def _product_of_many(part):
    return (0.0, 1.0) if 0 <= part[0] and part[1] <= 1 else FREE


_COMBINED = {
    **dict.fromkeys(("ConcatV2", "Pack"), _union),
    **dict.fromkeys(("Add", "AddV2", "AddN", "BiasAdd"), _sum),
    "Sub": lambda one, other: _sum(one, _negative(other)),
    "Neg": _negative,
    "Mul": _product,
    "RealDiv": _quotient,
    "Reciprocal": lambda part: _quotient((1.0, 1.0), part),
    "Prod": lambda part, _: _product_of_many(part),
    "Maximum": lambda one, other: (max(one[0], other[0]), max(one[1], other[1])),
    "Minimum": lambda one, other: (min(one[0], other[0]), min(one[1], other[1])),
}
