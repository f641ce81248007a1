"""Environments are brought up to date in order; what is complete is left alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from scripts.environments import install, run
from scripts.environments.explain import SetupError
from scripts.environments.record import read_record, write_record
from scripts.environments.table import Environment

Make = Callable[[Environment], None]


@pytest.fixture
def pair(
    wanted: Environment, main_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> tuple[Environment, Environment]:
    found = (main_environment, wanted)
    monkeypatch.setattr(run, "environments", lambda: found)
    return found


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was installed."""
    names: list[str] = []
    monkeypatch.setattr(run, "install", lambda environment, _url: names.append(environment.name))
    return names


def test_all_are_installed_in_order(pair: object, installed: list[str]) -> None:
    assert run.main([]) == 0
    assert installed == [".venv", ".venvs/framework"]


def test_some_are_installed(pair: object, installed: list[str]) -> None:
    assert run.main(["--only", ".venvs/framework"]) == 0
    assert installed == [".venvs/framework"]


def test_one_that_is_not_known(pair: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(["--only", ".venvs/other"])
    assert stopped.value.code == 2
    assert ".venvs/other" in capsys.readouterr().err


def test_what_is_complete_is_left_alone(
    pair: Sequence[Environment], installed: list[str], make_folder: Make
) -> None:
    make_folder(pair[0])
    write_record(pair[0], "ready")
    assert run.main([]) == 0
    assert installed == [".venvs/framework"]


def test_a_failure_stops_and_says_why(
    pair: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(environment: Environment, _url: str) -> None:
        raise SetupError(f"{environment.name} cannot be made")

    monkeypatch.setattr(run, "install", fail)
    assert run.main([]) == 1
    assert capsys.readouterr().err == "\nset-up: .venv cannot be made\n"


@pytest.mark.parametrize(
    "failing", [None, "updating pip", "installing", "checking that it imports"]
)
def test_the_record_follows_an_installation(
    wanted: Environment,
    make_folder: Make,
    monkeypatch: pytest.MonkeyPatch,
    failing: str | None,
) -> None:
    commands: list[Sequence[str]] = []

    def run_logged(environment: Environment, command: Sequence[str], title: str) -> int:
        assert read_record(environment)["state"] == "installing"
        environment.log.write_text("$ pip\nERROR: no such thing\n")
        commands.append(command[1:])
        return int(title == failing)

    monkeypatch.setattr(install, "create", make_folder)
    monkeypatch.setattr(install, "run_logged", run_logged)
    monkeypatch.setattr("scripts.environments.explain.ROOT", wanted.folder.parent.parent)
    if failing is None:
        install.install(wanted, "")
        assert commands[1][-3:] == ["--editable", ".[framework,test]", "framework==1.0"]
        assert commands[2] == ["-c", "import json"]
    else:
        with pytest.raises(SetupError, match="no such thing"):
            install.install(wanted, "")
    assert read_record(wanted)["state"] == ("failed" if failing else "ready")


def test_an_interrupted_installation_stays_marked(
    wanted: Environment, make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "create", make_folder)
    monkeypatch.setattr(install, "run_logged", interrupt)
    with pytest.raises(KeyboardInterrupt):
        install.install(wanted, "")
    assert read_record(wanted)["state"] == "installing"


def test_only_the_engine_gets_placeholders(
    main_environment: Environment, make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[Sequence[str]] = []

    def run_logged(_environment: Environment, command: Sequence[str], _title: str) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(install, "run_logged", run_logged)
    for environment in (main_environment, replace(main_environment, engine="")):
        make_folder(environment)
        install.install_project(environment, "")
    assert ["--constraint" in command for command in commands] == [True, False]
    assert list((main_environment.folder / "stub-wheels").glob("*.whl"))


def test_what_stands_alone_comes_last_and_brings_nothing(
    wanted: Environment, make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[Sequence[str]] = []

    def run_logged(_environment: Environment, command: Sequence[str], _title: str) -> int:
        commands.append(command)
        return int("--no-deps" in command and "broken==1" in command)

    monkeypatch.setattr(install, "create", make_folder)
    monkeypatch.setattr(install, "run_logged", run_logged)
    install.install(replace(wanted, alone=("framework==2",)), "")
    assert list(commands[2][-2:]) == ["--no-deps", "framework==2"]
    monkeypatch.setattr(install, "describe_failure", lambda *_: "it broke")
    wanted.log.touch()
    with pytest.raises(SetupError, match="it broke"):
        install.install(replace(wanted, alone=("broken==1",)), "")
