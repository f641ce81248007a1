"""Performance-objective deduction: from what is wanted to the objective of every request."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from parrot_backend.core.criteria import Criteria, CriteriaKind, Objective, ObjectiveClass
from parrot_backend.core.deduction import deduce_objectives
from parrot_backend.core.events import NodeSpec
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import NodeId
from parrot_backend.core.nodes import NodeState
from tests.helpers.builders import (
    LATENCY,
    THROUGHPUT,
    extend_graph,
    make_call,
    make_graph,
    make_objective,
    make_step,
    make_steps,
    make_transform,
    names,
    read,
    request_id,
    var,
    write,
)

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT


def deduce(graph: SessionGraph, wanted: Mapping[str, Criteria]) -> dict[NodeId, Objective]:
    return deduce_objectives(graph, {var(name): criteria for name, criteria in wanted.items()})


def classes_and_groups(
    graph: SessionGraph, wanted: Mapping[str, Criteria]
) -> tuple[dict[str, ObjectiveClass], list[list[str]]]:
    """Return the class of each request that is needed, and the task groups."""
    found = deduce(graph, wanted)
    groups: dict[str, list[str]] = {}
    for node_id, objective in found.items():
        if objective.group is not None:
            groups.setdefault(objective.group, []).extend(names([node_id]))
    classes = {names([node_id])[0]: o.objective_class for node_id, o in found.items()}
    return classes, sorted(sorted(members) for members in groups.values())


@dataclass(frozen=True)
class Case:
    """A graph, what is wanted of it, and what follows."""

    nodes: tuple[NodeSpec, ...]
    wanted: dict[str, Criteria]
    latency: str = ""
    groups: tuple[str, ...] = ()
    throughput: str = ""


CASES: dict[str, Case] = {
    "one call": Case(make_steps("a"), {"a": LATENCY}, latency="a"),
    "one call for throughput": Case(make_steps("a"), {"a": THROUGHPUT}, throughput="a"),
    "a chain is latency-sensitive throughout": Case(
        make_steps("a", "b: a", "c: b"), {"c": LATENCY}, latency="a b c"
    ),
    "a chain for throughput": Case(
        make_steps("a", "b: a", "c: b"), {"c": THROUGHPUT}, throughput="a b c"
    ),
    "map-reduce: the maps are a group": Case(
        make_steps("a", "b", "c", "r: a b c"), {"r": LATENCY}, latency="r", groups=("a b c",)
    ),
    "map-reduce for throughput": Case(
        make_steps("a", "b", "c", "r: a b c"), {"r": THROUGHPUT}, throughput="a b c r"
    ),
    "plan, coders, integrate": Case(
        make_steps("plan", "a: plan", "b: plan", "c: plan", "out: a b c"),
        {"out": LATENCY},
        latency="plan out",
        groups=("a b c",),
    ),
    "coders, reviewers, revisers: one group per stage": Case(
        make_steps("p", "a1: p", "b1: p", "a2: a1", "b2: b1", "a3: a2", "b3: b2", "out: a3 b3"),
        {"out": LATENCY},
        latency="p out",
        groups=("a1 b1", "a2 b2", "a3 b3"),
    ),
    "diamond": Case(
        make_steps("a", "b: a", "c: a", "d: b c"), {"d": LATENCY}, latency="a d", groups=("b c",)
    ),
    "branches of unequal length meet in the last stage": Case(
        make_steps("a1", "a2: a1", "b", "out: a2 b"),
        {"out": LATENCY},
        latency="a1 out",
        groups=("a2 b",),
    ),
    "a short cut does not change the stage": Case(
        make_steps("a", "b: a", "c: a b"), {"c": LATENCY}, latency="a b c"
    ),
    "what nobody needs has no objective": Case(
        make_steps("a", "b: a", "c: a"), {"b": LATENCY}, latency="a b"
    ),
    "an intermediate value that is wanted": Case(
        make_steps("a", "b: a", "c: b"), {"b": LATENCY}, latency="a b"
    ),
    "latency wins over throughput upstream of both": Case(
        make_steps("a", "b: a", "c: a"),
        {"b": THROUGHPUT, "c": LATENCY},
        latency="a c",
        throughput="b",
    ),
    "a group wins over throughput": Case(
        make_steps("a", "b", "c: a b", "d: a"),
        {"c": LATENCY, "d": THROUGHPUT},
        latency="c",
        groups=("a b",),
        throughput="d",
    ),
    "serial for one value and parallel for another is latency": Case(
        make_steps("a", "b", "c", "r: a b c", "s: a"),
        {"r": LATENCY, "s": LATENCY},
        latency="a r s",
        groups=("b c",),
    ),
    "a member that is wanted for itself leaves its group": Case(
        make_steps("a", "b", "c", "r: a b c"),
        {"r": LATENCY, "b": LATENCY},
        latency="b r",
        groups=("a c",),
    ),
    "a group of which one is left is no group": Case(
        make_steps("a", "b", "r: a b"), {"r": LATENCY, "b": LATENCY}, latency="a b r"
    ),
    "groups that overlap become one": Case(
        make_steps("a", "b", "c", "r: a b", "s: b c"),
        {"r": LATENCY, "s": LATENCY},
        latency="r s",
        groups=("a b c",),
    ),
    "a chain of overlapping groups becomes one": Case(
        make_steps("a", "b", "c", "d", "r: a b", "s: c d", "t: b c"),
        {"r": LATENCY, "s": LATENCY, "t": LATENCY},
        latency="r s t",
        groups=("a b c d",),
    ),
    "groups that do not overlap stay apart": Case(
        make_steps("a", "b", "c", "d", "r: a b", "s: c d"),
        {"r": LATENCY, "s": LATENCY},
        latency="r s",
        groups=("a b", "c d"),
    ),
    "overlap only through a serial member keeps groups apart": Case(
        make_steps("a", "b", "c", "d", "e", "r: a b e", "s: c d e", "t: e"),
        {"r": LATENCY, "s": LATENCY, "t": LATENCY},
        latency="e r s t",
        groups=("a b", "c d"),
    ),
    "transforms are no stage": Case(
        (
            *make_steps("a", "b", "r: t u"),
            make_transform("t", read("a")),
            make_transform("u", read("b")),
        ),
        {"r": LATENCY},
        latency="r",
        groups=("a b",),
    ),
    "a transform on one branch leaves the stage as it is": Case(
        (*make_steps("a", "b", "r: t b"), make_transform("t", read("a"))),
        {"r": LATENCY},
        latency="r",
        groups=("a b",),
    ),
    "a wanted transform asks for what it reads": Case(
        (*make_steps("a"), make_transform("t", read("a"))), {"t": LATENCY}, latency="a"
    ),
    "a wanted transform of several is a group": Case(
        (*make_steps("a", "b"), make_transform("t", read("a"), read("b"))),
        {"t": LATENCY},
        groups=("a b",),
    ),
    "a chain through transforms": Case(
        (
            *make_steps("a", "b: t", "c: u"),
            make_transform("t", read("a")),
            make_transform("u", read("b")),
        ),
        {"c": LATENCY},
        latency="a b c",
    ),
    "a wanted external variable asks for nothing": Case(make_steps("a: x"), {"x": LATENCY}),
    "nothing wanted": Case(make_steps("a", "b: a"), {}),
    # The paper's figure 9: 1 makes x, 2 makes y, 3 precedes 2; 4 and 5 feed 3, 6 and 7 feed 1.
    "the paper's figure 9, groups under each branch": Case(
        make_steps("n6", "n7", "x: n6 n7", "n4", "n5", "n3: n4 n5", "y: n3"),
        {"x": LATENCY, "y": LATENCY},
        latency="x y n3",
        groups=("n4 n5", "n6 n7"),
    ),
    "the paper's figure 9, groups one above the other": Case(
        make_steps("n6", "n7", "n4: n6 n7", "n5: n6 n7", "x: n4 n5", "n3: n4 n5", "y: n3"),
        {"x": LATENCY, "y": LATENCY},
        latency="x y n3",
        groups=("n4 n5", "n6 n7"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_objectives_of(case: Case) -> None:
    graph = make_graph(*case.nodes, variables={"x": None} if "x" not in made(case) else {})
    classes, groups = classes_and_groups(graph, case.wanted)
    members = " ".join(case.groups).split()
    assert classes == (
        dict.fromkeys(case.latency.split(), L)
        | dict.fromkeys(members, G)
        | dict.fromkeys(case.throughput.split(), T)
    )
    assert groups == [group.split() for group in case.groups]


def made(case: Case) -> set[str]:
    return {node.name for node in case.nodes}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_objectives_do_not_depend_on_the_order_of_gets(case: Case) -> None:
    graph = make_graph(*case.nodes, variables={"x": None} if "x" not in made(case) else {})
    results = [deduce(graph, dict(order)) for order in itertools.permutations(case.wanted.items())]
    assert all(result == results[0] for result in results)


def test_outputs_of_one_call_are_serial() -> None:
    graph = make_graph(make_call("c", "p", write("a"), "q", write("b"), "r", write("d")))
    found = deduce(graph, {"d": LATENCY})
    assert [found[request_id("c", step)].objective_class for step in range(3)] == [L, L, L]


def test_first_output_of_a_call_does_not_need_the_second() -> None:
    graph = make_graph(make_call("c", "p", write("a"), "q", write("b")))
    assert list(deduce(graph, {"a": LATENCY})) == [request_id("c", 0)]


def test_calls_of_several_outputs_side_by_side_are_a_group_per_step() -> None:
    graph = make_graph(
        make_call("c", "p", write("a1"), write("a2")),
        make_call("d", "p", write("b1"), write("b2")),
        make_step("r", "a2", "b2"),
    )
    found = deduce(graph, {"r": LATENCY})
    first = found[request_id("c", 0)].group, found[request_id("d", 0)].group
    second = found[request_id("c", 1)].group, found[request_id("d", 1)].group
    assert first == ("s.c#0", "s.c#0")
    assert second == ("s.c#1", "s.c#1")


def test_group_is_named_after_its_smallest_member() -> None:
    graph = make_graph(*make_steps("m2", "m1", "m3", "r: m3 m2 m1"))
    found = deduce(graph, {"r": LATENCY})
    assert found[request_id("m3")] == make_objective(G, "s.m1#0")


def test_two_calls_that_read_one_value_twice_are_serial() -> None:
    graph = make_graph(make_step("a"), make_call("b", read("a"), read("a"), write("b")))
    assert classes_and_groups(graph, {"b": LATENCY}) == ({"a": L, "b": L}, [])


# --- deadlines -------------------------------------------------------------------------------


def by(deadline_s: float, kind: CriteriaKind = CriteriaKind.LATENCY) -> Criteria:
    return Criteria(kind, deadline_s=deadline_s)


def deadlines(graph: SessionGraph, wanted: Mapping[str, Criteria]) -> dict[str, float | None]:
    return {names([n])[0]: o.deadline_s for n, o in deduce(graph, wanted).items()}


def test_deadline_holds_for_everything_upstream() -> None:
    graph = make_graph(*make_steps("a", "b: a", "c: b"))
    assert deadlines(graph, {"c": by(9.0)}) == {"a": 9.0, "b": 9.0, "c": 9.0}


def test_deadline_does_not_hold_downstream() -> None:
    graph = make_graph(*make_steps("a", "b: a"))
    assert deadlines(graph, {"a": by(9.0), "b": LATENCY}) == {"a": 9.0, "b": None}


@pytest.mark.parametrize("order", [("c", "d"), ("d", "c")])
def test_earliest_deadline_counts(order: tuple[str, str]) -> None:
    graph = make_graph(*make_steps("a", "b", "c: a b", "d: b"))
    wanted = {"c": by(9.0), "d": by(4.0)}
    found = deadlines(graph, {name: wanted[name] for name in order})
    assert found == {"a": 9.0, "b": 4.0, "c": 9.0, "d": 4.0}


def test_earlier_deadline_of_a_later_value_holds_for_the_earlier_one() -> None:
    graph = make_graph(*make_steps("a", "b: a"))
    assert deadlines(graph, {"a": by(9.0), "b": by(4.0)}) == {"a": 4.0, "b": 4.0}


def test_equal_deadlines_are_no_conflict() -> None:
    graph = make_graph(*make_steps("a", "b: a", "c: a"))
    assert set(deadlines(graph, {"b": by(4.0), "c": by(4.0)}).values()) == {4.0}


def test_deadline_goes_through_transforms() -> None:
    graph = make_graph(make_step("a"), make_transform("t", read("a")))
    assert deadlines(graph, {"t": by(4.0)}) == {"a": 4.0}


def test_members_of_a_group_have_its_deadline() -> None:
    graph = make_graph(*make_steps("a", "b", "r: a b"))
    assert deadlines(graph, {"r": by(4.0)}) == {"a": 4.0, "b": 4.0, "r": 4.0}


@pytest.mark.parametrize(
    "target",
    [
        Criteria(CriteriaKind.THROUGHPUT, deadline_s=4.0),
        Criteria(CriteriaKind.THROUGHPUT, ttft_s=1.0),
        Criteria(CriteriaKind.THROUGHPUT, tpot_s=0.05),
    ],
    ids=["deadline", "ttft", "tpot"],
)
def test_variable_with_a_target_is_latency_sensitive(target: Criteria) -> None:
    graph = make_graph(make_step("a"))
    assert deduce(graph, {"a": target})[request_id("a")].objective_class is L


UNSTATED = Criteria(CriteriaKind.UNSTATED)
DUE = Criteria(CriteriaKind.UNSTATED, tpot_s=0.05)


@pytest.mark.parametrize(
    ("wanted", "bounded"),
    [
        ({"c": UNSTATED}, []),
        ({"c": LATENCY}, ["a", "b", "c"]),
        ({"c": DUE}, ["a", "b", "c"]),
        ({"b": LATENCY, "c": UNSTATED}, ["a", "b"]),
        ({"b": UNSTATED, "c": LATENCY}, ["a", "b", "c"]),
    ],
)
def test_who_leads_to_what_latency_was_asked_for_is_bounded(
    wanted: dict[str, Criteria], bounded: list[str]
) -> None:
    graph = make_graph(*make_steps("a", "b: a", "c: b"))
    found = deduce(graph, wanted)
    assert {o.objective_class for o in found.values()} == {L}
    assert sorted(names([n])[0] for n, o in found.items() if o.is_bounded) == bounded


# --- more than one submit ------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_objectives_do_not_depend_on_how_the_graph_was_submitted(case: Case) -> None:
    externals: dict[str, str | None] = {"x": None} if "x" not in made(case) else {}
    at_once = make_graph(*case.nodes, variables=externals)
    one_by_one = make_graph(variables=externals)
    by_name = {node.name: node for node in case.nodes}
    for node_id in at_once.nodes:
        extend_graph(one_by_one, by_name[names([node_id])[0]])
    assert deduce(one_by_one, case.wanted) == deduce(at_once, case.wanted)


def test_later_sibling_turns_a_serial_call_into_a_member() -> None:
    graph = make_graph(*make_steps("a", "b: a"))
    assert classes_and_groups(graph, {"b": LATENCY}) == ({"a": L, "b": L}, [])
    extend_graph(graph, *make_steps("c", "d: a c"))
    assert classes_and_groups(graph, {"d": LATENCY}) == ({"a": G, "c": G, "d": L}, [["a", "c"]])


def test_deduction_leaves_the_graph_as_it_is() -> None:
    graph = make_graph(*make_steps("a", "b", "r: a b"))
    before = [(node.id, node.index, node.state) for node in graph.nodes.values()]
    deduce(graph, {"r": LATENCY})
    assert [(node.id, node.index, node.state) for node in graph.nodes.values()] == before


# --- targets for the time per token ----------------------------------------------------------


def tpots(graph: SessionGraph, wanted: Mapping[str, Criteria]) -> dict[str, float | None]:
    return {names([node])[0]: objective.tpot_s for node, objective in deduce(graph, wanted).items()}


def test_target_for_the_first_token_is_that_of_the_output_itself() -> None:
    wanted = {"b": Criteria(CriteriaKind.LATENCY, ttft_s=0.5)}
    objectives = deduce(make_graph(*make_steps("a", "b: a")), wanted)
    assert {names([n])[0]: o.ttft_s for n, o in objectives.items()} == {"a": None, "b": 0.5}


FAST = Criteria(CriteriaKind.LATENCY, tpot_s=0.02)
SLOW = Criteria(CriteriaKind.LATENCY, tpot_s=0.1)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"c": FAST}, {"a": None, "b": None, "c": 0.02}),
        ({"b": FAST}, {"a": None, "b": 0.02}),
        ({"a": SLOW, "c": FAST}, {"a": 0.1, "b": None, "c": 0.02}),
        ({"c": LATENCY}, {"a": None, "b": None, "c": None}),
        ({"c": Criteria(CriteriaKind.THROUGHPUT, tpot_s=0.1)}, {"a": None, "b": None, "c": 0.1}),
    ],
)
def test_time_per_token_is_asked_of_the_request_that_makes_the_variable(
    wanted: dict[str, Criteria], expected: dict[str, float | None]
) -> None:
    assert tpots(make_graph(*make_steps("a", "b: a", "c: b")), wanted) == expected


def test_time_per_token_of_a_transform_is_asked_of_nobody() -> None:
    graph = make_graph(make_step("a"), make_transform("t", read("a")))
    assert tpots(graph, {"t": FAST}) == {"a": None}


def test_time_per_token_of_a_variable_of_the_client_is_asked_of_nobody() -> None:
    graph = make_graph(make_step("a", "x"), variables={"x": None})
    assert tpots(graph, {"x": FAST, "a": LATENCY}) == {"a": None}


def test_time_per_token_holds_for_one_output_of_a_call() -> None:
    graph = make_graph(make_call("c", "p", write("a"), "q", write("b")))
    found = deduce(graph, {"a": LATENCY, "b": FAST})
    assert {node: o.tpot_s for node, o in found.items()} == {
        request_id("c", 0): None,
        request_id("c", 1): 0.02,
    }


def test_members_of_a_group_have_targets_of_their_own() -> None:
    graph = make_graph(*make_steps("a", "b", "c: a b"))
    assert tpots(graph, {"a": SLOW, "c": LATENCY}) == {"a": 0.1, "b": None, "c": None}


@pytest.mark.parametrize("ttft_s", [None, 0.5])
@pytest.mark.parametrize("deadline_s", [None, 5.0])
@pytest.mark.parametrize("tpot_s", [None, 0.1])
@pytest.mark.parametrize("kind", CriteriaKind)
def test_a_call_that_comes_alone_has_the_objective_it_has_beside_others(
    kind: CriteriaKind, tpot_s: float | None, deadline_s: float | None, ttft_s: float | None
) -> None:
    alone, beside = make_graph(make_step("a")), make_graph(make_step("a"), make_step("b"))
    wishes = {var("a"): Criteria(kind, deadline_s=deadline_s, tpot_s=tpot_s, ttft_s=ttft_s)}
    assert deduce_objectives(alone, wishes) == deduce_objectives(beside, wishes)
    assert deduce_objectives(alone, {}) == {}


def test_a_call_that_came_alone_and_has_ended_has_no_objective() -> None:
    graph = make_graph(make_step("a"))
    for node in graph.nodes.values():
        node.state = NodeState.FINISHED
    assert deduce_objectives(graph, {var("a"): Criteria(CriteriaKind.LATENCY)}) == {}
