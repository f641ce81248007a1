"""Fixtures: MetaGPT with Parrot's provider, on a fake server, on a scripted one, and on vLLM.

Where MetaGPT is not installed, nothing in this folder is collected.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina
from tenacity import wait_none

from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.helpers.served import SERVER_PYTHON

ROOT = Path(__file__).parents[3]

if importlib.util.find_spec("metagpt") is None:
    collect_ignore_glob = ["*"]
else:
    # Before MetaGPT, which reads its configuration and writes files where it is imported.
    from examples.metagpt import workplace  # noqa: F401

    with warnings.catch_warnings():
        # It is written for older versions of what it uses.
        warnings.simplefilter("ignore", DeprecationWarning)
        import metagpt.roles
        import metagpt.team  # noqa: F401


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry without pauses, see no settings of the developer's, and leave MetaGPT as it was."""
    from metagpt.provider.openai_api import OpenAILLM

    for name in list(os.environ):
        if name.startswith("PARROT_") and name != SERVER_PYTHON:
            monkeypatch.delenv(name)
    monkeypatch.setattr(OpenAILLM.acompletion_text.retry, "wait", wait_none())
    with stamina.set_testing(True, attempts=2, cap=True):
        yield


@pytest.fixture
def installed() -> Iterator[None]:
    """MetaGPT with ``install()``."""
    from parrot_integrations.metagpt import install

    uninstall = install()
    yield
    uninstall()


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(scope="session")
def main_python() -> str:
    """The interpreter of Parrot's own environment, with vLLM."""
    python = os.environ.get(SERVER_PYTHON) or str(ROOT / ".venv" / "bin" / "python")
    found = subprocess.run([python, "-c", "import vllm"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{python} has no vLLM; {SERVER_PYTHON} names an interpreter that has")
    return python
