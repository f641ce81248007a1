"""Counting what the core does, so that tests of cost need no clock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tests.helpers.compiled import needs_python


def count_steps(action: Callable[[], object]) -> int:
    """Return how many lines of the server's code an action runs."""
    needs_python("no lines can be counted")
    steps = 0

    def count(_frame: FrameType, _event: str, _arg: Any) -> Any:
        nonlocal steps
        steps += 1
        return count

    def trace(frame: FrameType, _event: str, _arg: Any) -> Any:
        return count if "parrot_backend" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return steps


def growth(prepare: Callable[[int], Callable[[], object]], number: int) -> float:
    """Return how many times more steps an action takes on twice as much.

    Args:
        prepare: Makes an action for a size; what it does itself is not counted.
        number: The smaller of the two sizes.
    """
    return count_steps(prepare(2 * number)) / count_steps(prepare(number))
