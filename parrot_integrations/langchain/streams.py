"""Chunks of streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def again(chunks: Sequence[T]) -> AsyncIterator[T]:
    """Yield chunks that were taken from another stream."""
    for chunk in chunks:
        yield chunk


def added(chunks: Sequence[Any]) -> Any:
    """Return the sum of chunks; like LangChain, the last one where they do not add up."""
    total = chunks[0]
    for chunk in chunks[1:]:
        try:
            total = total + chunk
        except TypeError:
            total = chunk
    return total
