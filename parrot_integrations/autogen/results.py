"""Parrot's replies as results of AutoGen. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from autogen_core import FunctionCall
from autogen_core.models import (
    ChatCompletionTokenLogprob,
    CreateResult,
    RequestUsage,
    TopLogprob,
)

from parrot_backend.protocol import TokenLogprob, VariableView
from parrot_integrations.planning.openai_words import finish_reason

_FinishReason = Literal["stop", "length", "function_calls", "content_filter", "unknown"]
_REASONS: dict[str | None, _FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "function_calls",
}


def to_result(view: VariableView) -> CreateResult:
    """Return a whole reply.

    Its thought is the model's reasoning, or else what it says beside its calls of tools.
    """
    calls = [FunctionCall(call.id, call.arguments, call.name) for call in view.tool_calls]
    text = view.value or ""
    return CreateResult(
        finish_reason=_REASONS.get(finish_reason(view), "unknown"),
        content=calls or text,
        usage=to_usage(view),
        cached=False,
        logprobs=None if view.logprobs is None else _to_logprobs(view.logprobs),
        thought=view.reasoning or (text if calls else "") or None,
    )


def to_usage(view: VariableView) -> RequestUsage:
    """Return the token counts; those that the engine did not tell are zero."""
    usage = view.usage
    if usage is None:
        return RequestUsage(prompt_tokens=0, completion_tokens=0)
    return RequestUsage(usage.prompt_tokens, usage.completion_tokens)


def _to_logprobs(tokens: Iterable[TokenLogprob]) -> list[ChatCompletionTokenLogprob]:
    return [
        ChatCompletionTokenLogprob(
            token=token.token,
            logprob=token.logprob,
            top_logprobs=[TopLogprob(top.logprob, list(top.token.encode())) for top in token.top],
            bytes=list(token.token.encode()),
        )
        for token in tokens
    ]
