"""Chat beside map-reduce jobs on one engine: what pacing of steps does for either.

Chat calls come at a steady rate and somebody waits for each; map-reduce jobs run beside them, each
job beginning when one before it has ended. Three variants alternate in one run: vLLM as it is, the
plug-in with everything but pacing and preemption, and the plug-in whole. The bound for chat is what
it takes on an idle engine, measured in the same run; the bound for jobs is the engine without chat.

    python -m benchmarks.bench_mixed_load [--seconds 10] [--chats-per-s 2] [--jobs 2]
        [--slowdown 2] [--repeat 5] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.engine_lab import (
    LabEngine,
    Sample,
    alternate,
    engines,
    shared_arguments,
    tiny_config,
    words,
)
from parrot_backend.core.criteria import Objective, ObjectiveClass

CHAT = Objective(ObjectiveClass.LATENCY)
JOB = Objective(ObjectiveClass.THROUGHPUT)

CHAT_WORDS, CHAT_TOKENS = 150, 48
MAPS, MAP_WORDS, MAP_TOKENS = 8, 2000, 32
REDUCE_TOKENS = 32

#: Variant -> engine, and what is switched.
VARIANTS: dict[str, tuple[str, dict[str, bool]]] = {
    "vllm": ("stock", {}),
    "unpaced": ("plugin", {"pace": False, "preempt": False}),
    "paced": ("plugin", {"pace": True, "preempt": True}),
}


@dataclass(slots=True)
class Trial:
    """What one trial gave."""

    chats: list[Sample] = field(default_factory=list)
    jobs_s: list[float] = field(default_factory=list)


async def map_reduce(lab: LabEngine, seed: object) -> float:
    """Run a job and return its time."""
    begin_s = time.perf_counter()
    maps = (
        lab.generate([words(MAP_WORDS, (seed, number))], MAP_TOKENS, JOB) for number in range(MAPS)
    )
    await asyncio.gather(*maps)
    # The reduce's prompt has as many tokens as the maps generated.
    await lab.generate([words(MAPS * MAP_TOKENS * 3 // 4, (seed, "reduce"))], REDUCE_TOKENS, JOB)
    return time.perf_counter() - begin_s


async def trial(lab: LabEngine, arguments: argparse.Namespace, seed: int, jobs: int) -> Trial:
    """Run chat and jobs side by side for a while; jobs that are under way are finished."""
    result = Trial()
    end_s = time.perf_counter() + arguments.seconds
    numbers = itertools.count()

    async def chat(number: int) -> None:
        text = words(CHAT_WORDS, (seed, "chat", number))
        result.chats.append(await lab.generate([text], CHAT_TOKENS, CHAT))

    async def work() -> None:
        while time.perf_counter() < end_s:
            result.jobs_s.append(await map_reduce(lab, (seed, "job", next(numbers))))

    workers = [asyncio.create_task(work()) for _ in range(jobs)]
    chats: list[asyncio.Task[None]] = []
    if arguments.chats_per_s:
        await asyncio.sleep(0.5)  # the jobs are in full swing
        for number in range(int((arguments.seconds - 0.5) * arguments.chats_per_s)):
            chats.append(asyncio.create_task(chat(number)))
            await asyncio.sleep(1 / arguments.chats_per_s)
    await asyncio.gather(*chats, *workers)
    await lab.forget()
    return result


def row_of(variant: str, trials: Sequence[Trial], arguments: argparse.Namespace) -> dict[str, Cell]:
    """Return medians over all trials of a variant, in milliseconds and seconds."""
    chats = [chat for each in trials for chat in each.chats]
    jobs_s = [job for each in trials for job in each.jobs_s]
    row: dict[str, Cell] = {
        "variant": variant,
        "seconds": arguments.seconds,
        "chats_per_s": arguments.chats_per_s,
        "jobs": arguments.jobs,
        "slowdown": arguments.slowdown,
        "trials": len(trials),
    }
    for name, values, scale in (
        ("chat_tpot_ms", [chat.tpot_s for chat in chats], 1e3),
        ("chat_ttft_ms", [chat.ttft_s for chat in chats], 1e3),
        ("chat_normalised_ms", [chat.normalised_s for chat in chats], 1e3),
        ("job_s", jobs_s, 1.0),
    ):
        row |= cells(name, spread([value * scale for value in values]) if values else None)
    return row


def show(rows: Sequence[dict[str, Cell]]) -> None:
    """Print medians, and how many times better than vLLM each is."""
    measured = ("chat_tpot_ms", "chat_ttft_ms", "chat_normalised_ms", "job_s")
    print(f"{'':>12}" + "".join(f"{name:>32}" for name in measured))
    base = next(row for row in rows if row["variant"] == "vllm")
    for row in rows:
        print(f"{row['variant']:>12}" + "".join(shown(row, base, name) for name in measured))


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all variants and the two bounds."""
    order = alternate([*VARIANTS, "chat alone", "jobs alone"], arguments.repeat)
    trials: dict[str, list[Trial]] = {name: [] for name in order}
    async with engines(stock=tiny_config(scheduler="vllm"), plugin=tiny_config()) as labs:
        await labs["plugin"].engine.configure_plugin(slowdown=arguments.slowdown)
        for name in labs:  # warm, and the model of step times learnt
            await trial(labs[name], arguments, seed=-1, jobs=arguments.jobs)
        for number, variant in enumerate(order):
            seed = number // len(trials)
            if variant in VARIANTS:
                engine, options = VARIANTS[variant]
                if options:
                    await labs[engine].engine.configure_plugin(**options)
                result = await trial(labs[engine], arguments, seed, arguments.jobs)
            elif variant == "chat alone":
                result = await trial(labs["stock"], arguments, seed, jobs=0)
            else:
                quiet = argparse.Namespace(**{**vars(arguments), "chats_per_s": 0})
                result = await trial(labs["stock"], quiet, seed, arguments.jobs)
            trials[variant].append(result)
    return [row_of(variant, found, arguments) for variant, found in trials.items()]


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--chats-per-s", type=float, default=2.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--slowdown", type=float, default=2.0)
    shared_arguments(parser, repeat=5)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('mixed_load', rows)}")


if __name__ == "__main__":
    main()
