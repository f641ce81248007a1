"""What every placement policy keeps to, on random clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import CostConfig, SchedulerConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.scheduling.cost import CostPlacement
from parrot_backend.core.scheduling.paper import PaperPlacement
from parrot_backend.core.scheduling.placement import ClusterView, PlacementPolicy
from parrot_backend.core.scheduling.policies import PLACEMENTS
from tests.core.clusters import make_loaded_engine, make_view
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_chain, make_objective, make_request

OBJECTIVES = [
    make_objective(ObjectiveClass.LATENCY),
    make_objective(ObjectiveClass.TASK_GROUP, "s.g"),
    make_objective(ObjectiveClass.TASK_GROUP, "s.h"),
    make_objective(ObjectiveClass.THROUGHPUT),
]
CHAINS = [(), make_chain(("p", 60)), make_chain(("p", 60)), make_chain(("p", 60), ("pq", 90))]
POLICIES = [
    *(pytest.param(make(SchedulerConfig())[0], id=name) for name, make in PLACEMENTS.items()),
    pytest.param(CostPlacement(CostConfig(splits_groups=False)), id="cost-whole-groups"),
]


@st.composite
def views(draw: st.DrawFn) -> ClusterView:
    """Draw engines with some load, queued requests, and what the engines hold."""
    loads = st.lists(st.tuples(st.sampled_from([50, 150, 400]), st.booleans()), max_size=4)
    engines = [
        make_loaded_engine(f"e{i}", *draw(loads), max_requests=draw(st.sampled_from([1, 3, 8])))
        for i in range(draw(st.integers(1, 3)))
    ]
    queued = [
        draw_request(draw, f"r{i}", i, draw(st.sampled_from(OBJECTIVES)))
        for i in range(draw(st.integers(1, 6)))
    ]
    held: dict[str, PrefixChain] = {engine.id: draw(st.sampled_from(CHAINS)) for engine in engines}
    return make_view(*engines, queued=queued, held=held, max_shared=draw(st.integers(1, 8)))


def draw_request(draw: st.DrawFn, name: str, order: int, objective: Objective) -> Request:
    return make_request(
        name,
        order=order,
        need_tokens=draw(st.sampled_from([100, 200, 500, 2000])),
        objective=objective,
        prefixes=draw(st.sampled_from(CHAINS)),
        avoided=draw(st.lists(st.sampled_from(["e0", "e1"]), unique=True, max_size=2)),
    )


def by_id(view: ClusterView) -> dict[str, EngineState]:
    return {engine.id: engine for engine in view.engines}


@pytest.mark.parametrize("policy", POLICIES)
@examples(50)
@given(view=views())
def test_every_placed_request_is_queued_and_placed_once(
    policy: PlacementPolicy, view: ClusterView
) -> None:
    placed = [request.id for request, _, _ in policy.place(view.queue[0], view)]
    assert len(placed) == len(set(placed))
    assert set(placed) <= {request.id for request in view.queue}


@pytest.mark.parametrize("policy", POLICIES)
@examples(50)
@given(view=views())
def test_request_itself_is_placed_if_anything_is(
    policy: PlacementPolicy, view: ClusterView
) -> None:
    placements = policy.place(view.queue[0], view)
    assert not placements or view.queue[0].id in {request.id for request, _, _ in placements}


@pytest.mark.parametrize("policy", POLICIES)
@examples(50)
@given(view=views())
def test_no_request_goes_where_it_failed_while_there_is_another_engine(
    policy: PlacementPolicy, view: ClusterView
) -> None:
    for request, engine, _ in policy.place(view.queue[0], view):
        if engine in request.avoided:
            assert all(other.id in request.avoided for other in view.engines)


@pytest.mark.parametrize("policy", POLICIES)
@examples(150)
@given(view=views())
def test_each_engine_admits_every_request_after_those_placed_before(
    policy: PlacementPolicy, view: ClusterView
) -> None:
    is_blind = not isinstance(policy, PaperPlacement)  # or bounds by what it predicts
    placements = policy.place(view.queue[0], view)
    for request, engine_id, _ in placements:
        engine = by_id(view)[engine_id]
        objective = request.objective.objective_class
        need = view.need_tokens(engine, [request])
        assert engine.fits(need)
        assert is_blind or engine.admits(objective, need)
        is_latency = objective is ObjectiveClass.LATENCY
        engine.add(AttemptId(request.id), need, is_latency=is_latency, now_s=0.0)
        view.prefixes.record(engine.id, request.prefixes)


@pytest.mark.parametrize("policy", POLICIES)
@examples(50)
@given(view=views())
def test_idle_engine_that_did_not_fail_it_means_a_placement(
    policy: PlacementPolicy, view: ClusterView
) -> None:
    request = view.queue[0]
    idle = [e for e in view.engines if not e.running and e.id not in request.avoided]
    assert not idle or policy.place(request, view)
