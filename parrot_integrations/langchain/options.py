"""Parameters of LangChain models as ``CallOptions``: the model's own, then those of one call. Pure.

What is not known is an error, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from parrot_backend.protocol import (
    Tool,
)
from parrot_integrations.planning.annotations import Perf
from parrot_integrations.planning.calls import CallOptions
from parrot_integrations.planning.options import (
    SAMPLING_NAMES,
    from_openai_tool,
    to_sampling,
    to_tool_choice,
    variants,
)

#: What LangChain's users give as tools.
ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool

#: Further parameters that change what is generated.
OUTPUT_NAMES = ("model", *SAMPLING_NAMES, "stop", "logprobs", "top_logprobs", "n")
_CALL_NAMES = frozenset(
    {
        *OUTPUT_NAMES,
        "app",
        "chat_template_kwargs",
        "parallel_tool_calls",
        "perf",
        "response_format",
        "timeout",
        "tool_choice",
        "tools",
    }
)
#: LangChain passes these on to the model and has read them itself.
_LANGCHAIN_NAMES = frozenset({"stream", "ls_structured_output_format", "structured_output_format"})


@dataclass(frozen=True, slots=True)
class CallSpec:
    """One call's parameters.

    Attributes:
        options: What decides on the output.
        n: How many outputs are wanted.
        app: Name of the application; None leaves it to annotations.
        perf: Urgency; None leaves it to annotations.
        timeout_s: Longest wait.
    """

    options: CallOptions
    n: int
    app: str | None
    perf: Perf | None
    timeout_s: float | None

    def variants(self) -> list[CallOptions]:
        """Return the options of each wanted output; with a seed, each has its own."""
        return variants(self.options, self.n)


def read_call(
    defaults: Mapping[str, Any], stop: Sequence[str] | None, kwargs: Mapping[str, Any]
) -> CallSpec:
    """Put together the parameters of a call.

    Args:
        defaults: The model's own, by the names in ``OUTPUT_NAMES``, and ``timeout``.
        stop: Replaces the model's own, even if it is empty.
        kwargs: Parameters of the call, which win over the model's; None is not given.

    Raises:
        ValueError: A parameter is unknown or has a wrong value.
    """
    unknown = sorted(kwargs.keys() - _CALL_NAMES - _LANGCHAIN_NAMES)
    if unknown:
        raise ValueError(
            f"unknown parameters {', '.join(unknown)}; known are {', '.join(sorted(_CALL_NAMES))}"
        )
    given = {name: value for name, value in kwargs.items() if value is not None}
    merged = {**defaults, **given}
    if stop is not None:
        merged["stop"] = stop
    n = 1 if merged.get("n") is None else merged["n"]
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n is a positive whole number, not {n!r}")
    tools = to_tools(given.get("tools") or ())
    options = CallOptions(
        model=merged.get("model"),
        sampling=to_sampling(merged),
        tools=tools,
        tool_choice=to_tool_choice(given.get("tool_choice"), tools),
        parallel_tool_calls=given.get("parallel_tool_calls", True),
        chat_template_kwargs={
            **defaults.get("chat_template_kwargs", {}),
            **given.get("chat_template_kwargs", {}),
        },
    )
    return CallSpec(options, n, given.get("app"), given.get("perf"), merged.get("timeout"))


def to_tools(tools: Sequence[ToolLike]) -> tuple[Tool, ...]:
    """Convert tools."""
    return tuple(_to_tool(tool) for tool in tools)


def to_openai_tools(tools: Sequence[ToolLike], strict: bool | None) -> list[dict[str, Any]]:
    """Return tools in the form that LangChain keeps and shows in traces."""
    return [convert_to_openai_tool(tool, strict=strict) for tool in tools]


def _to_tool(tool: ToolLike) -> Tool:
    return from_openai_tool(convert_to_openai_tool(tool))
