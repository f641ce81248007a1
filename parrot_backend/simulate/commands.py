"""The simulator's commands: flags in, one function call out. Heavy imports wait until needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

_JOBS = "Jobs"
_ENGINES = "Engines"
_POLICY = "Scheduling and clients"
_TARGET = "Target"


def _option(text: str, panel: str | None = None, *names: str, default: str | bool = False) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=default)


App = Annotated[str | None, _option("Application; --list shows them.", _JOBS)]
Params = Annotated[
    list[str] | None,
    _option("Parameter of the application, name=value; again for more.", _JOBS, "--param"),
]
TraceFile = Annotated[
    Path | None, _option("Trace instead of an application (docs/workloads.md).", _JOBS)
]
Rate = Annotated[
    str | None,
    _option(
        "Jobs per second; several with commas. A trace's times are stretched.",
        _JOBS,
        default="the workload's",
    ),
]
Jobs = Annotated[int | None, _option("Jobs in all.", _JOBS, default="the workload's")]
DurationS = Annotated[
    float | None, _option("Jobs begin for so long; all are simulated to their end.", _JOBS)
]
Seed = Annotated[int, _option("Of everything random.", _JOBS, default=True)]
Engines = Annotated[
    str,
    _option(
        "Numbers of engines: 4, or 1,2,4, or 1-16 to search by the target; or kinds, "
        "6xa100-7b,2xa6000-7b.",
        _ENGINES,
        default=True,
    ),
]
Engine = Annotated[
    str | None, _option("Published engine; --list shows them.", _ENGINES, default="h200-llama3-8b")
]
CalibrationFile = Annotated[
    Path | None,
    _option(
        "Engine by what a live one learnt: a file of parrot calibrate.", _ENGINES, "--calibration"
    ),
]
KvTokens = Annotated[int | None, _option("KV tokens of an engine.", _ENGINES, default="its own")]
LatencyCapacity = Annotated[
    int | None,
    _option(
        "KV tokens that run together while latency-sensitive calls run.",
        _ENGINES,
        default="its own",
    ),
]
Fail = Annotated[
    list[str] | None,
    _option(
        "An engine is lost, and back after DOWN_S: TIME:ENGINE[:DOWN_S], engines from 0; again "
        "for more.",
        _ENGINES,
        "--fail",
    ),
]
Straggler = Annotated[
    list[str] | None,
    _option(
        "An engine is slower: ENGINE:FACTOR[:FROM_S-TO_S]; again for more.", _ENGINES, "--straggler"
    ),
]
VllmScheduler = Annotated[
    str,
    _option("Rules inside the engine: parrot (with its plug-in) or vllm.", _ENGINES, default=True),
]
Placement = Annotated[
    str | None, _option("As in parrot serve (docs/scheduling.md).", _POLICY, default="the server's")
]
Ordering = Annotated[
    str | None, _option("As in parrot serve.", _POLICY, default="the placement's own")
]
Client = Annotated[
    str,
    _option("graph: sends whole programs; calls: one call after the other.", _POLICY, default=True),
]
RoundTripMs = Annotated[
    float, _option("Network delay of a request and its reply.", _POLICY, default=True)
]
AsRecorded = Annotated[
    bool,
    typer.Option(
        "--as-recorded",
        help="Engines are as fast at each time as in the recorded run of --calibration.",
        rich_help_panel=_ENGINES,
    ),
]
TpotMs = Annotated[
    float | None, _option("99 % of calls take no longer per token after the first.", _TARGET)
]
JobP99S = Annotated[float | None, _option("99 % of jobs take no longer.", _TARGET)]
Out = Annotated[
    Path | None, typer.Option(help="Folder for results, records and the plot.", file_okay=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
List = Annotated[bool, typer.Option("--list", help="Show applications and engines.")]
Replay = Annotated[
    Path | None,
    typer.Option(help="Replay a recording of parrot serve --record, and compare the decisions."),
]

Url = Annotated[
    str | None,
    _option("Server whose engines are asked.", default="http://127.0.0.1:8642"),
]
Recorded = Annotated[
    Path | None,
    typer.Option(
        "--recording", help="Instead: what engines told in a recording of parrot serve --record."
    ),
]
CalibrationOut = Annotated[
    Path, typer.Option(help="Folder for the files, one for each engine.", file_okay=False)
]
TracePath = Annotated[Path, typer.Argument(help="Trace, in Mooncake's form or ours; .gz too.")]
TraceOut = Annotated[Path, typer.Argument(help="New file; compressed if it ends in .gz.")]
Recording = Annotated[Path, typer.Argument(help="Recording of parrot serve --record.")]
ClientsRoundTripMs = Annotated[
    float,
    typer.Option(min=0, help="Of the recorded clients; it is taken out of their think times."),
]
RateOfTrace = Annotated[float | None, _option("Jobs per second.", None, default="the workload's")]

trace_app = typer.Typer(help="Look at traces, and make them.", no_args_is_help=True)


def _answer(given: dict[str, Any]) -> int:
    """Do what ``parrot simulate`` was asked for, by the names of its parameters."""
    from rich.console import Console

    from parrot_backend.simulate.exits import UsageError, told_errors
    from parrot_backend.simulate.options import SimulateOptions

    console = Console()
    lists, replay = given.pop("list_all"), given.pop("replay")
    given["params"] = given.pop("param")
    for several in ("params", "fail", "straggler"):
        given[several] = tuple(given[several] or ())
    options = SimulateOptions(**given)
    with told_errors():
        asked = (lists, replay is not None, options.app is not None, options.trace is not None)
        if sum(asked) > 1:
            raise UsageError("give one of --app, --trace, --replay and --list")
        if lists:
            from parrot_backend.simulate.tables import print_list

            print_list(console)
            return 0
        if replay is not None:
            from parrot_backend.simulate.replaying import replay_file

            return replay_file(replay, console)
        from parrot_backend.simulate.run import simulate as run

        return run(options, console, Console(stderr=True))
    raise AssertionError("errors that are told end the command")


def simulate(
    app: App = None,
    param: Params = None,
    trace: TraceFile = None,
    rate: Rate = None,
    jobs: Jobs = None,
    duration_s: DurationS = None,
    seed: Seed = 0,
    engines: Engines = "1",
    engine: Engine = None,
    calibration: CalibrationFile = None,
    kv_tokens: KvTokens = None,
    latency_capacity_tokens: LatencyCapacity = None,
    fail: Fail = None,
    straggler: Straggler = None,
    vllm_scheduler: VllmScheduler = "parrot",
    placement: Placement = None,
    ordering: Ordering = None,
    client: Client = "graph",
    round_trip_ms: RoundTripMs = 250,
    as_recorded: AsRecorded = False,
    tpot_ms: TpotMs = None,
    job_p99_s: JobP99S = None,
    out: Out = None,
    json: Json = False,
    replay: Replay = None,
    list_all: List = False,
) -> None:
    """Simulate engines under load: how many are needed, and what users get.

    The scheduler is the one that serves. Times of engines are published, or measured by a live one.
    """
    raise typer.Exit(_answer(dict(locals())))


def calibrate(
    url: Url = None, recording: Recorded = None, out: CalibrationOut = Path("calibration")
) -> None:
    """Write what engines have learnt of their times, for parrot simulate --calibration.

    A live server tells of its latest steps; a recording of all in the mean. A server with keys
    wants one: the variable PARROT_API_KEY holds it.
    """
    from parrot_backend.simulate.calibrating import calibrate_from, calibrate_recorded
    from parrot_backend.simulate.exits import UsageError, told_errors

    with told_errors():
        if recording is None:
            api_key = os.environ.get("PARROT_API_KEY") or None
            raise typer.Exit(calibrate_from(url or "http://127.0.0.1:8642", out, api_key=api_key))
        if url is not None:
            raise UsageError("give one of --url and --recording")
        raise typer.Exit(calibrate_recorded(recording, out))


@trace_app.command("info")
def trace_info(file: TracePath) -> None:
    """Tell what is in a trace: jobs, rate, lengths, and lines that cannot be read."""
    from parrot_backend.simulate.exits import told_errors
    from parrot_backend.simulate.tracing import print_info

    with told_errors():
        raise typer.Exit(print_info(file))


@trace_app.command("convert")
def trace_convert(
    recording: Recording, out: TraceOut, round_trip_ms: ClientsRoundTripMs = 0
) -> None:
    """Write the programs of a recording as a trace: lengths and times, none of the texts."""
    from parrot_backend.simulate.converting import convert
    from parrot_backend.simulate.exits import told_errors

    with told_errors():
        raise typer.Exit(convert(recording, out, round_trip_ms / 1000))


@trace_app.command("export")
def trace_export(
    out: TraceOut,
    app: Annotated[str, typer.Option(help="Application; parrot simulate --list shows them.")],
    jobs: Annotated[int, typer.Option(help="Jobs in all.")],
    param: Params = None,
    rate: RateOfTrace = None,
    seed: Seed = 0,
) -> None:
    """Write the jobs of an application as a trace, one job a line."""
    from parrot_backend.simulate.exits import told_errors
    from parrot_backend.simulate.tracing import export

    with told_errors():
        raise typer.Exit(export(out, app, jobs, tuple(param or ()), rate, seed))
