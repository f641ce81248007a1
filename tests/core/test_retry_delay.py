"""A request that failed is tried elsewhere at once, and where it failed only after a while."""

from __future__ import annotations

from parrot_backend.core.config import CoreConfig
from tests.core.audit import audited_driver
from tests.helpers.builders import make_engine, make_step, make_wanted

CONFIG = CoreConfig(retry_delay_s=0.5, max_attempts=3)


def test_the_only_engine_is_tried_again_after_a_while() -> None:
    driver = audited_driver(make_engine(), config=CONFIG)
    driver.submit(make_step("a"))
    driver.fail("a", "engine_failed", is_retryable=True)
    assert driver.running_outputs == []
    driver.run_until(0.4)
    assert driver.running_outputs == []
    driver.run_until(0.5)
    assert driver.running_outputs == ["a"]


def test_the_wait_doubles() -> None:
    driver = audited_driver(make_engine(), config=CONFIG)
    driver.submit(make_step("a"))
    driver.fail("a", "engine_failed", is_retryable=True)
    driver.run_until(0.5)
    driver.fail("a", "engine_failed", is_retryable=True)
    driver.run_until(1.4)
    assert driver.running_outputs == []
    driver.run_until(1.5)
    assert driver.running_outputs == ["a"]


def test_another_engine_is_tried_at_once() -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"), config=CONFIG)
    driver.submit(make_step("a"))
    driver.fail("a", "engine_failed", is_retryable=True)
    assert driver.running_outputs == ["a"]


def test_cancel_during_the_wait_is_final() -> None:
    driver = audited_driver(make_engine(), config=CONFIG)
    driver.submit(make_step("a"), wanted=[make_wanted("a", waiter="w")])
    driver.fail("a", "engine_failed", is_retryable=True)
    driver.cancel("a")
    driver.run_until(10.0)
    assert driver.running_outputs == []
    assert driver.coordinator.num_active_calls == 0


def test_a_call_that_waits_to_be_tried_again_is_active() -> None:
    driver = audited_driver(make_engine(), config=CONFIG)
    driver.submit(make_step("a"))
    driver.fail("a", "engine_failed", is_retryable=True)
    assert driver.coordinator.num_active_calls == 1


def test_a_call_that_waits_for_an_unset_variable_is_not_active() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a", "x"), variables={"x": None})
    assert driver.coordinator.num_active_calls == 0
    assert driver.coordinator.num_unfinished_calls == 1
