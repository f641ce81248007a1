"""The time limits of one stream, by one timer, so that they cost nothing for each token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from parrot_backend.server.openai.errors import timed_out


class Pulse:
    """Notes when something is sent, and wakes the sender when that is long ago.

    Args:
        wake: Makes the sender look at ``is_silent`` and ``check``.
        ping_s: After so long without an event, the stream is silent.
        send_timeout_s: A client that takes nothing for so long is gone.
        limit_s: Longest duration of the stream.
    """

    def __init__(
        self, wake: Callable[[], None], *, ping_s: float, send_timeout_s: float, limit_s: float
    ) -> None:
        self._wake = wake
        self._ping_s = ping_s
        self._send_timeout_s = send_timeout_s
        self._loop = asyncio.get_running_loop()
        self._end_s = self._loop.time() + limit_s
        self._changed_s = self._loop.time()
        self._is_sending = False
        self._timer: asyncio.TimerHandle
        self._timeout: asyncio.Timeout

    @property
    def is_silent(self) -> bool:
        """Whether it is time to send something for its own sake."""
        return self._loop.time() - self._changed_s >= self._ping_s

    def check(self) -> None:
        """Check that the stream may go on.

        Raises:
            ParrotError: ``timed_out``.
        """
        if self._loop.time() >= self._end_s:
            raise timed_out()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch the limits within.

        Raises:
            TimeoutError: The client takes nothing any more.
        """
        async with asyncio.timeout(None) as self._timeout:
            self._tick()
            try:
                yield
            finally:
                self._timer.cancel()

    def begin_send(self) -> None:
        """Note that something is being sent."""
        self._changed_s = self._loop.time()
        self._is_sending = True

    def end_send(self) -> None:
        """Note that it has been taken."""
        self._is_sending = False

    def _tick(self) -> None:
        now_s = self._loop.time()
        if self._is_sending and now_s - self._changed_s >= self._send_timeout_s:
            self._timeout.reschedule(now_s)
            return
        if not self._is_sending and (self.is_silent or now_s >= self._end_s):
            self._wake()
        limit_s = self._send_timeout_s if self._is_sending else self._ping_s
        due_s = self._changed_s + limit_s
        # Sending may begin, and stall, right after this.
        next_s = min(due_s if due_s > now_s else now_s + limit_s, now_s + self._send_timeout_s)
        if self._end_s > now_s:
            next_s = min(next_s, self._end_s)
        self._timer = self._loop.call_at(next_s, self._tick)
