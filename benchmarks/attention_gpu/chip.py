"""Times calls on a GPU and measures the limits that times are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.common import Spread, percentile

#: Calls in one captured graph, if they are short: launching from the host is not to be seen.
MOST_CALLS = 20
#: Time that the calls of one graph may take together.
GRAPH_US = 20_000.0
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


def time_us(calls: Sequence[Callable[[], Any]], *, repeats: int = 20) -> Spread:
    """Return microseconds per call: median, and 20th and 80th percentile.

    Args:
        calls: What to time, one after the other and again from the first; they must be possible to
            capture. Several that read different memory are like the layers of a model: none finds
            in the L2 cache what the one before it read.
        repeats: Timed replays.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in (*calls, calls[0]):
            call()
        once_us = _elapsed_us(calls[0])
    torch.cuda.current_stream().wait_stream(stream)
    count = max(len(calls), min(MOST_CALLS, int(GRAPH_US / once_us)), 1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(count):
            calls[index % len(calls)]()
    graph.replay()
    times = [_elapsed_us(graph.replay) / count for _ in range(repeats)]
    return Spread(statistics.median(times), percentile(times, 0.2), percentile(times, 0.8))


def _elapsed_us(call: Callable[[], Any]) -> float:
    """Return the microseconds between two events around a call, on the current stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3


def measure_limits() -> Limits:
    """Measure the chip."""
    copy = _copy_rate(2 * GIB)
    near = _copy_rate(8 * 2**20)
    size = 8192
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    multiply = time_us([lambda: torch.mm(left, right, out=out)], repeats=5).median
    return Limits(copy, near, 2 * size**3 / (multiply * 1e-6))


def _copy_rate(size_bytes: int) -> float:
    """Return bytes read and written per second by copying so many bytes."""
    source = torch.zeros(size_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size_bytes / (time_us([lambda: target.copy_(source)], repeats=10).median * 1e-6)
