"""Taking back what ``nest_asyncio`` did to asyncio.

Semantic Kernel applies it for the first function that a Handlebars template invokes, and for good:
tasks are of another class from then on, and the framework's own orchestrations fail in that
process. Without this, a test's result would depend on the tests before it.
"""

from __future__ import annotations

import asyncio
from asyncio import events, futures, tasks
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOOP = asyncio.SelectorEventLoop
_POLICY = type(asyncio.get_event_loop_policy())
_MISSING = object()

#: Whose attributes are replaced, and which. What else is added to loops does no harm.
_PATCHED: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (asyncio, ("Task", "Future", "run", "get_event_loop", "_nest_patched")),
    (tasks, ("Task", "_CTask")),
    (futures, ("Future", "_CFuture")),
    (events, ("get_event_loop", "_get_event_loop")),
    (_POLICY, ("get_event_loop",)),
    (_LOOP, ("run_forever", "run_until_complete", "_run_once", "_check_running", "_nest_patched")),
)


@contextmanager
def unpatched_asyncio() -> Iterator[None]:
    """Have asyncio after a block as it was before it."""
    before = [
        (owner, name, vars(owner).get(name, _MISSING))
        for owner, names in _PATCHED
        for name in names
    ]
    try:
        yield
    finally:
        for owner, name, value in before:
            if value is not _MISSING:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)
