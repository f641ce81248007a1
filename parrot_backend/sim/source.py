"""Where jobs come from, at a rate that is asked for: an application by name, or a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path

from parrot_backend.sim.json_lines import ReadReport
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.traces import read_arrivals
from parrot_backend.sim.workloads.checks import WorkloadError, at_least, positive
from parrot_backend.sim.workloads.registry import APPS, make_workload
from parrot_backend.sim.workloads.settings import Value

#: Applications that end by time alone still want a number of jobs.
_ENDLESS_JOBS = 10**12


@dataclass(slots=True)
class Source:
    """A stream of jobs that can be drawn again and again, at one rate or another.

    Attributes:
        name: Of the application or the trace.
        report: What became of a trace's lines; None for an application. Complete once all was
            drawn for the first time.
    """

    name: str
    _draw: Callable[[float | None], Iterator[Arrival]]
    _duration_s: float | None
    _takes_rate: bool
    report: ReadReport | None = None
    _own_rate: float | None = field(default=None, init=False)

    def arrivals(self, rate_per_s: float | None) -> Iterator[Arrival]:
        """Return the jobs in order of time.

        Args:
            rate_per_s: Jobs that begin per second in the long run; None for as they are. Where the
                workload has no rate of its own, its times are stretched.

        Raises:
            WorkloadError: There cannot be such a rate; or, while jobs are drawn, a job cannot be.
            OSError: The trace cannot be read.
        """
        if rate_per_s is not None:
            positive("rate", rate_per_s)
        if rate_per_s is None or self._takes_rate:
            jobs = self._draw(rate_per_s)
        else:
            jobs = _stretched(self._draw(None), self.own_rate_per_s / rate_per_s)
        if self._duration_s is None:
            return jobs
        duration_s = self._duration_s
        return takewhile(lambda arrival: arrival.time_s <= duration_s, jobs)

    @property
    def own_rate_per_s(self) -> float:
        """Jobs per second of a workload as it is, from its first to its last job.

        Raises:
            WorkloadError: All of its jobs begin at once.
            OSError: The trace cannot be read.
        """
        if self._own_rate is None:
            first_s, last_s, num_jobs = 0.0, 0.0, 0
            for arrival in self._draw(None):
                first_s = first_s if num_jobs else arrival.time_s
                last_s = arrival.time_s
                num_jobs += 1
            if last_s <= first_s:
                raise WorkloadError(
                    "invalid_parameter",
                    f"{self.name} has {num_jobs} jobs that begin at once: a rate means nothing",
                )
            self._own_rate = (num_jobs - 1) / (last_s - first_s)
        return self._own_rate


def app_source(
    name: str,
    seed: int,
    given: Mapping[str, Value],
    num_jobs: int | None = None,
    duration_s: float | None = None,
) -> Source:
    """Return the jobs of an application.

    Args:
        name: One of ``registry.APPS``.
        seed: Of everything random.
        given: Its parameters; rate and number of jobs are told otherwise.
        num_jobs: How many; None for as many as the application says, or as fit the duration.
        duration_s: Jobs that begin later do not come; None for all.

    Raises:
        WorkloadError: There is no such workload or parameter, or a value is wrong.
    """
    _check_ends(num_jobs, duration_s)
    app = APPS.get(name)
    known = frozenset[str]() if app is None else frozenset(p.name for p in app.parameters)
    for parameter, option in (("rate_per_s", "rate"), ("jobs", "jobs")):
        if parameter in given and parameter in known:
            raise WorkloadError("invalid_parameter", f"give {parameter} by --{option}")
    fixed = dict(given)
    if "jobs" in known:
        if num_jobs is not None:
            fixed["jobs"] = num_jobs
        elif duration_s is not None and "rate_per_s" in known:
            fixed["jobs"] = _ENDLESS_JOBS

    def draw(rate_per_s: float | None) -> Iterator[Arrival]:
        rate = {} if rate_per_s is None else {"rate_per_s": rate_per_s}
        return islice(make_workload(name, seed, {**fixed, **rate}), num_jobs)

    draw(None)  # what is wrong with its parameters is told at once
    return Source(name, draw, duration_s, "rate_per_s" in known)


def trace_source(
    path: Path, num_jobs: int | None = None, duration_s: float | None = None
) -> Source:
    """Return the jobs of a trace in either form; see :mod:`parrot_backend.sim.traces`.

    Raises:
        WorkloadError: A number makes no sense.
        OSError: The file cannot be read; also while jobs are drawn.
    """
    _check_ends(num_jobs, duration_s)
    with path.open("rb"):
        pass
    report = ReadReport()
    reports = [report]

    def draw(rate_per_s: float | None) -> Iterator[Arrival]:
        # Lines are counted once, however often they are read.
        return islice(read_arrivals(path, reports.pop() if reports else ReadReport()), num_jobs)

    return Source(path.name, draw, duration_s, False, report)


def _check_ends(num_jobs: int | None, duration_s: float | None) -> None:
    if num_jobs is not None:
        at_least("jobs", num_jobs, 1)
    if duration_s is not None:
        positive("duration", duration_s)


def _stretched(arrivals: Iterator[Arrival], factor: float) -> Iterator[Arrival]:
    return (replace(arrival, time_s=arrival.time_s * factor) for arrival in arrivals)
