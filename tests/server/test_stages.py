"""What clients call the stage of a call: on the wire, in the graph, in views and timelines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.programs import call, external, wanted
from tests.server.test_app_sessions import ask, session_of, view_of


async def test_each_call_has_its_own_stage(start_listening: StartServer):
    server = await start_listening()
    for number, stage in enumerate(("plan", "write", "review")):
        hints = {"session": "run", "stage": stage, "metadata": {"step": number}}
        reply = await ask(server, "Be brief.", f"Do {number}.", parrot=hints)

    view = await view_of(server, session_of(reply))

    assert [node["stage"] for node in view["nodes"]] == ["plan", "write", "review"]
    assert len({node["found"]["template"] for node in view["nodes"]}) == 3
    assert view["metadata"] == {"session": "run", "step": 0}
    trace = await server.client.get(f"/v1/sessions/{session_of(reply)}/timeline")
    ran = [event for event in trace.json()["traceEvents"] if event.get("cat") == "call"]
    assert {e["args"]["stage"] for e in ran if "args" in e} == {"plan", "write", "review"}


async def test_all_choices_are_of_the_stage_that_a_header_names(start_listening: StartServer):
    server = await start_listening()
    messages = [{"role": "user", "content": "Hello"}]
    reply = await server.client.post(
        "/v1/chat/completions",
        json={"messages": messages, "n": 3},
        headers={"x-parrot-stage": "draft"},
    )
    view = await view_of(server, session_of(reply))
    assert [node["stage"] for node in view["nodes"]] == ["draft"] * 3


async def test_steps_and_instances_of_a_submit_have_the_stage_of_their_call(
    start_listening: StartServer,
):
    server = await start_listening()
    body: dict[str, Any] = {
        "nodes": [call("part", "x {{input:item}} {{output:out}}", stage="inner")],
        "result": "out",
    }
    reply = await server.submit(
        variables=[external("list", '["a", "b"]')],
        nodes=[
            call("two", "x {{output:a}} y {{output:b}}", stage="outer"),
            call("none", "x {{output:c}}"),
            {
                "kind": "map",
                "name": "m",
                "items": {"type": "input", "variable": "list"},
                "item": "item",
                "body": body,
                "output": "all",
            },
        ],
        outputs=wanted("a", "b", "c", "all"),
    )
    view = await view_of(server, reply.json()["session_id"])
    stages = {node["output"]: node["stage"] for node in view["nodes"]}
    assert stages.pop("m:0:out") == stages.pop("m:1:out") == "inner"
    assert stages == {"a": "outer", "b": "outer", "c": None, "all": None}


@pytest.mark.parametrize("stage", ["", "x" * 1025, 3])
async def test_a_stage_is_a_text_of_some_length(start_listening: StartServer, stage: Any):
    server = await start_listening()
    reply = await server.submit(
        nodes=[call("one", "x {{output:a}}", stage=stage)], outputs=wanted("a")
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")
