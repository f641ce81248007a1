"""``parrot trace``: what is in a trace, and applications written as traces."""

from __future__ import annotations

import math
from pathlib import Path

import typer

from parrot_backend.sim.source import app_source, trace_source
from parrot_backend.sim.survey import survey_of
from parrot_backend.sim.traces import write_programs
from parrot_backend.simulate.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from parrot_backend.simulate.options import params_of


def print_info(path: Path) -> int:
    """Print what is in a trace, and return the exit status: failed if no line could be read.

    Raises:
        OSError: The file cannot be read.
    """
    source = trace_source(path)
    seen = survey_of(source.arrivals(None))
    typer.echo(str(source.report))
    if not seen.num_jobs or not seen.num_calls:
        return EXIT_FAILED
    rate = seen.rate_per_s
    whose = f" of {seen.num_tenants} tenants" if seen.num_tenants > 1 else ""
    told = "all at once" if math.isnan(rate) else f"{rate:.3g} jobs/s"
    typer.echo(
        f"{seen.num_jobs} jobs{whose} from {seen.first_s:g} s to {seen.last_s:g} s: {told}; "
        f"{seen.num_calls} calls"
    )
    typer.echo(
        f"{seen.prompt_tokens} prompt tokens ({seen.prompt_tokens / seen.num_calls:.0f} a call), "
        f"{seen.output_tokens} output tokens ({seen.output_tokens / seen.num_calls:.0f} a call)"
    )
    longest = seen.longest
    if longest is not None:
        typer.echo(
            f"longest call: {longest.call!r} of job {longest.job}, {longest.prompt_tokens} tokens "
            f"of prompt and {longest.output_tokens} of output"
        )
    return EXIT_OK


def export(
    out: Path, app: str, num_jobs: int, params: tuple[str, ...], rate: float | None, seed: int
) -> int:
    """Write jobs of an application as a trace in our own form, and return the exit status.

    An interrupt leaves whole lines.

    Raises:
        WorkloadError: There is no such application or parameter, or a value is wrong.
        OSError: The file is there already, or cannot be written.
    """
    arrivals = app_source(app, seed, params_of(params), num_jobs).arrivals(rate)
    with out.open("xb"):
        pass
    try:
        num_written = write_programs(out, arrivals)
    except KeyboardInterrupt:
        typer.echo(f"parrot: interrupted; {out} ends with the last whole job", err=True)
        return EXIT_INTERRUPTED
    typer.echo(f"{num_written} jobs in {out}")
    return EXIT_OK
