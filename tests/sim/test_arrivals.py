"""When jobs begin, and that nothing is drawn before it is needed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice, pairwise
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.sim.program import Arrival, Program
from parrot_backend.sim.workloads.arrivals import (
    ARRIVAL_KINDS,
    ArrivalKind,
    ArrivalProcess,
    after_gaps,
    delayed,
    first,
    jobs_at,
    merged,
    seeded,
)
from parrot_backend.sim.workloads.building import single_call, text
from parrot_backend.sim.workloads.checks import WorkloadError
from tests.core.hypothesis_settings import examples


def times(process: ArrivalProcess, num: int = 20_000, seed: int = 7) -> list[float]:
    return list(islice(process.times_s(random.Random(seed)), num))


@pytest.mark.parametrize(
    ("process", "rate_per_s", "cv"),
    [
        (ArrivalProcess("poisson", 4.0), 4.0, 1.0),
        (ArrivalProcess("gamma", 4.0, cv=3.0), 4.0, 3.0),
        (ArrivalProcess("gamma", 0.5, cv=0.25), 0.5, 0.25),
        (ArrivalProcess("uniform", 10.0), 10.0, 0.0),
        (ArrivalProcess("bursts", 2.0, burst_jobs=5), 2.0, 2.0),
    ],
)
def test_gaps_have_the_mean_and_the_deviation_that_were_asked_for(
    process: ArrivalProcess, rate_per_s: float, cv: float
):
    gaps = [after - before for before, after in pairwise(times(process))]
    assert fmean(gaps) == pytest.approx(1 / rate_per_s, rel=0.04)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(cv, rel=0.06, abs=1e-6)


def test_all_at_once():
    assert times(ArrivalProcess("at_once"), 5) == [0.0] * 5


def test_bursts_begin_together():
    assert times(ArrivalProcess("bursts", 2.0, burst_jobs=3), 7) == [0, 0, 0, 1.5, 1.5, 1.5, 3]


def test_replayed_gaps():
    assert list(after_gaps([0.5, 0.5, 10.0])) == [0.0, 0.5, 1.0, 11.0]


@examples(50)
@given(
    kind=st.sampled_from(ARRIVAL_KINDS),
    rate=st.floats(0.01, 100),
    cv=st.floats(0.1, 5),
    burst=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_times_never_run_backwards_and_depend_on_the_seed_alone(
    kind: ArrivalKind, rate: float, cv: float, burst: int, seed: int
):
    process = ArrivalProcess(kind, rate, cv, burst)
    drawn = times(process, 50, seed)
    assert all(0 <= before <= after for before, after in pairwise(drawn))
    assert drawn == times(process, 50, seed)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_per_s": 0.0},
        {"rate_per_s": -1.0},
        {"rate_per_s": float("nan")},
        {"rate_per_s": float("inf")},
        {"cv": 0.0},
        {"burst_jobs": 0},
        {"kind": "sometimes"},
    ],
)
def test_a_process_that_makes_no_sense_is_refused(wrong: dict[str, object]):
    with pytest.raises(WorkloadError) as caught:
        ArrivalProcess(**wrong)  # type: ignore[arg-type]
    assert caught.value.code == "invalid_parameter"
    assert next(iter(wrong)).split("_")[0] in str(caught.value) or "arrivals" in str(caught.value)


def program(number: int) -> Program:
    return single_call("app", text(f"text {number}", 5), 3)


def test_an_endless_workload_is_drawn_one_by_one():
    made = list[int]()

    def make(number: int) -> Program:
        made.append(number)
        return program(number)

    jobs = jobs_at(ArrivalProcess("uniform", 2.0).times_s(random.Random(1)), make)
    drawn = [next(jobs) for _ in range(3)]
    assert made == [0, 1, 2]
    assert [(job.time_s, job.user) for job in drawn] == [
        (0.0, "user-0"),
        (0.5, "user-1"),
        (1.0, "user-2"),
    ]


def test_merged_workloads_are_in_order_of_time_and_lazy():
    def endless(gap_s: float) -> Iterator[Arrival]:
        return jobs_at((number * gap_s for number in iter(int, 1)), program)

    three = jobs_at([0.0, 3.0, 4.0], program)
    two = delayed(jobs_at([0.5, 1.0], program), 2.0)
    assert [job.time_s for job in merged(three, two)] == [0.0, 2.5, 3.0, 3.0, 4.0]
    assert [job.time_s for job in islice(merged(endless(0.0), endless(0.0)), 4)] == [0.0] * 4


def test_no_jobs_at_all_are_refused():
    with pytest.raises(WorkloadError):
        first(jobs_at([0.0], program), 0)


def test_purposes_have_generators_of_their_own():
    assert seeded(1, "a").random() == seeded(1, "a").random()
    assert seeded(1, "a").random() != seeded(1, "b").random()
