"""One picture per experiment: what was simulated as lines, what the paper prints as crosses."""

from __future__ import annotations

from pathlib import Path

from benchmarks.evaluation.experiment import Experiment
from benchmarks.evaluation.published import paper_value
from benchmarks.evaluation.results import Results

_UNITS = {"(s)": "s", "(ms)": "ms/token", "(ms/token)": "ms/token"}
_COLOURS = ("#8c8c8c", "#d1822b", "#b8493f", "#7d5ba6", "#4b9b6e", "#2f6fb3", "#c2a021", "#5f5f5f")


def plot(experiment: Experiment, results: Results, folder: Path) -> Path:
    """Draw an experiment and return the path of the picture."""
    import matplotlib

    matplotlib.use("Agg")
    # Equal results shall be equal files.
    matplotlib.rcParams.update({"svg.hashsalt": "parrot", "font.size": 9})
    from matplotlib import pyplot

    metric = results.metrics(experiment)[0]
    figure, axes = pyplot.subplots(figsize=(5.6, 3.2), layout="constrained")
    places = range(len(experiment.xs))
    for system, colour in zip(experiment.systems, _COLOURS, strict=False):
        values = [results.median(experiment, x, system, metric) for x in experiment.xs]
        known = [(at, value) for at, value in zip(places, values, strict=True) if value is not None]
        is_line = len(experiment.xs) > 1
        style = {"marker": "o", "markersize": 4, "linewidth": 1.4 if is_line else 0}
        axes.plot(*zip(*known, strict=True), label=system, color=colour, **style)
        unit = _UNITS[metric[metric.rindex("(") :]]
        printed = [paper_value(experiment.name, x, system, unit) for x in experiment.xs]
        crosses = [(at, value) for at, value in zip(places, printed, strict=True) if value]
        if crosses:
            axes.plot(
                *zip(*crosses, strict=True), color=colour, marker="x", linewidth=0, markersize=7
            )
    axes.set_xticks(list(places), experiment.xs)
    axes.set_xlabel(experiment.x_name)
    axes.set_ylabel(metric)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    path = folder / f"{experiment.name}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
