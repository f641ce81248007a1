"""AutoGen's cancellation tokens: giving up a call, or a stream between any two of its pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from autogen_core import CancellationToken

T = TypeVar("T")


async def unless_cancelled(work: Coroutine[Any, Any, T], token: CancellationToken | None) -> T:
    """Return what the work returns.

    Raises:
        CancelledError: The token was cancelled; the work was too.
    """
    if token is None:
        return await work
    task = asyncio.ensure_future(work)
    token.link_future(task)
    return await task


async def stream_unless_cancelled(
    events: AsyncGenerator[T, None], token: CancellationToken | None
) -> AsyncGenerator[T, None]:
    """Yield events; both ends, the token's and the reader's, close what they come from.

    Raises:
        CancelledError: The token was cancelled.
    """
    step: asyncio.Future[T] | None = None

    def cancel() -> None:
        if step is not None:
            step.cancel()

    if token is not None:
        # Once for the stream: tokens keep what is linked to them.
        token.add_callback(cancel)
    async with aclosing(events):
        while token is None or not token.is_cancelled():
            step = asyncio.ensure_future(_next_of(events))
            try:
                yield await step
            except StopAsyncIteration:
                return
    raise asyncio.CancelledError


async def _next_of(events: AsyncGenerator[T, None]) -> T:
    return await anext(events)
