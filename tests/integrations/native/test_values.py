"""Slots and criteria: waiting for more to be known."""

from __future__ import annotations

import asyncio
import threading

import pytest

import parrot_integrations as P
from parrot_backend.protocol import WireCriteria
from parrot_integrations.criteria import adds_nothing
from parrot_integrations.deadline import Deadline
from parrot_integrations.values import Known, Slot, ready_view

LOST = P.ConnectionFailed("connection_failed", "gone")
DUE = P.Criteria(deadline_s=2)


def test_a_settled_value_is_not_lost_any_more() -> None:
    slot = Slot()
    slot.settle(ready_view("y", "v"))
    slot.lose(LOST)
    assert slot.known.error is None


def test_a_value_is_settled_once() -> None:
    slot = Slot()
    slot.settle(ready_view("y", "v"))
    slot.settle(ready_view("y", "other"))
    assert slot.known.value() == "v"


def test_an_error_can_be_raised_again_and_again() -> None:
    slot = Slot()
    slot.lose(LOST)
    for _ in range(2):
        with pytest.raises(P.ConnectionFailed):
            slot.known.value()


def test_a_retry_forgets_the_error_and_keeps_the_text() -> None:
    slot = Slot()
    slot.add_text("a")
    slot.lose(LOST)
    slot.retry()
    assert (slot.known.error, slot.known.text) == (None, "a")


def test_a_settled_variable_can_still_be_accepted() -> None:
    slot = Slot()
    slot.settle(ready_view("x", "v"))
    slot.accept("s1.x")
    assert (slot.known.id, slot.known.value()) == ("s1.x", "v")


def test_a_thread_wakes_when_more_is_known() -> None:
    slot = Slot()
    threading.Timer(0.02, lambda: slot.add_text("a")).start()
    assert slot.wait(slot.known, 5).text == "a"


def test_a_thread_waits_no_longer_than_it_wants() -> None:
    slot = Slot()
    with pytest.raises(P.WaitTimeout):
        slot.wait_until(Known.is_final, Deadline(0.01), "y")


async def test_a_coroutine_wakes_when_another_thread_knows_more() -> None:
    slot = Slot()
    threading.Timer(0.02, lambda: slot.add_text("a")).start()
    assert (await slot.await_change(slot.known, 5)).text == "a"


async def test_a_coroutine_does_not_miss_what_came_before_it_waited() -> None:
    slot = Slot()
    seen = slot.known
    slot.add_text("a")
    async with asyncio.timeout(1):
        assert (await slot.await_change(seen, None)).text == "a"


def test_a_loop_that_was_closed_while_waiting_does_no_harm() -> None:
    slot = Slot()
    loop = asyncio.new_event_loop()
    wait = slot.await_change(slot.known, None)
    task = loop.create_task(wait)
    loop.run_until_complete(asyncio.sleep(0))
    loop.stop()
    loop.close()
    slot.add_text("a")
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert slot.known.text == "a"


@pytest.mark.parametrize(
    ("told", "asked", "is_known"),
    [
        (P.LATENCY, P.LATENCY, True),
        (P.LATENCY, P.THROUGHPUT, True),
        (P.THROUGHPUT, P.THROUGHPUT, True),
        (P.THROUGHPUT, P.LATENCY, False),
        (P.THROUGHPUT, P.UNSTATED, False),
        (P.UNSTATED, P.THROUGHPUT, True),
        (P.UNSTATED, P.LATENCY, False),
        (P.LATENCY, P.UNSTATED, True),
        (P.LATENCY, DUE, False),
        (DUE, DUE, True),
        (DUE, P.LATENCY, True),
        (DUE, P.Criteria(deadline_s=1), False),
        (DUE, P.Criteria(ttft_s=1), False),
    ],
)
def test_only_a_stronger_wish_is_news(
    told: WireCriteria, asked: WireCriteria, is_known: bool
) -> None:
    assert adds_nothing(told, asked) is is_known
