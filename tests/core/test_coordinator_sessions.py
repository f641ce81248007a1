"""Sessions end: closed by the client or idle for too long, and nothing of them is left."""

from __future__ import annotations

import pytest

from parrot_backend.core.commands import AbortRequest, AnswerWaiter, SetTimer
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.events import SessionTimer, TimerFired
from parrot_backend.core.ids import SessionId
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import RequestError
from tests.core.audit import audited_driver, mentions, snapshot
from tests.helpers.builders import (
    SESSION,
    make_call,
    make_engine,
    make_step,
    make_steps,
    make_submission,
    make_transform,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import CoreDriver, of_type, started

OTHER = SessionId("other")
TTL_S = 600.0


def driver_with(
    *lines: str, wanted: str = "", variables: dict[str, str | None] | None = None
) -> CoreDriver:
    driver = audited_driver(make_engine(), config=CoreConfig(engine_stall_s=1e9))
    driver.submit(
        *make_steps(*lines),
        wanted=[make_wanted(name, waiter=f"w-{name}") for name in wanted.split()],
        variables=variables,
    )
    return driver


def is_there(driver: CoreDriver, session: SessionId = SESSION) -> bool:
    return any(found.id == session for found in driver.coordinator.sessions)


# --- closing ---------------------------------------------------------------------------------


def test_closed_session_is_forgotten() -> None:
    driver = driver_with("a")
    driver.close()
    with pytest.raises(RequestError) as caught:
        driver.coordinator.session(SESSION)
    assert caught.value.code == "unknown_session"


def test_close_aborts_what_runs() -> None:
    driver = driver_with("a", "b")
    aborts = of_type(driver.close(), AbortRequest)
    assert [abort.attempt for abort in aborts] == ["s.a#0~1", "s.b#0~1"]


def test_close_answers_everybody() -> None:
    driver = driver_with("a", "b: a", "c: x", wanted="a b c x", variables={"x": None})
    answers = of_type(driver.close(), AnswerWaiter)
    assert sorted(answer.waiter for answer in answers) == ["w-a", "w-b", "w-c", "w-x"]
    assert driver.answer("w-a").state is VariableState.CANCELLED
    assert driver.answer("w-b").state is VariableState.CANCELLED


def test_close_tells_who_waits_for_an_unset_variable_that_it_was_never_set() -> None:
    driver = driver_with("c: x", wanted="c", variables={"x": None})
    driver.close()
    failure = driver.answer("w-c").failure
    assert failure is not None
    assert (failure.code, failure.path) == ("variable_not_set", ("x", "c"))


def test_close_of_a_finished_session_commands_nothing() -> None:
    driver = driver_with("a")
    driver.finish("a")
    assert driver.close() == []


def test_close_spares_other_sessions() -> None:
    driver = driver_with("a")
    driver.submit(make_step("a", session=OTHER), session=OTHER)
    driver.close()
    assert list(driver.running) == ["other.a#0~1"]
    assert is_there(driver, OTHER)


def test_close_makes_room_for_others() -> None:
    driver = audited_driver(make_engine(max_requests=1))
    driver.submit(make_step("a"))
    driver.submit(make_step("b", session=OTHER), session=OTHER)
    assert started(driver.close()) == ["b#0~1"]


def test_close_counts_its_calls_as_ended() -> None:
    driver = driver_with("a", "b: a", "c: b")
    driver.finish("a")
    driver.close()
    assert driver.coordinator.num_unfinished_calls == 0


def test_close_empties_the_queue() -> None:
    driver = audited_driver()
    driver.submit(*make_steps("a", "b", "c: a"))
    driver.close()
    assert driver.coordinator.num_waiting == 0


def test_close_of_an_unknown_session_is_refused() -> None:
    driver = driver_with("a")
    before = snapshot(driver)
    with pytest.raises(RequestError) as caught:
        driver.close(OTHER)
    assert caught.value.code == "unknown_session"
    assert snapshot(driver) == before


def test_session_cannot_be_closed_twice() -> None:
    driver = driver_with("a")
    driver.close()
    with pytest.raises(RequestError):
        driver.close()


def test_closed_session_may_be_opened_again() -> None:
    driver = driver_with("a")
    driver.close()
    driver.submit(make_step("b"))
    assert driver.running_outputs == ["b"]


@pytest.mark.parametrize("stage", ["waiting", "queued", "running", "streaming", "retried", "done"])
def test_nothing_is_left_of_a_closed_session(stage: str) -> None:
    driver = audited_driver()
    call = make_call("c", "p", read("x"), write("a"), " and ", write("b"))
    driver.send(
        make_submission(
            call,
            make_transform("t", read("b")),
            variables={"x": None},
            wanted=[make_wanted("t", waiter="w"), make_wanted("a", waiter="v", stream=True)],
            idempotency_key="k",
        )
    )
    if stage != "waiting":
        driver.set("x", "1")
    if stage not in ("waiting", "queued"):
        driver.join(make_engine())
    if stage in ("streaming", "retried"):
        driver.say("a", "text")
    if stage == "retried":
        driver.fail("a", is_retryable=True)
    if stage == "done":
        driver.finish("a")
        driver.finish("b")
    driver.close()
    assert mentions(driver, SESSION) == []


def test_close_of_many_sessions_leaves_an_idle_core() -> None:
    driver = audited_driver(make_engine(max_requests=2))
    for number in range(10):
        session = SessionId(f"s{number}")
        driver.submit(*make_steps("a", "b: a", session=session), session=session)
    for number in range(10):
        driver.close(SessionId(f"s{number}"))
    engine = next(iter(driver.coordinator.engines.values()))
    assert (engine.used_tokens, engine.running) == (0, {})
    assert (driver.coordinator.num_unfinished_calls, driver.coordinator.num_waiting) == (0, 0)


# --- idle sessions -----------------------------------------------------------------------------


def test_idle_session_is_forgotten() -> None:
    driver = driver_with()
    driver.run_until(TTL_S - 0.1)
    assert is_there(driver)
    driver.run_until(TTL_S)
    assert not is_there(driver)


def test_finished_session_is_forgotten_after_a_while() -> None:
    driver = driver_with("a", wanted="a")
    driver.run_until(100.0)
    driver.finish("a")
    driver.run_until(100.0 + TTL_S - 0.1)
    assert is_there(driver)
    driver.run_until(100.0 + TTL_S)
    assert not is_there(driver)


def test_running_session_is_kept() -> None:
    driver = driver_with("a")
    driver.run_until(5 * TTL_S)
    assert is_there(driver)


def test_queued_session_is_kept() -> None:
    driver = audited_driver(make_engine(max_requests=1), config=CoreConfig(engine_stall_s=1e9))
    driver.submit(make_step("a", session=OTHER), session=OTHER)
    driver.submit(make_step("a"))
    driver.run_until(5 * TTL_S)
    assert is_there(driver)


def test_session_that_somebody_waits_for_is_kept() -> None:
    driver = driver_with("a: x", wanted="a", variables={"x": None})
    driver.run_until(5 * TTL_S)
    assert is_there(driver)


def test_session_that_waits_for_a_client_that_never_comes_is_forgotten() -> None:
    driver = driver_with("a: x", variables={"x": None})
    driver.run_until(TTL_S)
    assert not is_there(driver)
    assert driver.coordinator.num_unfinished_calls == 0


@pytest.mark.parametrize("what", ["set", "get", "leave", "cancel", "submit", "repeat"])
def test_event_of_the_client_keeps_the_session(what: str) -> None:
    driver = audited_driver(config=CoreConfig())
    submission = make_submission(
        make_step("a", "x"), variables={"x": None, "y": None}, idempotency_key="k"
    )
    driver.send(submission)
    driver.run_until(400.0)
    if what == "set":
        driver.set("y", "1")
    elif what == "get":
        driver.get("x", "w")
        driver.leave("w")
    elif what == "leave":
        driver.leave("nobody")
        driver.get("y", "w")
        driver.leave("w", cancel=False)
    elif what == "cancel":
        driver.cancel("y")
    elif what == "submit":
        driver.submit(make_step("b", "x"), is_new=False)
    else:
        driver.send(submission)
    driver.run_until(400.0 + TTL_S - 0.1)
    assert is_there(driver)
    driver.run_until(400.0 + TTL_S + 0.1)
    assert not is_there(driver)


def test_who_leaves_keeps_the_session_from_then_on() -> None:
    driver = driver_with(variables={"x": None})
    driver.run_until(100.0)
    driver.get("x", "w")
    driver.run_until(400.0)
    driver.leave("w")
    driver.run_until(400.0 + TTL_S - 0.1)
    assert is_there(driver)
    driver.run_until(400.0 + TTL_S)
    assert not is_there(driver)


def test_who_asks_for_a_value_that_is_there_keeps_the_session_from_then_on() -> None:
    driver = driver_with(variables={"x": "1"})
    driver.run_until(400.0)
    driver.get("x", "w")
    driver.run_until(400.0 + TTL_S - 0.1)
    assert is_there(driver)


def test_timer_that_comes_early_is_set_again() -> None:
    driver = driver_with()
    timer = SessionTimer(SESSION)
    driver.run_until(100.0)
    assert driver.send(TimerFired(timer)) == [SetTimer(timer, TTL_S)]


def test_timer_of_a_closed_session_is_ignored() -> None:
    driver = driver_with()
    driver.close()
    assert driver.send(TimerFired(SessionTimer(SESSION)), after_s=TTL_S) == []


def test_session_with_its_id_opened_again_has_its_own_time() -> None:
    driver = driver_with()
    driver.run_until(500.0)
    driver.close()
    driver.submit()
    driver.run_until(500.0 + TTL_S - 0.1)
    assert is_there(driver)


# --- closed graphs -----------------------------------------------------------------------------

CLOSED_TTL_S = 60.0


def closed_driver(*lines: str, session_ttl_s: float = TTL_S) -> CoreDriver:
    config = CoreConfig(
        session_ttl_s=session_ttl_s, closed_session_ttl_s=CLOSED_TTL_S, engine_stall_s=1e9
    )
    driver = audited_driver(make_engine(), config=config)
    driver.submit(*make_steps(*lines), close=True)
    return driver


def test_session_that_takes_no_more_is_forgotten_sooner() -> None:
    driver = closed_driver("a")
    driver.run_until(10.0)
    driver.finish("a")
    driver.run_until(10.0 + CLOSED_TTL_S - 0.1)
    assert is_there(driver)
    driver.run_until(10.0 + CLOSED_TTL_S)
    assert not is_there(driver)


def test_session_that_takes_no_more_is_kept_while_it_runs() -> None:
    driver = closed_driver("a")
    driver.run_until(10 * CLOSED_TTL_S)
    assert is_there(driver)


def test_session_that_is_closed_later_is_forgotten_sooner() -> None:
    driver = driver_with("a")
    driver.finish("a")
    driver.run_until(100.0)
    driver.submit(is_new=False, close=True)
    driver.run_until(100.0 + CLOSED_TTL_S)
    assert not is_there(driver)


def test_closed_session_is_not_kept_longer_than_an_open_one() -> None:
    driver = closed_driver(session_ttl_s=20.0)
    driver.run_until(20.0)
    assert not is_there(driver)


def test_closed_session_that_is_asked_again_is_kept() -> None:
    driver = closed_driver("a")
    driver.finish("a")
    driver.run_until(50.0)
    driver.get("a", "w")
    driver.run_until(50.0 + CLOSED_TTL_S - 0.1)
    assert is_there(driver)
