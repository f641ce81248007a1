"""How fast the whole simulator is: clients, the core and 64 engines, on one core of this machine.

Claim: a million jobs of one call, with 1,000 prompt and 200 output tokens of which 500 are shared
with others, take less than 5 minutes: 300 us of processor time a call. The load is what 64 engines
with Llama 7B on an A100 can take, and nothing depends on how many jobs there are but the sums, so
fewer are measured. (``paper`` lets engines do less than that, so its queue grows, and is full after
some 120,000.) The baseline of a row, with ``--baseline``, is the same run with Python's own
thresholds of garbage collection.

    python -m benchmarks.bench_simulator [--calls 50000] [--rules vllm parrot]
        [--placements cost paper least_loaded] [--baseline] [--save]
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import time
from collections.abc import Iterator
from unittest.mock import patch

from benchmarks.common import Cell, append_rows, is_compiled
from parrot_backend.core.config import CoreConfig, PlacementName, SchedulerConfig
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.sim import simulation
from parrot_backend.sim.latency_models import A100_7B
from parrot_backend.sim.program import Arrival, Constant, Program, ProgramCall
from parrot_backend.sim.records import CallRecord, JobRecord, RecordSink
from parrot_backend.sim.spec import ClientSpec, Delay, EngineRules, EngineSpec

NUM_ENGINES = 64
NUM_SYSTEMS = 64
#: Four calls a second and engine keep some 25 requests on each.
RATE_PER_S = 4.0 * NUM_ENGINES
GOAL_S, GOAL_CALLS = 300.0, 1_000_000

_WANTED = (("answer", Criteria(CriteriaKind.LATENCY)),)


class Counter(RecordSink):
    """Counts what came to an end, and keeps nothing else."""

    def __init__(self) -> None:
        self.num_jobs = self.num_failed = self.cached_tokens = 0

    def call(self, record: CallRecord) -> None:
        """Count what it did not have to compute."""
        self.cached_tokens += record.cached_tokens

    def job(self, record: JobRecord) -> None:
        """Count it."""
        self.num_jobs += 1
        self.num_failed += bool(record.failed)


def workload(num_jobs: int) -> Iterator[Arrival]:
    """Yield jobs of one call: a system prompt that others have, too, and a question of its own."""
    source, time_s = random.Random(0), 0.0
    for number in range(num_jobs):
        time_s += source.expovariate(RATE_PER_S)
        system = Constant(f"system{source.randrange(NUM_SYSTEMS)}", 500)
        call = ProgramCall(
            "answer", (system, Constant(f"question{number}", 500)), 200, stage="answer"
        )
        yield Arrival(time_s, Program("app", (call,), _WANTED))


def measure(rules: EngineRules, placement: PlacementName, num_calls: int) -> dict[str, Cell]:
    """Simulate; return what it took, and what the load was."""
    spec = EngineSpec(A100_7B.latency, A100_7B.kv_tokens // 16, rules=rules)
    config = CoreConfig(scheduler=SchedulerConfig(placement=placement), tokens_per_char=1.0)
    sink = Counter()
    simulated = simulation.Simulation(
        config,
        [spec] * NUM_ENGINES,
        ClientSpec("graph", Delay(0.0, 0.0)),
        workload(num_calls),
        0,
        sink,
    )
    begun_s = time.process_time()
    ending = simulated.run()
    used_s = time.process_time() - begun_s
    if sink.num_failed:
        raise SystemExit(f"{placement} lets engines do too little: {sink.num_failed} jobs refused")
    return {
        "compiled": "yes" if is_compiled() else "no",
        "rules": rules,
        "placement": placement,
        "calls": num_calls,
        "us_per_call": round(used_s / num_calls * 1e6, 1),
        "busy_share": round(sum(ending.busy_s) / NUM_ENGINES / ending.now_s, 3),
        "hit_tokens_per_call": round(sink.cached_tokens / num_calls, 1),
    }


def main() -> None:
    """Print a row for each system; save them when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--rules", nargs="+", default=["vllm", "parrot"])
    parser.add_argument("--placements", nargs="+", default=["cost", "paper", "least_loaded"])
    parser.add_argument("--baseline", action="store_true", help="measure the baseline, too")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    options = parser.parse_args()
    rows = []
    for rules in options.rules:
        for placement in options.placements:
            row = measure(rules, placement, options.calls)
            row["us_per_call_baseline"] = None
            if options.baseline:
                with patch.object(simulation, "_GC_THRESHOLDS", gc.get_threshold()):
                    baseline = measure(rules, placement, options.calls)
                row["us_per_call_baseline"] = baseline["us_per_call"]
            row["load_average"] = round(os.getloadavg()[0], 1)
            row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            rows.append(row)
            million_s = float(row["us_per_call"] or 0) * GOAL_CALLS / 1e6
            print(row, f"-> {GOAL_CALLS:,} calls in {million_s / 60:.1f} min", flush=True)
            if million_s > GOAL_S:
                print(f"   misses the goal of {GOAL_S / 60:.0f} min {million_s / GOAL_S:.1f} times")
    if options.save:
        print(f"rows appended to {append_rows('simulator', rows)}")


if __name__ == "__main__":
    main()
