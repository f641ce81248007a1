"""What a simulated engine says of itself when it joins: its limits, and how long its steps take."""

from __future__ import annotations

from dataclasses import replace

from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import EngineId
from parrot_backend.core.step_time import StepTimeFitter, StepTimeModel, StepWork
from parrot_backend.sim.spec import EngineSpec, LatencyModel

_CHUNKS = (64, 256, 1024, 4096)
_BATCHES = (1, 4, 16, 64, 256)
_CONTEXTS = (64, 1024, 8192)

#: How often each kind of step is seen; then the fit is settled.
_ROUNDS = 4


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
    )


def reports_cache(spec: EngineSpec) -> bool:
    """Tell whether an engine keeps prefixes when told to, and reports what it holds."""
    return spec.rules == "parrot" and spec.caches_prefixes


def learnt_step_time(latency: LatencyModel) -> StepTimeModel | None:
    """Return what an engine with our plug-in would have learnt of its steps, were it long at work.

    The live engine fits the same linear model to the steps that it sees.
    """
    fitter = StepTimeFitter()
    chunks = [StepWork.prefill(chunk, context) for chunk in _CHUNKS for context in (0, *_CONTEXTS)]
    decodes = [
        StepWork(decodes=batch, context_tokens=batch * context)
        for batch in _BATCHES
        for context in _CONTEXTS
    ]
    mixed = [prefill + decode for prefill in chunks[::3] for decode in decodes[::2]]
    for _ in range(_ROUNDS):
        for work in (*chunks, *decodes, *mixed):
            fitter.observe(work, latency.step_s(work))
    return fitter.model


def slowed(model: StepTimeModel, factor: float) -> StepTimeModel:
    """Return the model of an engine that takes so many times as long."""
    return replace(
        model,
        base_s=model.base_s * factor,
        per_prefill_token_s=model.per_prefill_token_s * factor,
        per_decode_s=model.per_decode_s * factor,
        per_context_token_s=model.per_context_token_s * factor,
        per_prefill_pair_s=model.per_prefill_pair_s * factor,
    )
