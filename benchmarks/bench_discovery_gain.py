"""What discovered structure brings agents on real engines: off, on, and with learning.

Claim: agents that only send single calls to OpenAI's API end sooner, and engines compute fewer of
their prompts, when the server finds by itself what belongs together. The baseline is
``--no-discovery``; ``found`` is with ``PARROT_DISCOVERY_LEARNS=false``; ``learnt`` is the default.
Several runs begin at once, each with texts of its own; every call has the same number of tokens.
Two engines stand behind one server, or one whose KV cache is too small for all runs. Each variant
has engines of its own; they take turns, and the first turn, from which is learnt, does not count.

    python -m benchmarks.bench_discovery_gain [--engines 1 2] [--traffic coding chats]
        [--repeat 5] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx
from asgi_lifespan import LifespanManager

from benchmarks.agent_runs import Ask, Message, coding_team, round_robin
from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.doors import vllm_config
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.models import TINY_MODEL_NAME
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot

_START_TIMEOUT_S = 120.0
_TOKENS = 48

VARIANTS: dict[str, dict[str, bool]] = {
    "off": {"discovery": False},
    "found": {"discovery": True, "discovery_learns": False},
    "learnt": {"discovery": True, "discovery_learns": True},
}

#: Of an engine; the runs of a turn together read more.
_KV_TOKENS = 12_288

#: Traffic -> what one run does, and how many runs begin at once.
TRAFFIC: dict[str, tuple[Callable[[Ask, object], Awaitable[None]], int]] = {
    "coding": (coding_team, 4),
    "chats": (round_robin, 8),
}


@dataclass(slots=True)
class Turn:
    """All runs of one turn."""

    jobs_s: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def mean_s(self) -> float:
        """Mean time of a run."""
        return sum(self.jobs_s) / len(self.jobs_s)

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that were in no cache."""
        return self.prompt_tokens - self.cached_tokens


@dataclass(frozen=True, slots=True)
class Server:
    """A server, its engines, and a client for it."""

    engines: Sequence[VllmEngine]
    client: httpx.AsyncClient

    async def play(self, traffic: str, seed: int) -> Turn:
        """Let all runs of a turn begin at once, on empty caches, and wait for their ends."""
        for engine in self.engines:
            await engine.drain()
            await engine.reset_prefix_cache()
        turn = Turn()
        runs = range(TRAFFIC[traffic][1])
        await asyncio.gather(*(self._run(traffic, (seed, i), turn) for i in runs))
        return turn

    async def _run(self, traffic: str, seed: tuple[int, int], turn: Turn) -> None:
        sessions: set[str] = set()
        hints = {"app": traffic, "session": f"{traffic} {seed}"}

        async def ask(messages: list[Message]) -> str:
            body = {
                "model": TINY_MODEL_NAME,
                "messages": messages,
                "max_tokens": _TOKENS,
                "min_tokens": _TOKENS,
                "ignore_eos": True,
                "temperature": 0,
                "parrot": hints,
            }
            reply = await self.client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            sessions.add(reply.headers["x-parrot-session-id"])
            usage = reply.json()["usage"]
            turn.prompt_tokens += usage["prompt_tokens"]
            turn.cached_tokens += usage["prompt_tokens_details"]["cached_tokens"]
            text: str = reply.json()["choices"][0]["message"]["content"]
            return text

        begin_s = time.perf_counter()
        await TRAFFIC[traffic][0](ask, seed)
        turn.jobs_s.append(time.perf_counter() - begin_s)
        for session in sessions:
            (await self.client.delete(f"/v1/sessions/{session}")).raise_for_status()


@asynccontextmanager
async def server(num_engines: int, **settings: bool) -> AsyncIterator[Server]:
    """Start a server."""
    config = vllm_config(None, _KV_TOKENS, max_requests=32)
    names = [f"vllm-{number}" for number in range(num_engines)]
    engines = {name: VllmEngine(EngineId(name), config) for name in names}
    slots = [EngineSlot(name, lambda _, engine=engine: engine) for name, engine in engines.items()]
    app = create_app(ServerSettings(drain_timeout_s=0, **settings), slots)
    async with LifespanManager(app, startup_timeout=_START_TIMEOUT_S, shutdown_timeout=30):
        await asyncio.wait_for(app.state.service.supervisor.joined(), _START_TIMEOUT_S)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://lab", timeout=_START_TIMEOUT_S
        ) as client:
            yield Server(list(engines.values()), client)


async def measure(traffics: Sequence[str], num_engines: int, repeat: int) -> list[dict[str, Cell]]:
    """Return a row for each kind of traffic and variant."""
    rows: list[dict[str, Cell]] = []
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(server(num_engines, **settings))
            for name, settings in VARIANTS.items()
        }
        names = list(servers)
        for traffic in traffics:
            turns: dict[str, list[Turn]] = {name: [] for name in names}
            for number in range(repeat + 1):
                shift = number % len(names)
                for name in (*names[shift:], *names[:shift]):
                    turns[name].append(await servers[name].play(traffic, number))
            rows += rows_of(traffic, num_engines, turns)
    return rows


def rows_of(
    traffic: str, num_engines: int, turns: Mapping[str, Sequence[Turn]]
) -> list[dict[str, Cell]]:
    """Return a row for each variant, print them, and leave out the first turn."""
    rows: list[dict[str, Cell]] = []
    for name, (_, *counted) in turns.items():
        pairs = zip(turns["off"][1:], counted, strict=True)
        row: dict[str, Cell] = {
            "traffic": traffic,
            "runs_at_once": TRAFFIC[traffic][1],
            "engines": num_engines,
            "kv_tokens": _KV_TOKENS,
            "discovery": name,
            "repeat": len(counted),
            **cells("mean_job_s", spread([turn.mean_s for turn in counted])),
            **cells("speedup", spread([off.mean_s / turn.mean_s for off, turn in pairs])),
            **cells("computed_tokens", spread([turn.computed_tokens for turn in counted]), 0),
            "prompt_tokens": counted[-1].prompt_tokens,
        }
        rows.append(row)
        print(
            f"{traffic}, {num_engines} engines, {name:7} {shown(row, rows[0], 'mean_job_s')}  "
            f"{row['computed_tokens_median']} of {row['prompt_tokens']} prompt tokens computed",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--traffic", nargs="+", default=list(TRAFFIC), choices=list(TRAFFIC))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="append to results/discovery_gain.csv")
    given = parser.parse_args()
    rows: list[dict[str, Cell]] = []
    for num_engines in given.engines:
        rows += asyncio.run(measure(given.traffic, num_engines, given.repeat))
    if given.save:
        print(f"saved to {append_rows('discovery_gain', rows)}")


if __name__ == "__main__":
    main()
