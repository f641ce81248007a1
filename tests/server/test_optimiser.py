"""Calls that need no engine, over HTTP: values, states, usage, metrics and switches."""

from __future__ import annotations

import asyncio

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
