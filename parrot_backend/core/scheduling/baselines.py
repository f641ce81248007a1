"""Baseline policies ``fcfs`` and ``least_loaded``: request by request, blind to the application."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.engine_index import Measure, by_joining, by_load, by_room
from parrot_backend.core.scheduling.placement import ClusterView, Placement

#: If no more engines than these have room, they are looked at instead of those that score best.
_FEW = 8


class FcfsPlacement:
    """The first engine, in order of joining, that has room."""

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request on the first engine with room."""
        engine = _first_with_room(request, view, by_joining)
        return [] if engine is None else [Placement(request, engine.id, "first engine with room")]


class LeastLoadedPlacement:
    """The engine with the fewest running requests, then the fewest tokens in use."""

    def place(self, request: Request, view: ClusterView) -> list[Placement]:
        """Place one request on the least loaded engine that has room."""
        engine = _first_with_room(request, view, by_load)
        return [] if engine is None else [Placement(request, engine.id, "fewest running requests")]


def has_room(request: Request, engine: EngineState, view: ClusterView) -> bool:
    """Tell whether an engine has room for a request beside the prefix of it that it holds."""
    return engine.fits(view.need_tokens(engine, [request]))


def least_loaded(engines: Iterable[EngineState]) -> EngineState:
    """Return the engine with the fewest running requests; of equals the oldest."""
    return min(engines, key=lambda engine: (len(engine.running), engine.order))


def _first_with_room(request: Request, view: ClusterView, measure: Measure) -> EngineState | None:
    """Return the first engine by a measure with room for a request.

    Objectives are ignored: an engine is bounded by its slots and memory alone.
    """
    need, avoided = request.need_tokens, view.avoided([request])
    few = view.free.up_to(by_room, -need, _FEW)
    if few is not None:
        few.sort(key=lambda engine: (measure(engine), engine.order))
    for engine in view.free.walk(measure) if few is None else few:
        if engine.id not in avoided and engine.fits(need):
            return engine
    return None
