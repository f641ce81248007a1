"""Agents and teams over a real connection to a real server with a scripted engine."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import ChatAgent, TaskResult, Team
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import (
    HandoffMessage,
    ModelClientStreamingChunkEvent,
    StructuredMessage,
    TextMessage,
    ToolCallExecutionEvent,
)
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat, Swarm
from autogen_core import CancellationToken
from autogen_core.models import UserMessage
from pydantic import BaseModel

import parrot_integrations as P
from parrot_backend.core.nodes import Request
from parrot_backend.engines import scripted
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_backend.engines.scripted_chat import make_chat_reply
from parrot_backend.engines.scripted_reply import Reply, render
from parrot_integrations.autogen import ParrotChatCompletionClient
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e
NAMES = ("architect", "coder", "reviewer")


class Sum(BaseModel):
    a: int
    b: int


@pytest.fixture(scope="module")
def slow_server() -> Iterator[ScriptedServer]:
    """A server whose replies take long enough to be given up."""
    with scripted_server(ScriptedConfig(token_s=0.002)) as server:
        yield server


@pytest.fixture
def client(server: ScriptedServer) -> ParrotChatCompletionClient:
    server.requests.clear()
    return ParrotChatCompletionClient(base_url=server.url)


def agents(client: ParrotChatCompletionClient, stream: bool = False) -> list[ChatAgent | Team]:
    return [
        AssistantAgent(
            name,
            client,
            description=name,
            system_message=f"You are {name}.",
            model_client_stream=stream,
        )
        for name in NAMES
    ]


def texts_of(result: TaskResult) -> list[str]:
    return [message.to_text() for message in result.messages if isinstance(message, TextMessage)]


def stages(server: ScriptedServer, since: int) -> list[tuple[object, object]]:
    """Return the label ``session`` and the stage of each call."""
    sessions = list(server.service.coordinator.sessions)[since:]
    calls = [(session, node) for session in sessions for node in session.graph.nodes.values()]
    return [
        (dict(session.metadata).get("session"), node.stage)
        for session, node in calls
        if isinstance(node, Request)
    ]


async def test_a_round_robin_of_three(
    server: ScriptedServer, client: ParrotChatCompletionClient
) -> None:
    since = len(list(server.service.coordinator.sessions))
    team = RoundRobinGroupChat(agents(client), termination_condition=MaxMessageTermination(10))
    result = await team.run(task="Build a snake game.")
    assert len(texts_of(result)) == 10
    assert server.num_submits == 9
    found = stages(server, since)
    assert [stage for _, stage in found] == [*NAMES] * 3
    assert len({session for session, _ in found}) == 1
    assert found[0][0] is not None


async def test_streaming_teams_say_the_same(client: ParrotChatCompletionClient) -> None:
    plain = await RoundRobinGroupChat(agents(client), max_turns=3).run(task="Build it.")
    team = RoundRobinGroupChat(agents(client, stream=True), max_turns=3)
    pieces, result = [], None
    async for event in team.run_stream(task="Build it."):
        if isinstance(event, ModelClientStreamingChunkEvent):
            pieces.append(event.content)
        elif isinstance(event, TaskResult):
            result = event
    assert result is not None
    assert texts_of(result) == texts_of(plain)
    assert "".join(pieces) == "".join(texts_of(plain)[1:])


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that the scripted model answers with, in order, when it is asked who is next."""
    names: list[str] = []

    def choose(parts: Any, *rest: Any) -> Reply:
        if "select the next role" in render(parts):
            return Reply((names.pop(0),), "stop")
        return make_chat_reply(parts, *rest)

    monkeypatch.setattr(scripted, "make_chat_reply", choose)
    return names


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_selects_is_a_stage_of_its_own(
    server: ScriptedServer, client: ParrotChatCompletionClient, chosen: list[str], stream: bool
) -> None:
    since = len(list(server.service.coordinator.sessions))
    order = ["reviewer", "architect", "coder", "architect"]
    chosen[:] = order
    team = SelectorGroupChat(
        agents(client),
        client,
        max_turns=4,
        allow_repeated_speaker=True,
        model_client_streaming=stream,
        selector_prompt="Of {participants} select the next role. {roles} {history}",
    )
    result = await team.run(task="Build it.")
    speakers = [message.source for message in result.messages if isinstance(message, TextMessage)]
    assert speakers == ["user", *order]
    found = stages(server, since)
    assert [str(stage) for _, stage in found] == [
        name for speaker in order for name in ("SelectorGroupChatManager", speaker)
    ]
    assert len({session for session, _ in found}) == 1


async def test_handoffs_pass_the_work_on(client: ParrotChatCompletionClient) -> None:
    first = AssistantAgent("first", client, handoffs=["second"])
    team = Swarm(
        [first, AssistantAgent("second", client)],
        termination_condition=MaxMessageTermination(5),
    )
    result = await team.run(task="please transfer_to_second()")
    (handoff,) = (message for message in result.messages if isinstance(message, HandoffMessage))
    assert (handoff.source, handoff.target) == ("first", "second")
    assert result.messages[-1].source == "second"
    assert isinstance(result.messages[-1], TextMessage)


async def test_a_team_can_be_written_down_and_loaded(client: ParrotChatCompletionClient) -> None:
    team = RoundRobinGroupChat(agents(client), max_turns=3)
    text = team.dump_component().model_dump_json()
    loaded = RoundRobinGroupChat.load_component(json.loads(text))
    plain = texts_of(await team.run(task="Build it."))
    assert texts_of(await loaded.run(task="Build it.")) == plain
    # What was said goes on in another team.
    other = RoundRobinGroupChat(agents(client), max_turns=3)
    await other.load_state(json.loads(json.dumps(await team.save_state())))
    assert texts_of(await other.run(task="More.")) == texts_of(await team.run(task="More."))


async def test_teams_at_once_say_what_each_says_alone(
    server: ScriptedServer, client: ParrotChatCompletionClient
) -> None:
    since = len(list(server.service.coordinator.sessions))

    async def run(number: int) -> list[str]:
        team = RoundRobinGroupChat(agents(client), max_turns=3)
        return texts_of(await team.run(task=f"Build number {number}."))

    together = await asyncio.gather(*map(run, range(5)))
    assert Counter(session for session, _ in stages(server, since)).most_common()[-1][1] == 3
    assert together == [await run(number) for number in range(5)]
    await asyncio.to_thread(server.wait_until_empty)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called_and_answered(
    server: ScriptedServer, client: ParrotChatCompletionClient, stream: bool
) -> None:
    calls = []

    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        calls.append((a, b))
        return a + b

    agent = AssistantAgent(
        "calculator", client, tools=[add], reflect_on_tool_use=True, model_client_stream=stream
    )
    result = await agent.run(task="please add(1, 2)")
    assert len(calls) == 1
    (executed,) = (m for m in result.messages if isinstance(m, ToolCallExecutionEvent))
    assert executed.content[0].content == str(sum(calls[0]))
    assert isinstance(result.messages[-1], TextMessage)
    assert server.num_submits == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_structured_output(client: ParrotChatCompletionClient, stream: bool) -> None:
    agent = AssistantAgent(
        "calculator", client, output_content_type=Sum, model_client_stream=stream
    )
    last = (await agent.run(task="numbers")).messages[-1]
    assert isinstance(last, StructuredMessage)
    assert isinstance(last.content, Sum)


LONG: dict[str, Any] = {"max_tokens": 5_000, "ignore_eos": True}
ASK = [UserMessage(content="long", source="ann")]


async def under_way(server: ScriptedServer) -> None:
    while not server.service.coordinator.num_unfinished_calls:
        await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_token_ends_the_call_on_the_server(
    slow_server: ScriptedServer, stream: bool
) -> None:
    client = ParrotChatCompletionClient(base_url=slow_server.url, **LONG)
    token = CancellationToken()

    async def ask() -> None:
        if stream:
            async for _ in client.create_stream(ASK, cancellation_token=token):
                pass
        else:
            await client.create(ASK, cancellation_token=token)

    task = asyncio.ensure_future(ask())
    await under_way(slow_server)
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(slow_server.wait_until_idle)


async def test_a_stream_that_is_closed_ends_the_call(slow_server: ScriptedServer) -> None:
    client = ParrotChatCompletionClient(base_url=slow_server.url, **LONG)
    async with aclosing(client.create_stream(ASK, cancellation_token=CancellationToken())) as it:
        await anext(it)
        assert slow_server.service.coordinator.num_unfinished_calls == 1
    await asyncio.to_thread(slow_server.wait_until_idle)


async def test_a_call_that_timed_out_is_given_up(slow_server: ScriptedServer) -> None:
    client = ParrotChatCompletionClient(base_url=slow_server.url, timeout_s=0.05, **LONG)
    with pytest.raises(P.WaitTimeout):
        await client.create(ASK)
    await asyncio.to_thread(slow_server.wait_until_idle)


async def test_a_team_says_that_the_server_is_away() -> None:
    with scripted_server() as server:
        client = ParrotChatCompletionClient(base_url=server.url)
    with pytest.raises(RuntimeError, match="ConnectionFailed"):
        await RoundRobinGroupChat(agents(client), max_turns=2).run(task="Build it.")


async def test_many_calls_at_once(client: ParrotChatCompletionClient) -> None:
    asked = [[UserMessage(content=f"number {i}", source="ann")] for i in range(50)]
    together = await asyncio.gather(*map(client.create, asked))
    contents = [result.content for result in together]
    assert len(set(map(str, contents))) == 50
    assert contents[:5] == [(await client.create(ask)).content for ask in asked[:5]]


def test_one_client_in_several_event_loops_leaves_nothing_open(server: ScriptedServer) -> None:
    client = ParrotChatCompletionClient(base_url=server.url)

    async def ask() -> object:
        return (await client.create(ASK)).content

    assert asyncio.run(ask()) == asyncio.run(ask())
    # What is not closed is a warning when it is collected, and warnings are errors.
    gc.collect()
