"""Tests of other environments: all are run, and one that fails or is missing is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scripts.environments import clients
from scripts.environments.table import ClientEnvironment


def row(name: str) -> ClientEnvironment:
    return ClientEnvironment(
        name, extras=(), imports=(), tests=f"tests/{name}", typed=(f"sources/{name}",)
    )


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two environments, whose Python notes what it is asked for."""
    monkeypatch.setattr(clients, "ROOT", tmp_path)
    monkeypatch.setattr(clients, "CLIENTS", (row("one"), row("two")))
    for name, status in (("one", 1), ("two", 0)):
        python = tmp_path / ".venvs" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\nexit {status}\n')
        python.chmod(0o755)
    return tmp_path


def test_all_are_run_and_a_failure_is_told(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert clients.main(["test", "-x"]) == 1
    asked = (checkout / "asked").read_text()
    assert asked == "one -m pytest tests/one -x\ntwo -m pytest tests/two -x\n"
    assert capfd.readouterr().err == "failed in one\n"


def test_all_is_well(checkout: Path) -> None:
    python = checkout / ".venvs" / "one" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    assert clients.main(["test"]) == 0


def test_a_missing_environment_is_an_error(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / ".venvs" / "one" / "bin" / "python").unlink()
    assert clients.main(["test"]) == 1
    assert capsys.readouterr().err == "environments are missing: one; run `make setup`\n"
    assert not (checkout / "asked").exists()


def test_types_are_checked_with_the_packages_of_a_row(checkout: Path) -> None:
    folder = checkout / "sources" / "one"
    folder.mkdir(parents=True)
    (folder / "part.py").touch()
    command = clients.types_command(row("one"), [])
    assert command is not None
    assert command[:3] == [sys.executable, "-m", "mypy"]
    assert command[4] == str(checkout / ".venvs" / "one" / "bin" / "python")
    assert command[-1] == "sources/one/part.py"
    assert clients.types_command(row("two"), []) is None


@pytest.mark.parametrize("arguments", [[], ["tests"]])
def test_what_is_not_known(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert clients.main(arguments) == 2
    assert "test|types" in capsys.readouterr().out
