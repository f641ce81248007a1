"""Old requests: by their own age, or with an old one of a run that began later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.age_watch import AgeWatch
from parrot_backend.core.scheduling.orders import (
    Ordering,
    application_order,
    arrival_order,
    attained_service_order,
    critical_path_order,
    shortest_job_order,
    topological_order,
    urgency_order,
)
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_ages, make_objective, make_request

L, T = ObjectiveClass.LATENCY, ObjectiveClass.THROUGHPUT


def make(
    name: str, run: int, ready_s: float, objective_class: ObjectiveClass = L, tenant: str = "t"
) -> Request:
    objective = make_objective(objective_class)
    return make_request(
        name, session_order=run, ready_s=ready_s, objective=objective, tenant=tenant
    )


def make_watch(
    *requests: Request,
    ordering: Ordering = urgency_order,
    max_run_s: float = 600.0,
    by_tenant: bool = True,
) -> AgeWatch:
    watch = AgeWatch(ordering, make_ages(30.0, max_run_s, by_tenant=by_tenant))
    for request in requests:
        watch.add(request)
    return watch


def grown(watch: AgeWatch, now_s: float) -> list[str]:
    return [request.id for request in watch.reconsider(now_s)]


def test_a_call_of_an_early_run_does_not_wait_behind_old_ones_of_later_runs() -> None:
    first, later = make("first", 1, ready_s=0.0), make("later", 3, ready_s=1.0)
    watch = make_watch(first, later)
    assert grown(watch, 20.0) == []
    watch.remove(first)
    second, last = make("second", 1, ready_s=25.0), make("last", 4, ready_s=25.0)
    watch.add(second)
    watch.add(last)
    assert grown(watch, 30.9) == []
    assert grown(watch, 31.0) == ["later", "second"]
    assert not watch.is_old(last)
    watch.add(make("middle", 2, ready_s=32.0))
    assert grown(watch, 32.0) == ["middle"]


def test_where_nobody_is_old_any_more_others_are_not_old_with_them() -> None:
    later = make("later", 3, ready_s=0.0)
    watch = make_watch(later)
    assert grown(watch, 30.0) == ["later"]
    watch.remove(later)
    watch.add(make("second", 1, ready_s=31.0))
    assert grown(watch, 31.0) == []


@pytest.mark.parametrize(
    ("ordering", "is_old"),
    [
        (urgency_order, True),
        (critical_path_order, True),
        (shortest_job_order, True),
        (topological_order, True),
        (application_order, False),
        (arrival_order, False),
        (attained_service_order, False),
    ],
)
def test_only_orders_that_serve_runs_look_at_runs(ordering: Ordering, is_old: bool) -> None:
    watch = make_watch(make("old", 3, 0.0), make("early", 1, 20.0), ordering=ordering)
    assert grown(watch, 30.0) == ["old", "early"][: 1 + is_old]


@pytest.mark.parametrize("by_tenant", [True, False])
def test_runs_of_other_tenants_are_not_old_with_it(by_tenant: bool) -> None:
    old, early = make("old", 3, 0.0, tenant="a"), make("early", 1, 20.0, tenant="b")
    watch = make_watch(old, early, by_tenant=by_tenant)
    assert grown(watch, 30.0) == ["old", "early"][: 2 - by_tenant]


def test_bulk_work_is_old_with_others_only_where_nobody_waits() -> None:
    waited_for = make("waited for", 4, 20.0)
    watch = make_watch(make("old", 3, 0.0, T), make("early", 1, 20.0, T), waited_for)
    assert grown(watch, 30.0) == ["old"]
    watch.remove(waited_for)
    assert grown(watch, 31.0) == ["early"]


def test_bulk_work_steps_back_when_somebody_comes_to_wait() -> None:
    early = make("early", 1, 20.0, T)
    watch = make_watch(make("old", 3, 0.0, T), early)
    assert grown(watch, 30.0) == ["old", "early"]
    waited_for = make("waited for", 4, 31.0)
    watch.add(waited_for)
    assert grown(watch, 31.0) == ["early"]
    assert not watch.is_old(early)
    assert grown(watch, 50.0) == ["early"]  # by its own age
    watch.remove(waited_for)
    assert grown(watch, 50.0) == []
    assert watch.is_old(early)


def test_somebody_who_waits_is_old_with_bulk_work() -> None:
    watch = make_watch(make("old", 3, 0.0, T), make("early", 1, 20.0))
    assert grown(watch, 30.0) == ["old", "early"]


def test_where_classes_mean_nothing_bulk_work_is_like_any() -> None:
    requests = make("old", 3, 0.0), make("early", 1, 20.0, T)
    watch = make_watch(*requests, ordering=topological_order)
    assert grown(watch, 30.0) == ["old", "early"]


def test_a_run_that_goes_on_for_ever_loses_its_right() -> None:
    early = make("early", 1, 590.0)
    early.run_began_s = 10.0
    watch = make_watch(make("old", 3, 570.0), early, max_run_s=590.0)
    assert grown(watch, 600.0) == ["old"]
    watch.remove(early)
    early.run_began_s = 10.5
    watch.add(early)
    assert grown(watch, 600.0) == ["early"]


def test_what_becomes_more_urgent_may_be_old_with_others_then() -> None:
    early = make("early", 1, 20.0, T)
    watch = make_watch(make("old", 3, 0.0), early)
    assert grown(watch, 30.0) == ["old"]
    early.objective = make_objective(L)
    watch.update(early)
    assert grown(watch, 31.0) == ["early"]


def test_no_more_bulk_work_is_old_with_others_than_can_step_back_at_once() -> None:
    early = [make(f"early{number:03}", 1, 20.0, T) for number in range(300)]
    watch = make_watch(make("old", 3, 0.0, T), *early)
    first = grown(watch, 30.0)
    assert first == ["old", *(request.id for request in early[:256])]
    watch.remove(early[0])
    assert grown(watch, 30.0) == [early[256].id]


@dataclass
class Naive:
    """Looks at all requests each time."""

    queued: dict[str, Request]
    old: set[str]
    lent: set[str]

    def reconsider(self, now_s: float, max_run_s: float) -> set[str]:
        before = set(self.old)
        for name, request in self.queued.items():
            assert request.ready_s is not None
            if now_s - request.ready_s >= 30.0:
                self.old.add(name)
                self.lent.discard(name)
        for tenant in ("a", "b"):
            mine = {n: r for n, r in self.queued.items() if r.tenant == tenant}
            is_awaited = any(r.objective.objective_class is L for r in mine.values())
            if is_awaited:
                self.old -= self.lent & mine.keys()
                self.lent -= mine.keys()
            limit = max(
                ((topological_order(r), n) for n, r in mine.items() if n in self.old), default=None
            )
            for name, request in mine.items():
                is_bulk = request.objective.objective_class is T
                is_early = limit is not None and (topological_order(request), name) < limit
                has_right = now_s - request.run_began_s < max_run_s
                if is_early and has_right and not (is_bulk and is_awaited) and name not in self.old:
                    self.old.add(name)
                    self.lent |= {name} if is_bulk else set()
        return self.old ^ before


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(0, 6),  # its run
            st.booleans(),  # nobody waits for it
            st.sampled_from("ab"),
        ),
        st.tuples(st.just("remove"), st.integers(0, 100)),
        st.tuples(st.just("change"), st.integers(0, 100)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 5.0, 17.0, 31.0])),
    ),
    max_size=40,
)


@examples(200)
@given(STEPS, st.sampled_from([0.0, 60.0, 600.0]))
def test_it_is_what_looking_at_all_requests_finds(
    steps: list[tuple[Any, ...]], max_run_s: float
) -> None:
    watch = make_watch(max_run_s=max_run_s)
    naive, now_s = Naive({}, set(), set()), 0.0
    for number, (kind, value, *more) in enumerate(steps):
        names = list(naive.queued)
        if kind == "add":
            is_bulk, tenant = more
            request = make(f"r{number:02}", value, now_s, T if is_bulk else L, tenant)
            request.run_began_s = 10.0 * value
            watch.add(request)
            naive.queued[request.id] = request
        elif kind == "wait":
            now_s += value
        elif names:
            request = naive.queued[names[value % len(names)]]
            if kind == "remove":
                watch.remove(request)
                del naive.queued[request.id]
                naive.old.discard(request.id)
                naive.lent.discard(request.id)
            else:
                is_bulk = request.objective.objective_class is T
                request.objective = make_objective(L if is_bulk else T)
                watch.update(request)
                if request.id in naive.lent:
                    naive.lent.discard(request.id)
                    naive.old.discard(request.id)
        expected = naive.reconsider(now_s, max_run_s)
        assert set(grown(watch, now_s)) == expected
        assert {n for n, r in naive.queued.items() if watch.is_old(r)} == naive.old
    for request in naive.queued.values():
        watch.remove(request)
    assert len(watch) == 0
