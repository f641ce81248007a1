"""Which environments are made and used; nothing is installed here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.environments import clients, run
from scripts.environments.table import CLIENTS, ClientEnvironment, environments

NEEDED = ClientEnvironment("needed", ("server",), (), "tests/needed")
LARGE = ClientEnvironment("large", ("server",), (), "tests/large", is_on_demand=True)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two rows in its table, whose tests are two commands that do nothing."""
    monkeypatch.setattr(clients, "ROOT", tmp_path)
    monkeypatch.setattr(clients, "CLIENTS", (NEEDED, LARGE))
    monkeypatch.setitem(clients.COMMANDS, "test", lambda row, options: [sys.executable, "-c", ""])
    return tmp_path


def make(root: Path, row: ClientEnvironment) -> None:
    interpreter = root / ".venvs" / row.name / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.touch()


def test_an_absent_environment_on_demand_is_told(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(root, NEEDED)
    assert clients.main(["test"]) == 0
    said = capfd.readouterr()
    assert "NOT RUN: tests/large: there is no .venvs/large" in said.err
    assert "needed" in said.out
    make(root, LARGE)
    assert clients.main(["test"]) == 0
    assert "NOT RUN" not in capfd.readouterr().err


def test_another_absent_environment_is_an_error(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(root, LARGE)
    assert clients.main(["test"]) == 1
    assert "environments are missing: needed" in capfd.readouterr().err


def test_environments_on_demand_are_made_where_they_are_named() -> None:
    on_demand = {client.folder_name for client in CLIENTS if client.is_on_demand}
    assert on_demand == {".venvs/crewai"}
    for environment in environments():
        is_there = environment.interpreter.exists()
        assert run.is_wanted(environment, ()) == (environment.name not in on_demand or is_there)
        assert run.is_wanted(environment, [environment.name])
        assert not run.is_wanted(environment, ["another"])
