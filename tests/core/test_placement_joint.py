"""The placement ``cost``: task groups, and queued requests that share a prefix, over engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_load import load_of
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.scheduling.admission import Added, admits, is_bounded
from parrot_backend.core.scheduling.cost import CostPlacement
from parrot_backend.core.scheduling.cost_terms import work_of
from parrot_backend.core.scheduling.placement import ClusterView
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.core.working_set import WorkingSet
from tests.core.clusters import make_view
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_chain, make_engine_state, make_objective, make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT
#: 10 ms for a step, 0.1 ms for a prompt token, 1 ms for a decode, 1 us for a token of context.
MODEL = StepTimeModel(0.01, 1e-4, 1e-3, 1e-6, 0.0, num_samples=9, error=0.1)
CONFIG = CostConfig()
WHOLE = CostConfig(splits_groups=False)
SHARED = make_chain(("s", 20_000))  # two seconds of prefill


def member(
    name: str,
    prompt_tokens: int = 1000,
    output_tokens: int = 50,
    prefixes: PrefixChain = (),
    objective: ObjectiveClass = G,
    group: str | None = "s.g",
    avoided: Sequence[str] = (),
) -> Request:
    return make_request(
        name,
        order=int(name[1:]),
        need_tokens=prompt_tokens + output_tokens,
        max_tokens=output_tokens,
        prefixes=prefixes,
        objective=make_objective(objective, group if objective is G else None),
        avoided=avoided,
    )


def group(
    number: int, prompt_tokens: int = 1000, prefixes: PrefixChain = (), output_tokens: int = 50
) -> list[Request]:
    return [member(f"m{i}", prompt_tokens, output_tokens, prefixes=prefixes) for i in range(number)]


def engine(name: str, *running: Request, capacity_tokens: int = 200_000) -> EngineState:
    """Return an engine whose room is counted by the working set."""
    state = make_engine_state(name, capacity_tokens=capacity_tokens, max_requests=64)
    state.order, state.step_time = int(name[1:]), MODEL
    state.working_set = WorkingSet(min_tokens=32)
    for number, request in enumerate(running):
        run(state, request, f"{name}-{number}", 0)
    return state


def run(state: EngineState, request: Request, name: str, resident_tokens: int) -> None:
    """Account for a request as the scheduler does."""
    state.add(
        AttemptId(name),
        state.added_tokens(request, resident_tokens),
        is_latency=request.objective.objective_class is L,
        is_bounded=request.objective.is_bounded,
        now_s=0.0,
        load=load_of(request, resident_tokens),
        chain=request.sharing,
    )


def spread(view: ClusterView, config: CostConfig = CONFIG) -> dict[str, int]:
    """Return how many requests each engine gets."""
    placements = CostPlacement(config).place(view.queue[0], view)
    return dict(Counter(str(placement.engine) for placement in placements))


def three(**more: int) -> list[EngineState]:
    return [engine(f"e{i}", **more) for i in range(3)]


BUSY = [member(f"x{i}", 1000, 200, objective=L) for i in range(8)]

#: name: (engines, the group, what engines hold, settings, how many each gets)
GROUPS: dict[
    str,
    tuple[list[EngineState], list[Request], dict[str, PrefixChain], CostConfig, dict[str, int]],
] = {
    "nothing shared: evenly over idle engines": (
        three(),
        *(group(6), {}, CONFIG, {"e0": 2, "e1": 2, "e2": 2}),
    ),
    "nothing shared, but one engine for all was asked for": (
        three(),
        *(group(6), {}, WHOLE, {"e0": 6}),
    ),
    "a shared prefix that is dear: together": (
        three(),
        *(group(4, 20_100, SHARED, 5), {}, CONFIG, {"e0": 4}),
    ),
    "so many that queueing costs more than the prefix once more": (
        three(),
        *(group(60, 20_500, SHARED, 5), {}, CONFIG, {"e0": 20, "e1": 20, "e2": 20}),
    ),
    "long contexts to read in each step: apart, though the prefix is dear": (
        three(),
        *(group(6, 20_100, SHARED, 100), {}, CONFIG, {"e0": 2, "e1": 2, "e2": 2}),
    ),
    "where the prefix is": (
        three(),
        *(group(4, 20_100, SHARED, 5), {"e2": SHARED}, CONFIG, {"e2": 4}),
    ),
    "more than one engine has room for": (
        three(capacity_tokens=4500),
        *(group(9), {}, WHOLE, {"e0": 3, "e1": 3, "e2": 3}),
    ),
    "a prefix is counted once for the engine's room": (
        [engine("e0", capacity_tokens=21_000), engine("e1", capacity_tokens=3000)],
        *(group(4, 20_100, SHARED, 5), {}, CONFIG, {"e0": 4}),
    ),
    "as many as there is room for": (
        [engine("e0", capacity_tokens=4500)],
        *(group(9), {}, CONFIG, {"e0": 4}),
    ),
    "not beside others who wait, if there is an idle engine": (
        [engine("e0", *BUSY), engine("e1")],
        *(group(3), {}, CONFIG, {"e1": 3}),
    ),
    "not beside others where that takes more from them than the whole group gains": (
        [engine("e0", *BUSY[:4]), engine("e1"), engine("e2")],
        *(group(24), {}, CONFIG, {"e1": 12, "e2": 12}),
    ),
    "beside others where the group gains more": (
        [engine("e0", *BUSY[:1]), engine("e1"), engine("e2")],
        *(group(24), {}, CONFIG, {"e0": 7, "e1": 9, "e2": 8}),
    ),
    "beside others, though a prefix is computed once more": (
        [engine("e0", *BUSY[:1]), engine("e1"), engine("e2")],
        *(group(60, 20_500, SHARED, 5), {}, CONFIG, {"e0": 19, "e1": 21, "e2": 20}),
    ),
}


@pytest.mark.parametrize(
    ("engines", "requests", "held", "config", "expected"), GROUPS.values(), ids=GROUPS
)
def test_group(
    engines: list[EngineState],
    requests: list[Request],
    held: dict[str, PrefixChain],
    config: CostConfig,
    expected: dict[str, int],
) -> None:
    assert spread(make_view(*engines, queued=requests, held=held, now_s=60.0), config) == expected


def test_member_goes_where_its_own_prompt_is() -> None:
    own = {f"m{i}": make_chain((f"h{i}", 15_000)) for i in range(3)}
    requests = [member(name, 15_100, prefixes=chain) for name, chain in own.items()]
    held = {"e2": own["m0"], "e0": own["m1"], "e1": own["m2"]}
    view = make_view(*three(), queued=requests, held=held)
    placements = CostPlacement(CONFIG).place(requests[0], view)
    assert {p.request.id: p.engine for p in placements} == {"m0": "e2", "m1": "e0", "m2": "e1"}


def test_member_goes_where_it_keeps_no_mate_from_ending_though_it_ends_later_itself() -> None:
    long, short = member("m0", 1000, 500), member("m1", 100, 450)
    busy = engine("e1", member("x0", 2000, 100, objective=T))
    view = make_view(engine("e0"), busy, queued=[long, short], now_s=60.0)
    placements = CostPlacement(CONFIG).place(long, view)
    assert {p.request.id: p.engine for p in placements} == {"m0": "e0", "m1": "e1"}


def test_member_that_failed_somewhere_is_placed_by_itself() -> None:
    requests = [member("m0", avoided=["e0"]), member("m1"), member("m2")]
    view = make_view(*three(), queued=requests)
    [alone] = CostPlacement(CONFIG).place(requests[0], view)
    assert (alone.request.id, alone.engine) == ("m0", "e1")
    assert {p.request.id for p in CostPlacement(CONFIG).place(requests[1], view)} == {"m1", "m2"}


def test_group_is_placed_in_parts_if_it_is_large() -> None:
    view = make_view(*three(), queued=group(7))
    assert sum(spread(view, CostConfig(max_together=4)).values()) == 4


@pytest.mark.parametrize(
    ("prompt_tokens", "objective", "together"),
    [(20_100, L, 4), (20_100, T, 1), (60_000, L, 1)],
    ids=["most is shared", "of another class", "little of the others is shared"],
)
def test_queued_requests_that_share_most_of_a_prompt(
    prompt_tokens: int, objective: ObjectiveClass, together: int
) -> None:
    first = member("m0", 20_100, prefixes=SHARED, objective=L)
    others = [
        member(f"m{i}", prompt_tokens, prefixes=SHARED, objective=objective) for i in (1, 2, 3)
    ]
    stranger = member("m4", objective=L)
    view = make_view(*three(), queued=[first, *others, stranger])
    placements = CostPlacement(CONFIG).place(first, view)
    assert len(placements) == together
    assert stranger not in [placement.request for placement in placements]


@pytest.mark.parametrize(
    ("repeated_read", "engines"), [(1.0, {"e0": 3, "e1": 3}), (0.0, {"e0": 6})]
)
def test_common_prefix_that_is_read_once_for_all_keeps_a_group_together(
    repeated_read: float, engines: dict[str, int]
) -> None:
    states = [engine("e0"), engine("e1")]
    for state in states:
        state.info = replace(state.info, repeated_read=repeated_read)
    requests = group(6, 20_100, SHARED, 40)
    assert spread(make_view(*states, queued=requests, now_s=60.0)) == engines


def test_reason_tells_how_many_on_how_many() -> None:
    view = make_view(*three(), queued=group(6))
    reasons = {placement.reason for placement in CostPlacement(CONFIG).place(view.queue[0], view)}
    assert len(reasons) == 1
    assert "6 members of task group s.g on 3 engines" in reasons.pop()


CHAINS = [(), make_chain(("p", 60)), make_chain(("p", 60), ("pq", 90)), make_chain(("x", 300))]


@st.composite
def clusters(draw: st.DrawFn) -> ClusterView:
    """Draw engines of different load, and queued requests of all kinds."""

    def request(name: str) -> Request:
        return member(
            name,
            prompt_tokens=draw(st.sampled_from([300, 400, 900])),
            output_tokens=draw(st.sampled_from([1, 50, 400])),
            prefixes=draw(st.sampled_from(CHAINS)),
            objective=draw(st.sampled_from([L, G, G, T])),
            group=draw(st.sampled_from(["s.g", "s.h"])),
            avoided=draw(st.sampled_from([(), (), ("e0",)])),
        )

    engines = []
    for i in range(draw(st.integers(1, 5))):
        running = [request(f"x{k}") for k in range(draw(st.integers(0, 3)))]
        engines.append(
            engine(f"e{i}", *running, capacity_tokens=draw(st.sampled_from([900, 4000])))
        )
        if draw(st.booleans()):
            engines[-1].step_time = None
    queued = [request(f"r{k}") for k in range(draw(st.integers(1, 8)))]
    held = {str(e.id): draw(st.sampled_from(CHAINS)) for e in engines}
    return make_view(*engines, queued=queued, held=held, now_s=draw(st.sampled_from([0.0, 60.0])))


CONFIGS = st.builds(
    CostConfig,
    shortlist=st.sampled_from([1, 8]),
    latency_tpot_s=st.sampled_from([None, 0.011, 0.04]),
    bounds_latency=st.booleans(),
    splits_groups=st.booleans(),
    max_together=st.sampled_from([1, 3, 64]),
)


@examples(300)
@given(view=clusters(), config=CONFIGS)
def test_engines_admit_all_that_they_get_one_after_the_other(
    view: ClusterView, config: CostConfig
) -> None:
    engines = {each.id: each for each in view.engines}
    for request, engine_id, _ in CostPlacement(config).place(view.queue[0], view):
        state = engines[engine_id]
        resident = view.prefixes.resident_tokens(engine_id, request.sharing)
        work = work_of(request, config, view.now_s)
        added = Added(1, state.added_tokens(request, resident), work.context_tokens)
        objective_class, bounded = request.objective.objective_class, is_bounded(request, view)
        assert admits(state, added, work, objective_class, config, is_bounded=bounded)
        run(state, request, request.id, resident)
        view.prefixes.record(engine_id, request.sharing)


@examples(100)
@given(view=clusters(), config=CONFIGS)
def test_same_view_gives_the_same_placements(view: ClusterView, config: CostConfig) -> None:
    policy = CostPlacement(config)
    assert policy.place(view.queue[0], view) == CostPlacement(config).place(view.queue[0], view)


@examples(100)
@given(view=clusters(), config=CONFIGS)
def test_request_is_placed_if_any_engine_admits_it(view: ClusterView, config: CostConfig) -> None:
    request = view.queue[0]
    work, bounded = work_of(request, config, view.now_s), is_bounded(request, view)
    objective_class = request.objective.objective_class

    def takes(state: EngineState) -> bool:
        resident = view.prefixes.resident_tokens(state.id, request.sharing)
        added = Added(1, state.added_tokens(request, resident), work.context_tokens)
        return admits(state, added, work, objective_class, config, is_bounded=bounded)

    placements = CostPlacement(config).place(request, view)
    assert bool(placements) == any(map(takes, view.candidates([request])))
    assert not placements or placements[0].request is request
