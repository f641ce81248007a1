from __future__ import annotations

import logging

import httpx
import pytest
from fastapi import FastAPI

from parrot_backend.core.events import EngineReported
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.engines.base import AttentionLoad
from tests.server.conftest import StartServer, make_app, until
from tests.server.programs import one_call
from tests.server.toy_engine import ToyPlan

METRICS = [
    "parrot_num_requests_running",
    "parrot_num_requests_waiting",
    "parrot_num_calls_unfinished",
    "parrot_sessions",
    "parrot_waiters",
    'parrot_engine_up{engine="toy-0"} 1.0',
    'parrot_kv_cache_usage_perc{engine="toy-0"} 0.25',
    'parrot_kv_pinned_tokens{engine="toy-0"} 0.0',
    'parrot_kv_pinned_hit_tokens_total{engine="toy-0"} 0.0',
    'parrot_kv_lost_pins_total{engine="toy-0"} 0.0',
    'parrot_engine_preempted_total{engine="toy-0"} 0.0',
    "parrot_submits_total 1.0",
    'parrot_request_success_total{finished_reason="stop"} 1.0',
    "parrot_prompt_tokens_total 2.0",
    "parrot_generation_tokens_total 4.0",
    "parrot_prefix_cache_queries_total 2.0",
    "parrot_prefix_cache_hits_total 0.0",
    'parrot_request_queue_time_seconds_count{objective="latency"} 1.0',
    'parrot_time_to_first_token_seconds_count{objective="latency"} 1.0',
    'parrot_e2e_request_latency_seconds_count{objective="latency"} 1.0',
    "parrot_scheduling_decision_seconds_count",
]


async def test_health_answers_before_any_engine_is_ready():
    app = make_app(ToyPlan(opens=False))
    async with app.router.lifespan_context(app), in_process(app) as client:
        health = await client.get("/health")
        ready = await client.get("/ready")

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "no_engine")
    assert ready.headers["Retry-After"]


async def test_ready_turns_with_the_engines(start: StartServer):
    plan = ToyPlan()
    server = await start(plan, engine_restart_delay_s=60)

    before = await server.client.get("/ready")
    plan.engine.die()
    await until(lambda: not server.service.coordinator.engines)
    after = await server.client.get("/ready")

    assert (before.status_code, before.json()) == (200, {"status": "ready"})
    assert after.status_code == 503


async def test_models_are_listed_once_with_their_length(start: StartServer):
    server = await start(ToyPlan(), ToyPlan())
    await until(lambda: len(server.service.coordinator.engines) == 2)

    reply = await server.client.get("/v1/models")

    assert reply.json() == {
        "object": "list",
        "data": [
            {
                "id": "toy",
                "object": "model",
                "created": server.service.started_unix_s,
                "owned_by": "parrot",
                "max_model_len": 100,
            }
        ],
    }


async def test_the_time_of_a_step_is_shown_once_an_engine_knows_it(start: StartServer):
    server = await start(ToyPlan())
    name = 'parrot_engine_step_seconds{engine="toy-0"}'
    before = (await server.client.get("/metrics")).text
    model = StepTimeModel(0.002, 0.0, 0.001, 0.000001, 0.0, num_samples=100, error=0.1)
    (engine,) = server.service.coordinator.engines
    server.service.runtime.dispatch(EngineReported(engine, step_time=model))

    assert name not in before
    assert f"{name} 0.004" in (await server.client.get("/metrics")).text


async def test_shared_attention_is_shown_where_an_engine_tells_of_it(start: StartServer):
    plan = ToyPlan()
    server = await start(plan)
    silent = (await server.client.get("/metrics")).text
    view = (await server.client.get("/v1/engines")).json()["engines"][0]
    plan.engine.attention = AttentionLoad("on", 9, 7, 5_000, 3_000)
    told = (await server.client.get("/metrics")).text

    assert view["shared_attention"] is None
    assert "parrot_attention" not in "".join(
        line for line in silent.splitlines() if not line.startswith("#")
    )
    for name, value in (
        ("steps", 9),
        ("shared_steps", 7),
        ("kv_tokens", 5_000),
        ("kv_tokens_read", 3_000),
    ):
        assert f'parrot_attention_{name}_total{{engine="toy-0"}} {float(value)}' in told
    view = (await server.client.get("/v1/engines")).json()["engines"][0]
    assert view["shared_attention"] == {
        "state": "on",
        "steps": 9,
        "shared_steps": 7,
        "kv_tokens": 5_000,
        "kv_tokens_read": 3_000,
    }


@pytest.fixture
async def metrics(start: StartServer) -> str:
    """The metrics after one call."""
    server = await start(ToyPlan(answer=lambda prompt: "four"))
    await server.submit(**one_call())
    return (await server.client.get("/metrics")).text


async def test_metrics_have_their_names_and_values(metrics: str):
    missing = [name for name in METRICS if f"\n{name}" not in metrics]

    assert missing == []


async def test_two_servers_count_apart(start: StartServer):
    first, second = await start(), await start()

    await first.submit(**one_call())

    assert "parrot_submits_total 1.0" in (await first.client.get("/metrics")).text
    assert "parrot_submits_total 0.0" in (await second.client.get("/metrics")).text


async def test_failures_and_aborts_are_counted(start: StartServer):
    server = await start()
    await server.submit(**one_call("x" * 200))

    text = (await server.client.get("/metrics")).text

    assert 'parrot_request_failure_total{code="prompt_too_long"} 1.0' in text


async def test_each_call_gives_one_line_in_the_log(
    start: StartServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "parrot_backend.server.observability")
    server = await start()

    session = (await server.submit(**one_call("secret"))).json()["session_id"]

    lines = [r.getMessage() for r in caplog.records if r.name.endswith("observability")]
    assert len(lines) == 1
    assert lines[0].startswith(f"call={session}.greet#0 finished(stop) engine=toy-0 attempts=1")
    assert "secret" not in caplog.text


async def test_the_schema_tells_of_error_replies(start: StartServer):
    server = await start()

    schema = (await server.client.get("/openapi.json")).json()

    replies = schema["paths"]["/v1/submit"]["post"]["responses"]
    error = {"$ref": "#/components/schemas/ErrorReply"}
    assert set(replies) == {"200", "422", "4XX", "5XX"}
    assert replies["422"]["content"]["application/json"]["schema"] == error
    assert "HTTPValidationError" not in schema["components"]["schemas"]


def in_process(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://parrot")
