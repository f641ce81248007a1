"""Requests that nobody waits for: values that are set, sessions that are closed.

They are sent from a few threads, so that a program does not stand still for a round trip whose
answer tells it nothing. At the end of the interpreter what was begun is finished, if that does not
take long.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import lru_cache

_MAX_THREADS = 8
#: How long the end of the interpreter waits.
_AT_EXIT_S = 5.0

_logger = logging.getLogger(__name__)


class Background:
    """Runs small pieces of work elsewhere."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Callable[[], None]] = deque()
        self._num_pending = 0
        self._num_threads = 0

    def run(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, which answers for its own errors."""
        with self._changed:
            self._waiting.append(work)
            self._num_pending += 1
            self._changed.notify_all()
            if self._num_pending <= self._num_threads or self._num_threads == _MAX_THREADS:
                return
            self._num_threads += 1
            number = self._num_threads
        # A daemon: one that hangs must not keep the interpreter from its end.
        name = f"parrot-background_{number}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was begun is done; False if that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._num_pending, timeout_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                work = self._waiting.popleft()
            try:
                work()
            except Exception:
                # Outermost loop: the next piece of work must not suffer.
                _logger.debug("a piece of work in the background failed", exc_info=True)
            finally:
                with self._changed:
                    self._num_pending -= 1
                    self._changed.notify_all()


def background() -> Background:
    """Return the one of this process, made on first use."""
    # Threads do not survive a fork.
    return _of_process(os.getpid())


@lru_cache(maxsize=1)
def _of_process(_pid: int) -> Background:
    return Background()


@atexit.register
def _settle_at_exit() -> None:
    background().settle(_AT_EXIT_S)
