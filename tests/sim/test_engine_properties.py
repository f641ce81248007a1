"""What holds for the simulated engine whatever comes: closed forms change nothing, all is freed."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import AttemptId
from parrot_backend.sim import engine_keeper, kv_names
from parrot_backend.sim.engine_parrot import ParrotRules
from parrot_backend.sim.engine_seam import SimRequest
from parrot_backend.sim.engine_vllm import VllmRules
from tests.core.hypothesis_settings import examples
from tests.sim.engine_driver import LATENCY, THROUGHPUT, Driver, group, make_spec, request

OBJECTIVES = (
    LATENCY,
    THROUGHPUT,
    group("g"),
    Objective(ObjectiveClass.LATENCY, tpot_s=0.02),
    Objective(ObjectiveClass.LATENCY, deadline_s=3.0),
)


def random_requests(
    random: Random, objectives: tuple[Objective, ...], number: int = 25
) -> list[tuple[float, SimRequest]]:
    """Return requests that share some prefixes, with the times at which they come."""
    made = []
    time_s = 0.0
    for i in range(number):
        time_s += random.choice((0.0, 0.01, 0.1, 0.5))
        shared = random.choice((20, 64, 200))
        total = shared + random.randint(1, 150)
        prompt = [(f"p{shared}", shared), (f"r{i}", total)]
        is_fill = random.random() < 0.1 and len(objectives) > 1
        more: dict[str, Any] = {"objective": random.choice(objectives), "is_fill": is_fill}
        made.append((time_s, request(f"r{i}", prompt, random.randint(1, 40), **more)))
    return made


def run(
    requests: list[tuple[float, SimRequest]], *, check: bool = False, **changes: Any
) -> dict[str, tuple[float, ...]]:
    driver = Driver(make_spec(**{"num_blocks": 60, "max_requests": 8, **changes}))
    for time_s, each in requests:
        driver.start(each, at_s=time_s)
    driver.run()
    if check:
        assert driver.is_empty
    return {
        name: (e.started_s, e.first_token_s, e.at_s, e.cached_tokens, e.computed_tokens)
        for name, e in driver.finished.items()
    }


def assert_alike(left: dict[str, tuple[float, ...]], right: dict[str, tuple[float, ...]]) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        assert values == pytest.approx(right[name]), name


def one_by_one(plan: Callable[[Any, float], int]) -> Callable[[Any, float], int]:
    return lambda rules, now_s: min(1, plan(rules, now_s))


@pytest.mark.parametrize("rules", ["vllm", "parrot"])
@given(random=st.randoms(use_true_random=False))
@examples(40, shrinks=False)
def test_steps_in_closed_form_are_the_steps_one_by_one(rules: str, random: Random) -> None:
    requests = random_requests(random, (random.choice(OBJECTIVES[:3]),))
    fast = run(requests, rules=rules, check=True)
    with pytest.MonkeyPatch.context() as patch:
        for kind in (VllmRules, ParrotRules):
            patch.setattr(kind, "plan", one_by_one(kind.plan))
        assert_alike(fast, run(requests, rules=rules))
    assert len(fast) == len(requests)


@given(random=st.randoms(use_true_random=False), which=st.sampled_from(OBJECTIVES[:3]))
@examples(40, shrinks=False)
def test_where_pacing_is_not_asked_it_would_change_nothing(
    random: Random, which: Objective
) -> None:
    requests = random_requests(random, (which,))
    short = run(requests, rules="parrot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParrotRules, "_is_alike", property(lambda rules: False))
        assert_alike(short, run(requests, rules="parrot"))


@pytest.mark.parametrize("rules", ["vllm", "parrot"])
@given(random=st.randoms(use_true_random=False), num_blocks=st.integers(24, 80))
@examples(60, shrinks=False)
def test_whatever_comes_everything_ends_and_is_given_back(
    rules: str, random: Random, num_blocks: int
) -> None:
    changes = {"rules": rules, "num_blocks": num_blocks, "max_requests": 6}
    driver = Driver(
        make_spec(**changes, max_step_tokens=random.choice((32, 512))), reports_cache=True
    )
    engine = driver.engine
    aborted: set[str] = set()
    requests = random_requests(random, OBJECTIVES)
    later_s = 0.0
    for time_s, each in requests:
        now_s = max(time_s, later_s)
        driver.start(each, at_s=now_s)
        later_s = now_s + random.choice((0.0, 0.003, 0.05))
        driver.until(later_s)
        other = AttemptId(f"r{random.randrange(len(requests))}")
        key = random.choice((b"p20", b"p64", b"p200", other.encode()))
        match random.randrange(6):
            case 0:
                engine.abort(other, later_s)
                aborted.add(other)
            case 1:
                engine.update(other, random.choice(OBJECTIVES), random.randrange(4), later_s)
            case 2:
                engine.retain(key, None, later_s)
            case 3:
                engine.retain(b"named" + other.encode(), other, later_s)
            case 4:
                engine.release((key,), later_s)
            case _:
                engine.extend(other, b"named" + other.encode(), later_s)
    driver.run()
    assert driver.times == sorted(driver.times)
    assert not driver.refused
    assert set(driver.finished) | aborted >= {each.attempt for _, each in requests}
    for key in (b"p20", b"p64", b"p200", *(f"r{i}".encode() for i in range(len(requests)))):
        engine.release((key, b"named" + key), driver.times[-1])
    assert driver.is_empty
    # What was told to be held is what is held.
    names = engine.machine.cache.names
    if names is not None:
        assert driver.held.keys() == {key for key in driver.held if names.node_of(key)}


@pytest.mark.parametrize("rules", ["vllm", "parrot"])
def test_the_same_requests_give_the_same_times(rules: str) -> None:
    requests = random_requests(Random(3), OBJECTIVES, number=80)
    assert run(requests, rules=rules) == run(requests, rules=rules)


def test_latency_sensitive_work_overtakes_and_is_held_up_less() -> None:
    bulk = [(0.0, request(f"bulk{i}", 400, 60)) for i in range(8)]
    urgent = [(0.3, request("urgent", 50, 30, objective=LATENCY))]
    both = {
        rules: run([*bulk, *urgent], rules=rules, max_requests=4, num_blocks=400)["urgent"][2]
        for rules in ("vllm", "parrot")
    }
    alone = run(urgent, rules="parrot")["urgent"][2]
    assert both["parrot"] < both["vllm"]
    # A step may take twice as long as with latency-sensitive work alone.
    assert both["parrot"] - 0.3 < 2.5 * (alone - 0.3)


@pytest.mark.parametrize("reports_cache", [False, True])
@pytest.mark.parametrize("rules", ["vllm", "parrot"])
def test_memory_does_not_grow_with_what_has_ended(
    rules: str, reports_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_keeper, "_MAX_ENDED", 50)
    monkeypatch.setattr(engine_keeper, "_MAX_CHAINS", 50)
    monkeypatch.setattr(kv_names, "_MAX_NAMES", 50)

    def left_bytes(number: int) -> int:
        driver = Driver(make_spec(rules=rules, num_blocks=100), reports_cache=reports_cache)
        tracemalloc.start()
        for i in range(number):
            prompt = [(f"p{i % 7}", 100), (f"r{i}", 150)]
            driver.start(request(f"r{i}", prompt, 20, objective=LATENCY), at_s=i * 0.3)
            driver.finished.clear()
            driver.times.clear()
        driver.run()
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return left

    left_bytes(10)
    assert left_bytes(900) < 1.2 * left_bytes(300)
