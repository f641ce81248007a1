"""Engines that die, hang, or do not start: the server stays up and everybody gets an answer."""

from __future__ import annotations

import asyncio
import logging

import pytest

from parrot_backend.core.ids import AttemptId
from parrot_backend.engines.base import EngineRequest
from tests.server.conftest import StartServer, make_app, until
from tests.server.programs import call, one_call, wanted
from tests.server.toy_engine import ToyPlan


async def test_calls_go_on_when_their_engine_is_replaced(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)

    waiting = asyncio.create_task(server.submit(**one_call()))
    await until(lambda: bool(plan.engine.running))
    plan.engine.die()
    await until(lambda: len(plan.made) == 2 and bool(plan.engine.running))
    plan.engine.finish("second try")

    assert (await waiting).json()["variables"]["out"]["value"] == "second try"
    assert [engine.id for engine in plan.made] == ["toy-0", "toy-0.1"]
    assert plan.made[0].is_closed


async def test_calls_move_to_another_engine(start: StartServer):
    plans = ToyPlan(is_held=True), ToyPlan(is_held=True)
    server = await start(*plans, engine_restart_delay_s=60)

    waiting = asyncio.create_task(server.submit(**one_call()))
    await until(lambda: any(plan.made and plan.engine.running for plan in plans))
    first, other = plans if plans[0].engine.running else plans[::-1]
    first.engine.die()
    await until(lambda: bool(other.engine.running))
    other.engine.finish("elsewhere")

    assert (await waiting).json()["variables"]["out"]["value"] == "elsewhere"


async def test_a_call_that_loses_its_engine_too_often_fails_with_the_cause(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan, max_attempts=2)
    nodes = [call("a", "x{{output:x}}"), call("b", "{{input:x}}{{output:y}}")]

    waiting = asyncio.create_task(server.submit(nodes=nodes, outputs=wanted("y")))
    for number in (1, 2):
        await until(lambda: len(plan.made) == number and bool(plan.engine.running))  # noqa: B023
        plan.engine.die("out of memory")
    error = (await waiting).json()["variables"]["y"]["error"]

    assert (error["code"], error["path"]) == ("engine_lost", ["x", "y"])
    assert "out of memory" in error["message"]
    assert (await server.client.get("/health")).status_code == 200


async def test_a_silent_engine_is_replaced(start: StartServer):
    plan = ToyPlan(is_held=True, hangs_in_close=True)
    server = await start(plan, engine_stall_s=0.1)

    waiting = asyncio.create_task(server.submit(**one_call()))
    await until(lambda: len(plan.made) == 2 and bool(plan.engine.running))
    plan.engine.finish("awake")

    assert (await waiting).json()["variables"]["out"]["value"] == "awake"
    assert plan.made[0].is_closed


async def test_an_engine_that_refuses_a_call_is_replaced(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
):
    plan = ToyPlan(answer=lambda prompt: "yes")
    server = await start(plan)

    def refuse(request: EngineRequest) -> None:
        raise RuntimeError("broken pipe")

    monkeypatch.setattr(plan.engine, "start", refuse)
    reply = await server.submit(**one_call())

    assert reply.json()["variables"]["out"]["value"] == "yes"
    assert len(plan.made) == 2


async def test_an_engine_that_cannot_abort_is_replaced(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    session = (await server.submit(**one_call(wait=False))).json()["session_id"]

    def refuse(attempt: AttemptId) -> None:
        raise RuntimeError("broken pipe")

    monkeypatch.setattr(plan.engine, "abort", refuse)
    reply = await server.client.delete(f"/v1/sessions/{session}")
    await until(lambda: len(plan.made) == 2)

    assert reply.status_code == 204


async def test_an_engine_whose_stream_breaks_is_replaced(
    start: StartServer, caplog: pytest.LogCaptureFixture
):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    waiting = asyncio.create_task(server.submit(**one_call()))
    await until(lambda: bool(plan.engine.running))

    plan.engine.break_stream()
    await until(lambda: len(plan.made) == 2 and bool(plan.engine.running))
    plan.engine.finish("yes")

    assert (await waiting).json()["variables"]["out"]["value"] == "yes"
    assert "engine=toy-0 failed" in caplog.text


async def test_an_engine_that_ends_by_itself_is_replaced(start: StartServer):
    plan = ToyPlan()
    await start(plan)

    await plan.engine.close()
    await until(lambda: len(plan.made) == 2)


async def test_an_engine_that_does_not_start_is_tried_again(start: StartServer):
    plan = ToyPlan(answer=lambda prompt: "yes", open_failures=2)
    server = await start(plan)

    reply = await server.submit(**one_call())

    assert reply.json()["variables"]["out"]["value"] == "yes"
    assert [engine.id for engine in plan.made] == ["toy-0", "toy-0.1", "toy-0.2"]


async def test_an_engine_that_never_opens_is_given_up():
    plan = ToyPlan(opens=False)
    app = make_app(plan, engine_open_timeout_s=0.05)
    async with app.router.lifespan_context(app):
        await until(lambda: len(plan.made) == 2)

    assert plan.made[0].is_closed


async def test_restarts_are_bounded(caplog: pytest.LogCaptureFixture):
    plan = ToyPlan(open_failures=1000)
    app = make_app(plan, engine_restarts_per_hour=2)
    async with app.router.lifespan_context(app):
        await until(lambda: "stays down" in caplog.text)

    assert len(plan.made) == 3
    assert "no such device" in caplog.text


async def test_the_delay_between_restarts_doubles(caplog: pytest.LogCaptureFixture):
    plan = ToyPlan(open_failures=1000)
    app = make_app(plan, engine_restart_delay_s=0.01, engine_restart_max_delay_s=0.03)
    async with app.router.lifespan_context(app):
        await until(lambda: len(plan.made) == 5)

    delays = [r.args[1] for r in caplog.records if "next try" in r.msg and r.args]  # type: ignore[index]
    assert delays[:4] == [0.01, 0.02, 0.03, 0.03]


async def test_a_call_no_engine_can_serve_fails_after_a_while(start: StartServer):
    plan = ToyPlan()
    server = await start(plan, no_engine_s=0.1, engine_restart_delay_s=60)
    plan.engine.die()
    await until(lambda: not server.service.coordinator.engines)

    reply = await server.submit(**one_call())

    assert reply.json()["variables"]["out"]["error"]["code"] == "no_engine"


async def test_an_output_that_breaks_the_core_does_not_end_its_engine(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    waiting = asyncio.create_task(server.submit(**one_call()))
    await until(lambda: bool(plan.engine.running))

    with monkeypatch.context() as patch:
        patch.setattr(
            server.service.supervisor, "_dispatch", broken_once(server.service.runtime.dispatch)
        )
        plan.engine.say("x")
        view = (await waiting).json()["variables"]["out"]

    assert (view["state"], view["error"]["code"]) == ("failed", "internal")
    assert len(plan.made) == 1
    assert [r.levelno for r in caplog.records if "could not be handled" in r.msg] == [logging.ERROR]


def broken_once(dispatch):
    has_broken = False

    def dispatch_or_break(event: object) -> None:
        nonlocal has_broken
        if not has_broken:
            has_broken = True
            raise AssertionError("a defect")
        dispatch(event)

    return dispatch_or_break
