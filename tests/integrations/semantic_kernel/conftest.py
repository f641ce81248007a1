"""Fixtures of the connectors' tests, named as in the framework's own unit tests.

Where Semantic Kernel is not installed, nothing in this folder is collected.
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

from parrot_integrations import AsyncParrotClient
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.helpers.served import SERVER_PYTHON, parrot_serve
from tests.helpers.unpatched_asyncio import unpatched_asyncio

if TYPE_CHECKING:
    from semantic_kernel.contents import ChatHistory

    from parrot_integrations.semantic_kernel import ParrotChatCompletion, ParrotTextCompletion

URL = "http://parrot.test"

if importlib.util.find_spec("semantic_kernel") is None:
    collect_ignore_glob = ["*"]


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Retry without pauses, and see no settings of the developer's, nor a ``.env`` file."""
    for name in list(os.environ):
        if name.startswith("PARROT_") and name != SERVER_PYTHON:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture(autouse=True)
def asyncio_for_each_test() -> Iterator[None]:
    """Begin each test with asyncio as Python has it; Handlebars templates have it patched."""
    with unpatched_asyncio():
        yield


@pytest.fixture
def model_id() -> str:
    return "test_model_id"


@pytest.fixture
def service_id() -> str:
    return "test_service_id"


@pytest.fixture
def host() -> str:
    return URL


@pytest.fixture
def prompt() -> str:
    return "test_prompt"


@pytest.fixture
def chat_history(prompt: str) -> ChatHistory:
    from semantic_kernel.contents import ChatHistory

    chat_history = ChatHistory()
    chat_history.add_user_message(prompt)
    return chat_history


@pytest.fixture
def exclude_list(request: pytest.FixtureRequest) -> list[str]:
    """Environment variables that are not set, by indirect parametrization."""
    return list(getattr(request, "param", []))


@pytest.fixture
def parrot_unit_test_env(
    monkeypatch: pytest.MonkeyPatch, host: str, exclude_list: list[str]
) -> dict[str, str]:
    """Set the environment variables of ``ParrotSettings``, but for those in ``exclude_list``."""
    env = {
        "PARROT_CHAT_MODEL_ID": "test_chat_model_id",
        "PARROT_TEXT_MODEL_ID": "test_text_model_id",
        "PARROT_HOST": host,
        "PARROT_API_KEY": "test_api_key",
    }
    kept = {name: value for name, value in env.items() if name not in exclude_list}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    return kept


@pytest.fixture
def fake() -> Iterator[FakeParrot]:
    fake = FakeParrot()
    yield fake
    fake.shut_down()


@pytest.fixture
def custom_client(fake: FakeParrot) -> AsyncParrotClient:
    """A client without connections, so that nothing is left open when its loop ends."""
    return AsyncParrotClient(URL, transport=httpx.MockTransport(fake.ahandle))


@pytest.fixture
def chat(custom_client: AsyncParrotClient) -> ParrotChatCompletion:
    from parrot_integrations.semantic_kernel import ParrotChatCompletion

    return ParrotChatCompletion(client=custom_client)


@pytest.fixture
def text(custom_client: AsyncParrotClient) -> ParrotTextCompletion:
    from parrot_integrations.semantic_kernel import ParrotTextCompletion

    return ParrotTextCompletion(client=custom_client)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A real server with the scripted engine."""
    with scripted_server() as server:
        yield server


@pytest.fixture(scope="session")
def vllm_url() -> Iterator[str]:
    """A real server with the tiny model; to start one takes seconds."""
    python = server_python()
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    is_there = Path(python).exists()
    if not is_there or subprocess.run([python, "-c", look], check=False).returncode:
        pytest.skip(f"{python} has no vLLM; {SERVER_PYTHON} names an interpreter that has")
    with parrot_serve("--kv-cache-gib", "0.25", python=python) as url:
        yield url


def server_python() -> str:
    """Return the interpreter of servers with vLLM, which cannot be installed beside the client."""
    root = Path(__file__).parents[3]
    return os.environ.get(SERVER_PYTHON) or str(root / ".venv" / "bin" / "python")
