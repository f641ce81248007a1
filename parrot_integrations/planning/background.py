"""Requests that nobody waits for: values that are set, sessions that are closed.

They are sent from a few threads, so that a program does not stand still for a round trip whose
answer tells it nothing. At the end of the interpreter what was begun is finished.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache

_MAX_THREADS = 8


class Background:
    """Runs small pieces of work elsewhere."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="parrot-background")
        self._lock = threading.Lock()
        self._pending: set[Future[None]] = set()

    def run(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, which answers for its own errors."""
        with self._lock:
            future = self._pool.submit(work)
            self._pending.add(future)
        future.add_done_callback(self._forget)

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was begun is done; False if that took too long."""
        with self._lock:
            pending = set(self._pending)
        return not wait(pending, timeout_s).not_done

    def _forget(self, future: Future[None]) -> None:
        with self._lock:
            self._pending.discard(future)


def background() -> Background:
    """Return the one of this process, made on first use."""
    # Threads do not survive a fork.
    return _of_process(os.getpid())


@lru_cache(maxsize=1)
def _of_process(_pid: int) -> Background:
    return Background()
