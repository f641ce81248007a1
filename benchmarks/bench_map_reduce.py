"""Map and reduce: one submit against call by call, on one engine, in one run.

Claim: in one submit, a map-reduce program takes little more than the critical-path bound and is
never slower than call by call, whether the client sends all maps at once (as one that wants
throughput does) or a few at a time (as one that wants each call to be quick does). The maps travel
side by side even call by call, so only one round trip is saved; losing results are shown, too. The
baseline is vLLM's own OpenAI server on the very same engine; both modes alternate, each run begins
with an empty prefix cache, and every call generates the same number of tokens in both.

    python -m benchmarks.bench_map_reduce [--maps 4 8 16] [--at-once 4 0]
        [--round-trips-ms 0 50 250] [--tokens 32] [--repeat 5] [--model PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools

from benchmarks.common import Cell, append_rows, spread
from benchmarks.demo_host import Measured, host_for_benchmark, repeat_pairs, shared_arguments
from parrot_backend.demo.document import load_document, split_document
from parrot_backend.demo.programs import MapReduceSummary, fixed_length

HEADER = (
    f"{'RTT ms':>6} {'maps':>4} {'tokens':>6} {'at once':>7} | {'call by call s':>20} | "
    f"{'one submit s':>20} | {'bound s':>7} | {'time / bound':>18} | {'faster':>18} |"
)


def show(measured: Measured, row: dict[str, Cell]) -> None:
    """Print one line of the table; a loss is marked."""
    speedup = spread(measured.speedups)
    print(
        f"{row['round_trip_ms']:>6} {row['maps']:>4} {row['max_tokens']:>6} "
        f"{row['at_once'] or 'all':>7} | {spread(measured.baseline_s)!s:>20} | "
        f"{spread(measured.parrot_s)!s:>20} | {spread(measured.bounds_s).median:>7.3f} | "
        f"{spread(measured.over_bound)!s:>18} | {speedup!s:>18} | "
        f"{'SLOWER' if speedup.median < 1 else ''}",
        flush=True,
    )


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all settings on one engine."""
    rows = []
    settings = itertools.product(
        arguments.round_trips_ms, arguments.maps, arguments.tokens, arguments.at_once
    )
    async with host_for_benchmark(arguments.model) as host:
        print(HEADER)
        for round_trip_ms, maps, max_tokens, at_once in settings:
            program = MapReduceSummary(
                split_document(load_document(), maps), fixed_length(max_tokens)
            )
            measured = await repeat_pairs(
                host, program, round_trip_ms / 1000, arguments.repeat, at_once or None
            )
            row: dict[str, Cell] = {
                "model": host.info.model,
                "maps": maps,
                "at_once": at_once,
                "round_trip_ms": round_trip_ms,
                "max_tokens": max_tokens,
                **measured.row(),
            }
            show(measured, row)
            rows.append(row)
    return rows


def main() -> None:
    """Print a table over settings; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--maps", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument(
        "--at-once",
        nargs="+",
        type=int,
        default=[4, 0],
        help="requests the ordinary client sends at once; 0 sends all",
    )
    shared_arguments(parser, tokens=[32])
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    if arguments.save:
        print(f"rows appended to {append_rows('map_reduce', rows)}")


if __name__ == "__main__":
    main()
