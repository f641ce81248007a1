"""Parrot's replies as LangChain's messages, whole and piece by piece. Pure."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import (
    invalid_tool_call,
    tool_call,
    tool_call_chunk,
)

from parrot_backend.protocol import ToolCall as WireToolCall
from parrot_backend.protocol import Usage, VariableView
from parrot_integrations.planning.openai_words import finish_reason, to_logprobs
from parrot_integrations.planning.reply import ReplyText

PROVIDER = "parrot"
#: What the server's default model is called here; its own name is not part of a reply.
DEFAULT_MODEL = "default"
#: Where LangChain looks for the reasoning of models that have no block for it.
_REASONING = "reasoning_content"


def to_ai_message(view: VariableView, model: str | None) -> AIMessage:
    """Return a whole reply; LangChain makes its reasoning a content block on demand."""
    valid, invalid = _read_tool_calls(view.tool_calls)
    return AIMessage(
        content=view.value or "",
        additional_kwargs={} if view.reasoning is None else {_REASONING: view.reasoning},
        tool_calls=valid,
        invalid_tool_calls=invalid,
        usage_metadata=to_usage(view.usage),
        response_metadata=response_metadata(view, model),
    )


def to_text_chunk(piece: ReplyText) -> AIMessageChunk:
    """Return a piece of a streamed reply."""
    if piece.kind == "reasoning":
        return AIMessageChunk(content="", additional_kwargs={_REASONING: piece.text})
    return AIMessageChunk(content=piece.text)


def to_last_chunk(view: VariableView, model: str | None) -> AIMessageChunk:
    """Return the end of a streamed reply: everything but its text."""
    return AIMessageChunk(
        content="",
        tool_call_chunks=[
            tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=i)
            for i, call in enumerate(view.tool_calls)
        ],
        usage_metadata=to_usage(view.usage),
        response_metadata=response_metadata(view, model),
        chunk_position="last",
    )


def response_metadata(view: VariableView, model: str | None) -> dict[str, Any]:
    """Return what is told about a reply; the ids are those of the server's session and variable."""
    metadata: dict[str, Any] = {
        "model_name": model or DEFAULT_MODEL,
        "model_provider": PROVIDER,
        "finish_reason": finish_reason(view),
        "session_id": view.id.partition(".")[0],
        "variable_id": view.id,
    }
    if view.logprobs is not None:
        metadata["logprobs"] = to_logprobs(view.logprobs)
    return metadata


def to_usage(usage: Usage | None) -> UsageMetadata | None:
    """Return the token counts."""
    if usage is None:
        return None
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def _read_tool_calls(
    calls: tuple[WireToolCall, ...],
) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Parse the arguments; what is not a JSON object goes to the second list."""
    valid: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in calls:
        arguments, problem = _read_arguments(call.arguments)
        if problem is None:
            valid.append(tool_call(name=call.name, args=arguments, id=call.id))
        else:
            broken = invalid_tool_call(
                name=call.name, args=call.arguments, id=call.id, error=problem
            )
            invalid.append(broken)
    return valid, invalid


def _read_arguments(text: str) -> tuple[dict[str, Any], str | None]:
    try:
        arguments = json.loads(text or "{}")
    except ValueError as exc:
        return {}, f"the arguments are not JSON: {exc}"
    if not isinstance(arguments, dict):
        return {}, "the arguments are not a JSON object"
    return arguments, None
