"""Speed of this machine, measured once, and time limits scaled by it."""

import os
import time
from functools import cache

# The work of one measurement, and its duration on an idle machine with two cores.
_ADDITIONS = 2_000_000
_REFERENCE_DURATION_S = 0.1
# A test that never ends is reported within pytest's timeout, however slow the machine is.
_MAX_FACTOR = 4.0
_FACTOR_VARIABLE = "TESTS_SLOWNESS_FACTOR"


@cache
def slowness_factor() -> float:
    """Return the duration of some work on this machine, divided by its duration on the reference: from 1 to 4.

    A machine is slow because of its processor, or because other programs use it. The first call of a test run measures;
    the workers, which would slow each other, inherit its result.
    """
    if _FACTOR_VARIABLE not in os.environ:
        started_at = time.perf_counter()
        sum(number * number for number in range(_ADDITIONS))
        measured = (time.perf_counter() - started_at) / _REFERENCE_DURATION_S
        os.environ[_FACTOR_VARIABLE] = f"{min(max(measured, 1.0), _MAX_FACTOR):.2f}"
    return float(os.environ[_FACTOR_VARIABLE])


def scaled(seconds: float) -> float:
    """Return a time limit for this machine from the limit for the reference machine, both in seconds."""
    return seconds * slowness_factor()
