"""Look into a model in a notebook, with controls."""

from __future__ import annotations

import contextlib
import functools
import io
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from IPython.display import display

from cnnviz import layers
from cnnviz.activations import extract_activations
from cnnviz.figures import style
from cnnviz.figures.heat_maps import overlay
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import METHODS, grad_cam
from cnnviz.targets import Target


def explore(
    model: keras.Model,
    images: layers.ImageData,
    *,
    class_names: Sequence[str] = (),
    labels: Sequence[int] | None = None,
    value_range: tuple[float, float] = (0, 255),
    image_size: int | tuple[int, int] | None = None,
    steps: int = 30,
    output_name: str | int | None = None,
    input_name: str | int | None = None,
    target: Target | Callable[[Any], tf.Tensor] | None = None,
) -> widgets.Box:
    """Look into a model in a notebook: choose image, layer, channel, class and Grad-CAM method.

    Returns the controls, to be the last line of a cell. The figure above them shows the image, the
    feature map of the channel, what excites it, and the evidence for the class, or the error in
    place of one. A convolution without an activation is shown after the activation that follows
    it. Each choice computes all of them, so new weights count. Without a running kernel, the last
    figure stays. The controls live as long as the model, and do not keep it alive.

    Args:
        model: keras.Model of any kind that takes images, in a variable; it is left as it was.
            Without a feature map larger than 1x1, it is a ValueError.
        images: (N, H, W, C) or (H, W, C), in the model's input range, or what else `grad_cam`
            takes; 1 or more.
        class_names: The classes' names, by index; others are numbered.
        labels: (N,) integers, the true classes, to stand over the images; or None.
        value_range: Lowest and highest pixel value that the model takes.
        image_size, steps: Of the filter images: see `ascend_filters`.
        output_name, input_name, target: What to explain, and in which input: see `grad_cam`.

    Example:
        >>> pets = cnnviz.drawn_pets(2, image_size=32)
        >>> controls = cnnviz.explore(cnnviz.load_pretrained(), pets.images, steps=2)
        Figure(...)
    """
    inputs = layers.all_images(model, images, fewest=1)
    images = layers.only_image_of(model, inputs, input_name)
    first, n_classes = layers.take(inputs, slice(1)), 0
    maps = extract_activations(model, first)
    channels = {name: y.shape[3] for name, y in maps.items() if y.shape[1:3] != (1, 1)}
    if not channels:
        raise ValueError(f"`model` (='{model.name}') has no feature map larger than 1x1")
    with contextlib.suppress(Exception):  # the figure says why there are no classes
        n_classes = layers.class_probabilities(model, first, output_name=output_name).shape[1]
    titles, names = [f"image {index}" for index in range(len(images))], style.class_name
    if labels is not None:
        labels = layers.class_indices(labels, len(images))
        titles = [f"{t}: {names(class_names, n)}" for t, n in zip(titles, labels, strict=True)]
    options = {
        "image": [(title, index) for index, title in enumerate(titles)],
        "layer": list(channels),
        "channel": [("strongest", None), *((str(n), n) for n in range(max(channels.values())))],
        "heat map": list(METHODS),
        "for class": [("predicted", None)]
        + [(names(class_names, index), index) for index in range(n_classes)],
        "signed": [("no", False), ("yes", True)],
    }
    menus = [widgets.Dropdown(options=each, description=name) for name, each in options.items()]
    menus[1].value = list(channels)[-1]
    box = widgets.HBox(menus, layout={"flex_flow": "row wrap"})

    @style.styled
    def draw(model):
        index, layer, channel, method, class_index, signed = (menu.value for menu in menus)
        given = layers.take(inputs, slice(index, index + 1))
        options = {"key": ("channels", layer), "record": layers.one_layer(layer), "finite": False}
        compute = functools.partial(_feature_map, layer=layer)
        (maps,), _ = layers.run(model, given, compute, input_name=input_name, **options)
        strongest = int(maps.mean((0, 1)).argmax())
        channel = strongest if channel is None else min(channel, maps.shape[-1] - 1)
        maps = maps[..., channel]
        scale = {"vmin": min(0, maps.min()), "vmax": max(1e-6, maps.max())}
        (pixels,) = style.to_units(images[[index]], value_range)

        def excites():
            ascent = {"image_size": image_size, "steps": steps, "value_range": value_range}
            found = ascend_filters(model, layer, channel, input_name=input_name, **ascent)
            (image,) = style.to_units(found.images, value_range)
            return image, f"{found.verdicts[0]}, activation {found.activations[0]:.2g}"

        def evidence():
            what = {"class_index": class_index} if target is None else {"target": target}
            what |= {"output_name": output_name, "input_name": input_name, "method": method}
            found = grad_cam(model, given, class_names=class_names, signed=signed, **what)
            words = f"{style.explained_name(found, 0)}, {found.verdicts[0]}"
            return overlay(pixels, found.maps[0]), f"{words}, score {found.scores[0]:+.2f}"

        panels = [(pixels, titles[index]), (maps, f"{layer}, channel {channel}", scale)]
        for title, compute in (("what excites it", excites), (method, evidence)):
            image, words = _tried(compute, np.ones_like(pixels))
            panels.append((image, f"{title}: {words}"))
        figure = style.draw_grid(panels, 4)
        plt.close(figure)
        return figure

    def update(change):
        model = get_model()
        if model is not None and handle is not None:
            handle.update(draw(model))

    get_model = weakref.ref(model)  # ipywidgets keeps what observes its controls
    handle = display(draw(model), display_id=True)
    for menu in menus:
        menu.observe(update, "value")
    weakref.finalize(model, lambda: [control.close() for control in (*menus, box)]).atexit = False
    return box


def _feature_map(call, layer):
    return tf.cast(layers.filter_map(call, layer, "a channel"), tf.float32), None


def _tried(compute, instead):
    """An image and words: what a function returns, or its error."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # no progress bars
            return compute()
    except Exception as error:  # whatever a person's model raises, that person reads
        return instead, f"{type(error).__name__}: {error}"
