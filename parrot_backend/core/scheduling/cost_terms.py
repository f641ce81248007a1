"""What one more request on an engine costs, in seconds that somebody waits."""

from __future__ import annotations

import math
from typing import NamedTuple

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_load import Outlook, expected_output_tokens
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.placement import ClusterView


class Work(NamedTuple):
    """What a request brings along wherever it goes.

    Attributes:
        prompt_tokens: Length of its prompt.
        output_tokens: How long its output is expected to be.
        context_tokens: KV tokens that one of its decodes reads, on average.
        weight: What a second that it takes counts.
        tpot_s: Its target for the time per token; infinite if it has none.
        slack_s: How long it may take so that its deadline is kept; infinite without one.
        first_slack_s: The same for its first token.
    """

    prompt_tokens: int
    output_tokens: int
    context_tokens: int
    weight: float
    tpot_s: float
    slack_s: float
    first_slack_s: float


def work_of(request: Request, config: CostConfig, now_s: float) -> Work:
    """Return what a request brings along.

    Of the time up to a deadline it gets its share: the calls behind it are taken to need as much.
    """
    objective = request.objective
    is_bulk = objective.objective_class is ObjectiveClass.THROUGHPUT
    output_tokens = expected_output_tokens(request)
    slack_s = math.inf
    if objective.deadline_s is not None:
        slack_s = (objective.deadline_s - now_s) / (request.remaining + 1)
    first_slack_s = math.inf
    if objective.ttft_s is not None:
        first_slack_s = request.created_s + objective.ttft_s - now_s
    return Work(
        request.prompt_tokens,
        output_tokens,
        request.prompt_tokens + output_tokens // 2,
        config.bulk_weight if is_bulk else 1.0,
        math.inf if objective.tpot_s is None else objective.tpot_s,
        slack_s,
        first_slack_s,
    )


class Cost(NamedTuple):
    """What a request costs on one engine.

    Attributes:
        total: All of it, in weighted seconds; the least one is chosen.
        wait_s: Until its own prefill begins.
        prefill_s: Of what the engine does not hold of its prompt.
        decode_s: Of its output, beside what runs.
        others_s: How much longer what runs there takes, weighted.
        longer_s: How much longer each step there takes.
    """

    total: float
    wait_s: float
    prefill_s: float
    decode_s: float
    others_s: float
    longer_s: float

    @property
    def own_s(self) -> float:
        """When it has ended, from now."""
        return self.wait_s + self.prefill_s + self.decode_s


def cost_of(
    work: Work,
    outlook: Outlook,
    wait_s: float,
    cached_tokens: int,
    read_tokens: int,
    compute_price: float,
    miss_s: float,
) -> Cost:
    """Return what a request costs on an engine.

    Args:
        work: The request.
        outlook: What it meets there.
        wait_s: How long the engine computes prompts that came before.
        cached_tokens: What it holds of the prompt.
        read_tokens: KV tokens by which each step there reads more, on average.
        compute_price: What a second of prefill counts for those who are not there yet.
        miss_s: What it counts to miss a target.
    """
    model, step_s, weight, remaining_steps, tpot_s, token_price = outlook
    cached_tokens = min(cached_tokens, work.prompt_tokens - 1)
    fresh = work.prompt_tokens - cached_tokens
    prefill_s = fresh * (
        model.per_prefill_token_s + model.per_prefill_pair_s * (cached_tokens + fresh / 2)
    )
    longer_s = model.per_decode_s + model.per_context_token_s * read_tokens
    step_s += longer_s
    decode_s = work.output_tokens * step_s
    # Prompts are computed beside what decodes, so all of that waits for them.
    others_s = weight * (prefill_s + longer_s * min(work.output_tokens, remaining_steps))
    own_s = wait_s + prefill_s + decode_s
    total = work.weight * own_s + others_s + prefill_s * (compute_price + token_price)
    target_s = min(tpot_s, work.tpot_s)
    if step_s > target_s:
        total += miss_s * step_s / target_s
    if own_s > work.slack_s:
        total += miss_s + own_s - work.slack_s
    if own_s - decode_s + step_s > work.first_slack_s:
        total += miss_s + own_s - decode_s + step_s - work.first_slack_s
    return Cost(total, wait_s, prefill_s, decode_s, others_s, longer_s)


def compute_price(view: ClusterView, config: CostConfig, num_placed: int = 1) -> float:
    """Return what a second of prefill counts for those who are not on an engine yet.

    Args:
        view: Who waits, and for how many engines.
        config: Weights.
        num_placed: Of those who wait, so many are placed now.
    """
    waiting = (len(view.queue) - num_placed) / max(1, len(view.engines))
    return config.compute_weight + config.queue_weight * waiting
