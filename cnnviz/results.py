"""What all results share: one line as text, and in Jupyter their sentences, table or figure."""

from __future__ import annotations

import dataclasses
import html
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnviz import figures

if TYPE_CHECKING:
    import pandas


class Result:
    """Base of the frozen dataclasses that the methods return.

    A result may say what it found in `__str__`, and give the rows of its table in `_columns`.
    Declare it with `@dataclasses.dataclass(frozen=True, eq=False, repr=False)`.
    """

    _html = ("to_frame",)  # what Jupyter shows below the sentences: "to_frame", "plot"
    _draw = ""  # the function of `figures` that draws it

    def __repr__(self) -> str:
        texts = []
        for name in (field.name for field in dataclasses.fields(self) if field.repr):
            value = getattr(self, name)
            text = f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)
            texts.append(f"{name}={textwrap.shorten(text, 60, placeholder=' ...')}")
        return f"{type(self).__name__}({', '.join(texts)})"

    def _columns(self):
        """One row of all fields that are single values, unless a result says otherwise."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: [value] for name, value in values.items() if np.ndim(value) == 0}

    def to_frame(self) -> pandas.DataFrame:
        """The rows of the result, as a table."""
        import pandas  # late: it takes half a second

        return pandas.DataFrame(self._columns())

    def plot(self, **options: Any) -> figures.DescribedFigure:
        """Draw the result; the options are those of its `draw_` function in `cnnviz.figures`."""
        if not self._draw:
            raise ValueError(f"{type(self).__name__} has no figure; print it")
        return getattr(figures, self._draw)(self, **options)

    def _repr_html_(self) -> str:
        parts, shown = (
            [f"<p>{html.escape(line)}</p>" for line in str(self).splitlines()],
            self._html,
        )
        try:
            figure = [figures.figure_html(self.plot())] if "plot" in shown else []
        except ValueError:  # as of signals and volumes: then a table
            figure, shown = [], ("to_frame",)
        if "to_frame" in shown:
            parts.append(self.to_frame().to_html(max_rows=20, float_format="{:.3g}".format))
        return "\n".join(parts + figure)
