"""What the demo shows and writes: the table, its notes, and the files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parrot_backend.demo.gantt import Chart, gantt_page
from parrot_backend.demo.records import Mode, RunRecord
from parrot_backend.demo.summary import ModeSummary, ProgramSummary

BOUND_NOTE = (
    "Bound: one round trip + the engine's own time (vLLM's clock, queue to last token, same run) "
    "summed over the longest chain of dependent calls. At no load nothing can be faster with "
    "these engine times; what a run takes beyond it is HTTP, tokenising, scheduling and hops "
    "between processes."
)
HONEST_NOTE = (
    "The gain comes from saved round trips, plus prefix reuse where the table shows more of it in "
    "one mode; engine, prompts and numbers of tokens are the same in both. The bundled model is "
    "tiny and has random weights: its text is nonsense, and speed is all that is shown."
)
PHASES_NOTE = (
    "Queue, prefill and decode are vLLM's own times call by call, drawn so that they end where the "
    "reply sets out; in one submit they are the times of Parrot's session view, whose queue is "
    "Parrot's."
)

_COLUMNS = (
    "",
    "time",
    "spread",
    "round trips",
    "prompt tokens\nnew + reused",
    "faster",
    "time /\nbound",
)
_EXCERPT_CHARS = 160


@dataclass(frozen=True, slots=True)
class Setup:
    """What was the same in all runs."""

    model: str
    max_tokens: int
    round_trip_s: float
    repeat: int

    def __str__(self) -> str:
        """Return it in one sentence or two, for people."""
        return (
            f"One vLLM engine with {self.model}, reached by turns through vLLM's own OpenAI server "
            f"(call by call) and through Parrot (one submit): {self.repeat} repetitions, each on "
            f"an empty prefix cache; {self.max_tokens} tokens per call, temperature 0, "
            f"{1000 * self.round_trip_s:.0f} ms round trip."
        )


def print_results(console: Console, summaries: Sequence[ProgramSummary], setup: Setup) -> None:
    """Show the table and what must be said about it."""
    console.print()
    console.print(Text(str(setup)))
    console.print(results_table(summaries))
    console.print(Text(BOUND_NOTE, style="dim"))
    console.print(Text(HONEST_NOTE, style="dim"))
    console.print(Text(_same_texts(summaries), style="dim"))
    console.print()
    console.print(Text("What the model wrote in the end (an excerpt; noise, see above):"))
    for summary in summaries:
        excerpt = " ".join(summary.one_submit.typical.text.split())[:_EXCERPT_CHARS]
        console.print(Padding(Text(f"{summary.title}: {excerpt} ...", style="italic"), (0, 2)))


def results_table(summaries: Sequence[ProgramSummary]) -> Table:
    """Return the table: a heading and two lines for each program."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    for row in table_rows(summaries):
        table.add_row(*row, style="bold" if len(row) == 1 else "")
    return table


def table_rows(summaries: Sequence[ProgramSummary]) -> list[tuple[str, ...]]:
    """Return the cells of the table; a row of one cell is the heading of a program."""
    rows: list[tuple[str, ...]] = []
    for summary in summaries:
        ordinary, parrot = summary.call_by_call, summary.one_submit
        trips = str(ordinary.round_trips)
        if summary.stages != ordinary.round_trips:
            trips += f", {summary.stages} serial"
        rows.append((summary.title,))
        rows.append(_cells(ordinary, trips, ""))
        rows.append(_cells(parrot, str(parrot.round_trips), f"{parrot.speedup:.2f} x"))
    return rows


def _cells(mode: ModeSummary, round_trips: str, faster: str) -> tuple[str, ...]:
    return (
        f"  {mode.typical.mode}",
        f"{mode.e2e_s:.2f} s",
        f"{mode.fastest_s:.2f}-{mode.slowest_s:.2f}",
        round_trips,
        f"{mode.computed_tokens} + {mode.reused_tokens}",
        faster,
        f"{mode.over_bound:.2f}",
    )


def _same_texts(summaries: Sequence[ProgramSummary]) -> str:
    same = sum(summary.same_texts for summary in summaries)
    total = sum(len(summary.pairs) for summary in summaries)
    return f"Both modes returned the same text in {same} of {total} repetitions."


def write_files(
    folder: Path, summaries: Sequence[ProgramSummary], setup: Setup, *, raw: bool
) -> list[Path]:
    """Write the Gantt page, a Perfetto trace per program and, if ``raw``, all numbers.

    Returns:
        The paths, the page first.
    """
    page = folder / "gantt.html"
    intro = [str(setup), BOUND_NOTE, PHASES_NOTE, HONEST_NOTE]
    page.write_text(gantt_page(charts(summaries), intro), encoding="utf-8")
    paths = [page]
    for summary in summaries:
        name = summary.title.partition(",")[0].partition(":")[0].replace(" ", "-")
        trace = folder / f"{name}.perfetto.json"
        trace.write_text(json.dumps(summary.one_submit.typical.timeline), encoding="utf-8")
        paths.append(trace)
    if raw:
        numbers = folder / "numbers.json"
        numbers.write_text(json.dumps(raw_numbers(summaries, setup), indent=1), encoding="utf-8")
        paths.append(numbers)
    return paths


def charts(summaries: Sequence[ProgramSummary]) -> list[Chart]:
    """Return the typical runs of each program, for the page."""
    return [
        Chart(
            title=summary.title,
            subtitle=(
                f"Medians of {len(summary.pairs)}: {Mode.CALL_BY_CALL} "
                f"{summary.call_by_call.e2e_s:.2f} s, {Mode.ONE_SUBMIT} "
                f"{summary.one_submit.e2e_s:.2f} s ({summary.one_submit.speedup:.2f} times as "
                f"fast), bound {summary.bound_s:.2f} s. Shown are the runs closest to the medians."
            ),
            runs=(summary.call_by_call.typical, summary.one_submit.typical),
            bound_s=summary.typical_bound_s,
        )
        for summary in summaries
    ]


def raw_numbers(summaries: Sequence[ProgramSummary], setup: Setup) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON."""
    programs = [
        {
            "title": summary.title,
            "bound_s": summary.bound_s,
            "speedup": summary.one_submit.speedup,
            "time_over_bound": summary.one_submit.over_bound,
            "same_texts": summary.same_texts,
            "repetitions": [
                {run.mode: _raw_run(run) for run in (pair.call_by_call, pair.one_submit)}
                for pair in summary.pairs
            ],
        }
        for summary in summaries
    ]
    return {"setup": asdict(setup), "programs": programs}


def _raw_run(run: RunRecord) -> dict[str, Any]:
    numbers = asdict(run)
    del numbers["timeline"]
    return numbers


def print_files(console: Console, paths: Sequence[Path]) -> None:
    """Say what was written, and what to try next."""
    page, traces = paths[0], [path for path in paths if path.name.endswith(".perfetto.json")]
    console.print()
    console.print(Text(f"Open {page} in a browser to see where the time went."))
    console.print(Text(f"Open {traces[0]} (or another) in https://ui.perfetto.dev."))
    for path in paths[len(traces) + 1 :]:
        console.print(Text(f"All numbers: {path}."))
    console.print()
    console.print(Text("Next:"))
    console.print(
        Text("  .venv/bin/parrot demo --model PATH_OR_NAME   the same with a model of yours")
    )
    console.print(
        Text("  .venv/bin/parrot serve                       a server for programs of your own")
    )
