"""Streams that are left before their end: event loops that do not care for them are made to."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any


def have_left_streams_closed() -> None:
    """Make sure that an asynchronous generator of the running loop is closed when it is left.

    Event loops do that, and httpx relies on it to end connections. ``nest_asyncio``, which Semantic
    Kernel applies for templates that call functions, replaces ``asyncio.run`` by one that does not.
    A call would then go on on the server, for nobody.
    """
    if sys.get_asyncgen_hooks().finalizer is None:
        loop = asyncio.get_running_loop()

        def close(left: AsyncGenerator[Any, Any]) -> None:
            # It may be collected in another thread.
            if not loop.is_closed():
                loop.call_soon_threadsafe(loop.create_task, left.aclose())

        sys.set_asyncgen_hooks(finalizer=close)
