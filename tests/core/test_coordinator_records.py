"""What the core learns and records of requests: lengths, times, places."""

from __future__ import annotations

from parrot_backend.core.commands import (
    AnswerWaiter,
)
from parrot_backend.core.config import CoreConfig, SchedulerConfig
from parrot_backend.core.events import (
    RequestUsage,
)
from parrot_backend.core.nodes import NodeState
from parrot_backend.core.variable import VariableState
from tests.core.audit import audited_driver
from tests.core.chain_driver import driver_with
from tests.helpers.builders import (
    make_call,
    make_engine,
    make_step,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import of_type

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
