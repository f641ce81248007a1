from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from parrot_backend.core.commands import AnswerWaiter, Command, SetTimer, StreamText
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.events import (
    EngineInfo,
    EngineJoined,
    EngineLost,
    Event,
    GraphSubmitted,
    NoEngineTimer,
    SessionClosed,
    SessionTimer,
    TimerFired,
    VariableSpec,
    WaiterLeft,
)
from parrot_backend.core.ids import EngineId, SessionId, VariableId
from parrot_backend.core.variable import VariableState
from parrot_backend.engines.base import EngineRequest
from parrot_backend.errors import RequestError
from parrot_backend.metrics.prometheus import PrometheusMetrics
from parrot_backend.server.observability import CallObserver
from parrot_backend.server.runtime import Runtime
from parrot_backend.server.waiting import Inbox
from tests.server.conftest import until

INFO = EngineInfo(EngineId("e"), ("m",), 100, 1000, 500, 8)


class ManualClock:
    def __init__(self) -> None:
        self.time_s = 0.0

    def now_s(self) -> float:
        return self.time_s


class ScriptedCoordinator(Coordinator):
    """Answers each event as a test says."""

    def __init__(self, answer: Callable[[Event], list[Command]]) -> None:
        super().__init__(CoreConfig())
        self.seen: list[Event] = []
        self._answer = answer

    def handle(self, event: Event, now_s: float) -> list[Command]:
        self.seen.append(event)
        return self._answer(event)


class NoEngines:
    def start(self, engine: EngineId, request: EngineRequest) -> None: ...

    def abort(self, engine: EngineId, attempt: Any) -> None: ...

    def give_up(self, engine: EngineId, reason: str) -> None: ...


def make_runtime(coordinator: Coordinator, engines: Any = None, clock: Any = None) -> Runtime:
    observer = CallObserver(PrometheusMetrics())
    return Runtime(coordinator, clock or ManualClock(), engines or NoEngines(), observer)


def answer_to(waiter: Any) -> AnswerWaiter:
    return AnswerWaiter(waiter, VariableId("s.x"), VariableState.READY, "v", None, None, None)


def test_an_event_that_arises_while_commands_are_carried_out_waits_its_turn():
    def act(event: Event) -> list[Command]:
        return [answer_to("w1")] if isinstance(event, EngineJoined) else []

    coordinator = ScriptedCoordinator(act)
    runtime = make_runtime(coordinator)

    class Loud(CallObserver):
        def waiter_answered(self, answer: AnswerWaiter) -> None:
            runtime.dispatch(EngineLost(EngineId("e"), "nested"))
            assert coordinator.seen == [EngineJoined(INFO)]

    runtime._observer = Loud(PrometheusMetrics())
    runtime.dispatch(EngineJoined(INFO))

    assert coordinator.seen == [EngineJoined(INFO), EngineLost(EngineId("e"), "nested")]


def test_the_rejection_of_an_event_reaches_who_dispatched_it():
    runtime = make_runtime(Coordinator(CoreConfig()))

    with pytest.raises(RequestError, match="no session"):
        runtime.dispatch(SessionClosed(SessionId("s")))


def test_after_a_rejection_the_runtime_goes_on():
    coordinator = Coordinator(CoreConfig())
    runtime = make_runtime(coordinator)
    with pytest.raises(RequestError):
        runtime.dispatch(SessionClosed(SessionId("s")))

    runtime.dispatch(EngineJoined(INFO))

    assert list(coordinator.engines) == ["e"]


def test_the_rejection_of_a_nested_event_is_logged(caplog: pytest.LogCaptureFixture):
    def act(event: Event) -> list[Command]:
        if isinstance(event, SessionClosed):
            raise RequestError("unknown_session", "no such session")
        return [answer_to("w1")]

    runtime = make_runtime(ScriptedCoordinator(act))

    class Loud(CallObserver):
        def waiter_answered(self, answer: AnswerWaiter) -> None:
            runtime.dispatch(SessionClosed(SessionId("s")))

    runtime._observer = Loud(PrometheusMetrics())
    runtime.dispatch(EngineJoined(INFO))

    assert [r.levelno for r in caplog.records] == [logging.WARNING]


async def test_messages_reach_the_inbox_of_their_waiter():
    inboxes = Inbox(), Inbox()
    commands: list[Command] = []
    runtime = make_runtime(ScriptedCoordinator(lambda event: commands))
    waiters = [runtime.expect(inbox, "x") for inbox in inboxes]
    commands += [StreamText(waiters[1], "v"), answer_to(waiters[1])]

    runtime.dispatch(EngineJoined(INFO))

    assert [await inboxes[1].next() for _ in range(3)] == [
        ("x", commands[0]),
        ("x", commands[1]),
        None,
    ]
    assert list(inboxes[0].open) == [waiters[0]]
    assert runtime.num_waiters == 1


def test_who_leaves_is_reported_once():
    coordinator = ScriptedCoordinator(lambda event: [])
    runtime = make_runtime(coordinator)
    inbox = Inbox()
    waiter = runtime.expect(inbox, "x")

    runtime.leave(inbox, cancel=True)
    runtime.leave(inbox, cancel=True)

    assert coordinator.seen == [WaiterLeft(waiter, cancel=True)]
    assert runtime.num_waiters == 0


async def test_a_timer_fires_when_it_is_due():
    clock = ManualClock()
    timer = NoEngineTimer()
    coordinator = ScriptedCoordinator(
        lambda event: [SetTimer(timer, 0.01)] if isinstance(event, EngineJoined) else []
    )
    runtime = make_runtime(coordinator, clock=clock)

    runtime.dispatch(EngineJoined(INFO))
    await asyncio.sleep(0.03)
    assert TimerFired(timer) not in coordinator.seen
    clock.time_s = 0.01
    await until(lambda: TimerFired(timer) in coordinator.seen)


async def test_a_later_timer_replaces_an_equal_one():
    clock = ManualClock()
    times = iter([0.0, 5.0])
    timer = NoEngineTimer()
    coordinator = ScriptedCoordinator(
        lambda event: [SetTimer(timer, next(times))] if isinstance(event, EngineJoined) else []
    )
    runtime = make_runtime(coordinator, clock=clock)

    runtime.dispatch(EngineJoined(INFO))
    runtime.dispatch(EngineJoined(INFO))
    await asyncio.sleep(0.02)

    assert TimerFired(timer) not in coordinator.seen


async def test_a_session_that_ends_leaves_no_timer():
    coordinator = Coordinator(CoreConfig())
    runtime = make_runtime(coordinator)
    session = SessionId("s")
    runtime.dispatch(GraphSubmitted(session, is_new=True, variables=(VariableSpec("x", "v"),)))
    assert SessionTimer(session) in runtime._timers

    runtime.dispatch(SessionClosed(session))

    assert runtime._timers == {}
