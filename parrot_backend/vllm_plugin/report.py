"""What the plug-in tells the client's side, in order and without a gap that goes unnoticed.

The client asks with the number of the last report it has, and gets the next one as soon as there is
something to tell: the answer is a future until then, so nobody polls. A client that missed one (or
has none yet) gets a snapshot of everything instead of what changed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

#: Plain data, as msgpack carries it.
Report = dict[str, Any]

#: What comes up while somebody waits is collected for so long, unless nothing is left to do. A new
#: question is answered at once if there is anything to tell: perhaps no step follows.
MIN_INTERVAL_S = 0.05


class ReportLog:
    """Numbers reports, and answers whoever waits for the next one.

    Args:
        changes: Returns what changed since it was called last, empty if nothing did.
        snapshot: Returns everything, and makes ``changes`` begin anew.
    """

    def __init__(self, changes: Callable[[], Report], snapshot: Callable[[], Report]) -> None:
        self._changes = changes
        self._snapshot = snapshot
        self._number = 0
        self._asked: Future[Report] | None = None
        self._sent_s = 0.0

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for a report."""
        return self._asked is not None and not self._asked.done()

    def ask(self, number: int, now_s: float) -> Future[Report]:
        """Return the report after ``number``; an earlier question gets an empty answer.

        Args:
            number: Of the last report that the asker has; -1 for none.
            now_s: The time.
        """
        if self._asked is not None and not self._asked.done():
            self._asked.set_result({})
        asked = self._asked = Future()
        if number != self._number:
            self._answer(self._snapshot(), is_snapshot=True, now_s=now_s)
        else:
            self.flush(now_s, is_urgent=True)
        return asked

    def flush(self, now_s: float, *, is_urgent: bool) -> None:
        """Answer who waits, if there is something to tell and enough time has passed."""
        if not self.is_awaited or not (is_urgent or now_s - self._sent_s >= MIN_INTERVAL_S):
            return
        changes = self._changes()
        if changes:
            self._answer(changes, is_snapshot=False, now_s=now_s)

    def _answer(self, report: Report, *, is_snapshot: bool, now_s: float) -> None:
        assert self._asked is not None
        self._number += 1
        self._sent_s = now_s
        self._asked.set_result({"number": self._number, "is_snapshot": is_snapshot, **report})
