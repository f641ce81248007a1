"""Baseline policy ``round_robin``: engines take turns, in order of joining, for each model."""

from __future__ import annotations

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.baselines import has_room
from parrot_backend.core.scheduling.memory import PlacementMemory
from parrot_backend.core.scheduling.placement import ClusterView, Placement


class Turns(PlacementMemory):
    """Which engine had the last turn, for each model; there are no more models than engines say."""

    def __init__(self) -> None:
        self._last: dict[str | None, int] = {}

    def last(self, model: str | None) -> int:
        """Return the order of the engine that had the last turn; -1 for none."""
        return self._last.get(model, -1)

    def placed(self, request: Request, attempt: AttemptId, engine: EngineState) -> None:
        """Take in that an engine had its turn."""
        self._last[request.model] = engine.order


class RoundRobinPlacement:
    """The next engine that has room after the one that came last."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request on the next engine with room."""
        last = self._turns.last(request.model)
        turns = sorted(view.candidates([request]), key=lambda e: (e.order <= last, e.order))
        for engine in turns:
            if has_room(request, engine, view):
                return [Placement(request, engine.id, "next engine in turn with room")]
        return []
