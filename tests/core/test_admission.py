"""What ``cost`` lets an engine take beside what runs there."""

from __future__ import annotations

import pytest

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.engine_load import load_of
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.nodes import Request
from parrot_backend.core.scheduling.admission import Added, admits, is_bounded
from parrot_backend.core.scheduling.cost_terms import work_of
from parrot_backend.core.step_time import StepTimeModel
from tests.core.clusters import make_view
from tests.helpers.builders import make_engine_state, make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT
#: 10 ms for a step and 10 us for a token of context.
MODEL = StepTimeModel(0.01, 1e-4, 0.0, 1e-5, 0.0, num_samples=9, error=0.1)
#: Slow even with one request: 60 ms.
SLOW = StepTimeModel(0.05, 1e-4, 0.0, 1e-5, 0.0, num_samples=9, error=0.1)


def ask(
    objective_class: ObjectiveClass,
    tokens: int = 1000,
    tpot_s: float | None = None,
    *,
    bounded: bool = True,
) -> Request:
    """Return a request that reads so many tokens in each step."""
    objective = Objective(objective_class, None, None, tpot_s, bounded)
    return make_request(need_tokens=tokens + 1, max_tokens=1, objective=objective)


def engine(*running: Request, model: StepTimeModel | None = MODEL) -> EngineState:
    state = make_engine_state(capacity_tokens=20_000, latency_capacity_tokens=3000, max_requests=8)
    state.step_time = model
    for number, request in enumerate(running):
        objective = request.objective
        state.add(
            AttemptId(f"a{number}"),
            request.need_tokens,
            is_latency=objective.objective_class is L,
            is_bounded=objective.is_bounded,
            now_s=0.0,
            load=load_of(request, 0),
        )
    return state


def is_admitted(state: EngineState, request: Request, config: CostConfig) -> bool:
    work = work_of(request, config, 0.0)
    added = Added(1, request.need_tokens, work.context_tokens)
    view = make_view(state, queued=[request])
    objective_class = request.objective.objective_class
    return admits(state, added, work, objective_class, config, is_bounded=is_bounded(request, view))


CONFIG, EVEN = CostConfig(), CostConfig(bounds_latency=True)
NO_BOUND = CostConfig(latency_tpot_s=None)

#: name: (engine, request, settings, admitted?)
ADMITTED: dict[str, tuple[EngineState, Request, CostConfig, bool]] = {
    "anything on an idle engine": (engine(), ask(T, 99_999), CONFIG, True),
    "no more than there is room for": (engine(ask(T, 15_000)), ask(L, 6000), CONFIG, False),
    "latency work without targets as much as fits": (engine(*[ask(L)] * 7), ask(L), CONFIG, True),
    "a group as much as fits": (engine(*[ask(L)] * 7), ask(G), CONFIG, True),
    "bulk beside latency work within 40 ms": (engine(ask(L, 2000)), ask(T), CONFIG, True),
    "bulk beside latency work beyond": (engine(ask(L, 2100)), ask(T), CONFIG, False),
    "bulk with a long context, within twice what it takes": (
        *(engine(ask(L)), ask(T, 5000), CONFIG, True),
    ),
    "bulk beside a group and bulk alone": (engine(*[ask(T)] * 4, ask(G)), ask(T), CONFIG, True),
    "bulk without that bound": (engine(ask(L)), ask(T, 9000), NO_BOUND, True),
    "bulk beside a target": (engine(ask(L, tpot_s=0.025)), ask(T), NO_BOUND, False),
    "bulk that is not bounded": (engine(ask(L)), ask(T, 9000, bounded=False), CONFIG, True),
    "latency work within a target": (engine(ask(L, tpot_s=0.031)), ask(L), CONFIG, True),
    "latency work beyond a target": (engine(ask(L, tpot_s=0.029)), ask(L), CONFIG, False),
    "latency work beyond its own target": (engine(ask(L)), ask(L, tpot_s=0.029), CONFIG, False),
    "a target does not wait for bulk work": (
        *(engine(*[ask(T)] * 4), ask(L, tpot_s=0.021), CONFIG, True),
    ),
    "latency work among itself within 40 ms": (engine(ask(L, 2000)), ask(L), EVEN, True),
    "latency work among itself beyond": (engine(ask(L, 2100)), ask(L), EVEN, False),
    "twice of what a slow engine takes alone": (engine(ask(L), model=SLOW), ask(T), CONFIG, True),
    "more than twice": (engine(ask(L, 8000), model=SLOW), ask(T), CONFIG, False),
    "by the capacity while times are not known": (
        *(engine(ask(L), model=None), ask(T, 1900), CONFIG, True),
    ),
    "over the capacity while times are not known": (
        *(engine(ask(L), model=None), ask(T, 2100), CONFIG, False),
    ),
    "latency work without targets while times are not known": (
        *(engine(*[ask(L)] * 5, model=None), ask(L), CONFIG, True),
    ),
}


@pytest.mark.parametrize(
    ("state", "request_", "config", "expected"), ADMITTED.values(), ids=ADMITTED
)
def test_admission(
    state: EngineState, request_: Request, config: CostConfig, expected: bool
) -> None:
    assert is_admitted(state, request_, config) is expected


@pytest.mark.parametrize(("objective_class", "bounded"), [(T, False), (G, False), (L, True)])
def test_what_is_old_needs_room_only_unless_it_is_latency_work(
    objective_class: ObjectiveClass, bounded: bool
) -> None:
    request = ask(objective_class)
    view = make_view(engine(), queued=[request])
    assert is_bounded(request, view)
    view.queue.promote_old(now_s=31.0)
    assert is_bounded(request, view) is bounded
