"""The services on vLLM with the tiny model, function calling included."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.contents import AuthorRole, ChatHistory, FunctionCallContent
from semantic_kernel.contents.utils.finish_reason import FinishReason
from semantic_kernel.functions import KernelArguments, kernel_function

from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotTextCompletion,
    ParrotTextPromptExecutionSettings,
)

pytestmark = [pytest.mark.vllm, pytest.mark.e2e]

SHORT: dict[str, Any] = {"max_tokens": 16, "temperature": 0}
#: What is constrained by a schema ends sooner or later, if the tokens are not always the same
#: likeliest ones and there is room.
ENDING: dict[str, Any] = {"max_tokens": 800, "temperature": 1.0, "seed": 3}


class Lamp:
    """A plugin with one function, whose arguments even a tiny model can make."""

    def __init__(self) -> None:
        self.states: list[bool] = []

    @kernel_function(description="Switch the lamp.")
    def switch(self, on: Annotated[bool, "whether it is on"]) -> str:
        self.states.append(on)
        return f"the lamp is {'on' if on else 'off'}"


class Verdict(BaseModel):
    is_true: bool


@pytest.fixture
def chat(vllm_url: str) -> ParrotChatCompletion:
    return ParrotChatCompletion(host=vllm_url)


def asking(text: str) -> ChatHistory:
    history = ChatHistory(system_message="You are helpful.")
    history.add_user_message(text)
    return history


async def test_a_reply_and_its_stream(chat: ParrotChatCompletion) -> None:
    settings = ParrotChatPromptExecutionSettings(**SHORT, logprobs=True, top_logprobs=2)
    reply = await chat.get_chat_message_content(asking("Why?"), settings)
    assert reply is not None
    usage = reply.metadata["usage"]
    assert reply.content
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 16
    assert reply.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert len(reply.metadata["logprobs"]["content"]) == usage.completion_tokens
    chunks = [
        chunk
        async for (chunk,) in chat.get_streaming_chat_message_contents(asking("Why?"), settings)
    ]
    assert str(reduce(add, chunks)) == reply.content
    assert chunks[-1].metadata["usage"].completion_tokens == usage.completion_tokens


async def test_a_raw_prompt(vllm_url: str) -> None:
    text = ParrotTextCompletion(host=vllm_url)
    settings = ParrotTextPromptExecutionSettings(**SHORT, number_of_responses=2)
    first, second = await text.get_text_contents("The capital of", settings)
    assert first.text == second.text != ""
    single = ParrotTextPromptExecutionSettings(**SHORT)
    chunks = [
        chunk async for (chunk,) in text.get_streaming_text_contents("The capital of", single)
    ]
    assert "".join(map(str, chunks)) == first.text


async def test_a_form(chat: ParrotChatCompletion) -> None:
    settings = ParrotChatPromptExecutionSettings(**ENDING, response_format=Verdict)
    reply = await chat.get_chat_message_content(asking("True?"), settings)
    assert isinstance(Verdict.model_validate_json(str(reply)), Verdict)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_required_function_is_called(chat: ParrotChatCompletion, is_streamed: bool) -> None:
    lamp, kernel = Lamp(), Kernel(services=[chat])
    kernel.add_plugin(lamp, "lamp")
    settings = ParrotChatPromptExecutionSettings(
        **ENDING, function_choice_behavior=FunctionChoiceBehavior.Required()
    )
    history = asking("Switch the lamp on.")
    if is_streamed:
        chunks = chat.get_streaming_chat_message_contents(history, settings, kernel=kernel)
        assert [chunk async for chunk in chunks]
    else:
        reply = await chat.get_chat_message_content(history, settings, kernel=kernel)
        assert reply is not None
        assert reply.role is AuthorRole.ASSISTANT
    assert len(lamp.states) >= 1
    roles = [message.role for message in history.messages[2:]]
    assert roles == [AuthorRole.ASSISTANT, *[AuthorRole.TOOL] * len(lamp.states)]


async def test_a_named_function_is_asked_for(chat: ParrotChatCompletion) -> None:
    tool = {
        "name": "lamp-switch",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
        },
    }
    settings = ParrotChatPromptExecutionSettings(
        **ENDING,
        tools=[{"type": "function", "function": tool}],
        tool_choice="lamp-switch",
    )
    reply = await chat.get_chat_message_content(asking("Switch the lamp on."), settings)
    assert reply is not None
    (called,) = [item for item in reply.items if isinstance(item, FunctionCallContent)]
    assert (called.plugin_name, called.function_name) == ("lamp", "switch")
    assert isinstance(json.loads(str(called.arguments))["on"], bool)


async def test_a_prompt_function(chat: ParrotChatCompletion) -> None:
    arguments = KernelArguments(
        settings=ParrotChatPromptExecutionSettings(**SHORT), topic="bees & <b>ants</b>"
    )
    result = await Kernel(services=[chat]).invoke_prompt("About {{$topic}}.", arguments=arguments)
    assert str(result)
