"""What is read from the records of a simulation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.common import percentile
from benchmarks.evaluation.systems import System
from parrot_backend.sim.bound import bound
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.records import CallRecord, JobRecord


def mean_job_s(jobs: Sequence[JobRecord]) -> float:
    """Return the mean time from a job's begin to its end."""
    return statistics.fmean(job.finished_s - job.arrived_s for job in jobs)


def p99_job_s(jobs: Sequence[JobRecord]) -> float:
    """Return the time that 99 of 100 jobs stay below."""
    return percentile([job.finished_s - job.arrived_s for job in jobs], 0.99)


def normalised_ms(jobs: Sequence[JobRecord]) -> float:
    """Return the mean of time over output tokens, in milliseconds per token."""
    return 1e3 * statistics.fmean((j.finished_s - j.arrived_s) / j.output_tokens for j in jobs)


def decode_ms(calls: Sequence[CallRecord]) -> float:
    """Return the mean time between tokens, over calls of more than one token."""
    return 1e3 * statistics.fmean(
        (c.finished_s - c.first_token_s) / (c.output_tokens - 1)
        for c in calls
        if c.output_tokens > 1
    )


def computed_tokens(calls: Sequence[CallRecord]) -> float:
    """Return prompt tokens that engines computed, in thousands."""
    return sum(call.computed_tokens for call in calls) / 1e3


def hit_share(calls: Sequence[CallRecord]) -> float:
    """Return which part of all prompt tokens was found in caches, in per cent."""
    prompt = sum(call.prompt_tokens for call in calls)
    return 100.0 * sum(call.cached_tokens for call in calls) / prompt if prompt else 0.0


def bounds_s(jobs: Iterable[Arrival], system: System) -> list[tuple[Arrival, float]]:
    """Return the least time of each job, alone on engines like those of a system, once warm."""
    engine, number = system.engines[0], len(system.engines)
    found: list[tuple[Arrival, float]] = []
    for job in jobs:
        # The instructions of an application are in the cache from its first job on.
        warm = [before.program for before, _ in found[-1:]]
        least = bound(job.program, engine, system.client, num_engines=number, warm=warm)
        found.append((job, least.job_s))
    return found


def mean_bound_s(jobs: Iterable[Arrival], system: System) -> float:
    """Return the mean of the least times of jobs."""
    return statistics.fmean(least_s for _, least_s in bounds_s(jobs, system))


def normalised_bound_ms(jobs: Iterable[Arrival], system: System) -> float:
    """Return the mean of least times over output tokens, in milliseconds per token."""
    return 1e3 * statistics.fmean(
        least_s / sum(call.output_tokens for call in job.program.calls)
        for job, least_s in bounds_s(jobs, system)
    )
