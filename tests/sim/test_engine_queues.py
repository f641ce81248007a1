"""The simulated engine against queues of which the answer is known."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.latency import LinearLatency
from parrot_backend.sim.latency_models import A100_7B
from tests.sim.engine_driver import LATENCY, Driver, group, make_spec, request

#: A step takes 10 ms whatever it computes.
CONSTANT = LinearLatency(StepTimeModel(0.01, 0.0, 0.0, 0.0, 0.0, 100, 0.0))


@pytest.mark.parametrize("rules", ["vllm", "parrot"])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.85])
def test_one_place_is_a_queue_with_constant_service(rules: str, load: float) -> None:
    """Pollaczek and Khinchine: the mean wait is ``load * service / (2 * (1 - load))``."""
    num, steps = 4000, 20
    service_s = steps * 0.01
    driver = Driver(make_spec(latency=CONSTANT, max_requests=1, rules=rules))
    random, time_s, arrivals = Random(7), 0.0, {}
    for i in range(num):
        time_s += random.expovariate(load / service_s)
        arrivals[f"r{i}"] = time_s
        driver.start(request(f"r{i}", 10, steps), at_s=time_s)
    driver.run()
    waits_s = [driver.finished[name].started_s - at_s for name, at_s in arrivals.items()]
    expected_s = load * service_s / (2 * (1 - load))
    assert sum(waits_s) / num == pytest.approx(expected_s, rel=0.12)


@pytest.mark.parametrize("places", [1, 4, 16])
def test_a_full_engine_serves_as_many_as_it_has_places(places: int) -> None:
    num, steps = 160, 25
    driver = Driver(make_spec(latency=CONSTANT, max_requests=places))
    driver.start(*(request(f"r{i}", 10, steps) for i in range(num)))
    driver.run()
    assert max(driver.times) == pytest.approx(num / places * steps * 0.01)


def test_little_holds() -> None:
    """The mean number in the engine is the rate times the mean time in it."""
    driver = Driver(make_spec(latency=CONSTANT, max_requests=8))
    random, time_s, arrivals = Random(1), 0.0, {}
    for i in range(3000):
        time_s += random.expovariate(20.0)
        arrivals[f"r{i}"] = time_s
        driver.start(request(f"r{i}", 10, 20), at_s=time_s)
    driver.run()
    end_s = max(driver.times)
    changes = sorted(
        [(at_s, 1) for at_s in arrivals.values()] + [(e.at_s, -1) for e in driver.finished.values()]
    )
    area, number, last_s = 0.0, 0, 0.0
    for at_s, change in changes:
        area += number * (at_s - last_s)
        number, last_s = number + change, at_s
    in_engine_s = [driver.finished[name].at_s - at_s for name, at_s in arrivals.items()]
    assert area / end_s == pytest.approx(3000 / end_s * sum(in_engine_s) / 3000)


def beside_a_group(rules: str, tpot_s: float | None = None) -> tuple[float, float]:
    """Return when a request ends that somebody waits for, and when a group that comes meanwhile."""
    spec = make_spec(latency=A100_7B.latency, num_blocks=10_000, max_requests=64, rules=rules)
    driver = Driver(spec)
    driver.start(request("chat", 500, 400, objective=replace(LATENCY, tpot_s=tpot_s)))
    members = [request(f"g{i}", 2000, 50, objective=group("g")) for i in range(10)]
    driver.start(*members, at_s=1.0)
    driver.run()
    ends_s = {name: event.at_s for name, event in driver.finished.items()}
    return ends_s.pop("chat"), max(ends_s.values())


def test_a_group_beside_a_request_is_as_fast_as_without_pacing() -> None:
    assert beside_a_group("parrot") == pytest.approx(beside_a_group("vllm"), rel=0.01)


def test_a_target_is_kept_from_a_group_at_its_cost() -> None:
    chat_s, group_s = beside_a_group("parrot")
    kept_s, held_s = beside_a_group("parrot", tpot_s=0.02)
    assert kept_s <= chat_s * 1.01
    assert held_s > 1.3 * group_s
