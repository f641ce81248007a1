"""What Parrot's OpenAI endpoint adds to vLLM's own server on the same engine.

Claim: at most 1 ms at the median, and at least 0.98 times the throughput. One engine has two doors,
vLLM's own OpenAI server (the baseline) and Parrot's; both get the same chats in short rounds by
turns, so that nothing but the doors differs and noise hits both; values are of pairs of rounds that
follow each other. Prompts are new each time, and outputs have a fixed length. Three kinds of
rounds, streamed and whole: one short chat after the other, many short ones at once, and many long
ones at once.

    python -m benchmarks.bench_openai [--concurrency 16] [--tokens 32] [--long-tokens 512]
        [--repeat 15] [--model PATH] [--parrot-url URL --vllm-url URL] [--save]

With URLs, two servers that run already are compared instead, such as ``parrot serve`` and
``vllm serve`` with the same arguments. Without, the processor time of the process with both doors
is told, too (the engine's core runs in another).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.common import Cell, Spread, append_rows, cells, percentile, spread
from parrot_backend.demo.host_process import start_host

#: A paragraph of about 120 tokens.
_TEXT = (
    "The harbour lies in a bay that opens to the north, and ships that come in winter wait outside "
    "until the pilot boards them. Its keeper writes down each arrival, the weather, the cargo and "
    "the name of the captain, and sends the list to the town every evening. "
)

_numbers = itertools.count(time.time_ns())


@dataclass(frozen=True)
class Door:
    """A server, and the model's name there."""

    name: str
    url: str
    model: str


@dataclass(frozen=True)
class Kind:
    """A kind of rounds.

    Attributes:
        at: Requests at once.
        count: Requests in a round.
        repeat: Rounds at each door.
    """

    stream: bool
    at: int
    tokens: int
    count: int
    repeat: int


@dataclass
class Run:
    """One round at one door.

    Attributes:
        latencies_s: Of each request, to its last byte.
        first_s: Of each request, to its first event.
        gaps_s: Between events of a stream.
        wall_s: Of the round.
        cpu_s: Of the doors' process, in the round; None if it is not known.
    """

    latencies_s: list[float]
    first_s: list[float]
    gaps_s: list[float]
    wall_s: float = 0.0
    cpu_s: float | None = None


async def ask(session: aiohttp.ClientSession, door: Door, kind: Kind, run: Run) -> None:
    """Send one chat and note its times."""
    body: dict[str, Any] = {
        "model": door.model,
        "messages": [
            {"role": "system", "content": "You sum up reports."},
            {"role": "user", "content": f"Report {next(_numbers)}. {_TEXT * 3}"},
        ],
        "max_tokens": kind.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": kind.stream,
    }
    if kind.stream:
        body["stream_options"] = {"include_usage": True}
    start_s = time.perf_counter()
    times_s: list[float] = []
    async with session.post(f"{door.url}/v1/chat/completions", json=body) as reply:
        text = b""
        async for data, _ in reply.content.iter_chunks():
            times_s.append(time.perf_counter())
            text += data
    assert reply.status == 200, text
    _check(text, kind.tokens, kind.stream)
    run.latencies_s.append(times_s[-1] - start_s)
    run.first_s.append(times_s[0] - start_s)
    run.gaps_s += [later - earlier for earlier, later in itertools.pairwise(times_s)]


def _check(text: bytes, tokens: int, stream: bool) -> None:
    if not stream:
        assert json.loads(text)["usage"]["completion_tokens"] == tokens
        return
    *_, usage, done, _ = text.split(b"\n\n")
    assert done == b"data: [DONE]", done
    assert json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"] == tokens


async def measure(session: aiohttp.ClientSession, door: Door, kind: Kind, pid: int | None) -> Run:
    """Run one round at a door."""
    run = Run([], [], [])
    left = iter(range(kind.count))

    async def work() -> None:
        for _ in left:
            await ask(session, door, kind, run)

    cpu_s = None if pid is None else processor_s(pid)
    start_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(kind.at)))
    run.wall_s = time.perf_counter() - start_s
    if pid is not None and cpu_s is not None:
        run.cpu_s = processor_s(pid) - cpu_s
    return run


def processor_s(pid: int) -> float:
    """Return the time that the threads of a process have had on a processor."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


@asynccontextmanager
async def doors(arguments: argparse.Namespace) -> AsyncIterator[tuple[Door, Door, int | None]]:
    """Yield the baseline and ours, and the process of both, if it is one."""
    if arguments.parrot_url:
        async with aiohttp.ClientSession() as session:
            urls = (arguments.vllm_url, arguments.parrot_url)
            names = [await _model(session, url) for url in urls]
        yield Door("vllm", urls[0], names[0]), Door("parrot", urls[1], names[1]), None
        return
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model", arguments.model] if arguments.model else []
        async with start_host(options, Path(folder) / "host.log") as host:
            info = host.info
            yield (
                Door("vllm", info.vllm_url, info.model),
                Door("parrot", info.parrot_url, info.model),
                info.pid if sys.platform == "linux" else None,
            )


async def _model(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(f"{url}/v1/models") as reply:
        return str((await reply.json())["data"][0]["id"])


def kinds(arguments: argparse.Namespace) -> list[Kind]:
    """Return the kinds of rounds; long ones are fewer."""
    at, repeat = arguments.concurrency, arguments.repeat
    shapes = (
        (1, arguments.tokens, 4, repeat),
        (at, arguments.tokens, 2 * at, repeat),
        (at, arguments.long_tokens, at, max(1, repeat // 2)),
    )
    return [Kind(stream, *shape) for stream in (True, False) for shape in shapes]


async def contest(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Return one row for each kind of rounds."""
    rows: list[dict[str, Cell]] = []
    limit = aiohttp.TCPConnector(limit=0)
    async with doors(arguments) as (*pair, pid), aiohttp.ClientSession(connector=limit) as session:
        for kind in kinds(arguments):
            runs: dict[str, list[Run]] = {door.name: [] for door in pair}
            for door in pair:
                await measure(session, door, kind, pid)
            for number in range(kind.repeat):
                for door in pair if number % 2 else reversed(pair):
                    runs[door.name].append(await measure(session, door, kind, pid))
            rows.append(_row(arguments, kind, runs["vllm"], runs["parrot"]))
            print(_line(rows[-1]), flush=True)
    return rows


def _row(
    arguments: argparse.Namespace, kind: Kind, base: list[Run], ours: list[Run]
) -> dict[str, Cell]:
    rates = {
        name: [len(run.latencies_s) / run.wall_s for run in runs]
        for name, runs in (("vllm", base), ("parrot", ours))
    }
    added = {
        "latency": _added_ms(base, ours, lambda run: run.latencies_s),
        "first": _added_ms(base, ours, lambda run: run.first_s),
    }
    ratio = [b / a for a, b in zip(rates["vllm"], rates["parrot"], strict=True)]
    p50_ms = [percentile(run.latencies_s, 0.5) * 1e3 for run in base]
    return {
        "model": arguments.model or "tiny",
        "doors": "two servers" if arguments.parrot_url else "one engine",
        "stream": int(kind.stream),
        "concurrency": kind.at,
        "tokens": kind.tokens,
        "rounds": kind.repeat,
        **cells("vllm_p50_ms", spread(p50_ms), 3),
        **cells("added_p50_ms", spread(added["latency"]), 3),
        **cells("added_first_p50_ms", spread(added["first"]), 3),
        **cells("vllm_per_s", spread(rates["vllm"]), 2),
        **cells("parrot_per_s", spread(rates["parrot"]), 2),
        **cells("throughput_ratio", spread(ratio), 4),
        **cells("vllm_cpu_ms", _cpu_ms(base), 3),
        **cells("parrot_cpu_ms", _cpu_ms(ours), 3),
    }


def _cpu_ms(runs: list[Run]) -> Spread | None:
    """Return the doors' processor time for one request."""
    times_ms = [run.cpu_s * 1e3 / len(run.latencies_s) for run in runs if run.cpu_s is not None]
    return spread(times_ms) if times_ms else None


def _added_ms(base: list[Run], ours: list[Run], times: Callable[[Run], list[float]]) -> list[float]:
    """Return for each round how much more the median is at our door."""
    return [
        (percentile(times(b), 0.5) - percentile(times(a), 0.5)) * 1e3
        for a, b in zip(base, ours, strict=True)
    ]


def _line(row: dict[str, Cell]) -> str:
    def span(name: str) -> str:
        return f"{row[f'{name}_median']} [{row[f'{name}_p20']}, {row[f'{name}_p80']}]"

    kind = "streamed" if row["stream"] else "whole"
    return (
        f"{kind:>8} {row['tokens']} tokens x{row['concurrency']:<3} "
        f"vLLM {row['vllm_p50_ms_median']} ms; added p50 {span('added_p50_ms')} ms, "
        f"to the first event {span('added_first_p50_ms')} ms; "
        f"throughput {span('throughput_ratio')} x of {row['vllm_per_s_median']}/s; CPU ms a "
        f"request {row['vllm_cpu_ms_median']} and {row['parrot_cpu_ms_median']}"
    )


def main() -> None:
    """Measure, print, and save when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=15, help="pairs of rounds; half of long ones")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--long-tokens", type=int, default=512)
    parser.add_argument("--model")
    parser.add_argument("--parrot-url")
    parser.add_argument("--vllm-url")
    parser.add_argument("--save", action="store_true", help="append to results/openai.csv")
    arguments = parser.parse_args()
    if bool(arguments.parrot_url) != bool(arguments.vllm_url):
        parser.error("give both URLs or none")
    rows = asyncio.run(contest(arguments))
    if arguments.save:
        print(f"saved to {append_rows('openai', rows)}")


if __name__ == "__main__":
    main()
