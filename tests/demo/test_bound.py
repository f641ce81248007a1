import pytest

from parrot_backend.demo.bound import bound_s, critical_path
from tests.demo.records import call


def names(calls):
    return [one.name for one in calls]


def test_a_chain_is_its_own_critical_path():
    calls = [call("a"), call("b", needs=("a",)), call("c", needs=("b",))]
    assert names(critical_path(calls)) == ["a", "b", "c"]


def test_of_parallel_calls_the_slowest_counts():
    maps = [call("m1", 0.1), call("m2", 0.3), call("m3", 0.2)]
    calls = [*maps, call("whole", 0.05, needs=("m1", "m2", "m3"))]
    assert names(critical_path(calls)) == ["m2", "whole"]


def test_two_short_calls_may_take_longer_than_one_long_one():
    calls = [call("long", 0.3), call("a", 0.2), call("b", 0.2, needs=("a",))]
    assert names(critical_path(calls)) == ["a", "b"]


def test_the_order_of_the_calls_does_not_matter():
    calls = [call("b", needs=("a",)), call("a")]
    assert names(critical_path(calls)) == ["a", "b"]


def test_no_calls_have_no_path():
    assert critical_path([]) == ()


def test_the_bound_is_one_round_trip_plus_the_engine_time_of_the_path():
    calls = [call("a", 0.1), call("b", 0.2, needs=("a",)), call("aside", 0.15)]
    assert bound_s(calls, round_trip_s=0.25) == pytest.approx(0.55)


def test_calls_that_need_each_other_are_an_error():
    with pytest.raises(ValueError, match="no order"):
        critical_path([call("a", needs=("b",)), call("b", needs=("a",))])
