"""The placement ``cost``: where a single request goes, and why."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import CostConfig
from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.engine_load import load_of
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.nodes import Request
from parrot_backend.core.output_forecast import OutputForecast
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.scheduling.admission import Added, admits
from parrot_backend.core.scheduling.cost import CostPlacement
from parrot_backend.core.scheduling.cost_terms import work_of
from parrot_backend.core.step_time import StepTimeModel
from tests.core.clusters import make_view, placed
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_chain, make_engine_state, make_objective, make_request

L, T = ObjectiveClass.LATENCY, ObjectiveClass.THROUGHPUT
#: 10 ms for a step, 0.1 ms for a prompt token and for a decode, 1 us for a token of context.
MODEL = StepTimeModel(0.01, 1e-4, 1e-4, 1e-6, 0.0, num_samples=9, error=0.1)
SLOW = StepTimeModel(0.02, 2e-4, 2e-4, 2e-6, 0.0, num_samples=9, error=0.1)
LONG = make_chain(("p", 2000))


def ask(
    prompt_tokens: int = 100,
    output_tokens: int = 100,
    objective_class: ObjectiveClass = L,
    prefixes: PrefixChain = (),
    name: str = "r",
    **objective: float,
) -> Request:
    """Return a ready request; what is asked for beside a class goes into its objective."""
    return make_request(
        name,
        need_tokens=prompt_tokens + output_tokens,
        max_tokens=output_tokens,
        objective=Objective(objective_class, None, **objective),  # type: ignore[arg-type]
        prefixes=prefixes,
    )


def engine(
    name: str,
    *running: Request,
    model: StepTimeModel | None = MODEL,
    max_requests: int = 16,
    capacity_tokens: int = 50_000,
    now_s: float = 0.0,
) -> EngineState:
    """Return an engine that was given requests at a time."""
    state = make_engine_state(name, capacity_tokens=capacity_tokens, max_requests=max_requests)
    state.order = int(name[1:])
    state.step_time = model
    for number, request in enumerate(running):
        state.add(
            AttemptId(f"{name}-{number}"),
            request.need_tokens,
            is_latency=request.objective.objective_class is L,
            now_s=now_s,
            load=load_of(request, 0),
        )
    return state


#: Long past the prefill of what was placed at 0.
LATER_S = 60.0

CHOICES: dict[str, tuple[Sequence[EngineState], dict[str, PrefixChain], Request, float, str]] = {
    "the first of equals": ([engine("e0"), engine("e1")], {}, ask(), LATER_S, "e0"),
    "an idle engine before a busy one": (
        [engine("e0", ask()), engine("e1")],
        *({}, ask(), LATER_S, "e1"),
    ),
    "where the prefix is": (
        [engine("e0"), engine("e1")],
        *({"e1": LONG}, ask(2100, prefixes=LONG), LATER_S, "e1"),
    ),
    "where more of the prompt is": (
        [engine("e0"), engine("e1")],
        {"e0": make_chain(("p", 2000)), "e1": make_chain(("p", 2000), ("pq", 3000))},
        ask(3100, prefixes=make_chain(("p", 2000), ("pq", 3000))),
        *(LATER_S, "e1"),
    ),
    "the prefix is worth 0.2 s and a busy batch less": (
        [engine("e0"), engine("e1", ask())],
        *({"e1": LONG}, ask(2100, prefixes=LONG), LATER_S, "e1"),
    ),
    "queueing for longer than the prefix is worth": (
        [engine("e0"), engine("e1", ask(5000))],  # computes for half a second
        *({"e1": LONG}, ask(2100, 10, prefixes=LONG), 0.0, "e0"),
    ),
    "once that is computed, it is worth it again": (
        [engine("e0"), engine("e1", ask(5000))],
        *({"e1": LONG}, ask(2100, 10, prefixes=LONG), 0.6, "e1"),
    ),
    "bulk work goes where nobody waits": (
        [engine("e0", ask()), engine("e1", *[ask(objective_class=T)] * 4)],
        *({}, ask(objective_class=T), LATER_S, "e1"),
    ),
    "what is waited for goes where bulk work runs": (
        [engine("e0", *[ask()] * 2), engine("e1", *[ask(objective_class=T)] * 3)],
        *({}, ask(), LATER_S, "e1"),
    ),
    "the faster engine": (
        [engine("e0", model=SLOW), engine("e1")],
        *({}, ask(), LATER_S, "e1"),
    ),
    "the slower one if the faster one is busy enough": (
        [engine("e0", model=SLOW), engine("e1", *[ask(9000)] * 4)],
        *({}, ask(), 0.0, "e0"),
    ),
    "not where another's target would be missed": (
        [engine("e0"), engine("e1", ask(tpot_s=0.0102))],
        *({"e1": LONG}, ask(2100, prefixes=LONG), LATER_S, "e0"),
    ),
    "not where its own target would be missed": (
        [engine("e0"), engine("e1", *[ask(objective_class=T)] * 12)],
        *({"e1": LONG}, ask(2100, prefixes=LONG, tpot_s=0.0125), LATER_S, "e0"),
    ),
    "where its deadline is kept": (
        [engine("e0", ask(objective_class=T)), engine("e1", *[ask(4000)] * 2, model=MODEL)],
        {"e1": LONG},
        ask(20_100, 10, prefixes=make_chain(("p", 2000)), deadline_s=2.5),
        *(0.0, "e0"),
    ),
    "where its first token comes in time": (
        [engine("e0", ask(objective_class=T)), engine("e1", ask(9000, objective_class=T))],
        *({"e1": LONG}, ask(10_000, 1, prefixes=LONG, ttft_s=1.1), 0.0, "e0"),
    ),
    "where its prompt is, if that is in time, too": (
        [engine("e0", ask(objective_class=T)), engine("e1", ask(1000, objective_class=T))],
        *({"e1": LONG}, ask(10_000, 1, prefixes=LONG, ttft_s=1.1), 0.0, "e1"),
    ),
    "not on a full engine": (
        [engine("e0", ask(objective_class=T), max_requests=1), engine("e1", *[ask()] * 9)],
        *({"e0": LONG}, ask(2100, prefixes=LONG), LATER_S, "e1"),
    ),
    "not where there is no room": (
        [engine("e0", ask(1500, objective_class=T), capacity_tokens=1600), engine("e1", ask())],
        *({}, ask(), LATER_S, "e1"),
    ),
    "by its own latency, not by how many run": (
        [engine("e0", *[ask(10)] * 2), engine("e1", ask(20_000))],
        *({}, ask(), LATER_S, "e0"),
    ),
}


@pytest.mark.parametrize(
    ("engines", "held", "request_", "now_s", "expected"), CHOICES.values(), ids=CHOICES
)
def test_choice(
    engines: Sequence[EngineState],
    held: dict[str, PrefixChain],
    request_: Request,
    now_s: float,
    expected: str,
) -> None:
    view = make_view(*engines, queued=[request_], held=held, now_s=now_s)
    assert placed(CostPlacement(CostConfig()).place(request_, view)) == {"r": expected}


@pytest.mark.parametrize("shortlist", [1, 2, 8])
def test_shortlist_finds_an_engine_wherever_there_is_one(shortlist: int) -> None:
    full = [engine(f"e{i}", ask(), max_requests=2, capacity_tokens=250) for i in range(7)]
    request = ask()
    view = make_view(*full, engine("e7", *[ask()] * 3), queued=[request], now_s=LATER_S)
    policy = CostPlacement(CostConfig(shortlist=shortlist))
    assert placed(policy.place(request, view)) == {"r": "e7"}


@examples(60)
@given(
    loads=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=40, max_size=60),
    tokens=st.integers(10, 900),
    is_bulk=st.booleans(),
)
def test_of_many_alike_it_finds_one_wherever_there_is_one(
    loads: list[tuple[int, int]], tokens: int, is_bulk: bool
) -> None:
    slow = StepTimeModel(0.01, 1e-4, 1e-2, 1e-6, 0.0, num_samples=9, error=0.1)
    config = CostConfig(bounds_latency=True)
    bulk = ask(200, 100, objective_class=T)
    engines = [
        engine(
            f"e{i}", *[ask(200)] * num_latency, *[bulk] * num_bulk, model=slow, capacity_tokens=1200
        )
        for i, (num_latency, num_bulk) in enumerate(loads)
    ]
    for each in engines:
        each.load.config = config
    request = ask(tokens, 100, objective_class=T if is_bulk else L)
    work = work_of(request, config, LATER_S)
    added = Added(1, request.need_tokens, work.context_tokens)
    takes = [
        admits(e, added, work, request.objective.objective_class, config, is_bounded=True)
        for e in engines
    ]
    view = make_view(*engines, queued=[request], now_s=LATER_S)
    assert bool(CostPlacement(config).place(request, view)) == any(takes)


def test_short_output_goes_to_the_prefix_and_a_long_one_to_the_small_batch() -> None:
    engines = [engine("e0"), engine("e1", *[ask(5000, objective_class=T)] * 8)]

    def choice(mean_tokens: float) -> dict[str, str]:
        request = ask(2100, 4000, prefixes=LONG)
        request.forecast = OutputForecast(mean_tokens, high_tokens=9000, num_seen=50)
        view = make_view(*engines, queued=[request], held={"e1": LONG}, now_s=LATER_S)
        return placed(CostPlacement(CostConfig()).place(request, view))

    assert (choice(5.0), choice(2000.0)) == ({"r": "e1"}, {"r": "e0"})


def test_prefix_is_worth_more_where_many_wait() -> None:
    engines = [engine("e0"), engine("e1", *[ask(objective_class=T)] * 10, ask())]

    def choice(num_waiting: int) -> dict[str, str]:
        request = ask(1000, 400, prefixes=make_chain(("p", 1000)))
        others = [ask(name=f"w{number}") for number in range(num_waiting)]
        view = make_view(
            *engines,
            queued=[request, *others],
            held={"e1": make_chain(("p", 1000))},
            now_s=LATER_S,
        )
        return placed(CostPlacement(CostConfig()).place(request, view))

    assert (choice(0), choice(60)) == ({"r": "e0"}, {"r": "e1"})


def test_where_it_failed_is_tried_again_only_if_there_is_nothing_else() -> None:
    request = ask()
    request.avoided = [engine("e0").id]
    policy = CostPlacement(CostConfig())
    both = make_view(engine("e0"), engine("e1", *[ask()] * 9), queued=[request], now_s=LATER_S)
    assert placed(policy.place(request, both)) == {"r": "e1"}
    alone = make_view(engine("e0"), queued=[request])
    assert placed(policy.place(request, alone)) == {"r": "e0"}


def test_reason_tells_the_parts() -> None:
    request = ask(2100, prefixes=LONG)
    view = make_view(engine("e0"), engine("e1"), queued=[request], held={"e1": LONG})
    [placement] = CostPlacement(CostConfig()).place(request, view)
    assert placement.reason == (
        "least added cost of 2 engines: done in 1.24 s (wait 0.00, prefill 0.01 with about 2000 "
        "tokens held, decode 1.23), others 0.00 s later"
    )


def test_objective_of_nobody_is_bulk() -> None:
    idle, waited_for = engine("e0", *[ask(objective_class=T)] * 3), engine("e1", ask())
    request = make_request(objective=make_objective(T))
    view = make_view(waited_for, idle, queued=[request], now_s=LATER_S)
    assert placed(CostPlacement(CostConfig()).place(request, view)) == {"r": "e0"}
