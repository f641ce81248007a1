"""The page that shows both modes of each program on one time axis; it needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from parrot_backend.demo.records import CallRecord, Phase, PhaseKind, RunRecord

#: Room at the right end of the axis for the figure after the longest bar, as a share of the axis.
_MARGIN = 0.09
_MAX_TICKS = 10

_CLASSES = {
    PhaseKind.REQUEST_TRAVELS: "travel",
    PhaseKind.QUEUE: "queue",
    PhaseKind.PREFILL: "prefill",
    PhaseKind.DECODE: "decode",
    PhaseKind.REPLY_TRAVELS: "travel",
    PhaseKind.CALL: "decode",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One program: its runs on a common axis, and its bound."""

    title: str
    subtitle: str
    runs: Sequence[RunRecord]
    bound_s: float


class _Axis:
    """Places seconds on an axis that ends a little after the longest run."""

    def __init__(self, longest_s: float) -> None:
        self._end_s = longest_s * (1 + _MARGIN) or 1.0

    def percent(self, time_s: float) -> str:
        return f"{100 * time_s / self._end_s:.3f}%"

    def ticks_s(self) -> list[float]:
        """Return round numbers of seconds, at most ``_MAX_TICKS`` of them."""
        rough_s = self._end_s / _MAX_TICKS
        power = 10.0 ** math.floor(math.log10(rough_s))
        step_s = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough_s)
        return [index * step_s for index in range(int(self._end_s / step_s) + 1)]


def gantt_page(charts: Iterable[Chart], intro: Sequence[str]) -> str:
    """Return the page as HTML.

    Args:
        charts: The programs, one below the other.
        intro: Paragraphs of plain text below the title.
    """
    template = files("parrot_backend.demo").joinpath("gantt.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        intro="\n".join(f'<p class="muted">{escape(text)}</p>' for text in intro),
        sections="\n".join(_section(chart) for chart in charts),
    )


def _section(chart: Chart) -> str:
    axis = _Axis(max((run.e2e_s for run in chart.runs), default=0.0))
    lanes = "\n".join(_lane(run, axis) for run in chart.runs)
    return (
        f'<section>\n<h2>{escape(chart.title)}</h2>\n<p class="muted">{escape(chart.subtitle)}</p>'
        f'\n<div class="chart">\n{_grid(chart.bound_s, axis)}\n{lanes}\n</div>\n</section>'
    )


def _grid(bound_s: float, axis: _Axis) -> str:
    ticks = "".join(
        f'<span style="left:{axis.percent(tick_s)}"><em>{tick_s:.3g} s</em></span>'
        for tick_s in axis.ticks_s()
    )
    bound = f'<span class="bound" style="left:{axis.percent(bound_s)}"></span>'
    return f'<div class="grid">{ticks}{bound}</div>'


def _lane(run: RunRecord, axis: _Axis) -> str:
    trips = f"{run.round_trips} round trip{'' if run.round_trips == 1 else 's'}"
    whole = _bar("whole", f"the whole program: {run.e2e_s:.3f} s", 0.0, run.e2e_s, axis)
    head = _row(
        "head", f"<b>{escape(run.mode)}</b>", whole, 0.0, f"{run.e2e_s:.2f} s, {trips}", axis
    )
    rows = [head]
    if run.network:
        name = "<span>submit and reply</span>"
        rows.append(_row("", name, _phases("submit", run.network, axis), run.e2e_s, "", axis))
    rows += [_call_row(call, axis) for call in run.calls]
    return '<div class="lane">\n' + "\n".join(rows) + "\n</div>"


def _call_row(call: CallRecord, axis: _Axis) -> str:
    end_s = call.phases[-1].end_s
    note = f"{1000 * (end_s - call.phases[0].begin_s):.0f} ms"
    name = f"<span>{escape(call.name)}</span>"
    return _row("", name, _phases(call.name, call.phases, axis), end_s, note, axis)


def _row(kind: str, name: str, bars: str, note_at_s: float, note: str, axis: _Axis) -> str:
    text = f'<small style="left:{axis.percent(note_at_s)}">{escape(note)}</small>' if note else ""
    return f'<div class="row {kind}">{name}<div class="track">{bars}{text}</div></div>'


def _phases(name: str, phases: Iterable[Phase], axis: _Axis) -> str:
    return "".join(
        _bar(
            _CLASSES[phase.kind],
            f"{name}: {phase.kind}, {1000 * (phase.end_s - phase.begin_s):.1f} ms "
            f"from {phase.begin_s:.3f} s",
            phase.begin_s,
            phase.end_s,
            axis,
        )
        for phase in phases
        if phase.end_s > phase.begin_s
    )


def _bar(kind: str, title: str, begin_s: float, end_s: float, axis: _Axis) -> str:
    place = f"left:{axis.percent(begin_s)};width:{axis.percent(end_s - begin_s)}"
    return f'<i class="{kind}" style="{place}" title="{escape(title)}"></i>'
