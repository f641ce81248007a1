"""The example as it is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.documents import run_snippet, snippet
from tests.helpers.scripted_server import ScriptedServer

ROOT = Path(__file__).parents[3]


pytestmark = pytest.mark.e2e


def run_team(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "examples/autogen/team.py", "--turns", "3", *options],
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("--base-url", "http://127.0.0.1:9")])
def test_a_server_that_is_away_is_told_in_a_line(options: tuple[str, ...]) -> None:
    done = run_team(*options)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("failed: ")


def test_the_team_of_poets(server: ScriptedServer) -> None:
    done = run_team(PARROT_BASE_URL=server.url)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("---")]
    assert [line.split()[1] for line in said[:4]] == ["user", "poet", "critic", "counter"]
    assert "generated" in said[-1]


def test_the_documented_team(server: ScriptedServer) -> None:
    code = snippet("docs/agents.md", "ParrotChatCompletionClient(")
    server.requests.clear()
    assert "A poem about rain." in run_snippet(code, server.url)
    assert server.num_submits == 4
