"""Semantic Kernel programs: planned and submitted once, against the same programs call by call.

Claim: a filter, or a pipeline or orchestration of Parrot's, saves the round trips between the calls
of a program, and costs next to nothing where there are none to save. The programs are the examples
in ``examples/semantic_kernel``. Each is run in three ways on one engine, by turns, each time with
an empty prefix cache and the same number of tokens per call:

* call by call: ``OpenAIChatCompletion`` on vLLM's own OpenAI server (the baseline);
* drop-in: ``ParrotChatCompletion`` in its place, and nothing else changed;
* planned: ``ParrotChatCompletion``, ``ParrotPlanFilter`` and the example's planned form.

vLLM and Semantic Kernel cannot be in one environment: this runs with the engine's, and a worker
runs the programs in the other. Between both stands a proxy that delays what passes.

    python -m benchmarks.bench_semantic_kernel [--round-trips-ms 0 50 250] [--tokens 32]
        [--repeat 5] [--only grounding ...] [--model PATH] [--client-python PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.common import Cell, append_rows, cells, shown, spread
from parrot_backend.demo.delaying_proxy import DelayingProxy, delaying_proxy
from parrot_backend.demo.host_process import Host, start_host

ROOT = Path(__file__).parent.parent
CLIENT_PYTHON = ROOT / ".venvs" / "semantic-kernel" / "bin" / "python"
NAMES = ("nested_chat", "grounding", "outline_then_chapters", "concurrent_agents")
WAYS = ("call_by_call", "drop_in", "planned")


@dataclass
class Worker:
    """The process that runs the programs, and the networks between it and the servers."""

    process: asyncio.subprocess.Process
    networks: tuple[DelayingProxy, ...]

    async def run(self, program: str, way: str) -> tuple[float, float | None, int]:
        """Run a program once; return its time, the least possible one, and its requests."""
        assert self.process.stdin is not None, "started with a pipe"
        assert self.process.stdout is not None, "started with a pipe"
        before = self._num_requests()
        self.process.stdin.write(json.dumps({"program": program, "way": way}).encode() + b"\n")
        line = await self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker has ended at {program}, {way}; see above")
        reply = json.loads(line)
        return reply["took_s"], reply["bound_s"], self._num_requests() - before

    def _num_requests(self) -> int:
        return sum(network.num_requests for network in self.networks)


@dataclass
class Contest:
    """What one program took in all ways over one network.

    Attributes:
        runs_s: Times by way.
        requests: Requests of the last run by way.
        bounds_s: Shortest possible times of the planned runs.
    """

    runs_s: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    requests: dict[str, int] = field(default_factory=dict)
    bounds_s: list[float] = field(default_factory=list)

    async def run(self, worker: Worker, program: str, way: str) -> None:
        """Run the program once more."""
        took_s, bound_s, self.requests[way] = await worker.run(program, way)
        self.runs_s[way].append(took_s)
        if way == "planned" and bound_s is not None:
            self.bounds_s.append(bound_s)

    def row(self) -> dict[str, Cell]:
        """Return the columns of the results."""
        row: dict[str, Cell] = {}
        for way in WAYS:
            row |= cells(f"{way}_s", spread(self.runs_s[way]))
            row[f"{way}_requests"] = self.requests[way]
        pairs = zip(self.runs_s["call_by_call"], self.runs_s["planned"], strict=True)
        row |= cells("speedup", spread([plain / planned for plain, planned in pairs]))
        return row | cells("bound_s", spread(self.bounds_s) if self.bounds_s else None)


@asynccontextmanager
async def start_worker(
    python: Path, host: Host, round_trip_ms: int, tokens: int
) -> AsyncIterator[Worker]:
    """Start a worker beyond a network of this round trip; it ends with the block."""
    round_trip_s = round_trip_ms / 1000
    with (
        delaying_proxy(host.info.parrot_url, round_trip_s) as parrot,
        delaying_proxy(host.info.vllm_url, round_trip_s) as vllm,
    ):
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-m", "benchmarks.semantic_kernel_worker"),
            *(parrot.url, f"{vllm.url}/v1", host.info.model, str(tokens), str(round_trip_s)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Worker(process, (parrot, vllm))
        finally:
            assert process.stdin is not None, "started with a pipe"
            process.stdin.close()
            await process.wait()


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all programs on one engine."""
    options = [] if arguments.model is None else ["--model", arguments.model]
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with start_host(options, Path(folder) / "server.log") as host:
            for round_trip_ms in arguments.round_trips_ms:
                python, tokens = arguments.client_python, arguments.tokens
                async with start_worker(python, host, round_trip_ms, tokens) as worker:
                    for name in arguments.only or NAMES:
                        rows.append(await measure(host, worker, name, round_trip_ms, arguments))
    return rows


@cache
def version_of(python: Path) -> str:
    """Return the version of Semantic Kernel that an interpreter has."""
    code = "from importlib.metadata import version; print(version('semantic-kernel'))"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


async def measure(
    host: Host, worker: Worker, name: str, round_trip_ms: int, arguments: argparse.Namespace
) -> dict[str, Cell]:
    """Measure one program over one network, and print it."""
    for way in WAYS:
        await worker.run(name, way)  # warm
    contest = Contest()
    for _ in range(arguments.repeat):
        for way in WAYS:
            await host.reset_prefix_cache()
            await contest.run(worker, name, way)
    row: dict[str, Cell] = {
        "semantic_kernel": version_of(arguments.client_python),
        "model": host.info.model,
        "program": name,
        "round_trip_ms": round_trip_ms,
        "max_tokens": arguments.tokens,
        "repeat": arguments.repeat,
        **contest.row(),
    }
    print(f"{name}, round trip {round_trip_ms} ms")
    for way in WAYS:
        print(f"  {way:<13}{shown(row, None, f'{way}_s')}  {row[f'{way}_requests']} requests")
    print(f"  {'bound':<13}{shown(row, None, 'bound_s')}")
    ends = f"[{row['speedup_p20']:.2f}, {row['speedup_p80']:.2f}]"
    print(f"  call by call / planned {row['speedup_median']:.2f} {ends}", flush=True)
    return row


def main() -> None:
    """Print all programs; save them when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--round-trips-ms", nargs="+", type=int, default=[0, 50, 250])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=NAMES)
    parser.add_argument("--model", help="model path or name; the bundled tiny model by default")
    parser.add_argument(
        "--client-python", type=Path, default=CLIENT_PYTHON, help="has Semantic Kernel"
    )
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    arguments = parser.parse_args()
    if not arguments.client_python.exists():
        sys.exit(f"{arguments.client_python} does not exist; run `make setup`")
    rows = asyncio.run(run(arguments))
    if arguments.save:
        print(f"rows appended to {append_rows('semantic_kernel', rows)}")


if __name__ == "__main__":
    main()
