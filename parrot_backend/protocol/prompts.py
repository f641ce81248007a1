"""Prompts: segments, messages, and how an output is sampled."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from parrot_backend.protocol.base import Many, Name, Reference, WireModel
from parrot_backend.protocol.chat import ResponseFormat, ToolCall
from parrot_backend.protocol.transforms import WireTransform


class Sampling(WireModel):
    """Sampling parameters of one output; the names and meanings are vLLM's.

    Attributes:
        max_tokens: Longest output; None lets it fill the model's context.
        logprobs: How many of the likeliest tokens to tell at each place, beside the one generated;
            None tells nothing.
        response_format: The form that the output must have.
    """

    max_tokens: int | None = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, description="0 means all")
    min_p: float = Field(default=0.0, ge=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: Many[Annotated[str, Field(min_length=1)]] = Field(default=(), max_length=16)
    min_tokens: int = Field(default=0, ge=0)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, gt=0, le=2)
    ignore_eos: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens is greater than max_tokens")
        return self


class TextSegment(WireModel):
    """Constant text, taken literally."""

    type: Literal["text"] = "text"
    text: str


class InputSegment(WireModel):
    """The value of a variable, after its transforms in order."""

    type: Literal["input"] = "input"
    variable: Reference
    transforms: Many[WireTransform] = ()


class OutputSegment(WireModel):
    """The place where a variable is generated; ``sampling`` None takes the call's."""

    type: Literal["output"] = "output"
    variable: Name
    sampling: Sampling | None = None


WireSegment = Annotated[TextSegment | InputSegment | OutputSegment, Field(discriminator="type")]

#: A template string, or segments.
PromptContent = str | Many[WireSegment]


class Message(WireModel):
    """One chat message. An output may stand only in the last one, which must be the assistant's.

    Attributes:
        name: Who speaks, for templates that tell.
        tool_calls: What the assistant asked for.
        tool_call_id: Which of them a tool's message answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: PromptContent
    name: str | None = Field(default=None, min_length=1, max_length=256)
    tool_calls: Many[ToolCall] = Field(default=(), max_length=128)
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _tools_by_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant's message has tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("a tool's message has a tool_call_id, and no other has")
        return self
