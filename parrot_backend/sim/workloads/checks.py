"""What is wrong with a workload, said once and clearly."""

from __future__ import annotations

import math

#: No text of a prompt or an output is longer; a longer one is a slip, and would fill the memory.
MAX_TOKENS = 10_000_000


class WorkloadError(ValueError):
    """A workload cannot be made as it was asked for.

    Args:
        code: ``unknown_app``, ``unknown_parameter``, ``invalid_parameter`` or ``invalid_program``.
        message: What is wrong, and what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def positive(name: str, value: float) -> float:
    """Return the value.

    Raises:
        WorkloadError: It is not a finite number above zero.
    """
    if not (math.isfinite(value) and value > 0):
        raise WorkloadError("invalid_parameter", f"{name} must be above zero, not {value}")
    return value


def at_least(name: str, value: int, least: int) -> int:
    """Return the value.

    Raises:
        WorkloadError: It is smaller than the least that makes sense.
    """
    if value < least:
        raise WorkloadError("invalid_parameter", f"{name} must be at least {least}, not {value}")
    return value
