"""Usage and log probabilities as OpenAI tells them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parrot_backend.core.chat import TokenLogprob
from parrot_backend.core.commands import AnswerWaiter


def usage_of(answers: Iterable[AnswerWaiter], num_choices: int = 1) -> dict[str, Any]:
    """Return what a request took; a prompt with several choices counts once.

    Args:
        answers: One for each choice, those of one prompt beside each other.
        num_choices: How many there are of each prompt.
    """
    prompt_tokens = cached_tokens = completion_tokens = 0
    for number, answer in enumerate(answers):
        usage = answer.usage
        if usage is None:
            continue
        completion_tokens += usage.completion_tokens
        if number % num_choices == 0:
            prompt_tokens += usage.prompt_tokens
            cached_tokens += usage.cached_tokens
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def chat_logprobs(places: tuple[TokenLogprob, ...] | None) -> dict[str, Any] | None:
    """Return log probabilities in the form of chats."""
    if places is None:
        return None
    return {
        "content": [
            {
                **_token(place.token, place.logprob),
                "top_logprobs": [_token(one.token, one.logprob) for one in place.top],
            }
            for place in places
        ]
    }


def completion_logprobs(
    places: tuple[TokenLogprob, ...] | None, offset: int = 0
) -> dict[str, Any] | None:
    """Return log probabilities in the old form of completions.

    Args:
        places: One for each token.
        offset: Position of the first token in the text.
    """
    if places is None:
        return None
    offsets: list[int] = []
    for place in places:
        offsets.append(offset)
        offset += len(place.token)
    return {
        "text_offset": offsets,
        "token_logprobs": [place.logprob for place in places],
        "tokens": [place.token for place in places],
        # As with OpenAI, the generated token is told even if it is not among the likeliest.
        "top_logprobs": [
            {**{one.token: one.logprob for one in place.top}, place.token: place.logprob}
            for place in places
        ],
    }


def _token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
