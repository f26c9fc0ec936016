"""(model, images) -> controls in a notebook: picture, layer, channel, method, and what is seen."""

import base64
import contextlib
import html
import io
from collections.abc import Sequence

import ipywidgets as widgets
import keras
from IPython.display import display
from numpy.typing import ArrayLike

from cnnviz import figures, layers
from cnnviz.activations import extract_activations
from cnnviz.descriptions import name_of_class
from cnnviz.filter_ascent import ascend_filters
from cnnviz.grad_cam import METHODS, grad_cam

# The figure also stands in the notebook as a picture, for where no kernel runs. Live controls are
# the output below it, show it themselves and hide that copy; when they go, so does the rule.
HIDE_STATIC = (
    "<style>.jp-OutputArea-child:has(+ .jp-OutputArea-child .cnnviz-explorer)"
    "{display: none}</style>"
)


def explore(
    model: keras.Model,
    images: ArrayLike,
    *,
    class_names: Sequence[str] = (),
    value_range: tuple[float, float] = (0, 255),
    image_size: int | tuple[int, int] | None = None,
    steps: int = 30,
    output_name: str | int | None = None,
) -> "Explorer":
    """Look into a model in a notebook: choose picture, layer, channel and Grad-CAM method.

    Shows the picture, the feature map of that channel, the picture that excites it (computed when
    it is asked for, and kept), and where the evidence for the predicted class lies, at the layer
    that `grad_cam` takes by default. A new layer starts with the channel that answers most. Where
    no kernel runs, on a page made by nbconvert or on a code host, the first figure stays.

    Args:
        model: keras.Model of any kind with one input; it is left as it was.
        images: (N, H, W, C) or (H, W, C), in the model's input range; 1 or more.
        class_names: The classes' names, by index; others are numbered.
        value_range: Lowest and highest pixel value that the model takes.
        image_size: Side length of the ascended pictures; see `ascend_filters`, as for `steps`.
        steps: Steps of the ascent; fewer are faster.
        output_name: The output to explain, of a model with several: see `grad_cam`.

    Returns:
        Explorer: Jupyter shows it where it is the last line of a cell.

    Raises:
        ValueError: If the images do not fit the model, or no layer puts out feature maps larger
            than 1x1. What goes wrong later is said in place of what cannot be shown.
    """
    images = layers.check_images(model, images, fewest=1).copy()  # it looks at them later on, too
    if image_size is None and not any(layers.input_shape(model)):
        image_size = images.shape[1:3]  # a subclassed model says of no other size that it takes it
    ascent = {"image_size": image_size, "steps": steps, "value_range": value_range}
    return Explorer(model, images, class_names, ascent, output_name)


class Explorer:
    """The controls of `explore`, and what they show.

    Attributes:
        picture, layer, channel, method: The controls, ipywidgets; setting a `value` is choosing.
        feature_map: (h, w) float32, what the chosen channel puts out.
        ascended: FilterImages of the chosen channel alone, or the words of an error.
        evidence: GradCAM of the chosen picture alone, or the words of an error.
        figure: Figure of all these, as `figures.draw_exploration` draws it.
        message: ipywidgets.HTML, what is being computed or what went wrong.
    """

    def __init__(self, model, images, class_names, ascent, output_name):
        self._model, self._images, self._class_names = model, images, class_names
        self._ascent, self._head = ascent, {"output_name": output_name}
        self._known, self._chosen, self._maps = {}, None, {}
        names = list(self._feature_maps(0))
        if not names:
            raise ValueError(f"`model` (='{model.name}') has no feature map larger than 1x1")
        best = [name for name in layers.convolution_layers(model) if name in names] or names
        look = {"layout": {"width": "244px"}, "style": {"description_width": "70px"}}
        self.picture = widgets.Dropdown(options=range(len(images)), description="picture", **look)
        self.layer = widgets.Dropdown(options=names, value=best[-1], description="layer", **look)
        self.channel = widgets.IntSlider(description="channel", continuous_update=False, **look)
        self.method = widgets.Dropdown(options=list(METHODS), description="heat map", **look)
        self.message = widgets.HTML()
        self._view = widgets.HTML()
        self._choose_channel()
        self._update()
        for control in self._controls():
            control.observe(self._update, "value")

    def _controls(self):
        return self.picture, self.layer, self.channel, self.method

    def _feature_maps(self, picture):
        """{layer: (h, w, C)} of one picture, in one pass; kept until another picture is chosen."""
        if picture not in self._maps:
            found = extract_activations(self._model, self._images[picture])
            self._maps = {
                picture: {n: maps[0] for n, maps in found.items() if maps.shape[1:3] != (1, 1)}
            }
        return self._maps[picture]

    def _choose_channel(self):
        """Offer the channels of the chosen layer, and choose the one that answers most."""
        means = self._feature_maps(self.picture.value)[self.layer.value].mean((0, 1))
        strongest = int(means.argmax())
        self.channel.max = max(self.channel.max, strongest)  # before a value above the old one
        self.channel.value = strongest
        self.channel.max = len(means) - 1

    def _update(self, change=None):
        """Compute what is chosen now, as far as it is not known, and show it."""
        if change is not None and change.owner is self.layer:
            self._choose_channel()  # which may come back here
        chosen = picture, layer, channel, method = [each.value for each in self._controls()]
        if chosen == self._chosen:
            return
        self.message.value = "computing &hellip;"
        images = self._images[picture : picture + 1]
        self.feature_map = self._feature_maps(picture)[layer][..., channel]
        self.ascended = self._once((layer, channel), ascend_filters, layer, channel, **self._ascent)
        self.evidence = self._once((picture, method), grad_cam, images, method=method, **self._head)
        answer = self._once((picture,), layers.class_probabilities, images, **self._head)
        title, class_name = f"picture {picture}", ""
        if not isinstance(answer, str):
            title += f": {self._name(answer[0].argmax())} {answer[0].max():.1%}"
        if not isinstance(self.evidence, str):
            class_name = self._name(self.evidence.class_index[0])
        self.figure = figures.draw_exploration(
            images[0], self.feature_map, self.ascended, self.evidence, title=title,
            layer_name=layer, channel=channel, class_name=class_name,
            value_range=self._ascent["value_range"],
        )  # fmt: skip
        file = io.BytesIO()
        self.figure.savefig(file, format="png")
        self._png = base64.b64encode(file.getvalue()).decode()
        errors = [part for part in (self.ascended, self.evidence) if isinstance(part, str)]
        self.message.value = "<br>".join(map(html.escape, errors))
        self._chosen = chosen
        if self._view.value:
            self._show()

    def _once(self, key, function, *arguments, **options):
        """What a function finds out about the model, kept for `key`; or the words of an error."""
        key = function, *key
        if key not in self._known:
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # no bars of progress
                    self._known[key] = function(self._model, *arguments, **options)
            except Exception as error:  # whatever a person's model raises, that person reads
                return f"{type(error).__name__}: {error}"
        return self._known[key]

    def _name(self, index):
        return name_of_class(self._class_names, index)

    def _show(self):
        """Draw the figure in the live page."""
        source = f"data:image/png;base64,{self._png}"
        alt = html.escape(self.figure.alt)
        picture = f'<img alt="{alt}" style="max-width: 100%" src="{source}">'
        self._view.value = HIDE_STATIC + picture

    def _ipython_display_(self):
        static = {"image/png": self._png, "text/plain": "Explorer"}
        display(static, raw=True, metadata={"image/png": {"alt": self.figure.alt}})
        # Empty until a page with a kernel behind it draws it: a dead page gets no dead controls.
        box = widgets.VBox().add_class("cnnviz-explorer")
        box._view_count = 0
        box.observe(lambda change: self._fill(box), "_view_count")
        display(box._repr_mimebundle_() | {"text/plain": ""}, raw=True)

    def _fill(self, box):
        self._show()
        controls = widgets.HBox(self._controls(), layout={"flex_flow": "row wrap"})
        box.children = controls, self.message, self._view
