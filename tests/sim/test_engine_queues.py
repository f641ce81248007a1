"""The simulated engine against queues of which the answer is known."""

from __future__ import annotations

from random import Random

import pytest

from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.sim.latency import LinearLatency
from tests.sim.engine_driver import Driver, make_spec, request

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
