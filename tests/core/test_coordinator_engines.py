"""Engines come, fail and go: retries, lost work, silence, and what is said too late."""

from __future__ import annotations

import contextlib

import pytest

from parrot_backend.core.commands import (
    AnswerWaiter,
    CloseEngine,
    Command,
    ResetStream,
    SetTimer,
    StartRequest,
)
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.events import (
    EngineTimer,
    Event,
    NoEngineTimer,
    RequestFailed,
    RequestUsage,
    TimerFired,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import NodeState
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import RequestError
from tests.core.audit import audited_driver, snapshot
from tests.helpers.builders import (
    make_call,
    make_engine,
    make_step,
    make_steps,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import CoreDriver, finished, of_type, started

STALL_S, NO_ENGINE_S = 120.0, 30.0


def driver_with(*engines: str, max_attempts: int = 3, max_requests: int = 16) -> CoreDriver:
    """Return a driver in which waiter ``w`` waits for ``b`` of a chain a, b."""
    driver = audited_driver(
        *(make_engine(name, max_requests=max_requests) for name in engines),
        config=CoreConfig(max_attempts=max_attempts),
    )
    driver.submit(*make_steps("a", "b: a"), wanted=[make_wanted("b", waiter="w", stream=True)])
    return driver


def engines_of(commands: list[Command]) -> list[str]:
    return [start.engine for start in of_type(commands, StartRequest)]


def code_of(driver: CoreDriver, waiter: str = "w") -> str:
    failure = driver.answer(waiter).failure
    assert failure is not None
    return failure.code


# --- joining ---------------------------------------------------------------------------------


def test_engine_that_joined_is_listed() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"))
    assert list(driver.coordinator.engines) == ["e0", "e1"]


def test_engine_cannot_join_twice() -> None:
    driver = driver_with("e0")
    before = snapshot(driver)
    with pytest.raises(RequestError) as caught:
        driver.join(make_engine("e0", capacity_tokens=5))
    assert caught.value.code == "engine_exists"
    assert snapshot(driver) == before


def test_engine_may_join_again_after_it_was_lost() -> None:
    driver = driver_with("e0")
    driver.lose("e0")
    assert engines_of(driver.join(make_engine("e0"))) == ["e0"]


def test_engine_with_the_most_room_is_chosen() -> None:
    driver = audited_driver(
        make_engine("small", capacity_tokens=1000), make_engine("large", capacity_tokens=2000)
    )
    assert engines_of(driver.submit(make_step("a"))) == ["large"]


def test_call_goes_to_an_engine_of_its_model() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1", models=("n",)))
    assert engines_of(driver.submit(make_step("a", model="n"))) == ["e1"]


def test_graph_may_use_several_models() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1", models=("n",)))
    driver.submit(make_step("a", model="m"), make_step("b", "a", model="n"))
    assert engines_of(driver.finish("a")) == ["e1"]


def test_engine_without_slots_may_not_join() -> None:
    driver = audited_driver()
    with pytest.raises(RequestError, match="slots"):
        driver.join(make_engine(max_requests=0))
    assert driver.coordinator.engines == {}


def test_engine_without_capacity_runs_one_request_at_a_time() -> None:
    driver = audited_driver(make_engine(capacity_tokens=0, latency_capacity_tokens=0))
    driver.submit(*make_steps("a", "b"))
    assert driver.running_outputs == ["a"]
    assert started(driver.finish("a")) == ["b#0~1"]


def test_request_larger_than_the_engine_is_told_to_the_engine() -> None:
    driver = audited_driver(make_engine(capacity_tokens=100))
    assert started(driver.submit(make_step("a", max_tokens=5000))) == ["a#0~1"]


# --- failures of one request -------------------------------------------------------------------


def test_failure_that_is_final_is_not_tried_again() -> None:
    driver = driver_with("e0", "e1")
    assert started(driver.fail("a", "prompt_too_long")) == []
    assert code_of(driver) == "prompt_too_long"


def test_failure_that_may_pass_is_tried_again() -> None:
    driver = driver_with("e0")
    assert started(driver.fail("a", is_retryable=True)) == ["a#0~2"]


def test_second_try_goes_to_another_engine() -> None:
    driver = driver_with("e0", "e1")
    assert engines_of(driver.fail("a", is_retryable=True)) == ["e1"]


def test_third_try_goes_to_a_third_engine() -> None:
    driver = driver_with("e0", "e1", "e2")
    driver.fail("a", is_retryable=True)
    assert engines_of(driver.fail("a", is_retryable=True)) == ["e2"]


def test_when_every_engine_failed_it_they_are_tried_again() -> None:
    driver = driver_with("e0", "e1")
    driver.fail("a", is_retryable=True)
    assert engines_of(driver.fail("a", is_retryable=True)) == ["e0"]


@pytest.mark.parametrize("max_attempts", [1, 2, 3])
def test_number_of_tries_is_limited(max_attempts: int) -> None:
    driver = driver_with("e0", max_attempts=max_attempts)
    for _ in range(max_attempts - 1):
        driver.fail("a", is_retryable=True)
        assert driver.answers == {}
    driver.fail("a", is_retryable=True)
    assert code_of(driver) == "engine_failed"
    assert driver.coordinator.num_unfinished_calls == 0


def test_last_failure_says_how_often_it_was_tried() -> None:
    driver = driver_with("e0", max_attempts=2)
    driver.fail("a", is_retryable=True)
    driver.fail("a", is_retryable=True)
    failure = driver.answer("w").failure
    assert failure is not None
    assert "attempt 2" in failure.message


def test_one_failing_request_does_not_remove_its_engine() -> None:
    driver = driver_with("e0")
    driver.fail("a")
    assert list(driver.coordinator.engines) == ["e0"]
    assert engines_of(driver.submit(make_step("c"), is_new=False)) == ["e0"]


def test_one_failing_engine_does_not_remove_others() -> None:
    driver = driver_with("e0", "e1")
    driver.lose("e0")
    assert list(driver.coordinator.engines) == ["e1"]


def test_value_of_a_second_try_is_the_value() -> None:
    driver = driver_with("e0")
    driver.fail("a", is_retryable=True)
    driver.finish("a", "second")
    assert driver.variable("a").value == "second"


def test_prompt_of_a_second_try_is_the_same() -> None:
    driver = driver_with("e0")
    driver.finish("a", "one")
    first = driver.running[driver.attempt("b")].start
    driver.fail("b", is_retryable=True)
    assert driver.running[driver.attempt("b")].start.parts == first.parts


def test_retry_voids_the_streamed_text() -> None:
    driver = driver_with("e0")
    driver.finish("a")
    driver.say("b", "half")
    commands = driver.fail("b", is_retryable=True)
    assert isinstance(commands[0], ResetStream)
    assert driver.streamed == {"w": ""}


def test_stream_begins_anew_after_a_retry() -> None:
    driver = driver_with("e0")
    driver.finish("a")
    driver.say("b", "half")
    driver.fail("b", is_retryable=True)
    driver.say("b", "new")
    assert driver.streamed == {"w": "new"}


def test_stream_that_got_nothing_is_not_reset() -> None:
    driver = driver_with("e0")
    driver.finish("a")
    assert of_type(driver.fail("b", is_retryable=True), ResetStream) == []


def test_retry_makes_the_variable_empty_again() -> None:
    driver = driver_with("e0")
    driver.say("a", "half")
    driver.fail("a", is_retryable=True)
    assert driver.variable("a").state is VariableState.EMPTY
    assert driver.variable("a").partial == []


def test_late_stream_does_not_see_the_text_of_a_failed_try() -> None:
    driver = driver_with("e0")
    driver.say("a", "half")
    driver.fail("a", is_retryable=True)
    driver.get("a", "late", stream=True)
    assert "late" not in driver.streamed


def test_first_token_time_is_that_of_the_last_try() -> None:
    driver = driver_with("e0")
    driver.say("a", "half")
    driver.fail("a", is_retryable=True)
    assert driver.request("a").first_token_s is None


# --- lost engines ------------------------------------------------------------------------------


def test_work_of_a_lost_engine_goes_elsewhere() -> None:
    driver = driver_with("e0", "e1")
    assert engines_of(driver.lose("e0")) == ["e1"]


def test_work_of_the_only_engine_waits_for_another() -> None:
    driver = driver_with("e0")
    driver.lose("e0")
    assert driver.coordinator.num_waiting == 1
    assert engines_of(driver.join(make_engine("e1"))) == ["e1"]


def test_all_work_of_a_lost_engine_is_taken_up_again() -> None:
    driver = audited_driver(make_engine("e0"))
    driver.submit(*make_steps("a", "b", "c"))
    driver.lose("e0")
    driver.join(make_engine("e1"))
    assert sorted(driver.running_outputs) == ["a", "b", "c"]


def test_finished_work_of_a_lost_engine_is_kept() -> None:
    driver = driver_with("e0", "e1")
    driver.finish("a", "kept")
    driver.lose(driver.running[driver.attempt("b")].start.engine)
    assert driver.variable("a").value == "kept"
    assert driver.request("a").attempts == 1


def test_lost_engine_counts_as_a_try() -> None:
    driver = driver_with("e0", max_attempts=1)
    driver.lose("e0")
    assert code_of(driver) == "engine_lost"


def test_reason_of_the_loss_is_told() -> None:
    driver = driver_with("e0", max_attempts=1)
    driver.lose("e0", "out of memory")
    failure = driver.answer("w").failure
    assert failure is not None
    assert "out of memory" in failure.message


def test_loss_of_an_unknown_engine_is_ignored() -> None:
    driver = driver_with("e0")
    assert driver.lose("?") == []


def test_loss_told_twice_is_ignored() -> None:
    driver = driver_with("e0", "e1")
    driver.lose("e0")
    assert driver.lose("e0") == []


def test_loss_while_one_of_its_requests_fails_for_good() -> None:
    driver = audited_driver(make_engine("e0"), config=CoreConfig(max_attempts=2))
    driver.submit(
        *make_steps("a", "b", "c: a b"),
        wanted=[make_wanted("c", waiter="w"), make_wanted("b", waiter="v")],
    )
    driver.fail("a", is_retryable=True)
    driver.lose("e0")
    assert code_of(driver, "w") == "engine_lost"
    assert "v" not in driver.answers
    driver.join(make_engine("e1"))
    driver.finish("b", "value")
    assert driver.answer("v").value == "value"


def test_loss_resets_the_streams_of_its_requests() -> None:
    driver = driver_with("e0", "e1")
    driver.finish("a")
    driver.say("b", "half")
    driver.lose(driver.running[driver.attempt("b")].start.engine)
    assert driver.num_resets == {"w": 1}


def test_lost_engine_is_avoided_when_it_joins_under_its_old_name() -> None:
    driver = driver_with("e0")
    driver.lose("e0")
    driver.join(make_engine("e1"))
    driver.join(make_engine("e0"))
    assert driver.running[driver.attempt("a")].start.engine == "e1"


# --- said too late -------------------------------------------------------------------------------


def late(attempt: AttemptId) -> list[Event]:
    return [
        TokensGenerated(attempt, "late", 1),
        finished(attempt, "late"),
        RequestFailed(attempt, "late", "late"),
        RequestFailed(attempt, "late", "late", is_retryable=True),
    ]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("end", ["finished", "failed", "retried", "lost", "cancelled", "never"])
def test_late_event_is_ignored(end: str, number: int) -> None:
    driver = driver_with("e0", "e1")
    attempt = driver.attempt("a") if end != "never" else AttemptId("s.a#0~9")
    if end == "finished":
        driver.finish("a")
    elif end == "failed":
        driver.fail("a")
    elif end == "retried":
        driver.fail("a", is_retryable=True)
    elif end == "lost":
        driver.lose("e0")
    elif end == "cancelled":
        driver.cancel("a")
    before = snapshot(driver)
    assert driver.send(late(attempt)[number]) == []
    assert snapshot(driver) == before


@pytest.mark.parametrize("number", range(4))
def test_event_of_a_closed_session_is_ignored(number: int) -> None:
    driver = driver_with("e0")
    attempt = driver.attempt("a")
    driver.close()
    before = snapshot(driver)
    assert driver.send(late(attempt)[number]) == []
    assert snapshot(driver) == before


# --- no engine ---------------------------------------------------------------------------------


def test_call_without_any_engine_sets_a_timer() -> None:
    driver = audited_driver()
    commands = driver.submit(make_step("a"))
    assert SetTimer(NoEngineTimer(), NO_ENGINE_S) in commands


def test_call_without_any_engine_fails_after_a_while() -> None:
    driver = driver_with()
    driver.run_until(NO_ENGINE_S - 0.1)
    assert driver.answers == {}
    driver.run_until(NO_ENGINE_S)
    assert code_of(driver) == "no_engine"
    assert driver.coordinator.num_waiting == 0


def test_call_whose_model_has_no_engine_fails_after_a_while() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1", models=("n",)))
    driver.lose("e1")
    driver.submit(make_step("a", model="n"), wanted=[make_wanted("a", waiter="w")])
    driver.run_until(NO_ENGINE_S)
    assert code_of(driver) == "no_engine"


def test_call_whose_engine_is_busy_does_not_fail() -> None:
    driver = audited_driver(make_engine(max_requests=1))
    driver.submit(*make_steps("a", "b"), wanted=[make_wanted("b", waiter="w")])
    driver.run_until(NO_ENGINE_S * 3)
    assert driver.answers == {}


def test_engine_that_joins_in_time_saves_the_call() -> None:
    driver = driver_with()
    driver.run_until(NO_ENGINE_S - 1)
    driver.join(make_engine())
    driver.run_until(NO_ENGINE_S + 1)
    assert driver.running_outputs == ["a"]


def test_call_fails_after_a_while_when_its_engine_is_lost() -> None:
    driver = driver_with("e0")
    driver.now_s = 10.0
    driver.lose("e0")
    driver.run_until(10.0 + NO_ENGINE_S)
    assert code_of(driver) == "no_engine"


def test_queued_call_fails_after_a_while_when_its_engine_is_lost() -> None:
    driver = audited_driver(make_engine(max_requests=1))
    driver.submit(*make_steps("a", "b"), wanted=[make_wanted("b", waiter="w")])
    driver.now_s = 10.0
    driver.lose("e0")
    driver.run_until(10.0 + NO_ENGINE_S)
    assert code_of(driver) == "no_engine"


def test_queued_call_has_its_while_from_the_loss_of_its_engine() -> None:
    # It was queued for 50 s behind a busy engine; that engine's restart takes a moment.
    driver = audited_driver(make_engine("e0", max_requests=1), make_engine("e1", models=("n",)))
    driver.lose("e1")
    driver.submit(*make_steps("a", "b"), wanted=[make_wanted("b", waiter="w")])
    driver.run_until(25.0)
    driver.submit(make_step("c", model="n"), is_new=False)
    driver.run_until(50.0)
    driver.lose("e0")
    driver.run_until(50.0 + NO_ENGINE_S - 1)
    assert driver.answers == {}


def test_each_call_without_engine_waits_no_longer_than_the_limit() -> None:
    driver = audited_driver()
    for number in range(6):
        driver.submit(
            make_step(f"a{number}"),
            is_new=number == 0,
            wanted=[make_wanted(f"a{number}", waiter=f"w{number}")],
        )
        driver.run_until((number + 1) * NO_ENGINE_S / 2)
    assert code_of(driver, "w0") == "no_engine"


def test_second_call_without_engine_does_not_wait_for_twice_the_limit() -> None:
    driver = driver_with()
    driver.run_until(20.0)
    driver.submit(make_step("c"), is_new=False, wanted=[make_wanted("c", waiter="v")])
    driver.run_until(20.0 + NO_ENGINE_S)
    assert code_of(driver, "v") == "no_engine"


def test_loss_of_another_engine_does_not_prolong_the_wait() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1", models=("n",)))
    driver.lose("e1")
    driver.submit(make_step("a", model="n"), wanted=[make_wanted("a", waiter="w")])
    driver.run_until(NO_ENGINE_S - 1)
    driver.lose("e0")
    driver.run_until(NO_ENGINE_S)
    assert code_of(driver) == "no_engine"


def test_call_whose_only_engine_has_no_slots_is_answered_all_the_same() -> None:
    driver = audited_driver()
    with contextlib.suppress(RequestError):
        driver.join(make_engine(max_requests=0))
    driver.submit(make_step("a"), wanted=[make_wanted("a", waiter="w")])
    driver.run_until(1000.0)
    assert "w" in driver.answers


# --- silent engines ------------------------------------------------------------------------------


def test_engine_that_begins_to_work_gets_a_timer() -> None:
    driver = audited_driver(make_engine())
    driver.now_s = 5.0
    assert SetTimer(EngineTimer(EngineId("e0")), 5.0 + STALL_S) in driver.submit(make_step("a"))


def test_engine_that_begins_with_several_requests_gets_a_timer() -> None:
    driver = audited_driver(make_engine())
    commands = driver.submit(*make_steps("a", "b", "c"))
    assert SetTimer(EngineTimer(EngineId("e0")), STALL_S) in commands


def test_silent_engine_is_given_up() -> None:
    driver = driver_with("e0", max_attempts=1)
    driver.run_until(STALL_S - 0.1)
    assert driver.closed_engines == []
    driver.run_until(STALL_S)
    assert driver.closed_engines == ["e0"]
    assert code_of(driver) == "engine_lost"


def test_silent_engine_with_several_requests_is_given_up() -> None:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps("a", "b", "c"))
    driver.run_until(STALL_S)
    assert driver.closed_engines == ["e0"]


def test_work_of_a_silent_engine_goes_elsewhere() -> None:
    driver = driver_with("e0", "e1")
    driver.run_until(STALL_S)
    assert driver.running[driver.attempt("a")].start.engine == "e1"


def test_close_comes_before_the_new_start() -> None:
    driver = driver_with("e0", "e1")
    commands = driver.send(TimerFired(EngineTimer(EngineId("e0"))), after_s=STALL_S)
    kinds = [type(c) for c in commands if isinstance(c, CloseEngine | StartRequest)]
    assert kinds == [CloseEngine, StartRequest]


def test_engine_that_speaks_is_kept() -> None:
    driver = driver_with("e0")
    for _ in range(10):
        driver.run_until(driver.now_s + STALL_S / 2)
        driver.say("a", "")
    assert driver.closed_engines == []


def test_engine_that_falls_silent_later_is_given_up() -> None:
    driver = driver_with("e0")
    driver.run_until(100.0)
    driver.say("a", "word")
    driver.run_until(100.0 + STALL_S - 0.1)
    assert driver.closed_engines == []
    driver.run_until(100.0 + STALL_S)
    assert driver.closed_engines == ["e0"]


def test_idle_engine_is_kept() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    driver.finish("a")
    driver.run_until(5 * STALL_S)
    assert driver.closed_engines == []


@pytest.mark.parametrize("idle_s", [50.0, 109.0, 119.0, 121.0, 200.0, 500.0])
@pytest.mark.parametrize("number", [1, 3])
def test_time_without_work_does_not_count_as_silence(idle_s: float, number: int) -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("first"))
    driver.run_until(10.0)
    driver.finish("first")
    driver.run_until(10.0 + idle_s)
    driver.submit(*make_steps(*(f"a{i}" for i in range(number))), is_new=False)
    driver.run_until(10.0 + idle_s + STALL_S - 1.0)
    assert driver.closed_engines == []


@pytest.mark.parametrize("idle_s", [50.0, 109.0, 119.0, 121.0, 200.0, 500.0])
def test_engine_that_falls_silent_in_its_second_work_is_given_up(idle_s: float) -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("first"))
    driver.run_until(10.0)
    driver.finish("first")
    driver.run_until(10.0 + idle_s)
    driver.submit(*make_steps("a", "b"), is_new=False)
    driver.run_until(10.0 + idle_s + STALL_S)
    assert driver.closed_engines == ["e0"]


def test_timer_of_a_lost_engine_is_ignored() -> None:
    driver = driver_with("e0")
    driver.lose("e0")
    timer = TimerFired(EngineTimer(EngineId("e0")))
    assert of_type(driver.send(timer, after_s=STALL_S), CloseEngine) == []


def test_timer_that_comes_early_is_set_again() -> None:
    driver = driver_with("e0")
    timer = EngineTimer(EngineId("e0"))
    assert driver.send(TimerFired(timer), after_s=50.0) == [SetTimer(timer, STALL_S)]


def test_loss_reported_after_the_core_gave_up_is_ignored() -> None:
    driver = driver_with("e0", "e1")
    driver.run_until(STALL_S)
    assert driver.lose("e0") == []


# --- lengths -----------------------------------------------------------------------------------


def test_length_of_prompts_is_learnt_from_finished_requests() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(tokens_per_char=0.25))
    driver.submit(make_step("a", prompt="x" * 1000))
    before = driver.request("a").prompt_tokens
    driver.finish("a", usage=RequestUsage(prompt_tokens=500, completion_tokens=1))
    driver.submit(make_step("b", prompt="y" * 1000), is_new=False)
    assert before == 250
    assert 250 < driver.request("b").prompt_tokens < 500


def test_usage_without_prompt_tokens_teaches_nothing() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(tokens_per_char=0.25))
    driver.submit(make_step("a", prompt="x" * 1000))
    driver.finish("a", usage=RequestUsage(prompt_tokens=0, completion_tokens=1))
    driver.submit(make_step("b", prompt="y" * 1000), is_new=False)
    assert driver.request("b").prompt_tokens == 250


def test_short_prompts_do_not_spoil_the_estimate_of_long_ones() -> None:
    # A chat template adds some twenty tokens to any prompt, however short.
    driver = audited_driver(make_engine(), config=CoreConfig(tokens_per_char=0.25))
    for number in range(50):
        driver.submit(make_step(f"a{number}", prompt="Hi"), is_new=number == 0)
        driver.finish(f"a{number}", usage=RequestUsage(prompt_tokens=24, completion_tokens=1))
    driver.submit(make_step("b", prompt="x" * 4000), is_new=False)
    assert driver.request("b").prompt_tokens <= 4000


def test_one_odd_report_does_not_spoil_the_estimate() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(tokens_per_char=0.25))
    driver.submit(make_step("a", prompt="Hi"))
    driver.finish("a", usage=RequestUsage(prompt_tokens=10**9, completion_tokens=1))
    driver.submit(make_step("b", prompt="x" * 4000), is_new=False)
    assert driver.request("b").prompt_tokens <= 4000


# --- prompts that fit nowhere --------------------------------------------------------------------


def test_prompt_that_fits_no_engine_by_far_is_refused_without_building_it() -> None:
    # 200 MiB of text for a model of 4096 tokens.
    driver = audited_driver(make_engine())
    text = "x" * 2**20
    call = make_call("c", *([read("x")] * 200), write("a"))
    driver.submit(call, variables={"x": text}, wanted=[make_wanted("a", waiter="w")])
    assert driver.running_outputs == []
    assert driver.answer("w").state is VariableState.FAILED


# --- records -----------------------------------------------------------------------------------


def test_request_records_its_times() -> None:
    driver = audited_driver(config=CoreConfig(SchedulerConfig()))
    driver.now_s = 1.0
    driver.submit(make_step("a", "x"), variables={"x": None})
    driver.now_s = 2.0
    driver.set("x", "1")
    driver.now_s = 3.0
    driver.join(make_engine())
    driver.now_s = 4.0
    driver.say("a", "v")
    driver.now_s = 5.0
    driver.finish("a", "v")
    request = driver.request("a")
    assert (request.created_s, request.ready_s, request.placed_s) == (1.0, 2.0, 3.0)
    assert (request.first_token_s, request.finished_s) == (4.0, 5.0)
    assert request.state is NodeState.FINISHED


def test_request_records_where_and_why_it_ran() -> None:
    driver = driver_with("e0")
    driver.finish("a", usage=RequestUsage(9, 8))
    request = driver.request("a")
    assert (request.engine, request.attempts, request.usage) == ("e0", 1, RequestUsage(9, 8))
    assert request.reason


def test_request_that_said_nothing_had_its_first_token_at_the_end() -> None:
    driver = driver_with("e0")
    driver.now_s = 4.0
    driver.finish("a")
    assert driver.request("a").first_token_s == 4.0


def test_answer_of_a_long_chain_of_losses_is_still_one() -> None:
    driver = driver_with("e0", max_attempts=10)
    for number in range(1, 9):
        driver.join(make_engine(f"e{number}"))
        driver.lose(f"e{number - 1}")
    driver.finish("a")
    assert len(of_type(driver.finish("b", "end"), AnswerWaiter)) == 1
