"""What an engine has to do, in sums that cost the same however much runs there.

They are estimates: the coordinator hears when attempts begin to talk and end, and knows nothing of
the steps in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.ids import AttemptId, TaskGroupId
from parrot_backend.core.nodes import Request
from parrot_backend.core.step_time import StepTimeModel

_Key = TypeVar("_Key")

#: Weight of one more prompt in the share of prompts that is found in the cache.
_HIT_WEIGHT = 0.05


class AttemptLoad(NamedTuple):
    """What one attempt makes its engine do.

    Attributes:
        prefill_tokens: Prompt tokens that the engine has to compute.
        cached_tokens: Those before them, which it holds.
        output_tokens: How long the output is expected to be.
        context_tokens: KV tokens that one of its decodes reads, on average.
    """

    prefill_tokens: int
    cached_tokens: int
    output_tokens: int
    context_tokens: int
    objective_class: ObjectiveClass
    group: TaskGroupId | None
    is_bounded: bool
    tpot_s: float | None


class Outlook(NamedTuple):
    """What one more request would meet on an engine; see ``EngineLoad.outlook``.

    Attributes:
        model: How long steps take.
        step_s: A step that decodes everything that runs.
        weight: How much a second of delay to all that runs counts.
        remaining_steps: Steps that what runs still has to go, on average.
        tpot_s: The tightest target of what runs; infinite if there is none.
        token_price: What each token that is computed costs others beside the time, as a share of
            that time: it takes the place of one that would have been read again.
    """

    model: StepTimeModel
    step_s: float
    weight: float
    remaining_steps: float
    tpot_s: float
    token_price: float


@dataclass(slots=True, eq=False)
class EngineLoad:
    """Sums over what runs on one engine.

    Attributes:
        config: Weights of classes, and how fast an engine is taken to be before it says so.
        capacity_tokens: KV tokens of the engine.
        decodes: Attempts that run.
        context_tokens: KV tokens that one step reads when all of them decode.
        output_tokens: Sum of their expected outputs.
        num_latency: Latency-sensitive ones among them.
        num_bulk: Throughput-preferred ones.
        bounded_decodes: Latency-sensitive ones that are bounded.
        bounded_context_tokens: Their part of the context.
        saved_tokens: Those of the context that need no reading, since others read them.
        prefill_until_s: When all prompts that it has been given are computed.
        hit_share: Recent share of prompt tokens that were found in its cache.
        computed_tokens: Tokens that it has computed, up to its capacity.
        tpot_s: The tightest target for the time per token; infinite if there is none.
        known: What ``outlook`` returned last, if the load is still the same.
    """

    config: CostConfig
    capacity_tokens: int
    decodes: int = 0
    context_tokens: int = 0
    output_tokens: int = 0
    num_latency: int = 0
    num_bulk: int = 0
    bounded_decodes: int = 0
    bounded_context_tokens: int = 0
    saved_tokens: int = 0
    prefill_until_s: float = 0.0
    hit_share: float = 0.0
    computed_tokens: int = 0
    tpot_s: float = math.inf
    _groups: dict[TaskGroupId, int] = field(default_factory=dict)
    _targets: dict[float, int] = field(default_factory=dict)
    _attempts: dict[AttemptId, tuple[AttemptLoad, float, float]] = field(default_factory=dict)
    known: Outlook | None = None

    def add(
        self, attempt: AttemptId, load: AttemptLoad, step_time: StepTimeModel | None, now_s: float
    ) -> None:
        """Account for an attempt that starts here."""
        model = step_time or self.config.step_time
        prefill_s = model.prefill_cost_s(load.prefill_tokens, load.cached_tokens)
        self.prefill_until_s = max(now_s, self.prefill_until_s) + prefill_s
        self._attempts[attempt] = (load, prefill_s, self.prefill_until_s)
        self._count(load, 1)
        prompt_tokens = load.prefill_tokens + load.cached_tokens
        if prompt_tokens:
            found = load.cached_tokens / prompt_tokens
            self.hit_share += _HIT_WEIGHT * (found - self.hit_share)
        computed = self.computed_tokens + load.prefill_tokens + load.output_tokens
        self.computed_tokens = min(self.capacity_tokens, computed)

    def begin(self, attempt: AttemptId, now_s: float) -> None:
        """Note that the prompt of an attempt is computed."""
        if attempt not in self._attempts:
            return
        load, prefill_s, end_s = self._attempts[attempt]
        if end_s > now_s:
            self.prefill_until_s -= min(prefill_s, end_s - now_s)
            self._attempts[attempt] = (load, 0.0, now_s)

    def remove(self, attempt: AttemptId, now_s: float) -> None:
        """Account for an attempt that has ended here."""
        if attempt in self._attempts:
            self.begin(attempt, now_s)
            self._count(self._attempts.pop(attempt)[0], -1)

    @property
    def read_tokens(self) -> int:
        """KV tokens that a step reads."""
        return max(0, self.context_tokens - self.saved_tokens)

    @property
    def bounded_read_tokens(self) -> int:
        """KV tokens that a step reads for what is bounded; at most, since others share them."""
        return min(self.bounded_context_tokens, self.read_tokens)

    def save(self, tokens: int) -> None:
        """Note how much of the context needs no reading from now on."""
        if tokens != self.saved_tokens:
            self.saved_tokens, self.known = tokens, None

    def outlook(self, step_time: StepTimeModel | None) -> Outlook:
        """Return what one more request would meet; it stays the same until the load changes."""
        model = step_time or self.config.step_time
        outlook = self.known
        if outlook is None or outlook.model is not model:
            step_s = (
                model.base_s
                + model.per_decode_s * self.decodes
                + model.per_context_token_s * self.read_tokens
            )
            weight = self.num_latency + len(self._groups) + self.config.bulk_weight * self.num_bulk
            filled = self.computed_tokens / max(1, self.capacity_tokens)
            # What runs is half done, on average.
            remaining = self.output_tokens / (2 * self.decodes) if self.decodes else 0.0
            price = filled * self.hit_share * self.config.eviction_weight
            outlook = self.known = Outlook(model, step_s, weight, remaining, self.tpot_s, price)
        return outlook

    def _count(self, load: AttemptLoad, sign: int) -> None:
        self.known = None
        self.decodes += sign
        self.context_tokens += sign * load.context_tokens
        self.output_tokens += sign * load.output_tokens
        if load.objective_class is ObjectiveClass.LATENCY:
            self.num_latency += sign
            if load.is_bounded:
                self.bounded_decodes += sign
                self.bounded_context_tokens += sign * load.context_tokens
        elif load.objective_class is ObjectiveClass.THROUGHPUT:
            self.num_bulk += sign
        elif load.group is not None:
            _tally(self._groups, load.group, sign)
        if load.tpot_s is not None:
            _tally(self._targets, load.tpot_s, sign)
            self.tpot_s = min(self._targets, default=math.inf)


def load_of(request: Request, cached_tokens: int) -> AttemptLoad:
    """Return what a request makes an engine do that holds so much of its prompt."""
    # The last token is always computed, for there is nothing to sample from else.
    cached_tokens = min(cached_tokens, max(0, request.prompt_tokens - 1))
    output_tokens = expected_output_tokens(request)
    objective = request.objective
    return AttemptLoad(
        request.prompt_tokens - cached_tokens,
        cached_tokens,
        output_tokens,
        request.prompt_tokens + output_tokens // 2,
        objective.objective_class,
        objective.group,
        objective.is_bounded,
        objective.tpot_s,
    )


def expected_output_tokens(request: Request) -> int:
    """Return how long an output is expected to be: by forecast, else what is reserved for it."""
    reserved = request.need_tokens - request.prompt_tokens
    if request.forecast is None:
        return max(1, reserved)
    limit = request.sampling.max_tokens
    expected = max(1, round(request.forecast.mean_tokens))
    return expected if limit is None else min(limit, expected)


def _tally(counts: dict[_Key, int], key: _Key, sign: int) -> None:
    number = counts.get(key, 0) + sign
    if number:
        counts[key] = number
    else:
        del counts[key]
