"""Sampling parameters into vLLM, steps out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from parrot_backend.core.chat import ResponseFormat, TokenLogprob, TopLogprob
from parrot_backend.core.sampling import Sampling
from parrot_backend.vllm_compat.records import Constraint, Step

#: JSON has no infinity; vLLM's own server says this of what could never have come.
_LEAST_LOGPROB = -9999.0


def sampling_params(
    sampling: Sampling,
    max_tokens: int,
    hints: dict[str, Any] | None,
    constraint: Constraint,
    *,
    quiet: bool,
) -> Any:
    """Return vLLM's ``SamplingParams``; see ``client.generate``."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=min(sampling.min_tokens, max_tokens),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=sampling.seed,
        stop=list(sampling.stop),
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        # What has a form ends where that ends; vLLM would go on with anything.
        ignore_eos=sampling.ignore_eos and constraint.structured is None,
        logprobs=sampling.logprobs,
        structured_outputs=constraint.structured,
        skip_special_tokens=constraint.skips_special_tokens,
        output_kind=RequestOutputKind.FINAL_ONLY if quiet else RequestOutputKind.DELTA,
        extra_args=None if hints is None else {"parrot": hints},
    )


def structured_outputs(wanted: ResponseFormat | None) -> Any:
    """Return vLLM's ``StructuredOutputsParams`` for a form of output, None for none."""
    if wanted is None:
        return None
    from vllm.sampling_params import StructuredOutputsParams

    match wanted.kind:
        case "json_schema":
            return StructuredOutputsParams(json=wanted.text)
        case "json_object":
            return StructuredOutputsParams(json_object=True)
        case "regex":
            return StructuredOutputsParams(regex=wanted.text)
        case "choice":
            return StructuredOutputsParams(choice=json.loads(wanted.text))
        case "grammar":
            return StructuredOutputsParams(grammar=wanted.text)


def step_of(output: Any, num_top: int | None) -> Step:
    """Return what a ``RequestOutput`` tells.

    Args:
        output: The output.
        num_top: How many of the likeliest tokens were asked for at each place.
    """
    completion, metrics = output.outputs[0], output.metrics
    return Step(
        text=completion.text,
        token_ids=completion.token_ids,
        finish_reason=completion.finish_reason,
        stop_reason=completion.stop_reason,
        cached_tokens=output.num_cached_tokens or 0,
        engine_s=metrics.last_token_ts - metrics.queued_ts,
        logprobs=_logprobs(completion.token_ids, completion.logprobs, num_top),
        decode_s=metrics.last_token_ts - metrics.first_token_ts,
    )


def _logprobs(
    token_ids: Sequence[int], places: Sequence[Mapping[int, Any]] | None, num_top: int | None
) -> tuple[TokenLogprob, ...]:
    if num_top is None or places is None:
        return ()
    return tuple(
        _logprob(place[token_id], place, num_top)
        for token_id, place in zip(token_ids, places, strict=True)
    )


def _logprob(token: Any, place: Mapping[int, Any], num_top: int) -> TokenLogprob:
    likeliest = sorted(place.values(), key=lambda one: one.rank)[:num_top]
    return TokenLogprob(
        token.decoded_token or "",
        max(token.logprob, _LEAST_LOGPROB),
        tuple(
            TopLogprob(one.decoded_token or "", max(one.logprob, _LEAST_LOGPROB))
            for one in likeliest
        ),
    )
