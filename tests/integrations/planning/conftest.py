"""Fixtures: a fake server and connections to it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import stamina

from parrot_integrations import AsyncParrotClient, ParrotClient
from parrot_integrations.planning.clients import Connection
from parrot_integrations.settings import ClientSettings
from tests.helpers.fake_parrot import FakeParrot

SETTINGS = ClientSettings("http://parrot.test", max_attempts=3)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture
def fake() -> Iterator[FakeParrot]:
    fake = FakeParrot()
    yield fake
    fake.shut_down()


@pytest.fixture
def connection(fake: FakeParrot) -> Iterator[Connection]:
    with ParrotClient(settings=SETTINGS, transport=httpx.MockTransport(fake.handle)) as client:
        transport = httpx.MockTransport(fake.ahandle)
        yield Connection(
            SETTINGS, client, AsyncParrotClient(settings=SETTINGS, transport=transport)
        )
