"""Agents over a real connection to a real server with a scripted engine."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from agent_framework import Agent, AgentResponse, WorkflowBuilder, tool
from agent_framework.exceptions import ChatClientException, ChatClientInvalidRequestException
from pydantic import BaseModel

import parrot_integrations as P
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.agent_framework import ParrotChatClient
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def slow_server() -> Iterator[ScriptedServer]:
    """A server whose replies take long enough to be given up."""
    with scripted_server(ScriptedConfig(token_s=0.002)) as server:
        yield server


@pytest.fixture
def agent(server: ScriptedServer) -> Agent[Any]:
    server.requests.clear()
    return Agent(ParrotChatClient(base_url=server.url), "Be brief.", name="teacher")


async def test_a_reply_tells_usage_and_why_it_ended(agent: Agent[Any]) -> None:
    response = await agent.run("why", options={"max_tokens": 4})
    assert response.finish_reason == "length"
    assert response.usage_details is not None
    assert response.usage_details["output_token_count"] == 4


async def test_a_stream_is_the_same_text(agent: Agent[Any]) -> None:
    stream = agent.run("why", stream=True)
    pieces = [update.text async for update in stream]
    whole = await stream.get_final_response()
    assert "".join(pieces) == whole.text == (await agent.run("why")).text
    assert whole.finish_reason == "stop"
    assert whole.usage_details is not None


class Sum(BaseModel):
    a: int
    b: int


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called_and_answered(
    server: ScriptedServer, agent: Agent[Any], stream: bool
) -> None:
    calls = []

    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        calls.append((a, b))
        return a + b

    asked = "please add(1, 2)"
    response: AgentResponse[Any]
    if stream:
        response = await agent.run(asked, tools=[add], stream=True).get_final_response()
    else:
        response = await agent.run(asked, tools=[add])
    assert len(calls) == 1
    kinds = [content.type for message in response.messages for content in message.contents]
    assert kinds == ["function_call", "function_result", "text"]
    result = response.messages[1].contents[0]
    assert result.result == str(sum(calls[0]))
    assert server.num_submits == 2


async def test_a_required_tool_is_called_and_its_failure_is_told(agent: Agent[Any]) -> None:
    @tool
    def broken() -> str:
        """Do nothing well."""
        raise RuntimeError("no")

    response = await agent.run("go", tools=[broken], options={"tool_choice": "required"})
    results = [c for m in response.messages for c in m.contents if c.type == "function_result"]
    assert results[0].exception
    assert response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_structured_output(agent: Agent[Any], stream: bool) -> None:
    options: Any = {"response_format": Sum}
    if stream:
        found = await agent.run("numbers", stream=True, options=options).get_final_response()
    else:
        found = await agent.run("numbers", options=options)
    assert isinstance(found.value, Sum)
    plain = await agent.run("numbers", options={"response_format": Sum.model_json_schema()})
    assert plain.value == found.value.model_dump()


async def test_errors_are_the_frameworks_and_ours(server: ScriptedServer) -> None:
    agent = Agent(ParrotChatClient(base_url=server.url))
    with pytest.raises(ChatClientInvalidRequestException) as unknown:
        await agent.run("a", options={"model": "nobody"})
    with pytest.raises(ChatClientInvalidRequestException) as long:
        await agent.run("word " * 10_000)
    errors = [error.value for error in (unknown, long)]
    assert [getattr(error, "code", "") for error in errors] == ["unknown_model", "prompt_too_long"]
    assert all(isinstance(error, P.ParrotError) for error in errors)


LONG: Any = {"max_tokens": 5_000, "ignore_eos": True}


async def under_way(server: ScriptedServer) -> None:
    while not server.service.coordinator.num_unfinished_calls:
        await asyncio.sleep(0)


async def test_a_task_that_is_cancelled_cancels_its_call(slow_server: ScriptedServer) -> None:
    agent = Agent(ParrotChatClient(base_url=slow_server.url))
    task = asyncio.ensure_future(agent.run("long", options=LONG))
    await under_way(slow_server)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(slow_server.wait_until_idle)


async def test_a_stream_that_is_closed_is_cancelled(slow_server: ScriptedServer) -> None:
    agent = Agent(ParrotChatClient(base_url=slow_server.url))
    async with agent.run("long", stream=True, options=LONG) as stream:
        await anext(stream)
        assert slow_server.service.coordinator.num_unfinished_calls == 1
    await asyncio.to_thread(slow_server.wait_until_idle)


async def test_a_call_that_timed_out_is_cancelled(slow_server: ScriptedServer) -> None:
    agent = Agent(ParrotChatClient(base_url=slow_server.url, timeout_s=0.05))
    with pytest.raises(ChatClientException) as caught:
        await agent.run("long", options=LONG)
    assert isinstance(caught.value, P.WaitTimeout)
    with pytest.raises(P.WaitTimeout):
        await agent.run("long", stream=True, options=LONG).get_final_response()
    await asyncio.to_thread(slow_server.wait_until_idle)


async def test_many_agents_at_once(server: ScriptedServer) -> None:
    client = ParrotChatClient(base_url=server.url)
    agents = [Agent(client, f"You are number {i}.", name=f"agent{i}") for i in range(20)]
    together = await asyncio.gather(*(agent.run("why") for agent in agents))
    texts = [response.text for response in together]
    assert texts == [(await agent.run("why")).text for agent in agents]
    assert len(set(texts)) == 20


def test_one_client_in_several_event_loops_leaves_nothing_open(server: ScriptedServer) -> None:
    agent = Agent(ParrotChatClient(base_url=server.url))

    async def ask() -> str:
        return (await agent.run("why")).text

    assert asyncio.run(ask()) == asyncio.run(ask())
    # What is not closed is a warning when it is collected, and warnings are errors.
    gc.collect()


async def test_a_workflow_of_agents(server: ScriptedServer) -> None:
    client = ParrotChatClient(base_url=server.url)
    writer, critic = Agent(client, "Write.", name="writer"), Agent(client, "Judge.", name="critic")
    workflow = WorkflowBuilder(start_executor=writer).add_edge(writer, critic).build()
    server.requests.clear()
    result = await workflow.run("a haiku")
    texts = [output.text for output in result.get_outputs()]
    draft = await writer.run("a haiku")
    assert texts[-1]
    assert draft.text in texts
    assert server.count("POST", "/v1/submit") == 3
