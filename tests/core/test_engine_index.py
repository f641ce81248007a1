"""Engines with a free slot, sorted by their accounts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.scheduling.engine_index import (
    EngineIndex,
    Measure,
    by_joining,
    by_load,
    by_room,
    by_slots,
)
from parrot_backend.core.scheduling.engine_search import (
    by_bounded_use,
    by_capacity_loss,
    by_latency_use,
    by_use,
)
from parrot_backend.core.scheduling.free_engines import FreeEngines
from parrot_backend.core.scheduling.kept import Kept
from tests.core.clusters import LATENCY_LOAD, THROUGHPUT_LOAD, make_loaded_engine
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_request

MEASURES: list[Measure] = [
    by_joining,
    by_load,
    by_room,
    by_slots,
    by_bounded_use,
    by_capacity_loss,
    by_latency_use,
    by_use,
]


def engine(name: str, *running: tuple[int, bool], order: int = 0, slots: int = 2) -> EngineState:
    state = make_loaded_engine(name, *running, max_requests=slots)
    state.order = order
    return state


def expected(engines: list[EngineState], measure: Measure) -> list[EngineState]:
    """Return what a full sort gives."""
    measured = [(measure(e), e.order, e) for e in engines if e.has_slot]
    found = [(value, order, e) for value, order, e in measured if value is not None]
    return [e for _, _, e in sorted(found, key=lambda each: each[:2])]


@examples(100)
@given(seed=st.integers(0, 2**32))
def test_every_walk_is_a_full_sort(seed: int) -> None:
    rng = random.Random(seed)
    engines = [engine(f"e{i}", order=i, slots=rng.choice([1, 3])) for i in range(6)]
    index, live, number = EngineIndex(engines), list(engines), 0
    for _ in range(300):  # more than are logged
        state = rng.choice(live)
        if state.running and rng.random() < 0.5:
            state.remove(next(iter(state.running)))
        elif state.has_slot:
            number += 1
            tokens, is_latency = rng.choice([0, 50, 200]), rng.random() < 0.5
            state.add(
                AttemptId(f"a{number}"),
                tokens,
                is_latency=is_latency,
                is_bounded=rng.random() < 0.5,
                now_s=0.0,
            )
        index.note(state)
        if rng.random() < 0.05 and len(live) > 1:
            live.remove(state)
            index.discard(state)
        measure = rng.choice(MEASURES)
        assert list(index.walk(measure)) == expected(live, measure)
        assert index.leading(measure, 2) == expected(live, measure)[:2]
        assert len(index) == sum(e.has_slot for e in live)


@pytest.mark.parametrize(("limit", "most", "found"), [(-900, 8, ["b"]), (-900, 0, None)])
def test_few_engines_are_listed_and_many_are_not(
    limit: int, most: int, found: list[str] | None
) -> None:
    full = engine("a", (400, THROUGHPUT_LOAD), order=0)
    index = EngineIndex([full, engine("b", (50, THROUGHPUT_LOAD), order=1)])
    listed = index.up_to(by_room, limit, most)
    assert (None if listed is None else [e.id for e in listed]) == found


def test_an_engine_without_slots_is_not_found() -> None:
    full = engine("a", (1, LATENCY_LOAD), (1, LATENCY_LOAD))
    assert EngineIndex([full]).get(full.id) is None


def test_an_engine_that_is_gone_is_not_found() -> None:
    state = engine("a")
    index = EngineIndex([state])
    index.discard(state)
    assert (len(index), index.get(state.id), index.first(by_room)) == (0, None, None)


def test_free_engines_are_in_order_of_joining() -> None:
    engines = [engine(name, order=order) for name, order in (("b", 1), ("a", 0), ("c", 2))]
    free = FreeEngines(EngineIndex(engines))
    assert [e.id for e in free] == ["a", "b", "c"]
    assert (len(free), free[0].id, [e.id for e in free[1:]]) == (3, "a", ["b", "c"])


def test_what_is_kept_is_not_among_the_free() -> None:
    engines = [engine("a", order=0), engine("b", order=1)]
    index, kept = EngineIndex(engines), Kept({e.id: e for e in engines})
    kept.keep_for(make_request("r", avoided=["b"]), 100, index)
    free = FreeEngines(index, kept)
    assert [e.id for e in free] == ["b"]
    assert free.get(EngineId("a")) is None
    assert [e.id for e in free.walk(by_room)] == ["b"]
    assert [e.id for e in free.up_to(by_room, 0, 8) or ()] == ["b"]
