"""What a chat has beside texts: tools, calls of them, and what an engine tells of an output.

The core only passes these on, and counts and hashes them. JSON stays text, so that records are
hashable and keep the order of the client's keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

#: Values of a chat template's further arguments.
TemplateValue = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask the client to call; ``parameters`` is a JSON schema."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The one tool that the model must call."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool that a model asked for; ``arguments`` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class MessageHead:
    """What a chat message has beside its role and content.

    Attributes:
        name: Who speaks.
        tool_calls: What the assistant asked for.
        tool_call_id: Which of them a tool's message answers.
    """

    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @cached_property
    def text(self) -> str:
        """All of it as one text, for hashes and lengths; empty if there is nothing."""
        if self == NO_HEAD:
            return ""
        calls = [[call.id, call.name, call.arguments] for call in self.tool_calls]
        return json.dumps([self.name, calls, self.tool_call_id], ensure_ascii=False)


NO_HEAD = MessageHead()


@dataclass(frozen=True)
class ChatOptions:
    """How a call's chat is put to the model.

    Attributes:
        tools: What the model may ask for.
        tool_choice: Whether it may, or must.
        parallel_tool_calls: Whether it may ask for several calls at once.
        template_kwargs: Further arguments of the chat template.
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    template_kwargs: tuple[tuple[str, TemplateValue], ...] = ()

    @property
    def may_call(self) -> bool:
        """Whether the output may hold calls of tools."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def must_call(self) -> bool:
        """Whether the output is nothing but calls of tools."""
        return self.may_call and self.tool_choice != "auto"

    @cached_property
    def prompt_text(self) -> str:
        """What of it stands in the prompt, as one text for hashes and lengths; may be empty."""
        if not (self.tools or self.template_kwargs):
            return ""
        tools = [[tool.name, tool.description, tool.parameters] for tool in self.tools]
        return json.dumps([tools, sorted(self.template_kwargs)], ensure_ascii=False)


NO_CHAT = ChatOptions()

FormatKind = Literal["json_schema", "json_object", "regex", "choice", "grammar"]


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form that an output must have.

    Attributes:
        kind: What sort of description it is.
        text: The JSON schema, the pattern, the choices as a JSON array, or the grammar; empty for
            any JSON object.
    """

    kind: FormatKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """A token that could have stood at a place, with its natural logarithm of probability."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token with its natural logarithm of probability, and the likeliest ones."""

    token: str
    logprob: float
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputDetails:
    """What an engine tells of an output beside its text.

    Attributes:
        tool_calls: What the model asks the client to call.
        reasoning: What it thought before; None where the engine does not tell it apart.
        logprobs: One for each token, without one that only ended the output.
    """

    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def hides_text(self) -> bool:
        """Whether more was generated than stands in the value."""
        return bool(self.tool_calls) or self.reasoning is not None

    @property
    def num_chars(self) -> int:
        """Length of calls and reasoning."""
        calls = sum(len(call.name) + len(call.arguments) for call in self.tool_calls)
        return calls + len(self.reasoning or "")


NO_DETAILS = OutputDetails()
