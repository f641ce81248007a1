"""What came of a simulation as tables and lines for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from parrot_backend.sim.capacity import Answer, Row, rate_text
from parrot_backend.sim.engine_choice import EngineChoice, all_published
from parrot_backend.sim.spec import Fault
from parrot_backend.sim.study import Study
from parrot_backend.sim.survey import Survey
from parrot_backend.sim.workloads.app import ARRIVALS
from parrot_backend.sim.workloads.registry import APPS
from parrot_backend.sim.workloads.settings import Parameter

#: No table is wider.
_WIDEST = 1000

_COLUMNS = (
    *("rate", "engines", "jobs", "failed", "mean", "P50", "P90", "P99", "bound"),
    *("TTFT", "P99", "TPOT", "P99", "tokens/s", "hits", "busy", "target"),
)


def print_setting(console: Console, study: Study, survey: Survey, rate: float | None) -> None:
    """Print what is simulated; the jobs are those at this rate."""
    scheduler = study.core.scheduler
    _print(
        console,
        f"{study.source.name}, {rate_text(rate)}: {survey.num_jobs} jobs, {survey.num_calls} "
        f"calls, {survey.prompt_tokens} prompt and {survey.output_tokens} output tokens",
    )
    for choice, number in study.kinds.items():
        count = "" if len(study.kinds) == 1 else f"{number} x "
        _print(console, f"engine {count}{_engine_text(choice)}")
    for fault in study.faults:
        _print(console, f"at {fault.time_s:g} s, engine {fault.engine} {_fault_text(fault)}")
    _print(
        console,
        f"placement {scheduler.placement}, order {scheduler.ordering or 'its own'}, client "
        f"{study.client.kind}, round trip {study.client.round_trip.min_s * 1e3:g} ms, "
        f"seed {study.seed}",
    )


def _engine_text(choice: EngineChoice) -> str:
    spec = choice.spec
    kind = "measured" if choice.is_measured else "expected, not measured"
    return (
        f"{choice.name} ({kind}): {spec.num_blocks * spec.block_tokens} KV tokens, "
        f"{spec.max_requests} requests, steps of {spec.max_step_tokens} tokens, "
        f"scheduler {spec.rules}"
    )


def _fault_text(fault: Fault) -> str:
    if fault.kind == "lost":
        return "is lost"
    if fault.kind == "joins":
        return "is back"
    if math.isinf(fault.factor):
        return "hangs"
    return "is as fast as ever" if fault.factor == 1.0 else f"takes {fault.factor:g} times as long"


def print_rows(console: Console, rows: Sequence[Row], *, has_target: bool) -> None:
    """Print a line for each setting. Job times and TTFT are seconds, TPOT milliseconds."""
    names = _COLUMNS if has_target else _COLUMNS[:-1]
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1 : len(_COLUMNS) - 1]:
        column.justify = "right"
        column.no_wrap = True
    for row in rows:
        table.add_row(*_cells(row)[: len(names)])
    # Numbers that are cut to a narrow terminal tell nothing: lines are rather wrapped.
    unlimited = console.options.update(max_width=_WIDEST)
    console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    console.print(table)
    _print(console, "mean to bound: job times (s); TTFT (s); TPOT: time per further token (ms)")


def print_answers(console: Console, found: Sequence[Answer]) -> None:
    """Print what is enough."""
    for answer in found:
        _print(console, f"- {answer.text}")


def print_list(console: Console) -> None:
    """Print the applications with their parameters, and the engines with their sources."""
    common = {parameter.name: parameter for parameter in ARRIVALS}
    _print(console, "Applications (--app), with their own parameters (--param name=value):")
    for app in APPS.values():
        _print(console, f"\n{app.name}: {app.doc}")
        for parameter in app.parameters:
            if common.get(parameter.name) != parameter:
                _print(console, f"    {_parameter_text(parameter)}")
        if set(common.values()) <= set(app.parameters):
            _print(console, "    and the common ones")
    _print(console, "\nCommon parameters (jobs: --jobs; rate_per_s: --rate):")
    for parameter in ARRIVALS:
        _print(console, f"    {_parameter_text(parameter)}")
    _print(console, "\nEngines (--engine):")
    for engine in all_published():
        spec = engine.spec
        kind = "measured" if engine.is_measured else "not measured"
        _print(console, f"\n{engine.name}: {kind}; {spec.num_blocks * spec.block_tokens} KV tokens")
        _print(console, f"    {engine.source}")


def _print(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def _cells(row: Row) -> tuple[str, ...]:
    result, total = row.result, row.result.total
    busy = result.busy_shares
    rate = "its own" if row.point.rate_per_s is None else f"{row.point.rate_per_s:g}/s"
    lost = total.num_failed + total.num_unfinished
    verdict = "kept" if row.keeps_target else "; ".join(row.misses) or "?"
    return (
        rate if row.is_whole else f"{rate} (partial)",
        str(row.point.num_engines),
        str(total.num_jobs),
        str(lost),
        *(_seconds(value) for value in _four(row)),
        _seconds(row.bound_s),
        _seconds(total.ttft_s.mean),
        _seconds(total.ttft_s.p99),
        _milliseconds(total.tpot_s.mean),
        _milliseconds(total.tpot_s.p99),
        _plain(result.output_tokens_per_s, "{:.0f}"),
        _plain(total.hit_rate, "{:.0%}"),
        _plain(math.fsum(busy) / len(busy) if busy else math.nan, "{:.0%}"),
        verdict,
    )


def _four(row: Row) -> tuple[float, float, float, float]:
    job_s = row.result.total.job_s
    return job_s.mean, job_s.p50, job_s.p90, job_s.p99


def _seconds(value: float) -> str:
    return _plain(value, "{:.2f}")


def _milliseconds(value: float) -> str:
    return _plain(value * 1e3, "{:.1f}")


def _plain(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def _parameter_text(parameter: Parameter) -> str:
    choices = f"; one of {', '.join(map(str, parameter.choices))}" if parameter.choices else ""
    return f"{parameter.name}={parameter.default}: {parameter.doc}{choices}"
