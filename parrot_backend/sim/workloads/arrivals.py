"""When jobs begin: endless streams of times, in seconds, and how they are merged."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, islice, repeat
from typing import Literal

from parrot_backend.core.criteria import Criteria
from parrot_backend.sim.program import Arrival, Program, Workload
from parrot_backend.sim.workloads.checks import WorkloadError, at_least, positive

ArrivalKind = Literal["poisson", "gamma", "uniform", "bursts", "at_once"]
ARRIVAL_KINDS: tuple[ArrivalKind, ...] = ("poisson", "gamma", "uniform", "bursts", "at_once")


@dataclass(frozen=True, slots=True)
class ArrivalProcess:
    """How times follow each other.

    Attributes:
        kind: Gaps are drawn from an exponential distribution (``poisson``) or a gamma distribution;
            all alike (``uniform``); nought within a burst and alike between bursts; or all nought.
        rate_per_s: Jobs per second in the long run; means nothing for ``at_once``.
        cv: Standard deviation of the gaps over their mean, for ``gamma``; 1 is Poisson.
        burst_jobs: Jobs of one burst.

    Raises:
        WorkloadError: A parameter makes no sense.
    """

    kind: ArrivalKind = "poisson"
    rate_per_s: float = 1.0
    cv: float = 1.0
    burst_jobs: int = 4

    def __post_init__(self) -> None:
        if self.kind not in ARRIVAL_KINDS:
            known = ", ".join(ARRIVAL_KINDS)
            raise WorkloadError("invalid_parameter", f"arrivals must be one of {known}")
        positive("rate_per_s", self.rate_per_s)
        positive("cv", self.cv)
        at_least("burst_jobs", self.burst_jobs, 1)

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """Return endless times, the first one after a gap unless all begin at once or in bursts."""
        rate = self.rate_per_s
        if self.kind == "at_once":
            return repeat(0.0)
        if self.kind == "bursts":
            size = self.burst_jobs
            return (burst * size / rate for burst in count() for _ in range(size))
        if self.kind == "uniform":
            return (number / rate for number in count())
        shape = 1.0 if self.kind == "poisson" else 1.0 / self.cv**2
        return _summed(rng.gammavariate(shape, 1.0 / (shape * rate)) for _ in repeat(None))


def after_gaps(gaps_s: Iterable[float]) -> Iterator[float]:
    """Return times that begin at 0 and have these gaps: a replayed pattern."""
    return chain([0.0], _summed(gaps_s))


def jobs_at(
    times_s: Iterable[float],
    make: Callable[[int], Program],
    user: Callable[[int], str] = lambda number: f"user-{number}",
) -> Iterator[Arrival]:
    """Return arrivals of programs that are made one by one, as they are drawn.

    Args:
        times_s: When; an endless stream makes an endless workload.
        make: Program of each number, from 0 on.
        user: Whose it is; a user of its own unless said otherwise.
    """
    return (Arrival(time, make(number), user(number)) for number, time in enumerate(times_s))


def first(workload: Workload, num_jobs: int) -> Iterator[Arrival]:
    """Return the first so many jobs.

    Raises:
        WorkloadError: The number is not at least 1.
    """
    return islice(workload, at_least("jobs", num_jobs, 1))


def merged(*workloads: Workload) -> Iterator[Arrival]:
    """Return the arrivals of all, in order of time; they are drawn only as time goes on."""
    return heapq.merge(*workloads, key=lambda arrival: arrival.time_s)


def delayed(workload: Workload, by_s: float) -> Iterator[Arrival]:
    """Return the same arrivals, later."""
    return (Arrival(a.time_s + by_s, a.program, a.user) for a in workload)


def asking(workload: Workload, criteria: Criteria) -> Iterator[Arrival]:
    """Return the same arrivals, with this asked for everything that is wanted."""
    for arrival in workload:
        wanted = tuple((name, criteria) for name, _ in arrival.program.wanted)
        yield replace(arrival, program=replace(arrival.program, wanted=wanted))


def seeded(seed: int, purpose: str) -> random.Random:
    """Return a generator of its own for each purpose, so that one does not disturb another."""
    return random.Random(f"{seed}/{purpose}")


def _summed(gaps_s: Iterable[float]) -> Iterator[float]:
    time_s = 0.0
    for gap_s in gaps_s:
        time_s += gap_s
        yield time_s
