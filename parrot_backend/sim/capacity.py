"""Capacity: which rates and numbers of engines keep a target, found by simulating them."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

from parrot_backend.sim.simulation import EndReason
from parrot_backend.sim.summary import Result


class QuestionError(ValueError):
    """A question cannot be asked so; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """What users are to get. Jobs that fail or do not end miss any target.

    Attributes:
        tpot_s: 99 % of calls take no longer per token after the first; None for any time.
        job_p99_s: 99 % of jobs take no longer; None for any time.
    """

    tpot_s: float | None = None
    job_p99_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("time per token", self.tpot_s), ("job time", self.job_p99_s)):
            if value is not None and not 0 < value < math.inf:
                raise QuestionError(f"the target of the {name} must be above zero, not {value}")

    @property
    def is_set(self) -> bool:
        """Whether anything is asked for."""
        return self.tpot_s is not None or self.job_p99_s is not None

    def misses(self, result: Result) -> tuple[str, ...]:
        """Return what of it a result does not keep, in words."""
        found = list[str]()
        total = result.total
        num_lost = total.num_failed + total.num_unfinished
        if num_lost:
            found.append(f"{num_lost} jobs failed or did not end")
        if self.tpot_s is not None and total.tpot_s.p99 > self.tpot_s:
            found.append(f"P99 per token {total.tpot_s.p99 * 1e3:.1f} ms")
        if self.job_p99_s is not None and not total.job_s.p99 <= self.job_p99_s:
            found.append(f"P99 of jobs {total.job_s.p99:.2f} s")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting: a rate (None: as the workload has it) on so many engines."""

    rate_per_s: float | None
    num_engines: int


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one setting.

    Attributes:
        point: The setting.
        result: What came of it.
        reason: Why its simulation ended; an interrupted one tells of its first part only.
        bound_s: Mean job time that nothing can beat.
        misses: What of the target it does not keep, in words.
    """

    point: Point
    result: Result
    reason: EndReason
    bound_s: float
    misses: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it was simulated to its end."""
        return self.reason == "done"

    @property
    def keeps_target(self) -> bool:
        """Whether it was simulated to its end, and keeps the target."""
        return self.is_whole and not self.misses


@dataclass(frozen=True, slots=True)
class Grid:
    """What is to be simulated.

    Attributes:
        rates_per_s: Rates; None for as the workload has it.
        engines: Numbers of engines, in rising order.
        searches: Of the engines, only those that are needed to find the smallest number that keeps
            the target, taking it that more engines are no worse.
    """

    rates_per_s: tuple[float | None, ...]
    engines: tuple[int, ...]
    searches: bool = False

    def __post_init__(self) -> None:
        for rate in self.rates_per_s:
            if rate is not None and not 0 < rate < math.inf:
                raise QuestionError(f"a rate must be above zero, not {rate:g} jobs/s")
        if not self.rates_per_s or not self.engines:
            raise QuestionError("there must be a rate and a number of engines")
        if min(self.engines) < 1:
            raise QuestionError(f"there must be at least 1 engine, not {min(self.engines)}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is enough.

    Attributes:
        rate_per_s: At this rate, or the largest rate.
        num_engines: So many engines are the smallest number, or keep this rate; None: none does.
        text: The same in words.
    """

    rate_per_s: float | None
    num_engines: int | None
    text: str


def explore(grid: Grid, simulate: Callable[[Point], Row]) -> Generator[Row, None, None]:
    """Simulate a grid and yield its rows; one that was interrupted is the last.

    Args:
        grid: What is asked for.
        simulate: Simulates one point.
    """
    for rate in grid.rates_per_s:
        rows = _searched(grid, rate, simulate) if grid.searches else _all(grid, rate, simulate)
        for row in rows:
            yield row
            if not row.is_whole:
                return


def answers(rows: Iterable[Row], grid: Grid) -> list[Answer]:
    """Return the smallest number of engines for each rate, and the largest rate for each number.

    What rows that are missing or not whole could change is left out. The largest rate is left out
    where there is one rate only, or a search.
    """
    whole = [row for row in rows if row.is_whole]
    found = list[Answer]()
    for rate in grid.rates_per_s:
        at_rate = {row.point.num_engines: row for row in whole if row.point.rate_per_s == rate}
        found += _fewest(rate, at_rate, grid)
    if len(grid.rates_per_s) > 1 and not grid.searches:
        for number in grid.engines:
            on_number = [row for row in whole if row.point.num_engines == number]
            if len(on_number) == len(grid.rates_per_s):
                found.append(_fastest(number, on_number))
    return found


def rate_text(rate_per_s: float | None) -> str:
    """Return a rate in words."""
    return "rate of its own" if rate_per_s is None else f"{rate_per_s:g} jobs/s"


def _fewest(rate: float | None, rows: dict[int, Row], grid: Grid) -> list[Answer]:
    kept = [number for number, row in rows.items() if row.keeps_target]
    where = rate_text(rate)
    if not kept:
        most = rows.get(grid.engines[-1])
        is_told = most is not None and (grid.searches or len(rows) == len(grid.engines))
        if most is None or not is_told:
            return []
        why = "; ".join(most.misses)
        most_text = engines_text(most.point.num_engines)
        return [Answer(rate, None, f"{where}: not enough with {most_text} ({why})")]
    fewest = min(kept)
    smaller = [number for number in grid.engines if number < fewest]
    # In a search, the next smaller number stands for all that are smaller still.
    if not all(number in rows for number in (smaller[-1:] if grid.searches else smaller)):
        return []
    return [
        Answer(
            rate, fewest, f"{where}: {engines_text(fewest)} {'is' if fewest == 1 else 'are'} enough"
        )
    ]


def _fastest(number: int, rows: list[Row]) -> Answer:
    kept = [row.point.rate_per_s for row in rows if row.keeps_target]
    rates = [rate for rate in kept if rate is not None]
    if not rates:
        return Answer(None, number, f"{engines_text(number)}: none of the rates keeps the target")
    return Answer(
        max(rates), number, f"{engines_text(number)}: {rate_text(max(rates))} is the largest rate"
    )


def engines_text(number: int) -> str:
    """Return a number of engines in words."""
    return f"{number} engine" if number == 1 else f"{number} engines"


def _all(
    grid: Grid, rate: float | None, simulate: Callable[[Point], Row]
) -> Generator[Row, None, None]:
    for number in grid.engines:
        yield simulate(Point(rate, number))


def _searched(
    grid: Grid, rate: float | None, simulate: Callable[[Point], Row]
) -> Generator[Row, None, None]:
    """Bisect: the largest number first, for if that is not enough nothing is."""
    numbers = grid.engines
    row = simulate(Point(rate, numbers[-1]))
    yield row
    low, high = (0, len(numbers) - 1) if row.keeps_target else (0, 0)
    while row.is_whole and low < high:
        middle = (low + high) // 2
        row = simulate(Point(rate, numbers[middle]))
        yield row
        low, high = (low, middle) if row.keeps_target else (middle + 1, high)
