"""The systems that are compared: engines, the core's settings, and how clients reach them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from parrot_backend.core.config import (
    CoreConfig,
    EarlyFillConfig,
    OptimiserConfig,
    OrderingName,
    PlacementName,
    SchedulerConfig,
)
from parrot_backend.core.prefix import PrefixIndexConfig
from parrot_backend.sim.program import Arrival
from parrot_backend.sim.records import CallRecord, JobRecord, RecordSink
from parrot_backend.sim.simulation import Ending, Simulation
from parrot_backend.sim.spec import ClientSpec, Delay, EngineSpec

#: Programs run on beside the engines: the round trip that the paper emulates (section 8.1).
PAPER_ROUND_TRIP = Delay(0.2, 0.3)
NO_ROUND_TRIP = Delay(0.0, 0.0)

#: Nothing ages: the paper's queues have no such rule, and its loads last for minutes.
_MAX_WAIT_S = 1e9


@dataclass(frozen=True, slots=True)
class System:
    """What serves a workload.

    Attributes:
        engines: Its engines.
        client: How clients reach it.
        core: Settings of the coordinator, which stands in for each system's router.
    """

    engines: tuple[EngineSpec, ...]
    client: ClientSpec
    core: CoreConfig


@dataclass(slots=True)
class Outcome(RecordSink):
    """All records of one simulation."""

    calls: list[CallRecord] = field(default_factory=list)
    jobs: list[JobRecord] = field(default_factory=list)
    ending: Ending | None = None

    def call(self, record: CallRecord) -> None:
        """Keep it."""
        self.calls.append(record)

    def job(self, record: JobRecord) -> None:
        """Keep it."""
        self.jobs.append(record)

    def jobs_of(self, app: str) -> list[JobRecord]:
        """Return the jobs of an application that got what they wanted."""
        return [job for job in self.jobs if job.app == app and not job.failed]


def core_config(
    placement: PlacementName = "cost", ordering: OrderingName | None = None
) -> CoreConfig:
    """Return settings as a server has them by default, but for policy and order."""
    scheduler = SchedulerConfig(placement=placement, ordering=ordering)
    return CoreConfig(
        scheduler=scheduler, early_fill=EarlyFillConfig(is_on=False), tokens_per_char=1.0
    )


def paper_config() -> CoreConfig:
    """Return settings of the paper: Algorithm 1 and its order, and nothing that we added."""
    scheduler = SchedulerConfig("paper", "topological", max_wait_s=_MAX_WAIT_S)
    return replace(
        core_config(),
        scheduler=scheduler,
        retain_prefixes=False,
        optimiser=OptimiserConfig(prunes=False, merges=False),
    )


def unaged(config: CoreConfig) -> CoreConfig:
    """Return settings in which nothing is served for its age."""
    return replace(config, scheduler=replace(config.scheduler, max_wait_s=_MAX_WAIT_S))


def unshared(config: CoreConfig) -> CoreConfig:
    """Return settings for engines that share nothing: nobody looks for prefixes."""
    return replace(config, prefix_index=PrefixIndexConfig(min_tokens=10**9))


def graph_client(round_trip: Delay = PAPER_ROUND_TRIP) -> ClientSpec:
    """Return a client that sends whole programs."""
    return ClientSpec("graph", round_trip)


def calls_client(round_trip: Delay = PAPER_ROUND_TRIP, overhead_s: float = 0.0) -> ClientSpec:
    """Return a client that sends one call after the other and waits in between."""
    return ClientSpec("calls", round_trip, overhead_s)


def serve(
    system: System,
    workload: Iterable[Arrival],
    seed: int,
    *,
    until_s: float | None = None,
    enough: Callable[[Outcome], bool] | None = None,
) -> Outcome:
    """Simulate a workload on a system.

    Args:
        system: What serves it.
        workload: Programs in order of time.
        seed: Of all that is random in clients.
        until_s: When to stop.
        enough: Looked at after each job; when it is true, the rest is not simulated.
    """
    outcome = Outcome() if enough is None else _Watched(enough=enough)
    simulation = Simulation(
        system.core,
        system.engines,
        system.client,
        workload,
        seed,
        outcome,
        until_s=until_s,
    )
    outcome.ending = simulation.run()
    return outcome


@dataclass(slots=True)
class _Watched(Outcome):
    """Ends its simulation early."""

    enough: Callable[[Outcome], bool] = field(kw_only=True)
    is_over: bool = False

    def job(self, record: JobRecord) -> None:
        """Keep it, and stop when that was enough."""
        if self.is_over:
            return
        self.jobs.append(record)
        if self.enough(self):
            self.is_over = True
            raise KeyboardInterrupt
