"""Five hundred requests of OpenAI's API at once, of all kinds; some clients leave."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

import httpx

from tests.server.conftest import StartServer, until
from tests.server.toy_engine import ToyPlan

NUM_REQUESTS = 500
WORDS = "and then some more"


def path_and_body(number: int) -> tuple[str, dict[str, Any]]:
    """Return one of four kinds of requests; every seventh leaves."""
    prompt = f"leaves{number}" if leaves(number) else f"n{number}"
    match number % 4:
        case 0:
            return "chat/completions", {"messages": [{"role": "user", "content": prompt}]}
        case 1:
            return "completions", {"prompt": prompt, "n": 2}
        case 2:
            return "responses", {"input": prompt}
    named = {"user": f"user{number % 5}"}
    return "chat/completions", {"messages": [{"role": "user", "content": prompt}], **named}


def leaves(number: int) -> bool:
    return number % 7 == 0


def num_calls(number: int) -> int:
    return 2 if number % 4 == 1 else 1


def texts_of(stream: str) -> list[str]:
    """Return the text of each choice, put together from the words of a stream."""
    texts = defaultdict[int, list[str]](list)
    lines = [line for line in stream.splitlines() if line.startswith("data: {")]
    for event in (json.loads(line.removeprefix("data: ")) for line in lines):
        if event.get("type") == "response.output_text.delta":
            texts[0].append(event["delta"])
        for choice in event.get("choices", ()):
            text = choice.get("text") or choice.get("delta", {}).get("content")
            if text:
                texts[choice["index"]].append(text)
    assert all(len(words) > 1 for words in texts.values()), "the words come one by one"
    return ["".join(texts[choice]) for choice in sorted(texts)]


async def test_five_hundred_at_once_lose_nothing(start_listening: StartServer):
    plan = ToyPlan(
        answer=lambda prompt: f"<{prompt}> {WORDS}",
        word_s=0.02,
        ends=lambda text: "leaves" not in text,
        max_requests=1000,
    )
    server = await start_listening(plan)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=server.client.base_url, limits=limits, timeout=100
    ) as client:

        async def ask(number: int) -> str:
            path, body = path_and_body(number)
            options: Any = {"url": f"/v1/{path}", "json": {**body, "stream": True}}
            if not leaves(number):
                return (await client.post(**options)).text
            async with client.stream("POST", **options) as reply:
                return await anext(reply.aiter_text())

        streams = await asyncio.gather(*map(ask, range(NUM_REQUESTS)))

    for number, stream in enumerate(streams):
        if not leaves(number):
            assert texts_of(stream) == [f"<n{number}> {WORDS}"] * num_calls(number)
            ends = "response.completed" if number % 4 == 2 else "data: [DONE]\n\n"
            assert stream.count(ends) >= 1
            assert "error" not in stream.replace('"error":null', "")
    await until(lambda: server.service.coordinator.num_unfinished_calls == 0, timeout_s=30)
    assert server.service.runtime.num_waiters == 0
    assert plan.engine.running == {}
    # What still waited when its client left has never come to the engine.
    leavers = [number for number in range(NUM_REQUESTS) if leaves(number)]
    assert 0 < len(plan.engine.aborted) <= sum(map(num_calls, leavers))
