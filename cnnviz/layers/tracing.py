"""(model, a function of tensors) -> traced once, and applied to any number of pictures."""

import warnings
import weakref

import keras
import numpy as np
import tensorflow as tf

from cnnviz.layers.names import named_layers, own_weights
from cnnviz.layers.recording import one_thread

BATCH_SIZE = 32  # pictures in one call of the model; bounds the memory
SETTINGS = {bool, int, float, str, tuple}  # types of what a layer is told; each is never changed

_traced = weakref.WeakKeyDictionary()  # model -> {key: function}; goes when the model goes


def traced(model, key, make):
    """A function that was traced for this model before, or a new one.

    Args:
        model: keras.Model.
        key: What tells the function from others of the same model; hashable.
        make: `make(get_model)` returns the function. It reaches the model through `get_model()`,
            so that the cache does not keep the model alive.

    Returns:
        What `make` returned, now or at an earlier call with the same key. Layers, activations or
        variables that were exchanged or added since then count as another key, and so do numbers,
        words and tuples that a layer of Keras's own holds (`negative_slope`, `strides`); new
        values of weights are seen anyway. What else a layer holds is not looked at.

    Warns:
        UserWarning: What `make` warned of, in each call.
    """
    named = named_layers(model).values()
    with one_thread:
        held = own_weights(model)
        for layer in named:
            held += _held(layer)
        key = key, tuple(map(id, [*named, *held]))
        functions = _traced.setdefault(model, {})
        if key not in functions:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                function = make(weakref.ref(model))
            # What is identified by its id must live as long as the entry, or it could be reused.
            functions[key] = function, caught, held
        function, caught, _ = functions[key]
    for warning in caught:
        warnings.warn(warning.message, warning.category, stacklevel=3)
    return function


def _held(layer):
    """What the function of a layer depends on besides the values of its weights."""
    held = own_weights(layer)
    # Normalization keeps its mean as a constant, which a new `adapt` replaces.
    held += [getattr(layer, name, None) for name in ("activation", "mean", "dtype_policy")]
    if isinstance(getattr(layer, "activation", None), keras.Layer):
        held += _held(layer.activation)
    if type(layer).__module__.startswith("keras."):  # a person's layer may count its calls
        held += [v for k, v in vars(layer).items() if type(v) in SETTINGS and k[0] != "_"]
    return held


def image_spec(images):
    """What a traced function is traced for: pictures of this size, in any number."""
    return tf.TensorSpec((None, *images.shape[1:]), tf.float32)


def in_batches(function, *arrays):
    """Apply a function of tensors to arrays, `BATCH_SIZE` rows at a time.

    Returns:
        What `function` returns, as read-only NumPy arrays over all rows, which are not copied where
        they come from one call; no rows give empty arrays.
    """
    rows = len(arrays[0])
    if not rows:  # TensorFlow's convolutions of nothing have a wrong shape on some processors
        one = in_batches(function, *(np.zeros((1, *a.shape[1:]), a.dtype) for a in arrays))
        return tf.nest.map_structure(lambda values: values[:0], one)
    parts = [
        tf.nest.map_structure(
            np.asarray,
            function(*(array[start : start + BATCH_SIZE] for array in arrays)),
        )
        for start in range(0, rows, BATCH_SIZE)
    ]
    if len(parts) == 1:  # not copied again
        return parts[0]
    return tf.nest.map_structure(lambda *same: _read_only(np.concatenate(same)), *parts)


def _read_only(array):
    array.flags.writeable = False
    return array
