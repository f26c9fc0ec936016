"""Shows a progress bar where a person sees it: in a terminal or a notebook."""

import io
import sys
from types import SimpleNamespace

import IPython
import tqdm


def in_notebook():
    """Whether this runs in a notebook's kernel, where a cell's output can be drawn again."""
    return hasattr(IPython.get_ipython(), "kernel")


def progress_bar(total, description, unit):
    """A `tqdm` bar for a `with` block that leaves nothing behind; `description` None shows none."""
    file, disable = sys.stdout, description is None or not sys.stdout.isatty()
    if description and in_notebook() and not isinstance(file, io.StringIO):  # nobody sees that
        # A line that is written over: what tqdm does in notebooks leaves an empty line or widget.
        line = IPython.display.display({}, raw=True, display_id=True)

        def write(text):
            line.update({"text/plain": text.strip()} if text.strip() else {}, raw=True)

        file, disable = SimpleNamespace(write=write, flush=lambda: None), False
    bar = {"unit": unit, "file": file, "disable": disable, "leave": False}
    return tqdm.tqdm(total=total, desc=description, **bar)
