"""The example as it is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.scripted_server import ScriptedServer

ROOT = Path(__file__).parents[3]


@pytest.mark.e2e
def test_the_team_of_poets(server: ScriptedServer) -> None:
    done = subprocess.run(
        [sys.executable, "examples/autogen/team.py", "--turns", "3"],
        cwd=ROOT,
        env={**os.environ, "PARROT_BASE_URL": server.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("---")]
    assert [line.split()[1] for line in said[:4]] == ["user", "poet", "critic", "counter"]
    assert "generated" in said[-1]
