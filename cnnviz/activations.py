"""(model, images) -> {layer: (N, h, w, C) feature maps}: what each layer outputs."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from cnnviz import layers


def extract_activations(
    model: keras.Model, images: ArrayLike, layer_names: str | Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Record what the layers of a model output for some pictures, all in one pass.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        images: (N, H, W, C) or (H, W, C), in the model's input range. A model that has channels
            first may get them in its own layout, too.
        layer_names: Names of layers, also of those inside nested models
            ("backbone/block_13_expand", or "block_13_expand" while that is unambiguous); one name
            or a sequence. None takes every layer that outputs feature maps (N, h, w, C).

    Returns:
        dict[str, np.ndarray]: float32 outputs by the layer's path: as asked for, or in the order
        in which the model calls the layers. They are read-only, since to copy them would take as
        long again as to compute them; `.copy()` makes one that can be changed.

    Raises:
        ValueError: If a layer is unknown, or not used, or the images do not fit the model.

    Warns:
        UserWarning: If a layer is used several times in one call, whose last output is taken; if
            NaN or infinity is in the model's weights or comes out of a layer; if the range of the
            images cannot be the one that the model was trained on.
    """
    images = layers.check_images(model, images)
    if layer_names is None:
        chosen = layers.named_layers(model)
    else:
        chosen = layers.find_layers(model, layer_names)

    def make(get_model):
        @tf.function(autograph=False, input_signature=[layers.image_spec(images)])
        def activations(batch):
            model = get_model()
            _, outputs = layers.call_and_record(model, batch, chosen)
            if layer_names is None:
                maps = layers.feature_maps(model, outputs)
                _warn_of_several({path: len(outputs[path]) for path in maps})
            else:
                maps = {path: layers.required_output(outputs, path) for path in chosen}
            order[:] = maps
            maps = [tf.cast(y, tf.float32) for y in maps.values()]
            sums = [tf.reduce_sum(y, range(1, y.shape.rank)) for y in maps]
            return maps, sums, layers.squared_weights(model)

        order = []
        return activations.get_concrete_function(), order

    key = ("activations", None if layer_names is None else tuple(chosen), images.shape[1:])
    function, order = layers.traced(model, key, make)
    layers.check_range(model, images)
    maps, sums, squares = layers.in_batches(function, images)
    if broken := layers.broken_layer(model, squares):
        message = f"the weights of layer '{broken}' hold NaN or infinity"
        warnings.warn(message, stacklevel=2)
    else:
        _warn_of_infinity(zip(order, maps, sums, strict=True))
    return dict(zip(order, maps, strict=True))


def _warn_of_several(calls):
    """Say which layers are used several times in one call; `calls` counts by path."""
    several = ", ".join(f"'{path}' ({count} times)" for path, count in calls.items() if count > 1)
    if several:
        warnings.warn(
            "layers are used several times in one call, and the last output of each is taken: "
            f"{several}",
            stacklevel=2,
        )


def _warn_of_infinity(recorded):
    """Name the first layer out of which something comes that is not finite.

    The sums tell, which the graph has at hand: every number is looked at only where they are not
    finite, which large numbers can bring about too.
    """
    for path, maps, sums in recorded:
        if not (np.isfinite(sums).all() or np.isfinite(maps).all()):
            warnings.warn(
                f"NaN or infinity comes out of layer '{path}', the first of these in which it is",
                stacklevel=3,
            )
            return
