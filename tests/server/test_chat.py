"""Tools, forms, reasoning and log probabilities, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parrot_backend.core.chat import OutputDetails, TokenLogprob, ToolCall, TopLogprob
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine
from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import Body, call, wanted
from tests.server.sse import stream_submit, stream_variable
from tests.server.test_convert_chat import LOOK, OUTPUT, WAIT, chat
from tests.server.toy_engine import ToyPlan

WEATHER: Body = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 3}},
        "required": ["city"],
    },
}


class ScriptedPlan(ToyPlan):
    def create(self, engine_id: EngineId) -> Any:
        return ScriptedEngine(engine_id, ScriptedConfig())


async def ask(server: RunningServer, node: Body, **fields: Any) -> Body:
    reply = await server.submit(nodes=[node], outputs=wanted("out"), **fields)
    assert reply.status_code == 200, reply.text
    view: Body = reply.json()["variables"]["out"]
    return view


async def code_of(server: RunningServer, node: Body) -> str:
    reply = await server.submit(nodes=[node], outputs=wanted("out"))
    assert reply.status_code == 422
    return str(reply.json()["error"]["code"])


async def test_a_tool_is_called_and_its_answer_used(start: StartServer):
    server = await start(ScriptedPlan())
    question = {"role": "user", "content": "weather( in Oslo?"}

    first = await ask(server, chat(question, OUTPUT, tools=[WEATHER]))

    assert first["state"] == "ready"
    assert (first["value"], first["finish_reason"]) == ("", "tool_calls")
    (made,) = first["tool_calls"]
    assert made["name"] == "weather"
    arguments = json.loads(made["arguments"])
    assert isinstance(arguments["city"], str)
    assert arguments["days"] <= 3

    answer = {"role": "tool", "content": "rain", "tool_call_id": made["id"]}
    history = (question, {"role": "assistant", "content": "", "tool_calls": [made]}, answer)
    second = await ask(server, chat(*history, OUTPUT, tools=[WEATHER]))

    assert second["tool_calls"] == []
    assert second["value"]


@pytest.mark.parametrize(
    ("choice", "name"), [("required", "look"), ({"name": "wait"}, "wait"), ("none", None)]
)
async def test_choices_of_tools(start: StartServer, choice: Any, name: str | None):
    server = await start(ScriptedPlan())

    view = await ask(server, chat(tools=[LOOK, WAIT], tool_choice=choice))

    assert [one["name"] for one in view["tool_calls"]] == ([] if name is None else [name])
    assert bool(view["value"]) == (name is None)


async def test_a_call_that_is_made_streams_no_text(start: StartServer):
    server = await start(ScriptedPlan())
    node = chat(tools=[LOOK], tool_choice="required")
    body = {"nodes": [node], "outputs": wanted("out")}

    events = [event async for event in stream_submit(server.client, body)]

    assert [kind for kind, _ in events] == ["session", "variable", "done"]
    assert events[1][1]["tool_calls"][0]["name"] == "look"


async def test_a_form_is_kept_to_and_can_be_taken_apart(start: StartServer):
    server = await start(ScriptedPlan())
    schema = {"type": "object", "properties": {"title": {"enum": ["Sea"]}, "n": {"const": 7}}}
    sampling = {"response_format": {"type": "json_schema", "json_schema": schema}}
    field = {
        "kind": "transform",
        "name": "take",
        "content": [
            {
                "type": "input",
                "variable": "out",
                "transforms": [{"op": "json_field", "path": "title"}],
            }
        ],
        "output": "title",
    }
    reply = await server.submit(
        nodes=[call("make", "x {{output:out}}", sampling=sampling), field],
        outputs=wanted("out", "title"),
    )

    views = reply.json()["variables"]
    assert json.loads(views["out"]["value"]) == {"title": "Sea", "n": 7}
    assert views["title"]["value"] == "Sea"


async def test_a_bad_form_fails_its_variable_alone(start: StartServer):
    server = await start(ScriptedPlan())
    bad = {"response_format": {"type": "json_schema", "json_schema": {"type": "nonsense"}}}
    reply = await server.submit(
        nodes=[call("a", "x{{output:bad}}", sampling=bad), call("b", "y{{output:good}}")],
        outputs=wanted("bad", "good"),
    )

    views = reply.json()["variables"]
    assert views["bad"]["state"] == "failed"
    assert views["bad"]["error"]["code"] == "invalid_format"
    assert views["good"]["state"] == "ready"


async def test_log_probabilities_are_told_where_they_were_asked_for(start: StartServer):
    server = await start(ScriptedPlan())

    told = await ask(server, call("a", "x{{output:out}}", sampling={"logprobs": 2}))
    silent = await ask(server, call("a", "x{{output:out}}"))

    assert "".join(one["token"] for one in told["logprobs"]) == told["value"]
    assert {len(one["top"]) for one in told["logprobs"]} == {2}
    assert silent["logprobs"] is None


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (chat(tools=[LOOK, LOOK]), "duplicate_tool"),
        (chat(tools=[LOOK], tool_choice={"name": "wait"}), "unknown_tool"),
    ],
)
async def test_refusals_have_their_codes(start: StartServer, node: Body, code: str):
    assert await code_of(await start(ScriptedPlan()), node) == code


async def test_a_free_choice_that_nobody_would_notice_is_refused_at_once(start: StartServer):
    server = await start(ToyPlan(finds_tool_calls=False))

    assert await code_of(server, chat(tools=[LOOK])) == "tools_unsupported"
    for choice in ("none", "required"):
        reply = await server.submit(nodes=[chat(tools=[LOOK], tool_choice=choice)])
        assert reply.status_code == 200


async def test_reasoning_streams_before_text(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan)
    body = {"nodes": [chat()], "outputs": wanted("out")}
    seen = []

    async for kind, data in stream_submit(server.client, body):
        seen.append((kind, data.get("kind"), data.get("text", data.get("value"))))
        match len(seen):
            case 1:
                await until(lambda: bool(plan.engine.running))
                plan.engine.say("Hm", is_reasoning=True)
            case 2:
                plan.engine.say("Yes")
            case 3:
                plan.engine.finish("Yes", details=OutputDetails(reasoning="Hm"))
                view = data
        if kind == "variable":
            view = data

    assert seen == [
        ("session", None, None),
        ("token", "reasoning", "Hm"),
        ("token", "text", "Yes"),
        ("variable", None, "Yes"),
        ("done", None, None),
    ]
    assert view["reasoning"] == "Hm"


async def test_who_comes_late_gets_reasoning_and_text_so_far(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan)
    reply = await server.submit(nodes=[chat()], outputs=wanted("out"), wait=False)
    variable = f"{reply.json()['session_id']}.out"
    for text, is_reasoning in (("H", True), ("m", True), ("Ye", False), ("s", False)):
        plan.engine.say(text, is_reasoning=is_reasoning)
    found = server.service.coordinator.variable(variable)  # type: ignore[arg-type]
    await until(lambda: found.partial == ["Ye", "s"])

    tokens = []
    async for kind, data in stream_variable(server.client, variable):
        if kind == "token":
            tokens.append((data["kind"], data["text"]))
        if len(tokens) == 2 and plan.engine.running:
            plan.engine.finish("Yes", details=OutputDetails(reasoning="Hm"))

    assert tokens == [("reasoning", "Hm"), ("text", "Yes")]


async def test_all_details_are_shown(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    reply = await server.submit(nodes=[chat()], outputs=wanted("out"), wait=False)
    session = reply.json()["session_id"]
    logprob = TokenLogprob("a", -0.5, (TopLogprob("b", -0.25),))
    details = OutputDetails((ToolCall("c1", "look", "{}"),), "Hm", (logprob,))
    plan.engine.finish("", details=details)
    variable = f"{session}.out"

    view = (await server.client.get(f"/v1/variables/{variable}?wait=true")).json()
    listed = (await server.client.get(f"/v1/sessions/{session}")).json()["variables"]

    assert view["tool_calls"] == [{"id": "c1", "name": "look", "arguments": "{}"}]
    assert view["reasoning"] == "Hm"
    top = {"token": "b", "logprob": -0.25}
    assert view["logprobs"] == [{"token": "a", "logprob": -0.5, "top": [top]}]
    assert listed == [view]


async def test_engines_get_what_was_asked(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    node = chat(
        {"role": "user", "content": "hi", "name": "Ada"},
        OUTPUT,
        tools=[LOOK],
        chat_template_kwargs={"deep": True},
    )
    await server.submit(nodes=[node], wait=False)

    (request,) = plan.engine.started
    assert [tool.name for tool in request.chat.tools] == ["look"]
    assert request.chat.template_kwargs == (("deep", True),)
    assert request.parts[0].head.name == "Ada"
