"""Agents on a real server with vLLM and the tiny model, which writes English-like noise."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from agent_framework import Agent, ChatOptions, tool
from pydantic import BaseModel

from parrot_integrations.agent_framework import ParrotChatClient

pytestmark = [pytest.mark.vllm, pytest.mark.e2e]


@pytest.fixture
def client(vllm_url: str) -> ParrotChatClient:
    return ParrotChatClient(base_url=vllm_url)


async def test_a_reply_streamed_and_whole(client: ParrotChatClient) -> None:
    agent = Agent(client, "Be brief.", default_options={"temperature": 0.0, "max_tokens": 16})
    stream = agent.run("why", stream=True)
    pieces = [update.text async for update in stream]
    whole = await stream.get_final_response()
    assert "".join(pieces) == whole.text == (await agent.run("why")).text
    assert whole.usage_details is not None
    assert whole.usage_details["output_token_count"] == 16
    assert whole.finish_reason == "length"


class Mood(BaseModel):
    mood: Literal["glad", "sad"]
    is_loud: bool


async def test_structured_output(client: ParrotChatClient) -> None:
    options: ChatOptions[Mood] = {"response_format": Mood, "max_tokens": 200, "seed": 3}
    response = await Agent(client).run("how are you", options=options)
    assert isinstance(response.value, Mood)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_required_tool_is_called(client: ParrotChatClient, stream: bool) -> None:
    calls = []

    @tool
    def feel(mood: Literal["glad", "sad"]) -> str:
        """Feel something."""
        calls.append(mood)
        return "felt"

    agent = Agent(client, tools=[feel])
    options: Any = {"tool_choice": "required", "max_tokens": 200, "seed": 3}
    options["allow_multiple_tool_calls"] = False
    if stream:
        response = await agent.run("go", stream=True, options=options).get_final_response()
    else:
        response = await agent.run("go", options=options)
    assert calls[0] in ("glad", "sad")
    kinds = [content.type for message in response.messages for content in message.contents]
    assert kinds[:2] == ["function_call", "function_result"]


async def test_many_at_once_are_what_they_are_alone(client: ParrotChatClient) -> None:
    options: Any = {"temperature": 0.0, "max_tokens": 8}
    agents = [Agent(client, f"You are {i}.", default_options=options) for i in range(8)]
    replies = await asyncio.gather(*(agent.run("why") for agent in agents))
    assert all(reply.text for reply in replies)
    assert replies[0].text == (await agents[0].run("why")).text
