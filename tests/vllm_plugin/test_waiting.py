"""Serving order of waiting requests: tables, a brute-force model, and the account of tenants."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core import waiting as waiting_module
from parrot_backend.core.waiting import WaitingOptions, WaitingRequests
from parrot_backend.vllm_plugin.hints import Hints, RequestClass
from tests.core.hypothesis_settings import examples

L, G, T, F = RequestClass

Given = tuple[str, Hints]


def make_waiting(*requests: Given, max_wait_s: float = 30.0) -> WaitingRequests[str]:
    """Return the requests waiting; they arrived one second after the other."""
    waiting: WaitingRequests[str] = WaitingRequests(WaitingOptions(max_wait_s))
    for arrival_s, (name, hints) in enumerate(requests):
        waiting.add(name, hints, float(arrival_s))
    return waiting


def pop_all(waiting: WaitingRequests[str]) -> list[str]:
    return [waiting.pop() for _ in range(len(waiting))]


def first_hints(waiting: WaitingRequests[Any]) -> Hints:
    hints = waiting._entries[waiting.first()].hints
    assert isinstance(hints, Hints)
    return hints


def admit(waiting: WaitingRequests[str], tokens: int = 100) -> str:
    hints = first_hints(waiting)
    item = waiting.pop()
    waiting.note_admitted(hints, tokens)
    return item


# --- order -----------------------------------------------------------------------------------

#: Case -> requests in order of arrival, and the expected order.
ORDERS: dict[str, tuple[list[Given], str]] = {
    "arrival": ([("a", Hints()), ("b", Hints())], "ab"),
    "class": ([("f", Hints(F)), ("t", Hints(T)), ("g", Hints(G)), ("l", Hints(L))], "lgtf"),
    "earliest deadline, none last": (
        [("n", Hints()), ("l", Hints(deadline_s=9.0)), ("s", Hints(deadline_s=5.0))],
        "sln",
    ),
    "class before deadline": ([("t", Hints(T, deadline_s=1.0)), ("l", Hints(L))], "lt"),
    "longest path": ([("a", Hints(path_length=1)), ("b", Hints(path_length=4))], "ba"),
    "deadline before path": (
        [("a", Hints(deadline_s=9.0, path_length=5)), ("b", Hints(deadline_s=8.0))],
        "ba",
    ),
    "members together": (
        [("a", Hints(G, group="g")), ("b", Hints(G, group="h")), ("c", Hints(G, group="g"))],
        "acb",
    ),
    "a group goes by its longest path": (
        [
            ("a", Hints(G, group="g", path_length=1)),
            ("b", Hints(G, group="h", path_length=2)),
            ("c", Hints(G, group="g", path_length=3)),
        ],
        "acb",
    ),
    "a group between others": (
        [("a", Hints()), ("b", Hints(group="g")), ("c", Hints()), ("d", Hints(group="g"))],
        "abdc",
    ),
    "members of different classes": (
        [("a", Hints(T, group="g")), ("b", Hints(T)), ("c", Hints(L, group="g"))],
        "cab",
    ),
    "members with different deadlines": (
        [
            ("a", Hints(G, group="g", deadline_s=2.0)),
            ("b", Hints(G, group="h", deadline_s=1.0)),
            ("c", Hints(G, group="g", deadline_s=0.0)),
        ],
        "cba",
    ),
    "deadline beats fairness": (
        [("a", Hints(tenant="x")), ("b", Hints(tenant="y", deadline_s=1.0))],
        "ba",
    ),
    "tenants with equal accounts": (
        [("a", Hints(tenant="y")), ("b", Hints(tenant="x", path_length=1))],
        "ba",
    ),
}


@pytest.mark.parametrize(("requests", "expected"), ORDERS.values(), ids=ORDERS.keys())
def test_serving_order(requests: list[Given], expected: str) -> None:
    waiting = make_waiting(*requests)
    assert list(waiting) == list(expected)
    assert pop_all(waiting) == list(expected)


def test_order_of_adding_decides_between_equal_arrivals() -> None:
    waiting: WaitingRequests[str] = WaitingRequests(WaitingOptions())
    for name in "bca":
        waiting.add(name, Hints(), 1.0)
    assert list(waiting) == ["b", "c", "a"]


def test_preempted_request_comes_back_to_its_place() -> None:
    waiting = make_waiting(("a", Hints()), ("b", Hints()))
    waiting.add(waiting.pop(), Hints(), 0.0)
    assert list(waiting) == ["a", "b"]


# --- groups that have begun ------------------------------------------------------------------


def test_group_that_has_begun_goes_before_longer_paths() -> None:
    waiting = make_waiting(("a", Hints(G, group="g")), ("b", Hints(G, path_length=9)))
    waiting.note_admitted(Hints(G, group="g"), 1)
    assert list(waiting) == ["a", "b"]


def test_members_follow_one_that_was_popped_before_it_is_noted_as_admitted() -> None:
    waiting = make_waiting(
        ("a", Hints(group="g", path_length=3)),
        ("b", Hints(group="h", path_length=2)),
        ("c", Hints(group="g", path_length=1)),
    )
    assert pop_all(waiting) == ["a", "c", "b"]


def test_longer_path_goes_first_among_groups_that_have_begun() -> None:
    waiting = make_waiting(("a", Hints(group="g")), ("b", Hints(group="h", path_length=1)))
    waiting.note_admitted(Hints(group="g"), 1)
    waiting.note_admitted(Hints(group="h"), 1)
    assert list(waiting) == ["b", "a"]


def test_member_that_comes_late_or_comes_back_follows_its_group() -> None:
    waiting = make_waiting(("a", Hints(G, group="g")), ("b", Hints(G, path_length=9)))
    waiting.remove("a")
    waiting.note_admitted(Hints(G, group="g"), 1)
    waiting.add("late", Hints(G, group="g"), 50.0)
    assert list(waiting) == ["late", "b"]


def test_class_goes_before_groups_that_have_begun() -> None:
    waiting = make_waiting(("a", Hints(T, group="g")), ("b", Hints(L)))
    waiting.note_admitted(Hints(T, group="g"), 1)
    assert list(waiting) == ["b", "a"]


def test_groups_that_began_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "_MAX_BEGUN_GROUPS", 2)
    waiting = make_waiting(("a", Hints()), *((name, Hints(group=name)) for name in "ghi"))
    for name in "ghgi":
        waiting.note_admitted(Hints(group=name), 1)
    assert list(waiting) == ["g", "i", "a", "h"]


# --- prefix groups ---------------------------------------------------------------------------


def test_requests_that_share_with_the_last_admitted_follow_it() -> None:
    waiting = make_waiting(
        *((name, Hints(prefix_group=prefix)) for name, prefix in zip("abcd", "pqpq", strict=True))
    )
    assert [admit(waiting) for _ in range(4)] == ["a", "c", "b", "d"]


def test_sharing_counts_among_equal_paths_only() -> None:
    waiting = make_waiting(
        ("a", Hints(path_length=2)), ("b", Hints()), ("c", Hints(prefix_group="p"))
    )
    waiting.note_admitted(Hints(prefix_group="p"), 1)
    assert list(waiting) == ["a", "c", "b"]


def test_sharing_does_not_count_within_groups() -> None:
    waiting = make_waiting(("a", Hints()), ("b", Hints(group="g", prefix_group="p")))
    waiting.note_admitted(Hints(prefix_group="p"), 1)
    assert list(waiting) == ["a", "b"]


def test_sharing_goes_before_groups_that_have_not_begun() -> None:
    waiting = make_waiting(("a", Hints(group="g")), ("b", Hints(prefix_group="p")))
    waiting.note_admitted(Hints(prefix_group="p"), 1)
    assert list(waiting) == ["b", "a"]


def test_request_without_a_prefix_group_ends_the_run() -> None:
    waiting = make_waiting(("a", Hints()), ("b", Hints(prefix_group="p")))
    waiting.note_admitted(Hints(prefix_group="p"), 1)
    waiting.note_admitted(Hints(), 1)
    assert list(waiting) == ["a", "b"]


# --- tenants ---------------------------------------------------------------------------------


def by_tenant(*names: str) -> list[Given]:
    """Return requests whose tenant is the first letter of their name."""
    return [(name, Hints(tenant=name[0])) for name in names]


def test_tenants_take_turns() -> None:
    waiting = make_waiting(*by_tenant("x1", "x2", "x3", "y1", "y2"))
    assert [admit(waiting) for _ in range(5)] == ["x1", "y1", "x2", "y2", "x3"]


def test_turns_count_by_tokens() -> None:
    waiting = make_waiting(*by_tenant("x1", "x2", "y1", "y2", "y3"))
    assert admit(waiting, 250) == "x1"
    assert [admit(waiting) for _ in range(4)] == ["y1", "y2", "y3", "x2"]


def test_tenant_that_appears_anew_has_no_credit() -> None:
    waiting = make_waiting(*by_tenant("x1", "x2", "x3", "z1", "z2", "z3"))
    assert [admit(waiting) for _ in range(4)] == ["x1", "z1", "x2", "z2"]
    for arrival_s, (name, hints) in enumerate(by_tenant("y1", "y2", "y3"), start=10):
        waiting.add(name, hints, float(arrival_s))
    assert [admit(waiting) for _ in range(5)] == ["x3", "z3", "y1", "y2", "y3"]


def test_debt_is_not_forgiven_by_a_short_absence() -> None:
    waiting = make_waiting(*by_tenant("x1", "y1", "y2"))
    assert admit(waiting, 1000) == "x1"
    waiting.add("x2", Hints(tenant="x"), 0.0)
    assert list(waiting) == ["y1", "y2", "x2"]


def test_tenant_that_comes_back_has_no_credit_either() -> None:
    waiting = make_waiting(*by_tenant("x1", "y1", "y2", "y3"))
    assert [admit(waiting) for _ in range(3)] == ["x1", "y1", "y2"]
    waiting.add("x2", Hints(tenant="x"), 9.0)
    assert list(waiting) == ["y3", "x2"]


def test_service_moves_tenants_that_are_not_first() -> None:
    waiting = make_waiting(*by_tenant("x1", "y1", "z1"))
    waiting.note_admitted(Hints(tenant="y"), 100)
    assert list(waiting) == ["x1", "z1", "y1"]


@pytest.mark.parametrize("foremost", ["x1", "y1"])
def test_accounts_start_anew_when_none_waits(foremost: str) -> None:
    waiting = make_waiting(*by_tenant("x1", "y1"))
    waiting.update(foremost, Hints(tenant=foremost[0], path_length=1))
    admit(waiting, 1000)
    admit(waiting, 1000)
    waiting.add("y2", Hints(tenant="y"), 2.0)
    waiting.add("x2", Hints(tenant="x"), 1.0)
    waiting.add("z2", Hints(tenant="z"), 0.0)
    assert list(waiting) == ["z2", "x2", "y2"]


def test_service_of_one_class_does_not_count_in_another() -> None:
    waiting = make_waiting(*by_tenant("x1", "y1"))
    waiting.add("x2", Hints(L, tenant="x"), 9.0)
    waiting.add("y2", Hints(L, tenant="y"), 9.0)
    assert admit(waiting, 1000) == "x2"
    assert list(waiting) == ["y2", "x1", "y1"]


def test_ageing_and_updates_keep_the_account() -> None:
    waiting = make_waiting(*by_tenant("x1", "x2", "y1"))
    assert admit(waiting, 500) == "x1"
    waiting.update("y1", Hints(tenant="y", deadline_s=math.inf))
    waiting.promote_old(31.0)
    assert waiting.pop() == "x2"
    waiting.add("x3", Hints(tenant="x"), 1.5)
    waiting.add("y2", Hints(tenant="y"), 21.0)
    assert list(waiting) == ["y1", "y2", "x3"]


# --- ageing ----------------------------------------------------------------------------------


def test_old_requests_go_first_by_arrival() -> None:
    waiting = make_waiting(
        ("t", Hints(T)), ("l", Hints(L, deadline_s=0.0)), ("young", Hints(L, deadline_s=0.0))
    )
    waiting.promote_old(31.0)
    assert list(waiting) == ["t", "l", "young"]


def test_request_is_not_old_a_moment_before() -> None:
    waiting = make_waiting(("t", Hints(T)), ("l", Hints(L)))
    waiting.promote_old(29.9)
    assert list(waiting) == ["l", "t"]


def test_fill_never_ages() -> None:
    waiting = make_waiting(("f", Hints(F)), ("t", Hints(T)))
    waiting.promote_old(1000.0)
    waiting.add("new", Hints(T), 1000.0)
    assert list(waiting) == ["t", "new", "f"]


def test_old_request_that_becomes_fill_is_old_no_longer() -> None:
    waiting = make_waiting(("a", Hints(T)), ("b", Hints(T)))
    waiting.promote_old(30.0)
    waiting.update("a", Hints(F))
    assert list(waiting) == ["b", "a"]
    waiting.update("a", Hints(T))
    waiting.promote_old(30.0)
    assert list(waiting) == ["a", "b"]


def test_old_request_stays_old_through_other_changes() -> None:
    waiting = make_waiting(("a", Hints(T)), ("b", Hints(L)))
    waiting.promote_old(30.0)
    waiting.update("a", Hints(G, group="g"))
    assert list(waiting) == ["a", "b"]


def test_age_counts_from_the_last_wait_and_order_from_arrival() -> None:
    waiting: WaitingRequests[str] = WaitingRequests(WaitingOptions(max_wait_s=30.0))
    waiting.add("again", Hints(T), 0.0, since_s=50.0)
    waiting.add("t", Hints(T), 40.0)
    waiting.add("l", Hints(L), 70.0, since_s=None)
    assert list(waiting) == ["l", "again", "t"]
    waiting.promote_old(70.0)
    assert list(waiting) == ["t", "l", "again"]
    waiting.update("again", Hints(G))
    waiting.promote_old(79.9)
    assert list(waiting) == ["t", "l", "again"]
    waiting.promote_old(80.0)
    assert list(waiting) == ["again", "t", "l"]


# --- in and out ------------------------------------------------------------------------------


def test_nothing_waits_at_first() -> None:
    waiting = make_waiting()
    assert not waiting
    assert list(waiting) == []
    for look in (waiting.first, waiting.pop):
        with pytest.raises(IndexError):
            look()


def test_first_is_what_is_popped() -> None:
    hints = Hints(L, name="b")
    waiting = make_waiting(("a", Hints()), ("b", hints))
    assert waiting.first() == "b"
    assert first_hints(waiting) is hints
    assert waiting.pop() == "b"
    assert "b" not in waiting
    assert len(waiting) == 1


def test_removing_tells_whether_it_was_there() -> None:
    waiting = make_waiting(("a", Hints()))
    assert waiting.remove("a")
    assert not waiting.remove("a")


def test_request_that_is_added_twice_is_replaced() -> None:
    waiting = make_waiting(("a", Hints(group="g")), ("a", Hints(group="h")))
    assert list(waiting) == ["a"]


def test_update_moves_a_request_and_keeps_its_arrival() -> None:
    waiting = make_waiting(("a", Hints(F)), ("b", Hints()), ("c", Hints(group="g")))
    waiting.update("a", Hints())
    waiting.update("c", Hints(L, group="g"))
    assert list(waiting) == ["c", "a", "b"]


def test_update_of_what_does_not_wait_has_no_effect() -> None:
    waiting = make_waiting()
    waiting.update("a", Hints())
    assert "a" not in waiting


# --- against a model -------------------------------------------------------------------------


@dataclass
class _Waiting:
    hints: Hints
    arrival: tuple[float, int]
    since_s: float
    is_old: bool = False


@dataclass
class _Model:
    """The order by definition: one sort, with everything found out anew each time."""

    waiting: dict[int, _Waiting] = field(default_factory=dict)
    served: dict[tuple[RequestClass, str], int] = field(default_factory=dict)
    begun: set[str | None] = field(default_factory=set)
    prefix_group: str | None = None

    def tenants(self, request_class: RequestClass) -> set[str]:
        all_hints = [w.hints for w in self.waiting.values()]
        return {hints.tenant for hints in all_hints if hints.request_class is request_class}

    def join(self, hints: Hints) -> None:
        """Open the account of a tenant before its request is put in."""
        present = self.tenants(hints.request_class)
        if hints.tenant not in present:
            account = (hints.request_class, hints.tenant)
            least = min((self.served[hints.request_class, t] for t in present), default=0)
            self.served[account] = max(self.served.get(account, 0), least)

    def close(self) -> None:
        """Forget the accounts of classes of which none waits."""
        for request_class, tenant in list(self.served):
            if not self.tenants(request_class):
                del self.served[request_class, tenant]

    def admit(self, hints: Hints, tokens: int) -> None:
        account = (hints.request_class, hints.tenant)
        if self.tenants(hints.request_class):
            self.served[account] = self.served.get(account, 0) + tokens
        self.prefix_group = hints.prefix_group
        if hints.group is not None:
            self.begun.add(hints.group)

    def order(self) -> list[int]:
        return sorted(self.waiting, key=self._key)

    def _unit(self, number: int) -> list[_Waiting]:
        """Return what goes together with a request, and itself."""
        own = self.waiting[number]
        if own.hints.group is None:
            return [own]
        return [w for w in self._lane(own) if w.hints.group == own.hints.group]

    def _lane(self, own: _Waiting) -> list[_Waiting]:
        return [
            w
            for w in self.waiting.values()
            if not w.is_old
            and w.hints.request_class is own.hints.request_class
            and w.hints.deadline_s == own.hints.deadline_s
            and w.hints.tenant == own.hints.tenant
        ]

    def _unit_key(self, unit: list[_Waiting]) -> tuple[object, ...]:
        longest = max(w.hints.path_length for w in unit)
        return (unit[0].hints.group not in self.begun, -longest)

    def _key(self, number: int) -> tuple[object, ...]:
        own = self.waiting[number]
        if own.is_old:
            return (0, own.arrival)
        hints, unit = own.hints, self._unit(number)
        is_favoured = hints.group is None and hints.prefix_group is not None
        is_favoured = is_favoured and hints.prefix_group == self.prefix_group
        units = [self._unit(n) for n, w in self.waiting.items() if w in self._lane(own)]
        foremost = min((*self._unit_key(u), min(w.arrival for w in u)) for u in units)
        return (
            1,
            hints.request_class,
            math.inf if hints.deadline_s is None else hints.deadline_s,
            self.served[hints.request_class, hints.tenant],
            foremost,
            *self._unit_key(unit),
            not is_favoured,
            min(w.arrival for w in unit),
            own.arrival,
        )


_MAX_WAIT_S = 8.0
_Operation = tuple[str, int, Hints, int]

_ANY = st.builds(
    Hints,
    request_class=st.sampled_from(RequestClass) | st.just(T),
    deadline_s=st.none() | st.none() | st.sampled_from([1.0, 2.0]),
    group=st.none() | st.sampled_from("gh"),
    path_length=st.integers(0, 2),
    prefix_group=st.none() | st.sampled_from("pq"),
    tenant=st.sampled_from("xy"),
)
_ONE_TENANT = _ANY.map(lambda hints: replace(hints, tenant="x"))
_ONLY_TENANTS = st.builds(Hints, tenant=st.sampled_from("xyz"))


def _operations(hints: st.SearchStrategy[Hints]) -> st.SearchStrategy[list[_Operation]]:
    kinds = ["add", "add", "add", "pop", "skip", "remove", "update", "age", "admit"]
    operation = st.tuples(st.sampled_from(kinds), st.integers(0, 7), hints, st.integers(0, 6))
    return st.lists(operation, min_size=5, max_size=40)


@examples(300)
@given(st.one_of(_operations(_ANY), _operations(_ONE_TENANT), _operations(_ONLY_TENANTS)))
def test_order_is_always_that_of_the_model(operations: list[_Operation]) -> None:
    waiting: WaitingRequests[int] = WaitingRequests(WaitingOptions(_MAX_WAIT_S))
    model = _Model()
    for now_s, (kind, number, hints, amount) in enumerate(operations):
        if kind == "add":
            arrival_s = float(now_s - amount)
            # Every second one was put back into the queue some time after it came.
            since_s = arrival_s if now_s % 2 else (arrival_s + now_s) / 2
            waiting.add(number, hints, arrival_s, None if now_s % 2 else since_s)
            model.waiting.pop(number, None)
            model.close()
            model.join(hints)
            model.waiting[number] = _Waiting(hints, (arrival_s, now_s), since_s)
        elif kind in ("pop", "skip") and waiting:
            expected = model.waiting[model.order()[0]].hints
            assert first_hints(waiting) == expected
            del model.waiting[waiting.pop()]
            model.begun |= {expected.group} - {None}
            model.close()
            if kind == "pop":
                waiting.note_admitted(expected, amount)
                model.admit(expected, amount)
        elif kind == "remove":
            assert waiting.remove(number) == (model.waiting.pop(number, None) is not None)
            model.close()
        elif kind == "update":
            waiting.update(number, hints)
            if number in model.waiting:
                model.join(hints)
                entry = model.waiting[number]
                entry.hints = hints
                entry.is_old &= hints.request_class is not F
                model.close()
        elif kind == "age":
            waiting.promote_old(now_s)
            for entry in model.waiting.values():
                is_late = now_s - entry.since_s >= _MAX_WAIT_S
                entry.is_old |= is_late and entry.hints.request_class is not F
        elif kind == "admit":
            waiting.note_admitted(hints, amount)
            model.admit(hints, amount)
        order = model.order()
        if order:
            assert waiting.first() == order[0]
        assert list(waiting) == order


def test_nothing_is_left_behind_when_all_are_gone() -> None:
    waiting = make_waiting(
        ("a", Hints(group="g", tenant="x")), ("b", Hints(F, prefix_group="p")), ("c", Hints(L))
    )
    waiting.promote_old(30.0)
    for _ in range(3):
        admit(waiting)
    for name in ("_entries", "_groups", "_old", "_young", "_levels"):
        assert not getattr(waiting, name), name


def test_many_requests_come_out_in_order() -> None:
    number = 5000
    requests = [
        (str(i), Hints(group=f"g{i % 50}" if i % 2 else None, path_length=i % 7))
        for i in range(number)
    ]
    waiting = make_waiting(*requests)
    in_order = list(waiting)
    assert pop_all(waiting) == in_order
    assert sorted(in_order, key=int) == [str(i) for i in range(number)]
