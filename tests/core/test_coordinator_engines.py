"""Engines come, fail and go: retries, lost work, and what is said too late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parrot_backend.core.commands import (
    ResetStream,
    StartRequest,
    UpdateRequest,
)
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.criteria import Criteria, CriteriaKind, Objective, ObjectiveClass
from parrot_backend.core.events import (
    EngineReported,
    Event,
    RequestFailed,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import RequestError
from tests.core.audit import audited_driver, snapshot
from tests.core.chain_driver import code_of, driver_with, engines_of
from tests.helpers.builders import (
    make_engine,
    make_step,
    make_steps,
    make_wanted,
)
from tests.helpers.core_driver import CoreDriver, finished, of_type, started

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


def test_engine_with_the_most_room_is_chosen_by_the_papers_rule() -> None:
    driver = audited_driver(
        make_engine("small", capacity_tokens=1000),
        make_engine("large", capacity_tokens=2000),
        config=CoreConfig(scheduler=SchedulerConfig(placement="paper")),
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


def test_request_that_is_tried_again_is_ready_from_then_on() -> None:
    driver = driver_with("e0")
    driver.now_s = 5.0
    driver.fail("a", is_retryable=True)
    assert driver.request("a").ready_s == 5.0


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


# --- what engines say of themselves ------------------------------------------------------------

HEAD = "x" * 400
STEP_TIME = StepTimeModel(0.01, 1e-5, 1e-4, 1e-8, 1e-9, num_samples=9, error=0.1)


def test_time_of_steps_is_kept_until_another_is_told() -> None:
    driver = driver_with("e0", "e1")
    e0, e1 = driver.coordinator.engines.values()
    driver.send(EngineReported(e0.id, step_time=STEP_TIME))
    driver.send(EngineReported(e0.id))
    assert (e0.step_time, e1.step_time) == (STEP_TIME, None)
    slower = replace(STEP_TIME, base_s=1.0)
    driver.send(EngineReported(e0.id, step_time=slower))
    assert e0.step_time == slower


def test_report_of_an_unknown_engine_is_ignored() -> None:
    driver = driver_with("e0")
    before = snapshot(driver)
    held = (PrefixBoundary(b"key", 64),)
    assert driver.send(EngineReported(EngineId("gone"), held, (b"other",), True, STEP_TIME)) == []
    assert snapshot(driver) == before


@pytest.mark.parametrize("keeps_prefixes", [False, True])
def test_report_moves_a_request_to_where_its_prefix_is(keeps_prefixes: bool) -> None:
    driver = audited_driver(
        make_engine("e0", keeps_prefixes=keeps_prefixes),
        make_engine("e1", keeps_prefixes=keeps_prefixes),
    )
    (start,) = of_type(driver.submit(make_step("a", prompt=HEAD)), StartRequest)
    assert start.engine == "e0"
    driver.report("e0", lost=[b.hash for b in start.prefixes])
    driver.report("e1", held=start.prefixes)
    assert engines_of(driver.submit(make_step("b", prompt=HEAD), is_new=False)) == ["e1"]


def test_snapshot_of_nothing_forgets_all_prefixes() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"))
    driver.submit(make_step("a", prompt=HEAD))
    driver.report("e0", is_snapshot=True)
    assert engines_of(driver.submit(make_step("b", prompt=HEAD), is_new=False)) == ["e1"]


# --- what engines are told of what runs --------------------------------------------------------


def updating_driver(*, takes_updates: bool = True, keeps_prefixes: bool = False) -> CoreDriver:
    driver = audited_driver(
        make_engine("e0", takes_updates=takes_updates, keeps_prefixes=keeps_prefixes)
    )
    driver.submit(make_step("a"))
    return driver


def test_engine_is_told_that_the_objective_has_changed() -> None:
    driver = updating_driver()
    criteria = Criteria(CriteriaKind.LATENCY, tpot_s=0.02)
    (update,) = of_type(driver.get("a", "w", criteria), UpdateRequest)
    assert update == UpdateRequest(
        EngineId("e0"), driver.attempt("a"), Objective(ObjectiveClass.LATENCY, tpot_s=0.02), 0
    )
    assert of_type(driver.get("a", "w2", criteria), UpdateRequest) == []


def test_engine_is_told_that_the_way_to_go_is_longer() -> None:
    driver = updating_driver()
    (update,) = of_type(driver.submit(make_step("b", "a"), is_new=False), UpdateRequest)
    assert (update.attempt, update.remaining) == (driver.attempt("a"), 1)


def test_last_word_is_the_new_objective_and_the_new_way() -> None:
    driver = updating_driver()
    commands = driver.submit(make_step("b", "a"), is_new=False, wanted=[make_wanted("b")])
    last = of_type(commands, UpdateRequest)[-1]
    assert (last.objective.objective_class, last.remaining) == (ObjectiveClass.LATENCY, 1)


def test_start_has_the_objective_so_nothing_follows_it() -> None:
    driver = updating_driver()
    commands = driver.submit(make_step("b"), is_new=False, wanted=[make_wanted("b")])
    (start,) = of_type(commands, StartRequest)
    assert start.objective.objective_class is ObjectiveClass.LATENCY
    assert of_type(commands, UpdateRequest) == []


@pytest.mark.parametrize("keeps_prefixes", [False, True])
def test_engine_that_takes_no_updates_is_told_nothing(keeps_prefixes: bool) -> None:
    driver = updating_driver(takes_updates=False, keeps_prefixes=keeps_prefixes)
    commands = driver.get("a", "w", Criteria(CriteriaKind.LATENCY))
    commands += driver.submit(make_step("b", "a"), is_new=False)
    assert of_type(commands, UpdateRequest) == []


def test_nothing_is_told_of_what_is_queued_or_has_ended() -> None:
    driver = audited_driver(make_engine(max_requests=1, takes_updates=True))
    driver.submit(*make_steps("a", "b"))
    assert of_type(driver.get("b", "w", Criteria(CriteriaKind.LATENCY)), UpdateRequest) == []
    driver.finish("a")
    assert of_type(driver.submit(make_step("c", "a"), is_new=False), UpdateRequest) == []
