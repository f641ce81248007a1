"""The scheduler: queue and engines in, placements out."""

from __future__ import annotations

from collections.abc import Callable

from parrot_backend.core.config import PlacementName, SchedulerConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixIndex, PrefixIndexConfig
from parrot_backend.core.scheduling.baselines import FcfsPlacement, LeastLoadedPlacement
from parrot_backend.core.scheduling.paper import PaperPlacement
from parrot_backend.core.scheduling.placement import ClusterView, Placement, PlacementPolicy
from parrot_backend.core.scheduling.queue import WaitingQueue, ordering_of

PLACEMENTS: dict[PlacementName, Callable[[], PlacementPolicy]] = {
    "paper": PaperPlacement,
    "fcfs": FcfsPlacement,
    "least_loaded": LeastLoadedPlacement,
}


class Scheduler:
    """Owns the queue, the engines' accounts and the prefix index."""

    def __init__(self, config: SchedulerConfig, prefix_config: PrefixIndexConfig) -> None:
        self._config = config
        self._policy = PLACEMENTS[config.placement]()
        self.prefixes = PrefixIndex(prefix_config)
        self.queue = WaitingQueue(ordering_of(config), config.max_wait_s, prefix_config.min_tokens)
        self.engines: dict[EngineId, EngineState] = {}

    def add_engine(self, info: EngineInfo, now_s: float) -> None:
        """Begin to place on an engine."""
        self.engines[info.engine] = EngineState(info, last_output_s=now_s)
        self.prefixes.add_engine(info.engine)

    def remove_engine(self, engine: EngineId) -> EngineState:
        """Stop placing on an engine, and return its last account."""
        self.prefixes.remove_engine(engine)
        return self.engines.pop(engine)

    def enqueue(self, request: Request) -> None:
        """Take in a ready request."""
        self.queue.add(request)

    def withdraw(self, request: Request) -> None:
        """Take a request out of the queue again, if it is there."""
        if request in self.queue:
            self.queue.remove(request)

    def set_objective(self, request: Request, objective: Objective) -> None:
        """Change a request's objective, and its place in the queue if it has one."""

        def change() -> None:
            request.objective = objective

        if request in self.queue:
            self.queue.change_objective(request, change)
        else:
            change()

    def release(self, engine: EngineId, attempt: AttemptId) -> None:
        """Give back what an ended attempt took."""
        self.engines[engine].remove(attempt)

    def schedule(
        self, now_s: float, name_attempt: Callable[[Request], AttemptId]
    ) -> list[Placement]:
        """Place as many ready requests as have room, in serving order.

        A blocked request may be passed over for a later one, but not when it is old, and not by
        requests for the same model when it is latency-sensitive: what is freed must reach it.

        Args:
            now_s: The time, for ageing.
            name_attempt: Gives each placed request the id of its attempt.
        """
        self.queue.promote_old(now_s)
        made: list[Placement] = []
        open_engines = [engine for engine in self.engines.values() if engine.has_slot]
        reserved = set[str | None]()
        position = 0
        while open_engines and position < min(len(self.queue), self._config.max_backfill + 1):
            request = self.queue[position]
            placements = [] if request.model in reserved else self._place(request, open_engines)
            if not placements:
                if self.queue.is_old(request):
                    break
                if request.objective.objective_class is ObjectiveClass.LATENCY:
                    reserved.add(request.model)
                position += 1
                continue
            self._commit(placements, name_attempt)
            made += placements
            open_engines = [engine for engine in open_engines if engine.has_slot]
        return made

    def _place(self, request: Request, engines: list[EngineState]) -> list[Placement]:
        view = ClusterView(engines, self.queue, self.prefixes, self._config.max_shared)
        return self._policy.place(request, view)

    def _commit(
        self, placements: list[Placement], name_attempt: Callable[[Request], AttemptId]
    ) -> None:
        for request, engine_id, _ in placements:
            engine = self.engines[engine_id]
            resident = self.prefixes.resident_tokens(engine_id, request.prefixes)
            is_latency = request.objective.objective_class is ObjectiveClass.LATENCY
            self.queue.remove(request)
            engine.add(name_attempt(request), request.need_tokens - resident, is_latency)
            self.prefixes.record(engine_id, request.prefixes)
