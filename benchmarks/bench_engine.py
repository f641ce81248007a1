"""How fast one simulated engine is: CPU time per call of 1,000 prompt and 200 output tokens.

The load is such that about 32 requests run together; prompts share 500 tokens with others. The
baseline is the same engine that makes each step of decoding by itself, with the same results.

    python -m benchmarks.bench_engine [--save]
"""

from __future__ import annotations

import argparse
import random
import time
from unittest.mock import patch

from benchmarks.common import append_rows
from benchmarks.engine_replay import replay
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.sim.engine import ContinuousBatchingEngine
from parrot_backend.sim.engine_seam import Finished, SimRequest
from parrot_backend.sim.engine_vllm import VllmRules
from parrot_backend.sim.latency_models import A100_7B
from parrot_backend.sim.spec import EngineRules, EngineSpec

NUM_CALLS = 3000
RATE_PER_S = 4.8
_OBJECTIVE = Objective(ObjectiveClass.LATENCY)


def calls(number: int) -> list[tuple[float, SimRequest]]:
    """Return requests and when they come."""
    source, time_s, made = random.Random(0), 0.0, []
    for i in range(number):
        time_s += source.expovariate(RATE_PER_S)
        prefix = PrefixBoundary(b"system%d" % (i % 8), 500)
        chain = (prefix, PrefixBoundary(b"user%d" % i, 1000))
        made.append((time_s, SimRequest(AttemptId(str(i)), chain, 200, _OBJECTIVE)))
    return made


def run(
    rules: EngineRules, arrivals: list[tuple[float, SimRequest]]
) -> tuple[float, dict[AttemptId, Finished]]:
    """Return the CPU time per call in microseconds, and how all ended."""
    spec = EngineSpec(A100_7B.latency, A100_7B.kv_tokens // 16, rules=rules)
    engine = ContinuousBatchingEngine(spec)
    begun_s = time.process_time()
    ended = replay(engine, arrivals)
    return (time.process_time() - begun_s) / len(arrivals) * 1e6, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="append the rows to the results")
    options = parser.parse_args()
    arrivals = calls(NUM_CALLS)
    plan = VllmRules.plan
    with patch.object(VllmRules, "plan", lambda rules, now_s: min(1, plan(rules, now_s))):
        slow_us, slow = run("vllm", arrivals[:300])
    fast_us, fast = run("vllm", arrivals[:300])
    assert all(abs(fast[name].at_s - slow[name].at_s) < 1e-6 for name in slow)
    print(f"each step by itself {slow_us:.0f} us a call, in closed form {fast_us:.0f} us")
    rows = []
    for rules in ("vllm", "parrot"):
        times = sorted(run(rules, arrivals)[0] for _ in range(3))
        ended = run(rules, arrivals)[1]
        busy = sum(e.at_s - e.started_s for e in ended.values()) / arrivals[-1][0]
        print(
            f"{rules:<7} {times[1]:.0f} us a call ({times[0]:.0f}-{times[2]:.0f}), "
            f"{busy:.0f} requests run on average"
        )
        rows.append(
            {
                "rules": rules,
                "calls": NUM_CALLS,
                "us_per_call": round(times[1], 1),
                "us_per_call_best": round(times[0], 1),
                "us_per_call_step_by_step": round(slow_us, 1),
                "mean_batch": round(busy, 1),
            }
        )
    if options.save:
        append_rows("engine", rows)


if __name__ == "__main__":
    main()
