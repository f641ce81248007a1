"""A picture of a capacity question: job times and throughput over rates, or over engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parrot_backend.sim.capacity import Row, Target, engines_text, rate_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#2f6fb3", "#d1822b", "#4b9b6e", "#b8493f", "#7d5ba6", "#c2a021", "#5f5f5f", "#8c8c8c")

#: The two panels: what is shown, and its axis.
_PANELS: tuple[tuple[Callable[[Row], float], str], ...] = (
    (lambda row: row.result.total.job_s.p99, "P99 of job times (s)"),
    (lambda row: row.result.total.tpot_s.p99 * 1e3, "P99 of time per token (ms)"),
)


class PlotError(Exception):
    """No picture can be made; the text says why."""


def plot(title: str, rows: Sequence[Row], target: Target, path: Path) -> None:
    """Draw a line for each rate over the engines, or for each number of engines over the rates.

    Args:
        title: What was simulated.
        rows: Whole ones are drawn.
        target: What users are to get, a dashed line.
        path: Of the picture; its ending tells the format.

    Raises:
        PlotError: matplotlib is not installed, or there is nothing to draw.
        OSError: The picture cannot be written.
    """
    shown = [row for row in rows if row.is_whole and row.result.total.num_jobs]
    if not shown:
        raise PlotError("no plot: no setting was simulated to its end with a job that succeeded")
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PlotError(
            f"no plot: {error.name} is not installed; the extra 'simulate' of parrot-serve has it"
        ) from error
    # Equal results shall be equal files, and text in them can be searched.
    with rc_context({"svg.hashsalt": "parrot", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        limits = (target.job_p99_s, None if target.tpot_s is None else target.tpot_s * 1e3)
        for axes, (value, label), limit in zip(figure.subplots(1, 2), _PANELS, limits, strict=True):
            _draw(axes, shown, value)
            if limit is not None:
                axes.axhline(limit, color="#333333", linestyle="--", linewidth=1, label="target")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
        figure.suptitle(title)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axes: Axes, rows: Sequence[Row], value: Callable[[Row], float]) -> None:
    num_rates = len({row.point.rate_per_s for row in rows})
    # A search tries other engines at each rate: lines of few points that say little.
    over_rates = num_rates > 1 and num_rates >= len({row.point.num_engines for row in rows})
    lines = dict[str, list[tuple[float, float]]]()
    for row in rows:
        rate, number = row.point.rate_per_s, row.point.num_engines
        if over_rates:
            lines.setdefault(engines_text(number), []).append((rate or 0.0, value(row)))
        else:
            lines.setdefault(rate_text(rate), []).append((number, value(row)))
    for position, (label, points) in enumerate(lines.items()):
        xs, ys = zip(*sorted(points), strict=True)
        colour = _COLOURS[position % len(_COLOURS)]
        axes.plot(xs, ys, label=label, color=colour, marker="o", markersize=4, linewidth=1.4)
    axes.set_xlabel("jobs per second" if over_rates else "engines")
    if not over_rates:
        numbers = sorted({row.point.num_engines for row in rows})
        axes.set_xticks(numbers, [str(number) for number in numbers])
