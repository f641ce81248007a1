"""Requests whose text nobody reads while it is generated: who is quiet, and who still gets what."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from parrot_backend.core.chat import OutputDetails
from parrot_backend.core.commands import (
    AnswerWaiter,
    Command,
    ResetStream,
    StageRequest,
    StartRequest,
    StreamText,
)
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.events import NodeSpec, RequestFinished, RequestUsage, Wanted
from parrot_backend.core.ids import SessionId, WaiterId
from parrot_backend.core.transforms import SplitLines
from tests.core.audit import audited_driver
from tests.helpers.builders import (
    make_body,
    make_call,
    make_engine,
    make_map,
    make_step,
    make_steps,
    make_submission,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import CoreDriver, of_type

STALL_S = 120.0
WAITER = WaiterId("w")


def quiet_driver(*nodes: NodeSpec, wanted: Iterable[Wanted] = (), slots: int = 16) -> CoreDriver:
    """Return a driver with a quiet session."""
    driver = audited_driver(make_engine(max_requests=slots))
    driver.submit(*nodes, wanted=wanted, quiet=True)
    return driver


def are_quiet(commands: list[Command]) -> list[bool]:
    return [start.quiet for start in of_type(commands, StartRequest)]


def told(commands: list[Command]) -> list[tuple[str, str | None]]:
    """Return what waiters are told, in order."""
    named = {StreamText: "text", AnswerWaiter: "answer", ResetStream: "reset"}
    return [
        (named[type(c)], c.text if isinstance(c, StreamText) else getattr(c, "value", None))
        for c in commands
        if isinstance(c, StreamText | AnswerWaiter | ResetStream)
    ]


# --- who is quiet ------------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [False, True])
def test_requests_are_as_quiet_as_the_submit_that_opened_their_session(quiet: bool) -> None:
    driver = audited_driver(make_engine())
    assert are_quiet(driver.submit(*make_steps("a", "b: a"), quiet=quiet)) == [quiet]
    assert are_quiet(driver.finish("a")) == [quiet]


def test_what_a_control_node_brings_forth_is_quiet() -> None:
    driver = quiet_driver(
        make_step("list"), make_map("m", read("list", SplitLines()), make_body("r", "r: item"))
    )
    assert are_quiet(driver.finish("list", "one\ntwo")) == [True, True]


def test_a_quiet_submit_does_not_silence_a_session() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    assert are_quiet(driver.submit(make_step("b"), is_new=False, quiet=True)) == [False]


def test_a_quiet_submit_leaves_a_quiet_session_so() -> None:
    driver = quiet_driver(make_step("a"))
    assert are_quiet(driver.submit(make_step("b"), is_new=False, quiet=True)) == [True]


def test_another_submit_ends_the_quiet() -> None:
    driver = quiet_driver(*make_steps("a", "b: a"))
    assert are_quiet(driver.submit(make_step("c"), is_new=False)) == [False]
    assert are_quiet(driver.finish("a")) == [False]


@pytest.mark.parametrize("stream", [False, True])
def test_a_get_ends_the_quiet_if_it_streams(stream: bool) -> None:
    driver = quiet_driver(*make_steps("a", "b: a"))
    driver.get("b", "w", stream=stream)
    assert are_quiet(driver.finish("a")) == [not stream]


def test_a_repeat_that_streams_ends_the_quiet() -> None:
    driver = audited_driver(make_engine())
    steps = make_steps("a", "b: a")
    driver.send(make_submission(*steps, idempotency_key="k", quiet=True))
    again = [make_wanted("b", session=SessionId("t"), waiter="w", stream=True)]
    driver.send(
        make_submission(session=SessionId("t"), idempotency_key="k", wanted=again, quiet=True)
    )
    assert are_quiet(driver.finish("a")) == [False]


def test_what_is_queued_talks_when_the_quiet_ends() -> None:
    driver = quiet_driver(*make_steps("a", "b"), slots=1)
    driver.get("b", "w", stream=True)
    assert are_quiet(driver.finish("a")) == [False]


def test_other_sessions_stay_quiet() -> None:
    driver = quiet_driver(make_step("a"))
    other = SessionId("other")
    driver.submit(*make_steps("a", "b: a", session=other), session=other, quiet=True)
    driver.get("a", "w", stream=True)
    assert are_quiet(driver.finish("a", session=other)) == [True]


# --- what is told ------------------------------------------------------------------------------


def test_who_joins_a_quiet_request_gets_its_text_at_the_end() -> None:
    driver = quiet_driver(make_step("a"), wanted=[make_wanted("a", waiter="v")])
    driver.get("a", "w", stream=True)
    assert told(driver.finish("a", "text")) == [
        ("text", "text"),
        ("answer", "text"),
        ("answer", "text"),
    ]
    assert driver.streamed == {"w": "text"}


def test_thoughts_come_before_the_text() -> None:
    driver = quiet_driver(make_step("a"))
    driver.get("a", "w", stream=True)
    event = RequestFinished(
        driver.attempt("a"),
        "text",
        None,
        "stop",
        RequestUsage(1, 1),
        details=OutputDetails(reasoning="Hm"),
    )
    assert driver.send(event)[:2] == [
        StreamText(WAITER, "Hm", is_reasoning=True),
        StreamText(WAITER, "text"),
    ]


def test_without_a_text_nothing_is_streamed() -> None:
    driver = quiet_driver(make_step("a"))
    driver.get("a", "w", stream=True)
    assert told(driver.finish("a", "")) == [("answer", "")]


def test_an_engine_may_talk_all_the_same() -> None:
    driver = quiet_driver(make_step("a"))
    driver.get("a", "w", stream=True)
    assert told(driver.say("a", "te")) == [("text", "te")]
    assert told(driver.say("a", "xt")) == [("text", "xt")]
    assert told(driver.finish("a", "text")) == [("answer", "text")]


# --- retries -----------------------------------------------------------------------------------


def test_a_retry_is_quiet_and_resets_nobody() -> None:
    driver = quiet_driver(make_step("a"), wanted=[make_wanted("a", waiter="w")])
    driver.lose("e0")
    commands = driver.join(make_engine("e1"))
    assert are_quiet(commands) == [True]
    assert told(commands) == []


def test_a_retry_talks_if_somebody_came_to_listen() -> None:
    driver = quiet_driver(make_step("a"))
    driver.get("a", "w", stream=True)
    driver.lose("e0")
    assert are_quiet(driver.join(make_engine("e1"))) == [False]
    driver.say("a", "te")
    assert told(driver.finish("a", "text")) == [("answer", "text")]


def test_a_retry_that_is_put_off_talks_if_somebody_comes_meanwhile() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(retry_delay_s=1.0))
    driver.submit(make_step("a"), quiet=True)
    driver.fail("a", is_retryable=True)
    assert driver.running == {}
    driver.get("a", "w", stream=True)
    driver.run_until(STALL_S / 2)
    assert [log.start.quiet for log in driver.running.values()] == [False]


# --- splicing ----------------------------------------------------------------------------------


def staged_driver() -> tuple[CoreDriver, StageRequest]:
    """Return a driver whose quiet call has its second output staged."""
    engine = make_engine(splices=True, takes_updates=True)
    driver = audited_driver(engine, config=CoreConfig(splice=True))
    call = make_call("c", "a: ", write("a"), "b: ", write("b"))
    (stage,) = of_type(driver.submit(call, quiet=True), StageRequest)
    return driver, stage


def test_what_is_staged_is_quiet() -> None:
    driver, stage = staged_driver()
    assert stage.quiet
    driver.finish("a", splices=True)
    assert driver.request("b").quiet


def test_who_joins_after_the_staging_gets_the_text_at_the_end() -> None:
    driver, _ = staged_driver()
    driver.get("b", "w", stream=True)
    driver.finish("a", splices=True)
    assert told(driver.finish("b", "text")) == [("text", "text"), ("answer", "text")]


def test_what_was_not_spliced_after_all_talks() -> None:
    driver, _ = staged_driver()
    driver.get("b", "w", stream=True)
    assert are_quiet(driver.finish("a")) == [False]


# --- life and times ----------------------------------------------------------------------------


def test_signs_of_life_keep_an_engine() -> None:
    driver = quiet_driver(make_step("a"))
    for _ in range(6):
        driver.run_until(driver.now_s + STALL_S / 2)
        driver.report()
    assert driver.closed_engines == []
    ended_s = driver.now_s
    driver.run_until(ended_s + STALL_S - 1.0)
    assert driver.closed_engines == []
    driver.run_until(ended_s + STALL_S)
    assert driver.closed_engines == ["e0"]


@pytest.mark.parametrize(
    ("decode_s", "first_s"), [(None, 9.0), (0.0, 9.0), (1.5, 7.5), (6.0, 3.0), (7.0, 3.0)]
)
def test_the_first_token_was_when_the_engine_says(decode_s: float | None, first_s: float) -> None:
    driver = audited_driver()
    driver.submit(make_step("a"), quiet=True)
    driver.now_s = 3.0
    driver.join(make_engine())
    driver.now_s = 9.0
    driver.finish("a", usage=RequestUsage(1, 9, decode_s=decode_s))
    assert driver.request("a").first_token_s == first_s


def test_a_token_that_was_seen_counts_for_more() -> None:
    driver = quiet_driver(make_step("a"))
    driver.now_s = 2.0
    driver.say("a", "t")
    driver.now_s = 9.0
    driver.finish("a", "t", usage=RequestUsage(1, 9, decode_s=1.0))
    assert driver.request("a").first_token_s == 2.0
