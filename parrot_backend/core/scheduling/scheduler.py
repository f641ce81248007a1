"""The scheduler: ready requests and engines in, placements out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from parrot_backend.core.config import PlacementName, SchedulerConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixIndex, PrefixIndexConfig
from parrot_backend.core.scheduling.baselines import FcfsPlacement, LeastLoadedPlacement
from parrot_backend.core.scheduling.fairness import expected_service
from parrot_backend.core.scheduling.orders import ordering_of
from parrot_backend.core.scheduling.paper import PaperPlacement
from parrot_backend.core.scheduling.placement import ClusterView, Placement, PlacementPolicy
from parrot_backend.core.scheduling.queue import WaitingQueue

PLACEMENTS: dict[PlacementName, Callable[[], PlacementPolicy]] = {
    "paper": PaperPlacement,
    "fcfs": FcfsPlacement,
    "least_loaded": LeastLoadedPlacement,
}


class Scheduler:
    """Owns the queues (one per model), the engines' accounts and the prefix index."""

    def __init__(self, config: SchedulerConfig, prefix_config: PrefixIndexConfig) -> None:
        self._config = config
        self._min_prefix_tokens = prefix_config.min_tokens
        self._policy = PLACEMENTS[config.placement]()
        self._queues: dict[str | None, WaitingQueue] = {}
        self.prefixes = PrefixIndex(prefix_config)
        self.engines: dict[EngineId, EngineState] = {}
        # Kept apart, because in a busy server few engines have a slot and every decision asks.
        self._free: dict[EngineId, EngineState] = {}
        self._num_joined = 0

    @property
    def num_waiting(self) -> int:
        """Ready requests that are not placed."""
        return sum(map(len, self._queues.values()))

    def waiting(self) -> Iterator[Request]:
        """Yield the ready requests, model by model, each in serving order."""
        for queue in self._queues.values():
            yield from queue

    def serves(self, model: str | None) -> bool:
        """Tell whether any engine serves a model."""
        return any(engine.serves(model) for engine in self.engines.values())

    def add_engine(self, info: EngineInfo, now_s: float) -> None:
        """Begin to place on an engine."""
        engine = EngineState(info, self._num_joined, last_output_s=now_s)
        self._num_joined += 1
        self.engines[info.engine] = engine
        self._note_slots(engine)
        self.prefixes.add_engine(info.engine)

    def remove_engine(self, engine: EngineId) -> EngineState:
        """Stop placing on an engine, and return its last account."""
        self.prefixes.remove_engine(engine)
        self._free.pop(engine, None)
        return self.engines.pop(engine)

    def enqueue(self, request: Request) -> None:
        """Take in a ready request."""
        queue = self._queues.get(request.model)
        if queue is None:
            config = self._config
            weights = config.tenant_weights if config.fair else None
            queue = WaitingQueue(
                ordering_of(config), config.max_wait_s, self._min_prefix_tokens, weights
            )
            self._queues[request.model] = queue
        queue.add(request)

    def withdraw(self, request: Request) -> bool:
        """Take a request out of its queue again; return whether it was there."""
        queue = self._queues.get(request.model)
        if queue is None or request not in queue:
            return False
        self._remove(request)
        return True

    def update(self, request: Request, change: Callable[[], None]) -> None:
        """Apply a change that may affect a request's place in its queue, if it is in one."""
        queue = self._queues.get(request.model)
        if queue is not None and request in queue:
            queue.update(request, change)
        else:
            change()

    def settle(self, request: Request, tokens: float | None) -> None:
        """Take in how much service an ended request had; None if it failed or was stopped."""
        queue = self._queues.get(request.model)
        if queue is not None:
            queue.settle(request, tokens)

    def set_objective(self, request: Request, objective: Objective) -> None:
        """Change a request's objective, and its place in the queue if it has one."""

        def change() -> None:
            request.objective = objective

        self.update(request, change)

    def release(self, engine: EngineId, attempt: AttemptId) -> None:
        """Give back what an ended attempt took."""
        state = self.engines[engine]
        state.remove(attempt)
        self._note_slots(state)

    def schedule(
        self, now_s: float, name_attempt: Callable[[Request], AttemptId]
    ) -> list[Placement]:
        """Place as many ready requests as have room, in serving order.

        A blocked request may be passed over for a later one. But when it is old or
        latency-sensitive, the engines it could run on are kept for it: what is freed there must
        reach it. Where a latency-sensitive one waits for its like only, requests that are not
        bounded take nothing away.

        Args:
            now_s: The time, for ageing.
            name_attempt: Gives each placed request the id of its attempt.
        """
        made: list[Placement] = []
        reserved, bounded = set[EngineId](), set[EngineId]()
        cursors = self._cursors(now_s)
        while cursors and self._free:
            cursor = min(cursors, key=_Cursor.key) if len(cursors) > 1 else cursors[0]
            request = cursor.request
            kept = reserved | bounded if request.objective.is_bounded else reserved
            free = self._free_engines(cursor.model, kept)
            placements = self._place(request, free, cursor.queue) if free else []
            if placements:
                self._commit(placements, name_attempt, now_s)
                made += placements
            else:
                blocked = self._engines_for(request) if cursor.is_urgent else []
                waiting = {each for each in blocked if self._waits_for_its_like(request, each)}
                bounded |= waiting
                reserved.update(set(blocked) - waiting)
                cursor.pass_over(counts=not waiting)
            if cursor.is_at_end or not self._free_engines(cursor.model, reserved):
                cursors.remove(cursor)
        return made

    def _cursors(self, now_s: float) -> list[_Cursor]:
        cursors = []
        for model, queue in self._queues.items():
            queue.promote_old(now_s)
            if self._free_engines(model, set()):
                cursors.append(_Cursor(model, queue, self._config.max_backfill))
        return cursors

    def _free_engines(self, model: str | None, reserved: set[EngineId]) -> list[EngineState]:
        free = [e for e in self._free.values() if e.serves(model) and e.id not in reserved]
        free.sort(key=_join_order)
        return free

    def _engines_for(self, request: Request) -> list[EngineId]:
        serving = [e.id for e in self.engines.values() if e.serves(request.model)]
        return [e for e in serving if e not in request.avoided] or serving

    def _waits_for_its_like(self, request: Request, engine: EngineId) -> bool:
        """Tell whether nothing but the latency capacity keeps a blocked request off an engine."""
        is_latency = request.objective.objective_class is ObjectiveClass.LATENCY
        return is_latency and self.engines[engine].fits(request.need_tokens)

    def _note_slots(self, engine: EngineState) -> None:
        if engine.has_slot:
            self._free[engine.id] = engine
        else:
            self._free.pop(engine.id, None)

    def _place(
        self, request: Request, free: list[EngineState], queue: WaitingQueue
    ) -> list[Placement]:
        alive, max_shared = self.engines.values(), self._config.max_shared
        return self._policy.place(
            request, ClusterView(alive, free, queue, self.prefixes, max_shared)
        )

    def _commit(
        self,
        placements: list[Placement],
        name_attempt: Callable[[Request], AttemptId],
        now_s: float,
    ) -> None:
        for request, engine_id, _ in placements:
            queue = self._queues[request.model]
            if queue.has_shares:
                cached_tokens = self.prefixes.resident_tokens(engine_id, request.sharing)
                queue.serve(request, expected_service(request, cached_tokens))
            self._remove(request)
            self.adopt(request, engine_id, name_attempt(request), now_s)

    def adopt(
        self, request: Request, engine_id: EngineId, attempt: AttemptId, now_s: float
    ) -> None:
        """Account for a request that runs on an engine from now on."""
        engine = self.engines[engine_id]
        resident = self.prefixes.resident_tokens(engine_id, request.sharing)
        need = max(0, request.need_tokens - resident)
        objective = request.objective
        is_latency = objective.objective_class is ObjectiveClass.LATENCY
        engine.add(
            attempt, need, is_latency=is_latency, is_bounded=objective.is_bounded, now_s=now_s
        )
        self._note_slots(engine)
        self.prefixes.record(engine_id, request.sharing)

    def _remove(self, request: Request) -> None:
        queue = self._queues[request.model]
        queue.remove(request)
        if not queue:
            del self._queues[request.model]


#: So many requests are looked at behind the first one that is blocked.
_MAX_PASSED = 64


def _join_order(engine: EngineState) -> int:
    return engine.order


class _Cursor:
    """How far one scheduling pass has come in the queue of one model."""

    def __init__(self, model: str | None, queue: WaitingQueue, max_passed: int) -> None:
        self.model = model
        self.queue = queue
        self._max_passed = max_passed
        self._passed = 0
        self._counted = 0

    @property
    def is_at_end(self) -> bool:
        """Nothing is left that may be placed in this pass."""
        is_tired = self._counted > self._max_passed or self._passed > _MAX_PASSED
        return is_tired or self._passed >= len(self.queue)

    @property
    def request(self) -> Request:
        """The next request to be placed."""
        return self.queue[self._passed]

    def key(self) -> tuple[float, ...]:
        """Serving order of the next request among those of all models."""
        return self.queue.key(self._passed)

    @property
    def is_urgent(self) -> bool:
        """What the next request waits for must not go to others."""
        request = self.request
        is_latency = request.objective.objective_class is ObjectiveClass.LATENCY
        return is_latency or self.queue.is_old(request)

    def pass_over(self, *, counts: bool) -> None:
        """Leave the next request behind: it is blocked.

        Args:
            counts: Whether it counts toward the few that may be passed over.
        """
        self._passed += 1
        self._counted += counts
