"""How long a step of an engine takes, as a function of what it computes, learnt while it runs."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

_MAX_CHUNK_TOKENS = 1 << 20

#: Keeps the weights finite if an elapsed time is absurdly small; no real step is as fast.
_SHORTEST_STEP_S = 1e-6

#: Keeps the normal equations solvable for work that has not been seen for very long.
_LEAST_INFORMATION = 1e-9

#: Units of the features inside the fit: a step, 1000 tokens, a request, 1000 tokens, 10^6 pairs.
_UNITS = [1.0, 1e-3, 1.0, 1e-3, 1e-6]

_Vector = list[float]


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
    """

    base_s: float
    per_prefill_token_s: float
    per_decode_s: float
    per_context_token_s: float
    per_prefill_pair_s: float
    num_samples: int
    error: float

    def predict_s(self, work: StepWork) -> float:
        """Return the expected time of a step."""
        return (
            self.base_s
            + self.per_prefill_token_s * work.prefill_tokens
            + self.per_decode_s * work.decodes
            + self.per_context_token_s * work.context_tokens
            + self.per_prefill_pair_s * work.prefill_pairs
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
    """How the fit weighs its steps. Chosen on synthetic traces with 5 % noise (its tests).

    Attributes:
        forgetting: Weight of a step relative to the next one: 0.998 remembers about 500 steps.
        drift_bias: Mean signed relative error beyond which the engine itself became slower or
            faster, and all coefficients are scaled together.
        error_weight: Weight of a new step in the means of errors.
        outlier_factor: An error larger than so many times the mean error is cut to that.
        min_samples: Steps to see before the model is published.
        ridge: How strongly coefficients that the steps cannot tell apart keep their values.
    """

    forgetting: float = 0.998
    drift_bias: float = 0.1
    error_weight: float = 0.05
    outlier_factor: float = 4.0
    min_samples: int = 32
    ridge: float = 1e-3


class StepTimeFitter:
    """Learns the model step by step: recursive least squares with exponential forgetting.

    It keeps the information matrix (the inverse of the covariance), which is a decaying sum of
    squares: it is symmetric and bounded by construction, and what is not seen for a while keeps
    its coefficient instead of winding up. Errors are relative to the step's time, so that long
    steps do not drown short ones. An engine that becomes slower as a whole is followed by scaling
    all coefficients, since the steps of the moment may not tell them apart.
    """

    def __init__(self, options: FitOptions | None = None) -> None:
        self._options = options or FitOptions()
        size = len(_UNITS)
        self._information = [
            [_LEAST_INFORMATION if row == column else 0.0 for column in range(size)]
            for row in range(size)
        ]
        #: The best fit so far; its coefficients may be negative.
        self._fit: _Vector = [0.0] * size
        #: The best fit without negative coefficients.
        self._published = self._fit
        self._num_samples = 0
        self._has_prefill = False
        self._has_decodes = False
        self._error = 0.0
        self._bias = 0.0

    @property
    def model(self) -> StepTimeModel | None:
        """The model; None before it has seen enough steps, some with prefill and some decodes."""
        if not (self._is_settled and self._has_prefill and self._has_decodes):
            return None
        base, prefill, decode, context, pair = map(float.__mul__, self._published, _UNITS)
        return StepTimeModel(base, prefill, decode, context, pair, self._num_samples, self._error)

    @property
    def _is_settled(self) -> bool:
        return self._num_samples >= self._options.min_samples

    def observe(self, work: StepWork, elapsed_s: float) -> None:
        """Learn from one step; a step without work or without a sane time is ignored."""
        if not (work.prefill_tokens or work.decodes):
            return
        if not (elapsed_s > 0 and math.isfinite(elapsed_s)):
            return
        features = _features(work)
        predicted_s = _dot(self._published, features)
        # The larger of the two: a step that was delayed weighs little, and errors are at most 1.
        scale_s = max(predicted_s, elapsed_s, _SHORTEST_STEP_S)
        error = (elapsed_s - predicted_s) / scale_s
        if self._is_drifting(self._without_outliers(error)):
            self._rescale(self._without_outliers(error))
        else:
            residual = (elapsed_s - _dot(self._fit, features)) / scale_s
            self._update([value / scale_s for value in features], self._without_outliers(residual))
        self._published = _without_negatives(self._information, self._fit)
        self._num_samples += 1
        self._has_prefill = self._has_prefill or work.prefill_tokens > 0
        self._has_decodes = self._has_decodes or work.decodes > 0
        # The first steps count alike.
        weight = max(self._options.error_weight, 1.0 / self._num_samples)
        self._error += weight * (abs(error) - self._error)

    def _without_outliers(self, error: float) -> float:
        if not self._is_settled:
            return error
        limit = self._options.outlier_factor * self._error
        return max(-limit, min(limit, error))

    def _update(self, features: _Vector, residual: float) -> None:
        """Move the fit towards one step, given relative to the time of the step."""
        keep, ridge = self._options.forgetting, self._options.ridge
        for index, (row, value) in enumerate(zip(self._information, features, strict=True)):
            row[:] = [keep * old + value * other for old, other in zip(row, features, strict=True)]
            row[index] += ridge * value * value + (1.0 - keep) * _LEAST_INFORMATION
        gain = _solve(self._information, features)
        self._fit = [old + residual * step for old, step in zip(self._fit, gain, strict=True)]

    def _is_drifting(self, error: float) -> bool:
        """Note an error and tell whether predictions are off to one side."""
        if self._is_settled:
            self._bias += self._options.error_weight * (error - self._bias)
        return abs(self._bias) > self._options.drift_bias

    def _rescale(self, error: float) -> None:
        """Scale the whole fit; to fit the coefficients one by one now would tear them apart."""
        factor = math.exp(self._options.error_weight * error)
        self._fit = [value * factor for value in self._fit]
        # Times that are twice as long tell a quarter as much about the coefficients.
        self._information = [[value / factor**2 for value in row] for row in self._information]


def _pairs(chunk_tokens: int, context_tokens: int) -> int:
    return chunk_tokens * context_tokens + chunk_tokens * chunk_tokens // 2


def _features(work: StepWork) -> _Vector:
    amounts = (1, work.prefill_tokens, work.decodes, work.context_tokens, work.prefill_pairs)
    return [unit * amount for unit, amount in zip(_UNITS, amounts, strict=True)]


def _dot(left: _Vector, right: _Vector) -> float:
    return sum(map(float.__mul__, left, right))


def _without_negatives(information: list[_Vector], fit: _Vector) -> _Vector:
    """Return the best fit with negative coefficients at 0 and the others fitted anew."""
    if min(fit) >= 0.0:
        return fit
    target = [_dot(row, fit) for row in information]
    free = [index for index, value in enumerate(fit) if value > 0.0]
    while free:
        values = _solve(
            [[information[row][column] for column in free] for row in free],
            [target[row] for row in free],
        )
        if min(values) >= 0.0:
            found = dict(zip(free, values, strict=True))
            return [found.get(index, 0.0) for index in range(len(fit))]
        free = [index for index, value in zip(free, values, strict=True) if value > 0.0]
    return [0.0] * len(fit)


def _solve(matrix: list[_Vector], vector: _Vector) -> _Vector:
    """Solve a symmetric positive definite system; such a one needs no pivoting."""
    rows = [[*row, value] for row, value in zip(matrix, vector, strict=True)]
    size = len(rows)
    for index, pivot in enumerate(rows):
        for row in rows[index + 1 :]:
            factor = row[index] / pivot[index]
            for column in range(index + 1, size + 1):
                row[column] -= factor * pivot[column]
    solution = [0.0] * size
    for index in reversed(range(size)):
        known = sum(rows[index][column] * solution[column] for column in range(index + 1, size))
        solution[index] = (rows[index][size] - known) / rows[index][index]
    return solution
