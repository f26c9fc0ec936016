"""Every use of Keras's private API, in one place.

Tried on Keras 3.8, 3.10, 3.12, 3.13 and 3.15. Nothing else in this package touches a name of Keras
that begins with an underscore, or the `call` of somebody's layer.
"""

import contextlib
import threading

one_thread = threading.RLock()  # held while layers are wrapped, or a model is called to be traced


def sublayers(layer):
    """The layers directly inside a layer."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def own_variables(layer):
    """The variables of a layer, without those of the layers inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def input_names(model):
    """The names of the inputs of a functional model, as a dict of data has them."""
    return [one._keras_history.operation.name for one in model.inputs]


def clear_losses(model):
    """Forget what activity regularizers added; it would keep tensors of a traced graph."""
    model._clear_losses()


def reset_initial_epoch(model):
    """Let the next `fit` start at its own first epoch, whatever a backup said before."""
    model._initial_epoch = None


@contextlib.contextmanager
def wrapped_calls(layers, wrap):
    """Inside the `with` block, each of the `layers` {path: layer} calls `wrap(path, its call)`."""
    before = {}
    with one_thread:
        try:
            for path, layer in layers.items():
                # Keras calls the second instead of the first where weights are quantized.
                name = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"
                before[path] = name, layer.__dict__.get(name)
                layer.__dict__[name] = wrap(path, getattr(layer, name))  # past attribute tracking
            yield
        finally:
            for path, (name, call) in reversed(before.items()):  # a layer may have two paths
                del layers[path].__dict__[name]
                if call is not None:
                    layers[path].__dict__[name] = call


def first_moment(optimizer, variable):
    """The running mean of the gradients that an optimizer of Adam's kind keeps for a variable."""
    return optimizer._momentums[optimizer._get_variable_index(variable)]
