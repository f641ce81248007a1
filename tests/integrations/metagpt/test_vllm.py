"""The comparison on real vLLM with the tiny model, as ``make metagpt`` runs it, but smaller."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.metagpt.conftest import ROOT

pytestmark = [pytest.mark.vllm, pytest.mark.e2e, pytest.mark.timeout(400)]


def test_three_ways(tmp_path: Path, main_python: str) -> None:
    options = ("--files", "2", "--rounds", "1", "--tokens", "8", "--team-python", sys.executable)
    done = subprocess.run(
        [main_python, "-m", "examples.metagpt.compare", *options, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 2 coders read the design; 2 reviewers the design and 2 files; 2 revisers a review, too.
    assert "Parrot saw 16 edges" in done.stdout
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"graph.md", "gantt.html", "parrot-provider", "openai-endpoint"} <= written
    assert "Revise-Coder1" in (tmp_path / "out" / "gantt.html").read_text()
