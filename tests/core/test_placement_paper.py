"""Policy ``paper``: Algorithm 1, and the choice of an engine that the paper leaves open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from parrot_backend.core.criteria import ObjectiveClass
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.scheduling.engine_search import EngineSearch
from parrot_backend.core.scheduling.paper import PaperPlacement
from tests.core.clusters import (
    LATENCY_LOAD,
    THROUGHPUT_LOAD,
    make_loaded_engine,
    make_view,
    placed,
)
from tests.helpers.builders import make_chain, make_objective, make_request

L, G, T = ObjectiveClass.LATENCY, ObjectiveClass.TASK_GROUP, ObjectiveClass.THROUGHPUT
LATENCY, THROUGHPUT = make_objective(L), make_objective(T)
GROUP = make_objective(G, "s.g")


@dataclass(frozen=True)
class Choice:
    """Engines, a request, and the engine that must be taken (None: it has to wait)."""

    engines: list[EngineState]
    request: Request
    expected: str | None
    held: dict[str, PrefixChain] = field(default_factory=dict)


def idle(name: str, **rest: Any) -> EngineState:
    return make_loaded_engine(name, **rest)


def with_throughput(name: str, tokens: int = 100) -> EngineState:
    return make_loaded_engine(name, (tokens, THROUGHPUT_LOAD))


def with_latency(name: str, tokens: int = 100) -> EngineState:
    return make_loaded_engine(name, (tokens, LATENCY_LOAD))


CHOICES: dict[str, Choice] = {
    "no engine": Choice([], make_request("r"), None),
    "the only engine": Choice([idle("a")], make_request("r"), "a"),
    "the engine with most room, not least": Choice(
        [with_throughput("a", 600), with_throughput("b", 100), with_throughput("c", 300)],
        make_request("r"),
        "b",
    ),
    "the oldest of equals": Choice([idle("b"), idle("a")], make_request("r"), "b"),
    "the larger of idle engines": Choice(
        [idle("a"), idle("b", capacity_tokens=2000)], make_request("r"), "b"
    ),
    "latency joins latency, though another is idle": Choice(
        [idle("a"), with_latency("b")], make_request("r", objective=LATENCY), "b"
    ),
    "latency spares the engine that throughput fills": Choice(
        [with_throughput("a", 700), with_latency("b")], make_request("r", objective=LATENCY), "b"
    ),
    "latency takes the idle engine before the busy one": Choice(
        [with_throughput("a"), idle("b")], make_request("r", objective=LATENCY), "b"
    ),
    "latency goes elsewhere when the latency engine is full": Choice(
        [with_latency("a", 250), idle("b")], make_request("r", objective=LATENCY), "b"
    ),
    "the smaller loss of capacity counts": Choice(
        [idle("a"), idle("b", latency_capacity_tokens=800)],
        make_request("r", objective=LATENCY),
        "b",
    ),
    "throughput avoids the engine that latency bounds": Choice(
        [with_latency("a"), with_throughput("b", 600)], make_request("r"), "b"
    ),
    "throughput beside latency when there is nothing else": Choice(
        [with_latency("a")], make_request("r"), "a"
    ),
    "throughput waits rather than overfill a latency engine": Choice(
        [with_latency("a", 250)], make_request("r"), None
    ),
    "all full": Choice([with_throughput("a", 950)], make_request("r"), None),
    "too large for any, but one is idle": Choice(
        [with_throughput("a"), idle("b")], make_request("r", need_tokens=5000), "b"
    ),
    "too large and none is idle": Choice(
        [with_throughput("a")], make_request("r", need_tokens=5000), None
    ),
    "an engine that failed it is avoided": Choice(
        [idle("a"), with_throughput("b", 600)], make_request("r", avoided=["a"]), "b"
    ),
    "an engine that failed it is taken when all did": Choice(
        [idle("a"), with_throughput("b")], make_request("r", avoided=["a", "b"]), "a"
    ),
    "a lost engine that failed it does not matter": Choice(
        [idle("b")], make_request("r", avoided=["a"]), "b"
    ),
}
PREFIX = make_chain(("p", 60))
CACHED: dict[str, Choice] = {
    "an engine that holds its prefix before one with more room": Choice(
        [idle("a"), with_throughput("b", 600)],
        make_request("r", prefixes=PREFIX),
        "b",
        {"b": PREFIX},
    ),
    "of those that hold it, the one with most room": Choice(
        [with_throughput("a", 600), with_throughput("b", 300), idle("c")],
        make_request("r", prefixes=PREFIX),
        "b",
        {"a": PREFIX, "b": PREFIX},
    ),
    "the longer prefix before the shorter": Choice(
        [idle("a"), with_throughput("b", 600)],
        make_request("r", prefixes=make_chain(("p", 60), ("pq", 80))),
        "b",
        {"a": PREFIX, "b": make_chain(("p", 60), ("pq", 80))},
    ),
    "any engine when the holder is full": Choice(
        [with_throughput("a", 990), idle("b")],
        make_request("r", prefixes=PREFIX),
        "b",
        {"a": PREFIX},
    ),
    "what is held needs no room again": Choice(
        [with_throughput("a", 950)], make_request("r", prefixes=PREFIX), "a", {"a": PREFIX}
    ),
    "the holder failed it before": Choice(
        [idle("a"), idle("b")],
        make_request("r", prefixes=PREFIX, avoided=["a"]),
        "b",
        {"a": PREFIX},
    ),
}


@pytest.mark.parametrize("choice", [*CHOICES.values(), *CACHED.values()], ids=[*CHOICES, *CACHED])
def test_engine_for_one_request(choice: Choice) -> None:
    view = make_view(*choice.engines, queued=[choice.request], held=choice.held)
    found = placed(PaperPlacement().place(choice.request, view))
    assert found == ({} if choice.expected is None else {"r": choice.expected})


# --- groups ----------------------------------------------------------------------------------


def members(number: int, need_tokens: int = 100, model: str | None = None) -> list[Request]:
    return [
        make_request(f"g{i}", objective=GROUP, need_tokens=need_tokens, order=i, model=model)
        for i in range(number)
    ]


def test_group_goes_to_one_engine() -> None:
    group = members(3)
    view = make_view(with_throughput("a"), idle("b"), queued=group)
    assert placed(PaperPlacement().place(group[0], view)) == {"g0": "b", "g1": "b", "g2": "b"}


def test_group_goes_together_whichever_member_is_first() -> None:
    group = members(3)
    view = make_view(idle("a"), queued=group)
    assert set(placed(PaperPlacement().place(group[2], view))) == {"g0", "g1", "g2"}


def test_group_is_not_limited_to_the_latency_capacity() -> None:
    group = members(6)
    view = make_view(idle("a"), queued=group)
    assert len(PaperPlacement().place(group[0], view)) == 6


def test_group_takes_an_engine_with_room_for_all() -> None:
    group = members(3)
    view = make_view(with_throughput("a", 800), with_throughput("b", 700), queued=group)
    assert set(placed(PaperPlacement().place(group[0], view)).values()) == {"b"}


def test_group_avoids_an_engine_of_latency() -> None:
    group = members(3)
    view = make_view(with_latency("a"), with_throughput("b", 600), queued=group)
    assert set(placed(PaperPlacement().place(group[0], view)).values()) == {"b"}


def test_group_larger_than_any_engine_is_placed_request_by_request() -> None:
    group = members(20)
    view = make_view(idle("a"), idle("b"), queued=group)
    assert placed(PaperPlacement().place(group[0], view)) == {"g0": "a"}


def test_group_of_more_requests_than_slots_is_placed_request_by_request() -> None:
    group = members(3)
    view = make_view(idle("a", max_requests=2), queued=group)
    assert placed(PaperPlacement().place(group[0], view)) == {"g0": "a"}


def test_members_that_are_not_queued_are_not_placed_again() -> None:
    group = members(3)
    view = make_view(idle("a"), queued=group[1:])
    assert placed(PaperPlacement().place(group[1], view)) == {"g1": "a", "g2": "a"}


def test_last_member_is_placed_alone() -> None:
    group = members(3)
    view = make_view(idle("a"), queued=group[2:])
    assert placed(PaperPlacement().place(group[2], view)) == {"g2": "a"}


def test_group_with_a_shared_prefix_needs_it_once() -> None:
    chain = make_chain(("p", 90))
    group = [
        make_request(f"g{i}", objective=GROUP, need_tokens=100, order=i, prefixes=chain)
        for i in range(5)
    ]
    view = make_view(with_throughput("a", 850), queued=group, held={"a": chain})
    assert len(PaperPlacement().place(group[0], view)) == 5


def test_member_does_not_go_to_the_engine_that_failed_another_member() -> None:
    group = members(2)
    group[1].avoided.append(idle("a").id)
    view = make_view(idle("a"), idle("b"), queued=group)
    assert placed(PaperPlacement().place(group[0], view))["g1"] != "a"


# --- shared prefixes -----------------------------------------------------------------------------


def sharers(number: int, need_tokens: int = 100) -> list[Request]:
    return [
        make_request(f"r{i}", need_tokens=need_tokens, order=i, prefixes=PREFIX)
        for i in range(number)
    ]


def test_queued_requests_that_share_a_prefix_go_to_one_engine() -> None:
    requests = sharers(3)
    view = make_view(with_throughput("a"), idle("b"), queued=requests)
    assert placed(PaperPlacement().place(requests[0], view)) == {"r0": "b", "r1": "b", "r2": "b"}


def test_request_that_shares_nothing_stays() -> None:
    requests = [*sharers(2), make_request("other", order=9)]
    view = make_view(idle("a"), queued=requests)
    assert "other" not in placed(PaperPlacement().place(requests[0], view))


def test_shared_prefix_needs_room_once() -> None:
    # 100 for the first and 40 for each of the others.
    requests = sharers(3)
    view = make_view(with_throughput("a", 820), queued=requests)
    assert len(PaperPlacement().place(requests[0], view)) == 3


def test_sharers_that_fit_nowhere_together_are_placed_one_by_one() -> None:
    requests = sharers(3)
    view = make_view(with_throughput("a", 821), queued=requests)
    assert placed(PaperPlacement().place(requests[0], view)) == {"r0": "a"}


def test_no_more_sharers_than_the_limit() -> None:
    requests = sharers(5)
    view = make_view(idle("a"), queued=requests, max_shared=3)
    assert set(placed(PaperPlacement().place(requests[0], view))) == {"r0", "r1", "r2"}


def test_member_of_a_group_goes_with_its_group_and_not_with_sharers() -> None:
    member = make_request("g0", objective=GROUP, prefixes=PREFIX, order=0)
    view = make_view(idle("a"), queued=[member, *sharers(2)])
    assert set(placed(PaperPlacement().place(member, view))) == {"g0"}


def test_sharers_of_mixed_classes_do_not_overfill_a_latency_engine() -> None:
    latency = make_request("l", objective=LATENCY, prefixes=PREFIX, order=0)
    others = [
        make_request(f"t{i}", need_tokens=160, order=1 + i, prefixes=PREFIX) for i in range(5)
    ]
    view = make_view(idle("a"), queued=[latency, *others])
    placements = PaperPlacement().place(latency, view)
    # 100 tokens of the latency request, and 100 more with each of the others; 300 is the capacity.
    assert len(placements) <= 3


def test_sharers_of_a_latency_request_do_not_join_it_beside_throughput() -> None:
    # With the latency request there, the engine is bound to 300 tokens and has 700 in use.
    latency = make_request("l", objective=LATENCY, prefixes=PREFIX, order=0)
    other = make_request("t", prefixes=PREFIX, order=1)
    view = make_view(with_throughput("a", 600), queued=[latency, other])
    assert placed(PaperPlacement().place(latency, view)) == {"l": "a"}


def test_latency_sharers_do_not_exceed_the_latency_capacity() -> None:
    requests = [
        make_request(f"l{i}", objective=LATENCY, need_tokens=160, order=i, prefixes=PREFIX)
        for i in range(5)
    ]
    view = make_view(idle("a"), queued=requests)
    assert len(PaperPlacement().place(requests[0], view)) <= 2


# --- reasons, and the choice itself ------------------------------------------------------------


@pytest.mark.parametrize(
    ("queued", "held", "told"),
    [
        (members(2), {}, "task group s.g"),
        (sharers(2), {}, "share a prefix of about 60 tokens"),
        (sharers(1), {"a": PREFIX}, "holds a prefix of about 60 tokens"),
        ([make_request("r")], {}, "most room"),
    ],
    ids=["group", "sharers", "holder", "any"],
)
def test_placement_tells_why(
    queued: list[Request], held: dict[str, PrefixChain], told: str
) -> None:
    placements = PaperPlacement().place(queued[0], make_view(idle("a"), queued=queued, held=held))
    assert all(told in reason for _, _, reason in placements)


def test_placing_changes_nothing() -> None:
    engine, group = idle("a"), members(3)
    view = make_view(engine, queued=group)
    PaperPlacement().place(group[0], view)
    assert (engine.used_tokens, len(view.queue)) == (0, 3)


def test_no_engine_is_found_among_none() -> None:
    assert EngineSearch([make_request("r")], make_view()).run() is None


def test_worked_example_of_the_paper() -> None:
    # An engine that could run 64,000 throughput tokens drops to 2,000 under a strict request;
    # one that serves latency requests already loses nothing.
    batch = make_loaded_engine(
        "batch",
        (30_000, THROUGHPUT_LOAD),
        capacity_tokens=64_000,
        latency_capacity_tokens=2_000,
    )
    chat = make_loaded_engine(
        "chat", (1_500, LATENCY_LOAD), capacity_tokens=64_000, latency_capacity_tokens=2_000
    )
    request = make_request("r", objective=LATENCY, need_tokens=200)
    found = EngineSearch([request], make_view(batch, chat)).run()
    assert found is chat
