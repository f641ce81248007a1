"""Parts of replies in the words of OpenAI's API, which most frameworks use. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parrot_backend.protocol import TokenLogprob, VariableView


def finish_reason(view: VariableView) -> str | None:
    """Return why the reply ended; for one that ends in order with tool calls, ``tool_calls``."""
    is_in_order = view.finish_reason in (None, "stop")
    return "tool_calls" if view.tool_calls and is_in_order else view.finish_reason


def to_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """Return the probabilities of tokens."""
    return {"content": [_to_logprob(token) for token in tokens]}


def _to_logprob(token: TokenLogprob) -> dict[str, Any]:
    top = [_entry(other.token, other.logprob) for other in token.top]
    return {**_entry(token.token, token.logprob), "top_logprobs": top}


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "bytes": list(token.encode()), "logprob": logprob}
