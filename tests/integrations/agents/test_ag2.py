"""ag2's agents through OpenAI's API of a Parrot server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from ag2 import Agent, MemoryStream
from ag2.config import OpenAIConfig
from ag2.events import ModelMessageChunk

from parrot_backend.models import TINY_MODEL_NAME
from tests.helpers.documents import run_snippet, snippet
from tests.helpers.scripted_server import ScriptedServer
from tests.integrations.agents.arrivals import CHAT, Arrivals

pytestmark = pytest.mark.e2e
ROLES = ("architect", "coder", "reviewer")


@contextlib.asynccontextmanager
async def config(url: str, model: str = "scripted", **options: Any) -> AsyncIterator[OpenAIConfig]:
    # ag2 leaves clients of its own open.
    async with httpx2.AsyncClient() as http:
        yield OpenAIConfig(
            model=model, base_url=f"{url}/v1", api_key="none", http_client=http, **options
        )


async def chain(model: OpenAIConfig, task: str) -> list[str]:
    texts = [task]
    for role in ROLES:
        agent: Agent = Agent(role, f"You are the {role}.", config=model)
        reply = await agent.ask(f"Go on from this: {texts[-1]}")
        assert reply.body
        texts.append(reply.body)
    return texts[1:]


async def test_each_agent_reads_the_one_before(server: ScriptedServer, arrivals: Arrivals) -> None:
    async with config(server.url) as model:
        texts = await chain(model, "a snake game")
    prompts = arrivals.prompts()
    assert server.count("POST", CHAT) == len(prompts) == 3
    for role, read, prompt in zip(ROLES, ["a snake game", *texts], prompts, strict=False):
        assert prompt == f"<|system|>You are the {role}.\n<|user|>Go on from this: {read}"


async def test_a_conversation_grows(server: ScriptedServer, arrivals: Arrivals) -> None:
    async with config(server.url) as model:
        agent: Agent = Agent("coder", config=model)
        first = await agent.ask("Write it.")
        second = await first.ask("Shorter.")
    before, after = arrivals.prompts()
    assert after == f"{before}\n<|assistant|>{first.body}\n<|user|>Shorter."
    assert second.body != first.body


async def test_a_stream_says_the_same(server: ScriptedServer, arrivals: Arrivals) -> None:
    pieces: list[str] = []

    def note(event: ModelMessageChunk) -> None:
        pieces.append(event.content)

    async with config(server.url) as model:
        whole = await Agent("coder", config=model).ask("Write it.")
    async with config(server.url, streaming=True) as model:
        stream = MemoryStream()
        stream.where(ModelMessageChunk).subscribe(note)
        streamed = await Agent("coder", config=model).ask("Write it.", stream=stream)
    assert streamed.body == whole.body == "".join(pieces)
    assert len(pieces) > 5
    assert len(set(arrivals.prompts())) == 1


async def test_a_tool_is_called_and_its_answer_read(
    server: ScriptedServer, arrivals: Arrivals
) -> None:
    sums = []

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        sums.append(a + b)
        return a + b

    async with config(server.url) as model:
        agent: Agent = Agent("calculator", config=model, tools=[add])
        reply = await agent.ask("please add(1, 2)")
    assert reply.body
    assert len(sums) == 1
    last = arrivals.prompts()[1].splitlines()[-1]
    assert last.startswith("<|tool|>")
    assert last.endswith(f"]{sums[0]}")


async def test_agents_side_by_side_and_their_labels(
    server: ScriptedServer, arrivals: Arrivals
) -> None:
    labels = {"x-parrot-session": "run-1", "x-parrot-stage": "ideas"}
    async with config(server.url, default_headers=labels) as model:
        agent: Agent = Agent("poet", config=model)
        replies = await asyncio.gather(*(agent.ask(f"Idea {i}.") for i in range(5)))
    assert len({reply.body for reply in replies}) == 5
    found = [(call.labels["session"], call.stage) for call in arrivals.calls()]
    assert found == [("run-1", "ideas")] * 5


@pytest.mark.vllm
@pytest.mark.timeout(300)
async def test_on_vllm(vllm_url: str) -> None:
    async with config(vllm_url, TINY_MODEL_NAME, temperature=0, max_tokens=12) as model:
        texts = await chain(model, "a harbour")
        usage = await (await Agent("poet", config=model).ask("Hello")).usage()
    assert len(texts) == 3
    assert usage.total.completion_tokens


def test_the_documented_snippet(documented_server: ScriptedServer) -> None:
    code = snippet("docs/agents.md", "from ag2 import")
    assert run_snippet(code, documented_server.url).strip()
    assert documented_server.count("POST", CHAT)
