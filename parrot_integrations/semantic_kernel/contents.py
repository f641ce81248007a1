"""Parrot's replies as Semantic Kernel's contents, whole and piece by piece. Pure."""

from __future__ import annotations

from typing import Any

from openai.types.completion_usage import PromptTokensDetails
from semantic_kernel.connectors.ai.completion_usage import CompletionUsage
from semantic_kernel.contents import (
    AuthorRole,
    ChatMessageContent,
    FunctionCallContent,
    ReasoningContent,
    StreamingChatMessageContent,
    StreamingReasoningContent,
    StreamingTextContent,
    TextContent,
)
from semantic_kernel.contents.utils.finish_reason import FinishReason

from parrot_backend.protocol import Usage, VariableView
from parrot_integrations.planning.openai_words import finish_reason, to_logprobs
from parrot_integrations.planning.reply import ReplyEvent, ReplyText

_FINISH_REASONS = {reason.value: reason for reason in FinishReason}


def to_chat_message(view: VariableView, ai_model_id: str) -> ChatMessageContent:
    """Return a whole reply of a chat model."""
    items: list[Any] = []
    if view.reasoning:
        items.append(ReasoningContent(text=view.reasoning))
    if view.value:
        items.append(TextContent(text=view.value))
    return ChatMessageContent(
        role=AuthorRole.ASSISTANT,
        items=[*items, *_function_calls(view)],
        inner_content=view,
        ai_model_id=ai_model_id,
        metadata=to_metadata(view),
        finish_reason=_to_finish_reason(view),
    )


def to_chat_chunk(
    event: ReplyEvent, ai_model_id: str, function_invoke_attempt: int
) -> StreamingChatMessageContent:
    """Return a piece of a streamed reply; the last one tells everything but the text."""
    view = None if isinstance(event, ReplyText) else event
    return StreamingChatMessageContent(
        role=AuthorRole.ASSISTANT,
        choice_index=0,
        items=_piece(event) if isinstance(event, ReplyText) else _function_calls(event),
        inner_content=event,
        ai_model_id=ai_model_id,
        metadata=None if view is None else to_metadata(view),
        finish_reason=None if view is None else _to_finish_reason(view),
        function_invoke_attempt=function_invoke_attempt,
    )


def to_text(view: VariableView, ai_model_id: str) -> TextContent:
    """Return a whole reply to a raw prompt."""
    return TextContent(
        text=view.value or "",
        inner_content=view,
        ai_model_id=ai_model_id,
        metadata=to_metadata(view),
    )


def to_text_chunk(event: ReplyEvent, ai_model_id: str) -> StreamingTextContent:
    """Return a piece of a streamed reply to a raw prompt; the last one tells how it ended."""
    return StreamingTextContent(
        choice_index=0,
        text=event.text if isinstance(event, ReplyText) else "",
        inner_content=event,
        ai_model_id=ai_model_id,
        metadata={} if isinstance(event, ReplyText) else to_metadata(event),
    )


def to_metadata(view: VariableView) -> dict[str, Any]:
    """Return what is told about a reply; the ids are those of the server's session and variable."""
    metadata: dict[str, Any] = {
        "id": view.id,
        "session_id": view.id.partition(".")[0],
        "variable_id": view.id,
        "finish_reason": finish_reason(view),
        "usage": None if view.usage is None else to_usage(view.usage),
    }
    if view.logprobs is not None:
        metadata["logprobs"] = to_logprobs(view.logprobs)
    return metadata


def to_usage(usage: Usage) -> CompletionUsage:
    """Return the token counts."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens=usage.completion_tokens,
    )


def _piece(event: ReplyText) -> list[Any]:
    if event.kind == "reasoning":
        return [StreamingReasoningContent(choice_index=0, text=event.text)]
    return [StreamingTextContent(choice_index=0, text=event.text)]


def _function_calls(view: VariableView) -> list[Any]:
    return [
        FunctionCallContent(id=call.id, index=i, name=call.name, arguments=call.arguments)
        for i, call in enumerate(view.tool_calls)
    ]


def _to_finish_reason(view: VariableView) -> FinishReason | None:
    """Return why a reply ended; None for a reason that Semantic Kernel has no word for."""
    return _FINISH_REASONS.get(finish_reason(view) or "")
