"""Requests that no live engine serves: how long they may wait, and the timer that tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from parrot_backend.core.commands import Command, SetTimer
from parrot_backend.core.events import NoEngineTimer
from parrot_backend.core.nodes import Request


class UnservedWatch:
    """Sees to it that a timer fires when a request has waited too long for any engine.

    Args:
        limit_s: How long a request may wait.
        emit: Takes commands.
    """

    def __init__(self, limit_s: float, emit: Callable[[Command], None]) -> None:
        self._limit_s = limit_s
        self._emit = emit
        self._due_s: float | None = None

    def note(self, request: Request) -> None:
        """Watch a queued request, if it is without an engine (``unserved_since_s``)."""
        if request.unserved_since_s is None:
            return
        due_s = request.unserved_since_s + self._limit_s
        if self._due_s is None or due_s < self._due_s:
            self._due_s = due_s
            self._emit(SetTimer(NoEngineTimer(), due_s))

    def overdue(self, waiting: Iterable[Request], now_s: float) -> list[Request]:
        """Return the queued requests that have waited too long.

        To be called when the timer has fired; sets the next one.
        """
        self._due_s = None
        late = []
        for request in waiting:
            since_s = request.unserved_since_s
            if since_s is not None and now_s >= since_s + self._limit_s:  # rounded as the timer
                late.append(request)
            else:
                self.note(request)
        return late
