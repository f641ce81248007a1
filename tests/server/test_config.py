from __future__ import annotations

import pytest

from parrot_backend.server.config import ConfigError, ServerSettings, load_settings


def test_the_defaults_listen_on_loopback_only():
    settings = load_settings({})

    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8642)
    assert settings.server.max_body_bytes == 8 * 1024 * 1024
    assert settings.engines.engine == "vllm"


def test_the_environment_sets_what_flags_do_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARROT_PORT", "1000")
    monkeypatch.setenv("PARROT_HOST", "::1")

    settings = load_settings({"port": 2000, "host": None})

    assert (settings.server.host, settings.server.port) == ("::1", 2000)


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARROT_MAX_WAIT_S", "soon")

    with pytest.raises(ConfigError) as caught:
        load_settings({"port": 70000, "engine": "llama", "replicas": 0, "colour": "red"})

    told = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    for name in ("PARROT_PORT", "PARROT_MAX_WAIT_S", "PARROT_ENGINE", "PARROT_REPLICAS", "colour"):
        assert name in told


def test_the_openai_engine_needs_an_address():
    with pytest.raises(ConfigError, match="PARROT_OPENAI_BASE_URL"):
        load_settings({"engine": "openai"})


def test_the_key_comes_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "sk-1")
    flags = {"engine": "openai", "openai_base_url": "http://x", "openai_api_key_env": "MY_KEY"}

    settings = load_settings(flags)

    assert settings.engines.openai_api_key is not None
    assert settings.engines.openai_api_key.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(settings)


def test_the_core_gets_its_part():
    settings = ServerSettings(placement="fcfs", max_graph_nodes=7, engine_stall_s=9)

    config = settings.core_config()

    assert config.scheduler.placement == "fcfs"
    assert (config.max_nodes_per_session, config.engine_stall_s) == (7, 9.0)


def test_shares_and_lengths_reach_the_core(monkeypatch: pytest.MonkeyPatch):
    plain = load_settings({}).server.core_config()
    assert (plain.scheduler.fair, plain.scheduler.tenant_weights) == (True, {})
    assert plain.lengths.is_on

    monkeypatch.setenv("PARROT_TENANT_WEIGHTS", '{"a": 2.5}')
    flags = {"fair": False, "learn_lengths": False, "ordering": "shortest_job"}
    config = load_settings(flags).server.core_config()

    assert (config.scheduler.fair, config.scheduler.tenant_weights) == (False, {"a": 2.5})
    assert config.scheduler.ordering == "shortest_job"
    assert not config.lengths.is_on


@pytest.mark.parametrize("weight", ["0", "-1", "NaN", "Infinity"])
def test_a_share_is_a_number_above_nothing(monkeypatch: pytest.MonkeyPatch, weight: str):
    monkeypatch.setenv("PARROT_TENANT_WEIGHTS", f'{{"a": {weight}}}')

    with pytest.raises(ConfigError, match="PARROT_TENANT_WEIGHTS"):
        load_settings({})
