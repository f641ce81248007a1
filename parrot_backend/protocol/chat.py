"""Tools, constrained outputs, and what a chat model returns beside text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from parrot_backend.protocol.base import Many, WireModel

#: Names of tools as OpenAI's API has them.
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\-\.]{1,128}$")]


class Tool(WireModel):
    """A function that the model may ask the client to call.

    Attributes:
        parameters: JSON schema of its arguments, an object.
    """

    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})


class NamedTool(WireModel):
    """The one tool that the model must call."""

    name: ToolName


#: Whether the model may call tools: as it likes, not at all, at least one, or exactly that one.
ToolChoice = Literal["auto", "none", "required"] | NamedTool


class ToolCall(WireModel):
    """One call of a tool that the model asks for; ``arguments`` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


class JsonSchemaFormat(WireModel):
    """The output is JSON that a schema admits."""

    # The field is named as everybody names it; pydantic's own method of that name is long gone.
    model_config = ConfigDict(protected_namespaces=())

    type: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any]


class JsonObjectFormat(WireModel):
    """The output is a JSON object."""

    type: Literal["json_object"] = "json_object"


class RegexFormat(WireModel):
    """The output matches a regular expression as a whole."""

    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1)


class ChoiceFormat(WireModel):
    """The output is one of these texts."""

    type: Literal["choice"] = "choice"
    choices: Many[Annotated[str, Field(min_length=1)]] = Field(min_length=1)


class GrammarFormat(WireModel):
    """The output belongs to a context-free grammar in EBNF."""

    type: Literal["grammar"] = "grammar"
    grammar: str = Field(min_length=1)


#: What form an output must have; the engine lets the model generate nothing else.
ResponseFormat = Annotated[
    JsonSchemaFormat | JsonObjectFormat | RegexFormat | ChoiceFormat | GrammarFormat,
    Field(discriminator="type"),
]


class TopLogprob(WireModel):
    """A token that could have stood at a place, and its natural logarithm of probability."""

    token: str
    logprob: float


class TokenLogprob(WireModel):
    """One generated token with its natural logarithm of probability, and the likeliest ones."""

    token: str
    logprob: float
    top: Many[TopLogprob] = ()
