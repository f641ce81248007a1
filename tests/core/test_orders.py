"""The orders by predicted work, by attained service, and by scarce slack."""

from __future__ import annotations

import pytest

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.orders import (
    Ordering,
    attained_service_order,
    critical_path_order,
    shortest_job_order,
    urgency_order,
)
from parrot_backend.core.scheduling.queue import WaitingQueue
from tests.helpers.builders import make_ages, make_objective, make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT


def make(
    name: str,
    place: int = 0,
    *,
    path_tokens: float = 0.0,
    job_level: int = 0,
    attained_tokens: float | None = None,
    of_class: ObjectiveClass = L,
    deadline_s: float | None = None,
    is_pressed: bool = False,
    order: int = 0,
) -> Request:
    objective = make_objective(of_class, deadline_s=deadline_s)
    request = make_request(name, session_order=place, objective=objective, order=order)
    request.path_tokens, request.job_level = path_tokens, job_level
    request.attained_tokens, request.is_pressed = attained_tokens, is_pressed
    request.token_s = 0.1
    return request


#: Each list is in the order it must be served in.
CRITICAL_PATH: dict[str, list[Request]] = {
    "what somebody waits for": [
        make("l", 9, path_tokens=1.0),
        make("t", 1, path_tokens=9.0, of_class=T),
    ],
    "the older job": [make("a", 1, path_tokens=1.0), make("b", 2, path_tokens=9.0)],
    "within a job the longer path": [
        make("far", path_tokens=200.5, order=2),
        make("near", path_tokens=200.0, order=1),
    ],
    "then arrival": [make("a", order=1), make("b", order=2)],
    "a deadline that is far away does not count": [
        make("a", 1),
        make("b", 2, deadline_s=100.0, path_tokens=10.0),
    ],
    "scarce slack first, the least of it before": [
        make("long", 9, deadline_s=20.0, path_tokens=100.0, is_pressed=True),  # from 10 on
        make("short", 2, deadline_s=15.0, path_tokens=1.0, is_pressed=True),  # from 14.9 on
        make("none", 1),
    ],
    "no deadline of bulk work counts against who is waited for": [
        make("l", 2),
        make("t", 1, of_class=T, deadline_s=1.0, is_pressed=True),
    ],
}
SHORTEST_JOB: dict[str, list[Request]] = {
    "the job with less to come": [make("b", 2, job_level=4), make("a", 1, job_level=5)],
    "of equal ones the older": [
        make("a", 1, job_level=5, path_tokens=1.0),
        make("b", 2, job_level=5, path_tokens=9.0),
    ],
    "within a job the longer path": [make("far", path_tokens=9.0), make("near", path_tokens=2.0)],
    "class first": [make("l", job_level=9), make("t", job_level=1, of_class=T)],
}
ATTAINED: dict[str, list[Request]] = {
    "the lower level": [
        make("new", attained_tokens=255.0, order=9),
        make("old", attained_tokens=256.0, order=1),
    ],
    "levels are twice as wide each": [
        make("a", attained_tokens=700.0, order=1),
        make("b", attained_tokens=300.0, order=2),
        make("c", attained_tokens=768.0, order=0),
    ],
    "what was not looked at has had nothing": [make("a"), make("b", attained_tokens=256.0)],
    "neither class nor job counts": [
        make("t", 9, of_class=T, order=1),
        make("l", 1, deadline_s=1.0, is_pressed=True, order=2),
    ],
}
CASES = [
    pytest.param(ordering, requests, id=f"{name}: {case}")
    for name, ordering, cases in [
        ("critical_path", critical_path_order, CRITICAL_PATH),
        ("shortest_job", shortest_job_order, SHORTEST_JOB),
        ("attained_service", attained_service_order, ATTAINED),
    ]
    for case, requests in cases.items()
]


def make_queue(ordering: Ordering, *requests: Request, max_wait_s: float = 30.0) -> WaitingQueue:
    queue = WaitingQueue(ordering, make_ages(max_wait_s), min_prefix_tokens=32)
    for request in requests:
        queue.add(request)
    return queue


def ids(queue: WaitingQueue) -> list[str]:
    return [request.id for request in queue]


@pytest.mark.parametrize(("ordering", "expected"), CASES)
def test_serving_order(ordering: Ordering, expected: list[Request]) -> None:
    for queued in (expected, expected[::-1]):
        assert ids(make_queue(ordering, *queued)) == [request.id for request in expected]


@pytest.mark.parametrize("ordering", [critical_path_order, shortest_job_order])
def test_what_is_old_is_served_by_arrival_of_its_job(ordering: Ordering) -> None:
    large, small = make("large", 1, job_level=20), make("small", 2, job_level=1)
    queue = make_queue(ordering, small, large, max_wait_s=5.0)
    assert ids(queue) == ["small", "large"] if ordering is shortest_job_order else True
    queue.promote_old(5.0)
    assert ids(queue) == ["large", "small"]


# --- slack ---------------------------------------------------------------------------------------


def test_a_request_is_pressed_from_when_twice_its_path_is_left() -> None:
    first, due = make("first", 1), make("due", 2, deadline_s=20.0, path_tokens=40.0)  # 4 s
    queue = make_queue(critical_path_order, first, due)
    queue.promote_old(11.9)
    assert ids(queue) == ["first", "due"]
    queue.promote_old(12.0)
    assert ids(queue) == ["due", "first"]
    assert due.is_pressed


def test_a_deadline_that_comes_while_a_request_waits_is_watched() -> None:
    first, due = make("first", 1), make("due", 2)
    queue = make_queue(critical_path_order, first, due)
    with_deadline = make_objective(L, deadline_s=5.0)
    queue.update(due, lambda: setattr(due, "objective", with_deadline))
    queue.promote_old(5.0)
    assert ids(queue) == ["due", "first"]


def test_a_path_that_has_become_longer_is_pressed_earlier() -> None:
    first, due = make("first", 1), make("due", 2, deadline_s=20.0, path_tokens=10.0)  # from 18 on
    queue = make_queue(critical_path_order, first, due)
    queue.update(due, lambda: setattr(due, "path_tokens", 50.0))  # from 10 on
    queue.promote_old(10.0)
    assert ids(queue) == ["due", "first"]


def test_who_left_is_not_pressed_and_not_remembered() -> None:
    due = make("due", 2, deadline_s=20.0)
    queue = make_queue(critical_path_order, due)
    queue.remove(due)
    queue.promote_old(25.0)
    assert not due.is_pressed
    assert queue._slack._due_s == {}
    assert queue._slack._sorted == []


def test_orders_with_deadlines_of_their_own_are_as_they_were() -> None:
    late = make("late", 1, deadline_s=90.0)
    soon = make("soon", 2, deadline_s=20.0, path_tokens=1000.0)
    queue = make_queue(urgency_order, late, soon)
    queue.promote_old(1.0)
    assert ids(queue) == ["soon", "late"]
