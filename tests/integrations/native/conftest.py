"""Fixtures: a fake server, clients that talk to it in process, and programs that use them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import stamina

import parrot_integrations as P
from tests.helpers.fake_parrot import FakeParrot

URL = "http://parrot.test"


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry without pauses, and see no settings of the developer's."""
    for name in list(os.environ):
        if name.startswith("PARROT_"):
            monkeypatch.delenv(name)
    with stamina.set_testing(True, attempts=5, cap=True):
        yield
    P.reset()


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
async def async_client(fake: FakeParrot) -> AsyncIterator[P.AsyncParrotClient]:
    transport = httpx.MockTransport(fake.ahandle)
    async with P.AsyncParrotClient(URL, transport=transport) as client:
        yield client


@pytest.fixture
def program(client: P.ParrotClient) -> Iterator[P.Program]:
    with P.program(client=client) as program:
        yield program
