"""LangChain programs: planned and submitted once, against the same programs call by call.

Claim: wrapping a chain in ``as_parrot`` saves the round trips between its calls, and costs next to
nothing where there are none to save. The programs are the examples in ``examples/langchain``. Each
is run in three ways on one engine, by turns, each time with an empty prefix cache and the same
number of tokens per call:

* call by call: ``ChatOpenAI`` on vLLM's own OpenAI server (the baseline);
* drop-in: ``ChatParrot`` in its place, and nothing else changed;
* planned: ``ChatParrot`` and ``as_parrot`` round the chain.

    python -m benchmarks.bench_langchain [--round-trips-ms 0 50 250] [--tokens 32] [--repeat 5]
        [--only refine_summary ...] [--model PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI

from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.critical_path import critical_path_s
from parrot_backend.demo.blocking_transport import BlockingDelayingTransport
from parrot_backend.demo.host_process import Host, start_host
from parrot_backend.protocol import SessionView
from parrot_integrations import ParrotClient
from parrot_integrations.langchain import ChatParrot, as_parrot
from parrot_integrations.planning.background import background

EXAMPLES = Path(__file__).parent.parent / "examples" / "langchain"
NAMES = (
    "map_reduce_summary",
    "refine_summary",
    "multi_query_rag",
    "plan_and_expand",
    "langgraph_agent",
)
WAYS = ("call_by_call", "drop_in", "planned")

#: Makes a chain for a model.
Build = Callable[[BaseChatModel], Runnable[Any, Any]]


class RecordingClient(ParrotClient):
    """Keeps the sessions that are closed, for the engine's own times."""

    def __init__(self, base_url: str, transport: httpx.BaseTransport) -> None:
        super().__init__(base_url, transport=transport)
        self.ended: list[SessionView] = []

    def close_session(self, session_id: str) -> None:
        """Look at a session before it is forgotten."""
        self.ended.append(self.get_session(session_id))
        super().close_session(session_id)


@dataclass
class Contest:
    """One program in all ways over one network.

    Attributes:
        runs_s: Times by way.
        bounds_s: Shortest possible times of the planned runs.
    """

    chains: Mapping[str, Runnable[Any, Any]]
    value: Any
    client: RecordingClient
    network: BlockingDelayingTransport
    round_trip_s: float
    runs_s: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    trips: dict[str, int] = field(default_factory=dict)
    bounds_s: list[float] = field(default_factory=list)

    def run(self, way: str) -> None:
        """Run the program once."""
        trips = self.network.round_trips
        start_s = time.perf_counter()
        self.chains[way].invoke(self.value)
        self.runs_s[way].append(time.perf_counter() - start_s)
        self.trips[way] = self.network.round_trips - trips
        background().settle()
        if way == "planned" and self.client.ended:
            self.bounds_s.append(self.round_trip_s + critical_path_s(self.client.ended[-1]))
        self.client.ended.clear()

    def row(self) -> dict[str, Cell]:
        """Return the columns of the results."""
        row: dict[str, Cell] = {}
        for way in WAYS:
            row |= cells(f"{way}_s", spread(self.runs_s[way]))
            row[f"{way}_requests"] = self.trips[way]
        ratios = [
            a / b for a, b in zip(self.runs_s["call_by_call"], self.runs_s["planned"], strict=True)
        ]
        row |= cells("speedup", spread(ratios))
        bounds = spread(self.bounds_s) if self.bounds_s else None
        return row | cells("bound_s", bounds)


def example(name: str) -> tuple[Build, Build | None, Any]:
    """Return how an example is built, how its planned form is (None: as a whole), and its input."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    module = importlib.import_module(name)
    planned = partial(module.build, planned=True) if name == "langgraph_agent" else None
    return module.build, planned, module.example_input()


def contest(host: Host, name: str, round_trip_ms: int, tokens: int, stack: ExitStack) -> Contest:
    """Return a program in all ways."""
    # A call of a tool is over when its form is.
    is_fixed = name != "langgraph_agent"
    network = BlockingDelayingTransport(round_trip_ms / 1000)
    client = stack.enter_context(RecordingClient(host.info.parrot_url, network))
    http = stack.enter_context(httpx.Client(transport=network, timeout=600))
    openai = ChatOpenAI(
        base_url=f"{host.info.vllm_url}/v1",
        api_key="none",  # type: ignore[arg-type]
        model=host.info.model,
        temperature=0,
        max_completion_tokens=tokens,
        extra_body={"ignore_eos": True} if is_fixed else {},
        http_client=http,
        max_retries=0,
    )
    parrot = ChatParrot(client=client, temperature=0, max_tokens=tokens, ignore_eos=is_fixed)
    build, build_planned, value = example(name)
    chains = {
        "call_by_call": build(openai),
        "drop_in": build(parrot),
        "planned": as_parrot(build(parrot)) if build_planned is None else build_planned(parrot),
    }
    return Contest(chains, value, client, network, round_trip_ms / 1000)


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all programs on one engine."""
    options = [] if arguments.model is None else ["--model", arguments.model]
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with start_host(options, Path(folder) / "server.log") as host:
            for round_trip_ms in arguments.round_trips_ms:
                for name in arguments.only or NAMES:
                    rows.append(await measure(host, name, round_trip_ms, arguments))
    return rows


async def measure(
    host: Host, name: str, round_trip_ms: int, arguments: argparse.Namespace
) -> dict[str, Cell]:
    """Measure one program over one network, and print it."""
    with ExitStack() as stack:
        both = contest(host, name, round_trip_ms, arguments.tokens, stack)
        for way in WAYS:
            await asyncio.to_thread(both.chains[way].invoke, both.value)  # warm
        background().settle()
        both.client.ended.clear()
        for _ in range(arguments.repeat):
            for way in WAYS:
                await host.reset_prefix_cache()
                await asyncio.to_thread(both.run, way)
    row: dict[str, Cell] = {
        "model": host.info.model,
        "program": name,
        "round_trip_ms": round_trip_ms,
        "max_tokens": arguments.tokens,
        "repeat": arguments.repeat,
        **both.row(),
    }
    print(f"{name}, round trip {round_trip_ms} ms")
    for way in WAYS:
        print(f"  {way:<13}{shown(row, None, f'{way}_s')}  {row[f'{way}_requests']} requests")
    print(f"  {'bound':<13}{shown(row, None, 'bound_s')}")
    print(f"  call by call / planned {spread_of(row)}", flush=True)
    return row


def spread_of(row: Mapping[str, Cell]) -> str:
    """Return the speed-up of a row for a terminal."""
    return f"{row['speedup_median']:.2f} [{row['speedup_p20']:.2f}, {row['speedup_p80']:.2f}]"


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
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    if arguments.save:
        print(f"rows appended to {append_rows('langchain', rows)}")


if __name__ == "__main__":
    main()
