"""Clients that go away, over real connections."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import one_call
from tests.server.sse import stream_submit
from tests.server.toy_engine import ToyPlan


@pytest.fixture
def plan() -> ToyPlan:
    return ToyPlan(is_held=True)


async def submit_and_leave(server: RunningServer, plan: ToyPlan, **fields: Any) -> None:
    """Submit a call that the engine holds, and close the connection when it runs."""
    waiting = asyncio.create_task(server.submit(**one_call(**fields)))
    await until(lambda: bool(plan.engine.running))
    assert server.service.runtime.num_waiters == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_work_goes_on_without_its_client(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan)

    await submit_and_leave(server, plan)
    await until(lambda: server.service.runtime.num_waiters == 0)

    assert plan.engine.running
    assert plan.engine.aborted == []


async def test_work_is_cancelled_with_its_client_on_request(
    start_listening: StartServer, plan: ToyPlan
):
    server = await start_listening(plan)

    await submit_and_leave(server, plan, on_disconnect="cancel")
    await until(lambda: bool(plan.engine.aborted))

    assert server.service.runtime.num_waiters == 0
    assert server.service.coordinator.num_unfinished_calls == 0


async def test_leaving_in_mid_stream_cancels_on_request(
    start_listening: StartServer, plan: ToyPlan
):
    server = await start_listening(plan)
    body = one_call(on_disconnect="cancel")

    async with aclosing(stream_submit(server.client, body)) as events:
        async for kind, _ in events:
            if kind == "session":
                plan.engine.say("some")
            if kind == "token":
                break
    await until(lambda: bool(plan.engine.aborted))

    assert server.service.runtime.num_waiters == 0
    assert server.service.coordinator.num_unfinished_calls == 0


async def test_leaving_in_mid_stream_leaves_nothing_behind(
    start_listening: StartServer, plan: ToyPlan
):
    server = await start_listening(plan)

    async with aclosing(stream_submit(server.client, one_call())) as events:
        async for _ in events:
            break
    await until(lambda: server.service.runtime.num_waiters == 0)

    assert plan.engine.running


async def test_the_other_client_still_gets_its_value(start_listening: StartServer, plan: ToyPlan):
    server = await start_listening(plan)
    body = one_call(idempotency_key="k", on_disconnect="cancel")
    staying = asyncio.create_task(server.submit(**body))
    leaving = asyncio.create_task(server.submit(**body))
    await until(lambda: server.service.runtime.num_waiters == 2)

    leaving.cancel()
    await until(lambda: server.service.runtime.num_waiters == 1)
    plan.engine.finish("yes")

    assert (await staying).json()["variables"]["out"]["value"] == "yes"
