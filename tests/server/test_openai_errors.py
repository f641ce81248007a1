"""Every bad request to OpenAI's API, with the status and body that clients expect."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.toy_engine import ToyPlan

USER = {"role": "user", "content": "Hello"}
FUNCTION = {"type": "function", "function": {"name": "f"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

#: Fields of a chat, and the parameter that is to be named.
BAD_CHATS: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": []}, "messages"),
    "messages as text": ({"messages": "Hello"}, "messages"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "content as number": ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    "unknown role": ({"messages": [{"role": "poet", "content": "x"}]}, "messages[0].role"),
    "no role": ({"messages": [USER, {"content": "x"}]}, "messages[1].role"),
    "an image": (
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        "messages[0].content[0].type",
    ),
    "unknown field of a message": ({"messages": [{**USER, "x": 1}]}, "messages[0].x"),
    "an answer to no call": (
        {"messages": [USER, {"role": "tool", "content": "4", "tool_call_id": "1"}]},
        "messages[1].tool_call_id",
    ),
    "an answer before its call": (
        {
            "messages": [
                {"role": "tool", "content": "4", "tool_call_id": "1"},
                {"role": "assistant", "tool_calls": [CALL]},
            ]
        },
        "messages[0].tool_call_id",
    ),
    "unknown parameter": ({"temprature": 1}, "temprature"),
    "removed parameter": ({"guided_json": {}}, "guided_json"),
    "temperature": ({"temperature": 2.5}, "temperature"),
    "temperature as text": ({"temperature": "1"}, "temperature"),
    "top_p": ({"top_p": 0}, "top_p"),
    "n": ({"n": 0}, "n"),
    "too many choices": ({"n": 129}, "n"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens as truth": ({"max_tokens": True}, "max_tokens"),
    "min over max": ({"max_tokens": 2, "min_tokens": 3}, "min_tokens"),
    "presence_penalty": ({"presence_penalty": 3}, "presence_penalty"),
    "empty stop string": ({"stop": ""}, "stop"),
    "too many stop strings": ({"stop": ["x"] * 17}, "stop"),
    "seed": ({"seed": 2**63}, "seed"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs"),
    "too many logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "stream_options without stream": (
        {"stream": False, "stream_options": {"include_usage": True}},
        "stream_options",
    ),
    "no tools": ({"tools": []}, "tools"),
    "tool of another type": ({"tools": [{"type": "custom"}]}, "tools[0].type"),
    "tool without a name": (
        {"tools": [{"type": "function", "function": {}}]},
        "tools[0].function.name",
    ),
    "bad name of a tool": (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
    ),
    "two tools of one name": ({"tools": [FUNCTION, FUNCTION]}, "tools"),
    "unknown tool choice": ({"tools": [FUNCTION], "tool_choice": "maybe"}, "tool_choice"),
    "choice of an unknown tool": (
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "function", "function": {"name": "g"}},
        },
        "tool_choice",
    ),
    "required without tools": ({"tool_choice": "required"}, "tool_choice"),
    "unknown response format": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "schema without a schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
    ),
    "two forms": (
        {"structured_outputs": {"regex": "a", "choice": ["b"]}},
        "structured_outputs",
    ),
    "schema that is no JSON": (
        {"structured_outputs": {"json": "{"}},
        "structured_outputs.json",
    ),
    "logit_bias": ({"logit_bias": {"5": 1}}, "logit_bias"),
    "audio": ({"modalities": ["text", "audio"]}, "modalities"),
    "unknown urgency": ({"parrot": {"perf": "soon"}}, "parrot.perf"),
    "unknown hint": ({"parrot": {"sesion": "x"}}, "parrot.sesion"),
    "nothing to go on with": (
        {"continue_final_message": True, "add_generation_prompt": False},
        "messages[0]",
    ),
    "unknown model": ({"model": "gpt-99"}, "model"),
    "too long a context": ({"messages": [{"role": "user", "content": "x" * 101}]}, "messages"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", BAD_CHATS)
async def test_a_bad_chat_is_refused_and_its_parameter_named(
    start: StartServer, case: str, stream: bool
):
    fields, param = BAD_CHATS[case]
    server = await start()

    reply = await post(server, **{"messages": [USER], "stream": stream, **fields})

    error = reply.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert reply.status_code == (404 if case == "unknown model" else 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert_nothing_is_left(server)


async def post(
    server: RunningServer, path: str = "chat/completions", **body: Any
) -> httpx.Response:
    return await server.client.post(f"/v1/{path}", json=body)


def assert_nothing_is_left(server: RunningServer) -> None:
    assert server.service.runtime.num_waiters == 0
    assert server.service.coordinator.num_unfinished_calls == 0


CODES = {
    "too long a context": "context_length_exceeded",
    "unknown model": "model_not_found",
    "unknown parameter": "invalid_request",
    "logit_bias": "unsupported",
    "choice of an unknown tool": "unknown_tool",
}


@pytest.mark.parametrize("case", CODES)
async def test_codes_that_clients_branch_on(start: StartServer, case: str):
    server = await start()

    reply = await post(server, **{"messages": [USER], **BAD_CHATS[case][0]})

    assert reply.json()["error"]["code"] == CODES[case]


BAD_OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no prompt": ("completions", {}, "prompt"),
    "empty prompt": ("completions", {"prompt": ""}, "prompt"),
    "too many choices": ("completions", {"prompt": ["x"] * 1000, "n": 3}, "n"),
    "too long a prompt": ("completions", {"prompt": "x" * 101}, "prompt"),
    "too long an input": ("responses", {"input": "x" * 101}, "input"),
    "no prompts": ("completions", {"prompt": []}, "prompt"),
    "tokens": ("completions", {"prompt": [1, 2]}, "prompt"),
    "lists of tokens": ("completions", {"prompt": [[1, 2]]}, "prompt"),
    "echo of logprobs": ("completions", {"prompt": "x", "echo": True, "logprobs": 1}, "echo"),
    "suffix": ("completions", {"prompt": "x", "suffix": "y"}, "suffix"),
    "no input": ("responses", {}, "input"),
    "empty input": ("responses", {"input": []}, "input"),
    "earlier response": (
        "responses",
        {"input": "x", "previous_response_id": "r"},
        "previous_response_id",
    ),
    "conversation": ("responses", {"input": "x", "conversation": "c"}, "conversation"),
    "in the background": ("responses", {"input": "x", "background": True}, "background"),
    "unknown item": ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    "answer to no call": (
        "responses",
        {"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]},
        "input[0].call_id",
    ),
    "tool of OpenAI's own": (
        "responses",
        {"input": "x", "tools": [{"type": "web_search"}]},
        "tools[0].type",
    ),
    "unknown tool choice": ("responses", {"input": "x", "tool_choice": "maybe"}, "tool_choice"),
    "messages": ("responses", {"input": "x", "messages": []}, "messages"),
}


@pytest.mark.parametrize("case", BAD_OTHERS)
async def test_a_bad_completion_or_response_is_refused(start: StartServer, case: str):
    path, fields, param = BAD_OTHERS[case]
    server = await start()

    reply = await post(server, path, **fields)

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert_nothing_is_left(server)


#: Bodies that are no JSON to the letter.
NUMBERS = {
    "in a schema": '{"structured_outputs": {"json": {"enum": [NaN]}}, %s}',
    "in the parameters of a tool": (
        '{"tools": [{"type": "function", "function": {"name": "f",'
        ' "parameters": {"a": -Infinity}}}], %s}'
    ),
    "in what has no effect": '{"metadata": {"a": Infinity}, %s}',
    "as a parameter": '{"temperature": NaN, %s}',
}


@pytest.mark.parametrize("case", NUMBERS)
async def test_numbers_that_are_none_are_refused(start: StartServer, case: str):
    server = await start()
    body = NUMBERS[case] % '"messages": [{"role": "user", "content": "x"}]'

    reply = await server.client.post("/v1/chat/completions", content=body)

    assert reply.status_code == 400
    if case != "as a parameter":
        assert reply.json()["error"]["code"] == "malformed_json"


async def test_texts_may_speak_of_infinity(start: StartServer):
    server = await start()

    reply = await post(server, messages=[{"role": "user", "content": "NaN or -Infinity?"}])

    assert reply.status_code == 200


LONG = "x" * 100_000

#: Requests with a long text that their errors repeat.
REPEATED: dict[str, dict[str, Any]] = {
    "model": {"model": LONG},
    "role": {"messages": [{"role": LONG, "content": "x"}]},
    "parameter": {LONG: 1},
    "field": {"messages": [{**USER, LONG: 1}]},
    "tool": {
        "tools": [FUNCTION],
        "tool_choice": {"type": "function", "function": {"name": LONG}},
    },
    "call": {"messages": [USER, {"role": "tool", "content": "4", "tool_call_id": LONG}]},
    "label": {"chat_template_kwargs": {LONG: []}},
}


@pytest.mark.parametrize("case", REPEATED)
async def test_errors_repeat_only_a_part_of_a_long_text(start: StartServer, case: str):
    server = await start()

    reply = await post(server, **{"messages": [USER], **REPEATED[case]})

    error = reply.json()["error"]
    assert reply.status_code in (400, 404)
    assert len(error["message"]) < 1000
    assert len(error["param"]) < 1000


BODIES = {"not JSON": b"{", "a list": b"[]", "nothing": b"", "too deep": b"[" * 100_000}


@pytest.mark.parametrize("case", BODIES)
async def test_a_body_that_is_no_request(start: StartServer, case: str):
    server = await start()

    reply = await server.client.post("/v1/chat/completions", content=BODIES[case])

    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_errors_of_the_framework_have_the_same_form(start: StartServer):
    server = await start(max_body_bytes=100)

    wrong_method = await server.client.get("/v1/chat/completions")
    too_long = await post(server, messages=[{"role": "user", "content": "x" * 200}])
    unknown = await server.client.get("/v1/models/org/none")

    replies = (wrong_method, too_long, unknown)
    assert [reply.status_code for reply in replies] == [405, 413, 404]
    codes = [reply.json()["error"]["code"] for reply in replies]
    assert codes == ["method_not_allowed", "body_too_large", "model_not_found"]


async def test_parrots_own_routes_keep_their_form(start: StartServer):
    server = await start()

    reply = await server.client.get("/v1/sessions/s")

    assert sorted(reply.json()["error"]) == ["code", "context", "message"]


async def test_a_full_server_says_when_to_come_back(start: StartServer):
    server = await start(ToyPlan(is_held=True), max_concurrent_calls=1)
    await server.submit(
        nodes=[{"kind": "call", "name": "a", "prompt": "x{{output:y}}"}], wait=False
    )

    reply = await post(server, messages=[USER])

    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "1")
    assert reply.json()["error"]["type"] == "rate_limit_error"


async def test_no_engine_is_503(start: StartServer):
    server = await start(ToyPlan(is_held=True), no_engine_s=0.05, engine_restarts_per_hour=0)
    engine = server.service.supervisor
    await engine.close()

    reply = await post(server, messages=[USER])

    assert reply.status_code == 503
    assert reply.json()["error"]["type"] == "server_error"


async def test_an_engine_that_fails_is_500_and_a_shutdown_503(start: StartServer):
    plan = ToyPlan(answer=lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    server = await start(plan, max_attempts=1, engine_restarts_per_hour=0)
    failed = await post(server, messages=[USER])
    await server.service.drain()
    draining = await post(server, messages=[USER])

    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
    assert (draining.status_code, draining.json()["error"]["code"]) == (503, "shutting_down")


async def test_what_takes_too_long_is_given_up(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan, max_wait_s=0.05)

    replies = [await post(server, messages=[USER], stream=stream) for stream in (False, True)]

    told = [(reply.status_code, reply.json()["error"]["code"]) for reply in replies]
    assert told == [(504, "timed_out")] * 2
    await until(lambda: len(plan.engine.aborted) == 2)
    assert_nothing_is_left(server)


async def test_a_defect_is_told_as_one(start: StartServer, monkeypatch: pytest.MonkeyPatch):
    server = await start()
    monkeypatch.setattr(server.service, "submit", lambda *_: 1 / 0)

    reply = await post(server, messages=[USER])

    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
    assert "division" not in reply.text
