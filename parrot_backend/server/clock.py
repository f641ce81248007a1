"""The clock of the live shell: the one source of ``now_s`` for the core."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time in seconds; it never runs backwards. Its zero means nothing."""

    def now_s(self) -> float:
        """Return the time in seconds."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()
