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


#: So many changes are kept for lists that are not asked for.
_MAX_LOGGED = 128


class EngineIndex:
    """Engines that serve one model and have a free slot.

    A list is brought up to date when it is asked for: what changed back meanwhile costs nothing.

    Args:
        engines: Those that serve the model; their ``order`` tells them apart.
    """

    def __init__(self, engines: Iterable[EngineState] = ()) -> None:
        self._engines: dict[int, EngineState] = {}
        self._by_id: dict[EngineId, EngineState] = {}
        self._lists: dict[Measure, _SortedEngines] = {}
        # Engines whose accounts have changed; and up to where that is known of slots.
        self._log: list[EngineState] = []
        self._num_seen = 0
        for engine in engines:
            self.note(engine)

    def __len__(self) -> int:
        if self._num_seen != len(self._log):
            self._refresh()
        return len(self._engines)

    def get(self, engine: EngineId) -> EngineState | None:
        """Return an engine, if it serves the model and has a free slot."""
        if self._num_seen != len(self._log):
            self._refresh()
        return self._by_id.get(engine)

    def note(self, engine: EngineState) -> None:
        """Take in an engine that is new, or whose account has changed."""
        self._log.append(engine)
        if len(self._log) > _MAX_LOGGED:
            self._forget_log()

    def discard(self, engine: EngineState) -> None:
        """Take out an engine that is gone."""
        self._forget_log()
        self._engines.pop(engine.order, None)
        self._by_id.pop(engine.id, None)
        for engines in self._lists.values():
            engines.move(engine.order, None)

    def engines(self) -> Iterable[EngineState]:
        """Return all, in no particular order."""
        self._refresh()
        return self._engines.values()

    def walk(self, measure: Measure) -> Iterator[EngineState]:
        """Yield engines by rising measure, the older first of equals; nothing may change meanwhile.

        A measure is kept from its first use on.
        """
        keys = self._sorted_by(measure)
        engines = self._engines
        for key in keys:
            yield engines[key & _ORDER_MASK]

    def leading(self, measure: Measure, number: int) -> list[EngineState]:
        """Return the engines that ``walk`` would yield first."""
        keys = self._sorted_by(measure)
        engines = self._engines
        return [engines[key & _ORDER_MASK] for key in keys[:number]]

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
        num_changes = len(self._log)
        if self._num_seen != num_changes:
            self._refresh()
        found = self._lists.get(measure)
        if found is None:
            found = _SortedEngines(measure, self._engines.values())
            found.num_seen = num_changes
            self._lists[measure] = found
        elif found.num_seen != num_changes:
            found.take_in(self._log)
        return found.keys

    def _refresh(self) -> None:
        for engine in self._log[self._num_seen :]:
            order = engine.order
            if engine.has_slot:
                self._engines[order] = self._by_id[engine.id] = engine
            else:
                self._engines.pop(order, None)
                self._by_id.pop(engine.id, None)
        self._num_seen = len(self._log)

    def _forget_log(self) -> None:
        self._refresh()
        for engines in self._lists.values():
            engines.take_in(self._log)
            engines.num_seen = 0
        self._log.clear()
        self._num_seen = 0


class _SortedEngines:
    """Engines with a free slot by one measure.

    Attributes:
        keys: Measure and order of each, sorted.
        num_seen: How many changes are taken in.
    """

    __slots__ = ("_key_of", "_measure", "keys", "num_seen")

    def __init__(self, measure: Measure, engines: Iterable[EngineState]) -> None:
        self._measure = measure
        self._key_of = {
            engine.order: (value << _ORDER_BITS) | engine.order
            for engine in engines
            if (value := measure(engine)) is not None
        }
        self.keys = sorted(self._key_of.values())
        self.num_seen = 0

    def take_in(self, changed: list[EngineState]) -> None:
        """Bring it up to date.

        Args:
            changed: All changes, those seen among them.
        """
        new = changed[self.num_seen :]
        self.num_seen = len(changed)
        for engine in new if len(new) == 1 else dict.fromkeys(new):
            self.move(engine.order, self._measure(engine) if engine.has_slot else None)

    def move(self, order: int, value: int | None) -> None:
        """Put an engine where its measure belongs; None takes it out."""
        keys, key_of = self.keys, self._key_of
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
