"""Replies of the fake server as httpx wants them: JSON, errors, and streams of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx

from parrot_backend.protocol import (
    StreamReset,
    StreamToken,
    SubmitReply,
    VariableView,
    WireModel,
)

#: How often waiting requests look for news.
TICK_S = 0.002

_EVENT_OF: dict[type[WireModel], str] = {
    SubmitReply: "session",
    StreamToken: "token",
    StreamReset: "reset",
    VariableView: "variable",
}


def error_reply(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Return an error as the server words it."""
    body = {"error": {"code": code, "message": f"told {code}", "context": {"limit": 1}}}
    return httpx.Response(status, json=body, headers=headers)


def model_reply(model: WireModel) -> httpx.Response:
    return httpx.Response(200, content=model.model_dump_json())


def event_bytes(data: WireModel) -> bytes:
    return f"event: {_EVENT_OF[type(data)]}\ndata: {data.model_dump_json()}\n\n".encode()


def stream_reply(content: Iterator[bytes] | AsyncIterator[bytes]) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=content)


def blocking(parts: Iterator[bytes | None]) -> Iterator[bytes]:
    """Yield the parts; None is a pause."""
    for part in parts:
        if part is None:
            time.sleep(TICK_S)
        else:
            yield part


async def awaiting(parts: Iterator[bytes | None]) -> AsyncIterator[bytes]:
    """Yield the parts; None is a pause."""
    for part in parts:
        if part is None:
            await asyncio.sleep(TICK_S)
        else:
            yield part
