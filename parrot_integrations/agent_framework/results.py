"""Parrot's replies as responses of Agent Framework, whole and piece by piece. Pure."""

from __future__ import annotations

from typing import Any

from agent_framework import ChatResponse, ChatResponseUpdate, Content, Message, UsageDetails

from parrot_backend.protocol import Usage, VariableView
from parrot_integrations.planning.openai_words import finish_reason, to_logprobs
from parrot_integrations.planning.reply import ReplyEvent, ReplyText

#: What the server's default model is called here; its own name is not part of a reply.
DEFAULT_MODEL = "default"


def to_response(view: VariableView, model: str | None, response_format: Any) -> ChatResponse[Any]:
    """Return a whole reply.

    Args:
        view: The reply's variable.
        model: Name of the model; None is the server's default.
        response_format: Form that the framework parses the text by.
    """
    contents = [*_reasoning(view), *_text(view), *_tool_calls(view)]
    return ChatResponse(
        messages=Message("assistant", contents, raw_representation=view),
        response_id=view.id,
        model=model or DEFAULT_MODEL,
        finish_reason=finish_reason(view),  # type: ignore[arg-type] # the server's words are open
        usage_details=to_usage(view.usage),
        response_format=response_format,
        additional_properties=_properties(view),
        raw_representation=view,
    )


def to_update(event: ReplyEvent, model: str | None) -> ChatResponseUpdate:
    """Return a piece of a streamed reply; the last one holds everything but the text."""
    if isinstance(event, ReplyText):
        is_text = event.kind == "text"
        make = Content.from_text if is_text else Content.from_text_reasoning
        return ChatResponseUpdate(contents=[make(text=event.text)], role="assistant")
    usage = to_usage(event.usage)
    contents = [*_tool_calls(event), *([] if usage is None else [Content.from_usage(usage)])]
    return ChatResponseUpdate(
        contents=contents,
        role="assistant",
        response_id=event.id,
        model=model or DEFAULT_MODEL,
        finish_reason=finish_reason(event),  # type: ignore[arg-type] # the server's words are open
        additional_properties=_properties(event),
        raw_representation=event,
    )


def to_usage(usage: Usage | None) -> UsageDetails | None:
    """Return the token counts."""
    if usage is None:
        return None
    return UsageDetails(
        input_token_count=usage.prompt_tokens,
        output_token_count=usage.completion_tokens,
        total_token_count=usage.prompt_tokens + usage.completion_tokens,
        cache_read_input_token_count=usage.cached_tokens,
    )


def _reasoning(view: VariableView) -> list[Content]:
    return [Content.from_text_reasoning(text=view.reasoning)] if view.reasoning else []


def _text(view: VariableView) -> list[Content]:
    return [Content.from_text(view.value)] if view.value else []


def _tool_calls(view: VariableView) -> list[Content]:
    return [
        Content.from_function_call(call.id, call.name, arguments=call.arguments)
        for call in view.tool_calls
    ]


def _properties(view: VariableView) -> dict[str, Any]:
    return {} if view.logprobs is None else {"logprobs": to_logprobs(view.logprobs)}
