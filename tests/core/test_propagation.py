"""How values, failures and cancellations travel through a graph."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from parrot_backend.core.effects import Effects
from parrot_backend.core.events import NodeSpec, RequestUsage
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import VariableId, WaiterId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prompt import PartKind, PromptPart, Role
from parrot_backend.core.propagation import Propagation
from parrot_backend.core.transforms import JsonField, Strip
from parrot_backend.core.variable import VariableState
from parrot_backend.errors import Failure
from tests.helpers.builders import (
    extend_graph,
    make_call,
    make_graph,
    make_step,
    make_steps,
    make_transform,
    names,
    read,
    request_id,
    var,
    write,
)

NOW_S = 7.0


def make_live_graph(
    *nodes: NodeSpec, variables: dict[str, str | None] | None = None
) -> tuple[SessionGraph, Effects]:
    """Return a graph after its nodes were admitted, and what that did."""
    graph = make_graph(*nodes, variables=variables)
    propagation = Propagation(graph, NOW_S)
    propagation.admit(list(graph.nodes.values()))
    return graph, propagation.effects


def resolve(graph: SessionGraph, name: str, value: str) -> Effects:
    """Give a variable a value, as an engine does that has run its request."""
    variable = graph.variables[var(name)]
    if variable.producer is not None:
        node = graph.nodes[variable.producer]
        if node.state is NodeState.READY:
            node.move(NodeState.RUNNING)
        node.move(NodeState.FINISHED)
    propagation = Propagation(graph, NOW_S)
    propagation.resolve(variable, value)
    return propagation.effects


def fail(graph: SessionGraph, name: str) -> Effects:
    propagation = Propagation(graph, NOW_S)
    propagation.fail(graph.variables[var(name)], "broken", "it broke")
    return propagation.effects


def cancel(graph: SessionGraph, *targets: str, keep: Iterable[str] = ()) -> Effects:
    propagation = Propagation(graph, NOW_S)
    kept = [var(name) for name in keep]
    propagation.cancel([graph.variables[var(name)] for name in targets], kept, "given up")
    return propagation.effects


def states(graph: SessionGraph) -> dict[str, VariableState]:
    return {variable.name: variable.state for variable in graph.variables.values()}


def in_state(graph: SessionGraph, state: VariableState) -> list[str]:
    return [name for name, found in states(graph).items() if found is state]


def ready(effects: Effects) -> list[str]:
    return names(request.id for request in effects.ready)


def settled(effects: Effects) -> list[str]:
    return [variable.name for variable in effects.settled]


def request(graph: SessionGraph, name: str, step: int = 0) -> Request:
    node = graph.nodes[request_id(name, step)]
    assert isinstance(node, Request)
    return node


# --- admitting -------------------------------------------------------------------------------


def test_call_without_inputs_is_ready_at_once() -> None:
    _, effects = make_live_graph(make_step("a"))
    assert ready(effects) == ["a"]


def test_call_with_set_inputs_is_ready_at_once() -> None:
    _, effects = make_live_graph(make_step("a", "x"), variables={"x": "1"})
    assert ready(effects) == ["a"]


def test_call_with_an_unset_input_waits() -> None:
    graph, effects = make_live_graph(make_step("a", "x"), variables={"x": None})
    assert ready(effects) == []
    assert request(graph, "a").state is NodeState.WAITING


def test_call_with_an_unmade_input_waits() -> None:
    _, effects = make_live_graph(*make_steps("a", "b: a"))
    assert ready(effects) == ["a"]


def test_ready_time_is_noted() -> None:
    graph, _ = make_live_graph(make_step("a"))
    assert request(graph, "a").ready_s == NOW_S


def test_transform_of_set_inputs_is_computed_at_once() -> None:
    graph, effects = make_live_graph(
        make_transform("t", "<", read("x"), ">", transforms=(Strip(),)), variables={"x": "1"}
    )
    assert graph.variables[var("t")].value == "<1>"
    assert settled(effects) == ["t"]


def test_chain_of_transforms_is_computed_at_once() -> None:
    graph, effects = make_live_graph(
        make_transform("c", "c", read("b")),
        make_transform("b", "b", read("a")),
        make_transform("a", "a", read("x")),
        make_step("d", "c"),
        variables={"x": "!"},
    )
    assert graph.variables[var("c")].value == "cba!"
    assert ready(effects) == ["d"]


def test_transform_that_reads_one_variable_twice() -> None:
    graph, _ = make_live_graph(make_transform("t", read("x"), "-", read("x")), variables={"x": "1"})
    assert graph.variables[var("t")].value == "1-1"


def test_transform_without_inputs_is_its_text() -> None:
    graph, _ = make_live_graph(make_transform("t", "text"))
    assert graph.variables[var("t")].value == "text"


def test_transform_that_does_not_apply_fails_its_variable() -> None:
    graph, _ = make_live_graph(
        make_transform("t", read("x"), transforms=(JsonField("a"),)), variables={"x": "no json"}
    )
    failure = graph.variables[var("t")].failure
    assert failure is not None
    assert (failure.code, failure.path) == ("transform_failed", ("t",))


def test_input_whose_transform_does_not_apply_fails_the_output() -> None:
    graph, effects = make_live_graph(
        make_call("a", read("x", JsonField("k")), write("b")), variables={"x": "no json"}
    )
    failure = graph.variables[var("b")].failure
    assert failure is not None
    assert failure.code == "transform_failed"
    assert ready(effects) == []


def test_failed_transform_fails_what_depends_on_it() -> None:
    graph, _ = make_live_graph(
        make_transform("t", read("x"), transforms=(JsonField("a"),)),
        make_step("b", "t"),
        make_step("c", "b"),
        make_step("d", "x"),
        variables={"x": "no json"},
    )
    assert in_state(graph, VariableState.FAILED) == ["t", "b", "c"]


def test_call_that_reads_a_failed_variable_fails_on_admission() -> None:
    graph, _ = make_live_graph(make_step("a"))
    fail(graph, "a")
    extend_graph(graph, *make_steps("b: a", "c: b"))
    propagation = Propagation(graph, NOW_S)
    propagation.admit([graph.nodes[request_id("b")], graph.nodes[request_id("c")]])
    assert graph.variables[var("c")].failure == Failure("broken", "it broke", "a", ("a", "b", "c"))


def test_call_that_reads_a_cancelled_variable_is_cancelled_on_admission() -> None:
    graph, _ = make_live_graph(make_step("a"))
    cancel(graph, "a")
    extend_graph(graph, make_step("b", "a"))
    propagation = Propagation(graph, NOW_S)
    propagation.admit([graph.nodes[request_id("b")]])
    assert graph.variables[var("b")].state is VariableState.CANCELLED


# --- prompts ---------------------------------------------------------------------------------


def test_prompt_is_the_segments_with_values() -> None:
    graph, _ = make_live_graph(
        make_call("a", Role("user"), "Say ", read("x", Strip()), "!", write("b")),
        variables={"x": " hello "},
    )
    assert request(graph, "a").parts == (
        PromptPart(PartKind.ROLE, "user"),
        PromptPart(PartKind.CONSTANT, "Say "),
        PromptPart(PartKind.VALUE, "hello"),
        PromptPart(PartKind.CONSTANT, "!"),
    )


def test_empty_value_is_an_empty_part() -> None:
    graph, _ = make_live_graph(make_call("a", "p", read("x"), write("b")), variables={"x": ""})
    assert request(graph, "a").parts[1] == PromptPart(PartKind.VALUE, "")


def generate_two(*between: str) -> SessionGraph:
    """Return a graph in which the first output of a call of two is ``"one"``, tokens 1 and 2."""
    graph, _ = make_live_graph(make_call("a", "p", write("b"), *between, write("c")))
    node = request(graph, "a")
    node.move(NodeState.RUNNING)
    node.move(NodeState.FINISHED)
    propagation = Propagation(graph, NOW_S)
    propagation.resolve(graph.variables[var("b")], "one", token_ids=(1, 2))
    return graph


def test_second_output_has_the_first_and_the_text_between_in_its_prompt() -> None:
    assert request(generate_two(" and "), "a", 1).parts == (
        PromptPart(PartKind.CONSTANT, "p"),
        PromptPart(PartKind.VALUE, "one", (1, 2)),
        PromptPart(PartKind.CONSTANT, " and "),
    )


def test_tokens_of_an_earlier_output_are_reused_in_its_own_call() -> None:
    assert request(generate_two(), "a", 1).parts[1].token_ids == (1, 2)


def test_tokens_are_not_reused_in_another_call() -> None:
    graph = generate_two()
    extend_graph(graph, make_step("d", "b"))
    propagation = Propagation(graph, NOW_S)
    propagation.admit([graph.nodes[request_id("d")]])
    assert request(graph, "d").parts[1] == PromptPart(PartKind.VALUE, "one")


def test_tokens_are_not_reused_where_the_call_reads_its_output_again() -> None:
    graph, _ = make_live_graph(make_call("a", "p", write("b"), " again: ", read("b"), write("c")))
    node = request(graph, "a")
    node.move(NodeState.RUNNING)
    node.move(NodeState.FINISHED)
    propagation = Propagation(graph, NOW_S)
    propagation.resolve(graph.variables[var("b")], "one", token_ids=(1, 2))
    assert [part.token_ids for part in request(graph, "a", 1).parts] == [None, (1, 2), None, None]


# --- values ----------------------------------------------------------------------------------


def test_value_makes_the_consumer_ready() -> None:
    graph, _ = make_live_graph(make_step("a", "x"), variables={"x": None})
    assert ready(resolve(graph, "x", "1")) == ["a"]


def test_consumer_waits_for_its_last_input() -> None:
    graph, _ = make_live_graph(make_step("a", "x", "y"), variables={"x": None, "y": None})
    assert ready(resolve(graph, "x", "1")) == []
    assert ready(resolve(graph, "y", "1")) == ["a"]


def test_value_travels_through_transforms() -> None:
    graph, _ = make_live_graph(
        make_transform("t", "<", read("x"), ">"),
        make_transform("u", "(", read("t"), ")"),
        make_step("a", "u"),
        variables={"x": None},
    )
    effects = resolve(graph, "x", "1")
    assert settled(effects) == ["x", "t", "u"]
    assert request(graph, "a").parts[-1].text == "(<1>)"


def test_value_makes_all_its_consumers_ready_in_order() -> None:
    graph, _ = make_live_graph(*make_steps("b: x", "a: x", "c: x"), variables={"x": None})
    assert ready(resolve(graph, "x", "1")) == ["b", "a", "c"]


def test_diamond_of_transforms_is_ready_once() -> None:
    graph, _ = make_live_graph(
        make_transform("l", "l", read("x")),
        make_transform("r", "r", read("x")),
        make_step("a", "l", "r"),
        variables={"x": None},
    )
    assert ready(resolve(graph, "x", "1")) == ["a"]


def test_value_carries_what_the_engine_told_of_it() -> None:
    graph, _ = make_live_graph(make_step("a"))
    request(graph, "a").move(NodeState.RUNNING)
    usage = RequestUsage(3, 4)
    propagation = Propagation(graph, NOW_S)
    propagation.resolve(
        graph.variables[var("a")], "v", token_ids=(5,), usage=usage, finish_reason="length"
    )
    variable = graph.variables[var("a")]
    assert (variable.value, variable.token_ids) == ("v", (5,))
    assert (variable.usage, variable.finish_reason) == (usage, "length")


def test_value_replaces_the_text_so_far() -> None:
    graph, _ = make_live_graph(make_step("a"))
    graph.variables[var("a")].partial += ["v", "al"]
    resolve(graph, "a", "value")
    assert graph.variables[var("a")].partial == []


def test_value_for_a_transform_that_then_fails_leaves_the_others() -> None:
    graph, _ = make_live_graph(
        make_transform("t", read("x"), transforms=(JsonField("a"),)),
        make_step("b", "t"),
        make_step("c", "x"),
        variables={"x": None},
    )
    assert ready(resolve(graph, "x", "no json")) == ["c"]
    assert in_state(graph, VariableState.FAILED) == ["t", "b"]


# --- failures --------------------------------------------------------------------------------


def test_failure_reaches_every_dependant() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a", "c: b", "d: a", "e"))
    fail(graph, "a")
    assert in_state(graph, VariableState.FAILED) == ["a", "b", "c", "d"]


def test_failure_leaves_the_rest_alone() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a", "e", "f: e"))
    fail(graph, "a")
    assert in_state(graph, VariableState.EMPTY) == ["e", "f"]


def test_failure_tells_root_cause_and_path() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a", "c: b"))
    fail(graph, "a")
    assert graph.variables[var("c")].failure == Failure("broken", "it broke", "a", ("a", "b", "c"))


def test_failure_through_a_transform_has_it_on_the_path() -> None:
    graph, _ = make_live_graph(make_step("a"), make_transform("t", read("a")), make_step("b", "t"))
    fail(graph, "a")
    failure = graph.variables[var("b")].failure
    assert failure is not None
    assert failure.path == ("a", "t", "b")


def test_first_of_two_failures_stays() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b", "c: a b"))
    fail(graph, "a")
    fail(graph, "b")
    failure = graph.variables[var("c")].failure
    assert failure is not None
    assert failure.origin == "a"


def test_failure_stops_what_is_ready_and_nothing_that_waits() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a"))
    assert names(r.id for r in fail(graph, "a").stopped) == ["a"]


def test_failed_nodes_have_ended_now() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a"))
    fail(graph, "a")
    assert [node.finished_s for node in graph.nodes.values()] == [NOW_S, NOW_S]
    assert {node.state for node in graph.nodes.values()} == {NodeState.FAILED}


def test_value_after_a_failure_does_not_wake_the_failed() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b", "c: a b"))
    fail(graph, "a")
    assert ready(resolve(graph, "b", "1")) == []
    assert graph.variables[var("c")].state is VariableState.FAILED


def test_failure_settles_each_variable_of_a_diamond_once() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a", "c: a", "d: b c"))
    assert sorted(settled(fail(graph, "a"))) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_text_so_far_of_what_goes_wrong_is_dropped(end: str) -> None:
    graph, _ = make_live_graph(make_step("a"))
    graph.variables[var("a")].partial += ["v", "al"]
    if end == "failed":
        fail(graph, "a")
    else:
        cancel(graph, "a")
    assert graph.variables[var("a")].partial == []


# --- cancellations -----------------------------------------------------------------------------

#: name: (steps, finished, kept, cancelled on purpose, cancelled in the end)
CANCELLED: dict[str, tuple[list[str], list[str], list[str], list[str], list[str]]] = {
    "alone": (["a"], [], [], ["a"], ["a"]),
    "dependants go too": (["a", "b: a", "c: b"], [], [], ["a"], ["a", "b", "c"]),
    "what only it needed goes too": (["a", "b: a", "c: b"], [], [], ["c"], ["a", "b", "c"]),
    "what another needs stays": (["a", "b: a", "c: a"], [], [], ["b"], ["b"]),
    "what two cancelled need goes": (["a", "b: a", "c: a"], [], [], ["b", "c"], ["a", "b", "c"]),
    "what is wanted for itself stays": (["a", "b: a", "c: b"], [], ["a"], ["c"], ["b", "c"]),
    "above what is wanted all stays": (["a", "b: a", "c: b"], [], ["b"], ["c"], ["c"]),
    "finished work stays": (["a", "b: a", "c: b"], ["a"], [], ["c"], ["b", "c"]),
    "finished target": (["a", "b: a"], ["a"], [], ["a"], []),
    "wanted target goes all the same": (["a"], [], ["a"], ["a"], ["a"]),
    "unrelated stays": (["a", "b"], [], [], ["a"], ["a"]),
    "middle": (["a", "b: a", "c: b"], [], [], ["b"], ["a", "b", "c"]),
    "sibling of a dependant": (["a", "b", "c: a b"], [], [], ["a"], ["a", "b", "c"]),
    "sibling that is needed elsewhere": (
        ["a", "b", "c: a b", "d: b"], [], [], ["a"], ["a", "c"],
    ),
    "diamond from below": (["a", "b: a", "c: a", "d: b c"], [], [], ["d"], ["a", "b", "c", "d"]),
    "half a diamond": (
        ["a", "b: a", "c: a", "d: b c"], [], ["c"], ["b"], ["b", "d"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "done", "keep", "targets", "expected"), CANCELLED.values(), ids=CANCELLED
)
def test_cancel_takes(
    lines: list[str], done: list[str], keep: list[str], targets: list[str], expected: list[str]
) -> None:
    graph, _ = make_live_graph(*make_steps(*lines))
    for name in done:
        resolve(graph, name, "1")
    effects = cancel(graph, *targets, keep=keep)
    assert sorted(settled(effects)) == expected
    assert in_state(graph, VariableState.CANCELLED) == expected


def test_cancel_leaves_an_external_input() -> None:
    graph, _ = make_live_graph(make_step("a", "x"), variables={"x": None})
    cancel(graph, "a")
    assert states(graph)["x"] is VariableState.EMPTY


def test_cancel_of_an_external_variable_cancels_its_consumers() -> None:
    graph, _ = make_live_graph(make_step("a", "x"), variables={"x": None})
    cancel(graph, "x")
    assert in_state(graph, VariableState.CANCELLED) == ["x", "a"]


def test_cancel_spares_what_somebody_waits_for() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a"))
    graph.variables[var("a")].waiters[WaiterId("w")] = False
    cancel(graph, "b")
    assert in_state(graph, VariableState.CANCELLED) == ["b"]


def test_cancel_goes_up_through_transforms() -> None:
    graph, _ = make_live_graph(make_step("a"), make_transform("t", read("a")), make_step("b", "t"))
    cancel(graph, "b")
    assert in_state(graph, VariableState.CANCELLED) == ["a", "t", "b"]


def test_cancel_takes_the_earlier_outputs_of_a_call_that_nobody_else_reads() -> None:
    graph, _ = make_live_graph(make_call("a", "p", write("b"), write("c")))
    cancel(graph, "c")
    assert in_state(graph, VariableState.CANCELLED) == ["b", "c"]


def test_cancelled_dependant_names_the_origin_and_path() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a"))
    cancel(graph, "a")
    assert graph.variables[var("b")].failure == Failure("cancelled", "given up", "a", ("a", "b"))


def test_cancelled_means_has_itself_as_origin() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a"))
    cancel(graph, "b")
    assert graph.variables[var("a")].failure == Failure("cancelled", "given up", "a", ("a",))


def test_cancel_stops_what_is_ready() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a"))
    assert names(r.id for r in cancel(graph, "b").stopped) == ["a"]


def test_cancel_stops_what_runs() -> None:
    graph, _ = make_live_graph(make_step("a"))
    request(graph, "a").move(NodeState.RUNNING)
    assert names(r.id for r in cancel(graph, "a").stopped) == ["a"]


def test_cancel_twice_does_nothing_more() -> None:
    graph, _ = make_live_graph(make_step("a"))
    cancel(graph, "a")
    effects = cancel(graph, "a")
    assert (effects.settled, effects.stopped, effects.ready) == ([], [], [])


def test_cancel_of_a_wanted_chain_goes_up_to_what_is_wanted_only() -> None:
    graph, _ = make_live_graph(*make_steps("a", "b: a", "c: b", "d: c"))
    keep: set[VariableId] = {var("b"), var("d")}
    propagation = Propagation(graph, NOW_S)
    propagation.cancel([graph.variables[var("d")]], keep, "given up")
    assert in_state(graph, VariableState.CANCELLED) == ["c", "d"]
