"""The engines that a policy may choose from: a sequence that is not made unless it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import overload

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.scheduling.engine_index import EngineIndex, Measure
from parrot_backend.core.scheduling.kept import Kept


class FreeEngines(Sequence[EngineState]):
    """Engines that serve a model, have a free slot and are not kept for others.

    As a sequence they are in order of joining; making that costs as much as there are engines, so
    policies that can look at those that come first (``walk``, ``up_to``) or at certain ones.

    Args:
        index: Those with a free slot.
        kept: What is kept in this pass, so far.
        is_bounded: Whether it is a bounded request that looks for an engine.
    """

    __slots__ = ("_index", "_is_bounded", "_kept", "_listed")

    def __init__(
        self, index: EngineIndex, kept: Kept | None = None, *, is_bounded: bool = True
    ) -> None:
        self._index = index
        self._kept = None if kept is None or kept.is_empty else kept
        self._is_bounded = is_bounded
        self._listed: list[EngineState] | None = None

    def get(self, engine_id: EngineId) -> EngineState | None:
        """Return an engine if it is among these."""
        engine = self._index.get(engine_id)
        return None if engine is None or self._is_kept(engine) else engine

    def walk(self, measure: Measure) -> Iterator[EngineState]:
        """Yield engines by rising measure, the oldest first of equals."""
        if self._kept is None:
            return self._index.walk(measure)
        return (engine for engine in self._index.walk(measure) if not self._is_kept(engine))

    def leading(self, measure: Measure, number: int) -> list[EngineState]:
        """Return the engines that ``walk`` would yield first."""
        if self._kept is None:
            return self._index.leading(measure, number)
        return list(islice(self.walk(measure), number))

    def up_to(self, measure: Measure, limit: int, most: int) -> list[EngineState] | None:
        """Return the engines whose measure is at most a limit; None if they are too many."""
        found = self._index.up_to(measure, limit, most)
        if found is None or self._kept is None:
            return found
        return [engine for engine in found if not self._is_kept(engine)]

    def _is_kept(self, engine: EngineState) -> bool:
        return self._kept is not None and self._kept.holds(engine, is_bounded=self._is_bounded)

    # --- the sequence ------------------------------------------------------------------------

    def _list(self) -> list[EngineState]:
        if self._listed is None:
            free = [engine for engine in self._index.engines() if not self._is_kept(engine)]
            self._listed = sorted(free, key=attrgetter("order"))
        return self._listed

    def __len__(self) -> int:
        return len(self._list())

    def __iter__(self) -> Iterator[EngineState]:
        return iter(self._list())

    @overload
    def __getitem__(self, position: int) -> EngineState: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[EngineState]: ...
    def __getitem__(self, position: int | slice) -> EngineState | Sequence[EngineState]:
        return self._list()[position]
