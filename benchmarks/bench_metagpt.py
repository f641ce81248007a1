"""MetaGPT's coding team: call by call, through Parrot's OpenAI endpoint, and with its provider.

Claim: Parrot's provider and its OpenAI endpoint run an unchanged team close to the critical path of
its calls, and compute no more of its prompts than stock vLLM with prefix caching does. All ways
have the same prompts and the same number of tokens per call; by turns, each on an empty prefix
cache. Two engines:

* scripted: a pretended GPU, with times per prompt token that is not cached and per generated token;
  there is no OpenAI server but Parrot's on it, so the endpoint is its baseline. Its cache knows
  prefixes up to the ends of prompts' parts, which real ones need not: do not compare its numbers of
  computed tokens between ways;
* vllm: real vLLM; call by call is MetaGPT's OpenAI provider on vLLM's own OpenAI server.

The bound is the engine's own time over the longest chain of dependent calls of the run with the
provider. ``shared first`` is the provider with other prompts: see docs/agents.md. With
``--same-role`` the prompts of all ways have what they share first.

    python -m benchmarks.bench_metagpt [--files 4 8 16] [--engines scripted vllm] [--tokens 64]
        [--same-role] [--repeat 3] [--model PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from benchmarks.common import Cell, append_rows, cells, shown, spread
from examples.metagpt.records import RunResult, read_result
from examples.metagpt.report import bound_of
from examples.metagpt.runner import TEAM_PYTHON, run_team, ways_to
from parrot_backend.demo.host_process import start_host
from parrot_backend.engines.scripted import ScriptedConfig
from tests.helpers.scripted_server import scripted_server

#: About a 7B model on one large GPU: 20,000 prompt tokens and 100 tokens of one reply per second.
GPU_LIKE = ScriptedConfig(
    prefill_s_per_token=5e-5, token_s=0.01, max_model_len=100_000, max_requests=256
)


#: Yields the ways to an engine whose prefix cache is empty.
Fresh = Callable[[], AbstractAsyncContextManager[Mapping[str, list[str]]]]


@asynccontextmanager
async def scripted(_model: str | None, _log: Path) -> AsyncIterator[Fresh]:
    """Pretend; every run has a server of its own, because the engine cannot forget."""

    @asynccontextmanager
    async def fresh() -> AsyncIterator[Mapping[str, list[str]]]:
        with scripted_server(GPU_LIKE) as server:
            yield with_shared_first(ways_to(server.url, "scripted", None))

    yield fresh


@asynccontextmanager
async def vllm(model: str | None, log: Path) -> AsyncIterator[Fresh]:
    """Start one engine for all runs."""
    arguments = [] if model is None else ["--model", model]
    async with start_host(arguments, log) as host:
        ways = ways_to(host.info.parrot_url, host.info.model, host.info.vllm_url)

        @asynccontextmanager
        async def fresh() -> AsyncIterator[Mapping[str, list[str]]]:
            await host.reset_prefix_cache()
            yield with_shared_first(ways)

        yield fresh


ENGINES = {"scripted": scripted, "vllm": vllm}


def with_shared_first(ways: dict[str, list[str]]) -> dict[str, list[str]]:
    """Add the provider with reordered prompts."""
    return {**ways, "shared first": [*ways["Parrot provider"], "--shares-first"]}


async def measure(
    fresh: Fresh, given: argparse.Namespace, num_files: int, folder: Path
) -> dict[str, list[RunResult]]:
    """Run all ways by turns; return their results by way."""
    results: dict[str, list[RunResult]] = {}
    size = ["--files", str(num_files), "--exactly", "--tokens", str(given.tokens)]
    size += ["--same-role"] if given.same_role else []
    async with fresh() as ways:
        names = list(ways)
    for turn in range(given.repeat):
        for name in names:
            out = folder / f"{num_files}-{turn}-{name.replace(' ', '-')}"
            async with fresh() as ways:
                await run_team(given.team_python, out, [*ways[name], *size])
            results.setdefault(name, []).append(read_result(name, out))
    return results


def rows(
    engine: str,
    num_files: int,
    given: argparse.Namespace,
    results: Mapping[str, Sequence[RunResult]],
) -> list[dict[str, Cell]]:
    """Return the columns of the results, a row for each way."""
    bounds_s = [bound_of([result]) for result in results["Parrot provider"]]
    base = next(iter(results.values()))
    found = []
    for name, runs in results.items():
        row: dict[str, Cell] = {
            "engine": engine,
            "num_files": num_files,
            "num_calls": len(runs[0].calls),
            "tokens_per_call": given.tokens,
            "same_role": str(given.same_role),
            "way": name,
        }
        row |= cells("e2e_s", spread([run.e2e_s for run in runs]))
        row |= cells("bound_s", spread(bounds_s))
        over = [run.e2e_s / bound_s for run, bound_s in zip(runs, bounds_s, strict=True)]
        row |= cells("over_bound", spread(over))
        speedups = [a.e2e_s / b.e2e_s for a, b in zip(base, runs, strict=True)]
        row |= cells("speedup", spread(speedups))
        row["prompt_tokens"] = runs[-1].prompt_tokens
        cached = runs[-1].cached_tokens
        row["computed_tokens"] = None if cached is None else runs[-1].prompt_tokens - cached
        found.append(row)
    return found


async def run(given: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure every engine and size."""
    found: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for engine in given.engines:
            async with ENGINES[engine](given.model, folder / "engine.log") as fresh:
                for num_files in given.files:
                    results = await measure(fresh, given, num_files, folder)
                    new = rows(engine, num_files, given, results)
                    found += new
                    show(new)
    return found


def show(new: Sequence[Mapping[str, Cell]]) -> None:
    """Print the rows of one engine and size."""
    first = new[0]
    print(f"{first['engine']}, {first['num_files']} files, {first['num_calls']} calls", flush=True)
    for row in new:
        print(
            f"  {row['way']:16} {shown(row, first, 'e2e_s')} {row['over_bound_median']:>6.2f} bound"
            f"  {row['computed_tokens']} of {row['prompt_tokens']} prompt tokens computed",
            flush=True,
        )


def main() -> int:
    """Measure, print, and save on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--tokens", type=int, default=64, help="length of every reply")
    parser.add_argument(
        "--same-role", action="store_true", help="all roles have the same system message"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--model", help="for vLLM; the tiny model by default")
    parser.add_argument("--team-python", type=Path, default=TEAM_PYTHON)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    found = asyncio.run(run(given))
    if given.save:
        print(f"saved to {append_rows('metagpt', found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
