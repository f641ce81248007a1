"""The simulated engine against the request timeline of a real vLLM, request by request.

300 ShareGPT requests at 10 a second on an RTX 4090 (Llama-3.1-8B, vLLM 0.19, 2588 KV blocks of 16
tokens, steps of 2048 tokens): far more load than it can serve, so most of a request's time is
queueing for memory, and some requests are preempted. The latency model has five numbers, fitted to
the first 100 requests; the other 200 are held out. Prompts share nothing.

    python -m benchmarks.validate_engine [--fit]
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine_replay import replay
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.engine import ContinuousBatchingEngine
from parrot_backend.sim.engine_seam import SimRequest
from parrot_backend.sim.latency import LinearLatency
from parrot_backend.sim.latency_models import RTX4090_LLAMA31_8B
from parrot_backend.sim.spec import EngineSpec, LatencyModel

DATA = Path(__file__).parent / "data" / "rtx4090_llama31_8b_vllm019_requests.csv"
NUM_FITTED = 100
NUM_BLOCKS = 2588
_OBJECTIVE = Objective(ObjectiveClass.THROUGHPUT)


@dataclass(frozen=True, slots=True)
class Timed:
    """One request of the timeline; times in seconds since the first one."""

    input_tokens: int
    output_tokens: int
    arrival_s: float
    first_token_s: float
    last_token_s: float

    @property
    def ttft_s(self) -> float:
        return self.first_token_s - self.arrival_s

    @property
    def latency_s(self) -> float:
        return self.last_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of means: 0.01 is 1 % too long."""

    tpot: float
    ttft: float
    latency: float


def read_timeline(path: Path = DATA) -> list[Timed]:
    """Return the requests in order of arrival."""
    with path.open(newline="") as file:
        return [
            Timed(
                int(row["input_tokens"]),
                int(row["output_tokens"]),
                float(row["arrival_s"]),
                float(row["first_token_s"]),
                float(row["last_token_s"]),
            )
            for row in csv.DictReader(file)
        ]


def simulate(latency: LatencyModel, timeline: Sequence[Timed]) -> list[Timed]:
    """Return the same requests with the times that the simulator gives them."""
    spec = EngineSpec(
        latency=latency,
        num_blocks=NUM_BLOCKS,
        max_step_tokens=2048,
        max_requests=128,
        rules="vllm",
    )
    arrivals = []
    for number, timed in enumerate(timeline):
        chain = (PrefixBoundary(str(number).encode(), timed.input_tokens),)
        attempt = AttemptId(str(number))
        request = SimRequest(attempt, chain, timed.output_tokens, _OBJECTIVE)
        arrivals.append((timed.arrival_s, request))
    ended = replay(ContinuousBatchingEngine(spec), arrivals)
    found = [ended[AttemptId(str(number))] for number in range(len(timeline))]
    return [
        Timed(t.input_tokens, t.output_tokens, t.arrival_s, f.first_token_s, f.at_s)
        for t, f in zip(timeline, found, strict=True)
    ]


def errors(simulated: Sequence[Timed], real: Sequence[Timed]) -> Errors:
    """Compare means over requests."""

    def error(figure: Callable[[Timed], float]) -> float:
        return sum(map(figure, simulated)) / sum(map(figure, real)) - 1.0

    return Errors(
        error(lambda timed: timed.tpot_s),
        error(lambda timed: timed.ttft_s),
        error(lambda timed: timed.latency_s),
    )


def fit(timeline: Sequence[Timed], start: LinearLatency, rounds: int = 150) -> LinearLatency:
    """Fit the coefficients to the first and last tokens of the first requests (Nelder and Mead)."""

    def latency_of(logs: Sequence[float]) -> LinearLatency:
        base, prefill, decode, context, pair = map(math.exp, logs)
        return LinearLatency(StepTimeModel(base, prefill, decode, context, pair, 0, 0.0))

    def loss(logs: Sequence[float]) -> float:
        pairs = zip(simulate(latency_of(logs), timeline), timeline, strict=True)
        return sum(
            (a.first_token_s - b.first_token_s) ** 2 + (a.last_token_s - b.last_token_s) ** 2
            for a, b in list(pairs)[:NUM_FITTED]
        )

    model = start.model
    first = [
        math.log(value)
        for value in (
            model.base_s,
            model.per_prefill_token_s,
            model.per_decode_s,
            model.per_context_token_s,
            model.per_prefill_pair_s,
        )
    ]
    return latency_of(_minimise(loss, first, rounds))


def _minimise(
    loss: Callable[[Sequence[float]], float], first: list[float], rounds: int
) -> list[float]:
    corners = [first]
    corners += [[x + 0.1 * (i == j) for j, x in enumerate(first)] for i in range(len(first))]
    scored = [(loss(corner), corner) for corner in corners]

    def towards(factor: float) -> tuple[float, list[float]]:
        rest = [corner for _, corner in scored[:-1]]
        middle = [sum(column) / len(rest) for column in zip(*rest, strict=True)]
        worst = scored[-1][1]
        moved = [m + factor * (m - w) for m, w in zip(middle, worst, strict=True)]
        return loss(moved), moved

    for _ in range(rounds):
        scored.sort()
        mirrored = towards(1.0)
        if mirrored[0] < scored[0][0]:
            scored[-1] = min(mirrored, towards(2.0))
        elif mirrored[0] < scored[-2][0]:
            scored[-1] = mirrored
        else:
            inner = towards(-0.5)
            if inner[0] < scored[-1][0]:
                scored[-1] = inner
            else:
                best = scored[0][1]
                halves = [
                    [(x + y) / 2 for x, y in zip(best, corner, strict=True)]
                    for _, corner in scored[1:]
                ]
                scored = [scored[0], *((loss(half), half) for half in halves)]
    return min(scored)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="fit again, not the constant")
    options = parser.parse_args()
    timeline = read_timeline()
    latency = RTX4090_LLAMA31_8B.latency
    if options.fit:
        assert isinstance(latency, LinearLatency)
        latency = fit(timeline, latency)
        print(f"fitted: {latency.model}")
    simulated = simulate(latency, timeline)
    print(f"{'requests':<22}{'TPOT':>9}{'TTFT':>9}{'latency':>9}   (errors of means)")
    parts = {
        "all 300": slice(None),
        f"fitted: first {NUM_FITTED}": slice(NUM_FITTED),
        f"held out: other {len(timeline) - NUM_FITTED}": slice(NUM_FITTED, None),
    }
    for name, part in parts.items():
        found = errors(simulated[part], timeline[part])
        print(f"{name:<22}{found.tpot:>+9.2%}{found.ttft:>+9.2%}{found.latency:>+9.2%}")
    pair = (max(t.last_token_s for t in run) for run in (simulated, timeline))
    print("last token: simulated {:.1f} s, real {:.1f} s".format(*pair))


if __name__ == "__main__":
    main()
