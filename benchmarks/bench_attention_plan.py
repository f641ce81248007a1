"""How long the attention of a step takes to plan, in native code and in numpy.

Batches of requests in decode, in groups with a common prefix of so many pages and pages of their
own. ``decode``: the same requests, one token longer at each step. ``joins``: besides, one request
in sixteen is replaced at each step by a new one of some group. ``new``: at each step a whole other
batch, whose block table the processor's caches have lost. Both planners take turns at the same
steps, so each finds the caches as the other left them. Times are of the thread, so that others on
the machine count less; ``wall`` is what the clock said.

    python -m benchmarks.bench_attention_plan [--save]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.common import Cell, append_rows, cells, spread
from parrot_backend.kernels import Planner, WorkPlan
from parrot_backend.kernels.prefixes import Int32Array

_PAGE_SIZE = 16
_NEW_BATCHES = 16
#: An H200 with 8 KV heads and with one: workers times KV heads fill 132 multiprocessors twice. And
#: the threads of a small CPU.
_GPU_WORKERS, _ONE_HEAD_WORKERS, _CPU_WORKERS = 33, 264, 8


@dataclass(frozen=True, slots=True)
class Shape:
    """Requests in groups of one prefix each; a group for each request: nothing is shared."""

    num_requests: int
    num_groups: int
    prefix_pages: int
    own_pages: int
    num_workers: int


SHAPES = (
    Shape(32, 1, 384, 32, _CPU_WORKERS),
    Shape(64, 4, 64, 16, _GPU_WORKERS),
    Shape(256, 16, 384, 32, _GPU_WORKERS),
    Shape(256, 16, 384, 32, _ONE_HEAD_WORKERS),
    Shape(256, 16, 384, 32, _CPU_WORKERS),
    Shape(256, 256, 384, 32, _GPU_WORKERS),
    Shape(256, 16, 4096, 32, _GPU_WORKERS),
    Shape(512, 64, 128, 16, _GPU_WORKERS),
)


@dataclass(slots=True)
class Step:
    """What a planner is given."""

    block_table: Int32Array
    query_start: Int32Array
    seq_lens: Int32Array


def batch_of(shape: Shape, seed: int) -> Step:
    """Return a batch in decode, its requests in no order."""
    rng = np.random.default_rng(seed)
    width = shape.prefix_pages + shape.own_pages
    own = rng.permutation(shape.num_requests * width).astype(np.int32)
    table = own.reshape(shape.num_requests, width)
    prefixes = 10_000_000 + np.arange(shape.num_groups * shape.prefix_pages, dtype=np.int32)
    group = rng.permutation(np.arange(shape.num_requests) % shape.num_groups)
    table[:, : shape.prefix_pages] = prefixes.reshape(shape.num_groups, -1)[group]
    most = shape.own_pages * _PAGE_SIZE // 2
    seq_lens = shape.prefix_pages * _PAGE_SIZE + rng.integers(1, most, shape.num_requests)
    starts = np.arange(shape.num_requests + 1, dtype=np.int32)
    return Step(table, starts, seq_lens.astype(np.int32))


def steps(shape: Shape, mode: str, count: int) -> Iterator[Step]:
    """Yield the batches of some steps."""
    if mode == "new":
        batches = [batch_of(shape, seed) for seed in range(_NEW_BATCHES)]
        for index in range(count):
            yield batches[index % _NEW_BATCHES]
        return
    step = batch_of(shape, 0)
    other = batch_of(shape, 1)
    rng = np.random.default_rng(2)
    for _ in range(count):
        yield step
        if mode == "joins":
            rows = rng.choice(shape.num_requests, max(1, shape.num_requests // 16), replace=False)
            step.block_table[rows] = other.block_table[rng.permutation(rows)]
            step.seq_lens[rows] = other.seq_lens[rows]
        step.seq_lens += step.seq_lens < step.block_table.shape[1] * _PAGE_SIZE


def timed(planner: Planner, step: Step) -> tuple[WorkPlan, float, float]:
    """Return a plan, and the thread's and the clock's time in microseconds."""
    wall, thread = time.perf_counter(), time.thread_time()
    plan = planner.plan(step.block_table, step.query_start, step.seq_lens)
    return plan, (time.thread_time() - thread) * 1e6, (time.perf_counter() - wall) * 1e6


def measure(shape: Shape, mode: str, repeats: int) -> list[dict[str, Cell]]:
    """Return a row for each planner.

    Raises:
        SystemExit: There is no compiler for the native one.
    """
    planners = {
        "native": Planner(_PAGE_SIZE, shape.num_workers),
        "numpy": Planner(_PAGE_SIZE, shape.num_workers, is_native=False),
    }
    if not planners["native"].is_native:
        raise SystemExit("no compiler: there is no native planner to measure")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in planners}
    plans: dict[str, WorkPlan] = {}
    for step in steps(shape, mode, repeats):
        for name, planner in planners.items():
            plans[name], thread_us, wall_us = timed(planner, step)
            times[name].append((thread_us, wall_us))
    return [
        {
            "mode": mode,
            "planner": name,
            "requests": shape.num_requests,
            "groups": shape.num_groups,
            "pages": shape.prefix_pages + shape.own_pages,
            "workers": shape.num_workers,
            "items": plans[name].num_items,
            "slots": plans[name].num_slots,
            "reads_less": round(plans[name].plain_tokens / plans[name].shared_tokens, 2),
            **cells("thread_us", spread([thread for thread, _ in found]), 1),
            **cells("wall_us", spread([wall for _, wall in found]), 1),
        }
        for name, found in times.items()
    ]


def main() -> None:
    """Print what was measured; save it when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--save", action="store_true", help="append to results/attention_plan.csv")
    arguments = parser.parse_args()
    rows: list[dict[str, Cell]] = []
    for shape in SHAPES:
        for mode in ("decode", "joins", "new"):
            found = measure(shape, mode, arguments.repeats)
            for row in found:
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            rows += found
    if arguments.save:
        print(f"rows appended to {append_rows('attention_plan', rows)}")


if __name__ == "__main__":
    main()
