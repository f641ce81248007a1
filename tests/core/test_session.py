"""What is wanted of a variable: the stronger wish wins, in whatever order wishes come."""

from __future__ import annotations

import itertools

import pytest

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.session import Session, stronger_criteria
from parrot_backend.core.variable import Variable
from tests.helpers.builders import LATENCY, SESSION, THROUGHPUT, var

LAT, THR = CriteriaKind.LATENCY, CriteriaKind.THROUGHPUT


def lat(
    deadline_s: float | None = None, ttft_s: float | None = None, tpot_s: float | None = None
) -> Criteria:
    return Criteria(LAT, deadline_s, ttft_s, tpot_s)


STRONGER: dict[str, tuple[Criteria, Criteria, Criteria]] = {
    "latency over throughput": (LATENCY, THROUGHPUT, LATENCY),
    "throughput alone": (THROUGHPUT, THROUGHPUT, THROUGHPUT),
    "latency alone": (LATENCY, LATENCY, LATENCY),
    "the earlier deadline": (lat(5.0), lat(3.0), lat(3.0)),
    "a deadline over none": (lat(5.0), LATENCY, lat(5.0)),
    "a deadline at time zero is a deadline": (lat(0.0), lat(1.0), lat(0.0)),
    "the tighter ttft": (lat(ttft_s=2.0), lat(ttft_s=1.0), lat(ttft_s=1.0)),
    "the tighter tpot": (lat(tpot_s=0.1), lat(tpot_s=0.2), lat(tpot_s=0.1)),
    "the best of each": (
        Criteria(THR, 5.0, None, 0.2),
        lat(9.0, 1.0, 0.1),
        lat(5.0, 1.0, 0.1),
    ),
}


def make_session() -> Session:
    return Session(SESSION, "tenant", "app", (), 0, 0.0, 0.0, 0.0, SessionGraph(SESSION))


@pytest.mark.parametrize(("a", "b", "expected"), STRONGER.values(), ids=STRONGER)
def test_stronger_of_two_wishes(a: Criteria, b: Criteria, expected: Criteria) -> None:
    assert stronger_criteria(a, b) == expected


@pytest.mark.parametrize(("a", "b", "expected"), STRONGER.values(), ids=STRONGER)
def test_order_of_two_wishes_does_not_matter(a: Criteria, b: Criteria, expected: Criteria) -> None:
    assert stronger_criteria(b, a) == expected


def test_order_of_three_wishes_does_not_matter() -> None:
    wishes = [Criteria(THR, 5.0), Criteria(LAT, 9.0, 1.0), Criteria(THR, None, None, 0.3)]
    results = {
        stronger_criteria(stronger_criteria(a, b), c) for a, b, c in itertools.permutations(wishes)
    }
    assert results == {Criteria(LAT, 5.0, 1.0, 0.3)}


def test_first_wish_changes_something() -> None:
    assert make_session().annotate(Variable(var("x")), THROUGHPUT)


def test_stronger_wish_changes_something() -> None:
    session = make_session()
    session.annotate(Variable(var("x")), THROUGHPUT)
    assert session.annotate(Variable(var("x")), LATENCY)
    assert session.annotations == {var("x"): LATENCY}


def test_weaker_wish_changes_nothing() -> None:
    session = make_session()
    session.annotate(Variable(var("x")), LATENCY)
    assert not session.annotate(Variable(var("x")), THROUGHPUT)
    assert session.annotations == {var("x"): LATENCY}


def test_same_wish_changes_nothing() -> None:
    session = make_session()
    session.annotate(Variable(var("x")), LATENCY)
    assert not session.annotate(Variable(var("x")), LATENCY)


def test_wishes_are_kept_in_order_of_first_mention() -> None:
    session = make_session()
    for name in ("b", "a", "b"):
        session.annotate(Variable(var(name)), LATENCY)
    assert list(session.annotations) == [var("b"), var("a")]
