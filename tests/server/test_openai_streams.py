"""Streams of OpenAI's API: what arrives when, and what happens when somebody goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest

from parrot_backend.core.chat import OutputDetails, TokenLogprob, ToolCall
from tests.server.conftest import RunningServer, StartServer, until
from tests.server.toy_engine import ToyPlan

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}


@pytest.fixture
def plan() -> ToyPlan:
    return ToyPlan(is_held=True)


class Events:
    """The events of a stream, one after another."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self._lines:
            if line.startswith(("data: ", ":")):
                yield line.removeprefix("data: ")

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            data = await anext(aiter(self))
        return json.loads(data) if data.startswith("{") else data

    async def rest(self) -> list[Any]:
        async with asyncio.timeout(5):
            return [json.loads(one) if one.startswith("{") else one async for one in self]


@asynccontextmanager
async def streaming(
    server: RunningServer, plan: ToyPlan, path: str = "chat/completions", **fields: Any
) -> AsyncIterator[Events]:
    """Begin a stream; its head comes with the first word, so the engine says one."""
    body = {**(CHAT if path == "chat/completions" else {"stream": True}), **fields}
    sending = asyncio.create_task(_say_soon(plan))
    async with server.client.stream("POST", f"/v1/{path}", json=body) as response:
        await sending
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Events(response)


async def _say_soon(plan: ToyPlan) -> None:
    await until(lambda: bool(plan.made and plan.engine.running))
    plan.engine.say("one")


async def test_words_arrive_as_they_come(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan)

    async with streaming(server, plan, stream_options={"include_usage": True}) as events:
        assert (await events.next())["choices"][0]["delta"]["role"] == "assistant"
        assert (await events.next())["choices"][0]["delta"] == {"content": "one"}
        plan.engine.say(" two")
        assert (await events.next())["choices"][0]["delta"] == {"content": " two"}
        plan.engine.finish("one two")
        end, usage, done = await events.rest()

    assert end["choices"][0]["finish_reason"] == "stop"
    assert end["usage"] is None
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 7
    assert done == "[DONE]"


async def test_thoughts_and_calls_are_told_apart(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan)
    call = ToolCall("1", "f", "{}")

    async with streaming(server, plan) as events:
        plan.engine.say("hm", is_reasoning=True)
        plan.engine.finish("one", details=OutputDetails(tool_calls=(call,)))
        told = await events.rest()

    deltas = [one["choices"][0]["delta"] for one in told[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "one"},
        {"reasoning": "hm"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "1",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                }
            ]
        },
        {},
    ]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_log_probabilities_are_told_once(
    start_listening: StartServer, plan: ToyPlan, path: str
):
    server = await start_listening(plan)
    one, two, three = (TokenLogprob(token, -1.0) for token in ("one", " two", " three"))
    fields = {"prompt": "x"} if path == "completions" else {}

    async with streaming(server, plan, path, **fields) as events:
        plan.engine.say(" two", logprobs=(one, two))
        details = OutputDetails(logprobs=(one, two, three))
        plan.engine.finish("one two three", details=details)
        told = await events.rest()

    listed = [event["choices"][0]["logprobs"] for event in told[:-1]]
    chunks = [logprobs for logprobs in listed if logprobs is not None]
    if path == "completions":
        assert [chunk["tokens"] for chunk in chunks] == [["one", " two"], [" three"]]
        assert [chunk["text_offset"] for chunk in chunks] == [[0, 3], [7]]
    else:
        tokens = [[place["token"] for place in chunk["content"]] for chunk in chunks]
        assert tokens == [["one", " two"], [" three"]]


async def test_thoughts_can_be_left_out(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan)

    async with streaming(server, plan, include_reasoning=False) as events:
        plan.engine.say("hm", is_reasoning=True)
        plan.engine.finish("one", details=OutputDetails(reasoning="hm"))
        told = await events.rest()

    assert not any("hm" in json.dumps(one) for one in told)


async def test_a_silent_stream_is_kept_open(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan, stream_ping_s=0.02)
    async with server.client.stream("POST", "/v1/chat/completions", json=CHAT) as response:
        events = Events(response)
        assert await events.next() == ": ping"
        plan.engine.say("one")
        plan.engine.finish("one")
        told = [one for one in await events.rest() if one != ": ping"]

    assert told[-1] == "[DONE]"
    assert told[1]["choices"][0]["delta"] == {"content": "one"}


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
async def test_leaving_in_mid_stream_aborts_the_call(
    start_listening: StartServer, plan: ToyPlan, path: str
):
    server = await start_listening(plan)
    by_path: dict[str, dict[str, Any]] = {
        "completions": {"prompt": "x", "n": 2},
        "responses": {"input": "x"},
    }
    fields = by_path.get(path, {})

    async with streaming(server, plan, path, **fields) as events:
        await events.next()
    await until(lambda: len(plan.engine.aborted) == fields.get("n", 1))

    assert server.service.runtime.num_waiters == 0
    assert server.service.coordinator.num_unfinished_calls == 0


async def test_leaving_before_the_reply_aborts_the_call(
    start_listening: StartServer, plan: ToyPlan
):
    server = await start_listening(plan)
    for stream in (True, False):
        body = {**CHAT, "stream": stream}
        asking = asyncio.create_task(server.client.post("/v1/chat/completions", json=body))
        await until(lambda: bool(plan.engine.running))
        asking.cancel()
        await until(lambda: not plan.engine.running)

    await until(lambda: server.service.runtime.num_waiters == 0)
    assert len(plan.engine.aborted) == 2


async def test_a_failure_in_mid_stream_is_an_event(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan, max_attempts=1)

    async with streaming(server, plan) as events:
        await events.next()
        await events.next()
        plan.engine.die()
        error, done = await events.rest()

    assert error["error"]["type"] == "server_error"
    assert error["error"]["code"] == "engine_lost"
    assert done == "[DONE]"


async def test_text_that_was_sent_cannot_be_taken_back(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan)

    async with streaming(server, plan) as events:
        await events.next()
        await events.next()
        plan.engine.die()
        error, done = await events.rest()

    assert error["error"]["code"] == "engine_lost"
    assert done == "[DONE]"
    await until(lambda: server.service.coordinator.num_unfinished_calls == 0)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
async def test_a_shutdown_says_so(start_listening: StartServer, plan: ToyPlan, path: str):
    server = await start_listening(plan)
    fields = {"chat/completions": {}, "completions": {"prompt": "x"}, "responses": {"input": "x"}}
    body = {**(CHAT if path == "chat/completions" else {}), **fields[path], "stream": False}

    async with streaming(server, plan, path, **fields[path]) as events:
        whole = asyncio.create_task(server.client.post(f"/v1/{path}", json=body))
        await until(lambda: len(plan.engine.running) == 2)
        await server.service.drain()
        told = [one for one in await events.rest() if one != "[DONE]"]
        reply = await whole

    message = "the server is shutting down"
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert reply.json()["error"]["message"] == message
    if path == "responses":
        assert told[-1]["response"]["error"]["message"] == message
    else:
        error = told[-1]["error"]
        assert (error["code"], error["message"]) == ("shutting_down", message)


async def test_one_that_dies_before_the_first_word_is_not_noticed(
    start_listening: StartServer, plan: ToyPlan
):
    server = await start_listening(plan)
    asking = asyncio.create_task(server.client.post("/v1/chat/completions", json=CHAT))
    await until(lambda: bool(plan.engine.running))
    plan.engine.die()
    await until(lambda: len(plan.made) == 2 and bool(plan.engine.running))
    plan.engine.say("one")
    plan.engine.finish("one")

    reply = await asking

    assert reply.status_code == 200
    assert '"content":"one"' in reply.text.replace('": "', '":"')
    assert "error" not in reply.text


async def test_a_response_that_fails_says_so(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan, max_attempts=1)

    async with streaming(server, plan, "responses", input="x") as events:
        first = await events.next()
        plan.engine.die()
        told = await events.rest()

    assert first["type"] == "response.created"
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["error"]["code"] == "server_error"


async def test_thoughts_of_a_response_are_an_item(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan)
    body = {"input": "x", "stream": True}
    asking = asyncio.create_task(server.client.post("/v1/responses", json=body))
    await until(lambda: bool(plan.engine.running))
    plan.engine.say("hm", is_reasoning=True)
    plan.engine.say("yes")
    plan.engine.finish("yes", details=OutputDetails(reasoning="hm"))

    lines = (await asking).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data")]

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["reasoning", "message"]
    assert events[-1]["type"] == "response.completed"


async def test_a_response_that_fails_before_its_first_word_was_announced(
    start_listening: StartServer, plan: ToyPlan
):
    server = await start_listening(plan, stream_ping_s=0.02, max_wait_s=0.2)
    body = {"input": "x", "stream": True}

    async with server.client.stream("POST", "/v1/responses", json=body) as response:
        told = [event for event in await Events(response).rest() if event != ": ping"]

    kinds = ["response.created", "response.in_progress", "response.failed"]
    assert [event["type"] for event in told] == kinds
    assert [event["sequence_number"] for event in told] == [0, 1, 2]
    with openai_client(server) as client:
        assert await asyncio.to_thread(_kinds_of_response, client) == kinds


def openai_client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.client.base_url}/v1", api_key="none", max_retries=0)


def _kinds_of_response(client: openai.OpenAI) -> list[str]:
    with client.responses.stream(model="toy", input="x") as stream:
        return [event.type for event in stream]


@pytest.mark.parametrize("thinks_last", [False, True])
async def test_log_probabilities_of_a_response_come_with_its_text(
    start_listening: StartServer, plan: ToyPlan, thinks_last: bool
):
    server = await start_listening(plan)
    one, two, three, four = (TokenLogprob(t, -1.0) for t in ("one", " two", "hm", " three"))
    fields = {"input": "x", "include": ["message.output_text.logprobs"]}

    async with streaming(server, plan, "responses", **fields) as events:
        plan.engine.say(" two", logprobs=(one, two))
        if thinks_last:
            plan.engine.say("hm", is_reasoning=True, logprobs=(three,))
        every = (one, two, three) if thinks_last else (one, two, four)
        text = "one two" if thinks_last else "one two three"
        plan.engine.finish(text, details=OutputDetails(logprobs=every))
        told = await events.rest()

    deltas = [e["logprobs"] for e in told if e["type"] == "response.output_text.delta"]
    (done,) = (e["logprobs"] for e in told if e["type"] == "response.output_text.done")
    (item,) = (i for i in told[-1]["response"]["output"] if i["type"] == "message")
    assert [[one["token"] for one in listed] for listed in deltas] == [[], ["one", " two"]]
    assert [one["token"] for one in done] == ["one", " two", *([] if thinks_last else [" three"])]
    assert item["content"][0]["logprobs"] == done


async def test_a_client_that_takes_nothing_is_dropped(start: StartServer, plan: ToyPlan):
    server = await start(plan, stream_send_timeout_s=0.05)
    body = [{"type": "http.request", "body": json.dumps(CHAT).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not body:
            await asyncio.Event().wait()
        return body.pop()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("parrot", 80),
    }
    serving = asyncio.create_task(server.app(scope, receive, send))  # type: ignore[arg-type]
    await _say_soon(plan)
    async with asyncio.timeout(5):
        await serving

    assert len(plan.engine.aborted) == 1
    assert server.service.runtime.num_waiters == 0
