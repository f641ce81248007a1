"""Submitting graphs to the coordinator: what starts, what is refused, what a repeat does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parrot_backend.core.commands import AnswerWaiter, SetTimer, StartRequest
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.events import GraphSubmitted, SessionTimer
from parrot_backend.core.ids import SessionId
from parrot_backend.core.prompt import PartKind, PromptPart, Role
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import CapacityError, RequestError
from tests.core.audit import audited_driver, snapshot
from tests.helpers.builders import (
    LATENCY,
    SESSION,
    THROUGHPUT,
    make_call,
    make_engine,
    make_objective,
    make_step,
    make_steps,
    make_submission,
    make_transform,
    make_wanted,
    read,
    var,
    write,
)
from tests.helpers.core_driver import CoreDriver, of_type, started

OTHER = SessionId("other")


def refused(driver: CoreDriver, submission: GraphSubmitted) -> str:
    """Return the code with which a submit is refused, having checked that nothing changed."""
    before = snapshot(driver)
    with pytest.raises((RequestError, CapacityError)) as caught:
        driver.send(submission)
    assert snapshot(driver) == before
    return caught.value.code


# --- starting --------------------------------------------------------------------------------


def test_call_that_is_ready_starts_at_once() -> None:
    driver = audited_driver(make_engine())
    assert started(driver.submit(make_step("a"))) == ["a#0~1"]


def test_call_that_waits_does_not_start() -> None:
    driver = audited_driver(make_engine())
    assert started(driver.submit(*make_steps("a", "b: a"))) == ["a#0~1"]


def test_start_says_everything_an_engine_needs() -> None:
    driver = audited_driver(make_engine())
    call = make_call("c", Role("user"), "Say ", read("x"), write("a", max_tokens=7), model="m")
    commands = driver.submit(
        call, variables={"x": "hello"}, wanted=[make_wanted("a")], tenant="tenant"
    )
    start = of_type(commands, StartRequest)[0]
    assert (start.engine, start.attempt, start.node) == ("e0", "s.c#0~1", "s.c#0")
    assert (start.session, start.tenant, start.model) == ("s", "tenant", "m")
    assert start.parts == (
        PromptPart(PartKind.ROLE, "user"),
        PromptPart(PartKind.CONSTANT, "Say "),
        PromptPart(PartKind.VALUE, "hello"),
    )
    assert start.sampling.max_tokens == 7
    assert start.objective == make_objective(ObjectiveClass.LATENCY)
    assert start.reason != ""


def test_model_none_is_the_default_of_the_first_engine() -> None:
    driver = audited_driver(make_engine("e0", models=("m", "n")), make_engine("e1", models=("k",)))
    assert of_type(driver.submit(make_step("a")), StartRequest)[0].model == "m"


def test_call_without_model_that_came_before_any_engine_gets_the_default_then() -> None:
    driver = audited_driver()
    driver.submit(make_step("a"))
    assert of_type(driver.join(make_engine(models=("m",))), StartRequest)[0].model == "m"


def test_whole_graph_in_one_submit_is_started_in_the_right_order() -> None:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps("c: b", "b: a", "a"))
    assert started(driver.finish("a")) == ["b#0~1"]
    assert started(driver.finish("b")) == ["c#0~1"]


def test_nothing_starts_without_engines() -> None:
    driver = audited_driver()
    assert started(driver.submit(make_step("a"))) == []
    assert driver.coordinator.num_waiting == 1


def test_what_waited_starts_when_an_engine_joins() -> None:
    driver = audited_driver()
    driver.submit(make_step("a"))
    assert started(driver.join(make_engine())) == ["a#0~1"]


def test_transforms_need_no_engine() -> None:
    driver = audited_driver()
    driver.submit(make_transform("t", "<", read("x"), ">"), variables={"x": "1"})
    assert driver.variable("t").value == "<1>"


def test_objective_of_a_call_nobody_wants_is_throughput() -> None:
    driver = audited_driver(make_engine())
    start = of_type(driver.submit(make_step("a")), StartRequest)[0]
    assert start.objective == make_objective(ObjectiveClass.THROUGHPUT)


def test_maps_of_a_reduce_start_as_one_group() -> None:
    driver = audited_driver(make_engine())
    commands = driver.submit(*make_steps("r: a b", "a", "b"), wanted=[make_wanted("r")])
    group = make_objective(ObjectiveClass.TASK_GROUP, "s.a#0")
    assert [start.objective for start in of_type(commands, StartRequest)] == [group, group]


def test_unfinished_calls_are_counted() -> None:
    driver = audited_driver(make_engine(max_requests=1))
    driver.submit(*make_steps("a", "b", "c: b"))
    assert (driver.coordinator.num_unfinished_calls, driver.coordinator.num_waiting) == (3, 1)


def test_each_output_is_an_unfinished_call() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_call("c", "p", write("a"), write("b")))
    assert driver.coordinator.num_unfinished_calls == 2


def test_empty_submit_opens_a_session() -> None:
    driver = audited_driver()
    driver.submit()
    assert driver.coordinator.session(SESSION).graph.nodes == {}


def test_new_session_gets_its_timer() -> None:
    driver = audited_driver(config=CoreConfig(session_ttl_s=600.0))
    assert driver.submit() == [SetTimer(SessionTimer(SESSION), 600.0)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("tenant", "m"), ("tenant", "n")),
        (("tenant", "m"), ("another", "m")),
        (("a", "b/c"), ("a/b", "c")),
        (("a/", "m"), ("a", "/m")),
    ],
)
def test_equal_prompts_of_other_tenants_or_models_share_no_prefix(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    models = (one[1], other[1]) if one[1] != other[1] else (one[1],)
    driver = audited_driver(make_engine(models=models))
    found = []
    for number, (tenant, model) in enumerate([one, other]):
        session = SessionId(f"s{number}")
        step = make_step("a", session=session, model=model, prompt="x" * 400)
        driver.submit(step, session=session, tenant=tenant)
        found.append({b.hash for b in driver.request("a", session).prefixes})
    assert found[0].isdisjoint(found[1])


def test_equal_prompts_of_one_tenant_share_their_prefix() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a", prompt="x" * 400), make_step("b", prompt="x" * 400))
    assert driver.request("a").prefixes == driver.request("b").prefixes


def test_default_model_shares_prefixes_with_its_name() -> None:
    driver = audited_driver(make_engine(models=("m",)))
    driver.submit(make_step("a", prompt="x" * 400), make_step("b", prompt="x" * 400, model="m"))
    assert driver.request("a").prefixes == driver.request("b").prefixes


# --- growing ---------------------------------------------------------------------------------


def test_session_may_grow() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    driver.finish("a", "one")
    commands = driver.submit(make_step("b", "a"), is_new=False)
    assert of_type(commands, StartRequest)[0].parts[1].text == "one"


def test_added_call_may_read_what_is_not_there_yet() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    assert started(driver.submit(make_step("b", "a"), is_new=False)) == []
    assert started(driver.finish("a")) == ["b#0~1"]


def test_added_call_that_reads_a_failed_value_fails_at_once() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    driver.fail("a")
    driver.submit(make_step("b", "a"), is_new=False, wanted=[make_wanted("b", waiter="w")])
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, failure.path) == ("engine_failed", ("a", "b"))


def test_added_reduce_makes_queued_calls_a_group() -> None:
    driver = audited_driver()
    driver.submit(*make_steps("a", "b"))
    driver.submit(make_step("r", "a", "b"), is_new=False, wanted=[make_wanted("r")])
    starts = of_type(driver.join(make_engine()), StartRequest)
    assert {start.objective.objective_class for start in starts} == {ObjectiveClass.TASK_GROUP}


def test_longer_way_to_go_moves_a_queued_call_forward() -> None:
    config = CoreConfig(scheduler=replace(CoreConfig().scheduler, ordering="application"))
    driver = audited_driver(config=config)
    driver.submit(*make_steps("a", "b"))
    driver.submit(*make_steps("c: b", "d: c"), is_new=False)
    assert started(driver.join(make_engine(max_requests=1))) == ["b#0~1"]


# --- refusing --------------------------------------------------------------------------------


def live_driver() -> CoreDriver:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"), variables={"x": None}, wanted=[make_wanted("a", waiter="w")])
    return driver


REFUSED: dict[str, tuple[GraphSubmitted, str]] = {
    "unknown session": (make_submission(session=OTHER, is_new=False), "unknown_session"),
    "another tenant": (make_submission(is_new=False, tenant="another"), "unknown_session"),
    "a session that exists": (make_submission(), "session_exists"),
    "a name that is taken": (make_submission(make_step("a"), is_new=False), "duplicate_call"),
    "a variable that is taken": (
        make_submission(make_call("c", "p", write("a")), is_new=False),
        "duplicate_variable",
    ),
    "an unknown input": (make_submission(make_step("b", "?"), is_new=False), "unknown_variable"),
    "an unknown wanted variable": (
        make_submission(wanted=[make_wanted("?", waiter="w2")], is_new=False),
        "unknown_variable",
    ),
    "a cycle": (make_submission(*make_steps("b: c", "c: b"), is_new=False), "cycle_in_graph"),
    "a variable of another session": (
        make_submission(make_call("b", read("a"), write("b", session=OTHER)), session=OTHER),
        "unknown_variable",
    ),
    "an unknown model": (
        make_submission(make_step("b", model="gpt"), is_new=False),
        "unknown_model",
    ),
    "closing with an unset variable": (
        make_submission(is_new=False, close=True),
        "variable_not_set",
    ),
    "a good call beside a bad one": (
        make_submission(make_step("b"), make_call("c", "p"), is_new=False),
        "template_without_output",
    ),
}


@pytest.mark.parametrize(("submission", "code"), REFUSED.values(), ids=REFUSED)
def test_submit_is_refused_and_changes_nothing(submission: GraphSubmitted, code: str) -> None:
    assert refused(live_driver(), submission) == code


def test_model_is_not_checked_before_any_engine_joined() -> None:
    driver = audited_driver()
    driver.submit(make_step("a", model="later"))
    assert driver.coordinator.num_waiting == 1


def test_model_whose_engine_is_gone_is_still_known() -> None:
    driver = audited_driver(make_engine(models=("m", "n")), make_engine("e1"))
    driver.lose("e0")
    driver.submit(make_step("a", model="n"))
    assert driver.coordinator.num_waiting == 1


@pytest.mark.parametrize(("number", "is_taken"), [(3, True), (4, False)])
def test_limit_of_unfinished_calls(number: int, is_taken: bool) -> None:
    driver = audited_driver(config=CoreConfig(max_unfinished_calls=5))
    driver.submit(*make_steps("a", "b"))
    steps = make_steps(*(f"c{i}" for i in range(number)), session=OTHER)
    if is_taken:
        driver.submit(*steps, session=OTHER)
        assert driver.coordinator.num_unfinished_calls == 5
    else:
        assert refused(driver, make_submission(*steps, session=OTHER)) == "saturated"


def test_finished_calls_make_room_for_new_ones() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(max_unfinished_calls=1))
    driver.submit(make_step("a"))
    driver.finish("a")
    assert started(driver.submit(make_step("b"), is_new=False)) == ["b#0~1"]


def test_transforms_do_not_count_as_unfinished_calls() -> None:
    driver = audited_driver(config=CoreConfig(max_unfinished_calls=1))
    driver.submit(make_transform("t", "x"), make_transform("u", "y"), make_step("a"))
    assert driver.coordinator.num_unfinished_calls == 1


def test_limit_of_nodes_holds_for_the_whole_session() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(max_nodes_per_session=2))
    driver.submit(*make_steps("a", "b"))
    assert refused(driver, make_submission(make_step("c"), is_new=False)) == "graph_too_large"


def test_refused_new_session_is_not_there() -> None:
    driver = audited_driver(make_engine())
    refused(driver, make_submission(make_step("b", "?")))
    with pytest.raises(RequestError):
        driver.coordinator.session(SESSION)


def test_session_id_of_a_refused_submit_may_be_used() -> None:
    driver = audited_driver(make_engine())
    refused(driver, make_submission(make_step("b", "?")))
    assert started(driver.submit(make_step("b"))) == ["b#0~1"]


def test_refused_submit_does_not_use_up_its_key() -> None:
    driver = audited_driver(make_engine())
    refused(driver, make_submission(make_step("b", "?"), idempotency_key="k"))
    driver.send(make_submission(make_step("b"), idempotency_key="k"))
    assert driver.coordinator.session_of_key("default", "k") == SESSION


# --- closed graphs -----------------------------------------------------------------------------


def test_closed_session_takes_no_more() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"), close=True)
    assert refused(driver, make_submission(make_step("b"), is_new=False)) == "session_closed"


def test_closed_session_goes_on() -> None:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps("a", "b: a"), close=True, wanted=[make_wanted("b", waiter="w")])
    driver.finish("a")
    driver.finish("b", "end")
    assert driver.answer("w").value == "end"


def test_live_session_may_be_closed_by_a_later_submit() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    driver.submit(make_step("b"), is_new=False, close=True)
    assert driver.coordinator.session(SESSION).is_closed


# --- repeats -----------------------------------------------------------------------------------


def keyed(session: SessionId = SESSION, waiter: str | None = None) -> GraphSubmitted:
    return make_submission(
        *make_steps("a", "b: a", session=session),
        session=session,
        idempotency_key="k",
        digest="body",
        wanted=[make_wanted("b", LATENCY, waiter, session=session)],
    )


def test_repeat_starts_nothing() -> None:
    driver = audited_driver(make_engine())
    driver.send(keyed())
    assert driver.send(keyed(OTHER)) == []


def test_repeat_opens_no_session() -> None:
    driver = audited_driver(make_engine())
    driver.send(keyed())
    driver.send(keyed(OTHER))
    assert [session.id for session in driver.coordinator.sessions] == [SESSION]


def test_both_waiters_of_a_repeated_submit_are_answered() -> None:
    driver = audited_driver(make_engine())
    driver.send(keyed(waiter="w1"))
    driver.send(keyed(OTHER, waiter="w2"))
    driver.finish("a")
    commands = driver.finish("b", "end")
    assert [a.waiter for a in of_type(commands, AnswerWaiter)] == ["w1", "w2"]


@pytest.mark.parametrize("stage", ["queued", "running", "half", "done", "failed", "cancelled"])
def test_waiter_of_a_repeat_gets_what_the_first_got(stage: str) -> None:
    driver = audited_driver()
    driver.send(keyed(waiter="first"))
    if stage != "queued":
        driver.join(make_engine())
    if stage in ("half", "done", "failed"):
        driver.finish("a")
    if stage == "done":
        driver.finish("b", "end")
    if stage == "failed":
        driver.fail("b")
    if stage == "cancelled":
        driver.cancel()
    driver.send(keyed(OTHER, waiter="again"))
    if stage == "queued":
        driver.join(make_engine())
    if stage in ("queued", "running"):
        driver.finish("a")
    if stage in ("queued", "running", "half"):
        driver.finish("b", "end")
    assert replace(driver.answer("again"), waiter=driver.answer("first").waiter) == (
        driver.answer("first")
    )


def test_answer_of_a_repeat_names_the_first_ones_variable() -> None:
    driver = audited_driver(make_engine())
    driver.send(keyed())
    driver.finish("a")
    driver.finish("b")
    driver.send(keyed(OTHER, waiter="w"))
    assert driver.answer("w").variable == var("b")


def test_repeat_brings_back_a_wish_that_was_given_up() -> None:
    driver = audited_driver()
    wishes = [make_wanted("a", LATENCY, "w-a"), make_wanted("b", THROUGHPUT, "w-b")]
    submission = make_submission(*make_steps("a", "b: a"), wanted=wishes, idempotency_key="k")
    driver.send(submission)
    driver.leave("w-a", cancel=True)
    again = [make_wanted("a", LATENCY, "v-a"), make_wanted("b", THROUGHPUT, "v-b")]
    driver.send(replace(submission, wanted=tuple(again)))
    assert driver.request("a").objective.objective_class is ObjectiveClass.LATENCY


def test_repeat_with_another_body_is_refused() -> None:
    driver = audited_driver(make_engine())
    driver.send(keyed())
    submission = replace(keyed(OTHER, waiter="w"), digest="another body")
    assert refused(driver, submission) == "idempotency_conflict"


def test_same_key_of_another_tenant_is_another_submit() -> None:
    driver = audited_driver(make_engine())
    driver.send(keyed())
    commands = driver.send(replace(keyed(OTHER), tenant="another"))
    assert started(commands) == ["a#0~1"]


def test_repeat_of_an_addition_adds_nothing() -> None:
    driver = audited_driver(make_engine())
    driver.submit(make_step("a"))
    more = make_submission(make_step("b"), is_new=False, idempotency_key="k")
    driver.send(more)
    assert driver.send(more) == []
    assert driver.coordinator.num_unfinished_calls == 2


def test_repeat_after_the_session_ended_is_a_new_submit() -> None:
    driver = audited_driver(make_engine())
    driver.send(keyed())
    driver.close()
    assert started(driver.send(keyed(OTHER))) == ["a#0~1"]


def test_repeat_to_a_closed_session_finds_it() -> None:
    driver = audited_driver(make_engine())
    closing = replace(keyed(), close=True)
    driver.send(closing)
    assert driver.send(replace(keyed(OTHER, waiter="w"), close=True)) == []


def test_repeat_of_a_streamed_submit_gets_the_text_so_far() -> None:
    driver = audited_driver(make_engine())
    submission = make_submission(make_step("a"), idempotency_key="k")
    driver.send(submission)
    driver.say("a", "so far")
    wanted = [make_wanted("a", LATENCY, "w", stream=True, session=OTHER)]
    driver.send(replace(submission, session=OTHER, wanted=tuple(wanted)))
    assert driver.streamed == {"w": "so far"}


def test_two_wanted_of_one_variable_are_both_answered() -> None:
    driver = audited_driver(make_engine())
    wanted = [make_wanted("a", LATENCY, "w1"), make_wanted("a", THROUGHPUT, "w2")]
    driver.submit(make_step("a"), wanted=wanted)
    driver.finish("a", "v")
    assert [driver.answer(w).state for w in ("w1", "w2")] == [VariableState.READY] * 2
