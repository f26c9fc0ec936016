"""Look into a model in a notebook, with controls."""

from __future__ import annotations

import contextlib
import functools
import io
import weakref
from collections.abc import Sequence

import ipywidgets as widgets
import keras
import matplotlib.pyplot as plt
from IPython.display import display
from numpy.typing import ArrayLike

from cnnviz import figures, layers
from cnnviz.activations import extract_activations
from cnnviz.figures.heat_maps import draw_exploration
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import METHODS, grad_cam


def explore(
    model: keras.Model,
    images: ArrayLike,
    *,
    class_names: Sequence[str] = (),
    labels: Sequence[int] | None = None,
    value_range: tuple[float, float] = (0, 255),
    image_size: int | tuple[int, int] | None = None,
    steps: int = 30,
    output_name: str | int | None = None,
) -> widgets.Box:
    """Look into a model in a notebook: choose image, layer, channel, class and Grad-CAM method.

    Shows the image, the feature map of the channel, the image that excites it, and the evidence for
    the class. Each choice computes all of them, so new weights count. Without a running
    kernel, the last figure stays. The controls live as long as the model, and do not keep it alive.

    Args:
        model: keras.Model of any kind with one input, in a variable; it is left as it was.
        images: (N, H, W, C) or (H, W, C), in the model's input range; 1 or more.
        class_names: The classes' names, by index; others are numbered.
        labels: (N,) integers, the true classes, to stand over the images; or None.
        value_range: Lowest and highest pixel value that the model takes.
        image_size: Side length of the filter images; see `ascend_filters`, as for `steps`.
        steps: Steps of the ascent; fewer are faster.
        output_name: The output to explain, of a model with several: see `grad_cam`.

    Returns:
        Box of the controls, to be the last line of a cell: image, layer, channel, method, class,
        and whether to show evidence against it too. The figure appears above them.

    Raises:
        ValueError: If the images do not fit the model, or no layer outputs feature maps larger than
            1x1. Later errors stand in the figure, in place of what cannot be shown.

    Example:
        >>> pets = cnnviz.drawn_pets(2, image_size=32)
        >>> controls = cnnviz.explore(model, pets.images, labels=pets.labels, steps=2)
        Figure(...)
    """
    images = layers.check_images(model, images, fewest=1)
    if image_size is None and not any(layers.input_shape(model)):
        image_size = images.shape[1:3]  # a subclassed model says of no other size that it takes it
    found = extract_activations(model, images[:1])
    channels = {name: y.shape[3] for name, y in found.items() if y.shape[1:3] != (1, 1)}
    if not channels:
        raise ValueError(f"`model` (='{model.name}') has no feature map larger than 1x1")
    name_of = functools.partial(figures.class_name, class_names)
    found = _try(layers.class_probabilities, model, images[:1], output_name=output_name)
    classes = [] if isinstance(found, str) else range(found.shape[1])
    labels = [] if labels is None else map(name_of, layers.class_indices(labels, len(images)))
    titles = [f"image {index}" for index in range(len(images))]
    titles = [f"{title}: {name}" for title, name in zip(titles, labels, strict=False)] or titles
    best = [name for name in layers.convolution_layers(model) if name in channels] or [*channels]
    options = {
        "image": [(title, index) for index, title in enumerate(titles)],
        "layer": list(channels),
        "channel": [("strongest", -1), *((str(n), n) for n in range(max(channels.values())))],
        "heat map": list(METHODS),
        "for class": [("predicted", None), *((name_of(index), index) for index in classes)],
        "signed": [("no", False), ("yes", True)],
    }
    menus = [widgets.Dropdown(options=each, description=name) for name, each in options.items()]
    menus[1].value = best[-1]
    box = widgets.HBox(menus, layout={"flex_flow": "row wrap"})

    def draw(model):
        place, layer, channel, method, class_index, signed = (menu.value for menu in menus)
        image, title = images[place : place + 1], titles[place]
        maps = extract_activations(model, image, layer)[layer][0]
        strongest = int(maps.mean((0, 1)).argmax())
        channel = strongest if channel < 0 else min(channel, maps.shape[-1] - 1)
        found = _try(layers.class_probabilities, model, image, output_name=output_name)
        if not isinstance(found, str):
            title += f"; predicted: {name_of(found[0].argmax())} {found[0].max():.1%}"
        parts = [title, f"{layer}, channel {channel}", "what excites it", method]
        ascent = {"image_size": image_size, "steps": steps, "value_range": value_range}
        excites = _try(ascend_filters, model, layer, channel, **ascent)
        if not isinstance(excites, str):
            parts[2] += f": {excites.verdicts[0]}, activation {excites.activations[0]:.2g}"
        what = {"class_index": class_index, "method": method, "signed": signed}
        evidence = _try(grad_cam, model, image, output_name=output_name, **what)
        if not isinstance(evidence, str):
            score, verdict = evidence.scores[0], evidence.verdicts[0]
            parts[3] += f" for {name_of(evidence.class_index[0])}: {verdict}, score {score:+.2f}"
        shown = image[0], maps[..., channel], excites, evidence, parts, value_range
        figure = draw_exploration(*shown)
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
    controls = [*menus, box]
    weakref.finalize(model, lambda: [control.close() for control in controls]).atexit = False
    return box


def _try(function, *arguments, **options):
    """What a function returns, or the words of its error."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # no progress bars
            return function(*arguments, **options)
    except Exception as error:  # whatever a person's model raises, that person reads
        return f"{type(error).__name__}: {error}"
