"""From the repetitions of one program to the figures that are shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from parrot_backend.demo.bound import bound_s, critical_path
from parrot_backend.demo.measure import Pair
from parrot_backend.demo.records import RunRecord


@dataclass(frozen=True, slots=True)
class ModeSummary:
    """One line of the table.

    Attributes:
        e2e_s: Median end-to-end time; ``fastest_s`` and ``slowest_s`` are the spread.
        over_bound: Median of end-to-end time / bound of the same repetition.
        speedup: Median of the time call by call / this time, of the same repetition.
        typical: The run with the median time.
    """

    e2e_s: float
    fastest_s: float
    slowest_s: float
    round_trips: int
    computed_tokens: int
    reused_tokens: int
    completion_tokens: int
    over_bound: float
    speedup: float
    typical: RunRecord


@dataclass(frozen=True, slots=True)
class ProgramSummary:
    """Both lines of one program.

    Attributes:
        bound_s: Median over the repetitions.
        typical_bound_s: The bound of the typical run in one submit.
        stages: Calls on its critical path; call by call, so many round trips follow one another.
        same_texts: Repetitions in which both modes returned the same text.
        pairs: What it is a summary of.
    """

    title: str
    bound_s: float
    typical_bound_s: float
    stages: int
    same_texts: int
    call_by_call: ModeSummary
    one_submit: ModeSummary
    pairs: Sequence[Pair]


def summarise(title: str, pairs: Sequence[Pair], round_trip_s: float) -> ProgramSummary:
    """Return the figures of at least one repetition."""
    bounds_s = [bound_s(pair.one_submit.calls, round_trip_s) for pair in pairs]
    baseline = [pair.call_by_call for pair in pairs]
    parrot = _summarise_mode([pair.one_submit for pair in pairs], baseline, bounds_s)
    return ProgramSummary(
        title=title,
        bound_s=statistics.median(bounds_s),
        typical_bound_s=bound_s(parrot.typical.calls, round_trip_s),
        stages=len(critical_path(pairs[0].one_submit.calls)),
        same_texts=sum(pair.call_by_call.text == pair.one_submit.text for pair in pairs),
        call_by_call=_summarise_mode(baseline, baseline, bounds_s),
        one_submit=parrot,
        pairs=pairs,
    )


def _summarise_mode(
    runs: Sequence[RunRecord], baseline: Sequence[RunRecord], bounds_s: Sequence[float]
) -> ModeSummary:
    times_s = [run.e2e_s for run in runs]
    typical = min(runs, key=lambda run: abs(run.e2e_s - statistics.median_low(times_s)))
    return ModeSummary(
        e2e_s=statistics.median(times_s),
        fastest_s=min(times_s),
        slowest_s=max(times_s),
        round_trips=typical.round_trips,
        computed_tokens=typical.computed_tokens,
        reused_tokens=typical.reused_tokens,
        completion_tokens=typical.completion_tokens,
        over_bound=_median_ratio(times_s, bounds_s),
        speedup=_median_ratio([run.e2e_s for run in baseline], times_s),
        typical=typical,
    )


def _median_ratio(upper: Sequence[float], lower: Sequence[float]) -> float:
    return statistics.median(above / below for above, below in zip(upper, lower, strict=True))
