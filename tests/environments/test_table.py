"""The table of environments agrees with the project, and says when one is out of date."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.environments import table
from scripts.environments.table import CLIENTS, ROOT, ClientEnvironment, environments

NAMES = [client.name for client in CLIENTS]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("client", CLIENTS, ids=NAMES)
def test_a_row_names_what_exists(client: ClientEnvironment, project: dict[str, Any]) -> None:
    assert set(client.extras) <= project["project"]["optional-dependencies"].keys()
    tests = ROOT / client.tests
    assert tests.is_file() or list(tests.glob("test_*.py"))
    excluded = project["tool"]["mypy"]["exclude"]
    for typed in client.typed:
        path = ROOT / typed
        assert path.is_file() or list(path.glob("*.py"))
        name = typed if path.is_file() else f"{typed}/"
        assert any(re.search(pattern, name) for pattern in excluded)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-oldest")])
def test_the_oldest_version_is_the_lower_bound(name: str, project: dict[str, Any]) -> None:
    framework = name.removesuffix("-oldest")
    (row,) = (client for client in CLIENTS if client.name == name)
    (pin,) = (r for r in row.requirements if r.startswith(f"{framework}=="))
    (bounds,) = (
        requirement
        for requirement in project["project"]["optional-dependencies"][framework]
        if requirement.startswith(framework)
    )
    lower = bounds.partition(">=")[2].split(",")[0]
    assert pin == f"{framework}=={lower}.0"


def test_names_differ_and_the_engine_comes_first() -> None:
    found = environments()
    names = [environment.name for environment in found]
    assert names == [".venv", *(f".venvs/{name}" for name in NAMES)]
    assert len(set(names)) == len(names)
    assert [bool(environment.engine) for environment in found] == [True, *([False] * len(CLIENTS))]


PROJECT = """
[build-system]
requires = ["hatchling"]
[project]
name = "thing"
dependencies = ["base>=1"]
[project.optional-dependencies]
one = ["one>=1"]
tools = ["tool>=1"]
two = ["thing[one, tools]", "two>=1"]
[tool.hatch]
[tool.ruff]
line-length = 100
"""


@pytest.fixture
def fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Returns the fingerprint of an environment with the extra ``two`` for a project file."""
    monkeypatch.setattr(table, "ROOT", tmp_path)

    def of(text: str) -> str:
        (tmp_path / "pyproject.toml").write_text(text)
        return table._fingerprint(("two",))

    return of


@pytest.mark.parametrize(
    ("old", "new", "is_changed"),
    [
        ("base>=1", "base>=2", True),
        ("two>=1", "two>=2", True),
        ("tool>=1", "tool>=2", True),
        ("hatchling", "hatchling>=1", True),
        ("thing[one, tools]", "thing[one]", True),
        ("line-length = 100", "line-length = 90", False),
        ('tools = ["tool>=1"]', 'tools = ["tool>=1"]\nthree = ["three"]', False),
    ],
)
def test_what_a_fingerprint_sees(
    fingerprint: Callable[[str], str], old: str, new: str, is_changed: bool
) -> None:
    assert old in PROJECT
    changed = PROJECT.replace(old, new)
    assert (fingerprint(changed) != fingerprint(PROJECT)) is is_changed
