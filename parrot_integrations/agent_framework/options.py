"""Chat options of Agent Framework as ``CallOptions``. Pure.

What is not known, or what a Parrot server cannot do, is an error, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_framework import ChatOptions, FunctionTool, validate_tool_mode
from pydantic import BaseModel

from parrot_backend.protocol import (
    JsonSchemaFormat,
    ResponseFormat,
    Scalar,
    Tool,
    ToolChoice,
)
from parrot_integrations.planning.annotations import Annotation, Perf
from parrot_integrations.planning.calls import CallOptions
from parrot_integrations.planning.options import (
    SAMPLING_NAMES,
    CallSpec,
    from_openai_tool,
    to_response_format,
    to_sampling,
    to_tool_choice,
)


class ParrotChatOptions(ChatOptions[Any], total=False):
    """Options of ``ParrotChatClient``: those that all chat clients have, and Parrot's own.

    ``logit_bias``, ``conversation_id`` and ``store=True`` are refused: the server has no such
    thing. ``user`` and ``metadata`` become labels of the session.
    """

    top_k: int
    min_p: float
    min_tokens: int
    repetition_penalty: float
    ignore_eos: bool
    logprobs: bool | int
    """Whether to tell the probability of each token."""
    top_logprobs: int
    """How many alternatives to each token to tell, too."""
    chat_template_kwargs: dict[str, Scalar]
    """Switches of the model's chat template, such as ``enable_thinking``."""

    app: str
    """Name of the application, for people and for metrics."""
    session: str
    """What belongs together, for example a conversation."""
    stage: str
    """Which part of the program this is, for example the agent's name."""
    perf: Perf
    """How urgent replies are: ``latency``, ``throughput``, or ``Criteria``; unstated by default."""
    timeout_s: float
    """Longest wait for one reply; then the call is given up."""


_SCHEMA_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_SCHEMA_WORDS = frozenset({"properties", "$ref", "$defs", "anyOf", "oneOf", "allOf", "enum"})
_ANNOTATIONS = ("app", "session", "stage", "perf")
_KNOWN = frozenset(
    {
        *SAMPLING_NAMES,
        *_ANNOTATIONS,
        *("model", "stop", "logprobs", "top_logprobs", "response_format"),
        *("tools", "tool_choice", "allow_multiple_tool_calls", "chat_template_kwargs"),
        *("instructions", "metadata", "user", "store", "timeout_s"),
    }
)


def read_options(options: Mapping[str, Any], model: str | None) -> CallSpec:
    """Read the options of a call; ``instructions`` are messages, and left to the caller.

    Args:
        options: Those that the framework has validated; None is not given.
        model: The client's own; None is the server's default.

    Raises:
        ValueError: An option is unknown, or has a value that Parrot cannot do.
    """
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(given.keys() - _KNOWN)
    if unknown:
        raise ValueError(
            f"unknown options {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN))}"
        )
    if given.get("store"):
        raise ValueError("a Parrot server stores no conversations: leave out store")
    tools, choice = _tools(given)
    response_format = _response_format(given.get("response_format"))
    call = CallOptions(
        model=given.get("model") or model,
        sampling=to_sampling({**given, "response_format": response_format}),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=given.get("allow_multiple_tool_calls", True),
        chat_template_kwargs=given.get("chat_template_kwargs", {}),
    )
    return CallSpec(call, _annotation(given), given.get("timeout_s"))


def _annotation(given: Mapping[str, Any]) -> Annotation:
    user = {"user": given["user"]} if "user" in given else {}
    labels = {**user, **given.get("metadata", {})}
    wrong = sorted(name for name, value in labels.items() if not isinstance(value, Scalar))
    if wrong:
        raise ValueError(f"metadata holds texts, numbers and truth values only, unlike {wrong}")
    return Annotation(**{name: given.get(name) for name in _ANNOTATIONS}, metadata=labels)


def _tools(given: Mapping[str, Any]) -> tuple[tuple[Tool, ...], ToolChoice]:
    """Return the tools of a call and how it chooses; what it must not choose is not offered."""
    tools = tuple(map(_tool, given.get("tools", ())))
    mode = validate_tool_mode(given.get("tool_choice"))
    if not tools or mode is None:
        return tools, "auto"
    names = {tool.name for tool in tools}
    allowed = set(mode.get("allowed_tools", names))
    if not allowed <= names:
        raise ValueError(f"allowed_tools names no tools of the call: {sorted(allowed - names)}")
    offered = tuple(tool for tool in tools if tool.name in allowed)
    return offered, to_tool_choice(mode.get("required_function_name") or mode["mode"], offered)


def _tool(tool: object) -> Tool:
    if isinstance(tool, FunctionTool):
        return from_openai_tool(tool.to_json_schema_spec())
    if isinstance(tool, Mapping):
        return from_openai_tool(tool)
    raise ValueError(f"Parrot's models have no use for a {type(tool).__name__}: give functions")


def _response_format(given: object) -> ResponseFormat | None:
    """Convert a pydantic class, a bare schema, or what ``to_response_format`` knows."""
    if isinstance(given, type) and issubclass(given, BaseModel):
        return JsonSchemaFormat(json_schema=given.model_json_schema())
    if not isinstance(given, Mapping):
        return to_response_format(given)
    if given.get("type") in _SCHEMA_TYPES or not given.keys().isdisjoint(_SCHEMA_WORDS):
        return JsonSchemaFormat(json_schema=dict(given))
    if given.get("type") == "json_schema" and not isinstance(given.get("json_schema"), Mapping):
        raise ValueError("response_format of type json_schema holds no mapping json_schema")
    return to_response_format(given)
