"""Agents on real vLLM with the tiny model."""

from __future__ import annotations

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import UserMessage
from autogen_core.tools import FunctionTool
from pydantic import BaseModel

from parrot_integrations.autogen import ParrotChatCompletionClient

pytestmark = [pytest.mark.vllm, pytest.mark.e2e, pytest.mark.timeout(300)]

ASK = [UserMessage(content="What is the sum of 1 and 2?", source="ann")]


class Sum(BaseModel):
    total: bool


@pytest.fixture
def client(vllm_url: str) -> ParrotChatCompletionClient:
    return ParrotChatCompletionClient(base_url=vllm_url, max_tokens=16, temperature=0)


async def test_streamed_and_whole_replies_are_equal(client: ParrotChatCompletionClient) -> None:
    whole = await client.create(ASK)
    *pieces, last = [piece async for piece in client.create_stream(ASK)]
    assert "".join(map(str, pieces)) == whole.content
    assert whole.usage.completion_tokens > 0
    assert whole.usage.prompt_tokens > 0
    assert getattr(last, "content", None) == whole.content


async def test_structured_output(client: ParrotChatCompletionClient) -> None:
    result = await client.create(ASK, json_output=Sum, extra_create_args={"max_tokens": 64})
    assert isinstance(result.content, str)
    assert Sum.model_validate_json(result.content)


async def test_a_named_tool_is_called(client: ParrotChatCompletionClient) -> None:
    def switch(on: bool) -> str:
        """Switch the light."""
        return str(on)

    tool = FunctionTool(switch, description="Switch the light.")
    result = await client.create(
        ASK, tools=[tool], tool_choice=tool, extra_create_args={"max_tokens": 256}
    )
    assert result.finish_reason == "function_calls"
    assert isinstance(result.content, list)
    assert result.content[0].name == "switch"


async def test_a_round_robin(client: ParrotChatCompletionClient) -> None:
    team = RoundRobinGroupChat(
        [AssistantAgent(name, client, system_message=f"You are {name}.") for name in "ab"],
        max_turns=4,
    )
    result = await team.run(task="Count.")
    assert len(result.messages) == 5
    assert client.total_usage().completion_tokens > 0
