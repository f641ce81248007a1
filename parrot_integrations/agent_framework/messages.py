"""Messages of Agent Framework as those of the protocol. Pure.

Texts of one message are joined by a space, as ``message.text`` does. Reasoning of earlier replies
is left out: chat templates do the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent_framework import Content, Message

from parrot_backend.protocol import ToolCall
from parrot_integrations.planning.calls import ChatMessage, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
#: Contents of replies that the next request does not repeat, or says in another place.
_SILENT_IN_REPLIES = frozenset({"text_reasoning", "function_call", "usage"})


def to_messages(messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
    """Convert a chat; each result of a tool becomes a message.

    Raises:
        ValueError: It is empty, or holds something that is not text.
    """
    if not messages:
        raise ValueError("a chat needs at least one message")
    return tuple(made for message in messages for made in _converted(message))


def _converted(message: Message) -> list[ChatMessage]:
    if message.role == "tool":
        return [_tool_message(content) for content in message.contents]
    role = _ROLES.get(message.role)
    if role is None:
        known = ", ".join((*_ROLES, "tool"))
        raise ValueError(f"a message has the role {message.role!r}; known are {known}")
    is_reply = role == "assistant"
    text = _text_of(message.contents, role, _SILENT_IN_REPLIES if is_reply else frozenset())
    calls = tuple(map(_tool_call, _calls_in(message))) if is_reply else ()
    return [ChatMessage(role, text, name=message.author_name or None, tool_calls=calls)]


def _calls_in(message: Message) -> list[Content]:
    return [content for content in message.contents if content.type == "function_call"]


def _tool_call(content: Content) -> ToolCall:
    arguments = content.arguments
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    return ToolCall(id=content.call_id or "", name=content.name or "", arguments=arguments)


def _tool_message(content: Content) -> ChatMessage:
    if content.type != "function_result":
        raise ValueError(f"a tool message holds {content.type!r} in place of a result")
    # The framework has put the texts of the items together; nothing else may be among them.
    _text_of(content.items or (), "tool", frozenset())
    result = content.result
    text = result if isinstance(result, str) else "" if result is None else str(result)
    return ChatMessage("tool", text, tool_call_id=content.call_id)


def _text_of(contents: Sequence[Content], role: str, silent: frozenset[str]) -> str:
    heard = [content for content in contents if content.type not in silent]
    for content in heard:
        if content.type != "text":
            raise ValueError(
                f"a message of role {role!r} holds content of type {content.type!r}; "
                "Parrot's models take text only"
            )
    return " ".join(content.text or "" for content in heard)
