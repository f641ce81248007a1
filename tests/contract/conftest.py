"""The one vLLM engine that most tests of it share; to start one takes seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.contract.driver import EngineDriver, open_driver
from tests.contract.vllm_engines import make_engine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_driver() -> AsyncIterator[EngineDriver]:
    driver = await open_driver(make_engine())
    yield driver
    await driver.close()
