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
from cnnviz.layers.batches import batches
from cnnviz.layers.finite import broken_layer, check_finite, squared_weights
from cnnviz.layers.inputs import check_model, image_of, take
from cnnviz.layers.names import find_layer, has_kernel, leaves, named_layers, own_weights
from cnnviz.layers.recorded import attention_of
from cnnviz.layers.value_range import measure_range, warn_of_range
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
    """One call of a model in inference mode, while it is traced.

    Attributes:
        model: keras.Model.
        named: Its layers, as `named_layers` returns them.
        images: (N, H, W, C) float32 tensor, or another rank: the input to look at.
        others: The other inputs, where a model has several.
        output: What the model returned.
        attention: The weights of all attention over positions, tensors.
        recorded: dict[str, list]: by path, the tensors that each chosen layer returned, in the
            order of the layers' last calls. A layer that is used twice has two.
    """

    model: keras.Model
    named: dict[str, keras.Layer]
    images: tf.Tensor
    others: list[tf.Tensor]
    output: Any
    attention: list[tf.Tensor]
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
    model,
    data,
    compute,
    *,
    key,
    record=None,
    named=None,
    per_image=(),
    check=None,
    finite=True,
    name="images",
    description=None,
    labels=False,
    input_name=None,
):
    """Call a model on images, and compute something from what its layers output, batch by batch.

    Args:
        model: keras.Model of any kind; it is left as it was.
        data: Images in the model's input range, or a dataset: what `batches` takes.
        compute: `compute(call, *arguments)` -> (results, facts): tensors with a first axis of N
            or 1, and whatever else it found out about the model. It is traced once, so it must not
            hold the model itself; `call` is a `Call`.
        key: What distinguishes this computation from others of the same model; hashable. None is
            not kept for later calls: a person's function may hold the model, or change.
        record: Function from `named_layers(model)` to the layers whose outputs are recorded; None
            records none, as the model's output is enough.
        named: What `check_model(model)` returned, for a caller that has asked it already.
        per_image: Arrays with a first axis of N, which `compute` gets after `call`.
        check: Function of the facts, called before the first image is computed.
        finite: Whether NaN or infinity in the weights or the results is an error, and another
            number of rows than images; else, in the weights, it is a warning.
        name: The argument's name, for errors and warnings.
        description: What is being done, for a progress bar; None shows none.
        labels: Whether the data must have labels.
        input_name: Of several inputs, the one to look at.

    Yields:
        (inputs, labels, results, facts) of each batch; labels are None unless asked for.

    Raises:
        ValueError: If the images do not fit the model, or NaN comes out.

    Warns:
        UserWarning: If the value range can hardly be that of the training, if `compute` warned
            while it was traced, or, without `finite`, if weights are not finite.
    """
    named = check_model(model) if named is None else named
    state = _state(model, named)
    ranges, start, kept = [], 0, collections.OrderedDict() if key is None else None
    for inputs, given in batches(model, data, name=name, description=description, labels=labels):
        rows = len(tf.nest.flatten(inputs)[0])
        arguments = [array[start : start + rows] for array in per_image]
        if not rows:  # convolutions of nothing have a wrong shape on some processors
            inputs, arguments = tf.nest.map_structure(
                lambda array: np.zeros((1, *array.shape[1:]), array.dtype), (inputs, arguments)
            )
        options = {"named": named, "state": state, "input_name": input_name, "kept": kept}
        trace = traced(model, inputs, compute, key, record, specs_of(arguments), **options)
        if start == 0:
            for message in trace.warned:
                warn(message)
            if check is not None:
                check(trace.facts)
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
            check_finite(model, squares, results)
        elif start == 0 and not np.isfinite(squares) and (broken := broken_layer(model)):
            warn(f"the weights of layer '{broken}' hold NaN or infinity")
        if rows:
            ranges.append(span.numpy())
        yield take(inputs, slice(rows)), given, results, trace.facts
        start += rows
    warn_of_range(model, ranges, name)


def specs_of(inputs):
    """The tf.TensorSpec of each array or tensor, with any number of rows."""
    return tf.nest.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), inputs
    )


def traced(
    model,
    inputs,
    compute,
    key,
    record,
    specs,
    *,
    named=None,
    state=None,
    input_name=None,
    kept=None,
):
    """The `Trace` of a computation for inputs of these shapes, kept until the model changes.

    `inputs` are arrays, or `specs_of` them; `kept` is where to keep it instead. New values of
    weights count anyway.
    """
    named = check_model(model) if named is None else named
    state = _state(model, named) if state is None else state
    held, settings = state
    inputs = specs_of(inputs)
    whole = key, repr((inputs, specs, input_name)), tuple(map(id, held)), settings
    with one_thread:
        if kept is None:
            new = collections.OrderedDict()
            kept = new if key is None else _traces.setdefault(model, new)
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
        traced(model, tf.TensorSpec(shape, tf.float32), lambda call: (0, 0), "takes", None, [])
    except ValueError:
        return False
    return True


def _state(model, named):
    """What a traced computation depends on besides the values of the weights.

    These are objects, compared by identity, and the text of all simple attributes.
    """
    held, settings = [], []
    for layer in (model, *named.values()):
        activation = getattr(layer, "activation", None)
        for part in (layer, activation):
            if isinstance(part, keras.Operation):
                held += own_weights(part)
                # Normalization keeps its mean as a constant, which a new `adapt` replaces.
                held += [getattr(part, name, None) for name in ("mean", "dtype_policy")]
                simple = ((k, v) for k, v in vars(part).items() if k[0] != "_")
                settings.append(repr([(k, v) for k, v in simple if type(v) in SIMPLE]))
        held += [layer, activation] if layer is not model else []  # nothing may keep it alive
    return held, (*settings, repr(getattr(model, "loss", None)))


def _trace(model, inputs, input_name, compute, record, specs):
    facts, get_model = [], weakref.ref(model)  # a trace must not keep its model alive

    @tf.function(autograph=False, input_signature=[inputs, *specs])
    def function(inputs, *arguments):
        call, received = _call(get_model(), inputs, input_name, record)
        results, found = compute(call, *arguments)
        facts.append(found)
        return results, squared_weights(call.model), measure_range(call.images, received)

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
            if path in with_kernel and (others or not received):
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
    tensors = {path: list(filter(_is_symbolic, calls)) for path, calls in recorded.items()}
    elsewhere = any(y.graph is not images.graph for calls in tensors.values() for y in calls)
    hidden = any(map(hides, images.graph.get_operations()[before:]))
    # A single layer that is missing gets an error of its own, in `required_output`.
    if elsewhere or (hidden and len(chosen) > 1 and chosen.keys() - recorded.keys()):
        raise ValueError(HIDDEN.format(model.name))
    first = (x for x in received if _is_symbolic(x) and x.graph is images.graph)
    if others:  # the first that has seen the images
        first = (x for x in first if x.dtype.is_floating and tf.gradients(x, images) != [None])
    tensors = {path: calls for path, calls in tensors.items() if calls}
    attention = attention_of(images.graph)
    return Call(model, named, images, others, output, attention, tensors), next(first, None)


def _is_symbolic(value):
    """Whether it is a tensor of a graph; a layer may also return a constant."""
    return tf.is_tensor(value) and hasattr(value, "graph")


def hides(op):
    """Whether it is a call of a tf.function, but for Keras's own of convolutions in groups."""
    return op.type.endswith("PartitionedCall") and not is_grouped_convolution(op)


def is_grouped_convolution(op):
    """Whether it is a convolution in groups, which Keras calls in a function of its own."""
    return op.type.endswith("PartitionedCall") and "_conv_xla" in op.get_attr("f").name
