"""Has the C library (glibc) keep what a step frees for the next one; elsewhere it does nothing.

Memory that goes back to the system after every step has to be zeroed again in the next, which took
a fifth of the time of a training on two cores.
"""

import ctypes

# Options of mallopt, <malloc.h>.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def keep_freed():
    """Give nothing back to the system that was freed, as long as the process lasts."""
    _tell({MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**28})


def _tell(options):
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, value in options.items():
        mallopt(option, value)


# On import, before TensorFlow has threads: a step needs blocks of hundreds of megabytes, and the
# arenas that threads have of their own hold 64 (HEAP_MAX_SIZE) and get the rest from the system.
_tell({ARENA_MAX: 1})
