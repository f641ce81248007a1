"""What the core costs per call: no engine, no HTTP, no clock; only ``Coordinator.handle``.

A program is one call. One step is: a running request finishes, its session is closed, and programs
are submitted until as many wait as before. Two thirds of the programs want latency, asked for or
not, the rest throughput; a third of the prompts begin with one of eight long prefixes.

Engines are full by ``slots`` (8 each, so each end lets one waiting request in) or by ``tokens``
(64 slots and more memory than is needed, so that what was asked to be quick waits for the latency
capacity, and each step looks at engines with free slots). With nobody waiting, engines are half
full. A decision is the event that ends a request: its accounts, and the placement of the next one.
A call is all three events. Times are of the thread, so that other work on the machine does not
count as a stall; each is the median of the repeats.

    python -m benchmarks.bench_scheduler [--placement paper] [--save]
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import time
from dataclasses import dataclass, field

from benchmarks.common import append_rows, is_compiled, percentile
from parrot_backend.core.commands import StartRequest
from parrot_backend.core.config import CoreConfig, PlacementName, SchedulerConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import (
    CallSpec,
    EngineInfo,
    EngineJoined,
    Event,
    GraphSubmitted,
    RequestFinished,
    RequestUsage,
    SessionClosed,
    Wanted,
)
from parrot_backend.core.ids import AttemptId, EngineId, SessionId, WaiterId, variable_id
from parrot_backend.core.prompt import Output, Text
from parrot_backend.core.sampling import Sampling

_SLOTS = {"slots": 8, "tokens": 64}
_PREFIXES = [f"You are assistant {i}. " + "Follow the house rules. " * 40 for i in range(8)]
_USAGE = RequestUsage(prompt_tokens=260, completion_tokens=64)
_KINDS = (CriteriaKind.LATENCY, CriteriaKind.UNSTATED, CriteriaKind.THROUGHPUT)


@dataclass(slots=True)
class Times:
    """Seconds of thread time of each event of a repeat, by kind."""

    submit: list[float] = field(default_factory=list)
    finish: list[float] = field(default_factory=list)
    close: list[float] = field(default_factory=list)


class SteadyState:
    """A coordinator whose engines and queue keep their load.

    Args:
        placement: Name of the policy.
        full_by: See ``_SLOTS``.
        num_engines: How many engines there are.
        num_waiting: So many requests wait; with 0, engines are half full.
    """

    def __init__(
        self, placement: PlacementName, full_by: str, num_engines: int, num_waiting: int
    ) -> None:
        # Microseconds pass in a step, so that every request stays young.
        scheduler = SchedulerConfig(placement=placement, max_wait_s=1e9)
        config = CoreConfig(scheduler=scheduler, max_unfinished_calls=10**9)
        slots = _SLOTS[full_by]
        self._rng = random.Random(0)
        self._core = Coordinator(config)
        self._running: list[AttemptId] = []
        self._submitted = 0
        self._now_s = 0.0
        self._num_waiting = num_waiting
        for index in range(num_engines):
            info = EngineInfo(EngineId(f"e{index}"), ("m",), 8192, 64_000, 6_144, slots)
            self._core.handle(EngineJoined(info), self._now_s)
        self._num_running = 4 * num_engines
        self._fill(Times())

    def step(self, times: Times) -> None:
        """Let one running request finish, and its place be taken."""
        index = self._rng.randrange(len(self._running))
        self._running[index], attempt = self._running[-1], self._running[index]
        self._running.pop()
        self._send(RequestFinished(attempt, "answer", None, "stop", _USAGE), times.finish)
        self._send(SessionClosed(SessionId(attempt.partition(".")[0])), times.close)
        self._fill(times)

    def _fill(self, times: Times) -> None:
        if self._num_waiting:
            while self._core.num_waiting < self._num_waiting:
                self._submit(times)
        while len(self._running) < self._num_running and not self._core.num_waiting:
            self._submit(times)

    def _submit(self, times: Times) -> None:
        rng, session = self._rng, SessionId(f"s{self._submitted}")
        self._submitted += 1
        output = variable_id(session, "out")
        prompt = rng.choice(_PREFIXES) if rng.random() < 1 / 3 else f"{self._submitted}" * 200
        text = f"Question {self._submitted}:"
        call = CallSpec("call", (Text(prompt), Text(text), Output(output, Sampling(max_tokens=64))))
        wanted = Wanted(output, Criteria(rng.choice(_KINDS)), WaiterId(session))
        event = GraphSubmitted(session, True, nodes=(call,), wanted=(wanted,), close=True)
        self._send(event, times.submit)

    def _send(self, event: Event, times: list[float]) -> None:
        self._now_s += 1e-6
        start_s = time.thread_time()
        commands = self._core.handle(event, self._now_s)
        times.append(time.thread_time() - start_s)
        self._running += [c.attempt for c in commands if isinstance(c, StartRequest)]


def measure(state: SteadyState, steps: int, repeats: int) -> dict[str, float]:
    """Return the medians of the repeats' percentiles, in microseconds."""
    rows = []
    gc.collect()
    gc.freeze()  # as a server does: what lives for long is not gone through again
    for _ in range(repeats):
        times = Times()
        for _ in range(steps):
            state.step(times)
        decision_s, submit_s = times.finish, times.submit or [math.nan]
        all_s = sum(times.submit) + sum(decision_s) + sum(times.close)
        rows.append(
            {
                "decision_p50_us": percentile(decision_s, 0.5) * 1e6,
                "decision_p99_us": percentile(decision_s, 0.99) * 1e6,
                "decisions_per_s": len(decision_s) / sum(decision_s),
                "submit_p50_us": percentile(submit_s, 0.5) * 1e6,
                "submit_p99_us": percentile(submit_s, 0.99) * 1e6,
                "call_mean_us": all_s / steps * 1e6,
            }
        )
    gc.unfreeze()
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    """Print a table over numbers of engines and queue lengths; save it when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--placement", nargs="+", default=["cost", "paper", "least_loaded", "fcfs"])
    parser.add_argument("--full-by", nargs="+", default=list(_SLOTS), choices=list(_SLOTS))
    parser.add_argument("--engines", nargs="+", type=int, default=[4, 64, 1_000])
    parser.add_argument("--waiting", nargs="+", type=int, default=[0, 1_000, 100_000])
    parser.add_argument("--steps", type=int, default=600, help="of each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="append the rows to results/")
    arguments = parser.parse_args()
    rows = []
    print("    placement full by engines waiting | decision us p50   p99    /s | submit | call")
    for placement, full_by, engines, waiting in (
        (placement, full_by, engines, waiting)
        for placement in arguments.placement
        for full_by in arguments.full_by
        for engines in arguments.engines
        for waiting in arguments.waiting
    ):
        state = SteadyState(placement, full_by, engines, waiting)
        row = measure(state, arguments.steps, arguments.repeats)
        case = {"placement": placement, "full_by": full_by, "engines": engines, "waiting": waiting}
        rows.append(case | {key: round(value, 1) for key, value in row.items()})
        print(
            f"{placement:>13} {full_by:>7} {engines:>7} {waiting:>7} | "
            f"{row['decision_p50_us']:>15.0f} {row['decision_p99_us']:>5.0f} "
            f"{row['decisions_per_s']:>5.0f} | {row['submit_p50_us']:>6.0f} | "
            f"{row['call_mean_us']:.0f}",
            flush=True,
        )
    if arguments.save:
        name = "scheduler_compiled" if is_compiled() else "scheduler_grid"
        print(f"rows appended to {append_rows(name, rows)}")


if __name__ == "__main__":
    main()
