"""Several of MetaGPT's coding teams in one process, each beginning at its time.

Runs in MetaGPT's environment. It writes ``ready`` when it could begin, begins when it reads a line,
and leaves ``run.json`` of each team in a folder as ``examples.metagpt.run_team`` does. The exit
status is 1 if a call is missing.

    python -m benchmarks.metagpt_teams --way parrot --url URL --model NAME --out FOLDER
        --begin 0 0.5 1.2
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from examples.metagpt import workplace  # noqa: F401 - before metagpt

# isort: split
from loguru import logger
from metagpt.config2 import Config
from metagpt.configs.llm_config import LLMType
from metagpt.provider.llm_provider_registry import LLM_REGISTRY, create_llm_instance

from examples.metagpt.extra_body import send_in_body
from examples.metagpt.recording import begin_notes, record
from examples.metagpt.team import TASK, write_project
from parrot_integrations.metagpt import install, watch_runs

_SAME_ROLE = "You belong to a team that writes a program together. Do what the user asks of you."


def main() -> int:
    """Run the teams and return the exit status."""
    given = _parser().parse_args()
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    extra = {"ignore_eos": True, "min_tokens": given.tokens}
    if given.way == "parrot":
        install(extra=extra, shares_first=given.shares_first)
    else:
        send_in_body(extra)
    record(LLM_REGISTRY.get_provider(LLMType.OPENAI))
    return asyncio.run(_run(given))


async def _run(given: argparse.Namespace) -> int:
    config = Config.from_llm_config(
        {
            "api_type": "openai",
            "base_url": f"{given.url}/v1",
            "api_key": "none",
            "model": given.model,
            "max_token": given.tokens,
            "calc_usage": False,
            "stream": False,
        }
    )
    # Connections, and what is only made once, are not the teams'.
    await create_llm_instance(config.llm).aask("Hello.")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    teams = [
        asyncio.create_task(_team(given, config, number, begin_s))
        for number, begin_s in enumerate(given.begin)
    ]
    missing = sum(await asyncio.gather(*teams))
    if missing:
        print(f"{missing} calls were not answered", file=sys.stderr)
    return bool(missing)


async def _team(given: argparse.Namespace, config: Config, number: int, begin_s: float) -> int:
    """Let a team write its project; return how many calls are missing."""
    await asyncio.sleep(begin_s)
    task = f"Project {given.seed}-{number}. {TASK}"
    role = _SAME_ROLE if given.same_role else ""
    with watch_runs() as runs:
        notes = begin_notes()
        await write_project(config, given.files, task=task, role=role)
    views = [view.model_dump(mode="json") for run in runs for view in run.views]
    run = {
        "e2e_s": max(call.end_s or 0.0 for call in notes.calls),
        "calls": notes.to_json(),
        "session": views[0] if views else None,
    }
    folder = given.out / str(number)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return 1 + 7 * given.files - notes.num_answered


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=("openai", "parrot"), required=True)
    parser.add_argument("--url", required=True, help="without /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--begin", type=float, nargs="+", default=[0.0])
    parser.add_argument("--seed", type=int, default=0, help="makes the teams' tasks")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--shares-first", action="store_true")
    parser.add_argument("--same-role", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
