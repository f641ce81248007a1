"""The DAG of a session: what is refused, what is built, and in which order."""

from __future__ import annotations

import pytest

from parrot_backend.core.events import CallSpec, GraphSubmitted, NodeSpec
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import NodeState, Request, TransformNode
from parrot_backend.core.prompt import InPlace, Input, Role, Text
from parrot_backend.core.transforms import Format, RegexGroup, Split
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import RequestError
from tests.helpers.builders import (
    SESSION,
    extend_graph,
    make_call,
    make_graph,
    make_step,
    make_steps,
    make_submission,
    make_transform,
    make_wanted,
    names,
    read,
    request_id,
    var,
    write,
)


def existing() -> SessionGraph:
    """Return a graph with a step ``a``, a transform ``t`` of it, and an external ``x``."""
    return make_graph(make_step("a", "x"), make_transform("t", read("a")), variables={"x": None})


def submit(*nodes: NodeSpec, **rest: object) -> GraphSubmitted:
    return make_submission(*nodes, is_new=False, **rest)  # type: ignore[arg-type]


REFUSED: dict[str, dict[str, GraphSubmitted]] = {
    "duplicate_call": {
        "two calls of one name": submit(make_step("b"), make_step("b")),
        "a call named as one that is there": submit(make_call("a", "p", write("b"))),
        "a transform named as a call that is there": submit(make_transform("a", "text")),
        "a call named as a transform that is there": submit(make_call("t", "p", write("b"))),
    },
    "duplicate_variable": {
        "two calls for one variable": submit(make_step("b"), make_call("c", "p", write("b"))),
        "an output that is there": submit(make_call("b", "p", write("a"))),
        "an output that is external": submit(make_call("b", "p", write("x"))),
        "one output twice": submit(make_call("b", "p", write("c"), "q", write("c"))),
        "an external variable that is there": submit(variables={"x": "1"}),
        "an external variable that a call makes": submit(variables={"a": "1"}),
        "an external variable and its call": submit(make_step("b"), variables={"b": None}),
    },
    "unknown_variable": {
        "an unknown input": submit(make_step("b", "nowhere")),
        "an unknown input of a transform": submit(make_transform("b", read("nowhere"))),
        "an unknown wanted variable": submit(wanted=[make_wanted("nowhere")]),
    },
    "cycle_in_graph": {
        "a call that reads its own output": submit(make_step("b", "b")),
        "two calls that read each other": submit(*make_steps("b: c", "c: b")),
        "a long cycle": submit(*make_steps("b: a e", "c: b", "d: c", "e: d")),
        "a cycle through a transform": submit(make_step("b", "c"), make_transform("c", read("b"))),
        "a call that reads its own later output": submit(
            make_call("b", read("d"), write("c"), write("d"))
        ),
    },
    "template_without_output": {
        "a call without output": submit(make_call("b", "p")),
        "a call without anything": submit(make_call("b")),
    },
    "empty_prompt": {
        "a call without prompt": submit(make_call("b", write("c"))),
    },
    "invalid_transform": {
        "an input with a bad transform": submit(
            make_call("b", read("a", Split("", 0)), write("c"))
        ),
        "a transform node with a bad transform": submit(
            make_transform("b", read("a"), transforms=(Format("x"),))
        ),
        "a transform with a bad input": submit(make_transform("b", read("a", RegexGroup("(")))),
    },
    "variable_not_set": {
        "closing with an unset variable": submit(close=True),
        "closing with a new unset variable": submit(variables={"y": None}, close=True),
    },
}
ALL_REFUSED = [
    pytest.param(submission, code, id=name)
    for code, cases in REFUSED.items()
    for name, submission in cases.items()
]


@pytest.mark.parametrize(("submission", "code"), ALL_REFUSED)
def test_submit_is_refused(submission: GraphSubmitted, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        existing().plan(submission, max_nodes=100)
    assert caught.value.code == code


@pytest.mark.parametrize(("submission", "code"), ALL_REFUSED)
def test_refused_submit_changes_nothing(submission: GraphSubmitted, code: str) -> None:
    graph = existing()
    with pytest.raises(RequestError):
        graph.plan(submission, max_nodes=100)
    assert names(graph.variables) == ["x", "a", "t"]
    assert names(graph.nodes) == ["a", "t"]
    assert graph.variables[var("a")].consumers == [NodeId("s.t")]


def test_unknown_variable_in_a_graph_is_a_fault_of_the_body() -> None:
    with pytest.raises(RequestError) as caught:
        make_graph(make_step("b", "nowhere"))
    assert caught.value.status == 422


def test_cycle_is_told_by_the_names_of_its_calls() -> None:
    with pytest.raises(RequestError) as caught:
        make_graph(*make_steps("b: d", "c: b", "d: c"))
    told = caught.value.message.partition(": ")[2].split(" -> ")
    assert sorted(set(told)) == ["b", "c", "d"]
    assert told[0] == told[-1]


def test_cycle_is_told_from_who_waits_to_whom() -> None:
    with pytest.raises(RequestError) as caught:
        make_graph(*make_steps("b: d", "c: b", "d: c"))
    assert "b -> d" in caught.value.message


@pytest.mark.parametrize(("limit", "is_taken"), [(3, True), (2, False)])
def test_limit_of_nodes(limit: int, is_taken: bool) -> None:
    graph = existing()
    submission = submit(make_step("b"))
    if is_taken:
        assert len(graph.plan(submission, limit).nodes) == 1
        return
    with pytest.raises(RequestError) as caught:
        graph.plan(submission, limit)
    assert (caught.value.code, caught.value.context) == ("graph_too_large", {"limit": 2})


def test_each_output_counts_as_a_node() -> None:
    submission = submit(make_call("b", "p", write("c"), write("d")))
    with pytest.raises(RequestError, match="would hold 4 nodes"):
        existing().plan(submission, max_nodes=3)


def test_plan_changes_nothing() -> None:
    graph = existing()
    graph.plan(submit(make_step("b", "a"), variables={"y": "1"}), max_nodes=100)
    assert names(graph.variables) == ["x", "a", "t"]
    assert graph.variables[var("a")].consumers == [NodeId("s.t")]


# --- several outputs -------------------------------------------------------------------------


def joke() -> SessionGraph:
    return make_graph(
        make_call(
            "tell",
            Role("user"),
            "Tell a joke about ",
            read("topic"),
            Role("assistant"),
            write("joke", max_tokens=10),
            " Explain: ",
            write("why", max_tokens=20),
        ),
        variables={"topic": None},
    )


def step_of(graph: SessionGraph, name: str, step: int) -> Request:
    node = graph.nodes[request_id(name, step)]
    assert isinstance(node, Request)
    return node


def test_each_output_is_a_request() -> None:
    assert list(joke().nodes) == ["s.tell#0", "s.tell#1"]


def test_first_request_has_what_stands_before_its_output() -> None:
    assert step_of(joke(), "tell", 0).segments == (
        Role("user"),
        Text("Tell a joke about "),
        Input(var("topic")),
        Role("assistant"),
    )


def test_later_request_has_the_earlier_output_and_the_text_between() -> None:
    assert step_of(joke(), "tell", 1).segments == (
        Role("user"),
        Text("Tell a joke about "),
        Input(var("topic")),
        Role("assistant"),
        InPlace(var("joke")),
        Text(" Explain: "),
    )


def test_later_request_waits_for_the_earlier_output() -> None:
    assert step_of(joke(), "tell", 1).inputs == (var("topic"), var("joke"))


def test_each_output_has_its_own_sampling() -> None:
    graph = joke()
    assert step_of(graph, "tell", 0).sampling.max_tokens == 10
    assert step_of(graph, "tell", 1).sampling.max_tokens == 20


def test_text_after_the_last_output_is_in_no_prompt() -> None:
    graph = make_graph(make_call("b", "p", write("c"), " the end"))
    assert step_of(graph, "b", 0).segments == (Text("p"),)


def test_outputs_side_by_side_are_generated_in_order() -> None:
    graph = make_graph(make_call("b", "p", write("c"), write("d"), write("e")))
    assert step_of(graph, "b", 2).segments == (Text("p"), InPlace(var("c")), InPlace(var("d")))


def test_producer_of_each_output_is_its_request() -> None:
    graph = joke()
    assert graph.variables[var("joke")].producer == "s.tell#0"
    assert graph.variables[var("why")].producer == "s.tell#1"


def test_call_takes_its_model_to_every_request() -> None:
    graph = make_graph(make_call("b", "p", write("c"), write("d"), model="large"))
    assert [step_of(graph, "b", i).model for i in (0, 1)] == ["large", "large"]


# --- what is built ---------------------------------------------------------------------------


def test_input_that_stands_twice_is_one_input() -> None:
    graph = make_graph(make_call("b", read("x"), read("x"), write("c")), variables={"x": "1"})
    assert graph.nodes[request_id("b")].inputs == (var("x"),)


def test_consumer_that_reads_twice_is_one_consumer() -> None:
    graph = make_graph(make_call("b", read("x"), read("x"), write("c")), variables={"x": "1"})
    assert graph.variables[var("x")].consumers == [request_id("b")]


def test_consumers_are_in_order_of_submission() -> None:
    graph = make_graph(*make_steps("b: x", "a: x", "c: x"), variables={"x": None})
    assert names(node.id for node in graph.consumers(graph.variables[var("x")])) == ["b", "a", "c"]


def test_predecessors_are_the_producers_of_the_inputs() -> None:
    graph = make_graph(*make_steps("a", "b", "c: b x a"), variables={"x": None})
    assert names(node.id for node in graph.predecessors(graph.nodes[request_id("c")])) == ["b", "a"]


def test_transform_is_one_node_with_one_output() -> None:
    graph = make_graph(make_transform("t", "<", read("x"), ">"), variables={"x": "1"})
    node = graph.nodes[NodeId("s.t")]
    assert isinstance(node, TransformNode)
    assert (node.inputs, node.output) == ((var("x"),), var("t"))


@pytest.mark.parametrize(
    ("value", "state"),
    [(None, VariableState.EMPTY), ("", VariableState.READY), ("text", VariableState.READY)],
)
def test_external_variable_begins(value: str | None, state: VariableState) -> None:
    variable = make_graph(variables={"x": value}).variables[var("x")]
    assert (variable.state, variable.value, variable.producer) == (state, value, None)


def test_new_node_waits() -> None:
    assert make_graph(make_step("a")).nodes[request_id("a")].state is NodeState.WAITING


def test_graph_without_nodes_is_legal() -> None:
    assert make_graph(variables={"x": "1"}).nodes == {}


def test_nodes_given_in_any_order_are_kept_in_topological_order() -> None:
    graph = make_graph(*make_steps("d: b c", "c: a", "b: a", "a"))
    order = names(graph.nodes)
    assert order[0] == "a"
    assert order[3] == "d"
    assert sorted(order) == ["a", "b", "c", "d"]


def test_index_rises_in_topological_order() -> None:
    graph = make_graph(*make_steps("d: b c", "c: a", "b: a", "a"))
    extend_graph(graph, *make_steps("f: e", "e: d"))
    indexes = [node.index for node in graph.nodes.values()]
    assert indexes == sorted(set(indexes))
    assert names(graph.nodes)[4:] == ["e", "f"]


@pytest.mark.parametrize(
    ("lines", "depths"),
    [
        (["a"], {"a": 0}),
        (["a", "b: a", "c: b"], {"a": 0, "b": 1, "c": 2}),
        (["a", "b: a", "c: a b"], {"a": 0, "b": 1, "c": 2}),
        (["a", "b", "c: a b"], {"a": 0, "b": 0, "c": 1}),
        (["a: x", "b: x a"], {"a": 0, "b": 1}),
    ],
)
def test_depth_is_the_longest_path_before(lines: list[str], depths: dict[str, int]) -> None:
    graph = make_graph(*make_steps(*lines), variables={"x": None})
    assert {n: graph.nodes[request_id(n)].depth for n in depths} == depths


@pytest.mark.parametrize(
    ("lines", "remaining"),
    [
        (["a"], {"a": 0}),
        (["a", "b: a", "c: b"], {"a": 2, "b": 1, "c": 0}),
        (["a", "b: a", "c: a b"], {"a": 2, "b": 1, "c": 0}),
        (["a", "b", "c: b", "d: a c"], {"a": 1, "b": 2, "c": 1, "d": 0}),
        (["a", "b: a", "c: a", "d: c", "e: d"], {"a": 3, "b": 0, "c": 2, "d": 1, "e": 0}),
    ],
)
def test_remaining_is_the_longest_path_after(lines: list[str], remaining: dict[str, int]) -> None:
    graph = make_graph(*make_steps(*lines))
    assert {n: graph.nodes[request_id(n)].remaining for n in remaining} == remaining


def test_remaining_grows_with_a_later_submit() -> None:
    graph = make_graph(*make_steps("a", "b: a"))
    extend_graph(graph, *make_steps("c: b", "d: c"))
    assert [node.remaining for node in graph.nodes.values()] == [3, 2, 1, 0]


def test_depth_goes_on_in_a_later_submit() -> None:
    graph = make_graph(*make_steps("a", "b: a"))
    extend_graph(graph, *make_steps("c: b"))
    assert graph.nodes[request_id("c")].depth == 2


def test_later_submit_may_read_what_is_there() -> None:
    graph = existing()
    extend_graph(graph, make_step("b", "t", "x"))
    assert graph.nodes[request_id("b")].inputs == (var("t"), var("x"))


def test_names_of_the_greatest_length() -> None:
    long = "n" * 128
    graph = make_graph(make_step(long), make_step("b", long))
    assert graph.variables[var(long)].consumers == [request_id("b")]


def test_variable_may_be_named_as_a_call() -> None:
    graph = make_graph(make_call("b", "p", write("a")), make_call("a", "p", write("b")))
    assert graph.variables[var("a")].producer == request_id("b")


def test_number_of_requests_leaves_out_transforms() -> None:
    graph = SessionGraph(SESSION)
    call = CallSpec("b", (Text("p"), write("c"), write("d")))
    delta = graph.plan(make_submission(call, make_transform("t", "x")), max_nodes=10)
    assert delta.num_requests == 2


def test_input_written_again_after_its_output_is_not_generated_in_place() -> None:
    graph = make_graph(make_call("b", "p", write("a"), " again: ", read("a"), write("c")))
    node = step_of(graph, "b", 1)
    assert node.segments == (Text("p"), InPlace(var("a")), Text(" again: "), Input(var("a")))
