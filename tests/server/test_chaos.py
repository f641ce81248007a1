"""Engines and clients that go away at random, under load: everybody gets an answer."""

from __future__ import annotations

import asyncio
import random

import httpx

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import chain
from tests.server.toy_engine import ToyPlan

NUM_KILLS = 200
NUM_CLIENTS = 40


async def test_nobody_hangs_over_many_random_kills(start: StartServer):
    rng = random.Random(7)
    plans = [ToyPlan(delay_s=0.002, max_requests=4) for _ in range(3)]
    server = await start(
        *plans,
        engine_restart_delay_s=0.001,
        engine_restart_max_delay_s=0.001,
        engine_restarts_per_hour=10_000,
        max_attempts=3,
    )
    is_over = asyncio.Event()
    clients = [asyncio.create_task(submit_often(server, is_over)) for _ in range(NUM_CLIENTS)]

    for _ in range(NUM_KILLS):
        await asyncio.sleep(rng.random() * 0.01)
        rng.choice(plans).engine.die()
    is_over.set()
    async with asyncio.timeout(20):
        states = [state for client in clients for state in await client]

    assert set(states) <= {"ready", "failed"}
    assert states.count("ready") > NUM_CLIENTS
    assert sum(len(plan.made) for plan in plans) > NUM_KILLS / 2
    assert_nothing_is_left(server)


async def test_clients_that_leave_at_random_leave_nothing_behind(start_listening: StartServer):
    rng = random.Random(7)
    server = await start_listening(ToyPlan(delay_s=0.005))
    tasks = []
    for number in range(100):
        body = chain(stream=number % 2 == 0, on_disconnect=rng.choice(["cancel", "continue"]))
        tasks.append(asyncio.create_task(server.submit(**body)))
        await asyncio.sleep(rng.random() * 0.004)
        rng.choice(tasks).cancel()

    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: server.service.runtime.num_waiters == 0)
    await until(lambda: server.service.coordinator.num_unfinished_calls == 0)

    assert_nothing_is_left(server)


async def submit_often(server: RunningServer, is_over: asyncio.Event) -> list[str]:
    states: list[str] = []
    while not is_over.is_set():
        reply: httpx.Response = await server.submit(**chain())
        states += [view["state"] for view in reply.json()["variables"].values()]
    return states


def assert_nothing_is_left(server: RunningServer) -> None:
    assert server.service.runtime.num_waiters == 0
    assert server.service.coordinator.num_unfinished_calls == 0
    assert server.service.coordinator.num_waiting == 0
    assert all(not engine.running for engine in server.service.coordinator.engines.values())
