"""What placement policies see and say; one module per policy implements it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixIndex
from parrot_backend.core.scheduling.free_engines import FreeEngines
from parrot_backend.core.scheduling.queue import WaitingQueue


class Placement(NamedTuple):
    """One decision: this request goes to this engine, for this reason."""

    request: Request
    engine: EngineId
    reason: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What a policy may look at. It changes nothing.

    Attributes:
        engines: Live engines of all models.
        free: Those that serve the model, have a free slot and are not kept for others, in order of
            joining; going through all of them costs as much as there are.
        queue: The ready requests for the model, the one to be placed among them.
        prefixes: Which engine holds which prefix.
        max_shared: How many requests that share a prefix are placed together at most.
        now_s: The time.
    """

    engines: Collection[EngineState]
    free: FreeEngines
    queue: WaitingQueue
    prefixes: PrefixIndex
    max_shared: int
    now_s: float = 0.0

    def avoided(self, requests: Sequence[Request]) -> Collection[EngineId]:
        """Return the engines that any of the requests failed on before.

        A single request that failed on every engine there is may try them all again.
        """
        if len(requests) == 1 and not requests[0].avoided:
            return ()
        avoided = {engine for request in requests for engine in request.avoided}
        if not avoided or len(requests) > 1:
            return avoided
        model = requests[0].model
        is_hopeless = all(e.id in avoided for e in self.engines if e.serves(model))
        return () if is_hopeless else avoided

    def candidates(self, requests: Sequence[Request]) -> Sequence[EngineState]:
        """Filter: engines with a free slot that failed none of the requests before."""
        avoided = self.avoided(requests)
        if not avoided:
            return self.free
        return [engine for engine in self.free if engine.id not in avoided]

    def need_tokens(
        self, engine: EngineState, requests: Sequence[Request], shared_tokens: int = 0
    ) -> int:
        """Return the KV tokens that requests would add to an engine.

        What the engine holds already is not added, and a prefix shared among them only once.
        """
        need = 0
        for position, request in enumerate(requests):
            resident = self.prefixes.resident_tokens(engine.id, request.sharing)
            added = engine.added_tokens(request, resident)
            need += min(added, max(0, request.need_tokens - (shared_tokens if position else 0)))
        return need


class PlacementPolicy(Protocol):
    """Chooses engines. A policy is a function of its arguments, and of its memory if it has one.

    It keeps no state itself: its memory is the scheduler's (``memory.py``), and is only read here.
    """

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place the request, and perhaps others of the queue with it.

        Returns:
            Placements in order, each on an engine that admits all before it too; empty when no
            engine has room for the request now.
        """
        ...
