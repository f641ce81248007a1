"""The queue of ready requests: serving order, ageing, and finding by group and by prefix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import OrderingName, PlacementName, SchedulerConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import TaskGroupId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.orders import (
    OrderKey,
    application_order,
    arrival_order,
    ordering_of,
    topological_order,
    urgency_order,
)
from parrot_backend.core.scheduling.queue import WaitingQueue
from tests.core.audit import BLIND
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_ages, make_chain, make_objective, make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT


def make_queue(
    *requests: Request,
    ordering: Callable[[Request], OrderKey] = application_order,
    max_wait_s: float = 30.0,
) -> WaitingQueue:
    queue = WaitingQueue(ordering, make_ages(max_wait_s), min_prefix_tokens=32)
    for request in requests:
        queue.add(request)
    return queue


def ids(queue: WaitingQueue) -> list[str]:
    return [request.id for request in queue]


# --- order -----------------------------------------------------------------------------------

#: Each list is in the order it must be served in.
APPLICATION: dict[str, list[Request]] = {
    "latency, then groups, then throughput": [
        make_request("l", objective=make_objective(L), order=3),
        make_request("g", objective=make_objective(G, "s.g"), order=2),
        make_request("t", objective=make_objective(T), order=1),
    ],
    "the earlier deadline": [
        make_request("soon", objective=make_objective(L, deadline_s=5.0), order=3),
        make_request("late", objective=make_objective(L, deadline_s=9.0), order=2),
        make_request("ever", objective=make_objective(L), order=1),
    ],
    "class before deadline": [
        make_request("l", objective=make_objective(L), order=2),
        make_request("t", objective=make_objective(T, deadline_s=1.0), order=1),
    ],
    "the longer way to go": [
        make_request("far", remaining=5, order=2),
        make_request("near", remaining=1, order=1),
    ],
    "deadline before the way to go": [
        make_request("soon", objective=make_objective(L, deadline_s=5.0), remaining=0, order=2),
        make_request("far", objective=make_objective(L, deadline_s=6.0), remaining=9, order=1),
    ],
    "arrival": [make_request("a", order=1), make_request("b", order=2)],
}
TOPOLOGICAL: dict[str, list[Request]] = {
    "the older application": [
        make_request("a", session_order=1, depth=5, order=9),
        make_request("b", session_order=2, depth=0, order=1),
    ],
    "the shallower request": [
        make_request("a", session_order=1, depth=0, order=9),
        make_request("b", session_order=1, depth=3, order=1),
    ],
    "class does not count": [
        make_request("t", order=1),
        make_request("l", objective=make_objective(L), order=2),
    ],
}
URGENCY: dict[str, list[Request]] = {
    "what somebody waits for": [
        make_request("l", objective=make_objective(L), session_order=9, order=2),
        make_request("t", objective=make_objective(T), session_order=1, order=1),
    ],
    "a group is waited for like the rest": [
        make_request("g", objective=make_objective(G, "s.g"), session_order=1, order=2),
        make_request("l", objective=make_objective(L), session_order=2, order=1),
    ],
    "the earlier deadline": [
        make_request("soon", objective=make_objective(L, deadline_s=5.0), session_order=9),
        make_request("late", objective=make_objective(L, deadline_s=9.0), session_order=8),
        make_request("ever", objective=make_objective(L), session_order=1),
    ],
    "no deadline of what nobody waits for goes before": [
        make_request("l", objective=make_objective(L), session_order=2),
        make_request("t", objective=make_objective(T, deadline_s=1.0), session_order=1),
    ],
    "the older application, and in it the shallower request": [
        make_request("a", session_order=1, depth=0, order=9),
        make_request("b", session_order=1, depth=5, order=1),
        make_request("c", session_order=2, depth=0, order=2),
    ],
}
FCFS: dict[str, list[Request]] = {
    "arrival alone": [
        make_request("t", session_order=9, depth=9, order=1),
        make_request("l", objective=make_objective(L, deadline_s=1.0), remaining=9, order=2),
    ],
}
ORDERS = [
    pytest.param(ordering, requests, id=f"{name}: {case}")
    for name, ordering, cases in [
        ("application", application_order, APPLICATION),
        ("topological", topological_order, TOPOLOGICAL),
        ("urgency", urgency_order, URGENCY),
        ("fcfs", arrival_order, FCFS),
    ]
    for case, requests in cases.items()
]


def test_by_urgency_old_bulk_work_gets_its_turn_among_what_is_old() -> None:
    bulk = make_request("bulk", objective=make_objective(T), session_order=1, ready_s=0.0)
    waited = make_request("waited", objective=make_objective(L), session_order=2, ready_s=0.0)
    fresh = make_request("fresh", objective=make_objective(L), session_order=3, ready_s=9.0)
    queue = make_queue(waited, bulk, fresh, ordering=urgency_order, max_wait_s=5.0)
    queue.promote_old(10.0)
    assert ids(queue) == ["bulk", "waited", "fresh"]
    queue.update(bulk, lambda: None)
    assert ids(queue) == ["bulk", "waited", "fresh"]


@pytest.mark.parametrize(("ordering", "expected"), ORDERS)
def test_serving_order(ordering: Callable[[Request], OrderKey], expected: list[Request]) -> None:
    queue = make_queue(*reversed(expected), ordering=ordering)
    assert ids(queue) == [request.id for request in expected]


@pytest.mark.parametrize(
    ("placement", "ordering", "expected"),
    [
        ("paper", None, urgency_order),
        ("paper", "topological", topological_order),
        ("least_loaded", None, application_order),
        ("cost", None, urgency_order),
        *((name, None, arrival_order) for name in BLIND if name not in ("least_loaded", "cost")),
        ("paper", "application", application_order),
        ("fcfs", "topological", topological_order),
        ("least_loaded", "fcfs", arrival_order),
    ],
)
def test_order_that_belongs_to_a_placement(
    placement: PlacementName, ordering: OrderingName | None, expected: object
) -> None:
    assert ordering_of(SchedulerConfig(placement=placement, ordering=ordering)) is expected


# --- in and out ------------------------------------------------------------------------------


def test_new_queue_is_empty() -> None:
    assert len(make_queue()) == 0


def test_position_zero_is_the_first_to_serve() -> None:
    queue = make_queue(make_request("b", order=2), make_request("a", order=1))
    assert queue[0].id == "a"


def test_request_in_the_queue_is_found() -> None:
    request = make_request("a")
    assert request in make_queue(request)


def test_removed_request_is_gone() -> None:
    a, b = make_request("a", order=1), make_request("b", order=2)
    queue = make_queue(a, b)
    queue.remove(a)
    assert ids(queue) == ["b"]
    assert a not in queue


def test_request_that_is_not_there_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        make_queue().remove(make_request("a"))


def test_removed_request_may_come_again() -> None:
    request = make_request("a")
    queue = make_queue(request)
    queue.remove(request)
    queue.add(request)
    assert ids(queue) == ["a"]


# --- ageing ----------------------------------------------------------------------------------


def test_old_request_goes_first() -> None:
    old = make_request("old", ready_s=0.0)
    young = make_request("young", objective=make_objective(L), ready_s=25.0)
    queue = make_queue(old, young)
    queue.promote_old(30.0)
    assert ids(queue) == ["old", "young"]


def test_request_is_not_old_a_moment_before() -> None:
    old = make_request("old", ready_s=0.0)
    young = make_request("young", objective=make_objective(L), ready_s=25.0)
    queue = make_queue(old, young)
    queue.promote_old(29.9)
    assert ids(queue) == ["young", "old"]


def test_old_requests_keep_their_order_among_themselves() -> None:
    queue = make_queue(
        make_request("t", objective=make_objective(T), ready_s=0.0),
        make_request("l", objective=make_objective(L), ready_s=1.0),
        make_request("young", objective=make_objective(L), ready_s=20.0),
    )
    queue.promote_old(40.0)
    assert ids(queue) == ["l", "t", "young"]


def test_request_knows_that_it_is_old() -> None:
    old, young = make_request("old", ready_s=0.0), make_request("young", ready_s=20.0)
    queue = make_queue(old, young)
    queue.promote_old(40.0)
    assert (queue.is_old(old), queue.is_old(young)) == (True, False)


def test_old_request_that_gets_another_objective_stays_old() -> None:
    old, young = make_request("old", order=2), make_request("young", ready_s=20.0, order=1)
    queue = make_queue(old, young)
    queue.promote_old(40.0)
    queue.update(old, lambda: setattr(old, "objective", make_objective(T)))
    assert ids(queue) == ["old", "young"]


def test_request_that_comes_again_is_young_again() -> None:
    request = make_request("a")
    queue = make_queue(request)
    queue.promote_old(40.0)
    queue.remove(request)
    request.ready_s = 40.0
    queue.add(request)
    assert not queue.is_old(request)


def test_promoting_twice_changes_nothing() -> None:
    queue = make_queue(make_request("a", order=1), make_request("b", order=2))
    queue.promote_old(40.0)
    queue.promote_old(40.0)
    assert ids(queue) == ["a", "b"]


def test_removed_old_request_is_gone() -> None:
    old = make_request("old")
    queue = make_queue(old)
    queue.promote_old(40.0)
    queue.remove(old)
    assert ids(queue) == []


# --- changed objectives --------------------------------------------------------------------------


def change(queue: WaitingQueue, request: Request, objective: Objective) -> None:
    queue.update(request, lambda: setattr(request, "objective", objective))


def test_stronger_objective_moves_a_request_forward() -> None:
    a, b = make_request("a", order=1), make_request("b", order=2)
    queue = make_queue(a, b)
    change(queue, b, make_objective(L))
    assert ids(queue) == ["b", "a"]


def test_request_that_joins_a_group_is_found_there() -> None:
    request = make_request("a")
    queue = make_queue(request)
    change(queue, request, make_objective(G, "s.g"))
    assert queue.group_members(TaskGroupId("s.g")) == [request]


def test_request_that_changes_groups_is_found_in_the_new_one_only() -> None:
    request = make_request("a", objective=make_objective(G, "s.g"))
    queue = make_queue(request)
    change(queue, request, make_objective(G, "s.h"))
    assert queue.group_members(TaskGroupId("s.g")) == []
    assert queue.group_members(TaskGroupId("s.h")) == [request]


# --- groups ----------------------------------------------------------------------------------


def test_members_are_in_order_of_becoming_ready() -> None:
    requests = [
        make_request(name, objective=make_objective(G, "s.g"), order=order)
        for name, order in [("b", 2), ("a", 1), ("c", 3)]
    ]
    assert make_queue(*requests).group_members(TaskGroupId("s.g")) == requests


def test_members_of_another_group_are_not_found() -> None:
    queue = make_queue(make_request("a", objective=make_objective(G, "s.g")))
    assert queue.group_members(TaskGroupId("s.h")) == []


def test_removed_member_is_not_found() -> None:
    a = make_request("a", objective=make_objective(G, "s.g"), order=1)
    b = make_request("b", objective=make_objective(G, "s.g"), order=2)
    queue = make_queue(a, b)
    queue.remove(a)
    assert queue.group_members(TaskGroupId("s.g")) == [b]


# --- prefixes --------------------------------------------------------------------------------

COMMON = ("common", 40)


def sharing(queue: WaitingQueue, request: Request, limit: int = 10) -> tuple[list[str], int]:
    found, tokens = queue.sharing_prefix(request, limit)
    return [r.id for r in found], tokens


def test_request_alone_shares_nothing() -> None:
    request = make_request("a", prefixes=make_chain(COMMON))
    assert sharing(make_queue(request), request) == (["a"], 0)


def test_request_without_prefixes_shares_nothing() -> None:
    a, b = make_request("a"), make_request("b")
    assert sharing(make_queue(a, b), a) == (["a"], 0)


def test_requests_that_share_are_found_with_the_request_first() -> None:
    a = make_request("a", prefixes=make_chain(COMMON, ("a", 90)), order=1)
    b = make_request("b", prefixes=make_chain(COMMON, ("b", 90)), order=2)
    assert sharing(make_queue(a, b), b) == (["b", "a"], 40)


def test_longest_shared_prefix_counts() -> None:
    a = make_request("a", prefixes=make_chain(COMMON, ("more", 90), ("a", 120)))
    b = make_request("b", prefixes=make_chain(COMMON, ("more", 90), ("b", 120)))
    c = make_request("c", prefixes=make_chain(COMMON, ("c", 90)))
    assert sharing(make_queue(a, b, c), a) == (["a", "b"], 90)


def test_short_prefix_is_not_shared() -> None:
    chain = make_chain(("p", 31))
    a, b = make_request("a", prefixes=chain), make_request("b", prefixes=chain)
    assert sharing(make_queue(a, b), a) == (["a"], 0)


def test_prefix_of_the_least_length_is_shared_until_it_is_removed() -> None:
    chain = make_chain(("p", 32))
    a, b, c = (make_request(name, prefixes=chain) for name in "abc")
    queue = make_queue(a, b, c)
    assert sharing(queue, a) == (["a", "b", "c"], 32)
    queue.remove(b)
    assert sharing(queue, a) == (["a", "c"], 32)


@pytest.mark.parametrize(("limit", "number"), [(1, 1), (2, 2), (3, 3), (10, 5)])
def test_no_more_than_the_limit_share(limit: int, number: int) -> None:
    requests = [make_request(str(i), prefixes=make_chain(COMMON), order=i) for i in range(5)]
    assert len(sharing(make_queue(*requests), requests[4], limit)[0]) == number


def test_request_itself_is_among_the_limited() -> None:
    requests = [make_request(str(i), prefixes=make_chain(COMMON), order=i) for i in range(5)]
    assert sharing(make_queue(*requests), requests[4], 2) == (["4", "0"], 40)


def test_removed_request_shares_nothing() -> None:
    a = make_request("a", prefixes=make_chain(COMMON))
    b = make_request("b", prefixes=make_chain(COMMON))
    queue = make_queue(a, b)
    queue.remove(b)
    assert sharing(queue, a) == (["a"], 0)


# --- any order of operations ---------------------------------------------------------------------

_OPERATIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2)))


@examples(100)
@given(_OPERATIONS)
def test_queue_is_always_sorted_and_complete(operations: list[tuple[int, int, int]]) -> None:
    queue = make_queue(max_wait_s=10.0)
    inside: dict[str, Request] = {}
    old: set[str] = set()
    objectives = [make_objective(T), make_objective(L), make_objective(G, "s.g")]
    for now_s, (kind, number, choice) in enumerate(operations):
        name = str(number)
        if kind == 0 and name not in inside:
            inside[name] = make_request(
                name, objective=objectives[choice], order=number, ready_s=float(now_s)
            )
            queue.add(inside[name])
        elif kind == 1 and name in inside:
            queue.remove(inside.pop(name))
            old.discard(name)
        elif kind == 2 and name in inside:
            change(queue, inside[name], objectives[choice])
        elif kind == 3:
            queue.promote_old(float(now_s))
            old |= {n for n, r in inside.items() if now_s - (r.ready_s or 0.0) >= 10.0}
    expected = sorted(inside.values(), key=lambda r: (r.id not in old, *application_order(r)))
    assert ids(queue) == [r.id for r in expected]
    members = queue.group_members(TaskGroupId("s.g"))
    assert {r.id for r in members} == {n for n, r in inside.items() if r.objective.group}


# --- using an empty queue again ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("tenants", "left", "is_new"),
    [(["a"], 0, True), (["a", "a"], 1, False), (["a", "b"], 0, False), ([], 0, True)],
    ids=["empty again", "somebody waits", "accounts of tenants stay", "never used"],
)
def test_a_queue_is_as_new_when_it_is_empty_and_nobody_shares_it(
    tenants: list[str], left: int, is_new: bool
) -> None:
    queue = WaitingQueue(urgency_order, make_ages(), 32, {})
    requests = [make_request(f"r{i}", order=i) for i in range(len(tenants))]
    for request, tenant in zip(requests, tenants, strict=True):
        request.tenant = tenant
        queue.add(request)
    for request in requests[left:]:
        queue.remove(request)
    assert queue.renew() is is_new


def test_a_renewed_queue_does_not_know_who_was_there() -> None:
    queue = WaitingQueue(urgency_order, make_ages(), 32, {})
    for name in ("a", "b"):
        request = make_request(name)
        request.tenant = name
        queue.add(request)
        queue.remove(request)
        assert queue.renew()
    assert not queue.has_shares


def test_bulk_work_stands_in_front_with_an_old_one_until_somebody_waits() -> None:
    def make(name: str, run: int, ready_s: float, objective_class: ObjectiveClass) -> Request:
        objective = make_objective(objective_class)
        return make_request(name, session_order=run, ready_s=ready_s, objective=objective)

    queue = make_queue(make("old", 2, 0.0, T), make("early", 1, 20.0, T), ordering=urgency_order)
    assert queue.promote_old(30.0)
    assert [request.id for request in queue] == ["early", "old"]
    queue.add(make("chat", 3, 31.0, L))
    assert queue.promote_old(31.0)
    assert [request.id for request in queue] == ["old", "chat", "early"]
    assert not queue.promote_old(31.0)
