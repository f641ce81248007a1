"""Fields on sampling that all requests have, and forms of outputs. Pure.

None and absent fields are the same, and stand for OpenAI's defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import from_json

from parrot_backend import protocol as wire
from parrot_backend.server.openai.base import OpenAIModel, RequestModel, bad_field
from parrot_backend.server.openai.errors import FormField
from parrot_backend.server.openai.hints import ParrotHints

_StopString = Annotated[str, Field(min_length=1)]
_MAX_SEED = 2**63
_MAX_STOPS = 16


class StreamOptions(OpenAIModel):
    """What a stream tells beside texts."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: Literal[False] | None = None


class NamedSchema(OpenAIModel):
    """A JSON schema with a name; only the schema has an effect."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextFormat(OpenAIModel):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(OpenAIModel):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(OpenAIModel):
    """JSON that a schema admits."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StructuredOutputs(OpenAIModel):
    """vLLM's forms of outputs; exactly one."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = Field(default=None, min_length=1)
    choice: wire.Many[_StopString] | None = Field(default=None, min_length=1)
    grammar: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = (self.json_, self.json_object or None, self.regex, self.choice, self.grammar)
        if sum(form is not None for form in given) != 1:
            raise ValueError("give exactly one of json, json_object, regex, choice and grammar")
        return self

    @property
    def kind(self) -> str:
        """Which form it is."""
        kinds = {"json": self.json_, "regex": self.regex, "choice": self.choice}
        kinds["grammar"] = self.grammar
        return next((kind for kind, form in kinds.items() if form is not None), "json_object")

    @property
    def code(self) -> str:
        """What it is told as if it cannot be followed."""
        return "invalid_format" if self.json_ is None else "invalid_json_schema"


class SamplingFields(RequestModel):
    """Fields of all requests."""

    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: _StopString | wire.Many[_StopString] | None = None
    seed: int | None = Field(default=None, ge=-_MAX_SEED, lt=_MAX_SEED)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    # vLLM's own.
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    session_id: str | None = None
    # Parrot's own.
    parrot: ParrotHints | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with what it took."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def form_field(self) -> FormField | None:
        """What binds the output to a form, None if nothing does."""
        given = self.structured_outputs
        return None if given is None else FormField(f"structured_outputs.{given.kind}", given.code)


class ChoiceFields(SamplingFields):
    """Fields of requests to chats and completions, which have choices."""

    n: int | None = Field(default=None, ge=1, le=128)
    max_tokens: int | None = Field(default=None, ge=1)
    response_format: ResponseFormat | None = None

    @property
    def form_field(self) -> FormField | None:
        """What binds the output to a form, None if nothing does."""
        if self.response_format is None or isinstance(self.response_format, TextFormat):
            return super().form_field
        return FormField("response_format")


def sampling_of(
    request: SamplingFields,
    form: ResponseFormat | None,
    max_tokens: int | None,
    logprobs: int | None,
) -> wire.Sampling:
    """Return how each choice is sampled; see ``seeded`` for its seed.

    Args:
        request: The fields.
        form: The form that the output must have.
        max_tokens: Longest output.
        logprobs: How many of the likeliest tokens to tell.

    Raises:
        RequestError: ``invalid_request``: fields contradict each other.
    """
    if request.stream_options is not None and not request.stream:
        raise bad_field("stream_options", "stream_options needs stream=true")
    min_tokens = request.min_tokens or 0
    if max_tokens is not None and min_tokens > max_tokens:
        raise bad_field("min_tokens", f"min_tokens={min_tokens} is over the limit of {max_tokens}")
    stop = request.stop or ()
    stops = (stop,) if isinstance(stop, str) else stop
    if len(stops) > _MAX_STOPS:
        raise bad_field("stop", f"there are {len(stops)} stop strings, {_MAX_STOPS} are allowed")
    return wire.Sampling(
        max_tokens=max_tokens,
        temperature=_or(request.temperature, 1.0),
        top_p=_or(request.top_p, 1.0),
        top_k=max(0, request.top_k or 0),
        min_p=request.min_p or 0.0,
        stop=stops,
        min_tokens=min_tokens,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        response_format=_form(form, request.structured_outputs),
    )


def seeded(sampling: wire.Sampling, seed: int | None, choice: int) -> wire.Sampling:
    """Return how one choice is sampled: choices differ, also with a seed, as with vLLM."""
    if seed is None:
        return sampling
    return sampling.model_copy(update={"seed": (seed + choice) % _MAX_SEED})


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _form(
    wanted: ResponseFormat | None, structured: StructuredOutputs | None
) -> wire.ResponseFormat | None:
    if wanted is None or isinstance(wanted, TextFormat):
        return _structured(structured)
    if structured is not None:
        message = "give response_format or structured_outputs, not both"
        raise bad_field("structured_outputs", message)
    if isinstance(wanted, JsonObjectFormat):
        return wire.JsonObjectFormat()
    return wire.JsonSchemaFormat(json_schema=wanted.json_schema.schema_)


def _structured(wanted: StructuredOutputs | None) -> wire.ResponseFormat | None:
    if wanted is None:
        return None
    if wanted.json_ is not None:
        return wire.JsonSchemaFormat(json_schema=_schema(wanted.json_))
    if wanted.regex is not None:
        return wire.RegexFormat(pattern=wanted.regex)
    if wanted.choice is not None:
        return wire.ChoiceFormat(choices=wanted.choice)
    if wanted.grammar is not None:
        return wire.GrammarFormat(grammar=wanted.grammar)
    return wire.JsonObjectFormat()


def _schema(given: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    try:
        schema = from_json(given)
    except ValueError as exc:
        raise bad_field("structured_outputs.json", f"the schema is not JSON: {exc}") from exc
    if not isinstance(schema, dict):
        raise bad_field("structured_outputs.json", "the schema must be an object")
    return schema
