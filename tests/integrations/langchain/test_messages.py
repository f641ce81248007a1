"""LangChain's messages as those of the protocol."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call

from parrot_backend.protocol import ToolCall as WireToolCall
from parrot_integrations.langchain.messages import to_message, to_messages
from parrot_integrations.planning.calls import ChatMessage as Sent


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (SystemMessage("be kind"), Sent("system", "be kind")),
        (HumanMessage("hi"), Sent("user", "hi")),
        (HumanMessageChunk(content="hi"), Sent("user", "hi")),
        (HumanMessage("hi", name="ann"), Sent("user", "hi", name="ann")),
        (HumanMessage("hi", name=""), Sent("user", "hi")),
        (AIMessage("hello"), Sent("assistant", "hello")),
        (AIMessageChunk(content="hello"), Sent("assistant", "hello")),
        (ChatMessage(content="x", role="developer"), Sent("system", "x")),
        (ChatMessage(content="x", role="assistant"), Sent("assistant", "x")),
        (ToolMessage("4", tool_call_id="c1"), Sent("tool", "4", tool_call_id="c1")),
        (
            ToolMessage("no such city", tool_call_id="c1", status="error", name="weather"),
            Sent("tool", "no such city", name="weather", tool_call_id="c1"),
        ),
        (
            FunctionMessage(content="4", name="add"),
            Sent("tool", "4", name="add", tool_call_id="add"),
        ),
    ],
)
def test_a_message_keeps_role_text_and_name(message: BaseMessage, sent: Sent) -> None:
    assert to_message(message) == sent


@pytest.mark.parametrize("text", ["", " a \n", "{{input:x}}", "\ue000marker\ue001", "<&\"'>"])
def test_a_text_passes_through_unchanged(text: str) -> None:
    assert to_message(HumanMessage(text)).content == text
    assert to_message(AIMessage([{"type": "text", "text": text}])).content == text


def test_text_blocks_are_joined() -> None:
    blocks: list[str | dict[Any, Any]] = [
        "a",
        {"type": "text", "text": "b"},
        {"type": "text", "text": "c"},
    ]
    assert to_message(HumanMessage(blocks)).content == "abc"
    assert to_message(ToolMessage(blocks, tool_call_id="c")).content == "abc"


def test_blocks_of_a_reply_that_are_not_its_text_are_left_out() -> None:
    blocks: list[str | dict[Any, Any]] = [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "I call."},
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
    ]
    call = ToolCall(name="add", args={"a": 1}, id="c1")
    sent = to_message(AIMessage(blocks, tool_calls=[call]))
    wire = WireToolCall(id="c1", name="add", arguments='{"a": 1}')
    assert sent == Sent("assistant", "I call.", tool_calls=(wire,))


def test_tool_calls_keep_what_the_model_wrote() -> None:
    valid = ToolCall(name="find", args={"name": "你好"}, id=None)
    broken = invalid_tool_call(name="find", args='{"na', id="c2", error="cut")
    message = AIMessage("", tool_calls=[valid], invalid_tool_calls=[broken])
    assert to_message(message).tool_calls == (
        WireToolCall(id="call_0", name="find", arguments='{"name": "你好"}'),
        WireToolCall(id="c2", name="find", arguments='{"na'),
    )


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]), "image_url"),
        (HumanMessage([{"type": "audio", "base64": "x"}]), "'audio'; .* text only"),
        (HumanMessage([{"type": "reasoning", "reasoning": "x"}]), "reasoning"),
        (ToolMessage([{"type": "image", "url": "x"}], tool_call_id="c"), "ToolMessage .* 'image'"),
        (ChatMessage(content="x", role="narrator"), "role 'narrator'; known are"),
        (RemoveMessage(id="1"), "RemoveMessage cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_an_error(message: BaseMessage, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        to_message(message)


def test_an_empty_chat_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one message"):
        to_messages([])
