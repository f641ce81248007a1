"""Messages of AutoGen as those of the protocol. Pure.

An assistant's ``thought`` is what it said beside its calls of tools; AutoGen's own clients send it
back as text in that case only, and so does this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autogen_core import FunctionCall, Image
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)

from parrot_backend.protocol import ToolCall
from parrot_integrations.planning.annotations import label
from parrot_integrations.planning.calls import ChatMessage


def to_messages(messages: Sequence[LLMMessage]) -> tuple[ChatMessage, ...]:
    """Convert a chat; each result of a tool becomes a message.

    Raises:
        ValueError: It is empty, or holds something that is not text.
    """
    if not messages:
        raise ValueError("a chat needs at least one message")
    return tuple(made for message in messages for made in _converted(message))


def _converted(message: LLMMessage) -> Iterator[ChatMessage]:
    match message:
        case SystemMessage():
            yield ChatMessage("system", message.content)
        case UserMessage():
            yield ChatMessage("user", _text(message.content), name=_name(message.source))
        case AssistantMessage(content=str(text)):
            yield ChatMessage("assistant", text, name=_name(message.source))
        case AssistantMessage():
            calls = tuple(_tool_call(call) for call in message.content)  # type: ignore[arg-type] # texts went before
            name = _name(message.source)
            yield ChatMessage("assistant", message.thought or "", name=name, tool_calls=calls)
        case FunctionExecutionResultMessage():
            for result in message.content:
                yield ChatMessage("tool", result.content, tool_call_id=result.call_id)


def _text(content: str | Sequence[str | Image]) -> str:
    parts = [content] if isinstance(content, str) else content
    if any(isinstance(part, Image) for part in parts):
        raise ValueError("a message holds an image; Parrot's models take text only")
    return "\n".join(map(str, parts))


def _name(source: str) -> str | None:
    return label(source) or None


def _tool_call(call: FunctionCall) -> ToolCall:
    return ToolCall(id=call.id, name=call.name, arguments=call.arguments)
