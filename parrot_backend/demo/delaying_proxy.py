"""The network of ``transport``, for clients whose transport cannot be replaced.

A proxy in a thread of its own, on this machine. What a client sends arrives at the server half a
round trip later, and what the server sends at the client, in order; opening a connection costs
nothing extra.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

#: Ends the first line of a request. A body of JSON has no bare line breaks, so it cannot hold it.
_REQUEST_LINE_END = b" HTTP/1.1\r\n"

_CHUNK_BYTES = 65536


@dataclass
class DelayingProxy:
    """A proxy that runs; made by :func:`delaying_proxy`.

    Attributes:
        url: Where it is.
        round_trips: Requests so far.
    """

    url: str
    round_trips: int = 0


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
    with asyncio.Runner() as runner:
        # Made here, so that it can be stopped whatever the thread does.
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=[carrier.serve(sock)])
        thread.start()
        try:
            yield proxy
        finally:
            loop.call_soon_threadsafe(carrier.stop.set)
            thread.join()


class _Carrier:
    """Accepts connections and passes on what comes."""

    def __init__(self, proxy: DelayingProxy, server_url: str, one_way_s: float) -> None:
        parts = urlsplit(server_url)
        self.stop = asyncio.Event()
        self._proxy = proxy
        self._server = (parts.hostname, parts.port)
        self._one_way_s = one_way_s
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, sock: socket.socket) -> None:
        server = await asyncio.start_server(self._connect, sock=sock)
        await self.stop.wait()
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
            self._proxy.round_trips += (tail + piece).count(_REQUEST_LINE_END)
            tail = piece[1 - len(_REQUEST_LINE_END) :]
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
