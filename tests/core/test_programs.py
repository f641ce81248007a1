"""Whole programs on fake engines in virtual time: values, durations, and bad luck."""

from __future__ import annotations

import pytest

from parrot_backend.core.commands import StartRequest
from parrot_backend.core.config import CoreConfig, OrderingName, PlacementName, SchedulerConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.events import NodeSpec
from parrot_backend.core.ids import SessionId
from parrot_backend.core.prompt import Role
from parrot_backend.core.transforms import Format, JsonField, Strip
from parrot_backend.core.variable import VariableState
from tests.core.audit import BLIND, audited_driver
from tests.helpers.builders import (
    make_call,
    make_engine,
    make_step,
    make_steps,
    make_transform,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import (
    Behaviour,
    CoreDriver,
    Death,
    Outcome,
    Refusal,
    Reply,
    Silence,
    of_type,
    reply_to_prompt,
)


def one_second(start: StartRequest) -> Outcome:
    """Reply with the name of the call after one second."""
    return Reply(f"<{start.node.partition('.')[2].partition('#')[0]}>", 1.0)


def show_prompt(start: StartRequest) -> Outcome:
    """Reply with the prompt in brackets."""
    return Reply(f"[{''.join(part.text for part in start.parts)}]", 1.0)


def play(
    *nodes: NodeSpec,
    wanted: str,
    behaviour: Behaviour = one_second,
    engines: int = 1,
    variables: dict[str, str | None] | None = None,
    config: CoreConfig | None = None,
) -> CoreDriver:
    """Submit a program for waiter ``w`` and play it to its end."""
    infos = [make_engine(f"e{i}") for i in range(engines)]
    driver = audited_driver(*infos, config=config, behaviour=behaviour)
    driver.submit(*nodes, wanted=[make_wanted(wanted, waiter="w")], variables=variables)
    driver.run()
    return driver


# --- values and durations ------------------------------------------------------------------------


def test_chain_takes_one_round_after_the_other() -> None:
    driver = play(*make_steps("a", "b: a", "c: b"), wanted="c")
    assert (driver.answer("w").value, driver.now_s) == ("<c>", 3.0)


def test_maps_run_at_the_same_time() -> None:
    driver = play(*make_steps("a", "b", "c", "r: a b c"), wanted="r")
    assert driver.now_s == 2.0


def test_value_of_a_chain_is_made_of_the_values_before() -> None:
    driver = play(
        make_call("a", "Summarise ", read("x"), write("a")),
        make_call("b", "Translate ", read("a"), write("b")),
        wanted="b",
        behaviour=show_prompt,
        variables={"x": "the book"},
    )
    assert driver.answer("w").value == "[Translate [Summarise the book]]"


def test_value_of_a_reduce_has_the_maps_in_the_order_of_the_template() -> None:
    driver = play(
        *make_steps("a", "b"),
        make_call("r", read("b"), " and ", read("a"), write("r")),
        wanted="r",
        behaviour=show_prompt,
    )
    assert driver.answer("w").value == "[[make b of ] and [make a of ]]"


def test_outputs_of_one_prompt_see_all_before_them() -> None:
    driver = play(
        make_call("c", "Joke: ", write("joke"), " Why: ", write("why"), " Rate: ", write("rate")),
        wanted="rate",
        behaviour=show_prompt,
    )
    first = "[Joke: ]"
    second = f"[Joke: {first} Why: ]"
    assert driver.variable("joke").value == first
    assert driver.variable("why").value == second
    assert driver.answer("w").value == f"[Joke: {first} Why: {second} Rate: ]"


def test_transforms_stand_between_calls_at_no_cost() -> None:
    driver = play(
        make_step("a"),
        make_transform("t", read("a"), transforms=(JsonField("k"), Strip(), Format("({})"))),
        make_call("b", read("t"), write("b")),
        wanted="b",
        behaviour=lambda start: (
            Reply('{"k": " v "}') if start.node == "s.a#0" else show_prompt(start)
        ),
    )
    assert (driver.answer("w").value, driver.now_s) == ("[(v)]", 2.0)


def test_chat_prompt_keeps_its_roles() -> None:
    driver = play(
        make_call("c", Role("system"), "Be brief.", Role("user"), read("x"), write("a")),
        wanted="a",
        behaviour=lambda start: Reply("/".join(part.text for part in start.parts)),
        variables={"x": "Hello"},
    )
    assert driver.answer("w").value == "system/Be brief./user/Hello"


def test_client_steps_in_the_middle_of_a_graph() -> None:
    driver = audited_driver(make_engine(), behaviour=show_prompt)
    driver.submit(
        *make_steps("a"),
        make_call("b", "with ", read("x"), write("b")),
        variables={"x": None},
        wanted=[make_wanted("a", waiter="client"), make_wanted("b", waiter="w")],
    )
    driver.run()
    found = driver.answer("client").value
    assert found is not None
    driver.set("x", found.upper())
    driver.run()
    assert driver.answer("w").value == "[with [MAKE A OF ]]"


def test_multi_agent_rounds() -> None:
    lines = ["plan"]
    for number in range(4):
        lines += [f"code{number}: plan", f"review{number}: code{number}"]
        lines += [f"final{number}: code{number} review{number}"]
    lines.append("out: " + " ".join(f"final{i}" for i in range(4)))
    driver = play(*make_steps(*lines), wanted="out")
    assert (driver.answer("w").state, driver.now_s) == (VariableState.READY, 5.0)


def test_equal_prompts_get_equal_replies() -> None:
    driver = play(
        make_step("a", prompt="same"),
        make_step("b", prompt="same"),
        make_step("r", "a", "b"),
        wanted="r",
        behaviour=reply_to_prompt,
    )
    assert driver.variable("a").value == driver.variable("b").value


@pytest.mark.parametrize("placement", ["paper", *BLIND])
@pytest.mark.parametrize("ordering", [None, "application", "urgency", "topological", "fcfs"])
def test_value_does_not_depend_on_the_policy(
    placement: PlacementName, ordering: OrderingName | None
) -> None:
    config = CoreConfig(SchedulerConfig(placement=placement, ordering=ordering))
    steps = make_steps("a", "b: a", "c: a", "d: b c", "e", "f: d e")
    driver = play(*steps, wanted="f", behaviour=reply_to_prompt, config=config, engines=2)
    expected = play(*steps, wanted="f", behaviour=reply_to_prompt)
    assert driver.answer("w").value == expected.answer("w").value


def test_many_sessions_at_once() -> None:
    driver = audited_driver(
        make_engine("e0", max_requests=3), make_engine("e1", max_requests=3), behaviour=one_second
    )
    for number in range(12):
        session = SessionId(f"s{number}")
        driver.submit(
            *make_steps("a", "b", "r: a b", session=session),
            session=session,
            wanted=[make_wanted("r", waiter=f"w{number}", session=session)],
        )
    driver.run()
    assert {driver.answer(f"w{n}").state for n in range(12)} == {VariableState.READY}


# --- bad luck ------------------------------------------------------------------------------------


def failing_first(outcome: Outcome, times: int = 1) -> Behaviour:
    """Let the first tries of each call end badly."""

    def behave(start: StartRequest) -> Outcome:
        return outcome if int(start.attempt.rpartition("~")[2]) <= times else one_second(start)

    return behave


@pytest.mark.parametrize("times", [1, 2])
def test_program_survives_failures_that_pass(times: int) -> None:
    refusal = Refusal(is_retryable=True, said="half")
    driver = play(
        *make_steps("a", "b: a"), wanted="b", behaviour=failing_first(refusal, times), engines=2
    )
    assert driver.answer("w").value == "<b>"


def test_program_fails_when_failures_do_not_pass() -> None:
    refusal = Refusal("overloaded", is_retryable=True)
    driver = play(*make_steps("a", "b: a"), wanted="b", behaviour=failing_first(refusal, 99))
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, failure.path) == ("overloaded", ("a", "b"))


def test_program_survives_the_death_of_an_engine() -> None:
    driver = play(
        *make_steps("a", "b", "c", "r: a b c"),
        wanted="r",
        behaviour=lambda s: Death(0.5) if s.engine == "e0" else one_second(s),
        engines=2,
    )
    assert driver.answer("w").value == "<r>"


def test_program_survives_a_silent_engine() -> None:
    driver = audited_driver(
        make_engine("e0"),
        make_engine("e1"),
        behaviour=lambda s: Silence() if s.engine == "e0" else one_second(s),
    )
    driver.submit(*make_steps("a", "b", "r: a b"), wanted=[make_wanted("r", waiter="w")])
    driver.run_until(1000.0)
    assert driver.answer("w").value == "<r>"
    assert driver.closed_engines == ["e0"]


def test_failed_branch_leaves_the_other_branch_its_value() -> None:
    driver = audited_driver(
        make_engine(),
        behaviour=lambda s: Refusal() if s.node == "s.a#0" else one_second(s),
    )
    driver.submit(
        *make_steps("a", "b: a", "c", "d: c"),
        wanted=[make_wanted("b", waiter="bad"), make_wanted("d", waiter="good")],
    )
    driver.run()
    assert driver.answer("bad").state is VariableState.FAILED
    assert driver.answer("good").value == "<d>"


def test_stream_holds_the_value_in_the_end() -> None:
    driver = audited_driver(
        make_engine("e0"),
        make_engine("e1"),
        behaviour=failing_first(Refusal(is_retryable=True, said="wrong")),
    )
    driver.submit(make_step("a"), wanted=[make_wanted("a", waiter="w", stream=True)])
    driver.run()
    assert driver.streamed == {"w": driver.answer("w").value}


@pytest.mark.parametrize("lost", ["e0", "e1"])
def test_finished_values_survive_the_loss_of_either_engine(lost: str) -> None:
    driver = audited_driver(make_engine("e0"), make_engine("e1"))
    driver.submit(*make_steps("a", "b", "r: a b"), wanted=[make_wanted("r", waiter="w")])
    driver.finish("a", "one")
    driver.finish("b", "two")
    driver.lose(lost)
    driver.finish("r", "three")
    assert driver.answer("w").value == "three"
    assert [driver.request(name).attempts for name in ("a", "b")] == [1, 1]


# --- starvation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ["application", "urgency", "topological", "fcfs"])
def test_large_throughput_request_gets_its_turn_in_a_flood_of_latency(
    ordering: OrderingName,
) -> None:
    config = CoreConfig(SchedulerConfig(ordering=ordering, max_wait_s=10.0))
    info = make_engine(capacity_tokens=1000, latency_capacity_tokens=900)
    driver = audited_driver(info, config=config, behaviour=one_second)
    for half_second in range(100):
        driver.run_until(half_second / 2)
        session = SessionId(f"s{half_second}")
        driver.submit(
            make_step("a", session=session, max_tokens=300),
            session=session,
            wanted=[make_wanted("a", session=session)],
        )
        if half_second == 5:
            big = SessionId("big")
            driver.submit(
                make_step("a", session=big, max_tokens=950),
                session=big,
                wanted=[make_wanted("a", waiter="w", session=big)],
            )
    driver.run()
    assert driver.answer("w").state is VariableState.READY


def test_request_that_waits_long_is_served_within_its_limit() -> None:
    config = CoreConfig(SchedulerConfig(ordering="application", max_wait_s=10.0))
    driver = audited_driver(make_engine(max_requests=1), config=config, behaviour=one_second)
    driver.submit(make_step("slow"))
    low = SessionId("low")
    driver.submit(make_step("a", session=low), session=low)
    for number in range(60):
        session = SessionId(f"s{number}")
        driver.submit(
            make_step("a", session=session),
            session=session,
            wanted=[make_wanted("a", session=session)],
        )
        driver.run_until(number / 2)
    driver.run()
    placed_s = driver.request("a", low).placed_s
    assert placed_s is not None
    assert placed_s <= 12.0


# --- objectives at the engine -------------------------------------------------------------------


def test_engines_are_told_the_deduced_objectives() -> None:
    driver = play(*make_steps("a", "b", "r: a b"), wanted="r")
    starts = of_type([c for _, _, commands in driver.history for c in commands], StartRequest)
    told = {start.node: start.objective.objective_class for start in starts}
    assert told == {
        "s.a#0": ObjectiveClass.TASK_GROUP,
        "s.b#0": ObjectiveClass.TASK_GROUP,
        "s.r#0": ObjectiveClass.LATENCY,
    }
