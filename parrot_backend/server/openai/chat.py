"""``POST /v1/chat/completions``: its request, as calls. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from parrot_backend import protocol as wire
from parrot_backend.core.build import check_references
from parrot_backend.server.openai.base import bad_field
from parrot_backend.server.openai.errors import TOOLS_FIELD, FormField
from parrot_backend.server.openai.messages import (
    ChatMessage,
    Tool,
    ToolChoice,
    choice_to_wire,
    messages_to_wire,
    tools_to_wire,
)
from parrot_backend.server.openai.sampling import ChoiceFields, sampling_of, seeded


class ChatRequest(ChoiceFields):
    """Body of the request; fields without an effect are in ``base``."""

    messages: wire.Many[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: wire.Many[Tool] | None = Field(default=None, min_length=1, max_length=128)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    # vLLM's own.
    chat_template_kwargs: wire.Labels | None = Field(default=None, max_length=14)
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    echo: Literal[False] | None = None

    @property
    def form_field(self) -> FormField | None:
        """What binds the output to a form, None if nothing does."""
        is_forced = self.tool_choice not in (None, "none", "auto")
        form = super().form_field
        return TOOLS_FIELD if self.tools and (is_forced or form is None) else form

    @property
    def names_tool(self) -> bool:
        """Whether one certain tool must be called."""
        return self.tool_choice is not None and not isinstance(self.tool_choice, str)


def chat_to_calls(request: ChatRequest) -> tuple[wire.CallNode, ...]:
    """Return one call for each choice; each generates the variable of its own name.

    Raises:
        RequestError: ``invalid_request``, ``unknown_tool``, ``duplicate_tool`` or
            ``graph_too_large``.
    """
    max_tokens = request.max_completion_tokens or request.max_tokens
    sampling = sampling_of(request, request.response_format, max_tokens, _num_top(request))
    tools = request.tools or ()
    continues_last = bool(request.continue_final_message)
    if continues_last and request.add_generation_prompt:
        message = "add_generation_prompt and continue_final_message exclude each other"
        raise bad_field("continue_final_message", message)
    if request.add_generation_prompt is False and not continues_last:
        raise bad_field("add_generation_prompt", "a chat must be continued in one of two ways")
    wire_tools, choice = tools_to_wire(tools), choice_to_wire(request.tool_choice, tools)
    names = [f"choice{number}" for number in range(request.n or 1)]
    # The core would say so, too, after as many records were made.
    check_references(len(names) * len(request.messages))
    first = wire.CallNode(
        name=names[0],
        messages=messages_to_wire(request.messages, names[0], continues_last=continues_last),
        sampling=seeded(sampling, request.seed, 0),
        model=request.model,
        tools=wire_tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        chat_template_kwargs=_template_kwargs(request),
    )
    return (
        first,
        *(_another(first, name, request.seed, at) for at, name in enumerate(names) if at),
    )


def _another(first: wire.CallNode, name: str, seed: int | None, choice: int) -> wire.CallNode:
    """Return the same call for another choice."""
    assert first.messages is not None
    last = first.messages[-1]
    content = (*last.content[:-1], wire.OutputSegment(variable=name))
    return first.model_copy(
        update={
            "name": name,
            "messages": (*first.messages[:-1], last.model_copy(update={"content": content})),
            "sampling": seeded(first.sampling, seed, choice),
        }
    )


def _num_top(request: ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise bad_field("top_logprobs", "top_logprobs needs logprobs=true")
    return None


def _template_kwargs(request: ChatRequest) -> dict[str, wire.Scalar]:
    given = request.chat_template_kwargs or {}
    if request.reasoning_effort is None:
        return given
    thinks = request.reasoning_effort != "none"
    return {"reasoning_effort": request.reasoning_effort, "enable_thinking": thinks, **given}
