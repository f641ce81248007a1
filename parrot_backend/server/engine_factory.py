"""The one place where engines are made from settings.

Each kind is imported when it is wanted, so that a server without vLLM does not need it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from parrot_backend.core.ids import EngineId
from parrot_backend.engines.base import Engine
from parrot_backend.server.config import EngineSettings
from parrot_backend.server.supervisor import EngineSlot

_CreateEngine = Callable[[EngineId], Engine]


def create_slots(settings: EngineSettings) -> tuple[EngineSlot, ...]:
    """Return a slot for each engine; nothing is started yet."""
    makers: dict[str, Callable[[EngineSettings], _CreateEngine]] = {
        "vllm": _vllm,
        "scripted": _scripted,
        "openai": _openai,
    }
    create = makers[settings.engine](settings)
    return tuple(
        EngineSlot(f"{settings.engine}-{number}", create) for number in range(settings.replicas)
    )


def _vllm(settings: EngineSettings) -> _CreateEngine:
    from parrot_backend.engines.vllm import VllmConfig, VllmEngine, prewarm
    from parrot_backend.models import TINY_MODEL_NAME, TINY_MODEL_TOOL_PARSER, tiny_model_path
    from parrot_backend.vllm_plugin.options import PluginOptions

    is_tiny = settings.model is None
    name = settings.served_model_name or (TINY_MODEL_NAME if is_tiny else None)
    gib = settings.kv_cache_gib
    config = VllmConfig(
        model=settings.model or str(tiny_model_path()),
        served_model_name=name,
        max_model_len=settings.max_model_len,
        kv_cache_bytes=None if gib is None else int(gib * 2**30),
        tool_call_parser=settings.tool_call_parser or (TINY_MODEL_TOOL_PARSER if is_tiny else None),
        reasoning_parser=settings.reasoning_parser,
        compact_json=is_tiny if settings.compact_json is None else settings.compact_json,
        scheduler=settings.vllm_scheduler,
        shared_attention=settings.shared_attention,
        plugin=PluginOptions(
            splice=True,  # the core decides whether anything is spliced
            **_given(
                order=settings.order_by_hints,
                gang=settings.gang_groups,
                pace=settings.pace_steps,
                preempt=settings.preempt,
                pin=settings.pin_prefixes,
                attention_graphs=settings.attention_graphs,
                slowdown=settings.latency_slowdown,
                max_hold_s=settings.max_hold_s,
                max_wait_s=settings.max_queue_wait_s,
                max_pinned_share=settings.max_pinned_share,
                pin_ttl_s=settings.pin_ttl_s,
            ),
        ),
        **_given(
            max_num_seqs=settings.max_num_seqs,
            latency_capacity_tokens=settings.latency_capacity_tokens,
            cpu_threads=_threads_of_each(settings.replicas),
        ),
    )
    # The server's own imports go on meanwhile.
    prewarm(config)
    return lambda engine_id: VllmEngine(engine_id, config)


def _openai(settings: EngineSettings) -> _CreateEngine:
    from parrot_backend.engines.openai_http import OpenAIConfig, OpenAIEngine

    assert settings.openai_base_url is not None, "checked when the settings were loaded"
    key = settings.openai_api_key
    config = OpenAIConfig(
        base_url=settings.openai_base_url,
        api_key=None if key is None else key.get_secret_value(),
        model=settings.model,
        **_given(
            max_model_len=settings.max_model_len,
            max_requests=settings.max_num_seqs,
            latency_capacity_tokens=settings.latency_capacity_tokens,
        ),
    )
    return lambda engine_id: OpenAIEngine(engine_id, config)


def _scripted(settings: EngineSettings) -> _CreateEngine:
    from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine

    config = ScriptedConfig(
        prefill_s_per_token=settings.prefill_us_per_token / 1e6,
        token_s=settings.token_ms / 1e3,
        **_given(
            models=_names(settings),
            max_model_len=settings.max_model_len,
            max_requests=settings.max_num_seqs,
            latency_capacity_tokens=settings.latency_capacity_tokens,
        ),
    )
    return lambda engine_id: ScriptedEngine(engine_id, config)


def _threads_of_each(replicas: int) -> int | None:
    """Return the compute threads of each of several engines; a single one takes its default."""
    if replicas == 1:
        return None
    return max(1, ((os.cpu_count() or 1) - 1) // replicas)


def _names(settings: EngineSettings) -> tuple[str, ...] | None:
    name = settings.served_model_name or settings.model
    return None if name is None else (name,)


def _given(**values: Any) -> dict[str, Any]:
    """Return the values that were set; the engine's own defaults stand for the others."""
    return {name: value for name, value in values.items() if value is not None}
