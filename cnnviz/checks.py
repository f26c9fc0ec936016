"""(an argument's name, its value) -> nothing, or a ValueError that says what would be right."""

import numpy as np


def check_integer(name, value, least):
    """Raise a ValueError that names the argument unless it is an integer of `least` or more."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and value >= least):
        raise ValueError(f"`{name}` (={value!r}) must be an integer, {least} or more")
