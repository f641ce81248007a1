"""What the scheduler decides is what a full scan of all engines and requests decides."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import OrderingName, PlacementName, SchedulerConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixChain, PrefixIndexConfig
from parrot_backend.core.scheduling.scheduler import Scheduler
from parrot_backend.core.step_time import StepTimeModel
from tests.core.hypothesis_settings import examples
from tests.core.rescan import Chosen, RescanScheduler
from tests.helpers.builders import make_chain, make_engine, make_objective, make_request
from tests.helpers.compiled import needs_python

needs_python("the full scan is a subclass")

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT
OBJECTIVES = [
    make_objective(L),
    make_objective(L),
    replace(make_objective(L), is_bounded=False),
    make_objective(G, "s.g"),
    replace(make_objective(G, "s.h"), is_bounded=False),
    make_objective(T),
    make_objective(L, deadline_s=5.0),
    Objective(T, None, tpot_s=0.02),
    Objective(L, None, tpot_s=0.03),
]
MAX_WAIT_S = 20.0


def attempt_of(request: Request) -> AttemptId:
    return AttemptId(f"{request.id}~1")


class Pair:
    """The scheduler and the full scan, told the same; they must decide the same."""

    def __init__(self, rng: random.Random, config: SchedulerConfig, profile: str) -> None:
        prefixes = PrefixIndexConfig(max_prefixes_per_engine=rng.choice([4, 64]))
        self.rng = rng
        self.real = Scheduler(config, prefixes)
        self.scan = RescanScheduler(config, prefixes)
        self.both = (self.real, self.scan)
        self.twins: dict[str, tuple[Request, Request]] = {}
        self.running: list[tuple[EngineId, AttemptId]] = []
        self.now_s = 0.0
        self.is_alike = profile == "alike"
        self.models: list[str | None] = ["m"] if self.is_alike else ["m", "m", "n", None]
        self.num_engines = 0
        self.num_placed = 0

    def join(self) -> None:
        capacity, latency, slots = 1000, 300, 8
        models: tuple[str, ...] = ("m",)
        if not self.is_alike:
            capacity, latency = self.rng.choice([(1000, 300), (500, 500), (2000, 300), (990, 290)])
            slots = self.rng.choice([1, 3, 8, 64])
            models = self.rng.choice([("m",), ("m",), ("m", "n"), ("n",)])
        info = make_engine(
            f"e{self.num_engines}",
            models=models,
            capacity_tokens=capacity,
            latency_capacity_tokens=latency,
            max_requests=slots,
        )
        self.num_engines += 1
        for scheduler in self.both:
            scheduler.add_engine(info, self.now_s)

    def submit(self) -> None:
        rng, number = self.rng, len(self.twins)
        fields: dict[str, Any] = {
            "order": number,
            "session_order": rng.choice([number, rng.randrange(50)]),
            "depth": rng.randrange(3),
            "need_tokens": rng.choice([20, 60, 100, 100, 100, 250, 400, 2500]),
            "objective": rng.choice(OBJECTIVES),
            "prefixes": self.chain(),
            "ready_s": self.now_s,
            "model": rng.choice(self.models),
            "avoided": [f"e{rng.randrange(3)}"] if rng.random() < 0.08 else [],
        }
        twins = (make_request(f"r{number}", **fields), make_request(f"r{number}", **fields))
        self.twins[f"r{number}"] = twins
        for scheduler, request in zip(self.both, twins, strict=True):
            scheduler.enqueue(request)

    def chain(self) -> PrefixChain:
        names = self.rng.choice(["", "a", "a", "ab", "abc", "abd", "x", "xy", "u"])
        if names == "u":
            names = f"a{len(self.twins)}"
        return make_chain(*((names[: i + 1], 40 * (i + 1)) for i in range(min(3, len(names)))))

    def finish(self) -> None:
        if self.running:
            engine, attempt = self.running.pop(self.rng.randrange(len(self.running)))
            for scheduler in self.both:
                scheduler.release(engine, attempt)

    def withdraw(self) -> None:
        if self.twins:
            for scheduler, request in zip(self.both, self.pick(), strict=True):
                scheduler.withdraw(request)

    def change(self) -> None:
        if self.twins:
            objective: Objective = self.rng.choice(OBJECTIVES)
            for scheduler, request in zip(self.both, self.pick(), strict=True):
                scheduler.set_objective(request, objective)

    def pick(self) -> tuple[Request, Request]:
        return self.twins[self.rng.choice(list(self.twins))]

    def report(self) -> None:
        if self.real.engines:
            engine = self.rng.choice(list(self.real.engines))
            held, lost = make_chain(("a", self.rng.choice([35, 40, 50]))), make_chain(("ab", 80))
            for scheduler in self.both:
                scheduler.prefixes.report(engine, held, [b.hash for b in lost])

    def measure(self) -> None:
        """An engine says how fast it is."""
        if self.real.engines:
            engine = self.rng.choice(list(self.real.engines))
            base_s = self.rng.choice([0.01, 0.02, 0.035])
            step_time = StepTimeModel(base_s, 1e-4, 1e-3, 2e-6, 0.0, num_samples=9, error=0.1)
            for scheduler in self.both:
                scheduler.engines[engine].step_time = step_time
                scheduler.note(scheduler.engines[engine])

    def begin(self) -> None:
        """The prompt of a running attempt is computed."""
        if self.running:
            _, attempt = self.rng.choice(self.running)
            for scheduler, request in zip(self.both, self.twins[attempt[:-2]], strict=True):
                scheduler.begin(request, self.now_s)

    def lose(self) -> None:
        if len(self.real.engines) > 1:
            engine = self.rng.choice(list(self.real.engines))
            for scheduler in self.both:
                gone = scheduler.remove_engine(engine).running
            self.running = [(e, a) for e, a in self.running if a not in gone]

    def schedule(self) -> None:
        made = self.real.schedule(self.now_s, attempt_of)
        expected: Chosen = self.scan.decide(self.now_s, attempt_of)
        assert [(p.request.id, p.engine) for p in made] == [(r.id, e) for r, e in expected]
        for twin, engine in [(p.request, p.engine) for p in made] + expected:
            twin.engine, twin.attempt = engine, attempt_of(twin)
        self.running += [(p.engine, attempt_of(p.request)) for p in made]
        self.num_placed += len(made)

    def wait(self) -> None:
        self.now_s += self.rng.choice([0.1, 1.0, 6.0])


def play(seed: int, config: SchedulerConfig, profile: str, num_events: int) -> Pair:
    rng = random.Random(seed)
    pair = Pair(rng, config, profile)
    for _ in range(rng.choice([1, 3, 12, 30])):
        pair.join()
    rare = [pair.withdraw, pair.change, pair.report, pair.lose, pair.join, pair.wait]
    rare += [pair.measure, pair.begin]
    for _ in range(num_events):
        action = rng.choice([pair.submit, pair.submit, pair.submit, pair.finish, pair.finish])
        (rng.choice(rare) if rng.random() < 0.15 else action)()
        if rng.random() < 0.8:
            pair.schedule()
    return pair


@pytest.mark.parametrize("ordering", [None, "application"])
@pytest.mark.parametrize("profile", ["alike", "mixed"])
@pytest.mark.parametrize("placement", get_args(PlacementName))
@examples(25, shrinks=False)
@given(seed=st.integers(0, 2**32))
def test_decisions_are_those_of_a_full_scan(
    placement: PlacementName, profile: str, ordering: OrderingName | None, seed: int
) -> None:
    config = SchedulerConfig(placement=placement, ordering=ordering, max_wait_s=MAX_WAIT_S)
    assert play(seed, config, profile, 120).num_placed > 0
