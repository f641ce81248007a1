"""Fixtures: a scripted server, what arrives there, and a server with vLLM.

A module is collected only where its framework is installed: each has an environment of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from parrot_backend.engines.scripted import ScriptedConfig
from parrot_backend.models import TINY_MODEL_NAME
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.helpers.served import SERVER_PYTHON, parrot_serve
from tests.integrations.agents.arrivals import Arrivals

#: Module -> the package that it tests.
FRAMEWORKS = {
    "test_ag2.py": "ag2",
    "test_crewai.py": "crewai",
    "test_llama_index.py": "llama_index",
}

collect_ignore = [
    name for name, package in FRAMEWORKS.items() if importlib.util.find_spec(package) is None
]

if "test_crewai.py" not in collect_ignore:
    # Read when the package is imported.
    os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("crewai")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """See no settings of the developer's."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "PARROT_")) and name != SERVER_PYTHON:
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    """A server that says its words one by one."""
    with scripted_server(ScriptedConfig(token_s=0.0005)) as server:
        yield server


@pytest.fixture
def documented_server() -> Iterator[ScriptedServer]:
    """A server with the model that the documents name."""
    with scripted_server(ScriptedConfig(models=(TINY_MODEL_NAME,))) as server:
        yield server


@pytest.fixture
def arrivals(server: ScriptedServer) -> Arrivals:
    server.requests.clear()
    return Arrivals(server)


@pytest.fixture(scope="session")
def vllm_url() -> Iterator[str]:
    """A real server with the tiny model; to start one takes seconds."""
    root = Path(__file__).parents[3]
    python = os.environ.get(SERVER_PYTHON) or str(root / ".venv" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip(f"there is no {python}; {SERVER_PYTHON} names an interpreter that has vLLM")
    found = subprocess.run([python, "-c", "import vllm"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{python} has no vLLM; {SERVER_PYTHON} names an interpreter that has")
    with parrot_serve("--kv-cache-gib", "0.25", python=python) as url:
        yield url
