"""Brings arguments into one form, or raises an error that says what would be right."""

import numpy as np


def check_integer(name, value, least):
    """Raise a ValueError that names the argument unless it is an integer of `least` or more."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and value >= least):
        raise ValueError(f"`{name}` (={value!r}) must be an integer, {least} or more")


def whole_numbers(values):
    """Integers of the same shape, or None if one of the values is not a whole number."""
    try:
        values = np.asarray(values)
    except ValueError:  # lists of different lengths
        return None
    if values.dtype.kind not in "iufb" or not np.all(np.isfinite(values)):
        return None
    return values.astype(int) if np.all(values == np.trunc(values)) else None


def check_indices(name, indices, n_indices, owner):
    """(F,) integers below `n_indices`: some filters or classes of `owner`; None takes all."""
    try:
        chosen = np.arange(n_indices) if indices is None else np.atleast_1d(indices)
    except ValueError:  # lists of different lengths
        chosen = np.empty(0)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1 or not len(chosen):
        raise ValueError(f"`{name}` (={indices!r}) must be integers, one or more, or None for all")
    for wrong in chosen[(chosen < 0) | (chosen >= n_indices)]:
        raise ValueError(f"`{name}` (={wrong}) must be in [0, {n_indices}) for {owner}")
    return chosen
