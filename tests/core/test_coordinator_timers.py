"""Time passes: calls without an engine, and engines without a word."""

from __future__ import annotations

import contextlib

import pytest

from parrot_backend.core.commands import (
    CloseEngine,
    SetTimer,
    StartRequest,
)
from parrot_backend.core.events import (
    EngineTimer,
    NoEngineTimer,
    TimerFired,
)
from parrot_backend.core.ids import EngineId
from parrot_backend.errors import RequestError
from tests.core.audit import audited_driver
from tests.core.chain_driver import code_of, driver_with
from tests.helpers.builders import (
    make_engine,
    make_step,
    make_steps,
    make_wanted,
)
from tests.helpers.core_driver import of_type

STALL_S, NO_ENGINE_S = 120.0, 30.0

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


def test_engine_that_came_and_went_begins_the_wait_anew() -> None:
    driver = audited_driver()
    driver.submit(*make_steps("a", "b"), wanted=[make_wanted("b", waiter="w")])
    driver.run_until(10.0)
    driver.join(make_engine(max_requests=1))
    driver.run_until(20.0)
    driver.lose("e0")
    driver.run_until(20.0 + NO_ENGINE_S - 0.1)
    assert driver.answers == {}
    driver.run_until(20.0 + NO_ENGINE_S)
    assert code_of(driver) == "no_engine"


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


def test_engine_that_works_already_gets_no_second_timer() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    assert of_type(driver.submit(make_step("b"), is_new=False), SetTimer) == []


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
