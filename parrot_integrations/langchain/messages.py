"""LangChain's messages as those of the protocol. Pure, and texts pass through unchanged.

Texts may hold the markers of a planner. Text blocks are joined without anything between them, as
``message.text`` does. Reasoning of earlier replies is left out: chat templates do the same. Whether
a tool succeeded (``ToolMessage.status``) has no place in chat templates; its content tells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from parrot_backend.protocol import ToolCall
from parrot_integrations.planning.calls import ChatMessage as ParrotMessage
from parrot_integrations.planning.calls import Role

#: Blocks that are not part of the text of a reply: what they say is elsewhere, or is not sent.
_SILENT_IN_REPLIES = frozenset(
    {
        "reasoning",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "function_call",
    }
)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
}


def to_messages(messages: Sequence[BaseMessage]) -> tuple[ParrotMessage, ...]:
    """Convert a chat.

    Raises:
        ValueError: It is empty, or holds something that is not text.
    """
    if not messages:
        raise ValueError("a chat needs at least one message")
    return tuple(to_message(message) for message in messages)


def to_message(message: BaseMessage) -> ParrotMessage:
    """Convert one message.

    Raises:
        ValueError: It holds something that is not text, or is of a kind without a counterpart.
    """
    for kind, convert in _CONVERTERS.items():
        if isinstance(message, kind):
            return convert(message)
    raise ValueError(f"a {type(message).__name__} cannot be sent to a model")


def _from_system(message: BaseMessage) -> ParrotMessage:
    return ParrotMessage("system", text_of(message), name=message.name or None)


def _from_human(message: BaseMessage) -> ParrotMessage:
    return ParrotMessage("user", text_of(message), name=message.name or None)


def _from_ai(message: BaseMessage) -> ParrotMessage:
    assert isinstance(message, AIMessage)
    return ParrotMessage(
        "assistant",
        text_of(message, _SILENT_IN_REPLIES),
        name=message.name or None,
        tool_calls=tool_calls_of(message),
    )


def _from_tool(message: BaseMessage) -> ParrotMessage:
    assert isinstance(message, ToolMessage)
    return ParrotMessage(
        "tool", text_of(message), name=message.name or None, tool_call_id=message.tool_call_id
    )


def _from_function(message: BaseMessage) -> ParrotMessage:
    """Convert the predecessor of tool messages; its calls had names instead of ids."""
    name = message.name or "function"
    return ParrotMessage("tool", text_of(message), name=name, tool_call_id=name)


def _from_role(message: BaseMessage) -> ParrotMessage:
    assert isinstance(message, ChatMessage)
    role = _ROLES.get(message.role)
    if role is None:
        known = ", ".join(_ROLES)
        raise ValueError(f"a message has the role {message.role!r}; known are {known}")
    return ParrotMessage(role, text_of(message), name=message.name or None)


_CONVERTERS: dict[type[BaseMessage], Callable[[BaseMessage], ParrotMessage]] = {
    SystemMessage: _from_system,
    HumanMessage: _from_human,
    AIMessage: _from_ai,
    ToolMessage: _from_tool,
    FunctionMessage: _from_function,
    ChatMessage: _from_role,
}


def text_of(message: BaseMessage, silent: frozenset[str] = frozenset()) -> str:
    """Return the text of a message; blocks of the kinds in ``silent`` are left out.

    Raises:
        ValueError: A block is neither text nor silent.
    """
    content = message.content
    if isinstance(content, str):
        return content
    return "".join(_block_text(block, silent, type(message).__name__) for block in content)


def _block_text(block: str | dict[Any, Any], silent: frozenset[str], where: str) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    if kind in ("text", "text-plain") and isinstance(block.get("text"), str):
        text: str = block["text"]
        return text
    if kind in silent:
        return ""
    raise ValueError(
        f"a {where} holds a content block of type {kind!r}; Parrot's models take text only"
    )


def tool_calls_of(message: AIMessage) -> tuple[ToolCall, ...]:
    """Return what the model asked for, in order; calls that could not be read as it wrote them."""
    valid = [(call["id"], call["name"], _to_json(call["args"])) for call in message.tool_calls]
    invalid = [
        (call["id"], call["name"] or "unknown", call["args"] or "")
        for call in message.invalid_tool_calls
    ]
    return tuple(
        ToolCall(id=call_id or f"call_{i}", name=name, arguments=arguments)
        for i, (call_id, name, arguments) in enumerate([*valid, *invalid])
    )


def _to_json(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
