"""What is read from the records of a simulation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.common import percentile
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
