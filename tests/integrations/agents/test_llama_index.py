"""LlamaIndex through OpenAI's API of a Parrot server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.llms.openai_like import OpenAILike

from parrot_backend.models import TINY_MODEL_NAME
from tests.helpers.documents import run_snippet, snippet
from tests.helpers.scripted_server import ScriptedServer
from tests.integrations.agents.arrivals import CHAT, Arrivals

pytestmark = pytest.mark.e2e
NAMES = ("harbour", "bridge")


@contextlib.asynccontextmanager
async def model(url: str, name: str = "scripted", **options: Any) -> AsyncIterator[OpenAILike]:
    # LlamaIndex leaves clients of its own open.
    with httpx.Client() as http:
        async with httpx.AsyncClient() as asynchronous:
            yield OpenAILike(
                model=name,
                api_base=f"{url}/v1",
                api_key="none",
                is_chat_model=True,
                http_client=http,
                async_http_client=asynchronous,
                **options,
            )


def user(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=text)


async def test_each_call_reads_the_one_before(server: ScriptedServer, arrivals: Arrivals) -> None:
    async with model(server.url) as llm:
        draft = await llm.achat([user("Draft it.")])
        assert draft.message.content
        final = await llm.acomplete(f"Go on from this: {draft.message.content}")
        assert arrivals.prompts() == [
            "<|user|>Draft it.",
            f"<|user|>Go on from this: {draft.message.content}",
        ]
        assert server.count("POST", CHAT) == 2
        assert final.text != draft.message.content


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_stream_says_the_same(server: ScriptedServer, is_async: bool) -> None:
    async with model(server.url) as llm:
        ask = [user("Write it.")]
        if is_async:
            pieces = [piece.delta or "" async for piece in await llm.astream_chat(ask)]
        else:
            stream = llm.stream_chat(ask)
            pieces = await asyncio.to_thread(lambda: [piece.delta or "" for piece in stream])
        whole = await llm.achat(ask)
        assert "".join(pieces) == whole.message.content
        assert len(pieces) > 5


async def test_a_tree_of_summaries(server: ScriptedServer, arrivals: Arrivals) -> None:
    # So narrow that two texts do not fit one prompt, and their two summaries do.
    async with model(server.url, context_window=700, max_tokens=40) as llm:
        synthesizer = TreeSummarize(llm=llm, use_async=True)
        texts = [f"{name} " * 400 for name in NAMES]
        summary = await synthesizer.aget_response("What is it about?", texts)
        *parts, last = arrivals.calls()
        assert len(parts) == 2
        assert all(sum(part.prompt.count(name) for part in parts) >= 400 for name in NAMES)
        assert all(part.reply in last.prompt for part in parts)
        assert last.reply == summary


async def test_a_query_engine(server: ScriptedServer, arrivals: Arrivals) -> None:
    index = SummaryIndex.from_documents([Document(text="The bridge opens at noon.")])
    async with model(server.url) as llm:
        engine = index.as_query_engine(llm=llm, response_mode="compact")
        answer = await engine.aquery("When does the bridge open?")
    (prompt,) = arrivals.prompts()
    assert "The bridge opens at noon." in prompt
    assert str(answer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_agent_calls_a_tool(server: ScriptedServer, arrivals: Arrivals) -> None:
    sums = []

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        sums.append(a + b)
        return a + b

    async with model(server.url, is_function_calling_model=True) as llm:
        agent = FunctionAgent(tools=[add], llm=llm, streaming=True)
        answer = await agent.run("please add(1, 2)")
        last = arrivals.prompts()[1].splitlines()[-1]
        assert last.startswith("<|tool|>")
        assert last.endswith(f"]{sums[0]}")
        assert str(answer)


async def test_calls_side_by_side_and_their_labels(
    server: ScriptedServer, arrivals: Arrivals
) -> None:
    labels = {"x-parrot-session": "run-1", "x-parrot-stage": "ideas"}
    async with model(server.url, default_headers=labels) as llm:
        replies = await asyncio.gather(*(llm.achat([user(f"Idea {i}.")]) for i in range(5)))
        assert len({reply.message.content for reply in replies}) == 5
        found = [(call.labels["session"], call.stage) for call in arrivals.calls()]
        assert found == [("run-1", "ideas")] * 5


@pytest.mark.vllm
@pytest.mark.timeout(300)
async def test_on_vllm(vllm_url: str) -> None:
    async with model(vllm_url, TINY_MODEL_NAME, temperature=0, max_tokens=12) as llm:
        texts = ["A harbour is a place for ships.", "A bridge crosses the river."]
        assert await TreeSummarize(llm=llm, use_async=True).aget_response("What is this?", texts)
        ask = [user("Hello")]
        pieces = [piece.delta or "" async for piece in await llm.astream_chat(ask)]
        assert "".join(pieces) == (await llm.achat(ask)).message.content


def test_the_documented_snippet(documented_server: ScriptedServer) -> None:
    code = snippet("docs/agents.md", "OpenAILike(")
    assert run_snippet(code, documented_server.url).strip()
    assert documented_server.count("POST", CHAT)
