"""Streams that are left before their end: event loops that do not care for them are made to."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Closer:
    """Closes generators of a loop that were collected before their end, as the loop itself would.

    Attributes:
        loop: Where they ran.
    """

    loop: asyncio.AbstractEventLoop

    def __call__(self, left: AsyncGenerator[Any, Any]) -> None:
        """Close one; it may be collected in another thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.create_task, left.aclose())


def have_left_streams_closed() -> None:
    """Make sure that asynchronous generators of the running loop are closed when they are left.

    Event loops do that, and httpx relies on it to end connections. ``nest_asyncio``, which Semantic
    Kernel applies for templates that call functions, replaces their ``run_until_complete`` by one
    that does not. A call would then go on on the server, for nobody.
    """
    known, ours = sys.get_asyncgen_hooks().finalizer, _Closer(asyncio.get_running_loop())
    if known is None or (isinstance(known, _Closer) and known != ours):
        sys.set_asyncgen_hooks(finalizer=ours)
