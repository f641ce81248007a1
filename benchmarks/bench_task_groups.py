"""Map-reduce jobs that come at the same time, under background load: members together or not.

Several jobs send their map calls interleaved, as jobs do that know nothing of each other, to an
engine whose few slots are busy with calls that nobody waits for in particular. Variants alternate
in one run: vLLM as it is (first come, first served), the plug-in with classes but without groups,
and the plug-in with groups, which serves one job's members before the next job's. The bound is the
last variant without background load.

    python -m benchmarks.bench_task_groups [--jobs 4] [--maps 6] [--slots 8] [--background 24]
        [--repeat 7] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Sequence

from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.engine_lab import (
    LabEngine,
    alternate,
    engines,
    shared_arguments,
    tiny_config,
    words,
)
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import TaskGroupId

BACKGROUND = Objective(ObjectiveClass.THROUGHPUT)
REDUCE = Objective(ObjectiveClass.LATENCY)

MAP_WORDS, MAP_TOKENS, REDUCE_WORDS, REDUCE_TOKENS = 300, 64, 200, 16

#: Variant -> engine, options of the plug-in, whether there is background load.
VARIANTS: dict[str, tuple[str, dict[str, bool], bool]] = {
    "vllm": ("stock", {}, True),
    "no groups": ("plugin", {"gang": False, "pace": False}, True),
    "groups": ("plugin", {"gang": True, "pace": False}, True),
    "groups, paced": ("plugin", {"gang": True, "pace": True}, True),
    "groups, idle": ("plugin", {"gang": True, "pace": False}, False),
}


async def keep_busy(lab: LabEngine, seed: object, number: int, busy: asyncio.Event) -> None:
    """Run call after call until told to stop."""
    for call in itertools.count():
        if not busy.is_set():
            return
        text = words(MAP_WORDS, (seed, "background", number, call))
        await lab.generate([text], MAP_TOKENS, BACKGROUND)


async def trial(
    lab: LabEngine, arguments: argparse.Namespace, seed: int, load: bool
) -> list[float]:
    """Run all jobs once; return the time of each."""
    busy = asyncio.Event()
    busy.set()
    background = [
        asyncio.create_task(keep_busy(lab, seed, number, busy))
        for number in range(arguments.background if load else 0)
    ]
    await asyncio.sleep(0.5 if load else 0.0)
    begin_s = time.perf_counter()

    async def one_map(job: int, number: int) -> None:
        group = Objective(ObjectiveClass.TASK_GROUP, TaskGroupId(f"job{seed}.{job}"))
        await lab.generate([words(MAP_WORDS, (seed, job, number))], MAP_TOKENS, group)

    async def reduce(job: int, maps: Sequence[asyncio.Task[None]]) -> float:
        await asyncio.gather(*maps)
        await lab.generate([words(REDUCE_WORDS, (seed, job))], REDUCE_TOKENS, REDUCE)
        return time.perf_counter() - begin_s

    maps: dict[int, list[asyncio.Task[None]]] = {job: [] for job in range(arguments.jobs)}
    for number in range(arguments.maps):
        for job in range(arguments.jobs):
            maps[job].append(asyncio.create_task(one_map(job, number)))
    times_s = await asyncio.gather(*(reduce(job, tasks) for job, tasks in maps.items()))
    busy.clear()
    await asyncio.gather(*background)
    await lab.forget()
    return list(times_s)


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all variants."""
    order = alternate(list(VARIANTS), arguments.repeat)
    times_s: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    slots = {"max_num_seqs": arguments.slots}
    async with engines(
        stock=tiny_config(scheduler="vllm", **slots), plugin=tiny_config(**slots)
    ) as labs:
        for lab in labs.values():
            await trial(lab, arguments, seed=-1, load=True)
        for number, variant in enumerate(order):
            engine, options, load = VARIANTS[variant]
            if options:
                await labs[engine].engine.configure_plugin(**options)
            seed = number // len(VARIANTS)
            times_s[variant].append(await trial(labs[engine], arguments, seed, load))
    return [row_of(variant, trials, arguments) for variant, trials in times_s.items()]


def row_of(
    variant: str, trials: Sequence[Sequence[float]], arguments: argparse.Namespace
) -> dict[str, Cell]:
    """Return the mean and the last completion, medians over trials."""
    mean = spread([sum(times) / len(times) for times in trials])
    last = spread([max(times) for times in trials])
    return {
        "variant": variant,
        "jobs": arguments.jobs,
        "maps": arguments.maps,
        "slots": arguments.slots,
        "background": arguments.background,
        "trials": len(trials),
        **cells("mean_job_s", mean),
        **cells("last_job_s", last),
    }


def show(rows: Sequence[dict[str, Cell]]) -> None:
    """Print medians, and how many times better than vLLM each is."""
    measured = ("mean_job_s", "last_job_s")
    print(f"{'':>14}" + "".join(f"{name:>32}" for name in measured))
    for row in rows:
        print(f"{row['variant']:>14}" + "".join(shown(row, rows[0], name) for name in measured))


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--maps", type=int, default=6)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--background", type=int, default=24)
    shared_arguments(parser, repeat=7)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('task_groups', rows)}")


if __name__ == "__main__":
    main()
