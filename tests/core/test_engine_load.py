"""Sums over what runs on an engine, and what one more request would meet there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.engine_load import AttemptLoad, EngineLoad, load_of
from parrot_backend.core.ids import AttemptId, TaskGroupId
from parrot_backend.core.output_forecast import OutputForecast
from parrot_backend.core.step_time import StepTimeModel
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT
#: 10 ms for a step, 1 ms for a prompt token, 1 ms for a decode, 10 us for a token of context.
MODEL = StepTimeModel(0.01, 1e-3, 1e-3, 1e-5, 0.0, num_samples=9, error=0.1)


def make_load(
    prefill: int = 100,
    cached: int = 0,
    output: int = 20,
    objective: ObjectiveClass = L,
    group: str | None = None,
    tpot_s: float | None = None,
) -> AttemptLoad:
    context = prefill + cached + output // 2
    name = None if group is None else TaskGroupId(group)
    return AttemptLoad(prefill, cached, output, context, objective, name, True, tpot_s)


def loaded(*loads: AttemptLoad, now_s: float = 0.0, capacity_tokens: int = 1000) -> EngineLoad:
    load = EngineLoad(CostConfig(bulk_weight=0.25), capacity_tokens)
    for number, each in enumerate(loads):
        load.add(AttemptId(f"a{number}"), each, MODEL, now_s)
    return load


@pytest.mark.parametrize(
    ("loads", "weight"),
    [
        ([], 0.0),
        ([make_load(), make_load()], 2.0),
        ([make_load(objective=T)], 0.25),
        ([make_load(objective=G, group="g")] * 3, 1.0),
        ([make_load(objective=G, group="g"), make_load(objective=G, group="h")], 2.0),
        ([make_load(), make_load(objective=T), make_load(objective=G, group="g")], 2.25),
    ],
    ids=["idle", "each", "bulk", "a group waits as one", "two groups", "all"],
)
def test_weight_is_who_waits(loads: list[AttemptLoad], weight: float) -> None:
    assert loaded(*loads).outlook(MODEL).weight == pytest.approx(weight)


def test_step_is_that_of_all_that_runs() -> None:
    outlook = loaded(make_load(100, output=20), make_load(50, output=10)).outlook(MODEL)
    assert outlook.step_s == pytest.approx(0.01 + 2e-3 + 1e-5 * (110 + 55))
    assert outlook.remaining_steps == (20 + 10) / 2 / 2


def test_tightest_target_counts_while_it_runs() -> None:
    load = loaded(make_load(tpot_s=0.05), make_load(tpot_s=0.03), make_load())
    assert load.outlook(MODEL).tpot_s == 0.03
    load.remove(AttemptId("a1"), 1.0)
    assert load.outlook(MODEL).tpot_s == 0.05
    load.remove(AttemptId("a0"), 1.0)
    assert load.outlook(MODEL).tpot_s == math.inf


def test_outlook_follows_the_engines_own_step_times() -> None:
    load = loaded(make_load())
    faster = StepTimeModel(0.001, 1e-4, 1e-4, 1e-6, 0.0, num_samples=9, error=0.1)
    assert load.outlook(None).model is load.config.step_time
    assert load.outlook(faster).step_s < load.outlook(MODEL).step_s


def test_prefill_is_done_one_after_the_other() -> None:
    load = loaded(make_load(100), make_load(50, cached=40), now_s=5.0)
    assert load.prefill_until_s == pytest.approx(5.15)


def test_prefill_after_idle_time_begins_now() -> None:
    load = loaded(make_load(100), now_s=5.0)
    load.add(AttemptId("late"), make_load(100), MODEL, 9.0)
    assert load.prefill_until_s == pytest.approx(9.1)


@pytest.mark.parametrize(
    ("began_s", "until_s"),
    [(0.05, 0.15), (0.1, 0.2), (0.3, 0.2)],
    ids=["sooner than thought", "as thought", "later"],
)
def test_first_token_corrects_the_estimate(began_s: float, until_s: float) -> None:
    load = loaded(make_load(100), make_load(100))
    load.begin(AttemptId("a0"), began_s)
    load.begin(AttemptId("a0"), began_s)  # once only
    assert load.prefill_until_s == pytest.approx(until_s)


def test_aborted_prompt_is_not_computed() -> None:
    load = loaded(make_load(100), make_load(100))
    load.remove(AttemptId("a1"), 0.0)
    assert load.prefill_until_s == pytest.approx(0.1)


def test_what_is_computed_costs_more_where_the_cache_is_full_and_read() -> None:
    fresh, read = make_load(100, output=0), make_load(0, cached=100, output=0)
    assert loaded(*[fresh] * 9).outlook(MODEL).token_price == 0.0  # nothing is ever found
    half, full = loaded(*[fresh] * 5, read), loaded(*[fresh] * 10, read)
    assert 0.0 < half.outlook(MODEL).token_price < full.outlook(MODEL).token_price < 0.1


@examples(100)
@given(
    st.lists(
        st.builds(
            make_load,
            prefill=st.integers(0, 500),
            cached=st.integers(0, 500),
            output=st.integers(1, 500),
            objective=st.sampled_from([L, G, T]),
            group=st.sampled_from(["g", "h"]),
            tpot_s=st.sampled_from([None, 0.02, 0.05]),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_account_of_an_engine_whose_work_has_ended_is_empty(loads, order) -> None:
    load = loaded(*loads)
    idle = loaded().outlook(MODEL)
    left = list(range(len(loads)))
    order.shuffle(left)
    for number in left:
        assert load.decodes > 0
        load.remove(AttemptId(f"a{number}"), 0.0)
    assert load.outlook(MODEL)[:5] == idle[:5]
    assert (load.num_latency, load.num_bulk, load.bounded_decodes) == (0, 0, 0)
    assert (load.context_tokens, load.bounded_context_tokens, load.output_tokens) == (0, 0, 0)
    assert load.prefill_until_s == pytest.approx(0.0)


FORECAST = OutputForecast(mean_tokens=40.4, high_tokens=90, num_seen=12)


@pytest.mark.parametrize(
    ("max_tokens", "forecast", "output"),
    [(100, None, 100), (100, FORECAST, 40), (30, FORECAST, 30), (None, FORECAST, 40)],
    ids=["what is reserved", "forecast", "no more than allowed", "no limit"],
)
def test_expected_output(
    max_tokens: int | None, forecast: OutputForecast | None, output: int
) -> None:
    request = make_request(need_tokens=600, max_tokens=100)
    object.__setattr__(request.sampling, "max_tokens", max_tokens)
    request.forecast = forecast
    assert load_of(request, 0).output_tokens == output


@pytest.mark.parametrize(("held", "computed"), [(0, 500), (200, 300), (500, 1), (900, 1)], ids=str)
def test_one_token_of_a_prompt_is_always_computed(held: int, computed: int) -> None:
    load = load_of(make_request(need_tokens=600, max_tokens=100), held)
    assert load.prefill_tokens == computed
    assert load.prefill_tokens + load.cached_tokens == 500


def test_group_and_class_are_the_requests() -> None:
    request = make_request(objective=Objective(G, TaskGroupId("s.g"), None, 0.03, False))
    load = load_of(request, 0)
    assert (load.objective_class, load.group, load.tpot_s, load.is_bounded) == (
        G,
        "s.g",
        0.03,
        False,
    )
