from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.step_time import StepTimeModel, StepWork
from parrot_backend.sim.latency import LinearLatency, ScaledLatency, step_time_of, steps_within
from parrot_backend.sim.latency_models import (
    A100_13B_DISTSERVE,
    A100_13B_VLLM_ARTIFACT,
    PUBLISHED_ENGINES,
)
from parrot_backend.sim.spec import LatencyModel
from tests.core.hypothesis_settings import examples

MODELS: dict[str, LatencyModel] = {name: e.latency for name, e in PUBLISHED_ENGINES.items()}
MODELS["scaled"] = ScaledLatency(A100_13B_DISTSERVE.latency, 3.0)


@pytest.mark.parametrize("name", MODELS)
@given(decodes=st.integers(1, 200), context=st.integers(0, 100_000), steps=st.integers(0, 60))
@examples(30)
def test_a_run_takes_as_long_as_its_steps(
    name: str, decodes: int, context: int, steps: int
) -> None:
    model = MODELS[name]
    each = [
        model.step_s(StepWork(decodes=decodes, context_tokens=context + i * decodes))
        for i in range(steps)
    ]
    assert model.decode_run_s(decodes, context, steps) == pytest.approx(sum(each))


@given(
    decodes=st.integers(1, 64),
    context=st.integers(0, 50_000),
    most=st.integers(1, 500),
    share=st.floats(0, 1.5),
)
@examples(100)
def test_a_step_in_progress_counts(decodes: int, context: int, most: int, share: float) -> None:
    model = A100_13B_DISTSERVE.latency
    elapsed_s = share * model.decode_run_s(decodes, context, most)
    steps = steps_within(model, decodes, context, elapsed_s, most)
    assert 1 <= steps <= most
    assert steps == most or model.decode_run_s(decodes, context, steps) >= elapsed_s
    assert steps == 1 or model.decode_run_s(decodes, context, steps - 1) < elapsed_s


@pytest.mark.parametrize(
    ("work", "expected_ms"),
    [
        (StepWork(decodes=1, context_tokens=1000), 19.93470262 + 0.6269356524 + 0.03850697741),
        (StepWork(decodes=95, context_tokens=0), 7.166188947 + 95 * 0.1583109619),
        (StepWork.prefill(1000, 0), 18.10254647 + 101.9122573 + 7.122264314),
        # Both: the longer base once.
        (
            StepWork.prefill(1000, 0) + StepWork.decode(1000),
            19.93470262 + 0.6269356524 + 0.03850697741 + 101.9122573 + 7.122264314,
        ),
    ],
)
def test_distserve_by_hand(work: StepWork, expected_ms: float) -> None:
    assert A100_13B_DISTSERVE.latency.step_s(work) * 1e3 == pytest.approx(expected_ms)


def test_an_engine_that_never_mixes_takes_both_steps() -> None:
    latency = A100_13B_VLLM_ARTIFACT.latency
    prefill, decode = StepWork.prefill(500, 0), StepWork.decode(550)
    both_s = latency.step_s(prefill) + latency.step_s(decode)
    assert latency.step_s(prefill + decode) == pytest.approx(both_s)
    assert latency.step_s(decode) == pytest.approx(21.0e-3, rel=0.001)


def test_what_is_learnt_of_a_linear_engine_is_itself() -> None:
    model = StepTimeModel(0.01, 1e-4, 1e-5, 1e-7, 1e-9, 0, 0.0)
    assert step_time_of(LinearLatency(model)) is model


def test_what_is_learnt_of_another_engine_is_near() -> None:
    latency = ScaledLatency(A100_13B_DISTSERVE.latency, 2.0)
    model = step_time_of(latency)
    for work in (StepWork(0, 16, 16_000, 0), StepWork.prefill(1024, 0)):
        assert model.predict_s(work) == pytest.approx(latency.step_s(work), rel=0.15)


def test_published_engines_have_a_source() -> None:
    for name, engine in PUBLISHED_ENGINES.items():
        assert name == engine.name
        assert len(engine.source) > 40
        assert engine.kv_tokens > 10_000
