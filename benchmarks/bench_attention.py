"""What a decode step of real vLLM costs with shared-prefix attention and without, on CPUs.

Models have random weights and real shapes of attention, so that KV leaves the caches. For each
shape of batch, requests decode side by side, and every few steps the plug-in's option
``share_attention`` is switched, so that both ways alternate within one generation on one engine. A
step's time is the time between the tokens of a request; steps beside a switch are not counted.

The bound is the time to copy as many bytes as a step has to read with sharing: each token of KV
once per layer, and the weights; what the machine copies in a second is measured in the same run.

    python -m benchmarks.bench_attention [--model gqa] [--shapes 1x32@6144 none] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time

from benchmarks.attention_lab import Lab, lab
from benchmarks.attention_shapes import MODELS, PAGE_TOKENS, SHAPES, Model, Shape
from benchmarks.common import Cell, append_rows, cells, spread
from parrot_backend.engines.vllm import VllmConfig

#: Steps after a switch that are not counted: one may be on its way, one has the new plan to make.
_SKIPPED_STEPS = 2
_MODES = (True, False)
_MAX_MODEL_LEN = 8192


async def measure(
    engine: Lab, shape: Shape, rounds: int, steps: int
) -> tuple[dict[bool, list[float]], dict[str, float]]:
    """Return times of steps in seconds with sharing and without, and what sharing read.

    Args:
        engine: Whose attention is switched.
        shape: The batch.
        rounds: How often each way has its turn.
        steps: Steps of a turn that are counted.
    """
    turn_steps = steps + _SKIPPED_STEPS
    tokens = 4 + 2 * rounds * (turn_steps + 1)
    found: dict[bool, list[float]] = {True: [], False: []}
    async with engine.decoding(shape, tokens) as ticks:
        before = await engine.attention()
        for number in range(2 * rounds):
            # The first of each pair changes, so that growing sequences favour nobody.
            mode = _MODES[(number + number // 2) % 2]
            await engine.call("configure", {"share_attention": mode})
            await ticks.wait_for(_SKIPPED_STEPS)
            start = len(ticks.times_s) - 1
            await ticks.wait_for(steps)
            times_s = ticks.times_s[start : start + steps + 1]
            found[mode] += [after - at for at, after in itertools.pairwise(times_s)]
        counted = await engine.attention()
    return found, {name: counted[name] - before[name] for name in counted if name != "state"}


def copy_bytes_per_s(threads: int) -> float:
    """Return how many bytes the machine reads and writes in a second while it copies."""
    import torch

    torch.set_num_threads(threads)
    source = torch.ones(2**28, dtype=torch.uint8)
    target = torch.empty_like(source)
    times_s = []
    for _ in range(9):
        begin_s = time.perf_counter()
        target.copy_(source)
        times_s.append(time.perf_counter() - begin_s)
    return 2 * source.numel() / statistics.median(times_s)


async def run(arguments: argparse.Namespace) -> None:
    """Measure all shapes on one model; print each, and save it when asked."""
    model = MODELS[arguments.model]
    shapes = [SHAPES[name] for name in arguments.shapes or SHAPES]
    bytes_per_s = copy_bytes_per_s(arguments.threads)
    needed = (shape.num_kv_tokens(arguments.steps * arguments.repeat * 4) for shape in shapes)
    kv_tokens = max(_MAX_MODEL_LEN, *needed)
    config = VllmConfig(
        "",
        max_model_len=_MAX_MODEL_LEN,
        max_num_seqs=64,
        block_size=PAGE_TOKENS,
        kv_cache_bytes=model.kv_bytes(kv_tokens),
        cpu_threads=arguments.threads,
    )
    async with lab(model, config) as engine:
        for shape in shapes:
            await engine.client.reset_prefix_cache()
            found, counted = await measure(engine, shape, arguments.repeat, arguments.steps)
            row = _row(model, shape, arguments.threads, bytes_per_s, found, counted)
            show(row)
            if arguments.save:
                append_rows("attention", [row])


def _row(
    model: Model,
    shape: Shape,
    threads: int,
    bytes_per_s: float,
    found: dict[bool, list[float]],
    counted: dict[str, float],
) -> dict[str, Cell]:
    shared, plain = (spread([value * 1e3 for value in found[mode]]) for mode in _MODES)
    read = model.kv_bytes(shape.num_distinct_tokens) + model.weight_bytes
    return {
        "model": model.name,
        "shape": shape.name,
        "threads": threads,
        "page_tokens": PAGE_TOKENS,
        "steps": len(found[True]),
        **cells("stock_ms", plain),
        **cells("shared_ms", shared),
        "ratio": round(plain.median / shared.median, 3),
        "steps_shared": round(counted["shared_steps"] / max(1, counted["steps"]), 3),
        "bound_ms": round(read / bytes_per_s * 1e3, 3),
        "copy_gb_per_s": round(bytes_per_s / 1e9, 2),
    }


def show(row: dict[str, Cell]) -> None:
    """Print medians, spreads, and how many times less than stock attention it is."""
    stock, shared = (
        f"{row[f'{name}_ms_median']:.4g} [{row[f'{name}_ms_p20']:.4g}, {row[f'{name}_ms_p80']:.4g}]"
        for name in ("stock", "shared")
    )
    print(
        f"{row['model']:>4} {row['shape']:<14} stock {stock:<24} shared {shared:<24}"
        f" {row['ratio']:.2f}x  bound {row['bound_ms']:.3g} ms  steps {row['steps']}",
        flush=True,
    )


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), default="gqa")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=None)
    parser.add_argument("--threads", type=int, default=1, help="threads that compute")
    parser.add_argument("--steps", type=int, default=6, help="steps of a turn that are counted")
    parser.add_argument("--repeat", type=int, default=6, help="turns of each way")
    parser.add_argument("--save", action="store_true", help="append the rows to results/")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
