from __future__ import annotations

import asyncio

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import call, chain, one_call, wanted
from tests.server.sse import stream_submit, stream_variable
from tests.server.toy_engine import ToyPlan


async def held_call(server: RunningServer) -> str:
    """Submit a call that the engine holds; return its variable."""
    body = (await server.submit(**one_call(wait=False))).json()
    return f"{body['session_id']}.out"


async def test_events_come_in_order(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: "yes"))

    events = [event async for event in stream_submit(server.client, one_call())]

    kinds = [kind for kind, _ in events]
    assert kinds == ["session", "token", "variable", "done"]
    assert events[0][1]["variables"]["out"]["state"] == "empty"
    assert events[1][1] == {"variable": "out", "text": "yes", "kind": "text"}
    assert events[2][1]["value"] == "yes"
    assert events[3][1] == {}


async def test_text_arrives_while_it_is_generated(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan)
    seen = []

    async for kind, data in stream_submit(server.client, one_call()):
        seen.append((kind, data.get("text", data.get("value"))))
        match len(seen):
            case 1:
                plan.engine.say("one\n")
            case 2:
                plan.engine.say("two")
            case 3:
                plan.engine.finish("one\ntwo")

    assert seen == [
        ("session", None),
        ("token", "one\n"),
        ("token", "two"),
        ("variable", "one\ntwo"),
        ("done", None),
    ]


async def test_all_wanted_outputs_share_one_stream(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: "x"))

    events = [event async for event in stream_submit(server.client, chain())]

    kinds = [kind for kind, _ in events]
    settled = [data["name"] for kind, data in events if kind == "variable"]
    assert kinds == ["session", "token", "variable", "token", "variable", "done"]
    assert settled == ["code", "test"]


async def test_a_failure_is_an_event_and_not_the_end_of_the_stream(start: StartServer):
    server = await start()
    nodes = [call("long", "x" * 200 + "{{output:bad}}"), call("short", "y{{output:good}}")]
    body = {"nodes": nodes, "outputs": wanted("bad", "good")}

    events = [event async for event in stream_submit(server.client, body)]

    states = {data["name"]: data["state"] for kind, data in events if kind == "variable"}
    assert states == {"bad": "failed", "good": "ready"}
    assert events[-1][0] == "done"


async def test_when_time_is_up_the_stream_says_so(start_listening: StartServer):
    server = await start_listening(ToyPlan(is_held=True))

    events = [e async for e in stream_submit(server.client, one_call(timeout_s=0.1))]

    assert [kind for kind, _ in events] == ["session", "timeout"]
    assert server.service.runtime.num_waiters == 0


async def test_a_bad_submit_is_an_error_and_no_stream(start: StartServer):
    server = await start()

    reply = await server.submit(nodes=[call("a", "hi")], stream=True)

    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/json"


async def test_a_late_stream_begins_with_all_text_so_far(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan)
    variable = await held_call(server)
    plan.engine.say("one ")
    plan.engine.say("two ")
    partial = server.service.coordinator.variable(variable).partial  # type: ignore[arg-type]
    await until(lambda: len(partial) == 2)
    seen = []

    async for kind, data in stream_variable(server.client, variable):
        seen.append((kind, data.get("text")))
        if kind == "session":
            assert data["variables"]["out"]["state"] == "generating"
            plan.engine.finish("one two three")

    assert seen[:2] == [("session", None), ("token", "one two ")]
    assert [kind for kind, _ in seen[2:]] == ["variable", "done"]


async def test_the_stream_of_a_settled_variable_is_short(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: "yes"))
    session = (await server.submit(**one_call())).json()["session_id"]

    events = [event async for event in stream_variable(server.client, f"{session}.out")]

    assert [kind for kind, _ in events] == ["session", "variable", "done"]
    assert events[1][1]["value"] == "yes"


async def test_a_stream_is_told_to_forget_text_when_its_engine_dies(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan)
    seen = []

    async for kind, data in stream_submit(server.client, one_call()):
        seen.append((kind, data.get("text", data.get("value"))))
        if kind == "session":
            plan.engine.say("lost")
            plan.engine.die()
            asyncio.get_running_loop().create_task(finish_on_the_second(plan))

    assert seen == [
        ("session", None),
        ("token", "lost"),
        ("reset", None),
        ("token", "new"),
        ("variable", "new"),
        ("done", None),
    ]


async def finish_on_the_second(plan: ToyPlan) -> None:
    await until(lambda: len(plan.made) == 2 and bool(plan.engine.running))
    plan.engine.say("new")
    plan.engine.finish("new")


async def test_a_silent_stream_carries_pings(start_listening: StartServer):
    server = await start_listening(ToyPlan(is_held=True), stream_ping_s=0.05)
    body = {**one_call(timeout_s=0.3), "stream": True}

    reply = await server.client.post("/v1/submit", json=body)

    assert reply.text.count(": ping") >= 2
