"""The network of ``transport``, for clients whose transport cannot be replaced.

A proxy in a thread of its own, on this machine. What a client sends arrives at the server half a
round trip later, and what the server sends at the client, in order; opening a connection costs
nothing extra.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

#: First line of a request that brings something; those that look and tidy up are not counted. A
#: body of JSON has no bare line breaks, so it cannot hold such a line.
_REQUEST_LINE = re.compile(rb"(?:POST|PUT) [^ ]{1,200} HTTP/1\.1\r\n")
#: No such line is longer.
_TAIL_BYTES = 220

_CHUNK_BYTES = 65536


@dataclass
class DelayingProxy:
    """A proxy that runs; made by :func:`delaying_proxy`.

    Attributes:
        url: Where it is.
        num_requests: Requests so far that bring something (``POST`` and ``PUT``).
    """

    url: str
    num_requests: int = 0


@contextmanager
def delaying_proxy(server_url: str, round_trip_s: float) -> Iterator[DelayingProxy]:
    """Carry connections to a server until the block ends.

    Args:
        server_url: Where the server is, with its port.
        round_trip_s: The delay of request and reply together.
    """
    sock = socket.create_server(("127.0.0.1", 0))
    proxy = DelayingProxy(f"http://127.0.0.1:{sock.getsockname()[1]}")
    carrier = _Carrier(proxy, server_url, round_trip_s / 2)
    thread = threading.Thread(
        target=lambda: asyncio.run(carrier.serve(sock)), name="delaying-proxy"
    )
    thread.start()
    try:
        yield proxy
    finally:
        carrier.stop()
        thread.join()


class _Carrier:
    """Accepts connections and passes on what comes."""

    def __init__(self, proxy: DelayingProxy, server_url: str, one_way_s: float) -> None:
        parts = urlsplit(server_url)
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._stopped = asyncio.Event()
        self._proxy = proxy
        self._server = (parts.hostname, parts.port)
        self._one_way_s = one_way_s
        self._connections: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """End ``serve``, from another thread."""
        self._loop.result().call_soon_threadsafe(self._stopped.set)

    async def serve(self, sock: socket.socket) -> None:
        """Accept connections until told to stop."""
        self._loop.set_result(asyncio.get_running_loop())
        server = await asyncio.start_server(self._connect, sock=sock)
        await self._stopped.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end; if either side breaks it, it ends for both."""
        task = asyncio.create_task(self._carry_both(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._server)
            with closing(far_writer):
                there = asyncio.create_task(self._carry(self._counted(reader), far_writer))
                back = asyncio.create_task(self._carry(_pieces(far_reader), writer))
                try:
                    await asyncio.gather(there, back)
                finally:
                    there.cancel()
                    back.cancel()

    async def _counted(self, reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
        tail = b""
        async for piece in _pieces(reader):
            seen = tail + piece
            self._proxy.num_requests += sum(
                found.end() > len(tail) for found in _REQUEST_LINE.finditer(seen)
            )
            tail = seen[-_TAIL_BYTES:]
            yield piece

    async def _carry(
        self, pieces: AsyncGenerator[bytes, None], writer: asyncio.StreamWriter
    ) -> None:
        """Write pieces, each a fixed time after it came, and then the end."""
        now_s = asyncio.get_running_loop().time
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            try:
                async for piece in pieces:
                    on_the_way.put_nowait((now_s() + self._one_way_s, piece))
            finally:
                on_the_way.put_nowait((now_s() + self._one_way_s, b""))

        reading = asyncio.create_task(read())
        try:
            while True:
                due_s, piece = await on_the_way.get()
                await asyncio.sleep(due_s - now_s())
                if not piece:
                    break
                writer.write(piece)
                await writer.drain()
            await reading
            writer.write_eof()
        finally:
            reading.cancel()


async def _pieces(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    while piece := await reader.read(_CHUNK_BYTES):
        yield piece
