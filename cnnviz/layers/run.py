"""Call a model and compute something from what its layers output, in one place for all methods.

Inside a `with` block the `call` of each layer is wrapped and its output kept. Traced once in a
`tf.function`, this gives tensors to return or to differentiate with respect to, and the graph
optimizer drops the layers that the result does not need. Functional, Sequential, nested and
subclassed models all work the same way.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnviz.keras_internals import clear_losses, one_thread, wrapped_calls
from cnnviz.layers import numbers
from cnnviz.layers.batches import batches
from cnnviz.layers.inputs import check_model, image_of, take
from cnnviz.layers.names import find_layer, has_kernel, leaves, named_layers, own_weights
from cnnviz.layers.recorded import attention_of, depends
from cnnviz.layers.warn import warn

MOST_TRACES = 32  # that are kept for one model
# Types of the attributes that are compared before a trace is used again.
SIMPLE = {bool, int, float, str, tuple, type(None)}
HIDDEN = (
    "`model` (='{}') calls its layers where they cannot be recorded: in a tf.function of its own, "
    "or in a TensorFlow loop or condition. Remove the decorator (Keras compiles models itself), "
    "and decide by tf.where"
)

_traces = weakref.WeakKeyDictionary()  # model -> {key: Trace}; goes when the model goes


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a model in inference mode, while it is traced."""

    model: keras.Model
    named: dict[str, keras.Layer]  # as `named_layers` returns them
    images: tf.Tensor  # (N, H, W, C) float32, or of another rank: the input to look at
    others: list[tf.Tensor]  # the other inputs, where a model has several
    output: Any  # what the model returned
    attention: list[tf.Tensor]  # the weights of all attention over positions
    # By path, what each chosen layer returned, in the order of the layers' last calls. A layer that
    # is used twice has two tensors.
    recorded: dict[str, list[tf.Tensor]]


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """A traced computation, and what `compute` found out about the model while it was traced."""

    function: Callable  # (inputs, *arguments) -> (results, sum of squared weights, value range)
    facts: Any
    warned: list  # the warnings of the tracing, which every use repeats


def every_layer(named):
    """For `run(record=...)`: record all layers."""
    return named


def one_layer(name):
    """For `run(record=...)`: record one layer, by the name that a person gave."""
    return lambda named: dict([find_layer(named, name)])


def run(model, data, compute, **options):
    """As `stream`, over all images: (results as writable NumPy arrays, facts)."""
    _, _, results, facts = zip(*stream(model, data, compute, **options), strict=True)
    if len(results) == 1:
        return results[0], facts[0]
    try:
        return tf.nest.map_structure(lambda *same: np.concatenate(same), *results), facts[0]
    except ValueError as error:
        name = options.get("name", "images")
        raise ValueError(f"`{name}` (of batches of several sizes) must have one size") from error


def stream(
    model, data, compute, *, key, record=None, per_image=(), finite=True, input_name=None, **reading
):
    """Call a model on images, and compute something from what its layers output, batch by batch.

    Args:
        model: keras.Model of any kind; it is left as it was.
        data: What `batches` takes.
        compute: `compute(call, *arguments)` -> (results, facts): tensors with a first axis of N
            or 1, and whatever else it found out about the model. It is traced once, so it must not
            hold the model itself; `call` is a `Call`.
        key: What distinguishes this computation from others of the same model; hashable. None is
            not kept for later calls: a person's function may hold the model, or change.
        record: Function from `named_layers(model)` to the layers whose outputs are recorded, or
            None.
        per_image: Arrays with a first axis of N, which `compute` gets after `call`.
        finite: Whether NaN or infinity in the weights or the results is an error, and another
            number of rows than images; else, in the weights, it is a warning.
        input_name: Of several inputs, the one to look at.
        reading: Options of `batches`; `name` is "images" unless given.

    Yields:
        (inputs, labels, results, facts) of each batch; labels are None unless asked for.
    """
    check_model(model)
    name = reading.setdefault("name", "images")
    ranges, start, specs = [], 0, None
    for inputs, given in batches(model, data, **reading):
        rows = len(tf.nest.flatten(inputs)[0])
        arguments = [array[start : start + rows] for array in per_image]
        if not rows:  # convolutions of nothing have a wrong shape on some processors
            inputs, arguments = tf.nest.map_structure(
                lambda array: np.zeros((1, *array.shape[1:]), array.dtype), (inputs, arguments)
            )
        before, specs = specs, specs_of((inputs, arguments))
        if specs != before:
            trace = traced(model, inputs, compute, key, record, specs[1], input_name)
        for message in trace.warned if start == 0 else ():
            warn(message)
        results, squares, span = trace.function(inputs, *arguments)
        for tensor in tf.nest.flatten(results) if finite else ():
            if len(tensor) not in (1, rows):
                raise ValueError(
                    f"`model` (='{model.name}') computes {len(tensor)} rows of {rows} images: a "
                    "layer folds windows or frames into the first axis; choose another layer"
                )
        results = tf.nest.map_structure(lambda tensor: tensor.numpy(), results)
        results = results if rows else take(results, slice(0))
        if finite:
            numbers.check_finite(model, squares, results)
        elif start == 0 and not np.isfinite(squares) and (broken := numbers.broken_layer(model)):
            warn(f"the weights of layer '{broken}' hold NaN or infinity")
        if rows:
            ranges.append(span.numpy())
        yield take(inputs, slice(rows)), given, results, trace.facts
        start += rows
    numbers.warn_of_range(model, ranges, name)


def specs_of(inputs):
    """The tf.TensorSpec of each array or tensor, with any number of rows."""
    return tf.nest.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), inputs
    )


def traced(model, inputs, compute, key, record=None, specs=(), input_name=None):
    """The `Trace` of a computation for inputs of these shapes, kept until the model changes.

    `inputs` are arrays, or `specs_of` them; `specs` are of the further arguments. New values of
    weights count anyway.
    """
    inputs, (held, settings) = specs_of(inputs), _state(model)
    whole = key, repr((inputs, specs, input_name)), tuple(map(id, held)), settings
    with one_thread:
        if key is None:
            return _trace(model, inputs, input_name, compute, record, specs)
        kept = _traces.setdefault(model, collections.OrderedDict())
        if whole not in kept:
            # What is known by its id must live as long as the entry: an id could be used again.
            kept[whole] = _trace(model, inputs, input_name, compute, record, specs), held
            while len(kept) > MOST_TRACES:
                kept.popitem(last=False)
        kept.move_to_end(whole)
        return kept[whole][0]


def takes(model, shape):
    """Whether a model can be called on images of a shape (N, ...)."""
    try:
        traced(model, tf.TensorSpec(shape, tf.float32), lambda call: (0, 0), "takes")
    except ValueError:
        return False
    return True


def _state(model):
    """What a traced computation depends on besides the values of the weights.

    These are objects, compared by identity, and the text of all simple attributes.
    """
    held, settings = [], [repr(getattr(model, "loss", None))]
    for layer in (model, *named_layers(model).values()):
        activation = getattr(layer, "activation", None)
        for part in (layer, activation):
            if isinstance(part, keras.Operation):
                # Normalization keeps its mean as a constant, which a new `adapt` replaces.
                held += [getattr(part, name, None) for name in ("mean", "dtype_policy")]
                held += own_weights(part)
                simple = [(k, v) for k, v in vars(part).items() if type(v) in SIMPLE]
                settings.append(repr([(k, v) for k, v in simple if k[0] != "_"]))
        held += [layer, activation] if layer is not model else []  # nothing may keep it alive
    return held, tuple(settings)


def _trace(model, inputs, input_name, compute, record, specs):
    facts, get_model = [], weakref.ref(model)  # a trace must not keep its model alive

    @tf.function(autograph=False, input_signature=[inputs, *specs])
    def function(inputs, *arguments):
        call, received = _call(get_model(), inputs, input_name, record)
        results, found = compute(call, *arguments)
        facts.append(found)
        span = numbers.measure_range(call.images, received)
        return results, numbers.squared_weights(call.model), span

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        function = function.get_concrete_function()
    return Trace(function, facts[-1], [one.message for one in caught])


def _call(model, inputs, input_name, record):
    """-> (Call, what the model has made of the images before its first kernel, or None)."""
    images = image_of(model, inputs, input_name)
    others = [one for one in tf.nest.flatten(inputs) if one is not images]
    named = named_layers(model)
    chosen, recorded, received = record(named) if record else {}, {}, []
    with_kernel = {path for path, layer in leaves(named).items() if has_kernel(layer)}

    def wrap(path, call):
        @functools.wraps(call)
        def recording_call(*args, **kwargs):
            if path in with_kernel:
                received.extend([*args, *kwargs.values()][:1])
            output = call(*args, **kwargs)
            if path in chosen:
                recorded[path] = [*recorded.pop(path, []), output]
            return output

        return recording_call

    wrapped = {path: named[path] for path in named if path in chosen or path in with_kernel}
    before = len(images.graph.get_operations())
    try:
        with wrapped_calls(wrapped, wrap):
            output = model(inputs, training=False)
    except tf.errors.OperatorNotAllowedInGraphError as error:
        raise ValueError(HIDDEN.format(model.name)) from error
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        # Keras wraps what a layer raises: escapes for bold type before, all arguments after it.
        reason = re.sub(r"\x1b\[\d+m", "", str(error)).split("\n\nArguments received")[0]
        raise ValueError(
            f"`model` (='{model.name}') cannot be called on `images` of shape "
            f"{tf.nest.map_structure(lambda x: tuple(x.shape), inputs)}: {' '.join(reason.split())}"
        ) from error
    finally:
        clear_losses(model)
    tensors = {path: [y for y in calls if _is_symbolic(y)] for path, calls in recorded.items()}
    elsewhere = any(y.graph is not images.graph for calls in tensors.values() for y in calls)
    hidden = any(hides(op) for op in images.graph.get_operations()[before:])
    # A single layer that is missing gets an error of its own, in `required_output`.
    if elsewhere or (hidden and len(chosen) > 1 and chosen.keys() - recorded.keys()):
        raise ValueError(HIDDEN.format(model.name))
    received = (x for x in received if _is_symbolic(x) and x.graph is images.graph)
    if others:  # the first that has seen the images
        received = (x for x in received if x.dtype.is_floating and depends(x, images))
    tensors = {path: calls for path, calls in tensors.items() if calls}
    attention = attention_of(images.graph)
    return Call(model, named, images, others, output, attention, tensors), next(received, None)


def _is_symbolic(value):
    """Whether it is a tensor of a graph; a layer may also return a constant."""
    return tf.is_tensor(value) and hasattr(value, "graph")


def hides(op):
    """Whether it is a call of a tf.function, but for Keras's own of convolutions in groups."""
    return op.type.endswith("PartitionedCall") and not is_grouped_convolution(op)


def is_grouped_convolution(op):
    """Whether it is a convolution in groups, which Keras calls in a function of its own."""
    return op.type.endswith("PartitionedCall") and "_conv_xla" in op.get_attr("f").name
