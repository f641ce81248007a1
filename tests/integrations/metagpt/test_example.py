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

import parrot_integrations as P
from examples.metagpt.run_team import main as run_team_here
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.metagpt import hooks
from tests.helpers.scripted_server import scripted_server
from tests.integrations.metagpt.conftest import ROOT

pytestmark = pytest.mark.e2e

#: What the example, and Parrot's installation in it, change in MetaGPT.
CHANGED = [
    (Team, "run"),
    (Team, "run_project"),
    (Role, "run"),
    (CodeParser, "parse_code"),
    (OpenAILLM, "acompletion_text"),
    (OpenAILLM, "_update_costs"),
]


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


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what the example does to MetaGPT, and Parrot's installation in it."""
    for owner, name in CHANGED:
        monkeypatch.setattr(owner, name, owner.__dict__.get(name, getattr(owner, name)))
    providers = LLM_REGISTRY.providers
    monkeypatch.setitem(providers, LLMType.OPENAI, providers[LLMType.OPENAI])
    for name in ("_in_order", "_wrapped_before"):
        monkeypatch.setattr(hooks, name, [])
    monkeypatch.setattr(hooks, "_providers_before", {})


@pytest.mark.usefixtures("put_back")
def test_a_session_that_the_server_does_not_show_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def away(*_: object) -> None:
        raise P.ConnectionFailed("connection_failed", "gone")

    monkeypatch.setattr(P.AsyncParrotClient, "get_session", away)
    with scripted_server(ScriptedConfig(max_model_len=100_000)) as server:
        assert run_team_here(["--url", server.url, "--files", "1", "--rounds", "1"]) == 1
    assert "the server showed 0 sessions of the run, not one" in capsys.readouterr().err


@pytest.mark.usefixtures("put_back")
def test_a_server_that_is_away_is_noticed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # In this process, where MetaGPT's retries make no pauses.
    with scripted_server() as server:
        url = server.url
    assert run_team_here(["--url", url, "--files", "1", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "0 calls of 8 were answered" in said
    assert "module_0.py was not written" in said
    assert json.loads((tmp_path / "run.json").read_text())["calls"] == []
