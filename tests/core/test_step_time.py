"""How long a step takes: the model's arithmetic, and what the fit learns from noisy steps."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.least_squares import solve, solve_non_negative
from parrot_backend.core.step_time import (
    FitOptions,
    StepTimeFitter,
    StepTimeModel,
    StepWork,
)
from tests.core.hypothesis_settings import examples

PROBES = [
    StepWork(decodes=32, context_tokens=40_000),
    StepWork(decodes=64, context_tokens=100_000),
    StepWork.prefill(512, 0) + StepWork(decodes=8, context_tokens=8_000),
    StepWork.prefill(1024, 4000),
]


def make_model(
    base_s: float = 6e-3,
    prefill_s: float = 4e-5,
    decode_s: float = 3e-5,
    context_s: float = 2e-8,
    pair_s: float = 2e-9,
) -> StepTimeModel:
    return StepTimeModel(base_s, prefill_s, decode_s, context_s, pair_s, num_samples=0, error=0.0)


def times_slower(factor: float) -> StepTimeModel:
    return make_model(6e-3 * factor, 4e-5 * factor, 3e-5 * factor, 2e-8 * factor, 2e-9 * factor)


def trace(rng: random.Random, num_steps: int, prefill_share: float = 0.2) -> Iterator[StepWork]:
    """Yield steps of a batch in which requests come, grow and end."""
    contexts = [rng.randint(100, 3000) for _ in range(rng.randint(1, 64))]
    for _ in range(num_steps):
        contexts = [context + 1 for context in contexts]
        work = StepWork(decodes=len(contexts), context_tokens=sum(contexts))
        if contexts and rng.random() < 0.05:
            contexts.pop(rng.randrange(len(contexts)))
        if not contexts or rng.random() < prefill_share:
            chunk_tokens = rng.randint(2, 2048)
            work += StepWork.prefill(chunk_tokens, rng.choice([0, 0, rng.randint(0, 8000)]))
            if len(contexts) < 100:
                contexts.append(chunk_tokens)
        yield work


def feed(
    fitter: StepTimeFitter,
    truth: StepTimeModel,
    rng: random.Random,
    num_steps: int,
    *,
    noise: float = 0.05,
    prefill_share: float = 0.2,
) -> None:
    for work in trace(rng, num_steps, prefill_share):
        fitter.observe(work, truth.predict_s(work) * max(0.1, rng.gauss(1.0, noise)))


def learnt(fitter: StepTimeFitter) -> StepTimeModel:
    assert fitter.model is not None
    return fitter.model


def worst_error(fitter: StepTimeFitter, truth: StepTimeModel) -> float:
    model = learnt(fitter)
    return max(abs(model.predict_s(work) / truth.predict_s(work) - 1.0) for work in PROBES)


def coefficients(model: StepTimeModel) -> list[float]:
    return [
        model.base_s,
        model.per_prefill_token_s,
        model.per_decode_s,
        model.per_context_token_s,
        model.per_prefill_pair_s,
    ]


# --- work and model ----------------------------------------------------------------------------


def test_work_adds_up() -> None:
    work = StepWork.decode(100) + StepWork.decode(50) + StepWork.prefill(10, 7)
    assert work == StepWork(10, 2, 150, 10 * 7 + 50)


def test_chunks_of_a_prompt_take_the_attention_work_of_the_whole() -> None:
    halves = StepWork.prefill(100, 0) + StepWork.prefill(100, 100)
    assert halves == StepWork.prefill(200, 0)


def test_prediction_is_the_sum_of_its_parts() -> None:
    model = make_model(1.0, 0.1, 0.01, 0.001, 0.0001)
    assert model.predict_s(StepWork(2, 3, 4, 5)) == pytest.approx(1.0 + 0.2 + 0.03 + 0.004 + 0.0005)
    assert model.predict_s(StepWork.decode(7)) == pytest.approx(1.0 + model.decode_cost_s(7))
    prefill_s = model.predict_s(StepWork.prefill(9, 4))
    assert prefill_s == pytest.approx(1.0 + model.prefill_cost_s(9, 4))


costs = st.just(0.0) | st.floats(1e-9, 1e-2)
amounts = st.integers(0, 100_000)
works = st.builds(StepWork, amounts, amounts, amounts, amounts)


@examples(200)
@given(st.tuples(costs, costs, costs, costs, costs), works, works)
def test_more_work_never_takes_less_time(
    per_unit: tuple[float, float, float, float, float], work: StepWork, more: StepWork
) -> None:
    model = make_model(*per_unit)
    assert model.predict_s(work + more) >= model.predict_s(work)


@examples(300)
@given(costs, costs, st.floats(-1.0, 1.0), st.integers(0, 200_000))
def test_chunk_is_the_largest_that_fits(
    prefill_s: float, pair_s: float, budget_s: float, context_tokens: int
) -> None:
    model = make_model(prefill_s=prefill_s, pair_s=pair_s)
    chunk = model.prefill_tokens_within(budget_s, context_tokens)
    if chunk:
        assert model.prefill_cost_s(chunk, context_tokens) <= budget_s
    if chunk < 1 << 20:
        assert model.prefill_cost_s(chunk + 1, context_tokens) > budget_s


@pytest.mark.parametrize(
    ("budget_s", "prefill_s", "pair_s", "context_tokens", "chunk"),
    [
        (1.0, 0.01, 0.0, 500, 100),
        (1.0, 0.01, 0.01, 0, 13),  # 0.13 + 0.84
        (1.0, 0.0, 0.01, 10, 7),  # 0.7 + 0.24
        (0.005, 0.01, 0.0, 0, 0),
        (0.0, 0.01, 0.01, 0, 0),
        (-1.0, 0.0, 0.0, 0, 0),
        (0.0, 0.0, 0.0, 0, 1 << 20),
    ],
)
def test_chunk_within_a_budget(
    budget_s: float, prefill_s: float, pair_s: float, context_tokens: int, chunk: int
) -> None:
    model = make_model(prefill_s=prefill_s, pair_s=pair_s)
    assert model.prefill_tokens_within(budget_s, context_tokens) == chunk


# --- what the fit learns -----------------------------------------------------------------------


def test_exact_steps_give_the_coefficients_back() -> None:
    truth = make_model()
    fitter = StepTimeFitter()
    feed(fitter, truth, random.Random(1), 4000, noise=0.0)
    for found, true in zip(coefficients(learnt(fitter)), coefficients(truth), strict=True):
        assert found == pytest.approx(true, rel=0.05)
    assert learnt(fitter).error < 1e-3
    assert learnt(fitter).num_samples == 4000


@examples(20)
@given(
    st.tuples(
        st.floats(1e-3, 5e-2),
        st.floats(1e-6, 5e-4),
        st.just(0.0) | st.floats(1e-6, 1e-3),
        st.just(0.0) | st.floats(1e-9, 1e-6),
        st.just(0.0) | st.floats(1e-10, 1e-8),
    ),
    st.integers(0, 1000),
)
def test_noisy_steps_are_learnt(per_unit: tuple[float, ...], seed: int) -> None:
    truth = make_model(*per_unit)
    fitter = StepTimeFitter()
    feed(fitter, truth, random.Random(seed), 1000)
    works = list(trace(random.Random(seed), 1000))[-100:]
    errors = [learnt(fitter).predict_s(work) / truth.predict_s(work) - 1.0 for work in works]
    assert sum(map(abs, errors)) / len(errors) < 0.05
    assert min(coefficients(learnt(fitter))) >= 0.0
    assert 0.02 < learnt(fitter).error < 0.08


@examples(30)
@given(st.integers(0, 2**32), st.integers(40, 200))
def test_whatever_was_seen_no_coefficient_is_negative(seed: int, num_steps: int) -> None:
    rng = random.Random(seed)
    fitter = StepTimeFitter()
    for _ in range(num_steps):
        work = StepWork(*(rng.choice([0, 1, rng.randrange(100_000)]) for _ in range(4)))
        fitter.observe(work, 10.0 ** rng.uniform(-9.0, 4.0))
        if fitter.model is not None:
            assert all(0.0 <= value < math.inf for value in coefficients(fitter.model))
            assert 0.0 <= fitter.model.error <= 1.0


def test_a_step_that_gets_faster_with_work_is_fitted_without_that() -> None:
    """Decodes seem to save time here; the best model without that is a constant."""
    fitter = StepTimeFitter()
    rng = random.Random(4)
    for _ in range(1000):
        work = StepWork(prefill_tokens=100, decodes=rng.randint(1, 20))
        fitter.observe(work, 0.03 - 1e-3 * work.decodes)
    model = learnt(fitter)
    assert model.per_decode_s == 0.0
    assert model.predict_s(StepWork(prefill_tokens=100, decodes=10)) == pytest.approx(0.02, rel=0.1)


def test_constant_work_is_predicted_right() -> None:
    work = StepWork(256, 16, 8000, 40_000)
    fitter = StepTimeFitter()
    rng = random.Random(2)
    for _ in range(5000):
        fitter.observe(work, 0.02 * rng.gauss(1.0, 0.05))
    assert learnt(fitter).predict_s(work) == pytest.approx(0.02, rel=0.02)


def test_what_is_not_seen_for_long_is_remembered() -> None:
    truth = make_model()
    fitter = StepTimeFitter()
    rng = random.Random(3)
    feed(fitter, truth, rng, 1000)
    feed(fitter, truth, rng, 20_000, prefill_share=0.0)
    prefill = StepWork.prefill(1024, 4000)
    assert learnt(fitter).predict_s(prefill) == pytest.approx(truth.predict_s(prefill), rel=0.15)


def test_single_outlier_changes_little() -> None:
    truth = make_model()
    fitter = StepTimeFitter()
    feed(fitter, truth, random.Random(5), 1000)
    before = learnt(fitter)
    work = PROBES[0]
    fitter.observe(work, 1000 * truth.predict_s(work))
    assert learnt(fitter).predict_s(work) == pytest.approx(before.predict_s(work), rel=0.005)


def test_frequent_outliers_change_little() -> None:
    truth = make_model()
    fitter = StepTimeFitter()
    rng = random.Random(6)
    for number, work in enumerate(trace(rng, 3000)):
        pause = rng.choice([3, 10, 100, 1000]) if rng.random() < 0.03 else 1
        fitter.observe(work, truth.predict_s(work) * rng.gauss(1.0, 0.05) * pause)
        if number > 500:
            assert worst_error(fitter, truth) < 0.15


def test_delayed_first_step_of_a_kind_is_soon_forgotten() -> None:
    truth = make_model()
    fitter = StepTimeFitter()
    rng = random.Random(10)
    decodes = [StepWork(0, number, 1000 * number) for number in (2, 4, 8)]
    for work in 20 * decodes:
        fitter.observe(work, truth.predict_s(work) * rng.gauss(1.0, 0.05))
    prefill = StepWork.prefill(1024, 0)
    fitter.observe(prefill, 1000 * truth.predict_s(prefill))
    for work in 10 * [prefill, *decodes]:
        fitter.observe(work, truth.predict_s(work) * rng.gauss(1.0, 0.05))
    for work in (prefill, *decodes):
        assert learnt(fitter).predict_s(work) == pytest.approx(truth.predict_s(work), rel=0.15)


def test_step_that_took_no_time_changes_little() -> None:
    truth = make_model()
    fitter = StepTimeFitter()
    rng = random.Random(11)
    feed(fitter, truth, rng, 1000)
    fitter.observe(StepWork.prefill(20_000, 0), 1e-9)  # such a chunk was not seen before
    feed(fitter, truth, rng, 100)
    assert worst_error(fitter, truth) < 0.15


def test_known_work_that_took_no_time_once_is_known_still() -> None:
    fitter = StepTimeFitter()
    work = StepWork(256, 16, 8000, 40_000)
    for elapsed_s in [*(200 * [0.02]), 1e-9, *(16 * [0.02])]:
        fitter.observe(work, elapsed_s)
    assert learnt(fitter).predict_s(work) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("num_steps", [100, 3000])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_batches_that_take_turns_are_both_known(seed: int, num_steps: int) -> None:
    """As seen on a real engine: one request decodes for long, then 17 with long contexts."""
    fitter = StepTimeFitter()
    rng = random.Random(seed)
    batches = [(StepWork.decode(200), 2e-3), (StepWork(0, 17, 17 * 800), 6e-3)]
    for phase in range(8):
        for _ in range(6):
            chunk_tokens = rng.randint(100, 2048)
            elapsed_s = (1.5e-3 + 2e-5 * chunk_tokens) * rng.gauss(1.0, 0.1)
            fitter.observe(StepWork.prefill(chunk_tokens, 0), elapsed_s)
        work, usual_s = batches[phase % 2]
        for _ in range(num_steps):
            fitter.observe(work, usual_s * rng.gauss(1.0, 0.1))
            if phase >= 4:
                for other, other_s in batches:
                    assert abs(learnt(fitter).predict_s(other) / other_s - 1.0) < 0.15


@pytest.mark.parametrize(
    ("factor", "num_steps", "most"),
    [(0.5, 500, 0.25), (0.5, 2000, 0.15), (2.0, 500, 0.2), (2.0, 2000, 0.1), (5.0, 2000, 0.25)],
)
def test_slower_engine_is_followed_as_its_steps_come_again(
    factor: float, num_steps: int, most: float
) -> None:
    truth = times_slower(factor)
    fitter = StepTimeFitter()
    rng = random.Random(7)
    works = list(trace(rng, 1500 + num_steps))
    for work in works[:1500]:
        fitter.observe(work, times_slower(1.0).predict_s(work) * rng.gauss(1.0, 0.05))
    for work in works[1500:]:
        fitter.observe(work, truth.predict_s(work) * rng.gauss(1.0, 0.05))
    errors = [learnt(fitter).predict_s(w) / truth.predict_s(w) - 1.0 for w in works[-200:]]
    assert sum(map(abs, errors)) / len(errors) < most


def test_busy_second_does_not_change_what_is_not_seen_meanwhile() -> None:
    truth = make_model()
    fitter = StepTimeFitter()
    feed(fitter, truth, random.Random(12), 2000)
    work = StepWork(decodes=16, context_tokens=16_000)
    for _ in range(300):
        fitter.observe(work, 2 * truth.predict_s(work))
    assert learnt(fitter).predict_s(work) > 1.5 * truth.predict_s(work)
    prefill = StepWork.prefill(1024, 4000)
    assert learnt(fitter).predict_s(prefill) == pytest.approx(truth.predict_s(prefill), rel=0.15)


def test_long_run_stays_healthy() -> None:
    """What is not seen for 2000 half-lives keeps its weight, and nothing grows."""
    truth = make_model()
    fitter = StepTimeFitter(FitOptions(half_life_steps=2.0))
    rng = random.Random(8)
    idle = StepWork.decode(1000)
    for _ in range(4):
        feed(fitter, truth, rng, 1000)
        assert worst_error(fitter, truth) < 0.2
        for _ in range(4000):
            fitter.observe(idle, truth.predict_s(idle) * rng.gauss(1.0, 0.05))
        assert learnt(fitter).predict_s(idle) == pytest.approx(truth.predict_s(idle), rel=0.05)
        assert worst_error(fitter, truth) < 0.2
    assert len(fitter._kinds) <= 128


def test_kinds_seen_once_do_not_displace_those_that_are_known() -> None:
    truth = make_model()
    fitter = StepTimeFitter(FitOptions(max_kinds=8))
    rng = random.Random(13)
    known = [
        StepWork.decode(500),
        StepWork(decodes=16, context_tokens=16_000),
        StepWork.prefill(100, 0),
        StepWork.prefill(1000, 2000),
    ]
    for work in 20 * known:
        fitter.observe(work, truth.predict_s(work))
    known_kinds = list(fitter._kinds)
    assert len(known_kinds) == len(known)
    for _ in range(2000):
        work = StepWork(*(1 << rng.randrange(20) for _ in range(4)))
        fitter.observe(work, truth.predict_s(work))
    assert len(fitter._kinds) == 8
    assert set(known_kinds) <= set(fitter._kinds)


# --- non-negative least squares ----------------------------------------------------------------


@examples(200)
@given(
    st.lists(
        st.lists(st.just(0.0) | st.floats(1e-3, 1e3), min_size=4, max_size=4),
        min_size=1,
        max_size=8,
    )
)
def test_fit_without_negatives_is_the_best_of_all(rows: list[list[float]]) -> None:
    """Compared with the best over every choice of coefficients that are 0."""
    columns = list(zip(*rows, strict=True))
    matrix = [
        [sum(x * y for x, y in zip(one, two, strict=True)) for two in columns] for one in columns
    ]
    for index, row in enumerate(matrix):
        row[index] *= 1.001
    target = [sum(column) for column in columns]
    usable = [index for index, row in enumerate(matrix) if row[index] > 0.0]
    subsets = chain.from_iterable(combinations(usable, size) for size in range(len(usable) + 1))
    fits = [solve(matrix, target, set(subset)) for subset in subsets]
    best = min(_loss(matrix, target, fit) for fit in fits if min(fit) >= 0.0)
    found = solve_non_negative(matrix, target)
    assert min(found) >= 0.0
    assert _loss(matrix, target, found) == pytest.approx(best, rel=1e-6, abs=1e-6)


def _loss(matrix: list[list[float]], target: list[float], fit: list[float]) -> float:
    """Return the sum of squares, less a constant: x'Ax - 2 t'x."""
    products = [sum(x * y for x, y in zip(row, fit, strict=True)) for row in matrix]
    return sum(
        x * (product - 2 * goal) for x, product, goal in zip(fit, products, target, strict=True)
    )


# --- what it does not learn from ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "elapsed_s"),
    [
        (StepWork.decode(100), 0.0),
        (StepWork.decode(100), -1.0),
        (StepWork.decode(100), math.inf),
        (StepWork.decode(100), math.nan),
        (StepWork(), 0.01),
    ],
)
def test_senseless_step_is_ignored(work: StepWork, elapsed_s: float) -> None:
    fitter = StepTimeFitter()
    feed(fitter, make_model(), random.Random(9), 100)
    before = learnt(fitter)
    fitter.observe(work, elapsed_s)
    assert fitter.model == before


def test_no_model_before_enough_steps() -> None:
    fitter = StepTimeFitter(FitOptions(min_samples=3))
    works = [StepWork.decode(10), StepWork.prefill(100, 0), StepWork.decode(11)]
    for work in works:
        assert fitter.model is None
        fitter.observe(work, 0.01)
    assert learnt(fitter).num_samples == 3


@pytest.mark.parametrize("work", [StepWork.decode(10), StepWork.prefill(100, 0)])
def test_no_model_before_both_kinds_of_work(work: StepWork) -> None:
    fitter = StepTimeFitter(FitOptions(min_samples=3))
    for _ in range(10):
        fitter.observe(work, 0.01)
    assert fitter.model is None


# --- what steps take in the mean ------------------------------------------------------------------


def test_steps_that_are_held_up_count_in_the_mean() -> None:
    rng, model, fitter = random.Random(3), make_model(), StepTimeFitter()
    for number, work in enumerate(trace(rng, 3000)):
        factor = 4.0 if number % 10 == 0 else 1.0
        fitter.observe(work, factor * model.predict_s(work))
    learnt = fitter.model
    assert learnt is not None
    for work in PROBES:
        assert learnt.predict_s(work) == pytest.approx(model.predict_s(work), rel=0.15)
        mean_s = learnt.in_the_mean().predict_s(work)
        assert mean_s == pytest.approx(1.3 * model.predict_s(work), rel=0.1)


def test_a_step_that_stands_for_others_counts_as_often_in_the_mean() -> None:
    model, fitter = make_model(), StepTimeFitter()
    decode, prompt = StepWork.decode(100), StepWork.prefill(100, 0)
    for _ in range(300):
        fitter.observe(decode, 2.0 * model.predict_s(decode), 9)
        fitter.observe(decode, model.predict_s(decode))
        fitter.observe(prompt, model.predict_s(prompt))
    learnt = fitter.model
    assert learnt is not None
    total_s = 19 * model.predict_s(decode) + model.predict_s(prompt)
    found_s = 10 * learnt.predict_s(decode) + learnt.predict_s(prompt)
    assert learnt.slowdown == pytest.approx(total_s / found_s, rel=0.02)


def test_one_stop_of_the_machine_is_not_all_that_the_mean_tells() -> None:
    model, fitter, work = make_model(), StepTimeFitter(), StepWork.decode(100)
    fitter.observe(StepWork.prefill(100, 0), model.predict_s(StepWork.prefill(100, 0)))
    for number in range(1000):
        fitter.observe(work, 1e4 if number == 900 else model.predict_s(work))
    learnt = fitter.model
    assert learnt is not None
    assert 1.0 <= learnt.slowdown < 1.1


def test_a_model_in_the_mean_is_no_slower_than_itself() -> None:
    learnt = StepTimeModel(1.0, 2.0, 3.0, 4.0, 5.0, 9, 0.1, slowdown=2.0).in_the_mean()
    assert learnt == StepTimeModel(2.0, 4.0, 6.0, 8.0, 10.0, 9, 0.1)
