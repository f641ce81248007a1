"""Arguments of ``create`` as a call's options. Pure.

What is not known is an error, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from autogen_core.tools import Tool as FrameworkTool
from autogen_core.tools import ToolSchema
from pydantic import BaseModel

from parrot_backend.protocol import JsonObjectFormat, JsonSchemaFormat, ResponseFormat, Tool
from parrot_integrations.planning.annotations import Annotation
from parrot_integrations.planning.calls import CallOptions
from parrot_integrations.planning.options import (
    SAMPLING_NAMES,
    CallSpec,
    from_openai_tool,
    to_response_format,
    to_sampling,
    to_tool_choice,
)

#: One tool, or how the model chooses.
Choice = FrameworkTool | Literal["auto", "required", "none"]

_ANNOTATIONS = ("app", "session", "stage", "perf")
_KNOWN = frozenset(
    {
        *SAMPLING_NAMES,
        *_ANNOTATIONS,
        *("model", "stop", "logprobs", "top_logprobs", "response_format"),
        *("parallel_tool_calls", "chat_template_kwargs", "metadata", "user", "timeout_s"),
    }
)


def read_arguments(
    given: Mapping[str, Any],
    *,
    model: str | None = None,
    tools: Sequence[FrameworkTool | ToolSchema] = (),
    tool_choice: Choice = "auto",
    json_output: bool | type[BaseModel] | None = None,
) -> CallSpec:
    """Read the arguments of a call.

    Args:
        given: In the words of OpenAI's API, and Parrot's own; None is not given.
        model: The client's own; None is the server's default.
        tools: What the model may call.
        tool_choice: Whether it must.
        json_output: True asks for a JSON object, a class for one that its schema admits.

    Raises:
        ValueError: One is unknown, or has a value that Parrot cannot do.
    """
    named = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(named.keys() - _KNOWN)
    if unknown:
        known = ", ".join(sorted(_KNOWN))
        raise ValueError(f"unknown arguments {', '.join(unknown)}; known are {known}")
    response_format = _response_format(named.get("response_format"), json_output)
    offered = tuple(map(to_tool, tools))
    call = CallOptions(
        model=named.get("model") or model,
        sampling=to_sampling({**named, "response_format": response_format}),
        tools=offered,
        tool_choice=to_tool_choice(_word_or_name(tool_choice), offered) if offered else "auto",
        parallel_tool_calls=named.get("parallel_tool_calls", True),
        chat_template_kwargs=named.get("chat_template_kwargs", {}),
    )
    user = {"user": named["user"]} if "user" in named else {}
    annotation = Annotation(
        **{name: named.get(name) for name in _ANNOTATIONS},
        metadata={**user, **named.get("metadata", {})},
    )
    return CallSpec(call, annotation, named.get("timeout_s"))


def to_tool(tool: FrameworkTool | ToolSchema) -> Tool:
    """Convert a tool; what its schema says of strictness has no counterpart and no effect."""
    schema = tool if isinstance(tool, Mapping) else tool.schema
    return from_openai_tool({"function": schema})


def _word_or_name(choice: Choice) -> object:
    return choice if isinstance(choice, str) else {"name": choice.name}


def _response_format(given: object, json_output: object) -> ResponseFormat | None:
    """Return the form of the output; a call can ask for it in one of two ways."""
    if json_output is None or json_output is False:
        return to_response_format(_schema_of(given) or given)
    if given is not None:
        raise ValueError("give json_output or response_format, not both")
    if json_output is True:
        return JsonObjectFormat()
    schema = _schema_of(json_output)
    if schema is None:
        raise ValueError(f"json_output is a truth value or a pydantic class, not {json_output!r}")
    return schema


def _schema_of(given: object) -> JsonSchemaFormat | None:
    if isinstance(given, type) and issubclass(given, BaseModel):
        return JsonSchemaFormat(json_schema=given.model_json_schema())
    return None
