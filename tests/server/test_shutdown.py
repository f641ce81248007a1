from __future__ import annotations

import asyncio

import httpx

from tests.server.conftest import StartServer, until
from tests.server.programs import one_call
from tests.server.sse import stream_submit
from tests.server.toy_engine import ToyPlan


async def test_a_shutdown_lets_running_calls_finish(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan, drain_timeout_s=5)
    waiting = asyncio.create_task(server.submit(**one_call()))
    await until(lambda: bool(plan.engine.running))

    draining = asyncio.create_task(server.service.drain())
    await asyncio.sleep(0)
    plan.engine.finish("in time")

    assert (await waiting).json()["variables"]["out"]["value"] == "in time"
    await asyncio.wait_for(draining, 30)


async def test_a_draining_server_refuses_new_work(start: StartServer):
    server = await start(ToyPlan(is_held=True), drain_timeout_s=5)
    await server.submit(**one_call(wait=False))
    draining = asyncio.create_task(server.service.drain())
    await asyncio.sleep(0)

    submitted = await server.submit(**one_call())
    ready = await server.client.get("/ready")
    health = await server.client.get("/health")
    draining.cancel()

    assert (submitted.status_code, submitted.json()["error"]["code"]) == (503, "shutting_down")
    assert submitted.headers["Retry-After"] == "5"
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "shutting_down")
    assert health.status_code == 200


async def test_a_shutdown_answers_every_waiter(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan)
    waiting = [asyncio.create_task(server.submit(**one_call())) for _ in range(3)]
    streaming = asyncio.create_task(events_of(server.client))
    await until(lambda: server.service.runtime.num_waiters == 4)

    await server.service.drain()

    views = [(await task).json()["variables"]["out"] for task in waiting]
    assert [view["state"] for view in views] == ["cancelled"] * 3
    assert [view["error"]["code"] for view in views] == ["cancelled"] * 3
    assert await streaming == ["session", "variable", "done"]
    assert server.service.runtime.num_waiters == 0


async def test_a_shutdown_closes_the_engines_even_when_they_hang(start: StartServer):
    plan = ToyPlan(hangs_in_close=True)
    server = await start(plan)

    async with asyncio.timeout(2):
        await server.service.stop()

    assert plan.engine.is_closed
    assert len(plan.made) == 1


async def test_a_shutdown_does_not_wait_for_an_engine_that_is_still_opening(
    start: StartServer,
):
    never = ToyPlan(opens=False)
    server = await start(ToyPlan(), never)

    async with asyncio.timeout(2):
        await server.service.stop()

    assert never.engine.is_closed


async def events_of(client: httpx.AsyncClient) -> list[str]:
    return [kind async for kind, _ in stream_submit(client, one_call())]
