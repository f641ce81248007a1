"""What a step computes, in the terms of the model of step times."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.core.step_time import StepWork
from parrot_backend.vllm_compat.seams import CoreRequest


def work_of(computed: Iterable[tuple[CoreRequest, int]]) -> StepWork:
    """Return the work of a step; one loop over plain numbers, because it is made for each step.

    Args:
        computed: Who computes how many tokens; ``context_tokens`` includes them already.
    """
    prefill_tokens = decodes = decode_context = prefill_pairs = 0
    for request, tokens in computed:
        context_tokens = request.context_tokens - tokens
        if tokens == 1:
            decodes += 1
            decode_context += context_tokens
        else:
            prefill_tokens += tokens
            prefill_pairs += tokens * context_tokens + tokens * tokens // 2
    return StepWork(prefill_tokens, decodes, decode_context, prefill_pairs)
