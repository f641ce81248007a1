"""Replies of planned calls: patience, giving up, and calls that are sent alone after all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

import pytest

from parrot_backend.protocol import FailureView, VariableView
from parrot_integrations.errors import ConnectionFailed, ValueFailed, WaitTimeout
from parrot_integrations.planning.planned_reply import PlannedReply
from parrot_integrations.planning.reply import ReplyEvent, ReplyText
from parrot_integrations.values import Slot


class Owner:
    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []

    def learn(self, output: str, value: str) -> None:
        self.said.append(("learn", output, value))

    def lose(self) -> None:
        self.said.append(("lose",))

    def give_up(self, output: str) -> None:
        self.said.append(("give up", output))


class Direct:
    def __init__(self, timeout_s: float | None = None) -> None:
        self.timeout_s = timeout_s

    def result(self) -> VariableView:
        return view("direct")

    async def aresult(self) -> VariableView:
        return view("direct")

    def events(self) -> Generator[ReplyEvent, None, None]:
        yield ReplyText("direct")
        yield view("direct")

    async def aevents(self) -> AsyncGenerator[ReplyEvent, None]:
        yield ReplyText("direct")
        yield view("direct")


def view(value: str) -> VariableView:
    return VariableView(id="s.out", name="out", state="ready", value=value)


def failed(origin: str) -> VariableView:
    error = FailureView(code="engine_failed", message="m", origin=origin, path=(origin,))
    return VariableView(id="s.out", name="out", state="failed", error=error)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def slot() -> Slot:
    slot = Slot()
    slot.accept("s.out")
    return slot


def test_a_value_is_learnt_before_it_is_returned(owner: Owner, slot: Slot) -> None:
    slot.settle(view("v"))
    assert PlannedReply(owner, "out", slot, Direct()).result().value == "v"
    assert owner.said == [("learn", "out", "v")]


def test_its_own_failure_is_raised(owner: Owner, slot: Slot) -> None:
    slot.settle(failed("out"))
    with pytest.raises(ValueFailed):
        PlannedReply(owner, "out", slot, Direct()).result()
    assert owner.said == []


def test_a_failure_elsewhere_makes_it_a_call_of_its_own(owner: Owner, slot: Slot) -> None:
    slot.settle(failed("other"))
    reply = PlannedReply(owner, "out", slot, Direct())
    assert [e for e in reply.events() if isinstance(e, ReplyText)] == [ReplyText("direct")]
    # The graph has another value, if any: what follows from that is not what the program asks for.
    assert owner.said == [("lose",)]


def test_a_broken_connection_makes_it_a_call_of_its_own_until_text_was_passed_on(
    owner: Owner, slot: Slot
) -> None:
    slot.add_text("be")
    events = PlannedReply(owner, "out", slot, Direct()).events()
    assert next(events) == ReplyText("be")
    slot.lose(ConnectionFailed("stream_ended", "m"))
    with pytest.raises(ConnectionFailed):
        next(events)
    assert PlannedReply(owner, "out", slot, Direct()).result().value == "direct"


def test_who_leaves_a_stream_early_gives_the_call_up(owner: Owner, slot: Slot) -> None:
    slot.add_text("be")
    events = PlannedReply(owner, "out", slot, Direct()).events()
    next(events)
    events.close()
    assert owner.said == [("give up", "out")]


async def test_who_is_cancelled_gives_the_call_up(owner: Owner, slot: Slot) -> None:
    task = asyncio.create_task(PlannedReply(owner, "out", slot, Direct()).aresult())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert owner.said == [("give up", "out")]


def test_patience_is_that_of_the_call(owner: Owner, slot: Slot) -> None:
    with pytest.raises(WaitTimeout, match=r"no reply within 0\.01 s; the call was given up"):
        PlannedReply(owner, "out", slot, Direct(timeout_s=0.01)).result()
    assert owner.said == [("give up", "out")]
