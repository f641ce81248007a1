"""The waiting requests of an engine with our plug-in, with a short cut for a single one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile

from parrot_backend.core.request_class import RequestClass
from parrot_backend.core.waiting import WaitingOptions, WaitingRequests
from parrot_backend.sim.engine_live import Live


class LiveQueue:
    """The plug-in's order; a request that waits alone needs none, and most do.

    Args:
        max_wait_s: What has waited longer goes first.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._ordered: WaitingRequests[Live] = WaitingRequests(WaitingOptions(max_wait_s))
        self._single: Live | None = None
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def __contains__(self, live: Live) -> bool:
        return live is self._single or live in self._ordered

    def __iter__(self) -> Iterator[Live]:
        return iter(self._ordered) if self._single is None else iter((self._single,))

    def urgent(self, most: int) -> list[Live]:
        """Return the latency-sensitive requests that come first, up to so many."""
        return list(takewhile(_is_urgent, islice(self, most)))

    def add(self, live: Live) -> None:
        """Put in a request that is not here."""
        self._num += 1
        if self._num == 1:
            self._single = live
            return
        if self._single is not None:
            self._add(self._single)
            self._single = None
        self._add(live)

    def _add(self, live: Live) -> None:
        self._ordered.add(live, live.rank(), live.arrival_s, live.waits_since_s)

    def remove(self, live: Live) -> None:
        """Take out a request that is here."""
        self._num -= 1
        if live is self._single:
            self._single = None
        else:
            self._ordered.remove(live)

    def update(self, live: Live) -> None:
        """Give a request the place that it should have now."""
        if live in self._ordered:
            self._ordered.update(live, live.rank())

    def first(self) -> Live:
        """Return the request to serve next; there must be one."""
        return self._ordered.first() if self._single is None else self._single

    def pop(self) -> Live:
        """Take out the request to serve next, which begins; there must be one."""
        self._num -= 1
        live = self._single
        if live is None:
            live = self._ordered.pop()
        self._single = None
        self._ordered.note_admitted(live.rank(), live.target_tokens)
        return live

    def promote_old(self, now_s: float) -> None:
        """Move what has waited for too long to the front."""
        if self._single is None:
            self._ordered.promote_old(now_s)


def _is_urgent(live: Live) -> bool:
    return live.request_class is RequestClass.LATENCY
