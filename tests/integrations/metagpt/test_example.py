"""The example as it is started: what it writes, and that it notices what MetaGPT swallows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_backend.engines.scripted import ScriptedConfig
from tests.helpers.scripted_server import scripted_server
from tests.integrations.metagpt.conftest import ROOT

pytestmark = pytest.mark.e2e


def run_team(out: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.metagpt.run_team", "--url", url, "--out", str(out)]
    # MetaGPT's retry pauses for up to a minute; what it does is the same without.
    return subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


@pytest.mark.parametrize("way", ["openai", "parrot"])
def test_a_whole_run(tmp_path: Path, way: str) -> None:
    with scripted_server(ScriptedConfig(max_model_len=100_000)) as server:
        options = ("--files", "2", "--rounds", "1", "--tokens", "30", "--exactly", "--way", way)
        done = run_team(tmp_path, server.url, "--model", "scripted", *options)
    assert done.returncode == 0, done.stderr
    assert "7 calls" in done.stdout
    run = json.loads((tmp_path / "run.json").read_text())
    assert [call["completion_tokens"] for call in run["calls"]] == [30] * 7
    assert {path.name for path in tmp_path.glob("*.py")} == {"module_0.py", "module_1.py"}
    assert (run["session"] is None) == (way == "openai")


@pytest.mark.parametrize("way", ["openai", "parrot"])
def test_failed_calls_are_noticed(tmp_path: Path, way: str) -> None:
    with scripted_server(ScriptedConfig(fail_on="Review the file `module_1.py`")) as server:
        options = ("--files", "2", "--rounds", "1", "--tokens", "30", "--way", way)
        done = run_team(tmp_path, server.url, "--model", "scripted", *options)
    assert done.returncode == 1
    assert "calls of 7 were answered" in done.stderr
