"""The account of one engine: what runs, and what more may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_load import load_of
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.working_set import WorkingSet
from tests.helpers.builders import make_chain, make_engine_state, make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT


def loaded(*running: tuple[int, bool], max_requests: int = 4) -> EngineState:
    """Return an engine of 1000 tokens, 300 under latency, that runs (tokens, is_latency)."""
    engine = make_engine_state(
        capacity_tokens=1000, latency_capacity_tokens=300, max_requests=max_requests
    )
    for number, (tokens, is_latency) in enumerate(running):
        engine.add(AttemptId(f"r{number}"), tokens, is_latency=is_latency, now_s=0.0)
    return engine


THR, LAT = False, True

#: name: (running, class of the new request, its tokens, how many, admitted?)
ADMITTED: dict[str, tuple[list[tuple[int, bool]], ObjectiveClass, int, int, bool]] = {
    "an empty engine takes a throughput request": ([], T, 1000, 1, True),
    "an empty engine takes one request of any size": ([], T, 99_999, 1, True),
    "an empty engine takes one latency request of any size": ([], L, 99_999, 1, True),
    "an empty engine does not take two of any size": ([], T, 1001, 2, False),
    "throughput up to the capacity": ([(600, THR)], T, 400, 1, True),
    "throughput over the capacity": ([(600, THR)], T, 401, 1, False),
    "a group up to the capacity": ([(600, THR)], G, 400, 2, True),
    "a group over the capacity": ([(600, THR)], G, 401, 2, False),
    "a group is not bound by the latency capacity": ([], G, 900, 3, True),
    "a group is bound by it while latency runs": ([(100, LAT)], G, 201, 3, False),
    "a group fits beside latency": ([(100, LAT)], G, 200, 3, True),
    "throughput beside latency up to its capacity": ([(100, LAT)], T, 200, 1, True),
    "throughput beside latency over its capacity": ([(100, LAT)], T, 201, 1, False),
    "throughput beside both": ([(100, LAT), (150, THR)], T, 51, 1, False),
    "latency beside latency up to its capacity": ([(100, LAT)], L, 200, 1, True),
    "latency beside latency over its capacity": ([(100, LAT)], L, 201, 1, False),
    "latency does not wait for throughput to drain": ([(600, THR)], L, 300, 1, True),
    "first latency request may be large": ([(100, THR)], L, 400, 1, True),
    "latency is bound by the memory": ([(900, THR)], L, 101, 1, False),
    "latency beside both up to the latency capacity": ([(200, LAT), (500, THR)], L, 100, 1, True),
    "latency beside both over the latency capacity": ([(200, LAT), (500, THR)], L, 101, 1, False),
    "two latency requests up to the latency capacity": ([], L, 300, 2, True),
    "two latency requests over the latency capacity": ([], L, 301, 2, False),
    "two latency requests beside throughput, over": ([(100, THR)], L, 301, 2, False),
    "no free slot": ([(1, THR)] * 4, T, 1, 1, False),
    "one free slot": ([(1, THR)] * 3, T, 1, 1, True),
    "more requests than free slots": ([(1, THR)] * 3, T, 2, 2, False),
    "more requests than slots on an empty engine": ([], T, 5, 5, False),
    "nothing beside a request that is too large": ([(2000, THR)], T, 1, 1, False),
    "no latency beside a request that is too large": ([(2000, LAT)], L, 1, 1, False),
}


@pytest.mark.parametrize(
    ("running", "objective", "tokens", "number", "expected"), ADMITTED.values(), ids=ADMITTED
)
def test_admission(
    running: list[tuple[int, bool]],
    objective: ObjectiveClass,
    tokens: int,
    number: int,
    expected: bool,
) -> None:
    assert loaded(*running).admits(objective, tokens, number) is expected


@pytest.mark.parametrize("max_requests", [0, -1])
def test_engine_without_slots_admits_nothing(max_requests: int) -> None:
    assert not loaded(max_requests=max_requests).admits(T, 1)


@pytest.mark.parametrize(
    ("running", "added", "capacity"),
    [
        ([], None, 1000),
        ([], T, 1000),
        ([], G, 1000),
        ([], L, 300),
        ([(10, THR)], None, 1000),
        ([(10, THR)], L, 300),
        ([(10, LAT)], None, 300),
        ([(10, LAT)], T, 300),
        ([(10, LAT), (10, THR)], None, 300),
    ],
)
def test_capacity_is_set_by_the_strictest(
    running: list[tuple[int, bool]], added: ObjectiveClass | None, capacity: int
) -> None:
    assert loaded(*running).capacity_tokens(added) == capacity


def test_added_attempt_is_on_the_account() -> None:
    engine = loaded((100, THR), (30, LAT))
    assert (engine.used_tokens, engine.latency_tokens) == (130, 30)


def test_removed_attempt_gives_back_what_it_took() -> None:
    engine = loaded((100, THR), (30, LAT))
    engine.remove(AttemptId("r1"))
    assert (engine.used_tokens, engine.latency_tokens) == (100, 0)


def test_account_of_an_idle_engine_is_empty() -> None:
    engine = loaded((100, THR), (30, LAT))
    engine.remove(AttemptId("r0"))
    engine.remove(AttemptId("r1"))
    assert (engine.used_tokens, engine.latency_tokens, engine.running) == (0, 0, {})


def test_attempt_that_is_not_there_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        loaded().remove(AttemptId("r0"))


@pytest.mark.parametrize(("running", "has_slot"), [(0, True), (3, True), (4, False)])
def test_slot(running: int, has_slot: bool) -> None:
    assert loaded(*[(1, THR)] * running).has_slot is has_slot


@pytest.mark.parametrize(
    ("model", "expected"), [(None, True), ("m", True), ("n", True), ("other", False), ("", False)]
)
def test_engine_serves(model: str | None, expected: bool) -> None:
    assert make_engine_state(models=("m", "n")).serves(model) is expected


def test_id_is_that_of_the_engine() -> None:
    assert make_engine_state("e7").id == "e7"


def test_time_of_steps_is_unknown_at_first() -> None:
    assert make_engine_state().step_time is None


#: name: (running as (tokens, is bounded), is the new one bounded?, its tokens, how many, admitted?)
UNBOUNDED: dict[str, tuple[list[tuple[int, bool]], bool, int, int, bool]] = {
    "unbounded beside unbounded": ([(300, False)], False, 600, 1, True),
    "unbounded beside bounded": ([(300, True)], False, 600, 1, True),
    "several unbounded": ([], False, 900, 3, True),
    "several unbounded beside others": ([(300, False)], False, 700, 3, True),
    "unbounded are bound by the memory": ([(300, False)], False, 701, 1, False),
    "bounded do not count unbounded": ([(600, False)], True, 300, 1, True),
    "bounded count bounded": ([(300, False), (200, True)], True, 101, 1, False),
}


@pytest.mark.parametrize(
    ("running", "is_bounded", "tokens", "number", "expected"), UNBOUNDED.values(), ids=UNBOUNDED
)
def test_only_bounded_latency_requests_keep_to_the_latency_capacity(
    running: list[tuple[int, bool]], is_bounded: bool, tokens: int, number: int, expected: bool
) -> None:
    engine = loaded()
    for index, (taken, bounds) in enumerate(running):
        name = AttemptId(f"b{index}")
        engine.add(name, taken, is_latency=True, is_bounded=bounds, now_s=0.0)
    assert engine.admits(L, tokens, number, is_bounded=is_bounded) is expected
    assert not running or not engine.admits(T, 301)  # other work is, beside either
    for index in range(len(running)):
        engine.remove(AttemptId(f"b{index}"))
    assert (engine.used_tokens, engine.latency_tokens, engine.bounded_tokens) == (0, 0, 0)


@pytest.mark.parametrize(
    ("repeated_read", "read_tokens", "more_tokens"),
    [(1.0, 1300, 650), (0.5, 1050, 400), (0.0, 800, 150)],
)
def test_tokens_that_steps_read_follow_how_common_prefixes_are_read(
    repeated_read: float, read_tokens: int, more_tokens: int
) -> None:
    chain = make_chain(("s", 500))
    requests = [
        make_request(f"r{each}", need_tokens=700, max_tokens=100, prefixes=chain) for each in "abc"
    ]
    engine = make_engine_state("e0", capacity_tokens=5000)
    engine.info = replace(engine.info, repeated_read=repeated_read)
    engine.working_set = WorkingSet(min_tokens=32)
    for request in requests[:2]:
        engine.add(
            AttemptId(request.id),
            engine.added_tokens(request, 0),
            is_latency=True,
            now_s=0.0,
            load=load_of(request, 0),
            chain=chain,
        )
    assert engine.load.read_tokens == read_tokens
    assert engine.read_tokens(requests[2], 650) == more_tokens
    engine.remove(AttemptId("ra"))
    assert engine.load.read_tokens == 650
    engine.remove(AttemptId("rb"))
    assert (engine.load.read_tokens, engine.full_tokens) == (0, 0)
