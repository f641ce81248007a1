"""What the benchmarks of whole programs share: the demo's host, and paired repetitions on it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Cell, spread
from parrot_backend.demo.bound import bound_s, critical_path
from parrot_backend.demo.document import load_document, split_document
from parrot_backend.demo.host_process import Host, start_host
from parrot_backend.demo.measure import Pair, contest
from parrot_backend.demo.programs import ChainSummary, DemoProgram, MapReduceSummary, fixed_length

_WARM_UP_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Measured:
    """Repetitions of one program; all lists have one item per repetition."""

    pairs: Sequence[Pair]
    round_trip_s: float

    @property
    def baseline_s(self) -> list[float]:
        """End-to-end times call by call."""
        return [pair.call_by_call.e2e_s for pair in self.pairs]

    @property
    def parrot_s(self) -> list[float]:
        """End-to-end times in one submit."""
        return [pair.one_submit.e2e_s for pair in self.pairs]

    @property
    def bounds_s(self) -> list[float]:
        """One round trip plus the engine's time on the critical path."""
        return [bound_s(pair.one_submit.calls, self.round_trip_s) for pair in self.pairs]

    @property
    def over_bound(self) -> list[float]:
        """Time in one submit / bound."""
        return [t / bound for t, bound in zip(self.parrot_s, self.bounds_s, strict=True)]

    @property
    def speedups(self) -> list[float]:
        """Time call by call / time in one submit."""
        return [b / t for b, t in zip(self.baseline_s, self.parrot_s, strict=True)]

    @property
    def gains_s(self) -> list[float]:
        """Time call by call - time in one submit."""
        return [b - t for b, t in zip(self.baseline_s, self.parrot_s, strict=True)]

    @property
    def saved_round_trips_s(self) -> float:
        """Network time that the dependent calls of the program spend more call by call."""
        stages = len(critical_path(self.pairs[0].one_submit.calls))
        return (stages - 1) * self.round_trip_s

    def row(self) -> dict[str, Cell]:
        """Return the columns of the results that every program has."""
        row: dict[str, Cell] = {"repeat": len(self.pairs)}
        figures = {
            "call_by_call_s": self.baseline_s,
            "one_submit_s": self.parrot_s,
            "bound_s": self.bounds_s,
            "time_over_bound": self.over_bound,
            "speedup": self.speedups,
            "gain_s": self.gains_s,
        }
        for name, values in figures.items():
            for kind, value in spread(values)._asdict().items():
                row[f"{name}_{kind}"] = round(value, 4)
        first = self.pairs[0]
        for name, run in (("call_by_call", first.call_by_call), ("one_submit", first.one_submit)):
            row[f"{name}_round_trips"] = run.round_trips
            row[f"{name}_computed_tokens"] = run.computed_tokens
            row[f"{name}_reused_tokens"] = run.reused_tokens
        row["saved_round_trips_s"] = round(self.saved_round_trips_s, 4)
        return row


@asynccontextmanager
async def host_for_benchmark(model: str | None) -> AsyncIterator[Host]:
    """Start an engine with both servers, warmed up."""
    arguments = [] if model is None else ["--model", model]
    with tempfile.TemporaryDirectory() as folder:
        async with start_host(arguments, Path(folder) / "server.log") as host:
            chunks = split_document(load_document(), 8)
            sampling = fixed_length(_WARM_UP_TOKENS)
            for program in (ChainSummary(chunks, sampling), MapReduceSummary(chunks, sampling)):
                await repeat_pairs(host, program, round_trip_s=0.0, repeat=2)
            yield host


async def repeat_pairs(
    host: Host,
    program: DemoProgram,
    round_trip_s: float,
    repeat: int,
    max_concurrent: int | None = None,
) -> Measured:
    """Run a program in both modes by turns, ``repeat`` times each."""
    async with contest(host, round_trip_s, max_concurrent) as both:
        pairs = [await both.run_pair(program) for _ in range(repeat)]
    return Measured(pairs, round_trip_s)


def shared_arguments(parser: argparse.ArgumentParser, tokens: Sequence[int]) -> None:
    """Add the options that both benchmarks have; ``tokens`` are the default output lengths."""
    parser.add_argument("--round-trips-ms", nargs="+", type=int, default=[0, 50, 250])
    parser.add_argument("--tokens", nargs="+", type=int, default=list(tokens))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", help="model path or name; the bundled tiny model by default")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
