"""(a tensor of a TensorFlow graph) -> its reach: the pixels that each of its elements depends on.

Every tensor on the way from the picture has a reach: for each element the first and last row and
column of the picture that it depends on. What a convolution puts out reaches as far as the
outermost of what its window holds, a sum as far as the outermost of its terms.
"""

import functools
import inspect

import numpy as np
import tensorflow as tf

# The four sides of a reach are top, left, -bottom and -right, each less FAR: the outermost is
# always the lowest, and what depends on no pixel is 0, as padding and constants are. Each side is
# an array of the rank of its tensor, with size 1 along the axes where it is the same everywhere.
FAR = 2.0**20  # pixels, more than any picture has in a row; float32 counts on to 16 times as many

ELEMENTWISE = """Abs Add AddN AddV2 BiasAdd Cast Ceil CheckNumerics ClipByValue Cos Div DivNoNan Elu
EnsureShape Equal Erf Erfc Exp Expm1 Floor Greater GreaterEqual Identity Inv LeakyRelu Less
LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr Maximum Minimum Mul MulNoNan Neg NotEqual Pow
PreventGradient RealDiv Reciprocal Relu Relu6 Round Rsqrt SelectV2 Selu Sigmoid Sign Sin Softplus
Softsign Sqrt Square SquaredDifference StopGradient Sub Tan Tanh""".split()
NORMALIZATIONS = "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3".split()
CONVOLUTIONS = "Conv2D DepthwiseConv2dNative".split()
POOLINGS = "AvgPool MaxPool".split()
PRODUCTS = "BatchMatMul BatchMatMulV2 BatchMatMulV3 MatMul".split()
REDUCTIONS = "All Any Max Mean Min Prod Sum".split()
INTERPOLATIONS = "ResizeBicubic ResizeBilinear".split()
RESHAPES = "ExpandDims Reshape Squeeze".split()
MOVES = """BatchToSpaceND BroadcastTo ConcatV2 DepthToSpace ExtractImagePatches GatherV2 MirrorPad
Pack Pad PadV2 ResizeNearestNeighbor ReverseV2 Roll Slice SpaceToBatchND SpaceToDepth Split SplitV
StridedSlice Tile Transpose Unpack""".split()  # put out what they take in, elsewhere, or zeros
SHAPE_ONLY = "OnesLike Rank Shape ShapeN Size ZerosLike".split()


def follow(image, target):
    """Follow the operations of a graph from the picture to another tensor.

    Args:
        image: (1, H, W, C) tensor of a graph that was traced.
        target: A tensor of the same graph.

    Returns:
        The four sides of the reach of `target`; None if it does not depend on `image`.
    """
    rows = np.arange(image.shape[1], dtype=np.float32).reshape(1, -1, 1, 1)
    columns = np.arange(image.shape[2], dtype=np.float32).reshape(1, 1, -1, 1)
    reach = {image.name: [x - FAR for x in (rows, columns, -(rows + 1), -(columns + 1))]}
    for op in image.graph.get_operations():  # in the order in which they were made
        known = [reach.get(tensor.name) for tensor in op.inputs]
        if op.type in SHAPE_ONLY or all(sides is None for sides in known):
            continue
        followed = [_follow(op, [sides and sides[i] for sides in known]) for i in range(4)]
        for tensor, sides in zip(op.outputs, zip(*followed, strict=True), strict=True):
            if sides[0] is not None:
                reach[tensor.name] = sides
        if target.name in reach:
            break
    return reach.get(target.name)


def boxes(sides):
    """Four (h, w) sides -> (h, w, 4) int32: top, left, bottom, right; zeros for no pixel."""
    sides = np.stack(sides, axis=-1)
    return np.where(sides == 0, 0, (sides + FAR) * [1, 1, -1, -1]).astype(np.int32)


def _follow(op, inputs):
    """One side of what goes into an operation -> of what comes out; None where no pixel counts."""
    of_use = [x for x, side in zip(op.inputs, inputs, strict=True) if side is not None]
    fixed = all(tensor.shape.is_fully_defined() for tensor in (*of_use, *op.outputs))
    rule = RULES.get(op.type)
    outputs = rule(op, inputs) if rule and (fixed or rule is _elementwise) else None
    if outputs is None:  # any output may depend on any input
        outermost = min(side.min() for side in inputs if side is not None)
        outputs = [np.full((), outermost)] * len(op.outputs)
    return [
        None if side is None else _compact(side, tensor.shape.rank or 0)
        for side, tensor in zip(outputs, op.outputs, strict=True)
    ]


def _compact(side, rank):
    """Give an array its tensor's rank, and size 1 along axes where it is the same everywhere."""
    side = side.reshape((1,) * (rank - side.ndim) + side.shape)
    for axis in range(side.ndim):
        if side.shape[axis] > 1 and (side == (first := side.take([0], axis))).all():
            side = first
    return side


# Each rule takes an operation and one side of each of its inputs, None for what depends on no
# pixel; it returns that side of each output, or None where it does not know.


def _elementwise(op, inputs):
    sides = (side for side in inputs if side is not None)
    return [functools.reduce(np.minimum, sides)] * len(op.outputs)


def _each_its_own(op, inputs):
    return inputs


def _normalization(op, inputs):
    return None if op.get_attr("is_training") else _elementwise(op, inputs)


def _convolution(op, inputs):
    if inputs[1] is not None:
        return None
    side, channel = inputs[0], _layout(op).index("C")
    kernel, count = op.inputs[1].shape, op.inputs[0].shape[channel]
    if side.shape[channel] > 1:
        groups = count // kernel[2] if op.type == "Conv2D" else count
        parts = [part.min(channel, keepdims=True) for part in np.split(side, groups, channel)]
        side = np.concatenate(parts, channel)
        side = side.repeat(op.outputs[0].shape[channel] // groups, channel)
    return [_over_windows(op, side, kernel[:2], op.inputs[0].shape, op.outputs[0].shape)]


def _pooling(op, inputs):
    layout, sizes = _layout(op), op.get_attr("ksize")
    kernel = [sizes[layout.index(letter)] for letter in "HW"]
    return [_over_windows(op, inputs[0], kernel, op.inputs[0].shape, op.outputs[0].shape)]


def _transposed_convolution(op, inputs):
    """Its output has the shape of the input of the convolution whose gradient it is."""
    if inputs[1] is not None:
        return None
    side = inputs[2].min(_layout(op).index("C"), keepdims=True)
    kernel, shape = op.inputs[1].shape[:2], op.outputs[0].shape
    return [_over_windows(op, side, kernel, shape, op.inputs[2].shape, transposed=True)]


def _layout(op):
    return op.get_attr("data_format").decode()  # "NHWC" or "NCHW"


def _over_windows(op, side, kernel, shape, window_shape, transposed=False):
    """Outermost reach within each window, from a tensor of `shape` to one of `window_shape`."""
    for letter, size in zip("HW", kernel, strict=True):
        axis = _layout(op).index(letter)
        stride = op.get_attr("strides")[axis]
        dilation = op.get_attr("dilations")[axis] if "dilations" in op.node_def.attr else 1
        count, windows = shape[axis], window_shape[axis]
        extent = (size - 1) * dilation + 1
        before = _padding_before(op, axis, (windows - 1) * stride + extent - count)
        offset = np.arange(count) - np.arange(windows)[:, None] * stride + before
        reads = (offset >= 0) & (offset < extent) & (offset % dilation == 0)
        side = _along(side, axis, reads.T if transposed else reads)
    return side


def _padding_before(op, axis, missing):
    """How many places before the tensor's first one the first window begins."""
    padding = op.get_attr("padding").decode()
    if padding == "EXPLICIT":
        return op.get_attr("explicit_paddings")[2 * axis]
    return max(missing, 0) // 2 if padding == "SAME" else 0


def _along(side, axis, reads):
    """Outermost reach of what each output reads along an axis: (outputs, inputs) bool."""
    if side.shape[axis] == 1 and reads.any(1).all():  # the same everywhere
        return side
    side = np.moveaxis(side, axis, -1)[..., None, :]
    if side.shape[-1] == 1:
        reads = reads.any(1, keepdims=True)
    return np.moveaxis(np.where(reads, side, 0).min(-1), -1, axis)


def _interpolation(op, inputs):
    """Which values count is seen by interpolating pictures of one bright row or column each."""
    side = inputs[0]
    attributes = {name: op.get_attr(name) for name in ("align_corners", "half_pixel_centers")}
    for axis, shape in ((1, (1, -1, 1)), (2, (1, 1, -1))):
        count, size = op.inputs[0].shape[axis], [1, 1]
        size[axis - 1] = op.outputs[0].shape[axis]
        lines = np.eye(count, dtype=np.float32).reshape(count, *shape[1:], 1)
        resized = getattr(tf.raw_ops, op.type)(images=lines, size=size, **attributes)
        side = _along(side, axis, resized.numpy().reshape(count, -1).T != 0)
    return [side]


def _product(op, inputs):
    """Of matrices: an element depends on a row of the one and a column of the other."""
    turned = [
        op.get_attr(a.name) for a in op.op_def.attr if a.name.startswith(("transpose", "adj"))
    ]
    sides = [
        side.swapaxes(-1, -2) if turn and side is not None else side
        for side, turn in zip(inputs, turned, strict=True)
    ]
    sides = [
        side.min(axis, keepdims=True)
        for side, axis in zip(sides, (-1, -2), strict=True)
        if side is not None
    ]
    return [functools.reduce(np.minimum, sides)]


def _softmax(op, inputs):
    return [inputs[0].min(-1, keepdims=True)]


def _reduction(op, inputs):
    axes = tf.get_static_value(op.inputs[1])
    if axes is None:
        return None
    return [inputs[0].min(tuple(np.ravel(axes)), keepdims=op.get_attr("keep_dims"))]


def _reshape(op, inputs):
    return [np.broadcast_to(inputs[0], op.inputs[0].shape).reshape(op.outputs[0].shape)]


def _move(op, inputs):
    """Do the operation to the reach itself; what it fills up with zeros depends on no pixel."""
    data = [argument.type_attr in ("T", "Tparams") for argument in _arguments(op)]
    if any(side is not None and not is_data for side, is_data in zip(inputs, data, strict=True)):
        return None  # such as places in the picture that are computed from it
    values = [
        (np.broadcast_to(np.float32(0) if side is None else side, tensor.shape))
        if is_data
        else _constant(tensor)
        for tensor, side, is_data in zip(op.inputs, inputs, data, strict=True)
    ]
    return None if any(value is None for value in values) else _run(op, values)


def _arguments(op):
    """What the operation's type says of each of its inputs."""
    return [
        argument
        for argument in op.op_def.input_arg
        for _ in range(op.get_attr(argument.number_attr) if argument.number_attr else 1)
    ]


def _constant(tensor):
    """The value of a tensor that is known beforehand, such as the width of a padding; or None."""
    value, op = tf.get_static_value(tensor), tensor.op
    if value is None and len(op.inputs):
        values = [_constant(x) for x in op.inputs]
        if all(value is not None for value in values):
            value = _run(op, values)[tensor.value_index]
    return value


def _run(op, values):
    """Do an operation, now and to other values -> its outputs."""
    function = getattr(tf.raw_ops, op.type)
    names = list(inspect.signature(function).parameters)
    arguments = {a.name: op.get_attr(a.name) for a in op.op_def.attr if a.name in names}
    waiting = iter(values)
    for name, argument in zip(names, op.op_def.input_arg, strict=False):
        several = argument.number_attr and op.get_attr(argument.number_attr)
        arguments[name] = [next(waiting) for _ in range(several)] if several else next(waiting)
    return [output.numpy() for output in tf.nest.flatten(function(**arguments))]


RULES = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(NORMALIZATIONS, _normalization),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(POOLINGS, _pooling),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **dict.fromkeys(INTERPOLATIONS, _interpolation),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(MOVES, _move),
    "Conv2DBackpropInput": _transposed_convolution,
    "IdentityN": _each_its_own,
    "LogSoftmax": _softmax,
    "Softmax": _softmax,
}
