"""Messages and tools of chats: OpenAI's in, the wire's out. Pure.

Texts become literal segments, so that nothing in them is ever taken for a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from parrot_backend import protocol as wire
from parrot_backend.protocol.chat import ToolName
from parrot_backend.server.openai.base import OpenAIModel, bad_field

_MAX_SPEAKER_CHARS = 256


class TextPart(OpenAIModel):
    """A part of a content; images and sounds are not supported."""

    type: Literal["text"]
    text: str
    # Other APIs mark what is to be cached; here everything is.
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None


class RefusalPart(OpenAIModel):
    """What a model said when it refused."""

    type: Literal["refusal"]
    refusal: str


_Content = str | wire.Many[TextPart]
_SaidPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]
_Said = str | wire.Many[_SaidPart]
_Speaker = Annotated[str, Field(min_length=1, max_length=_MAX_SPEAKER_CHARS)]


class _Message(OpenAIModel):
    name: _Speaker | None = None


class SystemMessage(_Message):
    """Instructions; a developer's are the system's to models."""

    role: Literal["system", "developer"]
    content: _Content


class UserMessage(_Message):
    """What the user says."""

    role: Literal["user"]
    content: _Content


class CalledFunction(OpenAIModel):
    """What is called."""

    name: str
    arguments: str
    # The SDK puts its own reading of the arguments beside them.
    parsed_arguments: Any = None


class MessageToolCall(OpenAIModel):
    """A call that the model asked for."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class AssistantMessage(_Message):
    """What the model said; what replies hold beside text may be sent back and has no effect."""

    role: Literal["assistant"]
    content: _Said | None = None
    tool_calls: wire.Many[MessageToolCall] | None = Field(default=None, max_length=128)
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: Any = None
    parsed: Any = None
    audio: None = None
    annotations: Any = None
    function_call: None = None


class ToolMessage(OpenAIModel):
    """What a tool returned."""

    role: Literal["tool"]
    content: _Content
    tool_call_id: str
    name: _Speaker | None = None


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class FunctionTool(OpenAIModel):
    """A function that the model may call; ``strict`` has no effect, arguments are strict anyway."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(OpenAIModel):
    """A tool."""

    type: Literal["function"]
    function: FunctionTool


class ChosenFunction(OpenAIModel):
    """Its name."""

    name: str


class ChosenTool(OpenAIModel):
    """The one tool that the model must call."""

    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | ChosenTool


def messages_to_wire(
    messages: Sequence[ChatMessage], output: str, *, continues_last: bool = False
) -> tuple[wire.Message, ...]:
    """Return the messages with the one that is to be generated.

    Args:
        messages: The chat so far.
        output: Name of the variable that is generated.
        continues_last: The output goes on with the last message instead of beginning a new one.

    Raises:
        RequestError: ``invalid_request``: the messages cannot follow each other so.
    """
    _check_order(messages)
    converted = [_message(message) for message in messages]
    place = wire.OutputSegment(variable=output)
    if not continues_last:
        converted.append(wire.Message(role="assistant", content=(place,)))
        return tuple(converted)
    last = messages[-1]
    if not isinstance(last, AssistantMessage) or last.tool_calls:
        where = f"messages[{len(messages) - 1}]"
        raise bad_field(where, "only an assistant's last message of text can be continued")
    begun = wire.TextSegment(text=_text(last.content))
    converted[-1] = wire.Message(role="assistant", content=(begun, place), name=last.name)
    return tuple(converted)


def tools_to_wire(tools: Sequence[Tool]) -> tuple[wire.Tool, ...]:
    """Return tools as the wire has them.

    Raises:
        RequestError: ``duplicate_tool``.
    """
    functions = [tool.function for tool in tools]
    names = {function.name for function in functions}
    if len(names) < len(functions):
        raise bad_field("tools", "two tools have the same name", "duplicate_tool")
    return tuple(
        wire.Tool(
            name=function.name,
            description=function.description or "",
            **({} if function.parameters is None else {"parameters": function.parameters}),
        )
        for function in functions
    )


def choice_to_wire(choice: ToolChoice | None, tools: Sequence[Tool]) -> wire.ToolChoice:
    """Return whether tools may be called.

    Raises:
        RequestError: ``unknown_tool``: it asks for a tool that is not there.
    """
    if isinstance(choice, ChosenTool):
        name = choice.function.name
        if all(tool.function.name != name for tool in tools):
            message = f"tool_choice names {name!r}, which is not among the tools"
            raise bad_field("tool_choice", message, "unknown_tool")
        return wire.NamedTool(name=name)
    if choice == "required" and not tools:
        raise bad_field("tool_choice", "tool_choice is 'required' without tools", "unknown_tool")
    return choice or "auto"


def _check_order(messages: Sequence[ChatMessage]) -> None:
    asked = set[str]()
    for number, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            asked |= {call.id for call in message.tool_calls or ()}
        elif isinstance(message, ToolMessage) and message.tool_call_id not in asked:
            raise bad_field(
                f"messages[{number}].tool_call_id",
                f"messages[{number}] answers the call {message.tool_call_id!r}, which no "
                "assistant's message before it has made",
            )


def _message(message: ChatMessage) -> wire.Message:
    content = (wire.TextSegment(text=_text(message.content)),)
    match message:
        case AssistantMessage():
            calls = tuple(
                wire.ToolCall(
                    id=call.id, name=call.function.name, arguments=call.function.arguments
                )
                for call in message.tool_calls or ()
            )
            return wire.Message(
                role="assistant", content=content, name=message.name, tool_calls=calls
            )
        case ToolMessage():
            return wire.Message(
                role="tool", content=content, name=message.name, tool_call_id=message.tool_call_id
            )
        case UserMessage():
            return wire.Message(role="user", content=content, name=message.name)
        case SystemMessage():
            return wire.Message(role="system", content=content, name=message.name)


def _text(content: _Said | None) -> str:
    """Return a content as one text; parts are lines, as vLLM joins them."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(
        part.refusal if isinstance(part, RefusalPart) else part.text for part in content
    )
