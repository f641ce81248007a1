"""Fixtures: a model client on a fake server in process, on a scripted one, and on vLLM.

Where AutoGen is not installed, nothing in this folder is collected.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import stamina

import parrot_integrations as P
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.helpers.served import SERVER_PYTHON, parrot_serve

if TYPE_CHECKING:
    from parrot_integrations.autogen import ParrotChatCompletionClient

URL = "http://parrot.test"

if importlib.util.find_spec("autogen_core") is None:
    collect_ignore_glob = ["*"]


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry without pauses, and see no settings of the developer's."""
    for name in list(os.environ):
        if name.startswith("PARROT_") and name != SERVER_PYTHON:
            monkeypatch.delenv(name)
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture
def fake() -> Iterator[FakeParrot]:
    fake = FakeParrot()
    yield fake
    fake.shut_down()


@pytest.fixture
def async_client(fake: FakeParrot) -> P.AsyncParrotClient:
    """A client without connections, so that nothing is left open when its loop ends."""
    return P.AsyncParrotClient(URL, transport=httpx.MockTransport(fake.ahandle))


@pytest.fixture
def client(async_client: P.AsyncParrotClient) -> ParrotChatCompletionClient:
    from parrot_integrations.autogen import ParrotChatCompletionClient

    return ParrotChatCompletionClient(async_client=async_client)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(scope="session")
def vllm_url() -> Iterator[str]:
    """A real server with the tiny model; to start one takes seconds."""
    root = Path(__file__).parents[3]
    python = os.environ.get(SERVER_PYTHON) or str(root / ".venv" / "bin" / "python")
    found = subprocess.run([python, "-c", "import vllm"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{python} has no vLLM; {SERVER_PYTHON} names an interpreter that has")
    with parrot_serve("--kv-cache-gib", "0.25", python=python) as url:
        yield url
