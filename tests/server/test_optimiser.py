"""Calls that need no engine, over HTTP: values, states, usage, metrics and switches."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import Body, call, wanted
from tests.server.toy_engine import ToyPlan

GREEDY = {"max_tokens": 8, "temperature": 0}


def two_calls(**fields: object) -> Body:
    nodes = [call("a", "x{{output:a}}", sampling=GREEDY), call("b", "y{{output:b}}")]
    return {"nodes": nodes, "outputs": wanted("a"), **fields}


async def session_of(server: RunningServer, body: Body) -> Body:
    session = body["session_id"]
    view: Body = (await server.client.get(f"/v1/sessions/{session}")).json()
    return view


async def metric(server: RunningServer, name: str) -> float:
    text = (await server.client.get("/metrics")).text
    return float(next(x for x in text.splitlines() if x.startswith(f"{name} ")).split()[1])


@pytest.mark.parametrize(("prune", "expected"), [(True, "pruned"), (False, "finished")])
async def test_a_call_that_nobody_can_want_is_pruned(
    start: StartServer, prune: bool, expected: str
):
    plan = ToyPlan()
    server = await start(plan, prune=prune)

    reply = (await server.submit(**two_calls(close=True))).json()
    session = await session_of(server, reply)
    late = (await server.client.get(f"/v1/variables/{reply['session_id']}.b")).json()

    nodes = {node["output"]: node for node in session["nodes"]}
    assert (nodes["a"]["state"], nodes["b"]["state"]) == ("finished", expected)
    assert len(plan.engine.started) == 1 + (not prune)
    assert await metric(server, "parrot_pruned_calls_total") == prune
    if prune:
        assert nodes["b"]["reason"] == "nobody can want it"
        assert late["error"]["code"] == "pruned"


@pytest.mark.parametrize("merge", [True, False])
async def test_equal_calls_of_two_clients_run_once(start: StartServer, merge: bool):
    plan = ToyPlan(is_held=True)
    server = await start(plan, merge_calls=merge)
    clients = [asyncio.create_task(server.submit(**two_calls(close=True))) for _ in range(2)]
    await until(lambda: len(server.service.coordinator.sessions) == 2)
    await until(lambda: len(plan.engine.running) == 2 - merge)

    for attempt in list(plan.engine.running):
        plan.engine.finish("word", attempt)
    replies = [(await client).json() for client in clients]

    values = [reply["variables"]["a"]["value"] for reply in replies]
    assert values[0] == values[1] is not None
    assert await metric(server, "parrot_merged_calls_total") == merge
    usages = [reply["variables"]["a"]["usage"] for reply in replies]
    assert [u["cached_tokens"] == u["prompt_tokens"] for u in usages].count(True) == merge


@pytest.mark.parametrize(("size_mib", "expected"), [(1.0, 1), (0.0, 0)])
async def test_a_result_is_kept_where_there_is_a_cache(
    start: StartServer, size_mib: float, expected: int
):
    plan = ToyPlan()
    server = await start(plan, result_cache_mib=size_mib)

    replies = [(await server.submit(**two_calls(close=True))).json() for _ in range(2)]
    session = await session_of(server, replies[1])

    assert replies[0]["variables"]["a"]["value"] == replies[1]["variables"]["a"]["value"]
    assert len(plan.engine.started) == 2 - expected
    assert await metric(server, "parrot_result_cache_hits_total") == expected
    assert (session["nodes"][0]["reason"] == "an equal call ran before") == bool(expected)


async def ended(server: RunningServer) -> dict[str, float]:
    """Return how many calls ended in which way, and ``unfinished`` and ``begun``."""
    lines = (await server.client.get("/metrics")).text.splitlines()
    prefix = 'parrot_calls_ended_total{result="'
    found = {
        line.removeprefix(prefix).partition('"')[0]: float(line.split()[1])
        for line in lines
        if line.startswith(prefix)
    }
    found["unfinished"] = await metric(server, "parrot_num_calls_unfinished")
    return {**found, "begun": await metric(server, "parrot_calls_total")}


async def test_every_call_is_seen_to_end_whether_an_engine_ran_it_or_not(
    start: StartServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "parrot_backend.server.observability")
    plan = ToyPlan(is_held=True)
    server = await start(plan, result_cache_mib=1)
    clients = [asyncio.create_task(server.submit(**two_calls(close=True))) for _ in range(2)]
    await until(lambda: len(server.service.coordinator.sessions) == 2)
    await until(lambda: len(plan.engine.running) == 1)
    during = await ended(server)
    plan.engine.finish("word")
    first, second = [(await client).json()["session_id"] for client in clients]
    third = (await server.submit(**two_calls(close=True))).json()["session_id"]
    waits = (await server.submit(**two_calls(wait=False, close=False))).json()["session_id"]
    await until(lambda: len(plan.engine.running) == 1)
    await server.client.delete(f"/v1/sessions/{waits}")

    # The calls "b" of three sessions are pruned at once; the last session's runs and is cancelled.
    after = await ended(server)
    assert during == {
        **{"finished": 0, "merged": 0, "cached": 0, "failed": 0, "cancelled": 0, "pruned": 2},
        **{"unfinished": 2, "begun": 4},
    }
    assert after == {
        **{"finished": 1, "merged": 1, "cached": 2, "failed": 0, "cancelled": 1, "pruned": 3},
        **{"unfinished": 0, "begun": 8},
    }
    assert await metric(server, 'parrot_request_success_total{finished_reason="stop"}') == 1
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("call=")]
    heads = [" ".join(line.split()[:4]) for line in lines]
    assert heads[:3] == [
        f"call={first}.a#0 finished(stop) engine=toy-0 attempts=1",
        f"call={second}.a#0 finished(stop) merged with={first}.a#0",
        f"call={third}.a#0 finished(stop) from=cache objective=latency",
    ]
    assert [line.split()[0] for line in lines[3:]] == [f"call={waits}.a#0", f"call={waits}.b#0"]
