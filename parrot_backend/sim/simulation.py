"""A whole simulation: clients, the unchanged core, engines and faults on one simulated clock.

It is a function of its arguments: the same ones give the same records, in any process.
"""

from __future__ import annotations

import gc
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from parrot_backend.core.config import CoreConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.sim.calls_client import CallsClient
from parrot_backend.sim.client import SimClient
from parrot_backend.sim.engine import ContinuousBatchingEngine
from parrot_backend.sim.event_loop import EventLoop
from parrot_backend.sim.fleet import EngineFactory
from parrot_backend.sim.graph_client import GraphClient
from parrot_backend.sim.jobs import JobBook
from parrot_backend.sim.program import Arrival, Workload
from parrot_backend.sim.records import RecordSink
from parrot_backend.sim.shell import Observer, SimShell
from parrot_backend.sim.spec import ClientSpec, EngineSpec, Fault

#: Why a simulation ended: all jobs had, its time was over, or somebody stopped it.
EndReason = Literal["done", "time", "interrupted"]

#: Objects made between two looks at the young ones, and such looks between two at older ones.
_GC_THRESHOLDS = (1_000_000, 10, 10)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a simulation ended.

    Attributes:
        reason: Why.
        now_s: When, on its clock.
        num_jobs: Jobs that came.
        num_unfinished: Those of them that had not ended; their records say so.
        busy_s: For each engine, how long it had something to run.
    """

    reason: EndReason
    now_s: float
    num_jobs: int
    num_unfinished: int
    busy_s: tuple[float, ...]


class Simulation:
    """Runs once.

    Args:
        core_config: Settings of the core. Lengths in texts are lengths in tokens here, so its
            ``tokens_per_char`` must be 1.
        engines: One specification for each engine.
        client: How clients reach the server.
        workload: Programs in order of time; may be endless if ``until_s`` is given.
        seed: Of all that is random in the simulation itself.
        sink: Takes the records as calls and jobs end.
        faults: What happens to engines. A slowdown by infinity hangs one until the core gives it
            up; one that was given up comes back when a fault says so, like one that was lost.
        until_s: When to stop; None when all jobs have ended.
        create_engine: Makes engines; those of a test may be simpler.
        observer: Sees each event of the core with its commands.

    Raises:
        ValueError: Something of this cannot be simulated.
    """

    def __init__(
        self,
        core_config: CoreConfig,
        engines: Sequence[EngineSpec],
        client: ClientSpec,
        workload: Workload,
        seed: int,
        sink: RecordSink,
        faults: Sequence[Fault] = (),
        until_s: float | None = None,
        *,
        create_engine: EngineFactory = ContinuousBatchingEngine,
        observer: Observer | None = None,
    ) -> None:
        _check(core_config, engines, client, faults, until_s)
        self._loop = EventLoop()
        self._workload = workload
        self._faults = faults
        self._num_engines = len(engines)
        self._until_s = math.inf if until_s is None else until_s
        self._has_more = True
        self._book = JobBook(sink, self._stop_if_done)
        coordinator = Coordinator(core_config)
        self._shell = SimShell(coordinator, self._loop, engines, create_engine, sink, observer)
        kind = GraphClient if client.kind == "graph" else CallsClient
        self._client: SimClient = kind(self._shell, self._loop, client, seed, self._book)

    def run(self) -> Ending:
        """Run to the end; an interrupt (Ctrl-C) ends it early, with the records so far.

        Cycles are looked for more seldom meanwhile, in the whole process.

        Raises:
            ValueError: The workload is not in order of time.
        """
        reason: EndReason = "interrupted"
        try:
            with _seldom_collecting(), _interruptible(self._loop) as was_interrupted:
                self._begin()
                if not was_interrupted():
                    self._loop.run(self._until_s)
            if not (self._has_more or len(self._book)):
                reason = "done"
            elif not was_interrupted():
                reason = "time"
        except KeyboardInterrupt:
            pass
        num_unfinished = len(self._book)
        self._book.end_all(self._loop.now_s, f"unfinished: the simulation ended ({reason})")
        if reason == "time" and math.isinf(self._until_s):
            raise RuntimeError(f"{num_unfinished} jobs wait for what will never come")
        return Ending(
            reason,
            self._loop.now_s,
            self._book.num_arrived,
            num_unfinished,
            self._shell.fleet.busy_s(),
        )

    def _begin(self) -> None:
        for position in range(self._num_engines):
            self._shell.fleet.join(position)
        for fault in self._faults:
            self._loop.at(fault.time_s, self._shell.fleet.suffer, fault)
        self._loop.feed(self._workload, _time_of, self._client.arrive, self._note_end)

    def _note_end(self) -> None:
        self._has_more = False
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        # What else would happen concerns nobody: timers, faults of idle engines.
        if not self._has_more and not len(self._book):
            self._loop.stop()


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    # What is live is looked through again and again, and cycles are hardly ever made: with 64
    # engines a million objects live, which takes a tenth of the time, and none is freed by it.
    before = gc.get_threshold()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _interruptible(loop: EventLoop) -> Iterator[Callable[[], bool]]:
    """Let the first interrupt wait for the event in progress, so that no record is torn by it.

    The second one interrupts at once; so does the first where this is not the main thread, or where
    somebody handles interrupts in another way.
    """
    interrupts: list[int] = []

    def stop(number: int, frame: object) -> None:
        interrupts.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        loop.stop()

    is_main = threading.current_thread() is threading.main_thread()
    handles = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handles:
        signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: bool(interrupts)
    finally:
        if handles:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _time_of(arrival: Arrival) -> float:
    return arrival.time_s


def _check(
    core_config: CoreConfig,
    engines: Sequence[EngineSpec],
    client: ClientSpec,
    faults: Sequence[Fault],
    until_s: float | None,
) -> None:
    if core_config.tokens_per_char != 1.0:
        raise ValueError("one character is one token here: set tokens_per_char=1.0")
    if not engines:
        raise ValueError("there are no engines")
    for number, spec in enumerate(engines):
        counts = (spec.num_blocks, spec.block_tokens, spec.max_step_tokens, spec.max_requests)
        if min(*counts, spec.max_model_len) < 1:
            raise ValueError(f"engine {number} has no blocks, tokens or requests: {spec}")
    if not 0.0 <= client.overhead_s < math.inf:
        raise ValueError(f"an overhead of {client.overhead_s} s cannot be")
    for fault in faults:
        if not 0 <= fault.engine < len(engines) or not fault.time_s >= 0.0:
            raise ValueError(f"there is no such engine or time: {fault}")
        if fault.kind == "slow" and not fault.factor > 0.0:
            raise ValueError(f"no engine takes so many times as long: {fault}")
    if until_s is not None and not until_s >= 0.0:
        raise ValueError(f"a simulation cannot end at {until_s} s")
