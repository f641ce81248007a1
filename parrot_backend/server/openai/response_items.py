"""Items of the Responses API: what a conversation consists of, as messages of a chat. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from parrot_backend import protocol as wire
from parrot_backend.server.openai.base import OpenAIModel, bad_field
from parrot_backend.server.openai.messages import (
    AssistantMessage,
    CalledFunction,
    ChatMessage,
    MessageToolCall,
    RefusalPart,
    SystemMessage,
    ToolMessage,
    UserMessage,
)


class TextItemPart(OpenAIModel):
    """A part of a content; images and files are not supported."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Any = None
    logprobs: Any = None
    # The SDK puts its own reading of the text beside it.
    parsed: Any = None


_Part = Annotated[TextItemPart | RefusalPart, Field(discriminator="type")]
_Content = str | wire.Many[_Part]


class MessageItem(OpenAIModel):
    """What somebody said."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class FunctionCallItem(OpenAIModel):
    """A call that the model asked for."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    parsed_arguments: Any = None
    id: str | None = None
    status: str | None = None


class FunctionOutputItem(OpenAIModel):
    """What a tool returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: _Content
    id: str | None = None
    status: str | None = None


class ReasoningItem(OpenAIModel):
    """What the model thought; models are not shown it again."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Any = None
    content: Any = None
    encrypted_content: str | None = None
    status: str | None = None


def _kind(item: Any) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else "message"
    return kind if isinstance(kind, str) else ""


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="invalid_item",
        custom_error_message="items of this type are not supported",
    ),
]


def items_to_messages(
    instructions: str | None, given: str | Sequence[Item]
) -> tuple[ChatMessage, ...]:
    """Return the chat that items make up.

    Calls go into the assistant's message before them, since that is one message to models.

    Raises:
        RequestError: ``invalid_request``: there is nothing, or an answer to no call.
    """
    messages: list[ChatMessage] = []
    if instructions:
        messages.append(SystemMessage(role="system", content=instructions))
    if isinstance(given, str):
        return (*messages, UserMessage(role="user", content=given))
    asked = set[str]()
    for number, item in enumerate(given):
        match item:
            case MessageItem():
                messages.append(_message(item))
            case FunctionCallItem():
                asked.add(item.call_id)
                _add_call(messages, item)
            case FunctionOutputItem():
                if item.call_id not in asked:
                    message = f"input[{number}] answers the call {item.call_id!r}; nobody made it"
                    raise bad_field(f"input[{number}].call_id", message)
                messages.append(
                    ToolMessage(role="tool", content=_text(item.output), tool_call_id=item.call_id)
                )
            case ReasoningItem():
                pass
    if not messages:
        raise bad_field("input", "the input is empty")
    return tuple(messages)


def _message(item: MessageItem) -> ChatMessage:
    text = _text(item.content)
    if item.role == "user":
        return UserMessage(role="user", content=text)
    if item.role == "assistant":
        return AssistantMessage(role="assistant", content=text)
    return SystemMessage(role="system", content=text)


def _add_call(messages: list[ChatMessage], item: FunctionCallItem) -> None:
    function = CalledFunction(name=item.name, arguments=item.arguments)
    call = MessageToolCall(id=item.call_id, function=function)
    last = messages[-1] if messages else None
    if isinstance(last, AssistantMessage):
        calls = (*(last.tool_calls or ()), call)
        messages[-1] = AssistantMessage(role="assistant", content=last.content, tool_calls=calls)
    else:
        messages.append(AssistantMessage(role="assistant", tool_calls=(call,)))


def _text(content: _Content) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(
        part.text if isinstance(part, TextItemPart) else part.refusal for part in content
    )
