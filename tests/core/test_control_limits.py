"""Control nodes that are refused, that come to too much, and that are given up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parrot_backend.core import build as build_module
from parrot_backend.core import graph as graph_module
from parrot_backend.core.commands import AbortRequest, AnswerWaiter, FillPrefix, StartRequest
from parrot_backend.core.config import CoreConfig, EarlyFillConfig
from parrot_backend.core.control_specs import BodySpec
from parrot_backend.core.events import GraphSubmitted, NodeSpec
from parrot_backend.core.ids import NodeId, SessionId, WaiterId, name_of
from parrot_backend.core.nodes import NodeState
from parrot_backend.core.prefix import PrefixIndexConfig
from parrot_backend.core.prompt import Input, Text
from parrot_backend.core.transforms import JsonField, RegexGroup, Split, SplitList
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import ParrotError
from tests.core.audit import audited_driver, snapshot
from tests.core.steps import growth
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
    make_submission,
    make_transform,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import CoreDriver, finished, of_type

BODY = make_body("y", "y: item")
NEVER = make_condition("y", text="never")

# --- what is refused -----------------------------------------------------------------------------


def in_map(body: BodySpec, item: str = "item") -> NodeSpec:
    return make_map("m", "x", body, item=item)


def in_loop(body: BodySpec, until: str = "y", **variables: tuple[str, str]) -> NodeSpec:
    return make_loop("l", variables, body, make_condition(until))


BAD_REGEX = (RegexGroup("("),)

REFUSED: list[tuple[NodeSpec, str]] = [
    (make_map("m", "absent", BODY), "unknown_variable"),
    (in_map(make_body("absent")), "unknown_variable"),
    (in_map(make_body("y", "y: absent")), "unknown_variable"),
    (in_map(make_body("b", make_branch("b", otherwise=make_body("absent")))), "unknown_variable"),
    (make_branch("b", (make_condition("absent"), BODY), otherwise=BODY), "unknown_variable"),
    (make_branch("b", otherwise=make_body("item")), "unknown_variable"),
    (in_loop(make_body("y", "y"), until="absent"), "unknown_variable"),
    (in_loop(make_body("y", "y"), p=("absent", "y")), "unknown_variable"),
    (in_loop(make_body("y", "y"), p=("x", "absent")), "unknown_variable"),
    (in_loop(make_body("y", "y"), p=("y", "y")), "unknown_variable"),
    (in_map(make_body("m", "y: item")), "cycle_in_graph"),
    (in_map(make_body("y", "y: m")), "cycle_in_graph"),
    (in_map(make_body("y", "y: z", "z: y")), "cycle_in_graph"),
    (in_map(make_body("y", "y: k", make_branch("k", otherwise=make_body("y")))), "cycle_in_graph"),
    (make_branch("b", (make_condition("b"), BODY), otherwise=make_body("x")), "unknown_variable"),
    (in_map(make_body("x", "x: item")), "duplicate_variable"),
    (in_map(make_body("later", "later: item")), "duplicate_variable"),
    (in_map(BODY, item="x"), "duplicate_variable"),
    (in_map(BODY, item="y"), "duplicate_variable"),
    (in_map(make_body("m", make_step("m"))), "duplicate_variable"),
    (
        in_map(make_body("y", make_call("a", "p", write("y")), make_call("b", "p", write("y")))),
        "duplicate_variable",
    ),
    (
        in_map(make_body("y", "y: item", make_branch("k", otherwise=make_body("y", "y")))),
        "duplicate_variable",
    ),
    (in_loop(make_body("y", "y"), p=("x", "p"), y=("x", "y")), "duplicate_variable"),
    (in_map(make_body("y", "y", make_call("y", "p", write("z")))), "duplicate_call"),
    (in_map(make_body("y", "y", make_call("c", "nothing"))), "template_without_output"),
    (in_map(make_body("y", make_call("y", write("y")))), "empty_prompt"),
    (make_map("m", read("x", *BAD_REGEX), make_body("item")), "invalid_transform"),
    (
        in_map(make_body("t", make_transform("t", read("item", Split("", 0))))),
        "invalid_transform",
    ),
    (
        make_branch(
            "b", (make_condition(read("x", *BAD_REGEX)), make_body("x")), otherwise=make_body("x")
        ),
        "invalid_transform",
    ),
    (
        make_loop("l", {}, make_body("y", "y"), make_condition(read("y", *BAD_REGEX))),
        "invalid_transform",
    ),
    (make_map("m", "x", make_body("y", make_step("y", model="none"))), "unknown_model"),
    (
        in_map(make_body("c0", make_call("c", "p", *(write(f"c{i}") for i in range(129))))),
        "graph_too_large",
    ),
    (in_map(make_body("y0", *(f"y{i}" for i in range(11)))), "graph_too_large"),
]


@pytest.mark.parametrize(("node", "code"), REFUSED)
def test_bad_control_nodes_change_nothing(node: NodeSpec, code: str) -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(max_nodes_per_session=10))
    driver.submit(make_step("a"), variables={"x": None})
    before = snapshot(driver)
    with pytest.raises(ParrotError) as caught:
        driver.submit(node, make_step("later"), is_new=False)
    assert caught.value.code == code
    assert 400 <= caught.value.status < 500
    assert snapshot(driver) == before


@pytest.mark.parametrize(
    "node",
    [
        make_branch("b", (make_condition("b"), make_body("x")), otherwise=make_body("x")),
        make_map("m", "m", make_body("item")),
        make_loop("l", {"p": ("l", "p")}, make_body("p"), make_condition("p")),
    ],
)
def test_control_nodes_cannot_wait_for_themselves(node: NodeSpec) -> None:
    with pytest.raises(ParrotError) as caught:
        audited_driver().submit(node, variables={"x": "1"})
    assert caught.value.code == "cycle_in_graph"


def test_instances_cannot_be_wanted_before_they_are_there() -> None:
    with pytest.raises(ParrotError) as caught:
        audited_driver().submit(
            in_map(make_body("item")), variables={"x": "[1]"}, wanted=[make_wanted("m:0:item")]
        )
    assert (caught.value.code, caught.value.status) == ("unknown_variable", 422)


def test_bodies_beside_each_other_may_use_the_same_names() -> None:
    driver = audited_driver(make_engine())
    branch = make_branch(
        "b", (make_condition("x"), make_body("y", "y")), otherwise=make_body("y", "y: x")
    )
    driver.submit(branch, in_map(make_body("y", "y: item")), variables={"x": None})
    assert len(driver.coordinator.session(SESSION).graph.nodes) == 2


def test_references_in_bodies_count() -> None:
    names = [f"x{i}" for i in range(510)]
    steps = [make_step(f"y{i}", *names) for i in range(200)]
    with pytest.raises(ParrotError, match="segments together") as caught:
        audited_driver().submit(
            in_map(make_body("y0", *steps)), variables={"x": "[]", **dict.fromkeys(names)}
        )
    assert caught.value.code == "graph_too_large"


@pytest.mark.parametrize("segment", [Text("a"), read("x")], ids=["constant", "input"])
def test_all_segments_count(segment: Text | Input, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "MAX_REFERENCES_PER_SUBMIT", 50)
    monkeypatch.setattr("parrot_backend.core.propagation.MAX_GROWN_REFERENCES", 100)
    call = make_call("c", *[segment] * 20, write("y"))
    with pytest.raises(ParrotError, match="hold 60 segments together"):
        audited_driver().submit(
            *(make_call(f"c{i}", *[segment] * 20, write(f"y{i}")) for i in range(3)),
            variables={"x": "[]"},
        )
    # A call of several outputs holds what is before each of them.
    several = make_call("c", *[segment] * 20, *(write(f"y{i}") for i in range(3)))
    with pytest.raises(ParrotError, match="hold 63 segments together"):
        audited_driver().submit(in_map(make_body("y0", several)), variables={"x": "[]"})
    driver = play(in_map(make_body("y", call)), x="[1, 2, 3, 4, 5, 6]")
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, "120 references" in failure.message) == ("graph_too_large", True)


# --- what comes to too much ----------------------------------------------------------------------


def play(
    *nodes: NodeSpec, config: CoreConfig | None = None, x: str | None = "[1, 2, 3]"
) -> CoreDriver:
    driver = audited_driver(make_engine(), config=config)
    driver.submit(*nodes, variables={"x": x}, wanted=[make_wanted("m", waiter="w")])
    return driver


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (CoreConfig(max_nodes_per_session=3), "graph_too_large"),
        (CoreConfig(max_nodes_per_session=4), None),
        (CoreConfig(max_unfinished_calls=2), "saturated"),
        (CoreConfig(max_unfinished_calls=3), None),
    ],
)
def test_instances_count_when_they_are_made(config: CoreConfig, code: str | None) -> None:
    driver = play(in_map(BODY), config=config, x=None)
    driver.set("x", "[1, 2, 3]")
    if code is None:
        assert len(driver.running) == 3
        return
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, failure.path) == (code, ("m",))
    assert driver.running == {}
    assert driver.coordinator.num_unfinished_calls == 0


def test_all_that_one_event_brings_forth_counts() -> None:
    inner = make_map("k", "item", make_body("y", "y: part"), item="part")
    driver = play(
        in_map(make_body("k", inner)),
        config=CoreConfig(max_unfinished_calls=3),
        x='["[1, 2]", "[3, 4]"]',
    )
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, failure.path) == ("saturated", ("m:1:k", "m"))
    assert driver.running == {}


def test_loop_that_comes_to_too_much_fails() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(max_nodes_per_session=3))
    driver.submit(
        make_loop("m", {}, make_body("y", "y"), NEVER, max_rounds=9),
        wanted=[make_wanted("m", waiter="w")],
    )
    driver.finish("m:0:y", "a")
    driver.finish("m:1:y", "b")
    failure = driver.answer("w").failure
    assert failure is not None
    assert failure.code == "graph_too_large"


def test_references_of_instances_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parrot_backend.core.propagation.MAX_GROWN_REFERENCES", 2)
    driver = play(in_map(BODY))
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, "references" in failure.message) == ("graph_too_large", True)


def test_instances_without_nodes_are_bounded() -> None:
    inner = make_map("k", "x", make_body("part"), item="part")
    driver = play(in_map(make_body("k", inner)), config=CoreConfig(max_nodes_per_session=8))
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, failure.path) == ("graph_too_large", ("m:1:k", "m"))
    assert "instances" in failure.message


def test_items_are_text_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "MAX_SESSION_CHARS", 30)
    driver = play(in_map(make_body("item")), x='["0123456789", "0123456789"]')
    failure = driver.answer("w").failure
    assert failure is not None
    assert failure.code == "session_too_large"


def test_values_that_are_too_long_together_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parrot_backend.core.control.MAX_VALUE_CHARS", 20)
    driver = play(in_map(make_body("x")), x='["a", "b", "c"]')
    failure = driver.answer("w").failure
    assert failure is not None
    assert failure.code == "transform_failed"


def test_cost_of_a_map_is_linear_in_its_items() -> None:
    def prepare(number: int):
        items = "[" + ",".join(map(str, range(number))) + "]"
        driver = CoreDriver(make_engine(max_requests=1))
        driver.submit(
            make_map("m", "x", make_body("z", "y: item", "z: y"), max_items=1024),
            make_step("r", "m"),
            variables={"x": None},
            wanted=[make_wanted("r")],
        )
        return lambda: driver.set("x", items)

    assert growth(prepare, 200) < 2.3


def test_cost_of_loops_beside_each_other_is_linear_in_their_number() -> None:
    def prepare(number: int):
        driver = CoreDriver(make_engine(max_requests=999, latency_capacity_tokens=10**6))
        loop = make_loop("l", {"p": ("item", "y")}, make_body("y", "y: p"), NEVER, max_rounds=9)
        driver.submit(
            make_map("m", "x", make_body("l", loop)),
            make_step("r", "m"),
            variables={"x": "[" + ",".join(map(str, range(number))) + "]"},
            wanted=[make_wanted("r")],
        )

        def go_on() -> None:
            for attempt in list(driver.running):
                driver.send(finished(attempt, "go on"))

        return go_on

    assert growth(prepare, 60) < 2.5


def test_cost_of_a_loop_without_calls_is_linear_in_its_rounds() -> None:
    def prepare(number: int):
        body = make_body("t", make_transform("t", read("p"), "x"))
        driver = CoreDriver()
        loop = make_loop(
            "m", {"p": ("x", "t")}, body, make_condition("t", text="?"), max_rounds=number
        )
        driver.submit(loop, variables={"x": None})
        return lambda: driver.set("x", "")

    assert growth(prepare, 32) < 2.5


def test_call_that_is_ready_and_given_up_at_once_never_starts() -> None:
    field = make_transform("t", read("item"), transforms=(JsonField("a"),))
    driver = play(in_map(make_body("y", field, "y: t")), x='[{"a": "1"}, {"b": "2"}, {"a": "3"}]')
    failure = driver.answer("w").failure
    assert failure is not None
    assert failure.path == ("m:1:t", "m:1:y", "m")
    assert driver.variable("m:0:y").state is VariableState.CANCELLED
    assert (driver.running, driver.coordinator.num_waiting) == ({}, 0)
    assert not any(of_type(commands, StartRequest) for _, _, commands in driver.history)


# --- giving up -----------------------------------------------------------------------------------


def test_cancelling_a_map_stops_all_its_instances() -> None:
    driver = play(in_map(make_body("z", "y: item", "side: item", "z: y")))
    commands = driver.cancel("m")
    assert len(of_type(commands, AbortRequest)) == 6
    assert driver.answer("w").state is VariableState.CANCELLED
    assert driver.coordinator.num_unfinished_calls == 0


def test_cancelling_an_instance_cancels_the_map() -> None:
    driver = play(in_map(BODY))
    driver.cancel("m:1:y")
    failure = driver.answer("w").failure
    assert failure is not None
    assert (failure.code, failure.path) == ("cancelled", ("m:1:y", "m"))
    assert driver.running == {}


def test_who_leaves_with_cancel_takes_the_instances_along() -> None:
    driver = play(make_step("a"), make_map("m", read("a", SplitList(",")), BODY))
    driver.finish("a", "1,2")
    driver.leave("w", cancel=True)
    assert driver.running == {}
    assert driver.variable("m").state is VariableState.CANCELLED


def test_what_a_body_will_read_is_needed() -> None:
    driver = play(
        make_step("a"), make_step("b", "a"), make_map("m", "x", make_body("y", "y: a")), x=None
    )
    driver.cancel("b")
    assert driver.variable("a").state is VariableState.EMPTY
    driver.cancel("m")
    assert driver.variable("a").state is VariableState.CANCELLED


def test_who_waits_for_what_a_body_will_read_may_leave() -> None:
    driver = play(make_step("a"), make_map("m", "x", make_body("y", "y: a")), x=None)
    driver.get("a", "w2")
    driver.leave("w2", cancel=True)
    assert driver.variable("a").state is VariableState.EMPTY


def test_what_the_next_round_will_read_is_needed() -> None:
    driver = play(
        make_loop("m", {"p": ("x", "n")}, make_body("y", "y: p", "n: p"), NEVER, max_rounds=2)
    )
    driver.submit(make_step("reader", "m:0:n"), is_new=False)
    driver.cancel("reader")
    assert driver.variable("m:0:n").state is VariableState.EMPTY
    driver.finish("m:0:y", "go on")
    driver.finish("m:0:n", "1")
    assert driver.request("m:1:y").parts[1].text == "1"


def test_what_only_an_untaken_body_reads_is_not_needed_any_more() -> None:
    branch = make_branch(
        "m",
        (make_condition("x", text="yes"), make_body("y", "y: a")),
        otherwise=make_body("z", "z"),
    )
    driver = play(make_step("a"), make_step("b", "a"), branch, x=None)
    driver.set("x", "no")
    assert driver.variable("a").state is VariableState.EMPTY  # nobody gave it up
    driver.cancel("b")
    assert driver.variable("a").state is VariableState.CANCELLED
    assert driver.variable("m").state is VariableState.EMPTY


def test_end_of_a_session_answers_who_waits_for_instances() -> None:
    driver = play(make_step("a"), in_map(make_body("y", "y: item a")))
    driver.get("m:2:y", "w2")
    commands = driver.close()
    assert {c.waiter for c in of_type(commands, AnswerWaiter)} == {"w", "w2"}
    assert driver.coordinator.num_unfinished_calls == 0


def test_session_with_a_map_that_waits_for_the_client_is_forgotten() -> None:
    driver = audited_driver(make_engine(), config=CoreConfig(session_ttl_s=10.0))
    driver.submit(in_map(make_body("y", "y: item e")), variables={"x": "[1]", "e": None})
    driver.run_until(21.0)
    assert len(driver.coordinator.sessions) == 0


def test_closed_session_goes_on_to_expand() -> None:
    driver = audited_driver(make_engine())
    driver.submit(
        make_step("a"),
        make_map("m", read("a", SplitList(",")), BODY),
        wanted=[make_wanted("m", waiter="w")],
        close=True,
    )
    driver.finish("a", "1")
    driver.finish("m:0:y", "one")
    assert driver.answer("w").value == '["one"]'


def test_repeated_submit_finds_the_control_node() -> None:
    driver = audited_driver(make_engine())

    def submission(session: str, waiter: str) -> GraphSubmitted:
        name = SessionId(session)
        call = replace(make_step("y", "item", session=name), name="y")
        body = make_body("y", call, session=name)
        return make_submission(
            make_map("m", "x", body, session=name),
            session=name,
            variables={"x": "[1]"},
            wanted=[make_wanted("m", waiter=waiter, session=name)],
            idempotency_key="k",
            digest="d",
        )

    driver.send(submission("s", "w"))
    driver.send(submission("t", "w2"))
    assert [name_of(driver.request_of(a).output) for a in driver.running] == ["m:0:y"]
    driver.finish("m:0:y", "one")
    assert driver.answer("w").value == driver.answer("w2").value == '["one"]'


def test_waiter_of_an_instance_streams() -> None:
    driver = play(in_map(BODY), x="[1]")
    driver.get("m:0:y", "w2", stream=True)
    driver.say("m:0:y", "so far")
    assert driver.streamed[WaiterId("w2")] == "so far"


# --- deduction and foresight ---------------------------------------------------------------------


def test_paths_count_what_is_to_come() -> None:
    inner = make_branch(
        "k", (make_condition("z"), make_body("v", "v: z")), otherwise=make_body("z")
    )
    driver = play(
        make_step("a"),
        make_map("m", "x", make_body("k", "y: item a", "z: y", inner)),
        make_step("r", "m"),
        x=None,
    )
    before = driver.request("a").remaining
    driver.set("x", "[1]")
    driver.finish("a")
    driver.finish("m:0:y")
    remaining = driver.request("m:0:z").remaining
    driver.finish("m:0:z")
    assert (before, remaining) == (6, 4)
    assert driver.request("m:0:k:0:v").remaining == 3
    assert driver.request("r").depth > driver.request("m:0:k:0:v").depth


def test_paths_grow_with_the_rounds() -> None:
    loop = make_loop("m", {"p": ("x", "y")}, make_body("y", "y: p a"), NEVER)
    driver = play(make_step("a"), loop, make_step("r", "m"))
    depth = driver.request("r").depth
    assert driver.request("a").remaining == 3
    driver.finish("a")
    driver.finish("m:0:y")
    assert driver.request("m:1:y").remaining == 2
    assert driver.request("r").depth == depth + 1


def test_prompt_that_waits_for_a_map_is_filled_when_its_last_calls_run() -> None:
    config = CoreConfig(
        prefix_index=PrefixIndexConfig(min_tokens=4), early_fill=EarlyFillConfig(min_tokens=4)
    )
    driver = audited_driver(make_engine(keeps_prefixes=True), config=config)
    commands = driver.submit(
        in_map(make_body("z", "y: item", "z: y")),
        make_call("r", "a long prompt " * 9, read("m"), write("r")),
        variables={"x": "[1]"},
    )
    assert of_type(commands, FillPrefix) == []
    commands = driver.finish("m:0:y", "one")
    assert [fill.num_known for fill in of_type(commands, FillPrefix)] == [1]


def test_prompt_that_waits_for_a_list_of_a_map_is_not_filled() -> None:
    config = CoreConfig(
        prefix_index=PrefixIndexConfig(min_tokens=4), early_fill=EarlyFillConfig(min_tokens=4)
    )
    driver = audited_driver(make_engine(keeps_prefixes=True), config=config)
    commands = driver.submit(
        make_step("a"),
        make_map("m", "a", BODY),
        make_call("r", "a long prompt " * 9, read("m"), write("r")),
    )
    assert of_type(commands, FillPrefix) == []


def test_control_nodes_wait_until_they_end() -> None:
    driver = play(in_map(BODY), x="[1]")
    node = driver.coordinator.session(SESSION).graph.nodes[NodeId("s.m")]
    assert (node.state, node.ready_s) == (NodeState.WAITING, 0.0)
