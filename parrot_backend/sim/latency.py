"""How long steps take: linear, linear by size of batch, and scaled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from parrot_backend.core.step_time import StepTimeFitter, StepTimeModel, StepWork
from parrot_backend.sim.spec import LatencyModel


@dataclass(frozen=True, slots=True)
class LinearLatency:
    """One linear model for all steps.

    Attributes:
        model: Its coefficients.
    """

    model: StepTimeModel

    def step_s(self, work: StepWork) -> float:
        """Return the time of one step."""
        return self.model.predict_s(work)

    def decode_run_s(self, decodes: int, context_tokens: int, num_steps: int) -> float:
        """Return the time of so many steps of decoding alone."""
        model = self.model
        first_s = model.base_s + model.per_decode_s * decodes
        reads = num_steps * context_tokens + decodes * (num_steps * (num_steps - 1) // 2)
        return num_steps * first_s + model.per_context_token_s * reads


@dataclass(frozen=True, slots=True)
class DecodeTime:
    """Time of a step of decoding: ``base_s + per_context_token_s * context + per_decode_s * n``."""

    base_s: float
    per_context_token_s: float
    per_decode_s: float


@dataclass(frozen=True, slots=True)
class PiecewiseLatency:
    """A step of prefill alone, and steps of decoding by size of batch (the form of DistServe).

    A step that does both takes the longer of the two bases, and the sum of what each adds: weights
    are read once. Engines that never mix the two take the sum of both steps.

    Attributes:
        prefill_base_s: Time of a step with prefill.
        per_prefill_token_s: Added by each prompt token.
        per_squared_token_s: Added by each square of a prompt's length, in tokens.
        small: Decoding in batches of fewer than ``threshold``.
        large: Decoding in others.
        threshold: Requests that decode.
        mixes: Whether one step can do both.
    """

    prefill_base_s: float
    per_prefill_token_s: float
    per_squared_token_s: float
    small: DecodeTime
    large: DecodeTime
    threshold: int
    mixes: bool = True

    def step_s(self, work: StepWork) -> float:
        """Return the time of one step."""
        base_s = added_s = 0.0
        if work.decodes:
            part = self.small if work.decodes < self.threshold else self.large
            base_s = part.base_s
            added_s = part.per_context_token_s * work.context_tokens
            added_s += part.per_decode_s * work.decodes
        if work.prefill_tokens:
            prefill_base_s = self.prefill_base_s
            base_s = max(base_s, prefill_base_s) if self.mixes else base_s + prefill_base_s
            added_s += self.per_prefill_token_s * work.prefill_tokens
            # A whole prompt of n tokens makes n * n / 2 pairs.
            added_s += self.per_squared_token_s * 2 * work.prefill_pairs
        return base_s + added_s

    def decode_run_s(self, decodes: int, context_tokens: int, num_steps: int) -> float:
        """Return the time of so many steps of decoding alone."""
        part = self.small if decodes < self.threshold else self.large
        reads = num_steps * context_tokens + decodes * (num_steps * (num_steps - 1) // 2)
        first_s = part.base_s + part.per_decode_s * decodes
        return num_steps * first_s + part.per_context_token_s * reads


@dataclass(frozen=True, slots=True)
class ScaledLatency:
    """Another model, slower or faster by a factor.

    Attributes:
        inner: The other model.
        factor: Of all its times.
    """

    inner: LatencyModel
    factor: float

    def step_s(self, work: StepWork) -> float:
        """Return the time of one step."""
        return self.factor * self.inner.step_s(work)

    def decode_run_s(self, decodes: int, context_tokens: int, num_steps: int) -> float:
        """Return the time of so many steps of decoding alone."""
        return self.factor * self.inner.decode_run_s(decodes, context_tokens, num_steps)


def step_time_of(latency: LatencyModel) -> StepTimeModel:
    """Return the linear model that an engine would learn of its own steps.

    The model itself where it is linear, else a fit over the kinds of steps that engines make, as
    the live engine makes one of the steps that it sees.

    Raises:
        ValueError: Steps take no time, or for ever.
    """
    if isinstance(latency, LinearLatency):
        return latency.model
    if isinstance(latency, ScaledLatency):
        return _slowed(step_time_of(latency.inner), latency.factor)
    return _fitted(latency)


@lru_cache(maxsize=64)  # engines of a fleet are alike
def _fitted(latency: LatencyModel) -> StepTimeModel:
    fitter = StepTimeFitter()
    for work in _TYPICAL_STEPS:
        fitter.observe(work, latency.step_s(work))
    model = fitter.model
    if model is None:
        raise ValueError("steps must take some time, and an end")
    return model


def _slowed(model: StepTimeModel, factor: float) -> StepTimeModel:
    return replace(
        model,
        base_s=model.base_s * factor,
        per_prefill_token_s=model.per_prefill_token_s * factor,
        per_decode_s=model.per_decode_s * factor,
        per_context_token_s=model.per_context_token_s * factor,
        per_prefill_pair_s=model.per_prefill_pair_s * factor,
    )


#: Steps of decoding, of prefill, and of both.
_TYPICAL_STEPS = tuple(
    StepWork(prefill, decodes, decodes * context, prefill * prefill // 2)
    for prefill in (0, 64, 512, 2048)
    for decodes in (0, 1, 8, 32, 96)
    for context in (256, 1024, 4096)
    if prefill or decodes
)


def steps_within(
    latency: LatencyModel, decodes: int, context_tokens: int, elapsed_s: float, max_steps: int
) -> int:
    """Return after how many steps of a run of decoding so much time has passed, at least.

    Args:
        latency: How long steps take.
        decodes: Requests in each step.
        context_tokens: KV tokens that the first step reads.
        elapsed_s: The time; a step that is not done by then counts.
        max_steps: Steps of the whole run, at least 1.
    """
    low, high = 1, max_steps
    while low < high:
        middle = (low + high) // 2
        if latency.decode_run_s(decodes, context_tokens, middle) >= elapsed_s:
            high = middle
        else:
            low = middle + 1
    return low
