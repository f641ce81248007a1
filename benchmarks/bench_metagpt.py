"""MetaGPT's coding teams: call by call, through Parrot's OpenAI endpoint, and with its provider.

Claims: on an engine that has nothing else to do, Parrot's provider runs an unchanged team close to
the critical path of its calls (goal: 1.15 times it with 4 files on the scripted engine), and
computes no more of its prompts than stock vLLM with prefix caching does; on a loaded one, teams
end sooner than call by call (goal: 2 times with 16 files). All ways have the same prompts and the
same number of tokens per call; by turns, each on an empty prefix cache. What the engines and the
baseline, ``call by call``, are is said in ``doors``. Loads:

* ``none``: one team;
* ``bulk``: one team, while jobs of 8 bulk summaries arrive at random times, the same in each way.
  ``--bulk-share`` is their part of what the engine can do of these alone, measured at the baseline
  before; at Parrot they say ``perf: throughput``;
* ``teams``: ``--teams`` teams with projects of their own, that begin within two seconds;
* ``both``.

The bound is the engine's own time over the longest chain of dependent calls, in the run with the
provider and without load. ``shared first`` is the provider with other prompts: see docs/agents.md.
With ``--same-role`` the prompts of all ways have what they share first.

    python -m benchmarks.bench_metagpt [--files 4 16] [--engines scripted vllm]
        [--loads none bulk] [--repeat 1] [--model PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bulk_load import Bulk, bulk, capacity_per_s
from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.doors import Door, Doors, scripted_doors, vllm_config, vllm_doors
from benchmarks.gpu_like import GpuLike
from examples.metagpt.records import RunResult, read_result
from examples.metagpt.report import bound_of
from examples.metagpt.runner import ROOT, TEAM_PYTHON

LOADS = ("none", "bulk", "teams", "both")

#: The bulk traffic is there before the first team.
_LEAD_S = 1.0
#: Teams begin within so long.
_WITHIN_S = 2.0

#: Way -> whether it goes through Parrot's door, and options of ``metagpt_teams``.
WAYS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "call by call": (False, ("--way", "openai")),
    "OpenAI endpoint": (True, ("--way", "openai")),
    "Parrot provider": (True, ("--way", "parrot")),
    "shared first": (True, ("--way", "parrot", "--shares-first")),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of all teams in one way."""

    teams: Sequence[RunResult]
    bulk: Bulk

    @property
    def mean_s(self) -> float:
        """Mean time of a team."""
        return sum(team.e2e_s for team in self.teams) / len(self.teams)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts of the teams."""
        return sum(team.prompt_tokens for team in self.teams)

    @property
    def computed_tokens(self) -> int | None:
        """Those that were not in the cache."""
        cached = [team.cached_tokens for team in self.teams]
        return None if None in cached else self.prompt_tokens - sum(filter(None, cached))


@asynccontextmanager
async def open_doors(engine: str, given: argparse.Namespace) -> AsyncIterator[Doors]:
    """Start both engines of a kind."""
    if engine == "scripted":
        gpu = GpuLike(
            max_requests=given.max_requests,
            kv_tokens=given.kv_tokens,
            latency_capacity_tokens=given.latency_capacity,
        )
        async with scripted_doors(gpu) as doors:
            yield doors
    else:
        sizes = (given.kv_tokens, given.max_requests, given.latency_capacity)
        config = vllm_config(given.model, *sizes)
        async with vllm_doors(config) as doors:
            yield doors


async def run_teams(
    door: Door,
    options: Sequence[str],
    given: argparse.Namespace,
    load: Mapping[str, float],
    out: Path,
) -> Turn:
    """Run the teams of one turn beside their load.

    Args:
        door: Where.
        options: Of ``metagpt_teams``.
        given: The command line.
        load: ``per_s`` of bulk calls, and ``seed``.
        out: Folder for what the teams leave.
    """
    await door.forget()
    log = out.with_suffix(".log")
    with log.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            str(given.team_python),
            *("-m", "benchmarks.metagpt_teams", "--url", door.url, "--model", door.model),
            *("--out", str(out), "--tokens", str(given.tokens), *options),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"ready\n", log.read_text()
            await door.forget()
            async with bulk(door, load["per_s"], load["seed"]) as traffic:
                await asyncio.sleep(_LEAD_S if load["per_s"] else 0.0)
                process.stdin.write(b"\n")
                status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert status == 0, log.read_text()
    return Turn([read_result(out.name, folder) for folder in sorted(out.iterdir())], traffic)


async def measure(
    doors: Doors, given: argparse.Namespace, num_files: int, load: str, per_s: float, scratch: Path
) -> dict[str, list[Turn]]:
    """Run all ways by turns; return their turns by way."""
    found: dict[str, list[Turn]] = {way: [] for way in given.ways}
    num_teams = given.teams if load in ("teams", "both") else 1
    for turn in range(given.repeat):
        rng = random.Random(turn)
        begin = sorted(rng.uniform(0.0, _WITHIN_S) for _ in range(num_teams))
        options = ["--files", str(num_files), "--seed", str(turn), "--begin"]
        options += [f"{begin_s - begin[0]:.3f}" for begin_s in begin]
        options += ["--same-role"] if given.same_role else []
        traffic = {"per_s": per_s if load in ("bulk", "both") else 0.0, "seed": turn}
        shift = turn % len(given.ways)
        for way in (*given.ways[shift:], *given.ways[:shift]):
            is_parrot, own = WAYS[way]
            door = doors.parrot if is_parrot else doors.stock
            out = scratch / f"{num_files}-{load}-{turn}-{way.replace(' ', '-')}"
            found[way].append(await run_teams(door, [*own, *options], given, traffic, out))
            print(f"    {way}: {found[way][-1].mean_s:.2f} s", file=sys.stderr, flush=True)
    return found


def rows(
    named: Mapping[str, Cell], turns: Mapping[str, Sequence[Turn]], bounds_s: Sequence[float]
) -> list[dict[str, Cell]]:
    """Return the columns of the results, a row for each way."""
    base = next(iter(turns.values()))
    found = []
    for way, of_way in turns.items():
        row: dict[str, Cell] = {**named, "num_calls": len(of_way[0].teams[0].calls), "way": way}
        row |= cells("mean_job_s", spread([turn.mean_s for turn in of_way]))
        last_s = [max(team.e2e_s for team in turn.teams) for turn in of_way]
        row |= cells("slowest_job_s", spread(last_s))
        over = [t.mean_s / bound_s for t, bound_s in zip(of_way, bounds_s, strict=False)]
        row |= cells("bound_s", spread(bounds_s) if bounds_s else None)
        row |= cells("over_bound", spread(over) if over else None)
        faster = [a.mean_s / b.mean_s for a, b in zip(base, of_way, strict=True)]
        row |= cells("speedup", spread(faster))
        row["prompt_tokens"] = of_way[-1].prompt_tokens
        row["computed_tokens"] = of_way[-1].computed_tokens
        bulk_s = list(itertools.chain(*(turn.bulk.latencies_s for turn in of_way)))
        row |= cells("bulk_s", spread(bulk_s) if bulk_s else None)
        row |= cells("bulk_per_s", spread([turn.bulk.per_s for turn in of_way]))
        row |= cells("busy_share", spread([turn.bulk.busy_share for turn in of_way]), 2)
        found.append(row)
    return found


async def run(given: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure every engine, size and load."""
    found: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for engine in given.engines:
            async with open_doors(engine, given) as doors:
                await capacity_per_s(doors.parrot, given.max_requests, given.max_requests)
                most = await capacity_per_s(
                    doors.stock, 2 * given.max_requests, 4 * given.max_requests
                )
                per_s = given.bulk_share * most
                for num_files in given.files:
                    bounds_s: list[float] = []
                    for load in given.loads:
                        folder = Path(scratch) / engine
                        folder.mkdir(exist_ok=True)
                        turns = await measure(doors, given, num_files, load, per_s, folder)
                        if load == "none":
                            bounds_s = [bound_of(t.teams) for t in turns["Parrot provider"]]
                        named = name_row(engine, num_files, load, per_s, given)
                        new = rows(named, turns, bounds_s)
                        found += new
                        show(new)
    return found


def name_row(
    engine: str, num_files: int, load: str, per_s: float, given: argparse.Namespace
) -> dict[str, Cell]:
    """Return the columns that say what was run."""
    return {
        "engine": engine,
        "load": load,
        "num_files": num_files,
        "teams": given.teams if load in ("teams", "both") else 1,
        "bulk_offered_per_s": round(per_s, 2) if load in ("bulk", "both") else 0,
        "tokens_per_call": given.tokens,
        "same_role": str(given.same_role),
        "kv_tokens": given.kv_tokens,
        "max_requests": given.max_requests,
        "latency_capacity_tokens": given.latency_capacity,
        "repeat": given.repeat,
    }


def show(new: Sequence[Mapping[str, Cell]]) -> None:
    """Print the rows of one engine, size and load."""
    first = new[0]
    print(
        f"{first['engine']}, {first['num_files']} files, {first['teams']} teams of "
        f"{first['num_calls']} calls, load {first['load']}, {first['bulk_offered_per_s']} bulk "
        "calls/s offered",
        flush=True,
    )
    for row in new:
        print(
            f"  {row['way']:16} {shown(row, first, 'mean_job_s')} "
            f"{row['over_bound_median'] or 0:>6.2f} bound  {row['computed_tokens']} of "
            f"{row['prompt_tokens']} prompt tokens computed; bulk {row['bulk_per_s_median']}/s, "
            f"{row['bulk_s_median']} s each; process busy {row['busy_share_median']}",
            flush=True,
        )


def parser() -> argparse.ArgumentParser:
    """Return the command line's."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--files", type=int, nargs="+", default=[4, 16])
    found.add_argument("--engines", nargs="+", default=["scripted", "vllm"])
    found.add_argument("--loads", nargs="+", default=["none", "bulk"], choices=LOADS)
    found.add_argument("--ways", nargs="+", default=list(WAYS)[:3], choices=list(WAYS))
    found.add_argument("--teams", type=int, default=4)
    found.add_argument("--bulk-share", type=float, default=0.8)
    found.add_argument("--kv-tokens", type=int, default=65_536)
    found.add_argument("--max-requests", type=int, default=16)
    found.add_argument("--latency-capacity", type=int, default=6_144)
    found.add_argument("--tokens", type=int, default=64, help="length of every reply")
    found.add_argument(
        "--same-role", action="store_true", help="all roles have the same system message"
    )
    found.add_argument("--repeat", type=int, default=1)
    found.add_argument("--model", help="for vLLM; the tiny model by default")
    found.add_argument("--team-python", type=Path, default=TEAM_PYTHON)
    found.add_argument("--save", action="store_true")
    return found


def main() -> int:
    """Measure, print, and save on request."""
    given = parser().parse_args()
    found = asyncio.run(run(given))
    if given.save:
        print(f"saved to {append_rows('metagpt', found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
