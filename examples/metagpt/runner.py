"""Runs the team in a process of its own, in MetaGPT's environment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEAM_PYTHON = ROOT / ".venvs" / "metagpt" / "bin" / "python"

_TAIL_LINES = 12


class RunFailed(Exception):  # noqa: N818 - says what happened
    """A run of the team is not complete; what it said stands above."""


def ways_to(parrot_url: str, model: str, baseline_url: str | None) -> dict[str, list[str]]:
    """Return the ways to run the team, as options of ``run_team``.

    Args:
        parrot_url: The server.
        model: What OpenAI's API calls its model.
        baseline_url: Another server of OpenAI's API, if there is one.
    """
    ways = {
        "OpenAI endpoint": ["--way", "openai", "--url", parrot_url, "--model", model],
        "Parrot provider": ["--way", "parrot", "--url", parrot_url],
    }
    if baseline_url is None:
        return ways
    return {"call by call": ["--way", "openai", "--url", baseline_url, "--model", model], **ways}


async def run_team(python: Path, folder: Path, arguments: Sequence[str]) -> None:
    """Let the team write a project into a folder; its log goes beside it.

    Raises:
        RunFailed: It is not complete.
    """
    log = folder.with_suffix(".log")
    with log.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            str(python),
            *("-m", "examples.metagpt.run_team", "--out", str(folder), *arguments),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log_file,
            stderr=log_file,
        )
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if status:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line]
        print(*lines[-_TAIL_LINES:], sep="\n", file=sys.stderr)
        raise RunFailed(f"the team's run ended with status {status}; its log is {log}")
