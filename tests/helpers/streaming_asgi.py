"""An HTTP transport into an ASGI application in the same process, piece by piece.

``httpx.ASGITransport`` gathers the whole reply before it returns; this one passes each piece on as
it is sent, tells the application when the client goes away, and turns an application that breaks
off into a broken connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

_END = object()


class StreamingASGITransport(httpx.AsyncBaseTransport):
    def __init__(self, app: Any) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        connection = _Connection(self._app, request, await request.aread())
        start = await connection.next_message()
        return httpx.Response(start["status"], headers=start["headers"], stream=connection)


class _Connection(httpx.AsyncByteStream):
    def __init__(self, app: Any, request: httpx.Request, body: bytes) -> None:
        self._request = request
        self._requests = [{"type": "http.request", "body": body, "more_body": False}]
        self._client_left = asyncio.Event()
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": ("127.0.0.1", 1),
            "server": (request.url.host, request.url.port),
        }
        self._task = asyncio.create_task(app(scope, self._receive, self._messages.put))
        self._task.add_done_callback(self._end)

    async def next_message(self) -> dict[str, Any]:
        message = await self._messages.get()
        if message is _END:
            raise httpx.RemoteProtocolError("connection lost", request=self._request)
        result: dict[str, Any] = message
        return result

    def _end(self, task: asyncio.Task[None]) -> None:
        self._messages.put_nowait(_END)
        if not task.cancelled():
            # The client hears of a lost connection, as from a real server, and of nothing else.
            task.exception()

    async def _receive(self) -> dict[str, Any]:
        if self._requests:
            return self._requests.pop()
        await self._client_left.wait()
        return {"type": "http.disconnect"}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self.next_message()
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        self._client_left.set()
        await asyncio.wait({self._task})
