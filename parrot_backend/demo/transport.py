"""A network with a delay: what a client in another city sees of a server on this machine.

A request arrives half a round trip after it was sent, and every piece of the reply arrives half a
round trip after the server sent it, in order. Bandwidth is not limited, and opening a connection
costs nothing extra, which favours programs that open many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx


class DelayingTransport(httpx.AsyncBaseTransport):
    """Delays requests and replies, and counts them.

    Args:
        round_trip_s: The delay of request and reply together.
        inner: Carries the requests; None takes the network.

    Attributes:
        round_trips: Requests so far.
        one_way_s: Half the delay.
    """

    def __init__(self, round_trip_s: float, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self.round_trips = 0
        self.one_way_s = round_trip_s / 2
        self._inner = inner or httpx.AsyncHTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the reply's body comes as a delayed stream."""
        self.round_trips += 1
        await asyncio.sleep(self.one_way_s)
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream), "an async transport's reply"
        body = DelayedStream(response.stream, self.one_way_s)
        await asyncio.sleep(self.one_way_s)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=body,
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class DelayedStream(httpx.AsyncByteStream):
    """A reply's body of which each piece arrives a fixed time after it was sent.

    Reads ahead from the moment it is made, so that a reader who comes late is not delayed twice.
    """

    def __init__(self, inner: httpx.AsyncByteStream, one_way_s: float) -> None:
        self._inner = inner
        self._one_way_s = one_way_s
        self._on_the_way: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()
        self._reading = asyncio.get_running_loop().create_task(self._read_ahead())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while True:
            due_s, piece = await self._on_the_way.get()
            await asyncio.sleep(due_s - loop.time())
            if piece is None:
                break
            yield piece
        # Raises what went wrong while reading.
        await self._reading

    async def aclose(self) -> None:
        """Stop reading and close the reply."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._inner.aclose()

    async def _read_ahead(self) -> None:
        try:
            async for piece in self._inner:
                self._put(piece)
        finally:
            self._put(None)

    def _put(self, piece: bytes | None) -> None:
        due_s = asyncio.get_running_loop().time() + self._one_way_s
        self._on_the_way.put_nowait((due_s, piece))
