"""Semantic Kernel's chat histories as messages of the protocol. Pure; texts pass unchanged.

Texts may hold the markers of a planner. Texts of one message are joined without anything between
them. Left out are the reasoning of earlier replies, as chat templates do, and annotations, which
only point at places in texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from semantic_kernel.contents import (
    AnnotationContent,
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FunctionCallContent,
    FunctionResultContent,
    ReasoningContent,
    StreamingAnnotationContent,
    TextContent,
)

from parrot_backend.protocol import ToolCall
from parrot_integrations.planning.calls import ChatMessage, Role

_ROLES: dict[AuthorRole, Role] = {
    AuthorRole.SYSTEM: "system",
    AuthorRole.DEVELOPER: "system",
    AuthorRole.USER: "user",
    AuthorRole.ASSISTANT: "assistant",
    AuthorRole.TOOL: "tool",
}
_SILENT = (ReasoningContent, AnnotationContent, StreamingAnnotationContent)


def to_messages(chat_history: ChatHistory) -> tuple[ChatMessage, ...]:
    """Convert a chat.

    Raises:
        ValueError: It is empty, or holds something that is not text.
    """
    if not chat_history.messages:
        raise ValueError("the chat history is empty")
    return tuple(found for message in chat_history.messages for found in _convert(message))


def instructing_name(chat_history: ChatHistory) -> str | None:
    """Return the name of who instructs the model: Semantic Kernel puts an agent's name there."""
    first = chat_history.messages[0] if chat_history.messages else None
    return first.name if first is not None and _ROLES[first.role] == "system" else None


def _convert(message: ChatMessageContent) -> Iterator[ChatMessage]:
    """Yield the message, or one for each result of a function that it holds."""
    role = _ROLES[message.role]
    text, calls, results = "", [], []
    for item in message.items:
        if isinstance(item, TextContent):
            text += item.text
        elif isinstance(item, FunctionCallContent) and role == "assistant":
            calls.append(item)
        elif isinstance(item, FunctionResultContent) and role == "tool":
            results.append(item)
        elif not isinstance(item, _SILENT):
            raise ValueError(
                f"a {role} message holds a {type(item).__name__}; Parrot's models take text only"
            )
    if role != "tool":
        yield ChatMessage(
            role, text, name=message.name or None, tool_calls=tuple(_to_tool_calls(calls))
        )
        return
    if not results:
        raise ValueError("a tool message holds no FunctionResultContent")
    for i, result in enumerate(results):
        yield ChatMessage(
            "tool",
            _text_of(result.result),
            name=result.name or None,
            tool_call_id=result.id or result.call_id or f"call_{i}",
        )


def _to_tool_calls(items: list[FunctionCallContent]) -> Iterator[ToolCall]:
    for i, item in enumerate(items):
        call_id = item.id or item.call_id or f"call_{i}"
        yield ToolCall(id=call_id, name=item.name or "", arguments=_to_json(item.arguments))


def _to_json(arguments: str | Mapping[str, Any] | None) -> str:
    if isinstance(arguments, Mapping):
        return json.dumps(dict(arguments), ensure_ascii=False)
    return arguments or "{}"


def _text_of(result: object) -> str:
    return "" if result is None else str(result)
