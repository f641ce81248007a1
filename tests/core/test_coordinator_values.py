"""Values: waiting for them, setting them, streaming them. Everybody is answered once."""

from __future__ import annotations

import pytest

from parrot_backend.core.commands import AnswerWaiter, StreamText
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.criteria import Criteria, Objective, ObjectiveClass
from parrot_backend.core.events import RequestUsage, ValueRequested, VariableSet
from parrot_backend.core.ids import VariableId, WaiterId
from parrot_backend.core.transforms import HtmlUnescape, JsonField, RegexGroup
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import Failure, RequestError
from tests.core.audit import audited_driver, snapshot
from tests.helpers.builders import (
    LATENCY,
    THROUGHPUT,
    make_call,
    make_engine,
    make_step,
    make_steps,
    make_transform,
    make_wanted,
    read,
    var,
    write,
)
from tests.helpers.core_driver import CoreDriver, of_type, started


def driver_with(*lines: str, variables: dict[str, str | None] | None = None) -> CoreDriver:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps(*lines), variables=variables)
    return driver


# --- answers ---------------------------------------------------------------------------------


def test_waiter_is_answered_when_the_value_is_there() -> None:
    driver = driver_with("a")
    driver.get("a", "w")
    assert "w" not in driver.answers
    usage = RequestUsage(12, 3)
    driver.finish("a", "value", usage=usage)
    assert driver.answer("w") == AnswerWaiter(
        WaiterId("w"), var("a"), VariableState.READY, "value", None, usage, "stop"
    )


def test_waiter_for_a_value_that_is_there_is_answered_at_once() -> None:
    driver = driver_with("a")
    driver.finish("a", "value")
    assert len(of_type(driver.get("a", "w"), AnswerWaiter)) == 1


def test_waiter_that_came_with_the_submit_is_answered() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"), wanted=[make_wanted("a", waiter="w")])
    driver.finish("a", "value")
    assert driver.answer("w").value == "value"


def test_waiter_for_a_transform_of_set_values_is_answered_in_the_submit() -> None:
    driver = audited_driver()
    driver.submit(
        make_transform("t", read("x")), variables={"x": "1"}, wanted=[make_wanted("t", waiter="w")]
    )
    assert driver.answer("w").value == "1"


def test_all_waiters_of_a_variable_are_answered_in_order() -> None:
    driver = driver_with("a")
    for waiter in ("w2", "w1", "w3"):
        driver.get("a", waiter)
    answers = of_type(driver.finish("a"), AnswerWaiter)
    assert [answer.waiter for answer in answers] == ["w2", "w1", "w3"]


def test_answer_comes_before_what_it_starts() -> None:
    driver = driver_with("a", "b: a")
    driver.get("a", "w")
    assert isinstance(driver.finish("a")[0], AnswerWaiter)


def test_empty_value_is_a_value() -> None:
    driver = driver_with("a")
    driver.get("a", "w")
    driver.finish("a", "")
    assert (driver.answer("w").state, driver.answer("w").value) == (VariableState.READY, "")


def test_failure_of_the_engine_reaches_the_waiter() -> None:
    driver = driver_with("a")
    driver.get("a", "w")
    driver.fail("a", "prompt_too_long")
    answer = driver.answer("w")
    assert answer.state is VariableState.FAILED
    assert answer.failure == Failure("prompt_too_long", "prompt_too_long happened", "a", ("a",))


def test_failure_reaches_waiters_downstream_with_its_path() -> None:
    driver = driver_with("a", "b: a", "c: b")
    driver.get("c", "w")
    driver.fail("a")
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.origin, failure.path) == ("a", ("a", "b", "c"))


def test_failure_leaves_other_waiters_waiting() -> None:
    driver = driver_with("a", "b")
    driver.get("b", "w")
    driver.fail("a")
    assert "w" not in driver.answers
    driver.finish("b")
    assert driver.answer("w").state is VariableState.READY


def test_waiter_for_a_failed_value_is_answered_at_once() -> None:
    driver = driver_with("a")
    driver.fail("a")
    driver.get("a", "w")
    assert driver.answer("w").state is VariableState.FAILED


def test_transform_that_does_not_apply_reaches_the_waiter() -> None:
    driver = audited_driver(make_engine())
    driver.submit(
        make_step("a"),
        make_transform("t", read("a"), transforms=(JsonField("k"),)),
        wanted=[make_wanted("t", waiter="w")],
    )
    driver.finish("a", "no json")
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, failure.origin) == ("transform_failed", "t")


@pytest.mark.parametrize(
    ("transform", "value"),
    [(HtmlUnescape(), "&#" + "1" * 5000 + ";"), (RegexGroup("."), "\ud800")],
    ids=["character reference of too many digits", "half a surrogate pair"],
)
def test_odd_value_cannot_leave_a_waiter_without_answer(
    transform: HtmlUnescape | RegexGroup, value: str
) -> None:
    driver = audited_driver(make_engine())
    driver.submit(
        make_step("a"),
        make_transform("t", read("a"), transforms=(transform,)),
        wanted=[make_wanted("t", waiter="w")],
    )
    driver.finish("a", value)
    assert "w" in driver.answers


def test_text_that_doubles_at_every_step_does_not_fill_the_memory() -> None:
    # Sixteen doublings of 1 KiB are 64 MiB; the limits on nodes would allow thousands of them.
    doublings = [make_transform("t1", read("x"), read("x"))]
    for number in range(2, 17):
        before = f"t{number - 1}"
        doublings.append(make_transform(f"t{number}", read(before), read(before)))
    driver = CoreDriver(make_engine())
    driver.submit(*doublings, variables={"x": None})
    driver.set("x", "x" * 1024)
    assert driver.variable("t16").state is VariableState.FAILED


def test_texts_of_one_session_do_not_fill_the_memory() -> None:
    # Each text is within the limit of one text; a session may have thousands of them.
    long = "x" * (4 * 2**20)
    copies = [make_transform(f"t{number}", f"{number}", read("x")) for number in range(24)]
    driver = CoreDriver(make_engine())
    driver.submit(*copies, variables={"x": None})
    driver.set("x", long)
    values = [driver.variable(f"t{number}").value or "" for number in range(24)]
    assert sum(map(len, values)) <= 64 * 2**20


def test_unknown_variable_has_no_waiters() -> None:
    driver = driver_with("a")
    before = snapshot(driver)
    with pytest.raises(RequestError) as caught:
        driver.get("?", "w")
    assert caught.value.code == "unknown_variable"
    assert snapshot(driver) == before


def test_variable_of_an_unknown_session_has_no_waiters() -> None:
    driver = driver_with("a")
    with pytest.raises(RequestError) as caught:
        driver.send(ValueRequested(WaiterId("w"), VariableId("?.a")))
    assert caught.value.code == "unknown_session"


# --- criteria --------------------------------------------------------------------------------


def test_get_with_criteria_changes_what_is_queued() -> None:
    driver = audited_driver()
    driver.submit(*make_steps("a", "b: a"))
    driver.get("b", "w", LATENCY)
    assert driver.request("a").objective.objective_class is ObjectiveClass.LATENCY


def test_get_without_criteria_is_waited_for_like_what_is_unstated() -> None:
    driver = audited_driver()
    driver.submit(*make_steps("a", "b"))
    driver.get("a", "w")
    assert driver.request("a").objective == Objective(ObjectiveClass.LATENCY, is_bounded=False)
    assert driver.request("b").objective.objective_class is ObjectiveClass.THROUGHPUT


@pytest.mark.parametrize("said", [LATENCY, THROUGHPUT])
def test_get_without_criteria_changes_nothing_that_was_said(said: Criteria) -> None:
    driver = audited_driver()
    driver.submit(make_step("a"), wanted=[make_wanted("a", said)])
    before = driver.request("a").objective
    driver.get("a", "w")
    assert driver.request("a").objective == before


def test_weaker_get_does_not_weaken() -> None:
    driver = audited_driver()
    driver.submit(make_step("a"), wanted=[make_wanted("a", LATENCY)])
    driver.get("a", "w", THROUGHPUT)
    assert driver.request("a").objective.objective_class is ObjectiveClass.LATENCY


def test_objective_of_a_finished_call_does_not_change() -> None:
    driver = driver_with("a", "b: a")
    driver.finish("a")
    driver.get("b", "w", LATENCY)
    assert driver.request("a").objective.objective_class is ObjectiveClass.THROUGHPUT


def test_get_that_makes_a_call_urgent_lets_it_pass() -> None:
    config = CoreConfig(SchedulerConfig(ordering="application"))
    driver = audited_driver(make_engine(max_requests=1), config=config)
    driver.submit(*make_steps("running", "slow", "fast"))
    driver.get("fast", "w", LATENCY)
    assert started(driver.finish("running")) == ["fast#0~1"]


# --- setting ---------------------------------------------------------------------------------


def test_set_starts_what_waited() -> None:
    driver = driver_with("a: x", variables={"x": None})
    assert started(driver.set("x", "1")) == ["a#0~1"]


def test_set_value_is_in_the_prompt() -> None:
    driver = driver_with("a: x", variables={"x": None})
    driver.set("x", "text")
    assert driver.running[driver.attempt("a")].start.parts[1].text == "text"


def test_set_answers_who_waits_for_it() -> None:
    driver = driver_with(variables={"x": None})
    driver.get("x", "w")
    driver.set("x", "text")
    assert driver.answer("w").value == "text"


def test_set_value_has_no_usage() -> None:
    driver = driver_with(variables={"x": None})
    driver.set("x", "text")
    driver.get("x", "w")
    assert (driver.answer("w").usage, driver.answer("w").finish_reason) == (None, None)


def test_empty_text_may_be_set() -> None:
    driver = driver_with("a: x", variables={"x": None})
    assert started(driver.set("x", "")) == ["a#0~1"]


SET_REFUSED = {
    "twice": ("x", "variable_already_set"),
    "set with the submit": ("y", "variable_already_set"),
    "made by a call": ("a", "variable_has_producer"),
    "made by a transform": ("t", "variable_has_producer"),
    "finished by a call": ("b", "variable_has_producer"),
    "unknown": ("?", "unknown_variable"),
}


@pytest.mark.parametrize(("name", "code"), SET_REFUSED.values(), ids=SET_REFUSED)
def test_set_is_refused_and_changes_nothing(name: str, code: str) -> None:
    driver = audited_driver(make_engine())
    driver.submit(
        *make_steps("a", "b"),
        make_transform("t", read("a")),
        variables={"x": None, "y": "1"},
    )
    driver.finish("b")
    driver.set("x", "1")
    before = snapshot(driver)
    with pytest.raises(RequestError) as caught:
        driver.set(name, "2")
    assert caught.value.code == code
    assert snapshot(driver) == before


def test_cancelled_variable_cannot_be_set() -> None:
    driver = driver_with("a: x", variables={"x": None})
    driver.cancel("x")
    with pytest.raises(RequestError) as caught:
        driver.send(VariableSet(var("x"), "1"))
    assert caught.value.code == "variable_already_set"


# --- streams ---------------------------------------------------------------------------------


def test_text_is_streamed_as_it_comes() -> None:
    driver = driver_with("a")
    driver.get("a", "w", stream=True)
    assert driver.say("a", "one ") == [StreamText(WaiterId("w"), "one ")]
    assert driver.say("a", "two") == [StreamText(WaiterId("w"), "two")]


def test_who_does_not_stream_gets_the_answer_only() -> None:
    driver = driver_with("a")
    driver.get("a", "w")
    assert driver.say("a", "one ") == []


def test_late_stream_begins_with_the_text_so_far() -> None:
    driver = driver_with("a")
    driver.say("a", "one ")
    driver.say("a", "two ")
    driver.get("a", "w", stream=True)
    assert driver.streamed == {"w": "one two "}


def test_early_stream_begins_with_nothing() -> None:
    driver = driver_with("a")
    assert driver.get("a", "w", stream=True) == []


def test_two_streams_get_the_same_text() -> None:
    driver = driver_with("a")
    driver.get("a", "w1", stream=True)
    driver.say("a", "one ")
    driver.get("a", "w2", stream=True)
    driver.say("a", "two")
    assert driver.streamed == {"w1": "one two", "w2": "one two"}


def test_empty_text_is_not_streamed() -> None:
    driver = driver_with("a")
    driver.get("a", "w", stream=True)
    assert driver.say("a", "") == []


def test_stream_ends_with_the_answer() -> None:
    driver = driver_with("a")
    driver.get("a", "w", stream=True)
    driver.say("a", "one")
    commands = driver.finish("a", "one")
    assert [type(command) for command in commands] == [AnswerWaiter]


def test_stream_of_a_value_that_is_there_is_just_the_answer() -> None:
    driver = driver_with("a")
    driver.say("a", "one")
    driver.finish("a", "one")
    commands = driver.get("a", "w", stream=True)
    assert [type(command) for command in commands] == [AnswerWaiter]


def test_first_text_makes_the_variable_generating() -> None:
    driver = driver_with("a")
    assert driver.variable("a").state is VariableState.EMPTY
    driver.say("a", "one")
    assert driver.variable("a").state is VariableState.GENERATING


def test_token_without_text_makes_the_variable_generating() -> None:
    driver = driver_with("a")
    driver.say("a", "")
    assert driver.variable("a").state is VariableState.GENERATING


def test_time_of_the_first_token_is_noted() -> None:
    driver = driver_with("a")
    driver.now_s = 2.5
    driver.say("a", "")
    driver.now_s = 3.0
    driver.say("a", "one")
    assert driver.request("a").first_token_s == 2.5


def test_who_left_gets_no_more_text() -> None:
    driver = driver_with("a")
    driver.get("a", "w", stream=True)
    driver.leave("w")
    assert driver.say("a", "one") == []


def test_outputs_of_one_call_are_streamed_each_for_itself() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_call("c", "p", write("a"), " and ", write("b")))
    driver.get("a", "wa", stream=True)
    driver.get("b", "wb", stream=True)
    driver.say("a", "first")
    driver.finish("a", "first")
    driver.say("b", "second")
    assert driver.streamed == {"wa": "first", "wb": "second"}
