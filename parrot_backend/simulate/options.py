"""What the user asks of ``parrot simulate``, read from words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from parrot_backend.core.config import OrderingName, PlacementName
from parrot_backend.sim.capacity import Grid, Target
from parrot_backend.sim.engine_choice import EngineChoice, calibrated, changed, published
from parrot_backend.sim.source import Source, app_source, trace_source
from parrot_backend.sim.spec import ClientKind, ClientSpec, Delay, EngineRules
from parrot_backend.sim.study import Study, core_config
from parrot_backend.sim.workloads.checks import WorkloadError
from parrot_backend.simulate.engine_words import is_mixed, mixed_engines, numbers_of
from parrot_backend.simulate.exits import UsageError
from parrot_backend.simulate.fault_words import faults_of

DEFAULT_ENGINE = "h200-llama3-8b"

_NameT = TypeVar("_NameT", bound=str)


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What the user may choose; see ``parrot simulate --help``."""

    app: str | None = None
    params: tuple[str, ...] = ()
    trace: Path | None = None
    rate: str | None = None
    engines: str = "1"
    engine: str | None = None
    calibration: Path | None = None
    kv_tokens: int | None = None
    latency_capacity_tokens: int | None = None
    fail: tuple[str, ...] = ()
    straggler: tuple[str, ...] = ()
    vllm_scheduler: str = "parrot"
    placement: str | None = None
    ordering: str | None = None
    client: str = "graph"
    round_trip_ms: float = 250.0
    as_recorded: bool = False
    jobs: int | None = None
    duration_s: float | None = None
    seed: int = 0
    tpot_ms: float | None = None
    job_p99_s: float | None = None
    out: Path | None = None
    json: bool = False


def study_of(options: SimulateOptions) -> Study:
    """Return what is to be simulated.

    Raises:
        ValueError: Something cannot be; its subclass and its text say what.
        OSError: The trace cannot be read.
    """
    if not 0 <= options.round_trip_ms < float("inf"):
        raise UsageError(f"--round-trip-ms must be at least 0, not {options.round_trip_ms}")
    round_trip_s = options.round_trip_ms / 1000
    kind: ClientKind = _name("--client", options.client, get_args(ClientKind))
    placement: PlacementName | None = None
    if options.placement is not None:
        placement = _name("--placement", options.placement, get_args(PlacementName))
    ordering: OrderingName | None = None
    if options.ordering is not None:
        ordering = _name("--ordering", options.ordering, get_args(OrderingName))
    choices = _fleet(options) or (_engine(options),)
    _check_as_recorded(options, choices)
    faults = faults_of(options.fail, options.straggler, min(grid_of(options).engines))
    return Study(
        _source(options),
        choices,
        ClientSpec(kind, Delay(round_trip_s, round_trip_s)),
        core_config(placement, ordering),
        options.seed,
        target_of(options),
        faults,
        options.as_recorded,
    )


def _check_as_recorded(options: SimulateOptions, choices: Sequence[EngineChoice]) -> None:
    if not options.as_recorded:
        return
    if not all(choice.speeds for choice in choices):
        raise UsageError("--as-recorded needs a file of parrot calibrate --recording")
    if options.rate is not None:
        raise UsageError("--as-recorded has the times of the run, and no other --rate")
    if options.straggler:
        raise UsageError("--as-recorded has the speeds of the run, and no --straggler")


def target_of(options: SimulateOptions) -> Target:
    """Return what users are to get.

    Raises:
        QuestionError: It is not above zero.
    """
    tpot_s = None if options.tpot_ms is None else options.tpot_ms / 1000
    return Target(tpot_s, options.job_p99_s)


def grid_of(options: SimulateOptions) -> Grid:
    """Return the settings that are to be simulated.

    Raises:
        QuestionError: A rate or a number of engines cannot be.
        UsageError: They are no numbers, or kinds of engines are not given as they must be.
        EngineChoiceError: There is no such kind of engine.
        CalibrationError: The file of one cannot be used.
    """
    rates: tuple[float | None, ...] = (None,)
    if options.rate is not None:
        rates = tuple(dict.fromkeys(_number("--rate", word) for word in options.rate.split(",")))
    if is_mixed(options.engines):
        return Grid(rates, (len(mixed_engines(options.engines)),))
    numbers, has_range = numbers_of(options.engines)
    return Grid(rates, tuple(numbers), searches=has_range and target_of(options).is_set)


def params_of(words: Sequence[str]) -> dict[str, str]:
    """Return parameters that were given as ``name=value``.

    Raises:
        UsageError: One was not, or one was given twice.
    """
    found = dict[str, str]()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--param must be name=value, not {word!r}")
        if name in found:
            raise UsageError(f"--param: {name} is given twice")
        found[name] = value
    return found


def _source(options: SimulateOptions) -> Source:
    if (options.app is None) == (options.trace is None):
        raise UsageError("give one of --app, --trace, --replay and --list")
    if options.trace is not None:
        if options.params:
            raise UsageError("--param is for --app: a trace has no parameters")
        return trace_source(options.trace, options.jobs, options.duration_s)
    assert options.app is not None
    given = params_of(options.params)
    try:
        return app_source(options.app, options.seed, given, options.jobs, options.duration_s)
    except WorkloadError as error:
        hint = " (parrot simulate --list shows them)"
        is_unknown = error.code in ("unknown_app", "unknown_parameter")
        raise UsageError(f"{error}{hint if is_unknown else ''}") from error


def _fleet(options: SimulateOptions) -> tuple[EngineChoice, ...]:
    """Return the engines of a mixed fleet; nothing where all are alike."""
    if not is_mixed(options.engines):
        return ()
    if options.engine is not None or options.calibration is not None:
        raise UsageError("--engines names the kinds already: leave out --engine and --calibration")
    fleet = mixed_engines(options.engines)
    kinds = {choice: _changed(choice, options) for choice in fleet}
    return tuple(kinds[choice] for choice in fleet)


def _engine(options: SimulateOptions) -> EngineChoice:
    if options.engine is not None and options.calibration is not None:
        raise UsageError("give --engine or --calibration, not both")
    if options.calibration is not None:
        choice = calibrated(options.calibration)
    else:
        choice = published(options.engine or DEFAULT_ENGINE)
    return _changed(choice, options)


def _changed(choice: EngineChoice, options: SimulateOptions) -> EngineChoice:
    rules: EngineRules = _name("--vllm-scheduler", options.vllm_scheduler, get_args(EngineRules))
    return changed(
        choice,
        kv_tokens=options.kv_tokens,
        latency_capacity_tokens=options.latency_capacity_tokens,
        rules=rules,
    )


def _name(option: str, word: str, known: tuple[_NameT, ...]) -> _NameT:
    for name in known:
        if name == word:
            return name
    raise UsageError(f"{option} must be one of {', '.join(known)}, not {word!r}")


def _number(option: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise UsageError(f"{option} must be numbers with commas between, not {word!r}") from None
