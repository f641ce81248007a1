"""The simulated engine is as fast as the real vLLM of a published timeline."""

from __future__ import annotations

import pytest

from benchmarks.validate_engine import NUM_FITTED, errors, read_timeline, simulate
from parrot_backend.sim.latency_models import RTX4090_LLAMA31_8B


@pytest.mark.parametrize("first", [0, NUM_FITTED], ids=["all", "held out"])
def test_means_are_within_the_bounds(first: int) -> None:
    timeline = read_timeline()
    found = errors(simulate(RTX4090_LLAMA31_8B.latency, timeline)[first:], timeline[first:])
    assert abs(found.tpot) < 0.03
    assert abs(found.ttft) < 0.08
    assert abs(found.latency) < 0.04


def test_the_last_token_comes_within_a_hundredth() -> None:
    timeline = read_timeline()
    simulated = simulate(RTX4090_LLAMA31_8B.latency, timeline)
    last_s = max(timed.last_token_s for timed in simulated)
    assert last_s == pytest.approx(max(timed.last_token_s for timed in timeline), rel=0.01)
