"""Capacity questions: what is tried, what is enough, and a load whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.capacity import (
    Grid,
    Point,
    QuestionError,
    Row,
    Target,
    answers,
    explore,
)
from parrot_backend.sim.capacity_rows import measures_of
from parrot_backend.sim.engine_choice import (
    EngineChoice,
    EngineChoiceError,
    changed,
    published,
)
from parrot_backend.sim.latency import LinearLatency
from parrot_backend.sim.latency_models import PUBLISHED_ENGINES
from parrot_backend.sim.program import Arrival, Constant
from parrot_backend.sim.simulation import Ending, EndReason
from parrot_backend.sim.source import Source
from parrot_backend.sim.spec import ClientSpec, Delay, EngineSpec
from parrot_backend.sim.study import Study, StudyError, core_config
from parrot_backend.sim.summary import Summary
from parrot_backend.sim.survey import limit_of, mean_bound_s, survey_of
from tests.core.hypothesis_settings import examples
from tests.sim.programs import make_call, make_chain, make_program

NO_NETWORK = ClientSpec(round_trip=Delay(0.0, 0.0))
EMPTY = Summary().result(Ending("done", 0.0, 0, 0, ()))


def row(point: Point, is_kept: bool, reason: EndReason = "done") -> Row:
    return Row(point, EMPTY, reason, 1.0, () if is_kept else ("slow",))


def tried(grid: Grid, needed: float) -> list[Row]:
    """Return the rows of a grid where so many engines per unit of rate are enough."""
    return list(explore(grid, lambda p: row(p, p.num_engines >= needed * (p.rate_per_s or 1.0))))


@examples(200)
@given(st.sets(st.integers(1, 60), min_size=1), st.floats(0.1, 70.0))
def test_a_search_finds_what_trying_all_finds(numbers: set[int], needed: float) -> None:
    engines = tuple(sorted(numbers))
    searched, all_of_them = Grid((1.0,), engines, True), Grid((1.0,), engines)
    found = answers(tried(searched, needed), searched)
    known = answers(tried(all_of_them, needed), all_of_them)
    assert found == known
    enough = [number for number in engines if number >= needed]
    assert [one.num_engines for one in found] == [min(enough, default=None)]
    most_tried = 1 + max(0, len(engines) - 1).bit_length()
    assert len(tried(searched, needed)) <= most_tried


def test_the_largest_rate_is_told_for_each_number_of_engines() -> None:
    grid = Grid((1.0, 2.0, 4.0), (1, 2, 4))
    told = [one.text for one in answers(tried(grid, 1.0), grid)]
    assert told == [
        "1 jobs/s: 1 engine is enough",
        "2 jobs/s: 2 engines are enough",
        "4 jobs/s: 4 engines are enough",
        "1 engine: 1 jobs/s is the largest rate",
        "2 engines: 2 jobs/s is the largest rate",
        "4 engines: 4 jobs/s is the largest rate",
    ]
    nothing = Grid((1.0, 2.0), (1,))
    assert [one.text for one in answers(tried(nothing, 9.0), nothing)] == [
        "1 jobs/s: not enough with 1 engine (slow)",
        "2 jobs/s: not enough with 1 engine (slow)",
        "1 engine: none of the rates keeps the target",
    ]


@pytest.mark.parametrize("searches", [False, True])
def test_an_interrupt_ends_all_and_proves_nothing(searches: bool) -> None:
    grid = Grid((1.0, 2.0), (1, 2, 3, 4), searches)
    rows: list[Row] = []

    def simulate(point: Point) -> Row:
        return row(point, True, "interrupted" if len(rows) == 1 else "done")

    for one in explore(grid, simulate):
        rows.append(one)
    assert len(rows) == 2
    # Only the first of the numbers is known to be enough, and it is the smallest in a plain grid.
    assert [a.num_engines for a in answers(rows, grid)] == ([] if searches else [1])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grid((0.0,), (1,)), "rate must be above zero, not 0"),
        (lambda: Grid((-2.0,), (1,)), "rate must be above zero, not -2"),
        (lambda: Grid((math.nan,), (1,)), "rate must be above zero"),
        (lambda: Grid((1.0,), (0, 1)), "at least 1 engine, not 0"),
        (lambda: Grid((), (1,)), "there must be a rate"),
        (lambda: Target(tpot_s=0.0), "time per token must be above zero"),
        (lambda: Target(job_p99_s=math.inf), "job time must be above zero"),
    ],
)
def test_impossible_questions_are_refused(make: Any, said: str) -> None:
    with pytest.raises(QuestionError, match=said):
        make()


# --- a load with a known answer ----------------------------------------------------------------

#: A prompt of 50 tokens takes 0.5 s; what it makes, one token, comes with it.
_SERVICE_S = 0.5
_STEP = StepTimeModel(_SERVICE_S, 0.0, 0.0, 0.0, 0.0, 0, 0.0)


def one_by_one(**more: Any) -> EngineChoice:
    """Return an engine that takes one request at a time, 0.5 s each."""
    spec = EngineSpec(LinearLatency(_STEP), num_blocks=100, max_requests=1, **more)
    return EngineChoice("one-by-one", spec, True, "made up")


def source(arrivals: Sequence[Arrival], takes_rate: bool = False) -> Source:
    return Source("made up", lambda rate: iter(arrivals), None, takes_rate)


def single(number: int) -> Arrival:
    call = make_call("c", Constant(f"text {number}", 50), tokens=1)
    return Arrival(number / 10, make_program(call))


def study(arrivals: Sequence[Arrival], target: Target, **more: Any) -> Study:
    config = core_config("least_loaded", "fcfs")
    return Study(source(arrivals), (one_by_one(**more),), NO_NETWORK, config, 0, target)


@pytest.mark.parametrize(("rate", "enough"), [(1.9, 1), (3.9, 2), (7.9, 4), (9.9, 5)])
def test_regular_jobs_need_as_many_engines_as_their_work_says(rate: float, enough: int) -> None:
    # Jobs of 0.5 s in regular time: with ceil(rate * 0.5) engines nobody waits.
    asked = study([single(n) for n in range(60)], Target(job_p99_s=_SERVICE_S + 1e-6))
    grid = Grid((rate,), tuple(range(1, 9)), searches=True)
    seen = asked.survey(rate)
    assert seen.rate_per_s == pytest.approx(rate)
    rows = list(explore(grid, lambda point: asked.simulate(point, seen)))
    assert [answer.num_engines for answer in answers(rows, grid)] == [enough]
    for one in rows:
        assert one.bound_s == pytest.approx(_SERVICE_S)
        measures = measures_of(one)
        assert measures["jobs"] == 60
        job_mean_s = measures["job_mean_s"]
        assert isinstance(job_mean_s, float)
        assert job_mean_s >= _SERVICE_S - 1e-9


def test_equal_questions_have_equal_answers() -> None:
    asked = study([single(n) for n in range(30)], Target())
    seen = asked.survey(None)
    assert asked.simulate(Point(None, 2), seen) == asked.simulate(Point(None, 2), seen)


def test_calls_that_are_too_long_are_named() -> None:
    long = Arrival(0.0, make_program(make_call("long", Constant("k", 1500), tokens=200)))
    asked = study([long], Target())
    with pytest.raises(StudyError, match=r"'long' of job 0 has 1500 .* 200 of .* takes 1600"):
        asked.survey(None)
    some = study([single(0), replace(long, time_s=1.0)], Target())
    seen = some.survey(None)
    assert (seen.num_jobs, seen.num_too_long) == (2, 1)
    # It ends with an error, so it keeps no target.
    one = some.simulate(Point(None, 1), seen)
    assert one.result.total.num_failed == 1
    assert one.misses == ("1 jobs failed or did not end",)
    with pytest.raises(StudyError, match="takes 700 together"):
        study([long], Target(), max_model_len=700).survey(None)


def test_no_jobs_are_no_question() -> None:
    with pytest.raises(StudyError, match="made up has no jobs"):
        study([], Target()).survey(None)


def test_the_survey_counts_what_calls_read() -> None:
    seen = survey_of([Arrival(2.0, make_chain(3)), Arrival(4.0, make_chain(2))])
    assert (seen.num_jobs, seen.num_calls) == (2, 5)
    assert seen.prompt_tokens == 5 * 100 + 3 * 20
    assert seen.output_tokens == 5 * 20
    assert seen.rate_per_s == pytest.approx(0.5)
    assert seen.longest is not None
    assert (seen.longest.call, seen.longest.tokens) == ("c1", 140)


def test_the_bound_is_what_idle_engines_take() -> None:
    chain = make_chain(4)
    spec = replace(published("h200-llama3-8b").spec, rules="vllm")
    asked = Study(
        source([Arrival(0.0, chain)]),
        (EngineChoice("e", spec, True, ""),),
        NO_NETWORK,
        core_config(),
        0,
        Target(),
    )
    one = asked.simulate(Point(None, 1), asked.survey(None))
    assert one.bound_s == mean_bound_s((chain,), spec, NO_NETWORK, 1)
    assert one.bound_s <= one.result.total.job_s.mean * (1 + 1e-9)


@pytest.mark.parametrize("name", PUBLISHED_ENGINES)
def test_published_engines_can_be_simulated(name: str) -> None:
    choice = published(name)
    assert limit_of(choice.spec) <= choice.spec.num_blocks * choice.spec.block_tokens
    asked = Study(
        source([Arrival(0.0, make_chain(2))]), (choice,), NO_NETWORK, core_config(), 0, Target()
    )
    assert asked.simulate(Point(None, 1), asked.survey(None)).keeps_target


def test_an_engine_is_changed_as_far_as_it_can_be() -> None:
    choice = published("a100-7b")
    other = changed(choice, kv_tokens=3200, latency_capacity_tokens=99, rules="vllm").spec
    assert (other.num_blocks, other.latency_capacity_tokens, other.rules) == (200, 99, "vllm")
    for kv_tokens, capacity in ((15, None), (-1, None), (None, 0)):
        with pytest.raises(EngineChoiceError):
            changed(choice, kv_tokens=kv_tokens, latency_capacity_tokens=capacity)
    with pytest.raises(EngineChoiceError, match="there is no engine 'a1'; there are a100"):
        published("a1")
