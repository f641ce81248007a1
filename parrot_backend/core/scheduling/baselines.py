"""Baseline policies ``fcfs`` and ``least_loaded``: request by request, blind to the application."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.placement import ClusterView, Placement


class FcfsPlacement:
    """The first engine, in order of joining, that has room."""

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request on the first engine with room."""
        for engine in _with_room(request, view):
            return [Placement(request, engine.id, "first engine with room")]
        return []


class LeastLoadedPlacement:
    """The engine with the fewest running requests, then the fewest tokens in use."""

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request on the least loaded engine that has room."""
        engines = _with_room(request, view)
        if not engines:
            return []
        best = min(engines, key=lambda e: (len(e.running), e.used_tokens))
        return [Placement(request, best.id, f"fewest running requests of {len(engines)} engines")]


def _with_room(request: Request, view: ClusterView) -> list[EngineState]:
    # Objectives are ignored: an engine is bounded by its slots and memory alone.
    return [engine for engine in view.candidates([request]) if engine.fits(request.need_tokens)]


def has_room(request: Request, engine: EngineState, view: ClusterView) -> bool:
    """Tell whether an engine has room for a request beside the prefix of it that it holds."""
    return engine.fits(view.need_tokens(engine, [request]))


def least_loaded(engines: Iterable[EngineState]) -> EngineState:
    """Return the engine with the fewest running requests; of equals the oldest."""
    return min(engines, key=lambda engine: (len(engine.running), engine.order))
