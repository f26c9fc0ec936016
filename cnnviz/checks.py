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
    """Check which of `n_indices` filters or classes are chosen; None takes all.

    Args:
        name: The argument's name, for the error.
        indices: An integer, a sequence of integers, or None.
        n_indices: How many there are.
        owner: Whose they are, such as "layer 'conv1'", for the error.

    Returns:
        (F,) integer array.

    Raises:
        ValueError: If one of them does not exist, or there is none.
    """
    given = indices
    try:
        indices = np.arange(n_indices) if given is None else np.atleast_1d(given)
    except ValueError:  # lists of different lengths
        indices = np.empty(0)
    if indices.dtype.kind not in "iu" or indices.ndim != 1 or not len(indices):
        raise ValueError(f"`{name}` (={given!r}) must be integers, one or more, or None for all")
    for wrong in indices[(indices < 0) | (indices >= n_indices)]:
        raise ValueError(f"`{name}` (={wrong}) must be in [0, {n_indices}) for {owner}")
    return indices
