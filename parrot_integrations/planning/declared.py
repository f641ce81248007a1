"""Functions of the user that were declared harmless."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__parrot_traceable__"


def traceable_step(function: F) -> F:
    """Declare that a function only puts texts together, so that plans may look through it.

    It is called once more for each plan, with stand-ins for generated texts: it must have no side
    effect and give the same for the same input. Where it looks into a text, it is left to the
    client, as without this.

        @traceable_step
        def join(summaries: list[str]) -> str:
            return "; ".join(summaries)
    """
    setattr(function, _MARK, True)
    return function


def is_traceable(function: Callable[..., Any]) -> bool:
    """Tell whether a function was declared harmless."""
    return getattr(function, _MARK, False) is True
