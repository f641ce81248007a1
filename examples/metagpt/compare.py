"""Runs the team in three ways on one engine, and shows what came of it; `make metagpt` runs this.

    python -m examples.metagpt.compare [--files 4] [--rounds 3] [--tokens 64] [--out FOLDER]

* call by call: MetaGPT's own OpenAI provider on vLLM's own OpenAI server (or on ``--baseline``);
* OpenAI endpoint: the same program and provider on Parrot's endpoint for OpenAI's API;
* Parrot provider: ``install()``, and nothing else changed.

The engine, the prompts and the numbers of tokens are the same in all, and each begins with an empty
prefix cache. It runs in Parrot's environment; the team runs in MetaGPT's, ``.venvs/metagpt``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from examples.metagpt.own_files import FolderTaken, own_files
from examples.metagpt.records import RunResult, read_result
from examples.metagpt.report import print_table, write_report
from examples.metagpt.runner import ROOT, TEAM_PYTHON, RunFailed, run_team, ways_to
from parrot_backend.demo.host_process import HostFailed, start_host


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="length of every reply")
    parser.add_argument("--model", help="path or name; the tiny model that ships with Parrot")
    parser.add_argument("--baseline", help="another OpenAI server for call by call, without /v1")
    parser.add_argument("--baseline-model", help="its name of the model")
    parser.add_argument(
        "--shares-first", action="store_true", help="with the Parrot provider: other prompts"
    )
    parser.add_argument(
        "--same-role", action="store_true", help="all roles have the same system message"
    )
    parser.add_argument("--team-python", type=Path, default=TEAM_PYTHON)
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "parrot-demo" / "metagpt",
        help="folder for all results: a new one, an empty one, or an earlier comparison's",
    )
    given = parser.parse_args()
    if not given.team_python.exists():
        print(f"{given.team_python} is missing: run `make setup`", file=sys.stderr)
        return 1
    try:
        with own_files(given.out):
            results = asyncio.run(_compare(given))
            print_table(results)
            written = write_report(given.out, results)
    except (FolderTaken, HostFailed, RunFailed) as exc:
        print(f"failed: {exc}", file=sys.stderr)
        return 1
    for path in written:
        print(f"wrote {path}")
    return 0


async def _compare(given: argparse.Namespace) -> list[RunResult]:
    print("starting the engine (its log is in engine.log)", flush=True)
    arguments = [] if given.model is None else ["--model", given.model]
    async with start_host(arguments, given.out / "engine.log") as host:
        ways = ways_to(host.info.parrot_url, host.info.model, given.baseline or host.info.vllm_url)
        if given.baseline_model is not None:
            ways["call by call"] += ["--model", given.baseline_model]
        if given.shares_first:
            ways["Parrot provider"].append("--shares-first")
        tokens = ["--exactly", "--tokens", str(given.tokens)]
        tokens += ["--same-role"] if given.same_role else []
        size = ["--files", str(given.files), "--rounds", str(given.rounds)]
        # Whatever is slow only once is slow here.
        small = ["--files", "1", "--rounds", "1"]
        for way in ways.values():
            await run_team(given.team_python, given.out / "warm-up", [*way, *tokens, *small])
        results = []
        for name, way in ways.items():
            await host.reset_prefix_cache()
            folder = given.out / name.replace(" ", "-").lower()
            await run_team(given.team_python, folder, [*way, *tokens, *size])
            results.append(read_result(name, folder))
    return results


if __name__ == "__main__":
    sys.exit(main())
