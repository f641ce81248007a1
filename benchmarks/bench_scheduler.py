"""How fast the core decides: no engine, no HTTP, no clock; only ``Coordinator.handle``.

All engines are full and ``waiting`` requests are queued. One step is: a request finishes, which
lets exactly one waiting request be placed (the decision that is timed), and one new program is
submitted, so that the queue keeps its length. Half of the programs are latency-sensitive, half
throughput; they share eight long prompt prefixes.

    python -m benchmarks.bench_scheduler [--placement paper] [--save]
"""

from __future__ import annotations

import argparse
import gc
import random
import time

from benchmarks.common import append_rows, percentile
from parrot_backend.core.commands import Command, StartRequest
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import (
    CallSpec,
    EngineInfo,
    EngineJoined,
    GraphSubmitted,
    RequestFinished,
    RequestUsage,
    SessionClosed,
    Wanted,
)
from parrot_backend.core.ids import AttemptId, EngineId, SessionId, variable_id
from parrot_backend.core.prompt import Output, Text
from parrot_backend.core.sampling import Sampling

_SLOTS_PER_ENGINE = 8
_PREFIXES = [f"You are assistant {i}. " + "Follow the house rules. " * 40 for i in range(8)]
_USAGE = RequestUsage(prompt_tokens=260, completion_tokens=64)


class SteadyState:
    """A coordinator with full engines and a queue of constant length."""

    def __init__(self, placement: str, num_engines: int, num_waiting: int, seed: int) -> None:
        # A simulated second per step keeps every request young, as in a busy but healthy server.
        config = CoreConfig(scheduler=SchedulerConfig(placement=placement, max_wait_s=1e9))
        self._rng = random.Random(seed)
        self._core = Coordinator(config)
        self._running: list[AttemptId] = []
        self._submitted = 0
        self._now_s = 0.0
        for index in range(num_engines):
            info = EngineInfo(EngineId(f"e{index}"), ("m",), 8192, 64_000, 6_144, _SLOTS_PER_ENGINE)
            self._core.handle(EngineJoined(info), self._now_s)
        while self._core.num_waiting < num_waiting:
            self.submit()

    def submit(self) -> float:
        """Submit one program of one call; return the seconds it took."""
        session = SessionId(f"s{self._submitted}")
        self._submitted += 1
        output = variable_id(session, "out")
        prompt = self._rng.choice(_PREFIXES)
        text = f"{prompt}Question {self._submitted}:"
        call = CallSpec("call", (Text(prompt), Text(text), Output(output, Sampling(max_tokens=64))))
        kind = self._rng.choice((CriteriaKind.LATENCY, CriteriaKind.THROUGHPUT))
        wanted = Wanted(output, Criteria(kind))
        return self._timed(GraphSubmitted(session, True, nodes=(call,), wanted=(wanted,)))

    def finish_one(self) -> float:
        """Let one running request finish; return the seconds until the next one was placed."""
        index = self._rng.randrange(len(self._running))
        self._running[index], attempt = self._running[-1], self._running[index]
        self._running.pop()
        before = len(self._running)
        elapsed_s = self._timed(RequestFinished(attempt, "answer", None, "stop", _USAGE))
        assert len(self._running) == before + 1, "every decision places exactly one request"
        self._core.handle(SessionClosed(SessionId(attempt.partition(".")[0])), self._now_s)
        return elapsed_s

    def _timed(self, event: GraphSubmitted | RequestFinished) -> float:
        self._now_s += 0.001
        start_s = time.perf_counter()
        commands = self._core.handle(event, self._now_s)
        elapsed_s = time.perf_counter() - start_s
        self._running += _started(commands)
        return elapsed_s


def _started(commands: list[Command]) -> list[AttemptId]:
    return [command.attempt for command in commands if isinstance(command, StartRequest)]


def measure(placement: str, num_engines: int, num_waiting: int, steps: int) -> dict[str, float]:
    """Return percentiles of decision and submit times in microseconds."""
    state = SteadyState(placement, num_engines, num_waiting, seed=0)
    decisions, submits = [], []
    gc.collect()
    for _ in range(steps):
        decisions.append(state.finish_one())
        submits.append(state.submit())
    return {
        "decision_p50_us": percentile(decisions, 0.5) * 1e6,
        "decision_p99_us": percentile(decisions, 0.99) * 1e6,
        "decisions_per_s": len(decisions) / sum(decisions),
        "submit_p50_us": percentile(submits, 0.5) * 1e6,
        "submit_p99_us": percentile(submits, 0.99) * 1e6,
    }


def main() -> None:
    """Print a table over numbers of engines and queue lengths; save it when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--placement", nargs="+", default=["paper", "least_loaded", "fcfs"])
    parser.add_argument("--engines", nargs="+", type=int, default=[1, 8, 64, 512])
    parser.add_argument("--waiting", nargs="+", type=int, default=[1_000, 10_000])
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--save", action="store_true", help="append to results/scheduler.csv")
    arguments = parser.parse_args()
    rows = []
    print("    placement engines waiting | decision us p50   p99    /s | submit us p50 / p99")
    for placement in arguments.placement:
        for engines in arguments.engines:
            for waiting in arguments.waiting:
                row = measure(placement, engines, waiting, arguments.steps)
                rows.append(
                    {"placement": placement, "engines": engines, "waiting": waiting}
                    | {key: round(value, 1) for key, value in row.items()}
                )
                print(
                    f"{placement:>13} {engines:>7} {waiting:>7} | {row['decision_p50_us']:>15.0f} "
                    f"{row['decision_p99_us']:>5.0f} {row['decisions_per_s']:>5.0f} | "
                    f"{row['submit_p50_us']:.0f} / {row['submit_p99_us']:.0f}",
                    flush=True,
                )
    if arguments.save:
        print(f"rows appended to {append_rows('scheduler', rows)}")


if __name__ == "__main__":
    main()
