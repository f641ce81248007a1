"""Maps, branches and loops: what they wait for, make, and become."""

from __future__ import annotations

import json

import pytest

from parrot_backend.core.commands import AbortRequest, StartRequest
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.control import ControlNode
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.events import NodeSpec
from parrot_backend.core.ids import NodeId, name_of
from parrot_backend.core.nodes import NodeState
from parrot_backend.core.transforms import (
    JoinList,
    JsonField,
    JsonList,
    SplitLines,
    SplitList,
    Strip,
)
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import RequestError
from tests.core.audit import audited_driver
from tests.helpers.builders import (
    SESSION,
    make_body,
    make_branch,
    make_call,
    make_condition,
    make_engine,
    make_loop,
    make_map,
    make_step,
    make_steps,
    make_transform,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import CoreDriver, Reply, of_type

IDENTITY = make_body("item")


def play(
    *nodes: NodeSpec,
    config: CoreConfig | None = None,
    variables: dict[str, str | None] | None = None,
) -> CoreDriver:
    """Submit a program to an engine that says what the test says, and wait for ``out``."""
    driver = audited_driver(make_engine(), config=config)
    driver.submit(*nodes, variables=variables, wanted=[make_wanted("out", waiter="w")])
    return driver


def echo(*nodes: NodeSpec, variables: dict[str, str | None] | None = None) -> CoreDriver:
    """Run a program to its end on an engine that answers with the prompt in brackets."""
    driver = audited_driver(
        make_engine(),
        behaviour=lambda start: Reply(f"[{''.join(part.text for part in start.parts)}]"),
    )
    driver.submit(*nodes, variables=variables, wanted=[make_wanted("out", waiter="w")])
    driver.run()
    return driver


def say(name: str, *inputs: str) -> NodeSpec:
    """Return a call with a prompt of its inputs with its name before them."""
    return make_call(name, name, *(read(used) for used in inputs), write(name))


def running(driver: CoreDriver) -> list[str]:
    """Return the names of the variables that are being made."""
    return [name_of(driver.request_of(attempt).output) for attempt in driver.running]


def control(driver: CoreDriver, name: str = "out") -> ControlNode:
    node = driver.coordinator.session(SESSION).graph.nodes[NodeId(f"s.{name}")]
    assert isinstance(node, ControlNode)
    return node


def failure_of(driver: CoreDriver, waiter: str = "w") -> tuple[str, tuple[str, ...]]:
    failure = driver.answer(waiter).failure
    assert failure is not None
    return failure.code, failure.path


# --- maps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("[]", []),
        ('["a"]', ["[ya]"]),
        ('["a", "b", "c"]', ["[ya]", "[yb]", "[yc]"]),
        ('["a", "a"]', ["[ya]", "[ya]"]),
        ('[1, {"k": 2}, null, ""]', ["[y1]", '[y{"k": 2}]', "[ynull]", "[y]"]),
    ],
)
def test_map_runs_its_body_for_each_item(items: str, expected: list[str]) -> None:
    node = make_map("out", "x", make_body("y", say("y", "item")))
    driver = echo(node, variables={"x": items})
    assert json.loads(driver.answer("w").value or "") == expected


def test_map_takes_a_list_that_is_generated() -> None:
    driver = play(
        make_step("list"),
        make_map("out", read("list", SplitLines()), make_body("y", say("y", "item"))),
    )
    assert running(driver) == ["list"]
    driver.finish("list", "- one\n- two\n")
    assert running(driver) == ["out:0:y", "out:1:y"]
    driver.finish("out:1:y", "second")
    assert driver.variable("out").state is VariableState.EMPTY
    driver.finish("out:0:y", "first")
    assert driver.answer("w").value == '["first", "second"]'


def test_map_waits_for_a_list_that_is_set() -> None:
    driver = play(make_map("out", "x", IDENTITY), variables={"x": None})
    assert control(driver).state is NodeState.WAITING
    driver.set("x", '["a"]')
    assert driver.answer("w").value == '["a"]'


def test_items_are_variables_that_are_there() -> None:
    driver = echo(make_map("out", "x", IDENTITY), variables={"x": '["a", "b"]'})
    assert driver.variable("out:1:item").value == "b"
    with pytest.raises(RequestError, match="is ready"):
        driver.set("out:1:item", "c")


def test_bodies_read_the_surrounding_graph() -> None:
    driver = echo(
        say("title"),
        make_map("out", "x", make_body("y", say("y", "title", "item"))),
        variables={"x": '["a"]'},
    )
    assert driver.answer("w").value == '["[y[title]a]"]'


def test_result_may_be_a_variable_of_the_surrounding_graph() -> None:
    driver = echo(make_map("out", "x", make_body("x")), variables={"x": '["a", "b"]'})
    assert json.loads(driver.answer("w").value or "") == ['["a", "b"]'] * 2


@pytest.mark.parametrize(
    ("items", "max_items", "code"),
    [
        ("no list", 9, "transform_failed"),
        ('{"a": 1}', 9, "transform_failed"),
        ("3", 9, "transform_failed"),
        ('["\\ud800"]', 9, "transform_failed"),
        ("[" * 100_000, 9, "transform_failed"),
        ('["a", "b", "c"]', 2, "too_many_items"),
    ],
)
def test_what_is_no_list_fails_the_map(items: str, max_items: int, code: str) -> None:
    driver = play(make_map("out", "x", IDENTITY, max_items=max_items), variables={"x": items})
    assert failure_of(driver) == (code, ("out",))


def test_transform_of_the_items_may_fail() -> None:
    driver = play(make_map("out", read("x", JsonList()), IDENTITY), variables={"x": "none"})
    assert failure_of(driver) == ("transform_failed", ("out",))


def test_list_that_fails_fails_the_map() -> None:
    driver = play(make_step("list"), make_map("out", "list", IDENTITY))
    driver.fail("list")
    assert failure_of(driver) == ("engine_failed", ("list", "out"))


def test_instance_that_fails_fails_the_map_and_stops_the_others() -> None:
    body = make_body("z", say("y", "item"), say("z", "y"))
    driver = play(
        make_map("out", "x", body), say("after", "out"), variables={"x": '["a", "b", "c"]'}
    )
    driver.get("after", "w2")
    driver.finish("out:2:y", "done")
    commands = driver.fail("out:0:y")
    assert failure_of(driver) == ("engine_failed", ("out:0:y", "out:0:z", "out"))
    assert failure_of(driver, "w2")[1] == ("out:0:y", "out:0:z", "out", "after")
    aborted = {c.attempt for c in of_type(commands, AbortRequest)}
    assert aborted == {"s.out:1:y#0~1", "s.out:2:z#0~1"}
    assert driver.coordinator.num_unfinished_calls == 0
    assert driver.variable("out:1:z").state is VariableState.CANCELLED
    assert driver.variable("out:2:y").value == "done"


def test_instances_that_somebody_waits_for_go_on() -> None:
    driver = play(make_map("out", "x", make_body("y", say("y", "item"))), variables={"x": "[1, 2]"})
    driver.get("out:1:y", "w1")
    driver.fail("out:0:y")
    assert running(driver) == ["out:1:y"]
    driver.finish("out:1:y", "kept")
    assert driver.answer("w1").value == "kept"


def test_instances_that_are_wanted_or_read_go_on() -> None:
    driver = play(
        make_map("out", "x", make_body("y", say("y", "item"))), variables={"x": "[1, 2, 3]"}
    )
    driver.submit(
        say("reader", "out:1:y"), is_new=False, wanted=[make_wanted("out:2:y", waiter="w2")]
    )
    driver.fail("out:0:y")
    assert running(driver) == ["out:1:y", "out:2:y"]


def test_failure_leaves_what_the_bodies_read_alone() -> None:
    driver = play(
        say("title"),
        make_map("out", "x", make_body("y", say("z"), say("y", "title", "z"))),
        variables={"x": "[1, 2]"},
    )
    driver.fail("out:0:z")
    assert failure_of(driver)[1] == ("out:0:z", "out:0:y", "out")
    assert running(driver) == ["title"]


def test_instances_are_a_task_group() -> None:
    driver = play(
        make_step("list"),
        make_map("m", read("list", SplitList(",")), make_body("y", say("y", "item"))),
        say("out", "m"),
    )
    assert driver.request("list").objective.objective_class is ObjectiveClass.LATENCY
    commands = driver.finish("list", "a,b")
    told = {start.node: start.objective for start in of_type(commands, StartRequest)}
    assert [o.objective_class for o in told.values()] == [ObjectiveClass.TASK_GROUP] * 2
    assert len({o.group for o in told.values()}) == 1


# --- branches ------------------------------------------------------------------------------------

CHOOSE = make_branch(
    "out",
    (make_condition("x", text="yes"), make_body("y", say("y", "x"))),
    (make_condition("x", text="maybe"), make_body("z", say("z", "x"))),
    otherwise=make_body("x"),
)


@pytest.mark.parametrize(
    ("value", "made", "expected"),
    [
        ("yes maybe", "out:0:y", "[yyes maybe]"),
        ("maybe", "out:1:z", "[zmaybe]"),
        ("no", None, "no"),
    ],
)
def test_first_case_that_holds_is_taken(value: str, made: str | None, expected: str) -> None:
    driver = echo(CHOOSE, variables={"x": value})
    assert driver.answer("w").value == expected
    names = list(map(name_of, driver.coordinator.session(SESSION).graph.variables))
    assert names == ["x", "out", *([made] if made else [])]


def test_otherwise_is_numbered_after_the_cases() -> None:
    branch = make_branch(
        "out",
        (make_condition("x", text="yes"), make_body("x")),
        otherwise=make_body("y", say("y")),
    )
    assert echo(branch, variables={"x": "no"}).variable("out:1:y").value == "[y]"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (make_condition("x", "equals", "Yes"), False),
        (make_condition("x", "equals", "Yes", ignore_case=True), True),
        (make_condition("x", "contains", "zz", negate=True), True),
        (make_condition("x", "starts_with", " y"), True),
        (make_condition(read("x", Strip()), "starts_with", "y"), True),
        (make_condition("x", "is_empty"), False),
    ],
)
def test_conditions(condition, holds: bool) -> None:
    branch = make_branch("out", (condition, make_body("t")), otherwise=make_body("f"))
    value = " yes " if condition.op == "starts_with" else "yes"
    driver = play(branch, variables={"x": value, "t": "true", "f": "false"})
    assert driver.answer("w").value == ("true" if holds else "false")


def test_branch_waits_for_all_conditions() -> None:
    branch = make_branch(
        "out",
        (make_condition("a", text="x"), make_body("a")),
        (make_condition("b", text="x"), make_body("b")),
        otherwise=make_body("a"),
    )
    driver = play(*make_steps("a", "b"), branch)
    driver.finish("a", "x")
    assert driver.variable("out").state is VariableState.EMPTY
    driver.finish("b", "x")
    assert driver.answer("w").value == "x"


def test_condition_that_fails_fails_the_branch() -> None:
    driver = play(make_step("x"), CHOOSE)
    driver.fail("x")
    assert failure_of(driver) == ("engine_failed", ("x", "out"))


def test_condition_after_the_one_that_holds_is_not_looked_at() -> None:
    branch = make_branch(
        "out",
        (make_condition("x", text="yes"), make_body("x")),
        (make_condition(read("x", JsonField("a")), text="yes"), make_body("x")),
        otherwise=make_body("x"),
    )
    assert play(branch, variables={"x": "yes"}).answer("w").value == "yes"
    assert failure_of(play(branch, variables={"x": "no"})) == ("transform_failed", ("out",))


@pytest.mark.parametrize(("value", "is_ready"), [("no", True), ("yes", False)])
def test_only_a_body_that_is_taken_fails_of_what_it_reads(value: str, is_ready: bool) -> None:
    branch = make_branch(
        "out",
        (make_condition("x", text="yes"), make_body("y", say("y", "other"))),
        otherwise=make_body("x"),
    )
    driver = play(make_step("other"), branch, variables={"x": None})
    driver.fail("other")
    assert driver.variable("out").state is VariableState.EMPTY
    driver.set("x", value)
    if is_ready:
        assert driver.answer("w").value == "no"
    else:
        assert failure_of(driver) == ("engine_failed", ("other", "out:0:y", "out"))


def test_result_of_the_surrounding_graph_may_have_failed() -> None:
    driver = play(make_step("x"), make_branch("out", otherwise=make_body("x")))
    driver.fail("x")
    assert failure_of(driver) == ("engine_failed", ("x", "out"))


# --- loops ---------------------------------------------------------------------------------------

REFINE = make_loop(
    "out",
    {"draft": ("first", "better")},
    make_body("better", say("better", "draft"), say("verdict", "better")),
    make_condition("verdict", text="good"),
    max_rounds=3,
)


def test_loop_goes_on_until_its_condition_holds() -> None:
    driver = play(REFINE, variables={"first": "a"})
    assert driver.request("out:0:better").parts[1].text == "a"
    driver.finish("out:0:better", "b")
    driver.finish("out:0:verdict", "bad")
    assert driver.request("out:1:better").parts[1].text == "b"
    driver.finish("out:1:better", "c")
    assert driver.variable("out").state is VariableState.EMPTY
    driver.finish("out:1:verdict", "good")
    assert driver.answer("w").value == "c"
    assert driver.running == {}


def test_loop_ends_after_its_last_round() -> None:
    driver = play(REFINE, variables={"first": "a"})
    for number in range(3):
        driver.finish(f"out:{number}:better", f"text {number}")
        if number < 2:
            driver.finish(f"out:{number}:verdict", "bad")
    assert driver.answer("w").value == "text 2"
    assert running(driver) == ["out:2:verdict"]


def test_variable_of_a_loop_may_stay_as_it_is() -> None:
    loop = make_loop(
        "out",
        {"topic": ("x", "topic"), "draft": ("x", "y")},
        make_body("y", say("y", "topic", "draft")),
        make_condition("y", text="[ya[ya["),
        max_rounds=9,
    )
    assert echo(loop, variables={"x": "a"}).answer("w").value == "[ya[ya[yaa]]]"


def test_variables_of_a_loop_change_places_at_once() -> None:
    loop = make_loop(
        "out",
        {"a": ("x", "b"), "b": ("y", "a")},
        make_body("t", make_transform("t", read("a"), read("b"))),
        make_condition("t", text="never"),
        max_rounds=2,
    )
    assert play(loop, variables={"x": "1", "y": "2"}).answer("w").value == "21"


def test_loop_without_calls_runs_at_once() -> None:
    loop = make_loop(
        "out",
        {"a": ("x", "t")},
        make_body("t", make_transform("t", read("a"), "x")),
        make_condition("t", text="x" * 40),
        max_rounds=64,
    )
    driver = play(loop, variables={"x": ""})
    assert driver.answer("w").value == "x" * 40
    assert driver.variable("out:39:t").value == "x" * 40


def test_next_round_begins_before_all_of_the_last_is_there() -> None:
    loop = make_loop(
        "out",
        {"a": ("x", "slow")},
        make_body("y", say("y", "x"), say("slow", "a")),
        make_condition("y", text="good"),
    )
    driver = play(loop, variables={"x": "0"})
    driver.finish("out:0:y", "bad")
    assert running(driver) == ["out:0:slow", "out:1:y"]
    driver.finish("out:1:y", "good")
    assert driver.answer("w").value == "good"
    assert running(driver) == ["out:0:slow"]


@pytest.mark.parametrize("broken", ["better", "verdict"])
def test_round_that_fails_fails_the_loop(broken: str) -> None:
    driver = play(REFINE, variables={"first": "a"})
    if broken == "verdict":
        driver.finish("out:0:better", "b")
    driver.fail(f"out:0:{broken}")
    code, path = failure_of(driver)
    assert (code, path[0], path[-1]) == ("engine_failed", f"out:0:{broken}", "out")


# --- nested --------------------------------------------------------------------------------------


def test_instances_within_instances() -> None:
    inner = make_branch(
        "b",
        (make_condition("item", text="!"), make_body("loud", say("loud", "item", "x"))),
        otherwise=make_body("item"),
    )
    driver = echo(make_map("out", "x", make_body("b", inner)), variables={"x": '["a", "b!"]'})
    assert json.loads(driver.answer("w").value or "") == ["a", '[loudb!["a", "b!"]]']
    assert driver.variable("out:1:b:0:loud").value == '[loudb!["a", "b!"]]'


def test_map_in_a_loop_in_a_map() -> None:
    words = make_map(
        "words", read("text", SplitList(" ")), make_body("w", say("w", "word", "item")), item="word"
    )
    loop = make_loop(
        "rounds",
        {"text": ("item", "joined")},
        make_body("joined", words, make_transform("joined", read("words", JoinList(" ")))),
        make_condition("joined", text="[w[w"),
    )
    driver = echo(make_map("out", "x", make_body("rounds", loop)), variables={"x": '["a b"]'})
    assert json.loads(driver.answer("w").value or "") == [
        driver.variable("out:0:rounds:1:joined").value
    ]
    assert driver.variable("out:0:rounds:0:words:1:w").value == "[wba b]"


def nested(levels: int) -> NodeSpec:
    node: NodeSpec = make_branch(f"b{levels}", otherwise=make_body("x"))
    for level in range(levels - 1, 0, -1):
        node = make_branch(f"b{level}", otherwise=make_body(f"b{level + 1}", node))
    return node


def test_bodies_lie_only_so_deep_in_each_other() -> None:
    driver = audited_driver()
    driver.submit(nested(8), variables={"x": "deep"})
    assert driver.variable("b1").value == "deep"
    assert driver.variable(":".join(f"b{i}:0" for i in range(1, 8)) + ":b8").value == "deep"
    with pytest.raises(RequestError) as caught:
        audited_driver().submit(nested(9), variables={"x": "deep"})
    assert caught.value.code == "graph_too_large"


def test_failure_stops_instances_within_instances() -> None:
    inner = make_map("m", "item", make_body("y", say("y", "part")), item="part")
    driver = play(
        make_map("out", "x", make_body("m", inner)), variables={"x": '["[1, 2]", "[3, 4]"]'}
    )
    driver.fail("out:1:m:0:y")
    assert failure_of(driver)[1] == ("out:1:m:0:y", "out:1:m", "out")
    assert driver.running == {}
    assert driver.coordinator.num_unfinished_calls == 0


# --- later submits -------------------------------------------------------------------------------


def test_later_submits_use_what_instances_make() -> None:
    driver = play(make_map("out", "x", make_body("y", say("y", "item"))), variables={"x": "[1, 2]"})
    driver.submit(say("more", "out:0:y", "out:1:item"), is_new=False)
    driver.finish("out:0:y", "one")
    assert [part.text for part in driver.request("more").parts] == ["more", "one", "2"]


def test_later_submit_may_take_a_name_that_is_local_to_a_body() -> None:
    driver = play(make_map("out", "x", make_body("y", say("y", "item"))), variables={"x": None})
    driver.submit(say("y"), variables={"item": "other"}, is_new=False)
    driver.set("x", '["own"]')
    assert driver.request("out:0:y").parts[1].text == "own"
