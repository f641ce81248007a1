"""One picture per experiment: what was simulated as lines, what the paper prints as crosses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.evaluation.experiment import BOUND, Experiment
from benchmarks.evaluation.published import paper_value
from benchmarks.evaluation.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = {"(s)": "s", "(ms)": "ms/token", "(ms/token)": "ms/token"}
_COLOURS = ("#8c8c8c", "#d1822b", "#b8493f", "#7d5ba6", "#4b9b6e", "#2f6fb3", "#c2a021", "#5f5f5f")


def plot(experiment: Experiment, results: Results, folder: Path) -> Path:
    """Draw an experiment and return the path of the picture."""
    import matplotlib

    matplotlib.use("Agg")
    # Equal results shall be equal files.
    matplotlib.rcParams.update({"svg.hashsalt": "parrot", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.4), layout="constrained")
    if experiment.is_relative:
        _draw_relative(axes, experiment, results)
    else:
        _draw_lines(axes, experiment, results)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    path = folder / f"{experiment.name}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _draw_lines(axes: Axes, experiment: Experiment, results: Results) -> None:
    """Draw a line per system, and crosses where the paper has a number."""
    metric = results.metrics(experiment)[0]
    unit = _UNITS[metric[metric.rindex("(") :]]
    width = 1.4 if len(experiment.xs) > 1 else 0.0
    for system, colour in zip(experiment.systems, _COLOURS, strict=False):
        known, printed = list[tuple[int, float]](), list[tuple[int, float]]()
        for at, x in enumerate(experiment.xs):
            value = results.median(experiment, x, system, metric)
            paper = paper_value(experiment.name, x, system, unit)
            known += [] if value is None else [(at, value)]
            printed += [] if paper is None else [(at, paper)]
        if not known:
            continue
        style = "--" if system == BOUND else "-"
        axes.plot(
            *zip(*known, strict=True),
            label=system,
            color=colour,
            marker="o",
            markersize=4,
            linewidth=width,
            linestyle=style,
        )
        if printed:
            axes.plot(
                *zip(*printed, strict=True), color=colour, marker="x", linewidth=0, markersize=7
            )
    axes.set_xticks(range(len(experiment.xs)), experiment.xs)
    axes.set_xlabel(experiment.x_name)
    axes.set_ylabel(metric)
    axes.legend(frameon=False, fontsize=8)


def _draw_relative(axes: Axes, experiment: Experiment, results: Results) -> None:
    """Draw bars for each point: multiples of what the first system takes."""
    metric = results.metrics(experiment)[0]
    systems = [system for system in experiment.systems if system != BOUND]
    width = 0.84 / len(systems)
    for number, system in enumerate(systems):
        places, heights = list[float](), list[float]()
        for at, x in enumerate(experiment.xs):
            value = results.median(experiment, x, system, metric)
            first = results.median(experiment, x, systems[0], metric)
            if value is not None and first is not None:
                places.append(at - 0.42 + (number + 0.5) * width)
                heights.append(value / first)
        colour = _COLOURS[number % len(_COLOURS)]
        hatch = "//" if number >= len(_COLOURS) else None
        axes.bar(places, heights, width * 0.9, label=system, color=colour, hatch=hatch)
    axes.set_xticks(range(len(experiment.xs)), experiment.xs, rotation=20)
    axes.set_ylabel(f"{metric}, multiple of {systems[0]}")
    axes.legend(frameon=False, fontsize=7, ncols=3, loc="upper left", bbox_to_anchor=(0, 1.25))
