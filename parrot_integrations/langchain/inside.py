"""What is inside a runnable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable


def calls_models(runnable: Runnable[Any, Any]) -> bool:
    """Tell whether a runnable holds a language model, as far as can be seen from outside."""
    seen: set[int] = set()
    pending: list[Any] = [runnable]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseLanguageModel):
            return True
        if id(one) not in seen:
            seen.add(id(one))
            pending.extend(_parts(one))
    return False


def _parts(one: Any) -> Iterator[Any]:
    if isinstance(one, Runnable):
        yield from vars(one).values()
        yield from getattr(one, "deps", ())  # what a function's closure holds
    elif isinstance(one, Mapping):
        yield from one.values()
    elif isinstance(one, list | tuple):
        yield from one
