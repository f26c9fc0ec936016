"""(model, images) -> a warning, if it can hardly have been trained on pictures in that range."""

import contextlib
import functools
import warnings

import numpy as np
import tensorflow as tf

from cnnviz.layers.layout import LAST, takes_channels_first, takes_integers
from cnnviz.layers.names import leaf_layers
from cnnviz.layers.recording import call_model, wrapped_calls
from cnnviz.layers.tracing import traced

RANGE_SAMPLE = 4  # pictures whose range is looked at
LARGE = 50  # what reaches the first kernel of a network trained on rescaled pictures is less


def check_range(model, images, name="images"):
    """Warn if the pictures' range cannot be the one that the model was trained on.

    What the model does to the pictures before its first kernel tells. A model that makes them far
    smaller takes 0..255; one that leaves numbers up to 255 as they are was hardly trained on them.

    Args:
        model: keras.Model.
        images: (N, H, W, C) float32 array.
        name: The argument's name, for the warning.
    """
    images = images[:: max(1, len(images) // RANGE_SAMPLE)][:RANGE_SAMPLE]
    if not len(images):
        return
    low, high, spread = _range_of(images)
    if spread == 0:
        return
    # Pictures of a range like that of earlier ones, which were right, are so too: to look again
    # would take as long as a fifth of the call proper.
    kind = -1 <= low and high <= 1, low >= 0, int(np.frexp(high)[1])
    right = traced(model, "kinds of range that are right", lambda get_model: set())
    if kind in right:
        return
    try:
        received = _received_by_first_kernel(model, images)
    except Exception:  # it comes again, and is told, in the call proper
        return
    if received is None:
        right.add(kind)
        return
    values, may_change = received
    first, last, spread_then = _range_of(values)
    gain = spread_then / spread
    given = f"`{name}` (in {low:.3g}..{high:.3g})"
    # Around 1 and below 0: the mean was subtracted, as VGG and ResNet want it.
    as_they_are = 0.5 < gain < 1.5 and first >= 0
    if -1 <= low and high <= 1 and 0 < gain < 1 / LARGE:
        warnings.warn(
            f"{given} look too small for model '{model.name}', which divides them by "
            f"{1 / gain:.0f} before its first weights: it takes pictures in 0..255",
            stacklevel=3,
        )
    elif low >= 0 and last > LARGE and (as_they_are or gain >= 1.5):
        warnings.warn(
            f"{given} look too large for model '{model.name}', at whose first weights they arrive "
            f"as {first:.3g}..{last:.3g}: rescale them as it was done for its "
            "training, to 0..1 perhaps; if there was no rescaling, all is well",
            stacklevel=3,
        )
    elif gain == 0 and takes_integers(model):
        warnings.warn(
            f"{given} are all the same to model '{model.name}', which takes integers: in 0..255",
            stacklevel=3,
        )
    elif gain > 0 and not may_change:
        right.add(kind)


def _range_of(images):
    """Lowest and highest value, and the largest difference within a channel."""
    channels = np.ascontiguousarray(images.reshape(-1, images.shape[-1]).T)  # many times faster
    low, high = channels.min(axis=1), channels.max(axis=1)
    return float(low.min()), float(high.max()), float((high - low).max())


class _Stop(BaseException):
    """No error: ends a call of the model where there is nothing more to learn."""


def _received_by_first_kernel(model, images):
    """What a model has made of the pictures where its first kernel receives them.

    Called, not traced: there is next to nothing before the first kernel.

    Returns:
        (float32 array, whether new weights can change it), or None where no layer has a kernel or
        a tf.function of the model's own hides it.
    """
    received, before = [], []

    def wrap(path, call):
        @functools.wraps(call)
        def stopping_call(*args, **kwargs):
            if path not in with_kernel:
                before.append(path)
                return call(*args, **kwargs)
            received.extend([*args, *kwargs.values()][:1])
            raise _Stop

        return stopping_call

    leaves = leaf_layers(model)
    learning = {path: layer for path, layer in leaves.items() if getattr(layer, "weights", ())}
    with_kernel = {
        path for path, layer in learning.items() if any(len(w.shape) >= 2 for w in layer.weights)
    }
    with contextlib.suppress(_Stop), wrapped_calls(learning, wrap):
        call_model(model, tf.constant(images))
    if not (received and tf.is_tensor(received[0]) and hasattr(received[0], "numpy")):
        return None
    found = tf.cast(received[0], tf.float32).numpy()
    turned = takes_channels_first(model) and found.ndim == 4
    return (found.transpose(LAST) if turned else found), bool(before)
