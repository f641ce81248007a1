"""A chain of dependent calls: one submit against call by call, on one engine, in one run.

Claim: with no other load, a chain in one submit takes little more than the critical-path bound
(one round trip + the engine's own time for its calls), and it is faster than the same program call
by call by at least the round trips it saves. The baseline is vLLM's own OpenAI server on the very
same engine; both modes alternate, each run begins with an empty prefix cache, and every call
generates the same number of tokens in both.

    python -m benchmarks.bench_chain [--calls 8] [--round-trips-ms 0 50 250]
        [--tokens 16 32 64] [--repeat 5] [--model PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.common import Cell, append_rows, spread
from benchmarks.demo_host import Measured, host_for_benchmark, repeat_pairs, shared_arguments
from parrot_backend.demo.document import load_document, split_document
from parrot_backend.demo.programs import ChainSummary, fixed_length

HEADER = (
    f"{'RTT ms':>6} {'tokens':>6} | {'call by call s':>20} | {'one submit s':>20} | {'bound s':>7} "
    f"| {'time / bound':>18} | {'faster':>18} | {'gained / saved trips':>20}"
)


def show(measured: Measured, row: dict[str, Cell]) -> None:
    """Print one line of the table."""
    saved = measured.saved_round_trips_s
    gained = f"{spread(measured.gains_s).median:.3f} / {saved:.3f} s"
    print(
        f"{row['round_trip_ms']:>6} {row['max_tokens']:>6} | {spread(measured.baseline_s)!s:>20} | "
        f"{spread(measured.parrot_s)!s:>20} | {spread(measured.bounds_s).median:>7.3f} | "
        f"{spread(measured.over_bound)!s:>18} | {spread(measured.speedups)!s:>18} | {gained:>20}",
        flush=True,
    )


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all settings on one engine."""
    rows = []
    chunks = split_document(load_document(), arguments.calls)
    async with host_for_benchmark(arguments.model) as host:
        print(HEADER)
        for round_trip_ms in arguments.round_trips_ms:
            for max_tokens in arguments.tokens:
                program = ChainSummary(chunks, fixed_length(max_tokens))
                measured = await repeat_pairs(host, program, round_trip_ms / 1000, arguments.repeat)
                row: dict[str, Cell] = {
                    "model": host.info.model,
                    "calls": arguments.calls,
                    "round_trip_ms": round_trip_ms,
                    "max_tokens": max_tokens,
                    **measured.row(),
                }
                show(measured, row)
                rows.append(row)
    return rows


def main() -> None:
    """Print a table over round trips and output lengths; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=8)
    shared_arguments(parser, tokens=[16, 32, 64])
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    if arguments.save:
        print(f"rows appended to {append_rows('chain', rows)}")


if __name__ == "__main__":
    main()
