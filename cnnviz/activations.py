"""Record what each layer of a model outputs."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnviz import layers


def extract_activations(
    model: keras.Model, images: layers.ImageData, layer_names: str | Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Record what the layers of a model output for some images, all in one pass.

    Args:
        model: keras.Model of any kind; it is left as it was.
        images: (N, H, W, C) in the model's input range, or what else `grad_cam` takes.
        layer_names: One name or a sequence, also of layers inside nested models
            ("backbone/block_13_expand", or "block_13_expand" if that is unambiguous). None takes
            every layer that outputs feature maps (N, h, w, C), or tokens of a transformer, which
            become a map of their patches.

    Returns:
        dict[str, np.ndarray]: float32 outputs by the layer's path: in the order of `layer_names`,
        or in the order in which the model calls the layers.

    Raises:
        ValueError: If a layer is unknown, or not used, or the images do not fit the model.

    Warns:
        UserWarning: If a layer is used several times in one call, whose last output is taken; NaN
            or infinity is in the weights or comes out of a layer; or the value range is hardly that
            of the training.

    Example:
        >>> model, image = cnnviz.load_pretrained(), cnnviz.sample_image()
        >>> maps = cnnviz.extract_activations(model, image, "block1_conv1")
        >>> maps["block1_conv1"].ndim
        4
    """
    names = layers.as_names(layer_names)

    def choose(named):
        return named if names is None else layers.find_layers(named, names)

    def compute(call):
        if names is None:
            maps = layers.feature_maps(call)
            calls = {path: len(call.recorded[path]) for path in maps}
            if several := ", ".join(f"'{path}' ({n} times)" for path, n in calls.items() if n > 1):
                layers.warn(
                    "layers are used several times in one call, and the last output of each is "
                    f"taken: {several}"
                )
            maps = {path: layers.as_map(call, output)(output) for path, output in maps.items()}
        else:
            paths = layers.find_layers(call.named, names)
            maps = {path: layers.required_output(call, path) for path in paths}
        outputs = [tf.cast(output, tf.float32) for output in maps.values()]
        return (outputs, tf.range(tf.shape(call.images)[0])), list(maps)

    options = {"key": ("activations", repr(names)), "record": choose, "finite": False}
    (found, per_image), paths = layers.run(model, images, compute, **options)
    found = dict(zip(paths, found, strict=True))
    several = [path for path, maps in found.items() if len(maps) != len(per_image)]
    if several and names is not None:
        raise ValueError(
            f"`layer_names` (='{several[0]}') outputs several rows for an image: the layer folds "
            "windows or frames into the first axis; choose a layer before or after it"
        )
    broken = next((path for path, maps in found.items() if not np.isfinite(maps).all()), None)
    if broken is not None:
        layers.warn(f"NaN or infinity comes out of layer '{broken}', the first such layer")
    return {path: maps for path, maps in found.items() if path not in several}
