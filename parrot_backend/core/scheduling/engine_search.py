"""The engine that suffers least from taking some requests, as Algorithm 1's ``FindEngine`` asks.

It is the one that loses the least token capacity by their class, then the one with the most room,
then the oldest. All engines would have to be looked at only if it mattered what each of them holds
of the requests' prefixes. What any of them holds is bounded by the index, so engines are walked by
rising use until the rest cannot be better.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.engine_index import Measure, by_room, by_slots
from parrot_backend.core.scheduling.placement import ClusterView

#: So many engines are looked at one by one rather than described by what they have in common.
_FEW = 8

#: Below all tokens.
_LEAST = -(1 << 62)


def by_latency_use(engine: EngineState) -> int | None:
    """Among engines with latency-sensitive work, the least use of its capacity first."""
    return engine.used_tokens - engine.info.latency_capacity_tokens if _is_serving(engine) else None


def by_bounded_use(engine: EngineState) -> int | None:
    """Among the same, the least use by what is bounded first."""
    if not _is_serving(engine):
        return None
    if not engine.bounded_tokens:
        return _LEAST
    return engine.bounded_tokens - engine.info.latency_capacity_tokens


def by_capacity_loss(engine: EngineState) -> int | None:
    """Among the others, the least capacity lost by latency-sensitive work first, then the use."""
    if _is_serving(engine):
        return None
    info = engine.info
    lost = info.capacity_tokens - info.latency_capacity_tokens
    return (lost << 40) + engine.used_tokens - info.latency_capacity_tokens


def by_use(engine: EngineState) -> int:
    """The most room under the present capacity first."""
    return engine.used_tokens - engine.capacity_tokens()


def _is_serving(engine: EngineState) -> bool:
    return engine.latency_tokens > 0


class EngineSearch:
    """One search.

    Args:
        requests: They are to go to one engine.
        view: The cluster.
        shared_tokens: A prefix that they share among themselves.
        among: Only these engines are looked at.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        view: ClusterView,
        shared_tokens: int = 0,
        among: Collection[EngineId] | None = None,
    ) -> None:
        self._requests = requests
        self._view = view
        self._shared_tokens = shared_tokens
        self._among = among
        self._class = min(request.objective.objective_class for request in requests)
        self._is_bounded = any(_is_bounded(request, view) for request in requests)
        self._avoided = view.avoided(requests)
        self._best: EngineState | None = None
        self._best_key = (0, 0, 0)
        # The need on any engine that was not looked at singly; and whether it is that on all.
        self._floor_tokens = 0
        self._is_same = False

    def run(self) -> EngineState | None:
        """Return the best engine that takes all requests, or None."""
        if len(self._requests) > 1 and not self._has_slots():
            return None
        if self._among is not None and len(self._among) <= _FEW:
            self._look_at(self._among)
            return self._best
        self._look_at(self._survey())
        if self._class is not ObjectiveClass.LATENCY:
            self._search(by_use, by_use if self._is_bounded else by_room)
            # What no engine has room for is worse everywhere than what any has room for.
            if self._best is None or self._best_key[1] > 0:
                self._search_idle()
            return self._best
        self._search(by_latency_use, by_bounded_use if self._is_bounded else by_room)
        self._search(by_capacity_loss, by_room)
        return self._best

    def _has_slots(self) -> bool:
        most = next(self._view.free.walk(by_slots), None)
        return most is not None and most.free_slots >= len(self._requests)

    def _survey(self) -> set[EngineId]:
        """Bound what engines hold of the prompts, but for a few that may hold more.

        Returns:
            Those few.
        """
        few, prefixes = set[EngineId](), self._view.prefixes
        is_same = True
        for position, request in enumerate(self._requests):
            saved = self._shared_tokens if position else 0
            for boundary in reversed(request.sharing):
                holders = prefixes.holders_of(boundary.hash)
                if not holders:
                    continue
                is_same = False
                if len(holders) > _FEW:
                    saved = max(saved, prefixes.most_tokens(boundary))
                    break
                few.update(holders)
            self._floor_tokens += max(0, request.need_tokens - saved)
        self._is_same = is_same
        return few

    def _search(self, score: Measure, room: Measure) -> None:
        """Look at engines by rising score until the rest cannot be better, or at all with room."""
        free, floor = self._view.free, self._floor_tokens
        few: list[EngineState] | None = None
        for position, engine in enumerate(free.walk(score)):
            if self._best is not None and self._key(engine, floor) >= self._best_key:
                return
            if position == 0:
                few = free.up_to(room, -floor, _FEW)
            if few is not None and position == len(few):
                break
            self._consider(engine)
        for engine in few or ():
            self._consider(engine)

    def _search_idle(self) -> None:
        """Look at idle engines: each takes a single request of any size."""
        for engine in self._view.free.walk(by_room):
            if engine.running:
                return
            self._consider(engine)

    def _look_at(self, engines: Collection[EngineId]) -> None:
        for engine_id in engines:
            engine = self._view.free.get(engine_id)
            if engine is not None:
                self._consider(engine)

    def _consider(self, engine: EngineState) -> None:
        if engine.id in self._avoided or (self._among is not None and engine.id not in self._among):
            return
        need = self._floor_tokens
        if not self._is_same:
            need = self._view.need_tokens(engine, self._requests, self._shared_tokens)
        number, is_bounded = len(self._requests), self._is_bounded
        if not engine.admits(self._class, need, number, is_bounded=is_bounded):
            return
        key = self._key(engine, need)
        if self._best is None or key < self._best_key:
            self._best, self._best_key = engine, key

    def _key(self, engine: EngineState, need_tokens: int) -> tuple[int, int, int]:
        after = capacity = engine.capacity_tokens()
        if self._class is ObjectiveClass.LATENCY:
            after = engine.info.latency_capacity_tokens
        return capacity - after, engine.used_tokens + need_tokens - after, engine.order


def _is_bounded(request: Request, view: ClusterView) -> bool:
    """Tell whether a request keeps to the latency capacity.

    What is old needs room only, unless it wants its tokens quickly itself: while somebody is always
    waited for, an engine may never be down to that capacity.
    """
    objective = request.objective
    is_latency = objective.objective_class is ObjectiveClass.LATENCY
    return objective.is_bounded and (is_latency or not view.queue.is_old(request))
