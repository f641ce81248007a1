"""Fairness between tenants: shares of service, whatever arrives, and whoever pauses."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.fairness import expected_service
from parrot_backend.core.scheduling.orders import (
    Ordering,
    arrival_order,
    shortest_job_order,
    topological_order,
    urgency_order,
)
from parrot_backend.core.scheduling.queue import WaitingQueue
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_ages, make_objective, make_request

L, T = ObjectiveClass.LATENCY, ObjectiveClass.THROUGHPUT
EQUAL: Mapping[str, float] = {}


def make_queue(
    *requests: Request,
    weights: Mapping[str, float] | None = EQUAL,
    ordering: Ordering = urgency_order,
    max_wait_s: float = 30.0,
) -> WaitingQueue:
    queue = WaitingQueue(ordering, make_ages(max_wait_s), min_prefix_tokens=32, weights=weights)
    for request in requests:
        queue.add(request)
    return queue


class Arrivals:
    """Makes requests in order of arrival; a name begins with its tenant's letter."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(
        self, tenant: str, tokens: int = 100, of_class: ObjectiveClass = L, ready_s: float = 0.0
    ) -> Request:
        self.number += 1
        return make_request(
            f"{tenant}{self.number}",
            order=self.number,
            session_order=self.number,
            need_tokens=tokens + 16,
            max_tokens=16,
            objective=make_objective(of_class),
            tenant=tenant,
            ready_s=ready_s,
        )


def serve(queue: WaitingQueue, number: int = 1, position: int = 0) -> list[str]:
    """Serve so many requests from a position on, as the scheduler does; return their ids."""
    served = []
    for _ in range(number):
        request = queue[position]
        if queue.has_shares:
            queue.serve(request, expected_service(request))
        queue.remove(request)
        served.append(str(request.id))
    return served


def tenants(ids: Sequence[str]) -> str:
    return "".join(name[0] for name in ids)


def test_two_tenants_take_turns() -> None:
    arrive = Arrivals()
    queue = make_queue(*[arrive("a") for _ in range(6)], *[arrive("b") for _ in range(3)])
    assert tenants([r.id for r in queue]) == "abababaaa"
    assert tenants(serve(queue, 9)) == "abababaaa"


def test_without_shares_all_are_one() -> None:
    arrive = Arrivals()
    requests = [*[arrive("a") for _ in range(3)], *[arrive("b") for _ in range(3)]]
    queue = make_queue(*requests, weights=None)
    assert tenants(serve(queue, 6)) == "aaabbb"


def test_one_tenant_keeps_no_account() -> None:
    arrive = Arrivals()
    queue = make_queue(*[arrive("a") for _ in range(3)])
    assert not queue.has_shares


def test_shares_are_in_tokens() -> None:
    arrive = Arrivals()
    queue = make_queue(*[arrive("a", 384) for _ in range(4)], *[arrive("b", 84) for _ in range(12)])
    served = serve(queue, 10)
    assert Counter(tenants(served)) == {"a": 2, "b": 8}


def test_a_weight_of_three_gets_three_quarters() -> None:
    arrive = Arrivals()
    requests = [arrive(tenant) for _ in range(40) for tenant in "ab"]
    served = serve(make_queue(*requests, weights={"a": 3.0}), 40)
    assert Counter(tenants(served)) == {"a": 30, "b": 10}


def test_a_pause_earns_no_credit() -> None:
    arrive = Arrivals()
    queue = make_queue(*[arrive("a") for _ in range(50)], arrive("b"))
    serve(queue, 40)
    for _ in range(10):
        queue.add(arrive("b"))
    assert Counter(tenants(serve(queue, 10))) == {"a": 5, "b": 5}


def test_who_was_served_much_does_not_get_rid_of_it_by_a_pause() -> None:
    arrive = Arrivals()
    queue = make_queue(arrive("a", 984), *[arrive("b") for _ in range(30)])
    serve(queue, 3)  # b and a, and b again
    queue.add(arrive("a"))
    assert tenants(serve(queue, 7)) == "bbbbbbb"


def test_who_took_less_than_charged_comes_back_at_the_present() -> None:
    arrive = Arrivals()
    asked = arrive("a", 984)
    queue = make_queue(*[arrive("b") for _ in range(30)], asked)
    assert tenants(serve(queue, 4)) == "abbb"
    queue.settle(asked, 10.0)
    queue.add(arrive("a"))
    assert "a" in tenants(serve(queue, 2))


@pytest.mark.parametrize(("took", "share"), [(1.0, 48), (116.0, 48), (1000.0, 48)])
def test_shares_are_of_what_was_used_and_not_of_what_was_forecast(took: float, share: int) -> None:
    arrive = Arrivals()
    requests = {r.id: r for r in (arrive(tenant, 984) for _ in range(70) for tenant in "ab")}
    queue = make_queue(*requests.values(), weights={"a": 3.0})
    running: deque[Request] = deque()
    served: list[Request] = []
    for _ in range(64):
        running.append(queue[0])
        served.append(queue[0])
        serve(queue)
        if len(running) == 4:
            queue.settle(running.popleft(), took)
    num_a = sum(request.tenant == "a" for request in served)
    assert abs(num_a - share) <= 4  # as many as run


def test_who_came_back_gets_no_credit_for_what_ran_before() -> None:
    arrive = Arrivals()
    asked = arrive("a", 984)
    queue = make_queue(*[arrive("b") for _ in range(60)], asked)
    assert tenants(serve(queue, 5)) == "abbbb"
    queue.add(arrive("a"))
    queue.settle(asked, 10.0)
    for _ in range(9):
        queue.add(arrive("a"))
    assert Counter(tenants(serve(queue, 10))) == {"a": 5, "b": 5}


@examples(100)
@given(
    st.lists(st.sampled_from([0.0, 10.0, 116.0, 1000.0]), min_size=1, max_size=60),
    st.tuples(*[st.sampled_from([0.5, 1.0, 4.0])] * 2),
)
def test_what_two_that_wait_used_differs_by_a_bound(
    took: list[float], weights: tuple[float, float]
) -> None:
    """Whatever requests take in the end, none of it foreseen, shares are of what they took."""
    arrive = Arrivals()
    requests = [arrive(tenant) for _ in range(len(took) + 1) for tenant in "ab"]
    queue = make_queue(*requests, weights=dict(zip("ab", weights, strict=True)))
    used = {"a": 0.0, "b": 0.0}
    for tokens in took:
        first = queue[0]
        serve(queue)
        queue.settle(first, tokens)
        used[first.tenant] += tokens
    ahead = used["a"] / weights[0] - used["b"] / weights[1]
    assert -1000.0 / weights[1] - 1e-6 <= ahead <= 1000.0 / weights[0] + 1e-6


def test_a_class_goes_before_any_share() -> None:
    arrive = Arrivals()
    bulk = [arrive("b", of_class=T) for _ in range(3)]
    queue = make_queue(*bulk, *[arrive("a") for _ in range(4)])
    assert tenants(serve(queue, 7)) == "aaaabbb"


def test_each_class_has_accounts_of_its_own() -> None:
    arrive = Arrivals()
    bulk = [arrive(tenant, of_class=T) for _ in range(4) for tenant in "ab"]
    urgent = [arrive("a") for _ in range(9)]
    queue = make_queue(*bulk, *urgent)
    serve(queue, 9)
    assert tenants(serve(queue, 8)) == "abababab"


def test_within_a_tenant_its_own_order_holds() -> None:
    arrive = Arrivals()
    large, other, small = arrive("a"), arrive("b"), arrive("a")
    large.job_level, other.job_level, small.job_level = 9, 5, 2
    queue = make_queue(large, other, small, ordering=shortest_job_order)
    assert [r.id for r in queue] == [small.id, other.id, large.id]


def test_a_flood_that_has_become_old_goes_before_no_other_tenant() -> None:
    arrive = Arrivals()
    queue = make_queue(*[arrive("a") for _ in range(20)], max_wait_s=5.0)
    queue.promote_old(10.0)
    late = [arrive("b", ready_s=10.0) for _ in range(5)]
    for request in late:
        queue.add(request)
    assert Counter(tenants(serve(queue, 10))) == {"a": 5, "b": 5}


def test_old_bulk_work_is_served_beside_what_others_wait_for() -> None:
    arrive = Arrivals()
    queue = make_queue(arrive("b", of_class=T), *[arrive("a") for _ in range(9)], max_wait_s=5.0)
    queue.promote_old(10.0)
    assert "b" in tenants(serve(queue, 2))


@pytest.mark.parametrize(
    ("size", "tokens", "expected"),
    [
        (100, 116.0, "bababa"),
        (100, 1016.0, "bbbbbb"),
        (100, None, "bababa"),
        (984, 1000.0, "bbbbbb"),
        (984, 116.0, "bababa"),
        (984, None, "bbbbbb"),
    ],
)
def test_what_a_request_took_in_the_end_counts(
    size: int, tokens: float | None, expected: str
) -> None:
    arrive = Arrivals()
    first = arrive("a", size)
    queue = make_queue(first, *[arrive("a") for _ in range(9)], *[arrive("b") for _ in range(9)])
    assert serve(queue) == [first.id]
    queue.settle(first, tokens)
    assert tenants(serve(queue, 6)) == expected


def test_another_try_is_not_charged_twice() -> None:
    arrive = Arrivals()
    queue = make_queue(*[arrive("a") for _ in range(5)], *[arrive("b") for _ in range(5)])
    for _ in range(4):
        first = queue[0] if queue[0].tenant == "a" else queue[1]
        queue.serve(first, 116.0)
        queue.remove(first)
        queue.add(first)
    assert tenants(serve(queue, 4)) in ("baba", "baab")


def test_accounts_of_those_who_are_gone_are_forgotten() -> None:
    arrive = Arrivals()
    queue = make_queue(*[arrive("a") for _ in range(400)])
    for number in range(300):
        request = arrive(chr(200 + number))
        queue.add(request)
        served = []
        while request in queue:
            first = queue[0]
            served += serve(queue)
            queue.settle(first, 116.0)
        assert len(served) <= 2
    lineup = queue._lineup
    (lanes,) = lineup._classes.values()  # type: ignore[attr-defined]
    assert len(lanes._starts) <= 3
    assert len(lanes._charged) == 0
    assert len(lanes._idle) <= 3


# --- whatever arrives ----------------------------------------------------------------------------

_STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.sampled_from([16, 100, 1000])),
    max_size=60,
)


@examples(200)
@given(
    _STEPS,
    st.sampled_from([urgency_order, topological_order, arrival_order, shortest_job_order]),
    st.tuples(*[st.sampled_from([0.5, 1.0, 4.0])] * 2),
)
def test_services_of_two_that_wait_differ_by_a_bound(
    steps: list[tuple[str, int, int]], ordering: Ordering, shares: tuple[float, float]
) -> None:
    """Tenants a and b always have requests; c comes and goes. Over any time, for any sizes."""
    arrive, weights = Arrivals(), {"a": shares[0], "b": shares[1]}
    queue = make_queue(weights=weights, ordering=ordering)
    had: dict[str, list[float]] = defaultdict(lambda: [0.0])
    for tenant, number, tokens in [("a", 3, 100), ("b", 3, 100), *steps]:
        for _ in range(number):
            queue.add(arrive(tenant, tokens))
        for each in "ab":  # neither ever runs out
            while sum(r.tenant == each for r in queue) < 3:
                queue.add(arrive(each, tokens))
        first = queue[0]
        for each in "abc":
            share = expected_service(first) / weights.get(each, 1.0) if first.tenant == each else 0
            had[each].append(had[each][-1] + share)
        serve(queue)
    largest = 1000.0 + 16
    bound = largest / shares[0] + largest / shares[1]
    ahead = [a - b for a, b in zip(had["a"], had["b"], strict=True)]
    assert max(ahead) - min(ahead) <= bound + 1e-6


@examples(100)
@given(_STEPS, st.sampled_from([urgency_order, topological_order, arrival_order]))
def test_nobody_starves(steps: list[tuple[str, int, int]], ordering: Ordering) -> None:
    """A small tenant's request is served soon, however many come of the others, of any class."""
    arrive = Arrivals()
    queue = make_queue(*[arrive("a", 100) for _ in range(50)], ordering=ordering, max_wait_s=10.0)
    ours = arrive("z", 100, T)
    queue.add(ours)
    now_s, num_served = 0.0, 0
    for tenant, number, _ in steps * 40:
        now_s += 1.0
        queue.promote_old(now_s)
        for _ in range(number):
            queue.add(arrive(tenant, 100, ready_s=now_s))
        num_served += 1
        if serve(queue) == [ours.id]:
            break
    else:
        if steps:
            raise AssertionError("it was never served")
    # It is old after ten rounds; then each of the three others goes before it once at most.
    assert num_served <= 10 + 1 + 3


@examples(100)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abcd"), st.integers(0, 9))))
def test_positions_tell_the_order_in_which_all_are_served(
    operations: list[tuple[int, str, int]],
) -> None:
    arrive = Arrivals()
    queue = make_queue(arrive("a"), arrive("b"), max_wait_s=10.0)
    for now, (operation, tenant, number) in enumerate(operations):
        queue.promote_old(float(now))
        if operation < 3:
            of_class = T if operation == 2 else L
            queue.add(arrive(tenant, 50 * number, of_class, ready_s=float(now)))
        elif len(queue):
            position = number % len(queue)
            if operation == 3:
                queue.remove(queue[position])
            else:
                serve(queue, position=position)
    foreseen = [request.id for request in queue]
    assert len({*foreseen}) == len(foreseen) == len(queue)
    assert [queue[i].id for i in range(len(queue))] == foreseen
    assert serve(queue, len(queue)) == foreseen
