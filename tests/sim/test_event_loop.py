from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.sim.event_loop import EventLoop, Turn
from tests.core.hypothesis_settings import examples


def test_at_one_instant_servers_come_before_clients_and_else_the_order_counts() -> None:
    loop, seen = EventLoop(), list[str]()
    loop.at(1.0, seen.append, "client", turn=Turn.CLIENT)
    loop.at(1.0, seen.append, "first")

    def ask() -> None:
        loop.at(1.0, seen.append, "asked for meanwhile")

    loop.at(1.0, ask)
    loop.at(0.5, seen.append, "earlier")
    loop.run()
    assert seen == ["earlier", "first", "asked for meanwhile", "client"]


def test_what_is_cancelled_does_not_happen_and_what_has_happened_stays() -> None:
    loop, seen = EventLoop(), list[str]()
    first = loop.at(1.0, seen.append, "first")
    second = loop.at(2.0, seen.append, "second")
    loop.at(1.5, loop.cancel, first)
    loop.at(1.5, loop.cancel, second)
    loop.at(1.6, loop.cancel, second)
    loop.run()
    assert seen == ["first"]
    assert len(loop) == 0


def test_cancelled_entries_are_not_kept() -> None:
    loop = EventLoop()
    for _ in range(10_000):
        loop.cancel(loop.at(1e9, print))
    assert len(loop) == 0
    assert len(loop._heap) < 200


def test_a_run_ends_at_its_time_and_what_is_due_then_still_happens() -> None:
    loop, seen = EventLoop(), list[float]()
    for time_s in (1.0, 2.0, 3.0):
        loop.at(time_s, seen.append, time_s)
    loop.run(2.0)
    assert (seen, loop.now_s, len(loop)) == ([1.0, 2.0], 2.0, 1)
    loop.at(0.5, seen.append, 0.5)  # the past is over
    loop.run()
    assert (seen, loop.now_s) == ([1.0, 2.0, 0.5, 3.0], 3.0)


def test_an_endless_source_is_drawn_from_as_time_goes_on() -> None:
    drawn, seen = list[int](), list[int]()

    def source() -> Iterator[int]:
        for number in itertools.count():
            drawn.append(number)
            yield number

    loop = EventLoop()
    loop.feed(source(), float, seen.append, lambda: None)
    loop.run(5.0)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert drawn == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("times", [[1.0, 0.5], [-1.0], [float("nan")], [float("inf")]])
def test_a_source_must_be_in_order_of_time(times: list[float]) -> None:
    def drive() -> None:
        loop = EventLoop()
        loop.feed(times, float, lambda _: None, lambda: None)
        loop.run()

    with pytest.raises(ValueError, match="comes after"):
        drive()


def test_no_time_at_all_is_rejected() -> None:
    with pytest.raises(ValueError, match="not a number"):
        EventLoop().at(float("nan"), print)


@examples(50)
@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=40))
def test_time_never_runs_backwards_and_nothing_is_lost(
    entries: list[tuple[float, bool]],
) -> None:
    loop, seen = EventLoop(), list[float]()
    made = [(loop.at(t, lambda: seen.append(loop.now_s)), gone) for t, gone in entries]
    for entry, is_cancelled in made:
        if is_cancelled:
            loop.cancel(entry)
    loop.run()
    assert seen == sorted(t for t, is_cancelled in entries if not is_cancelled)
