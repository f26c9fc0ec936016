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
from cnnviz.figures.tiles import filter_tiles
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
    place of one. A convolution without an activation is shown behind the activation that follows
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
        image_size: Side length of the filter images; see `ascend_filters`, as for `steps`.
        steps: Steps of the ascent; fewer are faster.
        output_name, input_name, target: What to explain, and in which input: see `grad_cam`.

    Example:
        >>> pets = cnnviz.drawn_pets(2, image_size=32)
        >>> controls = cnnviz.explore(model, pets.images, labels=pets.labels, steps=2)
        Figure(...)
    """
    inputs = layers.all_images(model, images, fewest=1)
    images = layers.only_image_of(model, inputs, input_name)
    maps = extract_activations(model, layers.take(inputs, slice(1)))
    channels = {name: y.shape[3] for name, y in maps.items() if y.shape[1:3] != (1, 1)}
    if not channels:
        raise ValueError(f"`model` (='{model.name}') has no feature map larger than 1x1")
    class_probabilities = functools.partial(layers.class_probabilities, output_name=output_name)
    classes, name_of = 0, functools.partial(style.class_name, class_names)
    with contextlib.suppress(Exception):  # the figure says why there are no classes
        classes = class_probabilities(model, layers.take(inputs, slice(1))).shape[1]
    titles = [f"image {index}" for index in range(len(images))]
    if labels is not None:
        labels = map(name_of, layers.class_indices(labels, len(images)))
        titles = [f"{title}: {name}" for title, name in zip(titles, labels, strict=True)]
    best = [name for name in layers.convolution_layers(model) if name in channels] or [*channels]
    options = {
        "image": [(title, index) for index, title in enumerate(titles)],
        "layer": list(channels),
        "channel": [("strongest", -1), *((str(n), n) for n in range(max(channels.values())))],
        "heat map": list(METHODS),
        "for class": [("predicted", None), *((name_of(n), n) for n in range(classes))],
        "signed": [("no", False), ("yes", True)],
    }
    menus = [widgets.Dropdown(options=each, description=name) for name, each in options.items()]
    menus[1].value = best[-1]
    box = widgets.HBox(menus, layout={"flex_flow": "row wrap"})

    @style.styled
    def draw(model):
        index, layer, channel, method, class_index, signed = (menu.value for menu in menus)
        image, given = images[[index]], layers.take(inputs, slice(index, index + 1))
        options = {"key": ("channels", layer), "record": layers.one_layer(layer), "finite": False}
        compute = functools.partial(layers.filter_map, path=layer, purpose="a channel")
        (maps,), _ = layers.run(
            model, given, lambda call: (compute(call), None), input_name=input_name, **options
        )
        maps = np.float32(maps)  # of any precision
        strongest = int(maps.mean((0, 1)).argmax())
        channel = strongest if channel < 0 else min(channel, maps.shape[-1] - 1)
        maps = maps[..., channel]
        scale = {"vmin": min(0, maps.min()), "vmax": max(1e-6, maps.max())}
        (pixels,) = style.to_units(image, value_range)
        gray = np.full_like(pixels, style.NOTHING_TO_SEE)
        panels = [(pixels, titles[index]), (maps, f"{layer}, channel {channel}", scale)]
        panels += [(gray, "what excites it"), (gray, method)]
        with _errors_told(panels, 0):
            (found,) = class_probabilities(model, given)
            words = f"{name_of(found.argmax())} {found.max():.1%}"
            panels[0] = pixels, f"{titles[index]}; predicted: {words}"
        with _errors_told(panels, 2):
            ascent = {"image_size": image_size, "steps": steps, "value_range": value_range}
            found = ascend_filters(model, layer, channel, input_name=input_name, **ascent)
            words = f"{found.verdicts[0]}, activation {found.activations[0]:.2g}"
            panels[2] = filter_tiles(found)[0], f"what excites it: {words}"
        with _errors_told(panels, 3):
            what = {"class_index": class_index} if target is None else {"target": target}
            what |= {"output_name": output_name, "input_name": input_name, "method": method}
            found = grad_cam(model, given, signed=signed, class_names=class_names, **what)
            words = f"{style.explained_name(found, 0)}: {found.verdicts[0]}"
            words = f"{method} for {words}, score {found.scores[0]:+.2f}"
            panels[3] = overlay(pixels, found.maps[0]), words
        figure = style.draw_grid([panels], 2.1)
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


@contextlib.contextmanager
def _errors_told(panels, place):
    """Add the words of an error to the title of a panel."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # no progress bars
            yield
    except Exception as error:  # whatever a person's model raises, that person reads
        array, title = panels[place]
        panels[place] = array, f"{title}; {type(error).__name__}: {error}"
