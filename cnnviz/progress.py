"""Shows a progress bar where a person sees it: in a terminal or a notebook."""

import io
import sys

import tqdm


def in_notebook():
    """Whether this runs in a notebook's kernel, where a cell's output can be drawn again."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def progress_bar(total, description, unit):
    """A `tqdm` bar that leaves nothing behind; none where the output is a file or a pipe.

    Args:
        total: Number of units of work.
        description: What is being done, before the bar; None shows no bar.
        unit: The name of one unit.

    Returns:
        tqdm.tqdm, to be used in a `with` block.
    """
    if description is None:
        options = {"disable": True}
    elif in_notebook() and not isinstance(sys.stdout, io.StringIO):  # which nobody sees
        options = {"file": _NotebookLine()}
    else:
        options = {"file": sys.stdout, "disable": not sys.stdout.isatty()}
    return tqdm.tqdm(total=total, desc=description, unit=unit, leave=False, **options)


class _NotebookLine:
    """A line of a cell's output that is written over; written text would leave an empty line."""

    def __init__(self):
        from IPython.display import display

        self.handle = display({}, raw=True, display_id=True)

    def write(self, text):
        text = text.strip()
        self.handle.update({"text/plain": text} if text else {}, raw=True)

    def flush(self):
        """As `tqdm` asks of a file."""
