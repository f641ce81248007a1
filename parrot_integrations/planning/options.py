"""Parameters of calls, from the words of OpenAI's API, which most frameworks use. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from parrot_backend.protocol import (
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    Sampling,
    Tool,
    ToolChoice,
)
from parrot_integrations.planning.annotations import Annotation
from parrot_integrations.planning.calls import CallOptions

#: Parameters that go to the sampler as they are; None is the server's default.
SAMPLING_NAMES = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
)

_response_format: TypeAdapter[ResponseFormat] = TypeAdapter(ResponseFormat)


@dataclass(frozen=True, slots=True)
class CallSpec:
    """One call's parameters.

    Attributes:
        options: What decides on the output.
        annotation: What the call says about itself.
        timeout_s: Longest wait; None leaves it to the client.
    """

    options: CallOptions
    annotation: Annotation
    timeout_s: float | None


def to_sampling(merged: Mapping[str, Any]) -> Sampling:
    """Return how an output is sampled, from parameters in OpenAI's words.

    Args:
        merged: Those of ``SAMPLING_NAMES``, ``stop``, ``logprobs``, ``top_logprobs`` and
            ``response_format`` that are given; others are not looked at.

    Raises:
        ValueError: One has a wrong value.
    """
    given = {name: merged[name] for name in SAMPLING_NAMES if merged.get(name) is not None}
    stop = merged.get("stop") or ()
    return Sampling(
        **given,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logprobs=_logprobs(merged.get("logprobs"), merged.get("top_logprobs")),
        response_format=to_response_format(merged.get("response_format")),
    )


def variants(options: CallOptions, count: int) -> list[CallOptions]:
    """Return the options of each of several replies; with a seed, each has its own."""
    sampling = options.sampling
    if count == 1 or sampling.seed is None:
        return [options] * count
    seeds = range(sampling.seed, sampling.seed + count)
    samplings = [sampling.model_copy(update={"seed": seed}) for seed in seeds]
    return [replace(options, sampling=sampling) for sampling in samplings]


def from_openai_tool(tool: Mapping[str, Any]) -> Tool:
    """Convert a tool in the form of OpenAI's API.

    Raises:
        ValueError: It is none.
    """
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise ValueError("a tool is no function")
    given = ("name", "description", "parameters")
    return Tool(**{key: function[key] for key in given if key in function})


def to_tool_choice(choice: object, tools: Sequence[Tool]) -> ToolChoice:
    """Convert a choice of tools: a word, a tool's name, OpenAI's object, or a truth value.

    Raises:
        ValueError: No such tool.
    """
    if choice is None or choice == "auto":
        return "auto"
    if choice is True or choice in ("any", "required"):
        return "required"
    if choice is False or choice == "none":
        return "none"
    if isinstance(choice, Mapping):
        choice = choice.get("name") or choice.get("function", {}).get("name")
    names = [tool.name for tool in tools]
    if choice not in names:
        known = ", ".join(names) or "none"
        raise ValueError(f"tool_choice {choice!r} is not one of the tools ({known})")
    return NamedTool(name=str(choice))


def to_response_format(given: object) -> ResponseFormat | None:
    """Convert the form that an output must have: ours, or as OpenAI's API words it.

    Raises:
        ValueError: Not a known form.
    """
    if given is None or (isinstance(given, Mapping) and given.get("type") == "text"):
        return None
    if isinstance(given, Mapping) and given.get("type") == "json_object":
        return JsonObjectFormat()
    if isinstance(given, Mapping) and given.get("type") == "json_schema":
        inner = given.get("json_schema")
        if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
            # OpenAI's API puts a name and `strict` beside the schema.
            inner = inner["schema"]
        return JsonSchemaFormat(json_schema=dict(inner or {}))
    return _response_format.validate_python(given)


def _logprobs(logprobs: bool | int | None, top_logprobs: int | None) -> int | None:
    """Return how many alternatives are told; OpenAI's API switches on and counts separately."""
    if logprobs is False or (logprobs is None and top_logprobs is None):
        return None
    return top_logprobs or (0 if isinstance(logprobs, bool) or logprobs is None else logprobs)
