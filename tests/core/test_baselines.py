"""The baseline policies: request by request, and blind to what the application wants."""

from __future__ import annotations

from typing import Any

import pytest

from parrot_backend.core.config import PlacementName, SchedulerConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixIndexConfig
from parrot_backend.core.scheduling.baselines import FcfsPlacement, LeastLoadedPlacement
from parrot_backend.core.scheduling.placement import PlacementPolicy
from parrot_backend.core.scheduling.scheduler import Scheduler
from tests.core.clusters import LATENCY_LOAD, THROUGHPUT_LOAD, make_loaded_engine, make_view, placed
from tests.helpers.builders import make_chain, make_engine, make_objective, make_request

LATENCY = make_objective(ObjectiveClass.LATENCY)
GROUP = make_objective(ObjectiveClass.TASK_GROUP, "s.g")


def engine(name: str, *tokens: int, models: tuple[str, ...] = ("m",)) -> EngineState:
    return make_loaded_engine(name, *((t, THROUGHPUT_LOAD) for t in tokens), models=models)


Case = tuple[list[EngineState], Request, str | None]


def request(**rest: Any) -> Request:
    return make_request("r", **rest)


FCFS: dict[str, Case] = {
    "the first engine": ([engine("a", 100), engine("b")], request(), "a"),
    "the first with room": ([engine("a", 950), engine("b")], request(), "b"),
    "none with room": ([engine("a", 950)], request(), None),
    "too large, but one is idle": (
        [engine("a", 1), engine("b")],
        request(need_tokens=5000),
        "b",
    ),
    "the first that did not fail it": (
        [engine("a"), engine("b")],
        request(avoided=["a"]),
        "b",
    ),
    "a failed one when there is no other": ([engine("a")], request(avoided=["a"]), "a"),
}
LEAST_LOADED: dict[str, Case] = {
    "fewest requests": ([engine("a", 1, 1), engine("b", 500)], request(), "b"),
    "fewest tokens of equals": ([engine("a", 500), engine("b", 400)], request(), "b"),
    "the oldest of equals": ([engine("b"), engine("a")], request(), "b"),
    "with room": ([engine("a", 950), engine("b", 1, 1)], request(), "b"),
    "none with room": ([engine("a", 950)], request(), None),
    "that did not fail it": (
        [engine("a"), engine("b", 1)],
        request(avoided=["a"]),
        "b",
    ),
}
CASES = [
    pytest.param(policy, *case, id=f"{name}: {what}")
    for name, policy, cases in [
        ("fcfs", FcfsPlacement(), FCFS),
        ("least_loaded", LeastLoadedPlacement(), LEAST_LOADED),
    ]
    for what, case in cases.items()
]
POLICIES = [
    pytest.param(FcfsPlacement(), id="fcfs"),
    pytest.param(LeastLoadedPlacement(), id="least_loaded"),
]


@pytest.mark.parametrize(("policy", "engines", "request_", "expected"), CASES)
def test_engine(
    policy: PlacementPolicy, engines: list[EngineState], request_: Request, expected: str | None
) -> None:
    found = placed(policy.place(request_, make_view(*engines, queued=[request_])))
    assert found == ({} if expected is None else {"r": expected})


@pytest.mark.parametrize("policy", POLICIES)
def test_group_is_not_placed_together(policy: PlacementPolicy) -> None:
    group = [make_request(f"g{i}", objective=GROUP, order=i) for i in range(3)]
    assert len(policy.place(group[0], make_view(engine("a"), queued=group))) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_prefix_does_not_attract(policy: PlacementPolicy) -> None:
    chain = make_chain(("p", 60))
    request = make_request("r", prefixes=chain)
    view = make_view(engine("a"), engine("b"), queued=[request], held={"b": chain})
    assert placed(policy.place(request, view)) == {"r": "a"}


@pytest.mark.parametrize("policy", POLICIES)
def test_latency_request_is_placed_like_any_other(policy: PlacementPolicy) -> None:
    request = make_request("r", objective=LATENCY)
    busy_with_latency = make_loaded_engine("b", (1, LATENCY_LOAD))
    assert placed(policy.place(request, make_view(engine("a"), busy_with_latency))) == {"r": "a"}


@pytest.mark.parametrize("policy", POLICIES)
def test_placement_tells_why(policy: PlacementPolicy) -> None:
    placements = policy.place(make_request("r"), make_view(engine("a")))
    assert all(reason for _, _, reason in placements)


@pytest.mark.parametrize("placement", ["fcfs", "least_loaded"])
def test_latency_requests_do_not_lower_the_capacity(placement: PlacementName) -> None:
    scheduler = Scheduler(SchedulerConfig(placement=placement), PrefixIndexConfig())
    scheduler.add_engine(make_engine(capacity_tokens=1000, latency_capacity_tokens=300), 0.0)
    for number in range(6):
        scheduler.enqueue(make_request(f"r{number}", objective=LATENCY, order=number))
    made = scheduler.schedule(0.0, lambda request: AttemptId(request.id))
    assert len(made) == 6
