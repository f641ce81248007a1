"""Execution settings as ``CallOptions``. Pure."""

from __future__ import annotations

from typing import Any

from parrot_integrations.planning.calls import CallOptions
from parrot_integrations.planning.options import (
    SAMPLING_NAMES,
    from_openai_tool,
    to_sampling,
    to_tool_choice,
    variants,
)
from parrot_integrations.semantic_kernel.execution_settings import (
    ParrotChatPromptExecutionSettings,
    ParrotPromptExecutionSettings,
)
from parrot_integrations.semantic_kernel.structure import plain_form

#: Stands for the server's own default model.
DEFAULT_MODEL = "default"
_SAMPLED = (*SAMPLING_NAMES, "stop", "logprobs", "top_logprobs")


def to_options(settings: ParrotPromptExecutionSettings, ai_model_id: str) -> list[CallOptions]:
    """Return the options of each wanted reply; with a seed, each has its own.

    Args:
        settings: Those of the call.
        ai_model_id: The model.

    Raises:
        ValueError: A setting has a wrong value.
    """
    given = {name: getattr(settings, name) for name in _SAMPLED}
    if settings.max_tokens is None and isinstance(settings, ParrotChatPromptExecutionSettings):
        given["max_tokens"] = settings.max_completion_tokens
    sampling = to_sampling({**given, "response_format": plain_form(settings.response_format)})
    model = None if ai_model_id == DEFAULT_MODEL else ai_model_id
    options = CallOptions(model=model, sampling=sampling, **_chat_only(settings))
    return variants(options, settings.number_of_responses or 1)


def _chat_only(settings: ParrotPromptExecutionSettings) -> dict[str, Any]:
    if not isinstance(settings, ParrotChatPromptExecutionSettings):
        return {}
    tools = tuple(from_openai_tool(tool) for tool in settings.tools or ())
    return {
        "tools": tools,
        "tool_choice": to_tool_choice(settings.tool_choice, tools),
        "parallel_tool_calls": settings.parallel_tool_calls is not False,
        "chat_template_kwargs": settings.chat_template_kwargs or {},
    }
