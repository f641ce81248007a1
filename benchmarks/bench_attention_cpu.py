"""Shared-prefix attention on the CPU against vLLM's own operator: the kernel alone, no engine.

Each case is a step of a batch: groups of requests with a common prefix, a suffix of each request,
and one query token each but where several are told. The step is run by vLLM's operator (``stock``)
and by Parrot's kernel over a plan (``shared``), by turns over the layers of a model whose caches do
not fit into the processor's caches together, so pages come from where they would in an engine.
``ratio`` is stock over shared, of pairs of runs of the same layer. GB/s counts the KV bytes that
the plan reads, GFLOP/s the arithmetic of attention, which sharing does not change; ``copy`` is what
copying a large array reaches (bytes read and written). With one thread, times are of the thread.
Making the plan is not in them: a step has one, its layers share it.

    python -m benchmarks.bench_attention_cpu [--threads 1] [--repeats 30] [--isa avx512] [--save]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from vllm import _custom_ops as ops

from benchmarks.common import Cell, append_rows, cells, percentile, spread
from parrot_backend.kernels import Planner
from parrot_backend.kernels.cpu import (
    CpuStep,
    KernelLibrary,
    available_sets,
    load_library,
    plan_costs,
)

_PAGE = 128
#: Caches of all layers together: several times a last-level cache.
_CACHE_BYTES = 96 << 20


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of a model."""

    name: str
    num_kv: int
    group: int
    dim: int


_HEADS = (
    Heads("gqa 4/2 x 64", 2, 2, 64),
    Heads("mha 16 x 64", 16, 1, 64),
    Heads("gqa 32/8 x 128", 8, 4, 128),
)
#: Groups as (requests, prefix tokens), tokens of each suffix, and how many of them are queries.
_BATCHES: dict[str, tuple[tuple[tuple[int, int], ...], int, int]] = {
    "32 @ 6k": (((32, 6144),), 128, 1),
    "32 @ 2k": (((32, 2048),), 128, 1),
    "4 x 8 @ 4k": (((8, 4096),) * 4, 128, 1),
    "16 x 2 @ 2k": (((2, 2048),) * 16, 128, 1),
    "8 @ 4k": (((8, 4096),), 128, 1),
    "32 @ 4k, suffix 512": (((32, 4096),), 512, 1),
    "32 alone @ 1k": (((1, 1024),) * 32, 128, 1),
    "32 alone @ 128": (((1, 0),) * 32, 100, 1),
    "append 64, 8 @ 4k": (((8, 4096),), 128, 64),
    "prompt 512": (((1, 0),), 512, 512),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """A step: block table [B, P], starts of queries, lengths, and how many pages there are."""

    table: torch.Tensor
    query_start: torch.Tensor
    seq_lens: torch.Tensor
    num_pages: int


def make_batch(
    groups: Sequence[tuple[int, int]], suffix: int, queries: int, rng: np.random.Generator
) -> Batch:
    """Return a batch whose pages lie in the cache in no order."""
    rows, lens, used = [], [], 0
    for requests, prefix in groups:
        shared = list(range(used, used + prefix // _PAGE))
        used += len(shared)
        for i in range(requests):
            own = suffix + i % 7
            pages = -(-own // _PAGE)
            rows.append(shared + list(range(used, used + pages)))
            lens.append(len(shared) * _PAGE + own)
            used += pages
    shuffled = rng.permutation(used).astype(np.int32)
    table = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, its_pages in zip(table, rows, strict=True):
        row[: len(its_pages)] = shuffled[its_pages]
    starts = torch.arange(len(rows) + 1, dtype=torch.int32) * queries
    return Batch(torch.from_numpy(table), starts, torch.tensor(lens, dtype=torch.int32), used)


def make_stock(
    heads: Heads, batch: Batch, query: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return vLLM's attention of a layer's cache."""
    metadata = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=len(batch.seq_lens),
        num_heads=heads.num_kv * heads.group,
        num_kv_heads=heads.num_kv,
        head_dim=heads.dim,
        seq_lens=batch.seq_lens,
        dtype=query.dtype,
        query_start_loc=batch.query_start,
        causal=True,
        sliding_window_size=-1,
        isa="vec",
        enable_kv_split=True,
    )
    output = torch.empty_like(query)

    def run(cache: torch.Tensor) -> torch.Tensor:
        keys, values = cache.view(*cache.shape[:2], 2 * _PAGE, -1).chunk(2, dim=2)
        ops.cpu_attention_with_kv_cache(
            query,
            keys,
            values,
            output,
            batch.query_start,
            batch.seq_lens,
            heads.dim**-0.5,
            True,
            None,
            -1,
            batch.table,
            0.0,
            metadata,
            None,
        )
        return output

    return run


def measure(
    heads: Heads, name: str, dtype: torch.dtype, repeats: int, library: KernelLibrary
) -> dict[str, Cell]:
    """Run a case and return its row."""
    groups, suffix, queries = _BATCHES[name]
    rng = np.random.default_rng(1)
    batch = make_batch(groups, suffix, queries, rng)
    shape = (batch.num_pages, heads.num_kv, _PAGE, 2 * heads.dim)
    size = int(np.prod(shape)) * dtype.itemsize
    first = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(dtype)
    layers = [first] + [first.clone() for _ in range(min(64, _CACHE_BYTES // size))]
    num_heads = heads.num_kv * heads.group
    query = torch.from_numpy(
        rng.standard_normal((int(batch.query_start[-1]), num_heads, heads.dim), np.float32)
    ).to(dtype)
    planner = Planner(_PAGE, torch.get_num_threads(), plan_costs(heads.group))
    plan = planner.plan(batch.table.numpy(), batch.query_start.numpy(), batch.seq_lens.numpy())
    stock = make_stock(heads, batch, query)
    step = CpuStep(plan, batch.table, _PAGE, library=library)
    output = torch.empty_like(query)

    def shared(cache: torch.Tensor) -> torch.Tensor:
        return step.attend(query, cache, scale=heads.dim**-0.5, output=output)

    error = float((stock(first).float() - shared(first).float()).abs().max())
    if error > 0.02:
        raise RuntimeError(f"{name}: the kernels differ by {error}")
    # The time of the thread, if it is one: what else the machine runs does not count in it.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {"stock": [], "shared": []}
    for turn in range(repeats):
        for kind, run in (("stock", stock), ("shared", shared))[:: 1 if turn % 2 else -1]:
            for cache in layers:
                started = clock()
                run(cache)
                times[kind].append((clock() - started) * 1e6)
    ratios = [a / b for a, b in zip(times["stock"], times["shared"], strict=True)]
    median_s = spread(times["shared"]).median * 1e-6
    token_bytes = 2 * heads.num_kv * heads.dim * dtype.itemsize
    return {
        "heads": heads.name,
        "batch": name,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "isa": library.isa.name,
        "layers": len(layers),
        **cells("stock_us", spread(times["stock"]), 1),
        **cells("shared_us", spread(times["shared"]), 1),
        **cells("ratio", spread(ratios), 3),
        "gb_per_s": round(plan.shared_tokens * token_bytes / median_s / 1e9, 2),
        "gflop_per_s": round(flops(heads, batch) / median_s / 1e9, 1),
        "max_difference": round(error, 5),
    }


def flops(heads: Heads, batch: Batch) -> int:
    """Return the arithmetic of a step: 4 operations per query element and position seen."""
    queries = batch.query_start.diff().long()
    seen = queries * batch.seq_lens - queries * (queries - 1) // 2
    return 4 * heads.dim * heads.num_kv * heads.group * int(seen.sum())


def copy_gb_per_s() -> float:
    """Return bytes read and written per second by copying an array larger than all caches."""
    source = torch.ones(128 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    times = []
    for _ in range(7):
        started = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - started)
    return 2 * len(source) / percentile(times[1:], 0.5) / 1e9


def main() -> None:
    """Run the cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--isa", choices=[isa.name for isa in available_sets()])
    parser.add_argument("--case", action="append", help="a part of a batch's or heads' name")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    copied = copy_gb_per_s()
    library = load_library(options.isa)
    print(f"{library.isa.name}, {options.threads} threads, copy {copied:.1f} GB/s")
    rows: list[dict[str, Cell]] = []
    for heads in _HEADS:
        for name in _BATCHES:
            if options.case and not any(part in f"{heads.name}: {name}" for part in options.case):
                continue
            row = measure(heads, name, getattr(torch, options.dtype), options.repeats, library)
            rows.append({**row, "copy_gb_per_s": round(copied, 1)})
            print(
                f"{heads.name:>16}  {name:<20} stock {row['stock_us_median']:>9} us  "
                f"shared {row['shared_us_median']:>9} us  ratio {row['ratio_median']} "
                f"[{row['ratio_p20']}, {row['ratio_p80']}]  {row['gb_per_s']} GB/s  "
                f"{row['gflop_per_s']} GFLOP/s",
                flush=True,
            )
    if options.save:
        print(append_rows("attention_cpu", rows))


if __name__ == "__main__":
    main()
