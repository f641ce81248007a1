"""Spans of calls, as Semantic Kernel makes them for every service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from semantic_kernel.contents import ChatHistory
from semantic_kernel.exceptions import ServiceInvalidAuthError
from semantic_kernel.utils.telemetry.model_diagnostics import decorators

from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotTextCompletion,
    ParrotTextPromptExecutionSettings,
)
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.fake_replies import error_reply

CHAT, TEXT = ParrotChatPromptExecutionSettings(), ParrotTextPromptExecutionSettings()


async def chat_whole(chat: ParrotChatCompletion, _: Any, history: ChatHistory) -> None:
    assert await chat.get_chat_message_content(history, CHAT)


async def chat_stream(chat: ParrotChatCompletion, _: Any, history: ChatHistory) -> None:
    assert [chunk async for chunk in chat.get_streaming_chat_message_contents(history, CHAT)]


async def text_whole(_: Any, text: ParrotTextCompletion, __: Any) -> None:
    assert await text.get_text_content("a", TEXT)


async def text_stream(_: Any, text: ParrotTextCompletion, __: Any) -> None:
    assert [chunk async for chunk in text.get_streaming_text_contents("a", TEXT)]


every_call = pytest.mark.parametrize("call", [chat_whole, chat_stream, text_whole, text_stream])
Call = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    tracer = MagicMock()
    monkeypatch.setattr(decorators, "tracer", tracer)
    monkeypatch.setattr(decorators, "are_model_diagnostics_enabled", lambda: True)
    return tracer


def attributes(tracer: MagicMock) -> dict[str, Any]:
    span = tracer.start_span.return_value
    (first,) = span.set_attributes.call_args.args
    return {**first, **dict(call.args for call in span.set_attribute.call_args_list)}


@every_call
async def test_a_call_is_a_span(
    call: Call,
    tracer: MagicMock,
    chat: ParrotChatCompletion,
    text: ParrotTextCompletion,
    chat_history: ChatHistory,
    host: str,
) -> None:
    await call(chat, text, chat_history)
    tracer.start_span.assert_called_once()
    told = attributes(tracer)
    assert (told["gen_ai.system"], told["server.address"]) == ("parrot", host)
    assert told["gen_ai.request.model"] == "default"
    if call is text_stream:
        return  # The framework's sum of text chunks has the metadata of the first one only.
    assert told["gen_ai.response.id"] == "s1.reply-0"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (1, 2)


@every_call
async def test_a_failure_is_told(
    call: Call,
    tracer: MagicMock,
    chat: ParrotChatCompletion,
    text: ParrotTextCompletion,
    chat_history: ChatHistory,
    fake: FakeParrot,
) -> None:
    fake.mishaps = [error_reply(401, "unauthorized")]
    with pytest.raises(ServiceInvalidAuthError):
        await call(chat, text, chat_history)
    assert "NotAuthenticated" in attributes(tracer)["error.type"]
