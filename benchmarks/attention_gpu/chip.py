"""Times calls on a GPU and measures the limits that times are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.common import Spread, percentile

#: Calls in one captured graph: launching from the host is not to be seen.
CALLS = 20
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """What the chip does at best, measured.

    Attributes:
        copy_bytes_per_s: Read and written, in a copy much larger than the L2 cache.
        l2_bytes_per_s: Read and written, in a copy that stays in the L2 cache.
        flop_per_s: bfloat16 matrix multiplication.
    """

    copy_bytes_per_s: float
    l2_bytes_per_s: float
    flop_per_s: float


def time_us(call: Callable[[], Any], *, repeats: int = 20, flush: bool = False) -> Spread:
    """Return microseconds per call: median, and 20th and 80th percentile.

    Args:
        call: What to time; it must be possible to capture it.
        repeats: Timed replays.
        flush: Time single calls with a cold L2 cache, instead of ``CALLS`` one after another.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    calls = 1 if flush else CALLS
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    rubbish = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda") if flush else None
    times = []
    for _ in range(repeats):
        if rubbish is not None:
            rubbish.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / calls)
    return Spread(statistics.median(times), percentile(times, 0.2), percentile(times, 0.8))


def measure_limits() -> Limits:
    """Measure the chip."""
    copy = _copy_rate(2 * GIB)
    near = _copy_rate(8 * 2**20)
    size = 8192
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    multiply = time_us(lambda: torch.mm(left, right, out=out), repeats=5).median
    return Limits(copy, near, 2 * size**3 / (multiply * 1e-6))


def _copy_rate(size_bytes: int) -> float:
    """Return bytes read and written per second by copying so many bytes."""
    source = torch.zeros(size_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size_bytes / (time_us(lambda: target.copy_(source), repeats=10).median * 1e-6)
