"""The comparison's folder: what it did not write stays; and runs without a session are noticed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples.metagpt import compare, own_files
from examples.metagpt.records import RunResult
from examples.metagpt.report import planned
from examples.metagpt.runner import RunFailed


def names_in(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return found - {own_files.LIST_NAME}


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")


@pytest.mark.parametrize("name", ["new", "new/and/deep", "empty"])
def test_new_and_empty_folders_are_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    folder = tmp_path / name
    with own_files.own_files(folder):
        write(folder, "graph.md", "parrot/a.py")
    assert names_in(folder) == {"graph.md", "parrot", "parrot/a.py"}


def test_the_next_run_deletes_what_the_last_one_wrote_and_nothing_else(tmp_path: Path) -> None:
    with own_files.own_files(tmp_path):
        write(tmp_path, "graph.md", "parrot/a.py", "parrot/b.py", "openai/c.py")
    write(tmp_path, "thesis.txt", "parrot/notes.txt")
    with own_files.own_files(tmp_path):
        assert names_in(tmp_path) == {"thesis.txt", "parrot", "parrot/notes.txt"}
        write(tmp_path, "graph.md")
    with own_files.own_files(tmp_path):
        pass
    assert names_in(tmp_path) == {"thesis.txt", "parrot", "parrot/notes.txt"}


def test_what_a_run_that_fails_wrote_is_its_own(tmp_path: Path) -> None:
    def run() -> None:
        with own_files.own_files(tmp_path):
            write(tmp_path, "engine.log")
            raise RunFailed("away")

    with pytest.raises(RunFailed):
        run()
    with own_files.own_files(tmp_path):
        assert names_in(tmp_path) == set()


def test_other_folders_are_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "thesis.txt", "parrot-provider/mine.py")
    before = names_in(tmp_path)
    arguments = ["--model", "/nonexistent", "--team-python", sys.executable, "--out"]
    for out in (tmp_path, tmp_path / "thesis.txt"):
        monkeypatch.setattr(sys, "argv", ["compare", *arguments, str(out)])
        assert compare.main() == 1
        assert "holds something else" in capsys.readouterr().err
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == before


def test_runs_without_a_session_are_an_error() -> None:
    with pytest.raises(RunFailed, match="no run has a session"):
        planned([RunResult("call by call", 1.0, [], None)])
