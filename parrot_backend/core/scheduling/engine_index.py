"""Engines with a free slot, sorted by whatever policies ask for.

A sorted list for each measure is kept up to date as accounts change, so that a decision looks at
the few engines that come first instead of at all: a change costs one binary search and one move of
pointers in each list that is in use, O(log n) comparisons for n engines.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId

#: What engines are sorted by, as a whole number; None leaves an engine out. A module-level function
#: that reads nothing but the account (``EngineState.add`` and ``remove``).
Measure = Callable[[EngineState], int | None]

#: Keys hold the measure above and, so that ties go to the oldest, the order of joining below.
_ORDER_BITS = 32
_ORDER_MASK = (1 << _ORDER_BITS) - 1


class EngineIndex:
    """Engines that serve one model and have a free slot.

    Args:
        engines: Those that serve the model; their ``order`` tells them apart.
    """

    def __init__(self, engines: Iterable[EngineState] = ()) -> None:
        self._engines: dict[int, EngineState] = {}
        self._by_id: dict[EngineId, EngineState] = {}
        self._lists: dict[Measure, list[int]] = {}
        self._keys: dict[Measure, dict[int, int]] = {}
        self._changed: dict[int, EngineState] = {}
        for engine in engines:
            self.note(engine)

    def __len__(self) -> int:
        if self._changed:
            self._refresh()
        return len(self._engines)

    def get(self, engine: EngineId) -> EngineState | None:
        """Return an engine, if it serves the model and has a free slot."""
        if self._changed:
            self._refresh()
        return self._by_id.get(engine)

    def note(self, engine: EngineState) -> None:
        """Take in an engine that is new, or whose account has changed."""
        self._changed[engine.order] = engine

    def discard(self, engine: EngineState) -> None:
        """Take out an engine that is gone."""
        self._changed.pop(engine.order, None)
        self._engines.pop(engine.order, None)
        self._by_id.pop(engine.id, None)
        for measure in self._lists:
            self._move(measure, engine.order, None)

    def engines(self) -> Iterable[EngineState]:
        """Return all, in no particular order."""
        if self._changed:
            self._refresh()
        return self._engines.values()

    def walk(self, measure: Measure) -> Iterator[EngineState]:
        """Yield engines by rising measure, the older first of equals; nothing may change meanwhile.

        A measure is kept from its first use on.
        """
        engines = self._engines
        for key in self._sorted_by(measure):
            yield engines[key & _ORDER_MASK]

    def leading(self, measure: Measure, number: int) -> list[EngineState]:
        """Return the engines that ``walk`` would yield first."""
        engines = self._engines
        return [engines[key & _ORDER_MASK] for key in self._sorted_by(measure)[:number]]

    def up_to(self, measure: Measure, limit: int, most: int) -> list[EngineState] | None:
        """Return the engines whose measure is at most a limit; None if that are too many."""
        keys = self._sorted_by(measure)
        number = bisect_right(keys, (limit << _ORDER_BITS) | _ORDER_MASK)
        if number > most:
            return None
        return [self._engines[key & _ORDER_MASK] for key in keys[:number]]

    def first(self, measure: Measure) -> EngineState | None:
        """Return the engine with the smallest measure; None if the measure leaves out all."""
        keys = self._sorted_by(measure)
        return self._engines[keys[0] & _ORDER_MASK] if keys else None

    def _sorted_by(self, measure: Measure) -> list[int]:
        if self._changed:
            self._refresh()
        keys = self._lists.get(measure)
        if keys is None:
            self._keys[measure] = {
                order: (value << _ORDER_BITS) | order
                for order, engine in self._engines.items()
                if (value := measure(engine)) is not None
            }
            keys = self._lists[measure] = sorted(self._keys[measure].values())
        return keys

    def _refresh(self) -> None:
        for order, engine in self._changed.items():
            has_slot = engine.has_slot
            if has_slot:
                self._engines[order] = self._by_id[engine.id] = engine
            else:
                self._engines.pop(order, None)
                self._by_id.pop(engine.id, None)
            for measure in self._lists:
                self._move(measure, order, measure(engine) if has_slot else None)
        self._changed.clear()

    def _move(self, measure: Measure, order: int, value: int | None) -> None:
        keys, key_of = self._lists[measure], self._keys[measure]
        before = key_of.get(order)
        after = None if value is None else (value << _ORDER_BITS) | order
        if before == after:
            return
        if before is not None:
            del keys[bisect_left(keys, before)]
        if after is None:
            del key_of[order]
        else:
            key_of[order] = after
            insort(keys, after)


# --- measures ------------------------------------------------------------------------------------

#: Below all tokens.
_LEAST = -(1 << 62)


def by_room(engine: EngineState) -> int:
    """Most room in memory first, idle engines before all: if the first one is full, all are."""
    return engine.used_tokens - engine.info.capacity_tokens if engine.running else _LEAST


def by_slots(engine: EngineState) -> int:
    """Most free slots first."""
    return -engine.free_slots


def by_load(engine: EngineState) -> int:
    """Fewest running requests first, then fewest tokens in use."""
    return (len(engine.running) << 40) + engine.used_tokens


def by_joining(engine: EngineState) -> int:
    """The oldest first."""
    return 0
