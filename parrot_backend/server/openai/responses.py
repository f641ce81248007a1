"""``POST /v1/responses``: its request, as a call. Pure.

Nothing is stored: what ``store`` says has no effect, and earlier responses cannot be named.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from parrot_backend import protocol as wire
from parrot_backend.protocol.chat import ToolName
from parrot_backend.server.openai.base import OpenAIModel, bad_field
from parrot_backend.server.openai.errors import TOOLS_FIELD, FormField
from parrot_backend.server.openai.messages import (
    ChosenFunction,
    ChosenTool,
    FunctionTool,
    Tool,
    choice_to_wire,
    messages_to_wire,
    tools_to_wire,
)
from parrot_backend.server.openai.response_items import Item, items_to_messages
from parrot_backend.server.openai.sampling import (
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    ResponseFormat,
    SamplingFields,
    TextFormat,
    sampling_of,
    seeded,
)

#: Name of the one variable that a response generates.
OUTPUT = "choice0"

#: What may be included; of these only log probabilities have an effect.
_INCLUDED = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]


def _up_to_wrong(metadata: Any) -> Any:
    """Return metadata up to the first that is no text: to tell of all would cost too much."""
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            if not isinstance(value, str):
                return {name: value}
    return metadata


_Metadata = Annotated[dict[str, str], BeforeValidator(_up_to_wrong)]


class FlatFunction(OpenAIModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatChoice(OpenAIModel):
    """The one tool that the model must call."""

    type: Literal["function"]
    name: str


class FlatSchema(OpenAIModel):
    """JSON that a schema admits."""

    model_config = ConfigDict(serialize_by_alias=True)

    type: Literal["json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextOptions(OpenAIModel):
    """The form of the output; ``verbosity`` has no effect."""

    format: Annotated[
        TextFormat | JsonObjectFormat | FlatSchema | None, Field(discriminator="type")
    ] = None
    verbosity: str | None = None


class ReasoningOptions(OpenAIModel):
    """How hard the model thinks; summaries are not made."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponseRequest(SamplingFields):
    """Body of the request; fields without an effect are in ``base``."""

    input: str | wire.Many[Item]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    tools: wire.Many[FlatFunction] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: wire.Many[_INCLUDED] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    metadata: _Metadata | None = None
    chat_template_kwargs: wire.Labels | None = Field(default=None, max_length=14)

    @property
    def form_field(self) -> FormField | None:
        """What binds the output to a form, None if nothing does."""
        is_forced = self.tool_choice not in (None, "none", "auto")
        wanted = None if self.text is None else self.text.format
        has_form = wanted is not None and not isinstance(wanted, TextFormat)
        form = FormField("text.format") if has_form else super().form_field
        return TOOLS_FIELD if self.tools and (is_forced or form is None) else form


def response_to_call(request: ResponseRequest) -> wire.CallNode:
    """Return the call.

    Raises:
        RequestError: ``invalid_request``, ``unknown_tool`` or ``duplicate_tool``.
    """
    form = None if request.text is None else _form(request.text)
    sampling = sampling_of(request, form, request.max_output_tokens, _num_top(request))
    tools = tuple(map(_tool, request.tools or ()))
    choice = request.tool_choice
    if isinstance(choice, FlatChoice):
        chosen = ChosenTool(type="function", function=ChosenFunction(name=choice.name))
        wire_choice = choice_to_wire(chosen, tools)
    else:
        wire_choice = choice_to_wire(choice, tools)
    messages = items_to_messages(request.instructions, request.input)
    return wire.CallNode(
        name=OUTPUT,
        messages=messages_to_wire(messages, OUTPUT),
        sampling=seeded(sampling, request.seed, 0),
        model=request.model,
        tools=tools_to_wire(tools),
        tool_choice=wire_choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        chat_template_kwargs=_template_kwargs(request),
    )


def _tool(flat: FlatFunction) -> Tool:
    function = FunctionTool(
        name=flat.name, description=flat.description, parameters=flat.parameters
    )
    return Tool(type="function", function=function)


def _form(text: TextOptions) -> ResponseFormat | None:
    if not isinstance(text.format, FlatSchema):
        return text.format
    schema = NamedSchema(name=text.format.name, schema=text.format.schema_)
    return JsonSchemaFormat(type="json_schema", json_schema=schema)


def _num_top(request: ResponseRequest) -> int | None:
    if "message.output_text.logprobs" in (request.include or ()):
        return request.top_logprobs or 0
    if request.top_logprobs:
        message = "top_logprobs needs include=['message.output_text.logprobs']"
        raise bad_field("top_logprobs", message)
    return None


def _template_kwargs(request: ResponseRequest) -> dict[str, wire.Scalar]:
    given = request.chat_template_kwargs or {}
    effort = None if request.reasoning is None else request.reasoning.effort
    if effort is None:
        return given
    return {"reasoning_effort": effort, "enable_thinking": effort != "none", **given}
