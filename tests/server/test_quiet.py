"""Quiet sessions over HTTP: which requests are quiet, and what those get who come to listen."""

from __future__ import annotations

import asyncio

import pytest

from tests.server.conftest import StartServer, until
from tests.server.programs import Body, call, one_call
from tests.server.sse import stream_submit, stream_variable
from tests.server.toy_engine import ToyPlan

UNTOLD: list[Body] = [{"variable": "out", "tokens": False}]


@pytest.mark.parametrize(("fields", "quiet"), [({}, True), ({"timeout_s": 9}, False)])
async def test_the_engine_hears_whether_anybody_listens(
    start: StartServer, fields: Body, quiet: bool
):
    plan = ToyPlan()
    server = await start(plan)
    await server.submit(**one_call(**fields))
    assert [request.quiet for request in plan.engine.started] == [quiet]


async def test_who_comes_to_a_quiet_call_gets_the_text_at_its_end(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan)
    nodes = [call("a", "x{{output:x}}"), call("b", "{{input:x}}{{output:out}}")]
    body = {"nodes": nodes, "outputs": UNTOLD}
    events = stream_submit(server.client, body)
    session = (await anext(events))[1]["session_id"]

    joined = stream_variable(server.client, f"{session}.x")
    assert (await anext(joined))[0] == "session"
    plan.engine.finish("said")
    assert [kind async for kind, _ in joined] == ["token", "variable", "done"]

    await until(lambda: bool(plan.engine.running))
    plan.engine.say("more")
    plan.engine.finish("more")
    assert [kind async for kind, _ in events] == ["variable", "done"]
    assert [request.quiet for request in plan.engine.started] == [True, False]


async def test_a_quiet_call_runs_again_where_its_engine_died(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    waiting = asyncio.create_task(server.submit(**one_call()))
    await until(lambda: bool(plan.made) and bool(plan.engine.running))
    plan.engine.die()
    await until(lambda: len(plan.made) == 2 and bool(plan.engine.running))
    assert all(request.quiet for request in plan.engine.started)
    plan.engine.finish("again")
    assert (await waiting).json()["variables"]["out"]["value"] == "again"
