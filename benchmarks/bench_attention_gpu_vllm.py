"""Time per output token inside real vLLM on a GPU: our attention against FlashAttention.

    python -m benchmarks.bench_attention_gpu_vllm [--model llama-3-8b] [--ways flash graphs pieces]
    python -m benchmarks.bench_attention_gpu_vllm --dry-run

Claims to be tested: at prefixes of 2k tokens and more, requests that share one have their tokens
sooner than with FlashAttention; where nothing is shared they lose at most 2 %. vLLM's CUDA graphs
are on in all ways: ``flash`` and ``triton`` are vLLM's own backends, in ``graphs`` our kernel is
captured, in ``pieces`` vLLM's graphs end at each attention. Weights are random, shapes are real.
Each way is an engine of its own, on which all batches decode one after the other; a step's time is
the time between the tokens of a request. Rows go to ``results/attention_gpu_vllm.csv`` as soon as
an engine is through, those of ``flash`` first.

The dry run takes a tiny model through the same code on CPUs, where the ways are vLLM's attention
and ours without graphs. It prints no times and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from benchmarks.attention_gpu.inside import (
    DRY_WAYS,
    MODELS,
    MOST_TOKENS,
    PAGE_TOKENS,
    TINY_MODEL,
    WAYS,
    Way,
    dry_shapes,
    fitting,
    shapes,
)
from benchmarks.attention_lab import Lab, lab
from benchmarks.attention_shapes import Model, Shape
from benchmarks.common import Cell, Spread, append_rows, cells, spread
from parrot_backend.engines.vllm import VllmConfig
from parrot_backend.vllm_plugin.options import PluginOptions

#: Steps after the last request's first token: steps in flight, and batches that still fill up.
SKIPPED_STEPS = 8
#: Texts of this many tokens are computed in one step when a batch begins.
STEP_TOKENS = 8192


def config_of(way: Way, kv_cache_bytes: int, most_requests: int, *, is_dry: bool) -> VllmConfig:
    """Return the engine of a way; what all have in common is the same."""
    plugin = replace(PluginOptions(), **way.options)
    common = VllmConfig(
        "",
        dtype="bfloat16",
        max_num_seqs=most_requests,
        kv_cache_bytes=kv_cache_bytes,
        plugin=plugin,
        shared_attention=way.shares,
    )
    if is_dry:
        return replace(common, max_model_len=2048, cpu_threads=1)
    return replace(
        common,
        max_model_len=MOST_TOKENS,
        block_size=PAGE_TOKENS,
        max_num_batched_tokens=STEP_TOKENS,
    )


async def step_times_ms(engine: Lab, shape: Shape, steps: int) -> list[float]:
    """Return how long each of so many decode steps took."""
    await engine.client.reset_prefix_cache()
    async with engine.decoding(shape, SKIPPED_STEPS + steps + 16) as ticks:
        await ticks.wait_for(SKIPPED_STEPS)
        start = len(ticks.times_s) - 1
        await ticks.wait_for(steps)
    times_s = ticks.times_s[start : start + steps + 1]
    return [(after - at) * 1e3 for at, after in itertools.pairwise(times_s)]


async def shared_steps(engine: Lab, way: Way) -> int:
    """Return in how many steps requests shared reads so far; 0 where vLLM computes."""
    return int((await engine.attention())["shared_steps"]) if way.shares else 0


async def run_way(
    model: Model, way: Way, wanted: list[Shape], given: argparse.Namespace, ends_s: float
) -> list[dict[str, Cell]]:
    """Run the batches on an engine of their own; return their rows."""
    generated = SKIPPED_STEPS + given.steps + 16
    # vLLM wants room for the longest text, whatever is asked of it.
    needed = (MOST_TOKENS + PAGE_TOKENS, *(shape.num_kv_tokens(generated) for shape in wanted))
    kv_bytes = model.kv_bytes(max(needed))
    most = max(shape.num_requests for shape in wanted)
    config = config_of(way, kv_bytes, most, is_dry=given.dry_run)
    more = {} if given.dry_run else {"cudagraph_capture_sizes": list(given.capture), **way.more}
    rows = []
    async with lab(model, config, more) as engine:
        for shape in wanted:
            if time.monotonic() > ends_s:
                print("the time is over; batches after this one were not run", flush=True)
                break
            before = await shared_steps(engine, way)
            found = spread(await step_times_ms(engine, shape, given.steps))
            shared = await shared_steps(engine, way) - before
            rows.append(row_of(model, way, shape, given.steps, found, shared))
            if given.dry_run:
                sharing = "shared reads" if shared else "shared nothing"
                print(f"{way.name} {shape.name}: {shape.num_requests} decode, {sharing}")
    return rows


def row_of(
    model: Model, way: Way, shape: Shape, steps: int, found: Spread, shared: int
) -> dict[str, Cell]:
    """Return the row of a batch; what it is compared with comes later."""
    return {
        "model": model.name,
        "shape": shape.name,
        "requests": shape.num_requests,
        "way": way.name,
        "page_tokens": PAGE_TOKENS,
        "steps": steps,
        "shared_steps": shared,
        **cells("tpot_ms", found, 3),
    }


def compared(
    rows: Iterable[Mapping[str, Cell]], base: Mapping[Cell, Cell], gpu: str, against: str
) -> list[dict[str, Cell]]:
    """Return rows with how many times less than the first way's their medians are.

    Args:
        rows: Of one way.
        base: The first way's median by batch; one that it did not run is missing.
        gpu: What they ran on.
        against: The first way, whatever it was.
    """
    made = []
    for row in rows:
        reference, median = base.get(row["shape"]), row["tpot_ms_median"]
        ratio = None
        if isinstance(reference, int | float) and isinstance(median, int | float):
            ratio = round(reference / median, 3)
        made.append({"gpu": gpu, **row, "against": against, "faster": ratio})
    return made


def show(row: Mapping[str, Cell]) -> None:
    """Print a row."""
    spans = f"{row['tpot_ms_median']:.4g} [{row['tpot_ms_p20']:.4g}, {row['tpot_ms_p80']:.4g}]"
    ratio = "" if row["faster"] is None else f" {row['faster']:.2f}x"
    print(f"{row['model']} {row['shape']:<14} {row['way']:<7} {spans} ms{ratio}", flush=True)


async def run(given: argparse.Namespace) -> None:
    """Run all ways on a model, one engine after the other."""
    ends_s = time.monotonic() + given.seconds
    generated = SKIPPED_STEPS + given.steps + 16
    model = TINY_MODEL if given.dry_run else MODELS[given.model]
    known = dry_shapes() if given.dry_run else shapes()
    chosen = {name: known[name] for name in given.shapes or known}
    wanted = list(fitting(model, chosen, generated))
    ways = list(DRY_WAYS.values()) if given.dry_run else [WAYS[name] for name in given.ways]
    base: dict[Cell, Cell] = {}
    for way in ways:
        found = await run_way(model, way, wanted, given, ends_s)
        if way is ways[0]:
            base = {row["shape"]: row["tpot_ms_median"] for row in found}
        if given.dry_run:
            continue
        rows = compared(found, base, gpu_name(), ways[0].name)
        for row in rows:
            show(row)
        if rows and not given.no_rows:
            print(f"rows: {append_rows('attention_gpu_vllm', rows)}", flush=True)


def gpu_name() -> str:
    """Return what the first GPU is called."""
    import torch

    return torch.cuda.get_device_name()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--dry-run", action="store_true", help="check the harness; time nothing")
    made.add_argument("--model", choices=list(MODELS), default="llama-3-8b")
    made.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=["flash", "graphs", "pieces"]
    )
    made.add_argument("--shapes", nargs="+", choices=[*shapes(), *dry_shapes()], default=None)
    made.add_argument("--steps", type=int, default=64, help="decode steps that are counted")
    made.add_argument(
        "--capture", type=int, nargs="+", default=[1, 16, 64], help="batches with a CUDA graph"
    )
    made.add_argument("--seconds", type=float, default=1e9, help="stop beginning batches after")
    made.add_argument("--no-rows", action="store_true", help="write no rows")
    return made


def main() -> int:
    """Read the command line and run."""
    given = parser().parse_args()
    import torch

    if not torch.cuda.is_available() and not given.dry_run:
        print("no GPU: a dry run, which times nothing")
        given.dry_run = True
    if given.dry_run:
        given.steps = min(given.steps, 8)
    asyncio.run(run(given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
