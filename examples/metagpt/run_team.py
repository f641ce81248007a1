"""Lets the team write a project in one way, and says what happened.

    python -m examples.metagpt.run_team --way parrot --url http://127.0.0.1:8642 --out project

Ways: ``openai`` takes MetaGPT's own provider for OpenAI's API, against any server that speaks it
(vLLM's, or Parrot's own endpoint); ``parrot`` takes Parrot's provider. Nothing else differs.

MetaGPT logs what fails and returns as if nothing had happened, so the calls and the files are
counted here: the exit status is 1 if any is missing, or the session that Parrot should have seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.metagpt import workplace  # noqa: F401 - before metagpt

# isort: split
from loguru import logger
from metagpt.config2 import Config
from metagpt.configs.llm_config import LLMType
from metagpt.provider.llm_provider_registry import LLM_REGISTRY, create_llm_instance

from examples.metagpt.extra_body import send_in_body
from examples.metagpt.recording import RunNotes, begin_notes, record
from examples.metagpt.team import name_of, write_project
from parrot_backend.protocol import SessionView
from parrot_integrations.metagpt import install, watch_runs

_SAME_ROLE = "You belong to a team that writes a program together. Do what the user asks of you."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the team, write its files and ``run.json``, and return the exit status."""
    given = _parser().parse_args(arguments)
    logger.remove()
    logger.add(sys.stderr, level="INFO" if given.verbose else "ERROR")
    extra = {"ignore_eos": True, "min_tokens": given.tokens} if given.exactly else {}
    if given.way == "parrot":
        install(extra=extra, shares_first=given.shares_first)
    elif extra:
        send_in_body(extra)
    record(LLM_REGISTRY.get_provider(LLMType.OPENAI))
    files, notes, views = asyncio.run(_run(given))
    missing = _missing(files, notes, given.files, given.rounds)
    if given.way == "parrot" and len(views) != 1:
        missing.append(f"the server showed {len(views)} sessions of the run, not one")
    if given.out is not None:
        _write(given.out, files, notes, views[0] if views else None)
    for line in missing:
        print(f"failed: {line}", file=sys.stderr)
    if not missing:
        print(f"{given.way}: {notes.num_answered} calls in {_end_s(notes):.2f} s")
    return bool(missing)


async def _run(given: argparse.Namespace) -> tuple[dict[str, str], RunNotes, list[SessionView]]:
    config = Config.from_llm_config(
        {
            "api_type": "openai",
            "base_url": f"{given.url.rstrip('/')}/v1",
            "api_key": given.api_key,
            "model": given.model,
            "max_token": given.tokens,
            "calc_usage": False,
            "stream": given.stream,
        }
    )
    notes = RunNotes()
    with watch_runs() as runs:
        try:
            # Connections, and what is only made once, are not the team's.
            await create_llm_instance(config.llm).aask("Hello.")
            notes = begin_notes()
            role = _SAME_ROLE if given.same_role else ""
            files = await write_project(config, given.files, given.rounds, role=role)
        except Exception as exc:  # noqa: BLE001 - MetaGPT returned None, and the team has no files
            print(f"failed: {type(exc).__name__}: {exc}", file=sys.stderr)
            files = {}
    return files, notes, [view for run in runs for view in run.views]


def _missing(files: Mapping[str, str], notes: RunNotes, num_files: int, rounds: int) -> list[str]:
    """Say what a whole run has and this one has not."""
    expected = 1 + num_files + 2 * num_files * rounds
    found = []
    if notes.num_answered != expected:
        found.append(f"{notes.num_answered} calls of {expected} were answered")
    found += [
        f"{name_of(i)} was not written" for i in range(num_files) if not files.get(name_of(i))
    ]
    return found


def _write(
    folder: Path, files: Mapping[str, str], notes: RunNotes, view: SessionView | None
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, code in files.items():
        (folder / name).write_text(code, encoding="utf-8")
    run: dict[str, Any] = {
        "e2e_s": _end_s(notes),
        "prompt_chars": sum(len(call.prompt) for call in notes.calls),
        "calls": notes.to_json(),
        "session": None if view is None else view.model_dump(mode="json"),
    }
    (folder / "run.json").write_text(json.dumps(run, indent=1), encoding="utf-8")


def _end_s(notes: RunNotes) -> float:
    """Return the time from the first call's begin to the last one's end."""
    ends_s = [call.end_s for call in notes.calls if call.end_s is not None]
    return max(ends_s) - notes.calls[0].begin_s if ends_s else 0.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=("openai", "parrot"), default="parrot")
    parser.add_argument("--url", default="http://127.0.0.1:8642", help="without /v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model", default="default", help="OpenAI's servers want the name")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512, help="longest reply")
    parser.add_argument("--exactly", action="store_true", help="every reply has --tokens tokens")
    parser.add_argument("--stream", action="store_true", help="as MetaGPT does by default")
    parser.add_argument(
        "--shares-first", action="store_true", help="put what prompts share first: other prompts"
    )
    parser.add_argument(
        "--same-role", action="store_true", help="all roles have the same system message"
    )
    parser.add_argument("--out", type=Path, help="folder for the files and run.json")
    parser.add_argument("--verbose", action="store_true", help="MetaGPT's own log")
    return parser


if __name__ == "__main__":
    sys.exit(main())
