"""What a workload that can be asked for by name is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.workloads.arrivals import (
    ARRIVAL_KINDS,
    ArrivalKind,
    ArrivalProcess,
    asking,
    first,
    seeded,
)
from parrot_backend.sim.workloads.settings import Parameter, Settings

#: Makes the arrivals of a workload from its settings and a seed.
Build = Callable[[Settings, int], Iterator[Arrival]]


@dataclass(frozen=True, slots=True)
class App:
    """A workload that can be asked for.

    Attributes:
        name: As the user writes it.
        doc: What it is, in a line.
        parameters: What can be set.
        build: Makes its arrivals.
    """

    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    build: Build


_JOBS = Parameter("jobs", 100, "jobs in all", least=1)
#: Parameters of workloads with a number of jobs and a process of arrivals.
ARRIVALS = (
    _JOBS,
    Parameter("rate_per_s", 1.0, "jobs that begin per second in the long run", above=0),
    Parameter("arrivals", "poisson", "how they follow each other", choices=ARRIVAL_KINDS),
    Parameter("cv", 1.0, "for gamma: deviation of the gaps over their mean", above=0),
    Parameter("burst_jobs", 4, "for bursts: jobs that begin together", least=1),
    Parameter(
        "criteria",
        CriteriaKind.LATENCY.value,
        "what users ask of what they get",
        choices=tuple(kind.value for kind in CriteriaKind),
    ),
)


def times_s(settings: Settings, seed: int) -> Iterator[float]:
    """Return endless times, as the settings say."""
    process = ArrivalProcess(
        cast(ArrivalKind, settings.word("arrivals")),
        settings.real("rate_per_s"),
        settings.real("cv"),
        settings.whole("burst_jobs"),
    )
    return process.times_s(seeded(seed, "arrivals"))


def endless(make: Callable[[Settings, int, Iterator[float]], Iterator[Arrival]]) -> Build:
    """Return a builder that cuts off after the number of jobs that was asked for."""

    def build(settings: Settings, seed: int) -> Iterator[Arrival]:
        jobs = make(settings, seed, times_s(settings, seed))
        criteria = Criteria(CriteriaKind(settings.word("criteria")))
        return asking(first(jobs, settings.whole("jobs")), criteria)

    return build
