"""Runs what ``parrot simulate`` was asked for: checks, simulates with progress, prints, writes."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.text import Text

from parrot_backend.sim.capacity import (
    Answer,
    Grid,
    Point,
    Row,
    answers,
    engines_text,
    explore,
    rate_text,
)
from parrot_backend.sim.capacity_rows import document_of, measures_of
from parrot_backend.sim.engine_choice import EngineChoice
from parrot_backend.sim.plot_capacity import PlotError, plot
from parrot_backend.sim.record_files import RecordFiles
from parrot_backend.sim.spec import Fault
from parrot_backend.sim.study import Progress as Tell
from parrot_backend.sim.study import Study
from parrot_backend.sim.survey import Survey
from parrot_backend.simulate.exits import EXIT_INTERRUPTED, EXIT_OK
from parrot_backend.simulate.options import SimulateOptions, grid_of, study_of
from parrot_backend.simulate.tables import print_answers, print_rows, print_setting

#: Progress is shown in so many steps for each setting.
_SHOWN_STEPS = 200

#: A load is steady if jobs begin for so many job times or longer. Ours: until then the first jobs,
#: which find idle engines, are a third of all or more.
_STEADY_JOB_TIMES = 3.0


def simulate(options: SimulateOptions, console: Console, errors: Console) -> int:
    """Answer a capacity question and return the exit status.

    Args:
        options: The question.
        console: Takes the result.
        errors: Takes warnings and progress.

    Raises:
        ValueError: Something cannot be as it was asked for.
        OSError: A file cannot be read or written.
    """
    grid, study = grid_of(options), study_of(options)
    surveys = {rate: study.survey(rate) for rate in grid.rates_per_s}
    first = surveys[grid.rates_per_s[0]]
    _warn(study, first, errors)
    if not options.json:
        print_setting(console, study, first, grid.rates_per_s[0])
    run = _Run(study, grid, surveys)
    with ExitStack() as stack:
        files = None if options.out is None else stack.enter_context(RecordFiles(options.out))
        tell = stack.enter_context(_shown(errors, run))
        run.run(files, tell)
    found = answers(run.rows, grid) if study.target.is_set else []
    document = document_of(
        {**_settings(study, first), "notes": run.notes()},
        run.rows,
        study.target,
        found,
        is_complete=run.is_complete,
    )
    if options.json:
        console.file.write(json.dumps(document, indent=2) + "\n")
    else:
        _print(console, run, found, has_target=study.target.is_set)
    if options.out is not None:
        _write(options.out, run, study, document, errors)
    if not run.is_complete:
        errors.print(Text("Interrupted: these are the results until then."))
        return EXIT_INTERRUPTED
    return EXIT_OK


@dataclass(slots=True)
class _Run:
    """The simulations of a question, and how far they got."""

    study: Study
    grid: Grid
    surveys: dict[float | None, Survey]
    rows: list[Row] = field(default_factory=list)
    is_complete: bool = True

    def run(self, files: RecordFiles | None, tell: Tell | None) -> None:
        """Simulate; an interrupt ends it and keeps what is there."""

        def one(point: Point) -> Row:
            return self.study.simulate(point, self.surveys[point.rate_per_s], files, tell)

        try:
            for row in explore(self.grid, one):
                self.rows.append(row)
        except KeyboardInterrupt:
            # Between two simulations; within one it ends that one.
            self.is_complete = False
        self.is_complete = self.is_complete and all(row.is_whole for row in self.rows)
        places = {rate: place for place, rate in enumerate(self.grid.rates_per_s)}
        self.rows.sort(key=lambda row: (places[row.point.rate_per_s], row.point.num_engines))

    def notes(self) -> list[str]:
        """Return what the reader has to know of the rows: loads that are not steady."""
        found = list[str]()
        for rate, survey in self.surveys.items():
            times_s = [
                row.result.total.job_s.p50 for row in self.rows if row.point.rate_per_s == rate
            ]
            longest_s = max((time_s for time_s in times_s if not math.isnan(time_s)), default=0.0)
            span_s = survey.last_s - survey.first_s
            if span_s < _STEADY_JOB_TIMES * longest_s:
                found.append(
                    f"{rate_text(rate)}: jobs begin for {span_s:.0f} s and take up to "
                    f"{longest_s:.0f} s, so this is no steady load; a longer --duration-s is"
                )
        if self.study.faults:
            found += [_retried(row) for row in self.rows if row.result.total.num_retried]
        return found

    @property
    def num_jobs(self) -> int:
        """Jobs of all settings; of a search, of those that it needs at most."""
        jobs = sum(survey.num_jobs for survey in self.surveys.values())
        number = len(self.grid.engines)
        return jobs * (1 + (number - 1).bit_length() if self.grid.searches else number)


def _retried(row: Row) -> str:
    """Return how many calls had to be begun again."""
    total = row.result.total
    return (
        f"{rate_text(row.point.rate_per_s)}, {engines_text(row.point.num_engines)}: "
        f"{total.num_retried} of {total.num_calls} calls were begun again"
    )


def _warn(study: Study, survey: Survey, errors: Console) -> None:
    report = study.source.report
    if report is not None and (report.num_bad or report.ignored_fields):
        errors.print(Text(str(report)), soft_wrap=True)
    if survey.too_long is not None:
        why = study.too_long(survey.too_long)
        text = f"{survey.num_too_long} of {survey.num_jobs} jobs cannot run and will fail: {why}"
        errors.print(Text(text), soft_wrap=True)


@contextmanager
def _shown(errors: Console, run: _Run) -> Iterator[Tell | None]:
    """Show progress in a terminal."""
    if not errors.is_terminal:
        yield None
        return
    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), console=errors, transient=True
    ) as progress:
        task = progress.add_task("simulating", total=run.num_jobs)
        batch = max(1, run.num_jobs // _SHOWN_STEPS)
        num_ended = 0

        def tell() -> None:
            nonlocal num_ended
            num_ended += 1
            if num_ended % batch == 0:
                progress.advance(task, batch)

        yield tell


def _print(console: Console, run: _Run, found: list[Answer], *, has_target: bool) -> None:
    if run.rows:
        print_rows(console, run.rows, has_target=has_target)
    print_answers(console, found)
    for note in run.notes():
        console.print(Text(f"Note: {note}"), soft_wrap=True)


def _settings(study: Study, survey: Survey) -> dict[str, Any]:
    scheduler = study.core.scheduler
    kinds = [(_engine_settings(choice), number) for choice, number in study.kinds.items()]
    return {
        "workload": study.source.name,
        "jobs": survey.num_jobs,
        "calls": survey.num_calls,
        "seed": study.seed,
        "engine": kinds[0][0] if len(kinds) == 1 else None,
        "mixed_engines": [{"number": n, **kind} for kind, n in kinds] if len(kinds) > 1 else None,
        "faults": [_told(fault) for fault in study.faults],
        "placement": scheduler.placement,
        "ordering": scheduler.ordering,
        "client": study.client.kind,
        "round_trip_s": study.client.round_trip.min_s,
    }


def _told(fault: Fault) -> dict[str, Any]:
    """Return what happens to an engine; JSON has no infinity, so one that hangs has the word."""
    told = asdict(fault)
    return told if math.isfinite(fault.factor) else {**told, "factor": "inf"}


def _engine_settings(choice: EngineChoice) -> dict[str, Any]:
    spec = choice.spec
    return {
        "name": choice.name,
        "is_measured": choice.is_measured,
        "source": choice.source,
        "kv_tokens": spec.num_blocks * spec.block_tokens,
        "max_requests": spec.max_requests,
        "max_step_tokens": spec.max_step_tokens,
        "scheduler": spec.rules,
    }


def _write(
    folder: Path, run: _Run, study: Study, document: dict[str, Any], errors: Console
) -> None:
    (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [measures_of(row) for row in run.rows]
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    written = ["results.json", "results.csv", "jobs.csv", "calls.csv"]
    rates = run.grid.rates_per_s
    where = f" at {rate_text(rates[0])}" if len(rates) == 1 else ""
    try:
        plot(
            f"{study.source.name}{where} on {study.engines_name}",
            run.rows,
            study.target,
            folder / "capacity.svg",
        )
        written.append("capacity.svg")
    except PlotError as error:
        errors.print(Text(str(error)), soft_wrap=True)
    errors.print(Text(f"in {folder}: {', '.join(written)}"), soft_wrap=True)
