"""Placement ``cost`` against ``paper`` on real engines, program by program, in one run.

Two servers stand side by side, alike but for the placement, each with as many engines of its own;
trials alternate between them with equal programs at equal times, and each begins with empty caches.
A trial's figure is the mean time of its jobs. Where placements decide alike, the ratio shows the
noise. One engine leaves nothing to place: there they differ in who may run beside whom.

    python -m benchmarks.bench_placement [--engines 2] [--repeat 7] [--loads team mixed] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import fmean

import httpx
from asgi_lifespan import LifespanManager

from benchmarks.common import Cell, append_rows, cells, percentile, spread
from benchmarks.engine_lab import shared_arguments, tiny_config
from benchmarks.live_programs import (
    Arrival,
    bulk,
    chain,
    chat,
    copilot,
    map_reduce,
    poisson,
    team,
)
from parrot_backend.core.config import PlacementName
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot

_TIMEOUT_S = 120.0
_BASE: PlacementName = "paper"

#: Load -> its arrivals by the seed and the number of engines, which the rate is for.
LOADS: dict[str, Callable[[object, int], list[Arrival]]] = {
    "chain": lambda seed, engines: poisson(chain, seed, 6 * engines, 4.0 * engines),
    "map_reduce": lambda seed, engines: poisson(map_reduce, seed, 4 * engines, 3.0 * engines),
    "shared_prompts": lambda seed, engines: poisson(copilot, seed, 24 * engines, 16.0 * engines),
    "team": lambda seed, engines: poisson(team, seed, 2 * engines, 4.0 * engines),
    "mixed": lambda seed, engines: [
        *poisson(bulk, seed, 3 * engines, 6.0 * engines),
        *poisson(chat, seed, 8 * engines, 4.0 * engines),
    ],
}


@dataclass(slots=True)
class Server:
    """A server with its engines."""

    client: httpx.AsyncClient
    engines: Sequence[VllmEngine]

    async def forget(self) -> None:
        """Begin with empty prefix caches."""
        for engine in self.engines:
            await engine.drain()
            await engine.reset_prefix_cache()


@dataclass(slots=True)
class Trial:
    """What one trial gave: times of jobs by application, calls by engine, tokens of prompts."""

    jobs_s: dict[str, list[float]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0


@asynccontextmanager
async def serving(placement: PlacementName, number: int) -> AsyncIterator[Server]:
    """Run a server in this process."""
    config = tiny_config(kv_cache_bytes=32 * 2**20)
    engines = {
        f"{placement}-{i}": VllmEngine(EngineId(f"{placement}-{i}"), config) for i in range(number)
    }

    def make(name: str) -> EngineSlot:
        return EngineSlot(name, lambda _: engines[name])

    app = create_app(ServerSettings(placement=placement), list(map(make, engines)))
    async with LifespanManager(app, startup_timeout=_TIMEOUT_S, shutdown_timeout=30):
        await asyncio.wait_for(app.state.service.supervisor.joined(), _TIMEOUT_S)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://lab", timeout=_TIMEOUT_S
        ) as client:
            yield Server(client, list(engines.values()))


async def trial(server: Server, arrivals: Sequence[Arrival]) -> Trial:
    """Submit all programs at their times, and return what was measured of them."""
    found = Trial()
    begin_s = time.perf_counter()

    async def job(arrival: Arrival) -> None:
        await asyncio.sleep(begin_s + arrival.at_s - time.perf_counter())
        sent_s = time.perf_counter()
        reply = await server.client.post("/v1/submit", json=arrival.program.body)
        ended_s = time.perf_counter()
        reply.raise_for_status()
        document = reply.json()
        failed = [v for v in document["variables"].values() if v["state"] != "ready"]
        if failed:
            raise RuntimeError(f"{arrival.program.app}: {failed[0]}")
        found.jobs_s.setdefault(arrival.program.app, []).append(ended_s - sent_s)
        view = (await server.client.get(f"/v1/sessions/{document['session_id']}")).json()
        for node in view["nodes"]:
            found.calls[node["engine"]] += 1
            found.prompt_tokens += node["usage"]["prompt_tokens"]
            found.cached_tokens += node["usage"]["cached_tokens"]

    await asyncio.gather(*map(job, arrivals))
    await server.forget()
    return found


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all loads under both placements."""
    placements: list[PlacementName] = [_BASE, "cost"]
    trials = {load: {name: list[Trial]() for name in placements} for load in arguments.loads}
    async with AsyncExitStack() as stack:
        servers: dict[PlacementName, Server] = {
            name: await stack.enter_async_context(serving(name, arguments.engines))
            for name in placements
        }
        for load in arguments.loads:  # warm, and the step times learnt
            for name in placements:
                await trial(servers[name], LOADS[load]("warm", arguments.engines))
        for seed in range(arguments.repeat):
            for load in arguments.loads:
                arrivals = LOADS[load](seed, arguments.engines)
                for name in placements if seed % 2 else reversed(placements):
                    trials[load][name].append(await trial(servers[name], arrivals))
    return [
        row
        for load, by_name in trials.items()
        for app in by_name[_BASE][0].jobs_s
        for row in rows_of(load, app, by_name, arguments.engines)
    ]


def rows_of(
    load: str, app: str, by_name: Mapping[PlacementName, Sequence[Trial]], num_engines: int
) -> list[dict[str, Cell]]:
    """Return a row for each placement; ratios are of trials with equal programs."""
    base = by_name[_BASE]
    rows = []
    for name, trials in by_name.items():
        means = [fmean(trial.jobs_s[app]) for trial in trials]
        ratios = [
            fmean(before.jobs_s[app]) / mean for before, mean in zip(base, means, strict=True)
        ]
        slowest = [percentile(trial.jobs_s[app], 0.9) for trial in trials]
        prompt_tokens = sum(trial.prompt_tokens for trial in trials)
        rows.append(
            {
                "load": load,
                "app": app,
                "engines": num_engines,
                "placement": name,
                "trials": len(trials),
                "jobs": len(trials[0].jobs_s[app]),
                **cells("mean_job_s", spread(means)),
                **cells("p90_job_s", spread(slowest)),
                **cells("faster", spread(ratios)),
                "cached": round(sum(t.cached_tokens for t in trials) / prompt_tokens, 4),
                "busiest": round(fmean(_busiest(t.calls) for t in trials), 4),
            }
        )
    return rows


def _busiest(calls: Counter[str]) -> float:
    """Return which share of all calls the engine with the most of them had."""
    return max(calls.values()) / calls.total()


def show(rows: Sequence[Mapping[str, Cell]]) -> None:
    """Print medians with the 20th and 80th percentile."""
    names = f"{'load':<15}{'app':<12}{'placement':<11}"
    print(f"{names}{'mean job, s':>24}{'P90, s':>24}{'faster':>22}{'cached':>8}{'busiest':>8}")
    for row in rows:
        line = f"{row['load']:<15}{row['app']:<12}{row['placement']:<11}"
        for name, width in (("mean_job_s", 24), ("p90_job_s", 24), ("faster", 22)):
            median, low, high = (row[f"{name}_{part}"] for part in ("median", "p20", "p80"))
            line += f"{f'{median:.3f} [{low:.3f}, {high:.3f}]':>{width}}"
        print(f"{line}{row['cached']:>8.1%}{row['busiest']:>8.1%}")


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", type=int, default=2, help="of each server")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    shared_arguments(parser, repeat=7)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('placement', rows)}")


if __name__ == "__main__":
    main()
