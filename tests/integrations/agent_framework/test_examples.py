"""The example runs with nothing but ``PARROT_BASE_URL``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.helpers.scripted_server import ScriptedServer

EXAMPLES = Path(__file__).parents[3] / "examples" / "agent_framework"


@pytest.mark.e2e
def test_two_agents(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", server.url)
    monkeypatch.setattr(sys, "argv", ["two_agents.py", "the", "sea"])
    server.requests.clear()
    runpy.run_path(str(EXAMPLES / "two_agents.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert said.index("--- writer ---") < said.index("--- critic ---")
    assert server.num_submits == 2
    sessions = list(server.service.coordinator.sessions)[-2:]
    assert all(session.is_closed for session in sessions)


def test_every_example_is_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"two_agents"}
