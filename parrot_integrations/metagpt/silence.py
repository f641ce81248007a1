"""Streams whose timeout is that of OpenAI's client: the longest silence between two pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from parrot_integrations.errors import WaitTimeout

T = TypeVar("T")


async def unless_silent(
    pieces: AsyncGenerator[T, None], timeout_s: float
) -> AsyncGenerator[T, None]:
    """Yield the pieces of a stream, and close it when none comes for too long.

    Raises:
        WaitTimeout: None came within ``timeout_s`` seconds.
    """
    async with aclosing(pieces):
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError as exc:
                message = f"nothing came for {timeout_s:g} s; the call was given up"
                raise WaitTimeout("stream_timeout", message) from exc
            yield piece
