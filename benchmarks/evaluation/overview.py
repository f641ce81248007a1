"""The table at the top of the page: per figure, how near the paper, and what ours brings."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.evaluation.experiment import BOUND, Experiment
from benchmarks.evaluation.published import paper_ratio
from benchmarks.evaluation.results import Results


def overview(experiments: list[Experiment], results: Results) -> Iterator[str]:
    """Yield the lines of a table over the experiments that the paper has."""
    yield (
        "| figure | ratios in the paper | off by: median, most | largest ratio to `parrot`, here "
        "(paper) | `parrot` as a multiple of `cost` | `cost` as a multiple of the bound |"
    )
    yield "|--" * 6 + "|"
    for experiment in experiments:
        pairs = list(_pairs(experiment, results))
        if not pairs:
            continue
        off = [abs(here / paper - 1.0) * 100 for here, paper, _ in pairs]
        here, paper, where = max(pairs, key=lambda pair: pair[1])
        gain = _times(experiment, results, "parrot", "cost")
        distance = _times(experiment, results, "cost", BOUND)
        yield (
            f"| {experiment.name} | {len(pairs)} | {statistics.median(off):.0f} %, {max(off):.0f} %"
            f" | {here:.2f} ({paper:.2f}), {where} | {gain} | {distance} |"
        )


def _pairs(experiment: Experiment, results: Results) -> Iterator[tuple[float, float, str]]:
    """Yield each ratio here and in the paper, and what it is of."""
    metric = results.metrics(experiment)[0] if results.metrics(experiment) else ""
    for x in experiment.xs:
        parrot = results.median(experiment, x, "parrot", metric)
        for system in experiment.systems:
            value = results.median(experiment, x, system, metric)
            paper = paper_ratio(experiment.name, x, system, "parrot")
            if system != "parrot" and parrot and value and paper:
                yield value / parrot, paper, f"{system} at {x}"


def _times(experiment: Experiment, results: Results, slower: str, faster: str) -> str:
    """Return the span of how many times more one system takes than the other."""
    metric = results.metrics(experiment)[0]
    found = [
        one / other
        for x in experiment.xs
        if (one := results.median(experiment, x, slower, metric))
        and (other := results.median(experiment, x, faster, metric))
    ]
    return f"{min(found):.2f} to {max(found):.2f}" if found else "-"
