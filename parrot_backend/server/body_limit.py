"""ASGI middleware that reads the body of a request, up to a limit, before anything else sees it.

A longer body is answered with 413, whether its length was announced or it comes in chunks. Bodies
are JSON and are parsed as a whole anyway, so reading them first costs no memory. What comes after
the limit is read and thrown away for a while: a connection that is closed with unread data is
reset, and the client would never see the answer.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parrot_backend.errors import RequestError
from parrot_backend.metrics.prometheus import PrometheusMetrics
from parrot_backend.server.error_handlers import error_response

_METHODS_WITH_BODY = ("POST", "PUT", "PATCH")

_MAX_LENGTH_DIGITS = 15

#: How much, and how long, is thrown away for a client to see its answer.
_MAX_DISCARDED_BYTES = 64 * 2**20
_MAX_DISCARD_S = 5.0


class BodyLimit:
    """Middleware.

    Args:
        app: What comes next.
        max_bytes: Longest body that is let through.
        metrics: Counts the refusals.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, metrics: PrometheusMetrics) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 or pass the request on with its body in one piece."""
        if scope["type"] != "http" or scope["method"] not in _METHODS_WITH_BODY:
            await self._app(scope, receive, send)
        elif self._is_announced_too_long(scope):
            await discard_body(receive)
            await self._refuse(scope, receive, send)
        elif (message := await self._read(receive)) is None:
            await self._refuse(scope, receive, send)
        elif message["type"] == "http.request":
            await self._app(scope, _replay(message, receive), send)
        # Else the client has left before the end of the body: nobody reads an answer.

    def _is_announced_too_long(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"content-length":
                return len(value) > _MAX_LENGTH_DIGITS or (
                    value.isdigit() and int(value) > self._max_bytes
                )
        return False

    async def _read(self, receive: Receive) -> Message | None:
        """Return the request's messages as one, or None when the body is too long.

        A client that leaves before the end of the body gives the message that says so.
        """
        chunks: list[bytes] = []
        num_bytes = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            chunk = message.get("body", b"")
            has_more = message.get("more_body", False)
            num_bytes += len(chunk)
            if num_bytes > self._max_bytes:
                if has_more:
                    await discard_body(receive)
                return None
            chunks.append(chunk)
            if not has_more:
                return {"type": "http.request", "body": b"".join(chunks), "more_body": False}

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = RequestError(
            "body_too_large",
            f"the body is longer than {self._max_bytes} bytes",
            limit_bytes=self._max_bytes,
        )
        self._metrics.count_error(error.code)
        # What is left of the body is not read, so the connection cannot be used again.
        reply = error_response(error, scope["path"], {"Connection": "close"})
        await reply(scope, receive, send)


async def discard_body(receive: Receive) -> None:
    """Read what is left of a request's body for a while, and throw it away."""
    num_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_MAX_DISCARD_S):
            while num_bytes <= _MAX_DISCARDED_BYTES:
                message = await receive()
                num_bytes += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _replay(first: Message, receive: Receive) -> Receive:
    pending = [first]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
