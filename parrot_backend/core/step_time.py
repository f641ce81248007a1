"""How long a step of an engine takes, as a function of what it computes, learnt while it runs."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from parrot_backend.core.least_squares import Vector, dot, pull, solve_non_negative

_MAX_CHUNK_TOKENS = 1 << 20

#: Times beyond are cut to these: no real step takes as little or as much.
_SHORTEST_STEP_S, _LONGEST_STEP_S = 1e-6, 1e6


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one step computes.

    Attributes:
        prefill_tokens: Prompt tokens computed in chunks, by requests that compute more than one.
        decodes: Requests that compute one token.
        context_tokens: KV tokens that those decodes read.
        prefill_pairs: Attention work of the prefill: the sum over its chunks of chunk times
            (context before it plus half the chunk).
    """

    prefill_tokens: int = 0
    decodes: int = 0
    context_tokens: int = 0
    prefill_pairs: int = 0

    @staticmethod
    def decode(context_tokens: int) -> StepWork:
        """Return the work of one request that decodes with so much context."""
        return StepWork(decodes=1, context_tokens=context_tokens)

    @staticmethod
    def prefill(chunk_tokens: int, context_tokens: int) -> StepWork:
        """Return the work of one prefill chunk that comes after so much context."""
        return StepWork(
            prefill_tokens=chunk_tokens, prefill_pairs=_pairs(chunk_tokens, context_tokens)
        )

    def __add__(self, other: StepWork) -> StepWork:
        return StepWork(
            self.prefill_tokens + other.prefill_tokens,
            self.decodes + other.decodes,
            self.context_tokens + other.context_tokens,
            self.prefill_pairs + other.prefill_pairs,
        )


@dataclass(frozen=True, slots=True)
class StepTimeModel:
    """A linear model of the time of a step; no coefficient is negative.

    Attributes:
        base_s: Time of a step whatever it computes.
        per_prefill_token_s: Added by each prompt token.
        per_decode_s: Added by each request that decodes.
        per_context_token_s: Added by each KV token that decodes read.
        per_prefill_pair_s: Added by each unit of the prefill's attention work.
        num_samples: Steps it was learnt from.
        error: Recent mean absolute error of its predictions, relative to the larger of predicted
            and elapsed time; 0.1 is 10 %.
        slowdown: What recent steps took together, divided by what is predicted for them. The fit is
            of usual steps: those that are held up now and then hardly move it, but are more than 1
            in the mean.
    """

    base_s: float
    per_prefill_token_s: float
    per_decode_s: float
    per_context_token_s: float
    per_prefill_pair_s: float
    num_samples: int
    error: float
    slowdown: float = 1.0

    def predict_s(self, work: StepWork) -> float:
        """Return the expected time of a step."""
        return (
            self.base_s
            + self.per_prefill_token_s * work.prefill_tokens
            + self.per_decode_s * work.decodes
            + self.per_context_token_s * work.context_tokens
            + self.per_prefill_pair_s * work.prefill_pairs
        )

    def in_the_mean(self) -> StepTimeModel:
        """Return the model of what steps take in the mean, those that are held up included."""
        factor = self.slowdown
        return StepTimeModel(
            self.base_s * factor,
            self.per_prefill_token_s * factor,
            self.per_decode_s * factor,
            self.per_context_token_s * factor,
            self.per_prefill_pair_s * factor,
            self.num_samples,
            self.error,
        )

    def decode_cost_s(self, context_tokens: int) -> float:
        """Return what one more request that decodes adds to a step that runs anyway."""
        return self.per_decode_s + self.per_context_token_s * context_tokens

    def prefill_cost_s(self, chunk_tokens: int, context_tokens: int) -> float:
        """Return what one prefill chunk adds to a step that runs anyway."""
        pairs = _pairs(chunk_tokens, context_tokens)
        return self.per_prefill_token_s * chunk_tokens + self.per_prefill_pair_s * pairs

    def prefill_tokens_within(self, budget_s: float, context_tokens: int) -> int:
        """Return the largest prefill chunk whose cost fits into a budget; 0 if none does.

        Args:
            budget_s: Time that the chunk may add to a step.
            context_tokens: Tokens of the same request that are computed already.
        """
        # Bisection over exact costs rather than the root of the quadratic: no rounding to repair.
        return bisect_right(
            range(1, _MAX_CHUNK_TOKENS + 1),
            budget_s,
            key=lambda chunk: self.prefill_cost_s(chunk, context_tokens),
        )


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How the fit weighs its steps. Chosen on recorded steps of vLLM on CPUs, in changing loads.

    Attributes:
        full_steps: Kinds of steps seen so often, or more often, weigh alike.
        half_life_steps: What a kind has told counts half when it was not seen for so many steps.
        kept_steps: It counts for so many steps for ever.
        max_kinds: Kinds to know; beyond, the one that counts least is forgotten.
        outlier_factor: A step of a well-known kind counts as faster by at most that.
        misfit: A kind that the model misses by more, in logarithms, pulls no stronger on it.
        ridge: Share of the weight that prefers small coefficients where steps cannot tell.
        refit_steps: Steps from one model to the next.
        error_weight: Weight of a new step in the mean error.
        mean_steps: The slowdown is that of about so many steps.
        held_up: A step counts for it as at most so many times as long as was predicted, or one stop
            of the whole machine would be all that it tells.
        min_samples: Steps to see before the model is published.
    """

    full_steps: int = 32
    half_life_steps: float = 100.0
    kept_steps: float = 2.0
    max_kinds: int = 128
    outlier_factor: float = 3.0
    misfit: float = 0.2
    ridge: float = 1e-3
    refit_steps: int = 16
    error_weight: float = 0.05
    mean_steps: int = 512
    held_up: float = 20.0
    min_samples: int = 32


@dataclass(slots=True)
class _KindOfStep:
    """What steps with about the same work have told.

    Attributes:
        rates: Mean of the amounts of work per second, the step itself first: times the
            coefficients that is 1, however the amounts differ, and a delayed step hardly moves it.
        num_steps: Steps that it is worth, when last seen.
        seen_at: Number of the last of them.
    """

    rates: Vector
    num_steps: float = 0.0
    seen_at: int = 0

    def worth(self, now: int, options: FitOptions) -> float:
        """Return how many steps it is worth now."""
        aged = self.num_steps * math.exp2((self.seen_at - now) / options.half_life_steps)
        return max(aged, min(self.num_steps, options.kept_steps))

    def add(self, amounts: Vector, elapsed_s: float, now: int, options: FitOptions) -> None:
        """Take in one more step."""
        worth, rate = self.worth(now, options), 1.0 / elapsed_s
        if worth >= options.full_steps / 4:
            rate = min(rate, self.rates[0] * options.outlier_factor)
        self.num_steps, self.seen_at = min(worth + 1.0, options.full_steps), now
        self.rates = [
            old + (amount * rate - old) / self.num_steps
            for old, amount in zip(self.rates, amounts, strict=True)
        ]


class StepTimeFitter:
    """Learns the model while the engine runs, from kinds of steps rather than from single ones.

    Engines compute one kind of step for long, and then another. The model is a least squares fit
    over kinds, with relative residuals, so that what is seen all the time does not wash out what is
    rare. An engine that becomes slower is followed kind by kind, as they are seen again: it is
    often slower for a second only, and scaling what is not seen made recorded predictions worse.
    """

    def __init__(self, options: FitOptions | None = None) -> None:
        self._options = options or FitOptions()
        self._kinds: dict[tuple[int, ...], _KindOfStep] = {}
        self._fit: Vector = [0.0] * 5
        self._num_samples = 0
        self._refit_at = 0
        self._has_prefill = False
        self._has_decodes = False
        self._error = 0.0
        self._elapsed_s = self._predicted_s = 0.0

    @property
    def model(self) -> StepTimeModel | None:
        """The model; None before it has seen enough steps, some with prefill and some decodes."""
        is_settled = self._num_samples >= self._options.min_samples
        if not (is_settled and self._has_prefill and self._has_decodes):
            return None
        base, prefill, decode, context, pair = self._fit
        slowdown = self._elapsed_s / self._predicted_s if self._predicted_s else 1.0
        return StepTimeModel(
            base, prefill, decode, context, pair, self._num_samples, self._error, slowdown
        )

    def observe(self, work: StepWork, elapsed_s: float, num_steps: int = 1) -> None:
        """Learn from one step; a step without work or without a sane time is ignored.

        Args:
            work: What it computed.
            elapsed_s: How long it took.
            num_steps: It stands for so many that were alike, by their mean.
        """
        if not (0.0 < elapsed_s < math.inf and (work.prefill_tokens or work.decodes)):
            return
        elapsed_s = min(max(elapsed_s, _SHORTEST_STEP_S), _LONGEST_STEP_S)
        self._num_samples += 1
        self._has_prefill = self._has_prefill or work.prefill_tokens > 0
        self._has_decodes = self._has_decodes or work.decodes > 0
        computed = (work.prefill_tokens, work.decodes, work.context_tokens, work.prefill_pairs)
        amounts = [1.0, *computed]
        predicted_s = dot(self._fit, amounts)
        error = abs(elapsed_s - predicted_s) / max(predicted_s, elapsed_s)
        self._compare(predicted_s, elapsed_s, num_steps)
        # The first steps count alike.
        weight = max(self._options.error_weight, 1.0 / self._num_samples)
        self._error += weight * (error - self._error)
        self._kind(work).add(amounts, elapsed_s, self._num_samples, self._options)
        if self._num_samples >= self._refit_at:
            self._refit()

    def _compare(self, predicted_s: float, elapsed_s: float, num_steps: int) -> None:
        """Count what steps take in the mean, once the fit tells something."""
        if self._num_samples <= self._options.min_samples or not predicted_s:
            return
        kept = max(0.0, 1.0 - num_steps / self._options.mean_steps)
        counted_s = min(elapsed_s, self._options.held_up * predicted_s)
        self._predicted_s = kept * self._predicted_s + num_steps * predicted_s
        self._elapsed_s = kept * self._elapsed_s + num_steps * counted_s

    def _kind(self, work: StepWork) -> _KindOfStep:
        """Return what is known of steps like this one."""
        key = _kind_of(work)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= self._options.max_kinds:
                now, options = self._num_samples, self._options
                worths = {k: (v.worth(now, options), v.seen_at) for k, v in self._kinds.items()}
                del self._kinds[min(worths, key=worths.__getitem__)]
            found = self._kinds[key] = _KindOfStep([0.0] * 5)
        return found

    def _refit(self) -> None:
        """Fit the coefficients: for each kind, their product with its rates is to be 1."""
        roots, rows = list[float](), list[Vector]()
        for kind in self._kinds.values():
            worth = kind.worth(self._num_samples, self._options)
            root = math.sqrt(worth * pull(dot(kind.rates, self._fit), self._options.misfit))
            roots.append(root)
            rows.append([root * rate for rate in kind.rates])
        columns = list(zip(*rows, strict=True))
        matrix = [[dot(left, right) for right in columns] for left in columns]
        for index, row in enumerate(matrix):
            row[index] *= 1.0 + self._options.ridge
        self._fit = solve_non_negative(matrix, [dot(column, roots) for column in columns])
        # Early on, each step tells much.
        self._refit_at = self._num_samples + min(self._options.refit_steps, self._num_samples // 8)


def _pairs(chunk_tokens: int, context_tokens: int) -> int:
    return chunk_tokens * context_tokens + chunk_tokens * chunk_tokens // 2


def _kind_of(work: StepWork) -> tuple[int, ...]:
    prefill_context_tokens = work.prefill_pairs // max(1, work.prefill_tokens)
    sizes = (work.context_tokens >> 10, prefill_context_tokens >> 10)
    return tuple(map(int.bit_length, (work.prefill_tokens, work.decodes, *sizes)))
