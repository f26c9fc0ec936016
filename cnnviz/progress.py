"""(total, what is done) -> a progress bar where a person sees it: in a terminal or a notebook."""

import sys

import tqdm


def in_notebook():
    """Whether this runs in a notebook's kernel, where a cell's output can be drawn again."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def progress_bar(total, description, unit):
    """A `tqdm` bar on standard output; nothing at all where the output is a file or a pipe.

    It goes when all is done, so that a page made of a notebook is not full of them.

    Args:
        total: Number of units of work.
        description: What is being done, before the bar; None shows no bar.
        unit: The name of one unit.

    Returns:
        tqdm.tqdm, to be used in a `with` block.
    """
    seen = description is not None and (sys.stdout.isatty() or in_notebook())
    options = {"file": sys.stdout, "disable": not seen, "leave": False}
    return tqdm.tqdm(total=total, desc=description, unit=unit, **options)
