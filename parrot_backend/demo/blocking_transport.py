"""The network of ``transport``, for clients that block.

Each piece of a reply is read ahead by a thread, so that it arrives a fixed time after the server
sent it, whenever the reader comes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import httpx


class BlockingDelayingTransport(httpx.BaseTransport):
    """Delays requests and replies, and counts them; may be used from any thread.

    Args:
        round_trip_s: The delay of request and reply together.
        inner: Carries the requests; None takes the network.

    Attributes:
        round_trips: Requests so far.
    """

    def __init__(self, round_trip_s: float, inner: httpx.BaseTransport | None = None) -> None:
        self.round_trips = 0
        self._one_way_s = round_trip_s / 2
        self._inner = inner or httpx.HTTPTransport(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None)
        )
        self._counting = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the reply's body comes as a delayed stream."""
        with self._counting:
            self.round_trips += 1
        time.sleep(self._one_way_s)
        response = self._inner.handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream), "a blocking transport's reply"
        body = _DelayedStream(response.stream, self._one_way_s)
        time.sleep(self._one_way_s)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=body,
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class _DelayedStream(httpx.SyncByteStream):
    """A reply's body of which each piece arrives a fixed time after it was sent."""

    def __init__(self, inner: httpx.SyncByteStream, one_way_s: float) -> None:
        self._inner = inner
        self._one_way_s = one_way_s
        self._on_the_way: queue.Queue[tuple[float, bytes | Exception | None]] = queue.Queue()
        threading.Thread(target=self._read_ahead, name="delayed-reply", daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            due_s, piece = self._on_the_way.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        """Close the reply."""
        self._inner.close()

    def _read_ahead(self) -> None:
        try:
            for piece in self._inner:
                self._put(piece)
        except Exception as exc:  # noqa: BLE001 - it is raised where the reply is read
            self._put(exc)
        self._put(None)

    def _put(self, piece: bytes | Exception | None) -> None:
        self._on_the_way.put((time.monotonic() + self._one_way_s, piece))
