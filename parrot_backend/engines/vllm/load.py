"""The load of an engine, from what vLLM's statistics tell."""

from __future__ import annotations

from parrot_backend.engines.base import EngineLoad
from parrot_backend.vllm_compat.records import LoadRecord


def load_of(record: LoadRecord, num_unfinished: int) -> EngineLoad:
    """Return the load.

    Args:
        record: vLLM's statistics after its latest step.
        num_unfinished: Requests that the client knows of; an engine whose last request was aborted
            makes no step that would report it.
    """
    running = min(record.running, num_unfinished)
    return EngineLoad(
        running=running,
        waiting=min(record.waiting, num_unfinished - running),
        kv_usage=record.kv_usage if num_unfinished else 0.0,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        generated_tokens=record.generated_tokens,
    )
