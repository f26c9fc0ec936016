"""Warn a person where they called this package, and once for each reason."""

import contextlib
import re
import sys
import warnings
from pathlib import Path

# This package, with the separator at its end, and what calls the end of a `with` block.
INSIDE = str(Path(__file__).parents[1] / "_")[:-1], contextlib.__file__


def warn(message):
    """As `warnings.warn(message, UserWarning)`, at the line outside of this package that called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@contextlib.contextmanager
def warn_once():
    """Collect the warnings of a `with` block; give each once, whatever numbers are in it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in {
        re.sub(r"(?<!\w)[-+]?\d[.\d]*(e[-+]?\d+)?", "#", str(w.message)): w for w in caught
    }.values():
        warn(message.message)
