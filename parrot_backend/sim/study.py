"""One question to the simulator: jobs, engines, clients and policy; each setting is one run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from parrot_backend.core.config import (
    CoreConfig,
    EarlyFillConfig,
    OrderingName,
    PlacementName,
    SchedulerConfig,
)
from parrot_backend.sim.capacity import Point, Row, Target
from parrot_backend.sim.engine import ContinuousBatchingEngine
from parrot_backend.sim.engine_choice import EngineChoice
from parrot_backend.sim.record_files import RecordFiles
from parrot_backend.sim.records import CallRecord, JobRecord, RecordSink
from parrot_backend.sim.simulation import Simulation
from parrot_backend.sim.source import Source
from parrot_backend.sim.spec import ClientSpec, EngineSpec, Fault
from parrot_backend.sim.summary import Summary
from parrot_backend.sim.survey import CallLength, Survey, limit_of, mean_bound_s, survey_of

#: Told of each job that has ended.
Progress = Callable[[], None]


class StudyError(ValueError):
    """What was asked for cannot run on these engines; the text says why."""


@dataclass(frozen=True, slots=True)
class Study:
    """What is simulated.

    Attributes:
        source: The jobs.
        engines: One, which all engines are like; or several, which are just these: a mixed fleet.
        client: How clients reach the server.
        core: Settings of the coordinator.
        seed: Of what is random in clients.
        target: What users are to get.
        faults: What happens to engines.
        as_recorded: Engines are as fast at each time as the engine was in the run that it was
            measured in, not as in its mean.
    """

    source: Source
    engines: tuple[EngineChoice, ...]
    client: ClientSpec
    core: CoreConfig
    seed: int
    target: Target
    faults: tuple[Fault, ...] = ()
    as_recorded: bool = False

    @property
    def roomiest(self) -> EngineChoice:
        """The engine that takes the longest calls; all, where they are alike."""
        return max(self.engines, key=lambda choice: limit_of(choice.spec))

    @property
    def kinds(self) -> dict[EngineChoice, int]:
        """How many there are of each kind, in order; of engines that are alike, one is told."""
        return dict(Counter(self.engines))

    @property
    def engines_name(self) -> str:
        """Return the kinds of engines in words; the number of each where they are mixed."""
        kinds = self.kinds.items()
        if len(kinds) == 1:
            return self.engines[0].name
        return " + ".join(f"{number} {choice.name}" for choice, number in kinds)

    def specs(self, num_engines: int) -> list[EngineSpec]:
        """Return what is simulated, one for each engine.

        Raises:
            StudyError: A mixed fleet has another number of engines.
        """
        given = [choice.spec for choice in self.engines]
        if len(given) == 1:
            return given * num_engines
        if len(given) != num_engines:
            raise StudyError(f"these are {len(given)} engines, not {num_engines}")
        return given

    def survey(self, rate_per_s: float | None) -> Survey:
        """Look at all jobs before anything is simulated.

        Raises:
            StudyError: There are none, or none of them can run on such engines.
            WorkloadError: The jobs cannot be made so.
            OSError: The trace cannot be read.
        """
        seen = survey_of(self.source.arrivals(rate_per_s), limit_of(self.roomiest.spec))
        if not seen.num_jobs:
            report = self.source.report
            raise StudyError(f"{self.source.name} has no jobs" + (f"; {report}" if report else ""))
        if seen.num_too_long == seen.num_jobs and seen.too_long is not None:
            raise StudyError(f"no job can run: {self.too_long(seen.too_long)}")
        return seen

    def too_long(self, length: CallLength) -> str:
        """Return why a call cannot run on these engines."""
        engine, spec = self.roomiest, self.roomiest.spec
        return (
            f"call {length.call!r} of job {length.job} has {length.prompt_tokens} tokens of prompt "
            f"and {length.output_tokens} of output, and {engine.name} takes "
            f"{limit_of(spec)} together (its model {spec.max_model_len}, its KV memory "
            f"{spec.num_blocks * spec.block_tokens})"
        )

    def simulate(
        self,
        point: Point,
        sample: Survey,
        files: RecordFiles | None = None,
        progress: Progress | None = None,
    ) -> Row:
        """Simulate one setting; an interrupt (Ctrl-C) ends it with what came until then.

        Args:
            point: The setting.
            sample: Of these jobs, for the bound.
            files: Take the records, too.
            progress: Told of each job that has ended.
        """
        specs = self.specs(point.num_engines)
        # Of engines that are not alike, each may be the fastest at something: no bound is known.
        is_alike = len(set(specs)) == 1
        bound_s = math.nan
        if is_alike:
            bound_s = mean_bound_s(sample.sample, specs[0], self.client, point.num_engines)
        summary = Summary()
        sinks: list[RecordSink] = [summary] if files is None else [summary, files.sink(point)]
        ending = Simulation(
            self.core,
            specs,
            self.client,
            self.source.arrivals(point.rate_per_s),
            self.seed,
            _Tee(sinks, progress),
            (*self.faults, *self._changes_of_speed(point.num_engines)),
            create_engine=ContinuousBatchingEngine,
        ).run()
        result = summary.result(ending)
        return Row(point, result, ending.reason, bound_s, self.target.misses(result))

    def _changes_of_speed(self, num_engines: int) -> list[Fault]:
        if not self.as_recorded:
            return []
        choices = self.engines * num_engines if len(self.engines) == 1 else self.engines
        changes = [
            Fault(time_s, position, "slow", factor)
            for position, choice in enumerate(choices)
            for time_s, factor in choice.speeds
        ]
        # One that comes back would be as fast as new until the next change.
        for fault in self.faults:
            if fault.kind == "joins":
                before = [f for t, f in choices[fault.engine].speeds if t < fault.time_s]
                changes += [replace(fault, kind="slow", factor=f) for f in before[-1:]]
        return changes


def core_config(
    placement: PlacementName | None = None, ordering: OrderingName | None = None
) -> CoreConfig:
    """Return a server's settings with a placement and an order; None for the server's own."""
    default = SchedulerConfig()
    scheduler = SchedulerConfig(placement=placement or default.placement, ordering=ordering)
    return CoreConfig(
        scheduler=scheduler, early_fill=EarlyFillConfig(is_on=False), tokens_per_char=1.0
    )


class _Tee(RecordSink):
    """Hands records on."""

    def __init__(self, sinks: list[RecordSink], progress: Progress | None) -> None:
        self._sinks = sinks
        self._progress = progress

    def call(self, record: CallRecord) -> None:
        """Hand on a call."""
        for sink in self._sinks:
            sink.call(record)

    def job(self, record: JobRecord) -> None:
        """Hand on a job."""
        for sink in self._sinks:
            sink.job(record)
        if self._progress is not None:
            self._progress()
