"""What discovered structure brings agents on real engines: off, on, and with learning.

Claim: agents that only send single calls to OpenAI's API end sooner, and engines compute fewer of
their prompts, when the server finds by itself what belongs together. The baseline is
``--no-discovery``; ``found`` is with ``PARROT_DISCOVERY_LEARNS=false``; ``learnt`` is the default.
Several runs begin at once, each with texts of its own; every call has the same number of tokens.
Two engines stand behind one server, or one whose KV cache is too small for all runs. Each variant
has engines of its own; they take turns, and the first turn, from which is learnt, does not count.

With ``--pins`` the claim is about what engines keep for calls that are forecast. Both variants find
and learn; ``off`` is with ``PARROT_RETAIN_PREFIXES=false``. Each client pauses before each of its
calls, as it would for its own work, so that others push out what its next call begins with. In
``... and bulk`` summaries of new texts that nobody waits for go on beside.

    python -m benchmarks.bench_discovery_gain [--engines 1 2] [--traffic coding chats]
        [--repeat 5] [--pins] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import httpx
from asgi_lifespan import LifespanManager

from benchmarks.agent_runs import Ask, Message, coding_team, round_robin
from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.doors import vllm_config
from benchmarks.engine_lab import words
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.models import TINY_MODEL_NAME
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot

_START_TIMEOUT_S = 120.0
_TOKENS = 48

#: Of an engine; the runs of a turn together read more.
_KV_TOKENS = 12_288

#: Before each call where pins are measured, half of that up or down.
_PAUSE_S = 0.2

#: Calls of bulk work at a time, and how long their prompts are.
_BULK_AT_ONCE, _BULK_WORDS = 4, 600


@dataclass(frozen=True, slots=True)
class Traffic:
    """What happens in a turn.

    Attributes:
        run: What one run does.
        at_once: How many runs begin at once.
        has_bulk: Whether bulk work goes on beside.
    """

    run: Callable[[Ask, object], Awaitable[None]]
    at_once: int
    has_bulk: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What is compared, and under what.

    Attributes:
        column: What the variants differ in.
        variants: Settings by name; the first one is the baseline.
        traffic: Kinds of traffic by name.
        pause_s: Mean pause of a client before a call.
    """

    column: str
    variants: Mapping[str, Mapping[str, bool]]
    traffic: Mapping[str, Traffic]
    pause_s: float = 0.0


STRUCTURE = Claim(
    "discovery",
    {
        "off": {"discovery": False},
        "found": {"discovery": True, "discovery_learns": False},
        "learnt": {"discovery": True, "discovery_learns": True},
    },
    {"coding": Traffic(coding_team, 4), "chats": Traffic(round_robin, 8)},
)

PINS = Claim(
    "pins",
    {"off": {"retain_prefixes": False}, "on": {"retain_prefixes": True}},
    {
        "coding": Traffic(coding_team, 4),
        "chats": Traffic(round_robin, 8),
        "coding and bulk": Traffic(coding_team, 2, has_bulk=True),
        "chats and bulk": Traffic(round_robin, 4, has_bulk=True),
    },
    _PAUSE_S,
)


@dataclass(slots=True)
class Turn:
    """All runs of one turn."""

    jobs_s: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    num_bulk: int = 0
    wall_s: float = 0.0

    @property
    def bulk_per_s(self) -> float:
        """Calls of bulk work that ended in a second."""
        return self.num_bulk / self.wall_s

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

    async def play(self, claim: Claim, traffic: str, seed: int) -> Turn:
        """Let all runs of a turn begin at once, on empty caches, and wait for their ends."""
        for engine in self.engines:
            await engine.drain()
            await engine.reset_prefix_cache()
        turn, kind = Turn(), claim.traffic[traffic]
        bulk = [
            asyncio.create_task(self._bulk((seed, i), turn))
            for i in range(_BULK_AT_ONCE if kind.has_bulk else 0)
        ]
        begin_s = time.perf_counter()
        runs = (
            self._run(traffic, kind, claim.pause_s, (seed, i), turn) for i in range(kind.at_once)
        )
        await asyncio.gather(*runs)
        turn.wall_s = time.perf_counter() - begin_s
        for task in bulk:
            task.cancel()
        await asyncio.gather(*bulk, return_exceptions=True)
        return turn

    async def _bulk(self, seed: object, turn: Turn) -> None:
        """Ask for summaries of new texts, one after the other, for ever."""
        for number in count():
            body = {
                "model": TINY_MODEL_NAME,
                "messages": [{"role": "user", "content": words(_BULK_WORDS, (seed, number))}],
                "max_tokens": _TOKENS,
                "parrot": {"app": "bulk", "perf": "throughput"},
            }
            reply = await self.client.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            turn.num_bulk += 1

    async def _run(
        self, traffic: str, kind: Traffic, pause_s: float, seed: tuple[int, int], turn: Turn
    ) -> None:
        sessions: set[str] = set()
        hints = {"app": traffic, "session": f"{traffic} {seed}"}
        pause = random.Random(repr(seed))

        async def ask(messages: list[Message]) -> str:
            await asyncio.sleep(pause_s * pause.uniform(0.5, 1.5))
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
        await kind.run(ask, seed)
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


async def measure(
    claim: Claim, traffics: Sequence[str], num_engines: int, repeat: int
) -> list[dict[str, Cell]]:
    """Return a row for each kind of traffic and variant."""
    rows: list[dict[str, Cell]] = []
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(server(num_engines, **settings))
            for name, settings in claim.variants.items()
        }
        names = list(servers)
        for traffic in traffics:
            turns: dict[str, list[Turn]] = {name: [] for name in names}
            for number in range(repeat + 1):
                shift = number % len(names)
                for name in (*names[shift:], *names[:shift]):
                    turns[name].append(await servers[name].play(claim, traffic, number))
            rows += rows_of(claim, traffic, num_engines, turns)
    return rows


def rows_of(
    claim: Claim, traffic: str, num_engines: int, turns: Mapping[str, Sequence[Turn]]
) -> list[dict[str, Cell]]:
    """Return a row for each variant, print them, and leave out the first turn."""
    rows: list[dict[str, Cell]] = []
    kind, baseline = claim.traffic[traffic], next(iter(claim.variants))
    for name, (_, *counted) in turns.items():
        pairs = list(zip(turns[baseline][1:], counted, strict=True))
        row: dict[str, Cell] = {
            "traffic": traffic,
            "runs_at_once": kind.at_once,
            "engines": num_engines,
            "kv_tokens": _KV_TOKENS,
            claim.column: name,
            "repeat": len(counted),
            **cells("mean_job_s", spread([turn.mean_s for turn in counted])),
            **cells("speedup", spread([off.mean_s / turn.mean_s for off, turn in pairs])),
            **cells("computed_tokens", spread([turn.computed_tokens for turn in counted]), 0),
            "prompt_tokens": counted[-1].prompt_tokens,
        }
        if claim is PINS:
            fewer = [turn.computed_tokens / off.computed_tokens for off, turn in pairs]
            row |= cells("computed_ratio", spread(fewer))
            row |= cells("bulk_per_s", spread([turn.bulk_per_s for turn in counted]))
        rows.append(row)
        print(
            f"{traffic}, {num_engines} engines, {name:7} {shown(row, rows[0], 'mean_job_s')}  "
            f"{row['computed_tokens_median']} of {row['prompt_tokens']} prompt tokens computed"
            + (f", bulk {row['bulk_per_s_median']}/s" if kind.has_bulk else ""),
            flush=True,
        )
    return rows


def main() -> None:
    """Measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--traffic", nargs="+", choices=sorted({*STRUCTURE.traffic, *PINS.traffic}))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--pins", action="store_true", help="what is kept for forecast calls")
    parser.add_argument("--save", action="store_true", help="append to results/discovery_*.csv")
    given = parser.parse_args()
    claim, results = (PINS, "discovery_pins") if given.pins else (STRUCTURE, "discovery_gain")
    traffics = given.traffic or list(claim.traffic)
    rows: list[dict[str, Cell]] = []
    for num_engines in given.engines:
        rows += asyncio.run(measure(claim, traffics, num_engines, given.repeat))
    if given.save:
        print(f"saved to {append_rows(results, rows)}")


if __name__ == "__main__":
    main()
