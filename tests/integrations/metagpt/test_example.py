"""The example as it is started: what it writes, and that it notices what MetaGPT swallows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from metagpt.configs.llm_config import LLMType
from metagpt.provider.llm_provider_registry import LLM_REGISTRY
from metagpt.provider.openai_api import OpenAILLM
from metagpt.roles.role import Role
from metagpt.team import Team
from metagpt.utils.common import CodeParser

from examples.metagpt.run_team import main as run_team_here
from parrot_backend.engines.scripted import ScriptedConfig
from tests.helpers.scripted_server import scripted_server
from tests.integrations.metagpt.conftest import ROOT

pytestmark = pytest.mark.e2e


def run_team(out: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.metagpt.run_team", "--url", url, "--out", str(out)]
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


def test_a_server_that_is_away_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # In this process, where MetaGPT's retries make no pauses, and all is put back in the end.
    changed = [(Team, "run"), (Team, "run_project"), (Role, "run"), (CodeParser, "parse_code")]
    for owner, name in [*changed, (OpenAILLM, "acompletion_text"), (OpenAILLM, "_update_costs")]:
        monkeypatch.setattr(owner, name, owner.__dict__.get(name, getattr(owner, name)))
    providers = LLM_REGISTRY.providers
    monkeypatch.setitem(providers, LLMType.OPENAI, providers[LLMType.OPENAI])
    with scripted_server() as server:
        url = server.url
    assert run_team_here(["--url", url, "--files", "1", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "0 calls of 8 were answered" in said
    assert "module_0.py was not written" in said
    assert json.loads((tmp_path / "run.json").read_text())["calls"] == []
