"""Writes ``docs/evaluation.md`` from the table of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.evaluation.catalogue import EXPERIMENTS
from benchmarks.evaluation.experiment import BOUND, Experiment
from benchmarks.evaluation.overview import overview
from benchmarks.evaluation.plots import plot
from benchmarks.evaluation.published import paper_ratio
from benchmarks.evaluation.results import Results

_ROOT = Path(__file__).parent.parent.parent
PAGE = _ROOT / "docs" / "evaluation.md"
_IMAGES = _ROOT / "docs" / "images" / "evaluation"
_INTRODUCTION = Path(__file__).parent / "introduction.md"


def write(results: Results) -> list[str]:
    """Write the page and its pictures; return the experiments that have no results."""
    _IMAGES.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []
    experiments = list(EXPERIMENTS.values())
    parts = [_INTRODUCTION.read_text(), *overview(experiments, results), "", "## Experiments\n"]
    for experiment in experiments:
        if not results.metrics(experiment):
            missing.append(experiment.name)
            continue
        picture = plot(experiment, results, _IMAGES)
        parts.append("\n".join(_section(experiment, results, picture)))
    PAGE.write_text("\n".join(parts))
    return missing


def _section(experiment: Experiment, results: Results, picture: Path) -> Iterator[str]:
    number = f"Figure {experiment.name}: " if experiment.name[0].isdigit() else ""
    yield f"### {number}{experiment.title}\n"
    yield f"![{experiment.title}](images/evaluation/{picture.name})\n"
    if experiment.remark:
        yield f"{experiment.remark}\n"
    for metric in results.metrics(experiment):
        yield from _table(experiment, results, metric)
        yield ""
    ratios = list(_ratios(experiment, results))
    if ratios:
        yield "How many times more others take than `parrot`, here and (in the paper):\n"
        others = [system for system in experiment.systems if _is_other(system)]
        yield f"| {experiment.x_name} | " + " | ".join(others) + " |"
        yield "|--" * (len(others) + 1) + "|"
        yield from ratios
        yield ""
    for x, system, reason in experiment.skips:
        yield f"Not simulated: `{system}` at {x} ({reason} in the paper).\n"


def _table(experiment: Experiment, results: Results, metric: str) -> Iterator[str]:
    yield f"| {experiment.x_name} | " + " | ".join(experiment.systems) + " |"
    yield "|--" * (len(experiment.systems) + 1) + "|"
    for x in experiment.xs:
        cells = [_cell(experiment, results, x, system, metric) for system in experiment.systems]
        yield f"| {x}: {metric} | " + " | ".join(cells) + " |"


def _cell(experiment: Experiment, results: Results, x: str, system: str, metric: str) -> str:
    values = results.of(experiment, x, system, metric)
    median = results.median(experiment, x, system, metric)
    if median is None:
        return "-"
    spread = f" [{min(values):.3g}, {max(values):.3g}]" if len(values) > 1 else ""
    return f"{median:.4g}{spread}"


def _ratios(experiment: Experiment, results: Results) -> Iterator[str]:
    metric = results.metrics(experiment)[0]
    for x in experiment.xs:
        parrot = results.median(experiment, x, "parrot", metric)
        if parrot is None:
            continue
        cells = []
        for system in filter(_is_other, experiment.systems):
            value = results.median(experiment, x, system, metric)
            paper = paper_ratio(experiment.name, x, system, "parrot")
            printed = "" if paper is None else f" ({paper:.2f})"
            cells.append("-" if value is None else f"{value / parrot:.2f}{printed}")
        yield f"| {x} | " + " | ".join(cells) + " |"


def _is_other(system: str) -> bool:
    return system not in ("parrot", BOUND)
