from __future__ import annotations

from typing import Any

import pytest

from parrot_backend.core.ids import EngineId
from parrot_backend.engines.openai_http import OpenAIConfig, OpenAIEngine
from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine
from parrot_backend.engines.vllm import VllmConfig, VllmEngine
from parrot_backend.models import tiny_model_path
from parrot_backend.server.config import ConfigError, load_settings
from parrot_backend.server.engine_factory import create_slots
from parrot_backend.vllm_plugin.options import PluginOptions


def config_of(kind: type[Any], **flags: Any) -> Any:
    """Return the configuration of the engine that the flags lead to."""
    slot = create_slots(load_settings(flags).engines)[0]
    engine: Any = slot.create(EngineId("e"))
    assert kind is type(engine)
    return engine._config


def test_each_replica_is_a_slot_of_its_own():
    slots = create_slots(load_settings({"engine": "scripted", "replicas": 3}).engines)

    assert [slot.name for slot in slots] == ["scripted-0", "scripted-1", "scripted-2"]


def test_what_is_not_set_is_left_to_the_engine():
    assert config_of(ScriptedEngine, engine="scripted") == ScriptedConfig()


def test_scripted_delays_become_seconds():
    config = config_of(
        ScriptedEngine, engine="scripted", prefill_us_per_token=5.0, token_ms=20.0, max_num_seqs=3
    )

    assert (config.prefill_s_per_token, config.token_s, config.max_requests) == (5e-6, 0.02, 3)


def test_without_a_model_vllm_gets_the_one_that_ships_with_parrot():
    config = config_of(VllmEngine)

    assert config == VllmConfig(
        str(tiny_model_path()),
        served_model_name="parrot-tiny",
        tool_call_parser="hermes",
        compact_json=True,
    )


def test_vllm_gets_what_is_set():
    config = config_of(
        VllmEngine,
        model="m",
        max_model_len=99,
        kv_cache_gib=0.5,
        max_num_seqs=7,
        tool_call_parser="qwen3",
        reasoning_parser="deepseek_r1",
        compact_json=True,
    )

    assert config == VllmConfig(
        "m",
        max_model_len=99,
        kv_cache_bytes=2**29,
        max_num_seqs=7,
        tool_call_parser="qwen3",
        reasoning_parser="deepseek_r1",
        compact_json=True,
    )


async def test_a_remote_server_gets_its_address_and_key():
    flags = {"openai_base_url": "http://127.0.0.1:1/v1", "openai_api_key": "sk-1", "model": "m"}

    config = config_of(OpenAIEngine, engine="openai", **flags)

    assert config == OpenAIConfig("http://127.0.0.1:1/v1", api_key="sk-1", model="m")


def test_the_plug_in_gets_what_is_set():
    config = config_of(
        VllmEngine,
        order_by_hints=False,
        pace_steps=False,
        preempt=False,
        pin_prefixes=False,
        attention_graphs=False,
        latency_slowdown=1.5,
        max_pinned_share=0.25,
        pin_ttl_s=9.0,
    )

    assert config.scheduler == "parrot"
    assert config.plugin == PluginOptions(
        order=False,
        pace=False,
        preempt=False,
        pin=False,
        attention_graphs=False,
        splice=True,
        slowdown=1.5,
        max_pinned_share=0.25,
        pin_ttl_s=9.0,
    )


@pytest.mark.parametrize("given", [True, False, None])
def test_shared_attention_is_passed_on(given: bool | None):
    flags = {} if given is None else {"shared_attention": given}
    assert config_of(VllmEngine, **flags).shared_attention is given


def test_vllm_can_do_without_the_plug_in():
    config = config_of(VllmEngine, vllm_scheduler="vllm")

    assert config.scheduler == "vllm"
    assert config.engine_arguments(is_cpu=True)["additional_config"] == {}


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"vllm_scheduler": "other"}, "vllm_scheduler"),
        ({"latency_slowdown": 0.5}, "latency_slowdown"),
        ({"max_pinned_share": 1.5}, "max_pinned_share"),
        ({"pin_ttl_s": 0}, "pin_ttl_s"),
    ],
)
def test_bad_settings_of_the_plug_in_are_named(flags: dict[str, Any], field: str):
    with pytest.raises(ConfigError, match=field):
        load_settings(flags)


def test_parts_in_the_core_can_be_switched_off():
    plain = load_settings({}).server.core_config()
    changed = load_settings(
        {"early_fill": True, "retain_prefixes": False, "splice": False}
    ).server.core_config()

    assert (plain.early_fill.is_on, plain.retain_prefixes, plain.splice) == (False, True, True)
    assert (changed.early_fill.is_on, changed.retain_prefixes, changed.splice) == (
        True,
        False,
        False,
    )
