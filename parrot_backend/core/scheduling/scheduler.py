"""The scheduler: ready requests and engines in, placements out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from parrot_backend.core.config import SchedulerConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.engine_load import load_of
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixIndex, PrefixIndexConfig
from parrot_backend.core.scheduling.age_watch import AgeLimits
from parrot_backend.core.scheduling.engine_index import EngineIndex
from parrot_backend.core.scheduling.fairness import expected_service
from parrot_backend.core.scheduling.free_engines import FreeEngines
from parrot_backend.core.scheduling.kept import Kept
from parrot_backend.core.scheduling.orders import OrderKey, ordering_of
from parrot_backend.core.scheduling.placement import ClusterView, Placement
from parrot_backend.core.scheduling.policies import make_policy
from parrot_backend.core.scheduling.queue import WaitingQueue
from parrot_backend.core.scheduling.serving import Cursor, ServingPass
from parrot_backend.core.working_set import WorkingSet


class Scheduler:
    """Owns the queues (one per model), the engines' accounts and the prefix index."""

    def __init__(self, config: SchedulerConfig, prefix_config: PrefixIndexConfig) -> None:
        self._config = config
        self._min_prefix_tokens = prefix_config.min_tokens
        self._policy, self._memory = make_policy(config)
        self._queues: dict[str | None, WaitingQueue] = {}
        # One that is empty again: with little load each call would make another.
        self._spare: WaitingQueue | None = None
        self.prefixes = PrefixIndex(prefix_config)
        self.engines: dict[EngineId, EngineState] = {}
        # Those that can keep prefixes.
        self.keepers: dict[EngineId, EngineState] = {}
        # Kept apart, because in a busy server few engines have a slot and every decision asks.
        self._free: dict[EngineId, EngineState] = {}
        self._indexes: dict[str | None, EngineIndex] = {}
        self._num_joined = 0
        # Whether another pass would place nothing, and behind which key nothing new could either.
        self._is_settled = False
        self._seen_changes = 0
        self._reach: dict[str | None, OrderKey | None] = {}

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
        cost, working_set = self._config.cost, None
        if self._config.counts_working_set:
            working_set = WorkingSet(self._min_prefix_tokens)
        engine = EngineState(
            info, self._num_joined, last_output_s=now_s, working_set=working_set, cost=cost
        )
        self._num_joined += 1
        self.engines[info.engine] = engine
        if info.keeps_prefixes:
            self.keepers[info.engine] = engine
        self.note(engine)
        self.prefixes.add_engine(info.engine)

    def remove_engine(self, engine: EngineId) -> EngineState:
        """Stop placing on an engine, and return its last account."""
        self.prefixes.remove_engine(engine)
        self._is_settled = False
        self._free.pop(engine, None)
        state = self.engines.pop(engine)
        self.keepers.pop(engine, None)
        for index in self._indexes.values():
            index.discard(state)
        self._memory.lost(engine)
        return state

    def enqueue(self, request: Request) -> None:
        """Take in a ready request."""
        queue = self._queues.get(request.model)
        if queue is None:
            queue = self._queues[request.model] = self._empty_queue()
        queue.add(request)
        reach = self._reach.get(request.model)
        if reach is None or not queue.comes_behind(request, reach):
            self._is_settled = False

    def _empty_queue(self) -> WaitingQueue:
        if self._spare is not None:
            queue, self._spare = self._spare, None
            return queue
        config = self._config
        weights = config.tenant_weights if config.fair else None
        ages = AgeLimits(config.max_wait_s, config.max_run_s, by_tenant=config.fair)
        return WaitingQueue(ordering_of(config), ages, self._min_prefix_tokens, weights)

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
            self._is_settled = False
            queue.update(request, change)
        else:
            change()

    def settle(self, request: Request, tokens: float | None) -> None:
        """Take in how much service an ended request had; None if it failed or was stopped."""
        queue = self._queues.get(request.model)
        if queue is not None and queue.has_shares:
            queue.settle(request, tokens)
            self._is_settled = False  # another tenant may come first now

    def set_objective(self, request: Request, objective: Objective) -> None:
        """Change a request's objective, and its place in the queue if it has one."""

        def change() -> None:
            request.objective = objective

        self.update(request, change)

    def begin(self, request: Request, now_s: float) -> None:
        """Note that the prompt of a running request is computed."""
        assert request.engine is not None
        assert request.attempt is not None
        # How long prompts wait is no part of what engines admit or are sorted by, so what is
        # blocked stays blocked.
        self.engines[request.engine].load.begin(request.attempt, now_s)

    def release(self, engine: EngineId, attempt: AttemptId) -> None:
        """Give back what an ended attempt took."""
        state = self.engines[engine]
        state.remove(attempt)
        self.note(state)
        self._memory.ended(attempt, engine)

    def note(self, engine: EngineState) -> None:
        """Take in that something has changed of an engine that policies may look at."""
        self._is_settled = False
        if engine.has_slot:
            self._free[engine.id] = engine
        else:
            self._free.pop(engine.id, None)
        for model, index in self._indexes.items():
            if engine.serves(model):
                index.note(engine)

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
        if not self._queues:
            return []
        for queue in self._queues.values():
            if queue.promote_old(now_s):
                self._is_settled = False
        if self._is_settled and self.prefixes.num_changes == self._seen_changes:
            return []
        self._reach = {}
        made, is_settled = self._serve(now_s, name_attempt)
        self._is_settled, self._seen_changes = is_settled, self.prefixes.num_changes
        return made

    def _serve(
        self, now_s: float, name_attempt: Callable[[Request], AttemptId]
    ) -> tuple[list[Placement], bool]:
        """Make one pass; return also whether another one could place nothing more.

        It could not if all that is blocked was looked at after the last placement.
        """
        made: list[Placement] = []
        is_settled, has_passed = True, False
        serving = ServingPass(self.engines)
        cursors = self._cursors(serving)
        while cursors and self._free:
            cursor = min(cursors, key=Cursor.key) if len(cursors) > 1 else cursors[0]
            request = cursor.request
            free = serving.free_for(cursor, request)
            placements = [] if free is None else self._place(request, free, cursor.queue, now_s)
            if placements:
                self._commit(placements, serving.kept, name_attempt, now_s)
                made += placements
                is_settled &= not has_passed
            else:
                has_passed = True
                serving.leave_behind(cursor, request)
                if len(cursors) == 1:
                    cursor.pass_over_settled(serving.kept.settled_tokens(cursor.model))
            if cursor.is_at_end or not serving.has_engines(cursor):
                self._reach[cursor.model] = cursor.reach()
                cursors.remove(cursor)
        return made, is_settled

    def _cursors(self, serving: ServingPass) -> list[Cursor]:
        cursors = []
        for model, queue in self._queues.items():
            cursor = Cursor(model, queue, self._index(model), self._config.max_backfill)
            if serving.has_engines(cursor):
                cursors.append(cursor)
            else:
                self._reach[model] = cursor.reach()
        return cursors

    def _index(self, model: str | None) -> EngineIndex:
        index = self._indexes.get(model)
        if index is None:
            index = EngineIndex(e for e in self.engines.values() if e.serves(model))
            self._indexes[model] = index
        return index

    def _place(
        self, request: Request, free: FreeEngines, queue: WaitingQueue, now_s: float
    ) -> list[Placement]:
        alive, max_shared = self.engines.values(), self._config.max_shared
        return self._policy.place(
            request, ClusterView(alive, free, queue, self.prefixes, max_shared, now_s)
        )

    def _commit(
        self,
        placements: list[Placement],
        kept: Kept,
        name_attempt: Callable[[Request], AttemptId],
        now_s: float,
    ) -> None:
        for request, engine_id, _ in placements:
            kept.note_change(self.engines[engine_id])
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
        objective = request.objective
        engine.add(
            attempt,
            engine.added_tokens(request, resident),
            is_latency=objective.objective_class is ObjectiveClass.LATENCY,
            is_bounded=objective.is_bounded,
            now_s=now_s,
            load=load_of(request, resident),
            chain=request.prefixes,
        )
        self.note(engine)
        self.prefixes.record(engine_id, request.sharing)
        self._memory.placed(request, attempt, engine)

    def _remove(self, request: Request) -> None:
        self._is_settled = False
        queue = self._queues[request.model]
        queue.remove(request)
        if not queue:
            del self._queues[request.model]
            if queue.renew():
                self._spare = queue
