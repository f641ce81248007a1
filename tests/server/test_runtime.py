from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from parrot_backend.core.commands import (
    AbortRequest,
    AnswerWaiter,
    Command,
    FillPrefix,
    ReleasePrefixes,
    RetainPrefix,
    SetTimer,
    StageRequest,
    StartRequest,
    StreamText,
    UpdateRequest,
)
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.criteria import Objective, ObjectiveClass
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
    WaitersLeft,
)
from parrot_backend.core.ids import AttemptId, EngineId, NodeId, SessionId, VariableId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
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
    """Notes what engines are told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def start(self, engine: EngineId, request: EngineRequest) -> None:
        self.told.append(("start", engine, request))

    def abort(self, engine: EngineId, attempt: Any) -> None:
        self.told.append(("abort", engine, attempt))

    def update(self, engine: EngineId, attempt: Any, objective: Any, remaining: int) -> None:
        self.told.append(("update", engine, attempt, objective, remaining))

    def retain(self, engine: EngineId, key: bytes, attempt: Any) -> None:
        self.told.append(("retain", engine, key, attempt))

    def release(self, engine: EngineId, keys: Any) -> None:
        self.told.append(("release", engine, keys))

    def give_up(self, engine: EngineId, reason: str) -> None:
        self.told.append(("give_up", engine, reason))


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
    waiters = runtime.expect(inbox, "x"), runtime.expect(inbox, "y")

    runtime.leave(inbox, cancel=True)
    runtime.leave(inbox, cancel=True)

    assert coordinator.seen == [WaitersLeft(waiters, cancel=True)]
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


# --- what engines are told ------------------------------------------------------------------------

E, A, B = EngineId("e"), AttemptId("s.c#0~1"), AttemptId("s.c#1~s0")
PARTS = (PromptPart(PartKind.CONSTANT, "Hello"), PromptPart(PartKind.VALUE, "?", ()))
CHAIN = (PrefixBoundary(b"k", 40),)
HASTE = Objective(ObjectiveClass.LATENCY, tpot_s=0.05)


def told(command: Command) -> tuple[Any, ...]:
    """Return what engines hear when the core gives a command."""
    engines = NoEngines()
    coordinator = ScriptedCoordinator(lambda event: [command])
    make_runtime(coordinator, engines).dispatch(EngineLost(E, "any event"))
    (heard,) = engines.told
    return heard


def test_changed_hints_reach_the_engine():
    assert told(UpdateRequest(E, A, HASTE, 3)) == ("update", E, A, HASTE, 3)


def test_prefixes_to_keep_and_to_let_go_reach_the_engine():
    assert told(RetainPrefix(E, b"k", A)) == ("retain", E, b"k", A)
    assert told(ReleasePrefixes(E, (b"k", b"l"))) == ("release", E, (b"k", b"l"))


@pytest.mark.parametrize(("tenant", "salt"), [("default", None), ("other", "other")])
def test_a_fill_is_a_request_for_leading_parts(tenant: str, salt: str | None):
    verb, engine, request = told(
        FillPrefix(E, A, SessionId("s"), tenant, "m", PARTS, 1, CHAIN, (b"k",))
    )
    assert (verb, engine) == ("start", E)
    assert (request.attempt, request.model, request.parts) == (A, "m", PARTS)
    assert (request.fill_parts, request.prefixes, request.retain) == (1, CHAIN, (b"k",))
    assert request.sampling.max_tokens == 1
    assert (request.tenant, request.cache_salt) == (tenant, salt)


def test_a_staged_request_names_whom_it_follows():
    sampling = Sampling(max_tokens=7)
    verb, engine, request = told(
        StageRequest(E, B, A, 1, SessionId("s"), "other", "m", PARTS, sampling, HASTE, 2, 12)
    )
    assert (verb, engine, request.attempt) == ("start", E, B)
    assert (request.after, request.gap, request.max_gap_tokens) == (A, 1, 12)
    assert (request.sampling, request.objective, request.remaining) == (sampling, HASTE, 2)
    assert request.cache_salt == "other"


@pytest.mark.parametrize("quiet", [False, True])
def test_engines_hear_that_nobody_listens(quiet: bool):
    of_both: dict[str, Any] = {
        "sampling": Sampling(),
        "objective": HASTE,
        "remaining": 0,
        "quiet": quiet,
    }
    session = SessionId("s")
    start = StartRequest(
        E,
        A,
        NodeId("s.a#0"),
        session,
        "t",
        "m",
        PARTS,
        prefixes=CHAIN,
        retain=(),
        reason="",
        **of_both,
    )
    stage = StageRequest(E, B, A, 1, session, "t", "m", PARTS, max_gap_tokens=12, **of_both)
    assert [told(command)[2].quiet for command in (start, stage)] == [quiet, quiet]


@pytest.mark.parametrize(("is_early", "num_counted"), [(False, 1), (True, 0)])
def test_only_calls_count_as_aborted(is_early: bool, num_counted: int):
    metrics = PrometheusMetrics()
    engines = NoEngines()
    coordinator = ScriptedCoordinator(lambda event: [AbortRequest(E, A, is_early)])
    runtime = Runtime(coordinator, ManualClock(), engines, CallObserver(metrics))
    runtime.dispatch(EngineLost(E, "any event"))
    assert engines.told == [("abort", E, A)]
    assert f"parrot_request_aborted_total {float(num_counted)}" in metrics.render().decode()
