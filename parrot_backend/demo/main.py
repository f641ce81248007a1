"""The command ``parrot demo``: one engine, three programs, two ways to run them, and a report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

from parrot_backend.demo.document import load_document, split_document
from parrot_backend.demo.host_process import Host, HostFailed, start_host
from parrot_backend.demo.measure import Pair, contest
from parrot_backend.demo.programs import (
    ChainSummary,
    DemoProgram,
    MapReduceSummary,
    SnakeGame,
    fixed_length,
)
from parrot_backend.demo.progress import counting, waiting
from parrot_backend.demo.records import RunRecord
from parrot_backend.demo.report import Setup, print_files, print_results, write_files
from parrot_backend.demo.summary import ProgramSummary, summarise
from parrot_integrations import ParrotError

LOG_NAME = "server.log"

_CHUNKS = 8
_WARM_UP_TOKENS = 4

#: Exit status of a process that was ended by Ctrl-C (128 + SIGINT, as shells have it).
_EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user may choose.

    Attributes:
        model: Path or name; None takes the tiny model that ships with Parrot.
        repeat: Repetitions of each program in each mode.
        max_tokens: Tokens that each call generates.
        round_trip_s: Time on the network of each request and its reply.
        out: Folder for the files.
        write_json: Write the raw numbers, too.
    """

    model: str | None = None
    repeat: int = 3
    max_tokens: int = 64
    round_trip_s: float = 0.25
    out: Path = Path("parrot-demo")
    write_json: bool = False


def run(options: DemoOptions, console: Console | None = None) -> int:
    """Run the demonstration; return the exit code of the process."""
    console = console or Console()
    try:
        asyncio.run(_demo(options, console))
    except (HostFailed, ParrotError, httpx.HTTPError, OSError) as exc:
        reason = str(exc) or type(exc).__name__
        errors = Console(stderr=True)
        errors.print(Text(f"The demo failed: {reason}", style="red"))
        if (options.out / LOG_NAME).exists():
            errors.print(Text(f"The server's log is {options.out / LOG_NAME}."))
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped; the server and its engine have ended, too.")
        return _EXIT_INTERRUPTED
    return 0


async def _demo(options: DemoOptions, console: Console) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    arguments = [] if options.model is None else ["--model", options.model]
    async with AsyncExitStack() as stack:
        with waiting(console, "starting vLLM, with its own server and Parrot in front of it"):
            starting = start_host(arguments, options.out / LOG_NAME)
            host = await stack.enter_async_context(starting)
        summaries = await _measure(host, options, console)
        setup = Setup(host.info.model, options.max_tokens, options.round_trip_s, options.repeat)
        print_results(console, summaries, setup)
        paths = write_files(options.out, summaries, setup, raw=options.write_json)
        print_files(console, paths)


async def _measure(host: Host, options: DemoOptions, console: Console) -> list[ProgramSummary]:
    with waiting(console, "warming up, not measured"):
        async with contest(host, round_trip_s=0.0) as warm_up:
            for program in _programs(_WARM_UP_TOKENS):
                await warm_up.run_pair(program)
    programs = _programs(options.max_tokens)
    pairs: dict[str, list[Pair]] = {program.title: [] for program in programs}
    num_runs = 2 * len(programs) * options.repeat
    async with contest(host, options.round_trip_s) as measured:
        with counting(console, "measuring", num_runs) as tell:
            for program in programs:
                for _ in range(options.repeat):
                    pair = await measured.run_pair(program, _teller(program, tell))
                    pairs[program.title].append(pair)
    return [summarise(title, pairs[title], options.round_trip_s) for title in pairs]


def _programs(max_tokens: int) -> list[DemoProgram]:
    chunks = split_document(load_document(), _CHUNKS)
    sampling = fixed_length(max_tokens)
    return [
        ChainSummary(chunks, sampling),
        MapReduceSummary(chunks, sampling),
        SnakeGame(sampling),
    ]


def _teller(program: DemoProgram, tell: Callable[[str], None]) -> Callable[[RunRecord], None]:
    return lambda run: tell(f"{program.title}, {run.mode}: {run.e2e_s:.2f} s")
