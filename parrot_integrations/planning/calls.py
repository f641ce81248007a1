"""One call of a model, as an adapter sees it: rendered messages or prompt, and every parameter.

The same type serves twice: while a program is planned, texts hold markers in the places of values
to come; while it is replayed, they are concrete, and a call is looked up in the plan by them.
Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from parrot_backend.protocol import (
    CallNode,
    InputSegment,
    Message,
    OutputSegment,
    Sampling,
    Scalar,
    TextSegment,
    Tool,
    ToolCall,
    ToolChoice,
)

Role = Literal["system", "user", "assistant", "tool"]

#: What a text becomes in a request.
Segments = tuple[TextSegment | InputSegment, ...]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat; see ``protocol.Message``."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True)
class CallOptions:
    """Everything but the prompt that has an influence on what is generated.

    Attributes:
        model: None takes the server's default.
        sampling: How the output is sampled.
        tools: What the model may ask for, and the following two how; see ``protocol.CallNode``.
    """

    model: str | None = None
    sampling: Sampling = Sampling()  # noqa: RUF009 - immutable
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    chat_template_kwargs: Mapping[str, Scalar] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """A text that is equal for equal options and for no others."""
        node = CallNode(name="_", messages=(Message(role="user", content=""),), **self._fields())
        return node.model_dump_json(exclude={"name", "messages"}, exclude_defaults=True)

    def _fields(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "sampling": self.sampling,
            "tools": self.tools,
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "chat_template_kwargs": dict(self.chat_template_kwargs),
        }


@dataclass(frozen=True)
class ModelCall:
    """A call: chat ``messages``, or else a raw ``prompt``."""

    options: CallOptions
    messages: tuple[ChatMessage, ...] | None = None
    prompt: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompt, or the contents of the messages, in order."""
        if self.messages is None:
            return (self.prompt or "",)
        return tuple(message.content for message in self.messages)

    @cached_property
    def frame(self) -> tuple[object, ...]:
        """All but the texts, as something to compare and to hash."""
        if self.messages is None:
            return (self.options.key,)
        rest = (
            (message.role, message.name, message.tool_calls, message.tool_call_id)
            for message in self.messages
        )
        return (self.options.key, *rest)

    def to_node(
        self,
        name: str,
        output: str,
        contents: Iterable[Segments] | None = None,
        stage: str | None = None,
    ) -> CallNode:
        """Return the call as a node that makes variable ``output``.

        Args:
            name: Name of the node.
            output: Name of the variable.
            contents: What each text is made of; None sends the texts as they are.
            stage: Which part of the program it is.
        """
        fields = {**self.options._fields(), "stage": stage}
        if contents is None:
            contents = tuple(_constant(text) for text in self.texts)
        made = (OutputSegment(variable=output),)
        if self.messages is None:
            (content,) = contents
            return CallNode(name=name, prompt=(*content, *made), **fields)
        messages = [
            Message(
                role=message.role,
                content=content,
                name=message.name,
                tool_calls=message.tool_calls,
                tool_call_id=message.tool_call_id,
            )
            for message, content in zip(self.messages, contents, strict=True)
        ]
        messages.append(Message(role="assistant", content=made))
        return CallNode(name=name, messages=tuple(messages), **fields)


def _constant(text: str) -> Segments:
    return (TextSegment(text=text),) if text else ()
