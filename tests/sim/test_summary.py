from __future__ import annotations

import math
from dataclasses import replace

import pytest

from parrot_backend.sim.program import Arrival
from parrot_backend.sim.records import CallRecord, JobRecord
from parrot_backend.sim.simulation import Ending, Simulation
from parrot_backend.sim.summary import Summary, spread_of
from tests.sim.constant_engine import ConstantEngine, make_spec
from tests.sim.programs import CONFIG, NO_NETWORK, make_chain

CALL = CallRecord(0, "app", "a", 0, 1.0, 1.5, 2.0, 4.0, 100, 60, 50, 21)
JOB = JobRecord(0, "app", "default", 0.5, 4.5, 1, 20)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1.0, 1.0, 1.0, 1.0)), (2, (1.5, 1.0, 2.0, 2.0)), (100, (50.5, 50.0, 90.0, 99.0))],
)
def test_percentiles_are_values_that_were_there(
    count: int, expected: tuple[float, float, float, float]
) -> None:
    spread = spread_of(float(n) for n in range(count, 0, -1))
    assert (spread.mean, spread.p50, spread.p90, spread.p99) == expected
    assert spread.count == count


def test_records_are_summed_up() -> None:
    summary = Summary()
    summary.call(CALL)
    summary.call(replace(CALL, app="other", attempts=2, output_tokens=1, finished_s=2.0))
    summary.job(JOB)
    summary.job(replace(JOB, app="other", failed="no_engine: gone", finished_s=10.5))
    summary.job(replace(JOB, app="other", failed="unfinished: the simulation ended (time)"))
    result = summary.result(Ending("time", 20.0, 3, 1, (5.0, 0.0)))
    app, other, total = result.apps["app"], result.apps["other"], result.total
    assert (app.num_jobs, app.num_failed, app.num_unfinished) == (1, 0, 0)
    assert (other.num_jobs, other.num_failed, other.num_unfinished) == (0, 1, 1)
    assert (total.num_jobs, total.num_calls, total.num_retried) == (1, 2, 1)
    assert (app.job_s.mean, app.normalised_s.mean) == (4.0, 4.0 / 20)
    assert (app.ttft_s.mean, app.tpot_s.mean, app.queue_s.mean) == (1.0, 0.1, 0.5)
    assert (other.tpot_s.count, math.isnan(other.tpot_s.mean)) == (0, True)
    assert (app.hit_rate, app.computed_tokens, app.recomputed_tokens) == (0.6, 50, 10)
    assert (result.span_s, result.jobs_per_s, result.calls_per_s) == (10.0, 0.1, 0.2)
    assert result.output_tokens_per_s == 2.2
    assert result.busy_shares == (0.25, 0.0)


def test_a_simulation_can_be_summed_up() -> None:
    summary = Summary()
    arriving = [Arrival(10.0 * number, make_chain(2)) for number in range(5)]
    specs = [make_spec(rules="vllm", caches_prefixes=False)]
    simulation = Simulation(
        CONFIG, specs, NO_NETWORK, arriving, 1, summary, create_engine=ConstantEngine
    )
    result = summary.result(simulation.run())
    expected_s = 0.1 + 0.2 + 0.12 + 0.2
    assert result.total.job_s.p99 == pytest.approx(expected_s)
    assert result.total.num_calls == 10
    assert result.busy_shares == pytest.approx((5 * expected_s / (40 + expected_s),))


def test_nothing_sums_up_to_nothing() -> None:
    result = Summary().result(Ending("done", 0.0, 0, 0, (0.0,)))
    assert (result.total.num_jobs, result.apps, result.span_s) == (0, {}, 0.0)
    assert math.isnan(result.jobs_per_s)
    assert math.isnan(result.total.hit_rate)
