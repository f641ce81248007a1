"""Records summed up: times, rates and shares, for all jobs and for each application.

Times are kept as numbers, eight bytes each, so that percentiles are exact.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from parrot_backend.sim.records import CallRecord, JobRecord, RecordSink
from parrot_backend.sim.simulation import Ending


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of many, in seconds; all are NaN where there are none.

    A percentile is the smallest of the values that so many of them do not exceed.
    """

    count: int
    mean: float
    p50: float
    p90: float
    p99: float


def spread_of(values: Iterable[float]) -> Spread:
    """Return mean and percentiles."""
    ranked = sorted(values)
    if not ranked:
        return Spread(0, *[math.nan] * 4)
    number = len(ranked)
    p50, p90, p99 = (ranked[math.ceil(number * share / 100) - 1] for share in (50, 90, 99))
    return Spread(number, math.fsum(ranked) / number, p50, p90, p99)


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of some jobs and their calls.

    Attributes:
        num_jobs: That ended with all that was wanted.
        num_failed: That ended with an error.
        num_unfinished: That had not ended when the simulation did.
        num_calls: That ended with an output.
        num_retried: Of those, that were begun more than once.
        job_s: From a job's arrival until its client had the last wanted output.
        normalised_s: The same divided by the tokens that all calls of the job made.
        ttft_s: From when a call was ready until its first token was there.
        tpot_s: Of a call with several tokens, the time per token after the first.
        queue_s: From when a call was ready until it went to the engine that finished it.
        prompt_tokens: Of all calls, like those that follow.
        cached_tokens: Not computed, because the engine had them.
        computed_tokens: Computed in prompts.
        recomputed_tokens: The part of it that the same call had computed already, and lost.
        output_tokens: Made.
    """

    num_jobs: int
    num_failed: int
    num_unfinished: int
    num_calls: int
    num_retried: int
    job_s: Spread
    normalised_s: Spread
    ttft_s: Spread
    tpot_s: Spread
    queue_s: Spread
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    recomputed_tokens: int
    output_tokens: int

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that were in a cache; NaN without prompts."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else math.nan


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a simulation.

    Attributes:
        total: Of all jobs.
        apps: Of the jobs of each application, by name.
        span_s: From the first arrival to the end of the last job.
        jobs_per_s: Over that time, like those that follow.
        calls_per_s: Calls that ended.
        output_tokens_per_s: Tokens that were made.
        busy_shares: For each engine, the part of the time in which it had something to run.
    """

    total: Figures
    apps: dict[str, Figures]
    span_s: float
    jobs_per_s: float
    calls_per_s: float
    output_tokens_per_s: float
    busy_shares: tuple[float, ...]


def _times() -> array[float]:
    return array("d")


@dataclass(slots=True)
class _Sums:
    """What is kept of the records of one application."""

    num_failed: int = 0
    num_unfinished: int = 0
    num_retried: int = 0
    job_s: array[float] = field(default_factory=_times)
    normalised_s: array[float] = field(default_factory=_times)
    ttft_s: array[float] = field(default_factory=_times)
    tpot_s: array[float] = field(default_factory=_times)
    queue_s: array[float] = field(default_factory=_times)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    output_tokens: int = 0

    def add_call(self, record: CallRecord) -> None:
        self.num_retried += record.attempts > 1
        self.ttft_s.append(record.first_token_s - record.ready_s)
        self.queue_s.append(record.placed_s - record.ready_s)
        if record.output_tokens > 1:
            decode_s = record.finished_s - record.first_token_s
            self.tpot_s.append(decode_s / (record.output_tokens - 1))
        self.prompt_tokens += record.prompt_tokens
        self.cached_tokens += record.cached_tokens
        self.computed_tokens += record.computed_tokens
        self.output_tokens += record.output_tokens

    def add_job(self, record: JobRecord) -> None:
        if record.failed.startswith("unfinished:"):
            self.num_unfinished += 1
        elif record.failed:
            self.num_failed += 1
        else:
            took_s = record.finished_s - record.arrived_s
            self.job_s.append(took_s)
            self.normalised_s.append(took_s / record.output_tokens)

    def figures(self) -> Figures:
        return _figures([self])


class Summary(RecordSink):
    """Takes records and sums them up."""

    def __init__(self) -> None:
        self._apps: dict[str, _Sums] = {}
        self._first_s, self._last_s = math.inf, -math.inf

    def call(self, record: CallRecord) -> None:
        """Take in a call that has ended."""
        self._of(record.app).add_call(record)

    def job(self, record: JobRecord) -> None:
        """Take in a job that has ended."""
        self._of(record.app).add_job(record)
        self._first_s = min(self._first_s, record.arrived_s)
        self._last_s = max(self._last_s, record.finished_s)

    def result(self, ending: Ending) -> Result:
        """Return what came of the simulation that has ended so."""
        total = _figures(list(self._apps.values()))
        span_s = max(0.0, self._last_s - self._first_s)

        def per_s(amount: float) -> float:
            return amount / span_s if span_s else math.nan

        return Result(
            total,
            {app: sums.figures() for app, sums in sorted(self._apps.items())},
            span_s,
            per_s(total.num_jobs),
            per_s(total.num_calls),
            per_s(total.output_tokens),
            tuple(busy_s / ending.now_s if ending.now_s else 0.0 for busy_s in ending.busy_s),
        )

    def _of(self, app: str) -> _Sums:
        found = self._apps.get(app)
        if found is None:
            found = self._apps[app] = _Sums()
        return found


def _figures(parts: list[_Sums]) -> Figures:
    def spread(name: str) -> Spread:
        return spread_of(value for part in parts for value in getattr(part, name))

    def total(name: str) -> int:
        return sum(getattr(part, name) for part in parts)

    prompt_tokens, cached_tokens = total("prompt_tokens"), total("cached_tokens")
    computed_tokens = total("computed_tokens")
    return Figures(
        num_jobs=sum(len(part.job_s) for part in parts),
        num_failed=total("num_failed"),
        num_unfinished=total("num_unfinished"),
        num_calls=sum(len(part.ttft_s) for part in parts),
        num_retried=total("num_retried"),
        job_s=spread("job_s"),
        normalised_s=spread("normalised_s"),
        ttft_s=spread("ttft_s"),
        tpot_s=spread("tpot_s"),
        queue_s=spread("queue_s"),
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        computed_tokens=computed_tokens,
        recomputed_tokens=computed_tokens - (prompt_tokens - cached_tokens),
        output_tokens=total("output_tokens"),
    )
