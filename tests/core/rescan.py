"""The scheduler as a full scan: every engine is looked at for every request, in every pass.

What the real one decides with sorted engines, bounds and passes left out must be what this one
decides. It shares only accounts, queues and prefixes with it; and the policies that are not written
again here, which are asked with engines that nobody kept sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.engine_index import EngineIndex
from parrot_backend.core.scheduling.free_engines import FreeEngines
from parrot_backend.core.scheduling.placement import ClusterView
from parrot_backend.core.scheduling.queue import WaitingQueue
from parrot_backend.core.scheduling.scheduler import Scheduler

_MAX_PASSED = 64

Chosen = list[tuple[Request, EngineId]]


class RescanScheduler(Scheduler):
    """Decides by looking at everything."""

    _now_s = 0.0

    def decide(self, now_s: float, name_attempt: Callable[[Request], AttemptId]) -> Chosen:
        """Place what has room, and return it; see ``Scheduler.schedule``."""
        self._now_s = now_s
        made: Chosen = []
        reserved, bounded = set[EngineId](), set[EngineId]()
        for queue in self._queues.values():
            queue.promote_old(now_s)
        # Of each model, how many were passed over, and how many of them count.
        passed = {model: (0, 0) for model in self._queues if self._left(model, ())}
        while passed and any(e.has_slot for e in self.engines.values()):
            model = min(passed, key=lambda m: self._queues[m].key(passed[m][0]))
            queue, (position, counted) = self._queues[model], passed[model]
            request = queue[position]
            kept = reserved | bounded if request.objective.is_bounded else reserved
            chosen = self._choose(request, self._left(model, kept), queue)
            for each, engine in chosen:
                self._remove(each)
                self.adopt(each, engine, name_attempt(each), now_s)
            made += chosen
            if not chosen:
                waiting = self._keep(request, queue, reserved, bounded)
                position, counted = position + 1, counted + (not waiting)
            passed[model] = (position, counted)
            is_tired = counted > self._config.max_backfill or position > _MAX_PASSED
            if is_tired or position >= len(queue) or not self._left(model, reserved):
                del passed[model]
        return made

    def _left(self, model: str | None, kept: Iterable[EngineId]) -> list[EngineState]:
        kept = set(kept)
        free = (e for e in self.engines.values() if e.has_slot and e.serves(model))
        return sorted((e for e in free if e.id not in kept), key=lambda e: e.order)

    def _keep(
        self,
        request: Request,
        queue: WaitingQueue,
        reserved: set[EngineId],
        bounded: set[EngineId],
    ) -> bool:
        is_latency = request.objective.objective_class is ObjectiveClass.LATENCY
        if not is_latency and not queue.is_old(request):
            return False
        serving = [e for e in self.engines.values() if e.serves(request.model)]
        wanted = [e for e in serving if e.id not in request.avoided] or serving
        waiting = {e.id for e in wanted if is_latency and e.fits(request.need_tokens)}
        bounded |= waiting
        reserved |= {e.id for e in wanted} - waiting
        return bool(waiting)

    # --- policies ----------------------------------------------------------------------------

    def _choose(self, request: Request, free: list[EngineState], queue: WaitingQueue) -> Chosen:
        if self._config.placement not in ("paper", "fcfs", "least_loaded"):
            alive, engines = self.engines.values(), FreeEngines(EngineIndex(free))
            limit = self._config.max_shared
            view = ClusterView(alive, engines, queue, self.prefixes, limit, self._now_s)
            return [(each, engine) for each, engine, _ in self._policy.place(request, view)]
        if self._config.placement != "paper":
            room = [e for e in self._allowed([request], free) if e.fits(request.need_tokens)]
            if self._config.placement == "least_loaded":
                room.sort(key=lambda e: (len(e.running), e.used_tokens, e.order))
            return [(request, room[0].id)] if room else []
        chosen: Chosen = []
        if request.objective.group is not None:
            members = queue.group_members(request.objective.group)
            chosen = self._together(members, free, queue, 0)
        else:
            sharing, tokens = queue.sharing_prefix(request, self._config.max_shared)
            sharing = [r for r in sharing if _kind(r) == _kind(request)]
            if len(sharing) > 1:
                chosen = self._together(sharing, free, queue, tokens)
        if chosen:
            return chosen
        holding = self.prefixes.engines_with(request.sharing)
        near = [e for e in self._allowed([request], free) if e.id in holding]
        engine = self._find([request], near, queue, 0)
        if engine is None:
            engine = self._find([request], self._allowed([request], free), queue, 0)
        return [] if engine is None else [(request, engine)]

    def _together(
        self, requests: list[Request], free: list[EngineState], queue: WaitingQueue, shared: int
    ) -> Chosen:
        engine = self._find(requests, self._allowed(requests, free), queue, shared)
        return [] if engine is None else [(request, engine) for request in requests]

    def _allowed(self, requests: Sequence[Request], free: list[EngineState]) -> list[EngineState]:
        avoided = {engine for request in requests for engine in request.avoided}
        serving = [e for e in self.engines.values() if e.serves(requests[0].model)]
        if len(requests) == 1 and all(e.id in avoided for e in serving):
            return free
        return [e for e in free if e.id not in avoided]

    def _find(
        self,
        requests: Sequence[Request],
        engines: Sequence[EngineState],
        queue: WaitingQueue,
        shared: int,
    ) -> EngineId | None:
        strictest = min(request.objective.objective_class for request in requests)
        is_bounded = any(
            r.objective.is_bounded
            and (r.objective.objective_class is ObjectiveClass.LATENCY or not queue.is_old(r))
            for r in requests
        )
        scores = {}
        for engine in engines:
            need = 0
            for position, request in enumerate(requests):
                held = self.prefixes.resident_tokens(engine.id, request.sharing)
                need += max(0, request.need_tokens - max(held, shared if position else 0))
            if engine.admits(strictest, need, len(requests), is_bounded=is_bounded):
                after = engine.capacity_tokens(strictest)
                lost = engine.capacity_tokens() - after
                scores[engine.id] = (lost, -(after - engine.used_tokens - need), engine.order)
        return min(scores, key=lambda each: scores[each]) if scores else None


def _kind(request: Request) -> tuple[ObjectiveClass, bool]:
    return request.objective.objective_class, request.objective.is_bounded
