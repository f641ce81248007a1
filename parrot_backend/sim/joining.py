"""What a simulated engine says of itself when it joins."""

from __future__ import annotations

from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import EngineId
from parrot_backend.sim.spec import EngineSpec


def engine_info(spec: EngineSpec, engine: EngineId) -> EngineInfo:
    """Return what an engine says of itself when it joins."""
    capacity_tokens = spec.capacity_tokens or spec.num_blocks * spec.block_tokens
    bound_tokens = spec.latency_capacity_tokens
    return EngineInfo(
        engine=engine,
        models=(spec.model,),
        max_model_len=spec.max_model_len,
        capacity_tokens=capacity_tokens,
        latency_capacity_tokens=capacity_tokens if bound_tokens is None else bound_tokens,
        max_requests=spec.max_requests,
        keeps_prefixes=reports_cache(spec),
        takes_updates=spec.rules == "parrot",
        block_tokens=spec.block_tokens,
        max_step_tokens=spec.max_step_tokens,
        repeated_read=spec.repeated_read,
    )


def reports_cache(spec: EngineSpec) -> bool:
    """Tell whether an engine keeps prefixes when told to, and reports what it holds."""
    return spec.rules == "parrot" and spec.caches_prefixes
