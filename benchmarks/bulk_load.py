"""Bulk traffic beside other work: summaries of new texts that nobody waits for one by one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.doors import Door
from benchmarks.engine_lab import words

PROMPT_WORDS, OUTPUT_TOKENS = 600, 32

#: Summaries that one user asks for at once.
JOB_CALLS = 8


@dataclass
class Bulk:
    """What became of the traffic: the time of each call that ended, and of all of it.

    Attributes:
        busy_share: Of one core that this process, with both servers, kept busy meanwhile; near 1,
            times are those of Python rather than of the engine.
    """

    latencies_s: list[float] = field(default_factory=list)
    begin_s: float = field(default_factory=time.perf_counter)
    end_s: float = 0.0
    busy_share: float = 0.0

    @property
    def per_s(self) -> float:
        """Calls that ended per second."""
        return len(self.latencies_s) / (self.end_s - self.begin_s)


async def summarise(session: aiohttp.ClientSession, door: Door, seed: object) -> None:
    """Send one call of fixed size."""
    body: dict[str, Any] = {
        "model": door.model,
        "messages": [{"role": "user", "content": words(PROMPT_WORDS, seed)}],
        "max_tokens": OUTPUT_TOKENS,
        "min_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
        "temperature": 0,
    }
    if door.is_parrot:
        body["parrot"] = {"app": "bulk", "perf": "throughput"}
    async with session.post(f"{door.url}/v1/chat/completions", json=body) as reply:
        answer = await reply.json()
    assert reply.status == 200, answer
    assert answer["usage"]["completion_tokens"] == OUTPUT_TOKENS, answer


async def capacity_per_s(door: Door, at_once: int, count: int) -> float:
    """Return how many calls a second an engine does that has nothing else to do."""
    left = iter(range(count))
    async with _session() as session:

        async def work() -> None:
            for number in left:
                await summarise(session, door, ("capacity", number))

        begin_s = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(at_once)))
        return count / (time.perf_counter() - begin_s)


@asynccontextmanager
async def bulk(door: Door, per_s: float, seed: object) -> AsyncIterator[Bulk]:
    """Let bulk jobs arrive while the block runs, at the same times for the same seed.

    Calls that have not ended with the block are given up.
    """
    found, cpu_s = Bulk(), time.process_time()
    async with _session() as session:
        tasks: list[asyncio.Task[None]] = []

        async def one(number: int) -> None:
            begin_s = time.perf_counter()
            await summarise(session, door, (seed, number))
            found.latencies_s.append(time.perf_counter() - begin_s)

        async def arrive() -> None:
            rng, due_s = random.Random(repr(seed)), found.begin_s
            while per_s:
                due_s += rng.expovariate(per_s / JOB_CALLS)
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                tasks.extend(asyncio.create_task(one(len(tasks) + i)) for i in range(JOB_CALLS))

        arriving = asyncio.create_task(arrive())
        try:
            yield found
        finally:
            found.end_s = time.perf_counter()
            found.busy_share = (time.process_time() - cpu_s) / (found.end_s - found.begin_s)
            failed = [task for task in tasks if task.done() and task.exception()]
            for task in (arriving, *tasks):
                task.cancel()
            await asyncio.gather(arriving, *tasks, return_exceptions=True)
        for task in failed:
            task.result()


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600)
    )
