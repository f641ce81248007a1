"""Streams that report what instances of control nodes make."""

from __future__ import annotations

import json
from typing import Any

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import Body, call, external
from tests.server.sse import stream_submit
from tests.server.test_chat import ScriptedPlan
from tests.server.test_control import BETTER, POINT, answer, body, loop, map_over, read
from tests.server.toy_engine import ToyPlan


def points(**fields: Any) -> Body:
    """A list that is generated, and a call for each of its items."""
    return {
        "variables": [external("x", "tea")],
        "nodes": [
            call("skeleton", "outline {{input:x}}{{output:outline}}"),
            map_over(read("outline", "split_lines"), body("text", POINT)),
        ],
        "outputs": [{"variable": "points", "instances": True, **fields}],
    }


async def events_of(server: RunningServer, program: Body) -> list[tuple[str, Any]]:
    return [event async for event in stream_submit(server.client, program)]


async def test_instances_are_reported_on_the_stream_of_the_submit(start: StartServer):
    server = await start(ToyPlan(answer=answer))

    events = await events_of(server, points())

    values = {data["name"]: data["value"] for kind, data in events if kind == "variable"}
    assert values == {
        "expand:0:text": "<tea leaves>",
        "expand:1:text": "<tea water>",
        "points": '["<tea leaves>", "<tea water>"]',
    }
    texts = {data["variable"] for kind, data in events if kind == "token"}
    assert texts == {"expand:0:text", "expand:1:text"}
    assert events[-1][0] == "done"
    assert server.service.runtime.num_waiters == 0


async def test_without_tokens_only_values_come(start: StartServer):
    server = await start(ToyPlan(answer=answer))
    events = await events_of(server, points(tokens=False))
    assert [kind for kind, _ in events] == ["session", "variable", "variable", "variable", "done"]


async def test_every_round_of_a_loop_is_reported(start: StartServer):
    replies = iter(["bad", "worse", "fine"])
    server = await start(ToyPlan(answer=lambda prompt: next(replies)))
    program: Body = {
        "variables": [external("x", "draft")],
        "nodes": [loop(body("better", BETTER))],
        "outputs": [{"variable": "refined", "instances": True}],
    }

    events = await events_of(server, program)

    names = [data["name"] for kind, data in events if kind == "variable"]
    assert names == ["refine:0:better", "refine:1:better", "refine:2:better", "refined"]


async def test_a_repeated_submit_hears_of_instances_that_are_there(start: StartServer):
    server = await start(ToyPlan(answer=answer))
    program = {**points(), "idempotency_key": "k"}
    first = await events_of(server, program)
    again = await events_of(server, program)

    def named(events: list[tuple[str, Any]]) -> dict[str, str]:
        return {data["name"]: data["value"] for kind, data in events if kind == "variable"}

    assert named(again) == named(first)


async def test_an_ordinary_variable_has_no_instances(start: StartServer):
    server = await start(ToyPlan(answer=answer))
    program = points()
    program["outputs"] = [{"variable": "outline", "instances": True}]
    events = await events_of(server, program)
    assert [data["name"] for kind, data in events if kind == "variable"] == ["outline"]


async def test_instances_without_a_stream_are_refused(start: StartServer):
    server = await start(ToyPlan(answer=answer))
    reply = await server.submit(**points())
    assert reply.status_code == 422


async def test_nobody_is_left_waiting_when_the_client_goes(start_listening: StartServer):
    plan = ToyPlan(answer=answer, is_held=True)
    server = await start_listening(plan)
    program = {**points(), "on_disconnect": "cancel"}
    stream = stream_submit(server.client, program)
    await anext(stream)
    await until(lambda: len(plan.engine.started) == 1)
    plan.engine.finish("1. leaves\n2. water")
    await until(lambda: len(plan.engine.started) == 3)

    await stream.aclose()

    await until(lambda: server.service.coordinator.num_unfinished_calls == 0)
    assert server.service.runtime.num_waiters == 0


async def test_a_failed_instance_is_reported(start: StartServer):
    server = await start(ToyPlan(answer=answer))
    program = points()
    program["nodes"][1]["body"]["nodes"] = [
        POINT,
        {
            "kind": "transform",
            "name": "bad",
            "content": [read("text")],
            "transforms": [{"op": "json_list"}],
            "output": "list",
        },
    ]
    program["nodes"][1]["body"]["result"] = "list"
    events = await events_of(server, program)
    states = {data["name"]: data["state"] for kind, data in events if kind == "variable"}
    assert states["points"] == "failed"
    assert {states["expand:0:text"], states["expand:1:text"]} <= {"ready", "cancelled"}


async def test_a_body_may_hold_a_chat_with_a_form(start: StartServer):
    chat: Body = {
        "kind": "call",
        "name": "rate",
        "messages": [{"role": "user", "content": [read("point")]}, reply("grade")],
        "sampling": {"response_format": {"type": "choice", "choices": ["good", "bad"]}},
    }
    server = await start(ScriptedPlan())
    program: Body = {
        "variables": [external("points-in", '["a", "b"]')],
        "nodes": [map_over(read("points-in"), body("grade", chat))],
        "outputs": [{"variable": "points"}],
    }
    values = (await server.submit(**program)).json()["variables"]
    assert set(json.loads(values["points"]["value"])) <= {"good", "bad"}


def reply(name: str) -> Body:
    return {"role": "assistant", "content": [{"type": "output", "variable": name}]}
