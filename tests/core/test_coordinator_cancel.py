"""Giving up: cancelled variables, clients that go away, and what is stopped for it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from parrot_backend.core import progress
from parrot_backend.core.commands import AbortRequest, AnswerWaiter
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.events import CancelRequested, RequestFailed, TokensGenerated
from parrot_backend.core.ids import NodeId, SessionId
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import RequestError
from tests.core.audit import audited_driver, snapshot
from tests.helpers.builders import (
    LATENCY,
    SESSION,
    THROUGHPUT,
    make_call,
    make_engine,
    make_step,
    make_steps,
    make_wanted,
    var,
    write,
)
from tests.helpers.compiled import needs_python
from tests.helpers.core_driver import CoreDriver, finished, name_of_attempt, of_type, started

OTHER = SessionId("other")


def driver_with(
    *lines: str,
    wanted: str = "",
    max_requests: int = 16,
    variables: dict[str, str | None] | None = None,
) -> CoreDriver:
    """Return a driver with steps; waiter ``w-x`` waits for each wanted ``x``."""
    driver = audited_driver(make_engine(max_requests=max_requests))
    driver.submit(
        *make_steps(*lines),
        wanted=[make_wanted(name, waiter=f"w-{name}") for name in wanted.split()],
        variables=variables,
    )
    return driver


def aborted(driver: CoreDriver) -> list[str]:
    return [name_of_attempt(attempt) for attempt in driver.aborted]


# --- cancelling ------------------------------------------------------------------------------


def test_cancel_aborts_what_runs() -> None:
    driver = driver_with("a")
    assert of_type(driver.cancel("a"), AbortRequest)[0].attempt == "s.a#0~1"


def test_cancel_answers_who_waits() -> None:
    driver = driver_with("a", wanted="a")
    driver.cancel("a")
    answer = driver.answer("w-a")
    assert answer.state is VariableState.CANCELLED
    assert answer.failure is not None
    assert answer.failure.code == "cancelled"


def test_cancel_takes_what_is_queued_out_of_the_queue() -> None:
    driver = driver_with("a", "b", max_requests=1)
    driver.cancel("b")
    assert driver.coordinator.num_waiting == 0
    assert aborted(driver) == []


def test_cancel_of_what_waits_aborts_nothing() -> None:
    driver = driver_with("a", "b: a", wanted="a")
    driver.cancel("b")
    assert aborted(driver) == []


def test_cancel_aborts_what_only_the_cancelled_needed() -> None:
    driver = driver_with("a", "b: a")
    driver.cancel("b")
    assert aborted(driver) == ["a#0~1"]


def test_cancel_spares_what_another_needs() -> None:
    driver = driver_with("a", "b: a", "c: a")
    driver.cancel("b")
    assert aborted(driver) == []


def test_cancel_spares_what_was_wanted_for_itself() -> None:
    driver = driver_with("a", "b: a", wanted="a")
    driver.cancel("b")
    assert aborted(driver) == []


def test_cancel_spares_other_sessions() -> None:
    driver = driver_with("a")
    driver.submit(make_step("a", session=OTHER), session=OTHER)
    driver.cancel()
    assert aborted(driver) == ["a#0~1"]
    assert list(driver.running) == ["other.a#0~1"]


def test_cancel_of_everything_answers_everybody() -> None:
    driver = driver_with("a", "b: a", "c", wanted="a b c")
    answers = of_type(driver.cancel(), AnswerWaiter)
    assert {answer.state for answer in answers} == {VariableState.CANCELLED}
    assert sorted(answer.waiter for answer in answers) == ["w-a", "w-b", "w-c"]


def test_cancel_of_everything_keeps_finished_values() -> None:
    driver = driver_with("a", "b: a")
    driver.finish("a", "kept")
    driver.cancel()
    assert driver.variable("a").value == "kept"


def test_cancel_of_everything_takes_unset_variables_too() -> None:
    driver = driver_with("a: x", variables={"x": None})
    driver.cancel()
    assert driver.variable("x").state is VariableState.CANCELLED


def test_cancel_makes_room_for_what_is_queued() -> None:
    driver = driver_with("a", "b", max_requests=1)
    assert started(driver.cancel("a")) == ["b#0~1"]


def test_cancel_gives_back_what_the_request_took() -> None:
    driver = driver_with("a", wanted="a")
    driver.cancel("a")
    engine = next(iter(driver.coordinator.engines.values()))
    assert (engine.used_tokens, engine.latency_tokens, engine.running) == (0, 0, {})


def test_cancel_counts_the_calls_as_ended() -> None:
    driver = driver_with("a", "b: a", "c: b", "d")
    driver.cancel("a")
    assert driver.coordinator.num_unfinished_calls == 1


def test_cancel_twice_does_nothing_more() -> None:
    driver = driver_with("a", "b: a")
    driver.cancel("b")
    assert driver.cancel("b") == []


def test_cancel_of_a_finished_variable_does_nothing() -> None:
    driver = driver_with("a")
    driver.finish("a", "value")
    assert driver.cancel("a") == []


def test_cancelled_session_takes_more_calls() -> None:
    driver = driver_with("a")
    driver.cancel()
    assert started(driver.submit(make_step("b"), is_new=False)) == ["b#0~1"]


def test_call_that_reads_a_cancelled_variable_is_cancelled_at_once() -> None:
    driver = driver_with("a")
    driver.cancel()
    driver.submit(make_step("b", "a"), is_new=False, wanted=[make_wanted("b", waiter="w")])
    assert driver.answer("w").state is VariableState.CANCELLED


def test_cancel_of_one_output_takes_the_later_ones_of_its_call() -> None:
    driver = audited_driver(make_engine())
    call = make_call("c", "p", write("a"), " and ", write("b"))
    driver.submit(call, wanted=[make_wanted("b", waiter="w")])
    driver.cancel("a")
    assert driver.answer("w").state is VariableState.CANCELLED


def test_cancel_of_a_later_output_spares_an_earlier_one_that_is_wanted() -> None:
    driver = audited_driver(make_engine())
    call = make_call("c", "p", write("a"), " and ", write("b"))
    driver.submit(call, wanted=[make_wanted("a", waiter="w")])
    driver.cancel("b")
    driver.finish("a", "first")
    assert driver.answer("w").value == "first"


def test_cancel_of_an_unknown_variable_changes_nothing() -> None:
    driver = driver_with("a")
    before = snapshot(driver)
    with pytest.raises(RequestError) as caught:
        driver.cancel("a", "?")
    assert caught.value.code == "unknown_variable"
    assert snapshot(driver) == before


def test_cancel_of_an_unknown_session_is_refused() -> None:
    driver = driver_with("a")
    with pytest.raises(RequestError) as caught:
        driver.cancel(session=OTHER)
    assert caught.value.code == "unknown_session"


def test_cancel_of_another_sessions_variable_changes_nothing() -> None:
    driver = driver_with("a")
    driver.submit(make_step("b", session=OTHER), session=OTHER)
    before = snapshot(driver)
    with pytest.raises(RequestError):
        driver.send(CancelRequested(SESSION, (var("b", OTHER),)))
    assert snapshot(driver) == before


# --- cancelling in every state -----------------------------------------------------------------


def test_cancel_between_tries_takes_the_request_out_of_the_queue() -> None:
    driver = driver_with("a", wanted="a")
    driver.lose("e0")
    assert driver.coordinator.num_waiting == 1
    driver.cancel("a")
    assert (driver.coordinator.num_waiting, aborted(driver)) == (0, [])
    assert started(driver.join(make_engine("e1"))) == []


def test_cancel_of_the_second_try_aborts_that_one() -> None:
    driver = driver_with("a")
    driver.fail("a", is_retryable=True)
    driver.cancel("a")
    assert aborted(driver) == ["a#0~2"]


def test_cancel_while_streaming_ends_the_stream_with_the_answer() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"), wanted=[make_wanted("a", waiter="w", stream=True)])
    driver.say("a", "half")
    commands = driver.cancel("a")
    assert {type(command) for command in commands} == {AbortRequest, AnswerWaiter}


def test_what_an_aborted_attempt_still_says_is_not_heard() -> None:
    driver = driver_with("a", wanted="a")
    attempt = driver.attempt("a")
    driver.cancel("a")
    for event in (
        TokensGenerated(attempt, "late", 1),
        finished(attempt, "late"),
        RequestFailed(attempt, "late", "late", is_retryable=True),
    ):
        assert driver.send(event) == []


# --- leaving ---------------------------------------------------------------------------------


def test_leaving_stops_nothing() -> None:
    driver = driver_with("a", wanted="a")
    assert driver.leave("w-a") == []
    assert driver.running_outputs == ["a"]


def test_who_left_is_not_answered() -> None:
    driver = driver_with("a", wanted="a")
    driver.leave("w-a")
    driver.finish("a")
    assert driver.answers == {}


def test_leaving_twice_is_ignored() -> None:
    driver = driver_with("a", wanted="a")
    driver.leave("w-a")
    assert driver.leave("w-a", cancel=True) == []
    assert driver.running_outputs == ["a"]


def test_leaving_after_the_answer_is_ignored() -> None:
    driver = driver_with("a", "b: a", wanted="a")
    driver.finish("a")
    assert driver.leave("w-a", cancel=True) == []
    assert driver.running_outputs == ["b"]


def test_leaving_of_somebody_unknown_is_ignored() -> None:
    assert driver_with("a").leave("nobody", cancel=True) == []


def test_leaving_with_cancel_stops_what_only_they_wanted() -> None:
    driver = driver_with("a", "b: a", wanted="b")
    driver.leave("w-b", cancel=True)
    assert aborted(driver) == ["a#0~1"]
    assert driver.coordinator.num_unfinished_calls == 0


def test_leaving_with_cancel_does_not_stop_what_another_waits_for() -> None:
    driver = driver_with("a", wanted="a")
    driver.get("a", "second")
    driver.leave("w-a", cancel=True)
    assert driver.running_outputs == ["a"]


def test_last_to_leave_with_cancel_stops_it() -> None:
    driver = driver_with("a", wanted="a")
    driver.get("a", "second")
    driver.leave("w-a", cancel=True)
    driver.leave("second", cancel=True)
    assert aborted(driver) == ["a#0~1"]


def test_leaving_with_cancel_does_not_stop_what_another_waits_for_downstream() -> None:
    driver = driver_with("a", "b: a", wanted="a b")
    driver.leave("w-a", cancel=True)
    driver.finish("a")
    driver.finish("b", "end")
    assert driver.answer("w-b").value == "end"


def test_leaving_with_cancel_does_not_stop_what_is_wanted_downstream() -> None:
    driver = audited_driver(make_engine())
    wanted = [make_wanted("a", waiter="w-a"), make_wanted("b", LATENCY)]
    driver.submit(*make_steps("a", "b: a"), wanted=wanted)
    driver.leave("w-a", cancel=True)
    assert driver.running_outputs == ["a"]


def test_failed_dependant_does_not_keep_what_nobody_wants_any_more() -> None:
    driver = driver_with("a", "b", "c: a b", wanted="a c")
    driver.fail("b")
    driver.leave("w-a", cancel=True)
    assert aborted(driver) == ["a#0~1"]


def test_wish_of_who_left_with_cancel_no_longer_counts() -> None:
    driver = audited_driver()
    wanted = [make_wanted("a", LATENCY, "w-a"), make_wanted("b", THROUGHPUT, "w-b")]
    driver.submit(*make_steps("a", "b: a"), wanted=wanted)
    driver.leave("w-a", cancel=True)
    assert driver.request("a").objective.objective_class is ObjectiveClass.THROUGHPUT


@pytest.mark.parametrize("order", list(itertools.permutations(["w-a", "w-b", "w-c"])))
def test_when_all_have_left_with_cancel_everything_stops(order: tuple[str, ...]) -> None:
    driver = driver_with("a", "b: a", "c: a b", wanted="a b c")
    for waiter in order:
        driver.leave(waiter, cancel=True)
    assert aborted(driver) == ["a#0~1"]
    assert driver.coordinator.num_unfinished_calls == 0


@pytest.mark.parametrize("stage", ["waiting", "queued", "running", "generating", "retried"])
@pytest.mark.parametrize("cancel", [False, True])
def test_leaving_at_every_stage(stage: str, cancel: bool) -> None:
    driver = audited_driver()
    first = "x" if stage == "waiting" else "y"
    driver.submit(
        make_step("a", first),
        variables={"x": None, "y": "1"},
        wanted=[make_wanted("a", waiter="w", stream=True)],
    )
    if stage in ("running", "generating", "retried"):
        driver.join(make_engine())
    if stage in ("generating", "retried"):
        driver.say("a", "some")
    if stage == "retried":
        driver.fail("a", is_retryable=True)
    driver.leave("w", cancel=cancel)
    assert driver.answers == {}
    assert driver.coordinator.num_unfinished_calls == (0 if cancel else 1)
    assert bool(driver.running) is (stage in ("running", "generating", "retried") and not cancel)


def test_all_who_leave_at_once_cost_one_deduction(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_python("functions cannot be replaced")
    names = [f"x{i}" for i in range(50)]
    driver = driver_with(*names, wanted=" ".join(names), max_requests=64)
    deductions = list[None]()

    def count(*args: Any) -> dict[NodeId, Objective]:
        deductions.append(None)
        return {}

    monkeypatch.setattr(progress, "deduce_objectives", count)
    driver.leave(*(f"w-{name}" for name in names), cancel=True)
    assert len(deductions) == 1
    assert len(aborted(driver)) == 50


def test_of_those_who_leave_at_once_only_what_nobody_else_wants_stops() -> None:
    driver = driver_with("a", "b: a", "c", "d: c", "e", wanted="a b c d e")
    driver.get("e", "another")
    driver.leave("w-a", "w-c", "w-d", "w-e", cancel=True)
    assert aborted(driver) == ["c#0~1"]
    assert sorted(driver.running_outputs) == ["a", "e"]
