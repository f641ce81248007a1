"""Ending a blocking stream from another thread, whatever its server does."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import httpx


class StreamStop:
    """Ends one stream; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._response: httpx.Response | None = None
        self._is_set = False
        self._is_cut = False

    @property
    def is_set(self) -> bool:
        """Whether a stream that breaks off is left so."""
        return self._is_set

    def set(self) -> None:
        """Do not open the stream again when it ends."""
        self._is_set = True

    def cut(self) -> None:
        """End the stream now: nobody will read it, and its server is not waited for."""
        with self._lock:
            self._is_set = self._is_cut = True
            _disconnect(self._response)

    def watch(self, response: httpx.Response | None) -> None:
        """Note which response is read now; None when its connection may serve others again."""
        with self._lock:
            self._response = response
            if self._is_cut:
                _disconnect(response)


def _disconnect(response: httpx.Response | None) -> None:
    stream = None if response is None else response.extensions.get("network_stream")
    found = None if stream is None else stream.get_extra_info("socket")
    if isinstance(found, socket.socket):
        # To close it would not wake a thread that reads from it.
        with suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)
