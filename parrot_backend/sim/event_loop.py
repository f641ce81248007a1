"""The simulated clock: what is due, in order of time.

At one instant, what servers and engines do comes before what clients do, and otherwise what was
asked for first comes first, so that a run is a function of its input.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import TypeVar

_T = TypeVar("_T")

#: So many cancelled entries may stay in the heap whatever its size.
_FEW_DEAD = 64


class Turn(IntEnum):
    """Who comes first at one instant."""

    SERVER = 0
    CLIENT = 1


class Scheduled:
    """Something that is to happen, for ``EventLoop.cancel``.

    Attributes:
        time_s: When.
        callback: What; None once it has happened or was cancelled.
        args: For the callback.
    """

    __slots__ = ("args", "callback", "time_s")

    def __init__(
        self, time_s: float, callback: Callable[..., None], args: tuple[object, ...]
    ) -> None:
        self.time_s = time_s
        self.callback: Callable[..., None] | None = callback
        self.args = args


class EventLoop:
    """Calls back at simulated times.

    Attributes:
        now_s: The present; it never runs backwards.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, int, Scheduled]] = []
        self._num_scheduled = 0
        self._num_dead = 0
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._heap) - self._num_dead

    def at(
        self,
        time_s: float,
        callback: Callable[..., None],
        *args: object,
        turn: Turn = Turn.SERVER,
    ) -> Scheduled:
        """Call back at a time; one that is past counts as the present.

        Raises:
            ValueError: The time is not a number.
        """
        if not time_s >= self.now_s:
            if math.isnan(time_s):
                raise ValueError("the time is not a number")
            time_s = self.now_s
        entry = Scheduled(time_s, callback, args)
        self._num_scheduled += 1
        heapq.heappush(self._heap, (time_s, turn, self._num_scheduled, entry))
        return entry

    def cancel(self, entry: Scheduled) -> None:
        """Let something not happen; what has happened already is left alone."""
        if entry.callback is None:
            return
        entry.callback = None
        self._num_dead += 1
        # Timers are cancelled all the time: what is dead must not be most of what is held.
        if self._num_dead > _FEW_DEAD and 2 * self._num_dead > len(self._heap):
            self._heap = [item for item in self._heap if item[3].callback is not None]
            heapq.heapify(self._heap)
            self._num_dead = 0

    def feed(
        self,
        items: Iterable[_T],
        time_of: Callable[[_T], float],
        callback: Callable[[_T], None],
        at_end: Callable[[], None],
    ) -> None:
        """Call back for each item at its time; the next is drawn when one has come.

        Args:
            items: In order of time; may be endless.
            time_of: When an item comes.
            callback: Takes an item.
            at_end: Called when there are no more.

        Raises:
            ValueError: An item is earlier than the one before, or at no time.
        """
        source = iter(items)

        def draw(last_s: float) -> None:
            item = next(source, None)
            if item is None:
                at_end()
                return
            time_s = time_of(item)
            if not last_s <= time_s < math.inf:
                raise ValueError(f"the arrival at {time_s} s comes after one at {last_s} s")
            self.at(time_s, come, item, time_s, turn=Turn.CLIENT)

        def come(item: _T, time_s: float) -> None:
            callback(item)
            draw(time_s)

        draw(0.0)

    def stop(self) -> None:
        """Return from ``run`` when the present callback has."""
        self._is_stopped = True

    def run(self, until_s: float = math.inf) -> None:
        """Let things happen until nothing is left, ``stop`` is called, or a time has come.

        What is due at ``until_s`` itself still happens.
        """
        self._is_stopped = False
        while self._heap and not self._is_stopped:
            time_s, _, _, entry = self._heap[0]
            callback = entry.callback
            if callback is None:
                heapq.heappop(self._heap)
                self._num_dead -= 1
                continue
            if time_s > until_s:
                self.now_s = until_s
                return
            heapq.heappop(self._heap)
            self.now_s = time_s
            entry.callback = None
            callback(*entry.args)
