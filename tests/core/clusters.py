"""Clusters of engines for tests of placement: load, queue and caches given in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixChain, PrefixIndex, PrefixIndexConfig
from parrot_backend.core.scheduling.engine_index import EngineIndex
from parrot_backend.core.scheduling.free_engines import FreeEngines
from parrot_backend.core.scheduling.orders import topological_order
from parrot_backend.core.scheduling.placement import ClusterView, Placement
from parrot_backend.core.scheduling.queue import WaitingQueue
from tests.helpers.builders import make_ages, make_engine_state

LATENCY_LOAD, THROUGHPUT_LOAD = True, False


def make_loaded_engine(
    name: str,
    *running: tuple[int, bool],
    models: tuple[str, ...] = ("m",),
    capacity_tokens: int = 1000,
    latency_capacity_tokens: int = 300,
    max_requests: int = 8,
) -> EngineState:
    """Return an engine that runs attempts given as (tokens, whether latency-sensitive)."""
    engine = make_engine_state(
        name,
        models=models,
        capacity_tokens=capacity_tokens,
        latency_capacity_tokens=latency_capacity_tokens,
        max_requests=max_requests,
    )
    for number, (tokens, is_latency) in enumerate(running):
        engine.add(AttemptId(f"{name}-{number}"), tokens, is_latency=is_latency, now_s=0.0)
    return engine


def make_view(
    *engines: EngineState,
    queued: Sequence[Request] = (),
    held: Mapping[str, PrefixChain] | None = None,
    max_shared: int = 32,
    now_s: float = 0.0,
) -> ClusterView:
    """Return what a policy sees: engines, queued requests and the prefixes that engines hold."""
    queue = WaitingQueue(topological_order, make_ages(), min_prefix_tokens=32)
    for request in queued:
        queue.add(request)
    prefixes = PrefixIndex(PrefixIndexConfig())
    for position, engine in enumerate(engines):
        engine.order = position
        prefixes.add_engine(engine.id)
    for name, chain in (held or {}).items():
        prefixes.record(EngineId(name), chain)
    free = FreeEngines(EngineIndex(engines))
    return ClusterView(engines, free, queue, prefixes, max_shared, now_s)


def placed(placements: list[Placement]) -> dict[str, str]:
    """Return which request goes to which engine."""
    return {request.id: engine for request, engine, _ in placements}
