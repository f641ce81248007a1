"""Baselines that remember placements or read caches: what each decides, thresholds met exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import PlacementName, SchedulerConfig
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId, SessionId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixIndexConfig
from parrot_backend.core.scheduling.baseline_config import BaselineConfig
from parrot_backend.core.scheduling.cache_aware import CacheAwarePlacement, PromptTrees
from parrot_backend.core.scheduling.engine_index import EngineIndex
from parrot_backend.core.scheduling.free_engines import FreeEngines
from parrot_backend.core.scheduling.kv_exact import ActivePrompts, KvExactPlacement
from parrot_backend.core.scheduling.power_of_two import PowerOfTwoPlacement
from parrot_backend.core.scheduling.round_robin import RoundRobinPlacement, Turns
from parrot_backend.core.scheduling.scheduler import Scheduler
from parrot_backend.core.scheduling.session_affinity import SessionAffinityPlacement, SessionHomes
from tests.core.audit import BLIND
from tests.core.clusters import make_loaded_engine, make_view, placed
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_chain, make_engine, make_request

P = make_chain(("p", 60), ("pq", 100))
ONE = AttemptId("s.x#0~1")


def engine(name: str, *tokens: int, order: int = 0, **rest: Any) -> EngineState:
    state = make_loaded_engine(name, *((t, False) for t in tokens), **rest)
    state.order = order
    return state


def request(session: str = "s", **rest: Any) -> Request:
    made = make_request("r", **rest)
    made.session = SessionId(session)
    return made


# --- round_robin -----------------------------------------------------------------------------

LAST = [(-1, "a"), (0, "b"), (1, "c"), (2, "a")]


@pytest.mark.parametrize(("last", "expected"), LAST)
def test_the_turn_goes_on(last: int, expected: str) -> None:
    engines = [engine(name, order=order) for order, name in enumerate("abc")]
    turns = Turns()
    if last >= 0:
        turns.placed(request(), ONE, engines[last])
    assert placed(RoundRobinPlacement(turns).place(request(), make_view(*engines))) == {
        "r": expected
    }


def test_the_turn_passes_over_who_has_no_room_and_who_is_gone() -> None:
    turns = Turns()
    turns.placed(request(), ONE, engine("gone", order=1))
    engines = [engine("a", order=0), engine("full", 950, order=2), engine("d", order=3)]
    assert placed(RoundRobinPlacement(turns).place(request(), make_view(*engines))) == {"r": "d"}


def test_turns_of_models_are_apart() -> None:
    turns = Turns()
    turns.placed(request(model="m"), ONE, engine("a", order=0))
    assert (turns.last("m"), turns.last("n")) == (0, -1)


# --- power_of_two ----------------------------------------------------------------------------


def test_of_two_engines_the_less_loaded() -> None:
    view = make_view(engine("a", 1, 1), engine("b", 500))
    assert placed(PowerOfTwoPlacement(0).place(request(), view)) == {"r": "b"}


def test_every_pair_is_drawn_and_no_other() -> None:
    policy = PowerOfTwoPlacement(0)
    pairs = {policy._pair(make_request(f"r{i}"), 4) for i in range(300)}
    assert pairs == {(a, b) for a in range(4) for b in range(4) if a != b}


def test_another_attempt_and_another_seed_draw_anew() -> None:
    first = make_request("r")
    again = make_request("r")
    again.attempts = 1
    draws = [
        PowerOfTwoPlacement(seed)._pair(r, 1000)
        for seed, r in [(0, first), (0, again), (1, first), (0, first)]
    ]
    assert draws[0] == draws[3]
    assert len(set(draws)) == 3


# --- session_affinity ------------------------------------------------------------------------


def homes(**of: EngineState) -> SessionHomes:
    known = SessionHomes(max_sessions=100)
    for session, at in of.items():
        known.placed(request(session), ONE, at)
    return known


A, B = engine("a"), engine("b")
AFFINITY = {
    "home, though it has more to do": ([engine("a", 1, 1), B], request("s"), "a"),
    "a new session: fewest requests": ([engine("a", 1, 1), B], request("new"), "b"),
    "home is full": ([engine("a", 950), B], request("s"), "b"),
    "home failed it": ([A, B], request("s", avoided=["a"]), "b"),
    "home is gone": ([B], request("s"), "b"),
    "no engine has room": ([engine("a", 950)], request("s"), None),
}


@pytest.mark.parametrize(
    ("engines", "request_", "expected"), AFFINITY.values(), ids=AFFINITY.keys()
)
def test_where_a_session_goes(
    engines: list[EngineState], request_: Request, expected: str | None
) -> None:
    found = SessionAffinityPlacement(homes(s=A)).place(request_, make_view(*engines))
    assert placed(found) == ({} if expected is None else {"r": expected})


def test_a_session_keeps_its_home_when_it_was_full_once() -> None:
    known = homes(s=A)
    known.placed(request("s"), ONE, B)
    assert known.home(request("s")) == "a"


def test_a_session_whose_engine_is_gone_finds_a_new_home() -> None:
    known = homes(s=A, t=B)
    known.lost(EngineId("a"))
    assert known.home(request("s")) is None
    assert known.home(request("t")) == "b"
    known.placed(request("s"), ONE, B)
    assert known.home(request("s")) == "b"


def test_a_session_has_a_home_for_each_model() -> None:
    known = homes(s=A)
    assert known.home(request("s", model="other")) is None


def test_sessions_placed_longest_ago_are_forgotten() -> None:
    known = SessionHomes(max_sessions=2)
    for session in ("s", "t", "s", "u"):
        known.placed(request(session), ONE, A)
    assert len(known) == 2
    assert [known.home(request(session)) for session in "stu"] == ["a", None, "a"]


# --- cache_aware -----------------------------------------------------------------------------


def trees(**sent: Any) -> PromptTrees:
    known = PromptTrees(max_tokens=10_000, max_entries=100)
    for name, chain in sent.items():
        known.placed(request(prefixes=chain), ONE, engine(name))
    return known


def prompt(*, known: int, tokens: int) -> Request:
    """Return a request of which so many tokens were sent to engine b before."""
    return request(prefixes=make_chain(("known", known), ("whole", tokens)), need_tokens=50)


THRESHOLD = 0.3
MATCHES = {
    "more than the threshold": (31, "b"),
    "exactly the threshold": (30, "a"),
    "less": (29, "a"),
}


@pytest.mark.parametrize(("known", "expected"), MATCHES.values(), ids=MATCHES.keys())
def test_match_threshold(known: int, expected: str) -> None:
    policy = CacheAwarePlacement(
        BaselineConfig(match_threshold=THRESHOLD), trees(b=make_chain(("known", known)))
    )
    found = policy.place(prompt(known=known, tokens=100), make_view(engine("a"), engine("b")))
    assert placed(found) == {"r": expected}


# Thresholds 3 and 1.5; engine b holds the prompt, a nothing.
BALANCE = {
    "as many more as allowed": (2, 5, "b"),
    "one more than that": (1, 5, "a"),
    "more, but not in relation": (8, 12, "b"),
    "exactly the relation": (8, 12, "b"),
    "more than the relation": (8, 13, "a"),
    "against an idle one": (0, 4, "a"),
}


@pytest.mark.parametrize(("on_a", "on_b", "expected"), BALANCE.values(), ids=BALANCE.keys())
def test_balance_thresholds(on_a: int, on_b: int, expected: str) -> None:
    policy = CacheAwarePlacement(BaselineConfig(balance_abs=3, balance_rel=1.5), trees(b=P))
    engines = [engine("a", *[1] * on_a, max_requests=32), engine("b", *[1] * on_b, max_requests=32)]
    found = policy.place(request(prefixes=P), make_view(*engines))
    assert placed(found) == {"r": expected}


def test_balance_counts_engines_without_room_but_not_those_of_other_models() -> None:
    policy = CacheAwarePlacement(BaselineConfig(balance_abs=3), trees(b=P))
    full = engine("f", *[1] * 4, max_requests=4)
    other = engine("o", models=("n",))
    b = engine("b", 1, 1)
    asked = request(prefixes=P, model="m")
    assert placed(policy.place(asked, make_view(engine("a"), b, full))) == {"r": "a"}
    view = make_view(engine("a", 1), b, full, other)
    served = FreeEngines(EngineIndex(each for each in view.free if each.serves("m")))
    view = replace(view, free=served)
    assert placed(policy.place(asked, view)) == {"r": "b"}


TREES = {
    "the longest match": (dict(a=make_chain(("p", 60)), b=P), P, "b"),
    "of equal matches the one with fewer requests": (dict(a=P, b=P), P, "b"),
    "the longest match among engines with room": (dict(full=P, a=make_chain(("p", 60))), P, "a"),
    "no match: the smallest tree": (
        dict(b=make_chain(("x", 70)), a=make_chain(("y", 60)), full=make_chain(("z", 50))),
        P,
        "a",
    ),
    "no match, equal trees: fewer requests": ({}, P, "b"),
    "a prompt without text": (dict(b=P), (), "a"),
}


@pytest.mark.parametrize(("sent", "chain", "expected"), TREES.values(), ids=TREES.keys())
def test_where_a_prompt_goes(sent: dict[str, Any], chain: Any, expected: str) -> None:
    engines = [engine("a", 1, 1), engine("b", 1), engine("full", 950)]
    policy = CacheAwarePlacement(BaselineConfig(), trees(**sent))
    assert placed(policy.place(request(prefixes=chain), make_view(*engines))) == {"r": expected}


def test_a_beginning_that_is_sent_twice_counts_once() -> None:
    known = trees(a=P)
    known.placed(request(prefixes=make_chain(("p", 60), ("px", 90))), ONE, engine("a"))
    assert known.tokens(EngineId("a")) == 60 + 40 + 30


def test_leaves_that_were_sent_longest_ago_are_forgotten_first() -> None:
    known = PromptTrees(max_tokens=150, max_entries=100)
    for chain in (P, make_chain(("p", 60), ("px", 90)), make_chain(("z", 50))):
        known.placed(request(prefixes=chain), ONE, engine("a"))
    # Of 180 tokens the 40 of "pq" went; its beginning had been sent again since.
    assert known.tokens(EngineId("a")) == 140
    assert known.longest_match(P, [engine("a")])[1] == 60


def test_what_an_engine_was_sent_is_forgotten_with_it() -> None:
    known = trees(a=P, b=make_chain(("p", 60)))
    known.lost(EngineId("a"))
    matching, tokens = known.longest_match(P, [engine("a"), engine("b")])
    assert ([each.id for each in matching], tokens) == (["b"], 60)
    assert known.tokens(EngineId("a")) == 0


PROMPTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.text("xyz", min_size=1, max_size=6)), max_size=40
)


@examples(60)
@given(sent=PROMPTS, max_tokens=st.integers(0, 60), max_entries=st.integers(1, 8))
def test_trees_are_bounded_and_closed(
    sent: list[tuple[str, str]], max_tokens: int, max_entries: int
) -> None:
    known = PromptTrees(max_tokens, max_entries)
    for name, text in sent:
        chain = make_chain(*((text[: i + 1], 5 * (i + 1)) for i in range(len(text))))
        known.placed(request(prefixes=chain), ONE, engine(name))
        for each in (EngineId("a"), EngineId("b")):
            held = [key.decode() for key in known._trees.get(each, ())]
            assert known.tokens(each) == 5 * len(held) <= max_tokens
            assert known.num_entries(each) == len(held) <= max_entries
            assert all(key[:-1] in held for key in held if len(key) > 1)
            assert all(each in known._engines_of[key.encode()] for key in held)
    assert sum(map(len, known._engines_of.values())) == sum(map(len, known._trees.values()))


# --- kv_exact --------------------------------------------------------------------------------

#: Blocks of 10; the request has a prompt of 100. Of each engine the tokens that run there, and the
#: tokens of the prompt that it holds.
COSTS = {
    "the emptier of two that hold nothing": ((30, 0), (20, 0), 1.0, "b"),
    "what is held outweighs what is in use": ((0, 0), (50, 60), 1.0, "b"),
    "as much in use as is held: the first": ((0, 0), (60, 60), 1.0, "a"),
    "a prefix counts twice": ((0, 0), (110, 60), 2.0, "b"),
    "prefixes do not count": ((0, 0), (10, 100), 0.0, "a"),
    "part of a block is not held": ((0, 0), (50, 59), 1.0, "a"),
    "part of a block is in use": ((0, 0), (51, 60), 1.0, "a"),
}


def active(**running: Any) -> ActivePrompts:
    known = ActivePrompts()
    for name, chain in running.items():
        known.placed(request(prefixes=chain), AttemptId(f"on-{name}"), engine(name))
    return known


@pytest.mark.parametrize(("on_a", "on_b", "weight", "expected"), COSTS.values(), ids=COSTS.keys())
def test_least_cost(
    on_a: tuple[int, int], on_b: tuple[int, int], weight: float, expected: str
) -> None:
    running = {n: make_chain((n, t)) for n, (t, _) in (("a", on_a), ("b", on_b)) if t}
    config = BaselineConfig(kv_overlap_weight=weight, kv_block_tokens=10)
    held = make_chain(("p", on_b[1])) if on_b[1] else ()
    asked = request(prefixes=(*held, *make_chain(("pq", 100))), need_tokens=110)
    view = make_view(engine("a"), engine("b"), held={"b": held})
    found = KvExactPlacement(config, active(**running)).place(asked, view)
    assert placed(found) == {"r": expected}


def test_a_prefix_that_runs_in_others_takes_no_more_room() -> None:
    asked = request(prefixes=P, need_tokens=110)
    view = make_view(engine("a"), engine("b"), held={"a": P, "b": P})
    policy = KvExactPlacement(BaselineConfig(), active(a=make_chain(("x", 20)), b=P))
    assert placed(policy.place(asked, view)) == {"r": "b"}


def test_prompts_run_until_they_end() -> None:
    a, known = engine("a"), ActivePrompts()
    known.placed(request(prefixes=P), AttemptId("1"), a)
    known.placed(request(prefixes=make_chain(("p", 60), ("px", 90))), AttemptId("2"), a)
    assert known.tokens(a.id) == 130
    known.ended(AttemptId("1"), a.id)
    assert (known.tokens(a.id), known.overlap_tokens(a.id, P)) == (90, 60)
    known.placed(request(prefixes=P), AttemptId("3"), engine("b"))
    known.lost(a.id)
    assert (known.tokens(a.id), known.overlap_tokens(a.id, P)) == (0, 0)
    assert known.tokens(EngineId("b")) == 100
    known.ended(AttemptId("3"), EngineId("b"))
    assert known.tokens(EngineId("b")) == 0


def test_a_piece_that_is_estimated_otherwise_later_counts_as_before() -> None:
    known = active(a=make_chain(("p", 60)))
    known.placed(request(prefixes=make_chain(("p", 66), ("pq", 110))), ONE, engine("a"))
    assert known.tokens(EngineId("a")) == 104
    known.ended(AttemptId("on-a"), EngineId("a"))
    known.ended(ONE, EngineId("a"))
    assert known.tokens(EngineId("a")) == 0


def test_cost_is_of_what_engines_report() -> None:
    view = make_view(engine("a"), engine("b"), held={"a": P})
    view.prefixes.report(EngineId("a"), held=(), lost=[boundary.hash for boundary in P])
    view.prefixes.report(EngineId("b"), held=P, lost=())
    found = KvExactPlacement(BaselineConfig(), ActivePrompts()).place(request(prefixes=P), view)
    assert placed(found) == {"r": "b"}


# --- all -------------------------------------------------------------------------------------

REQUESTS = st.lists(
    st.tuples(st.sampled_from("stu"), st.sampled_from([(), P, P[:1]]), st.sampled_from([60, 400])),
    min_size=1,
    max_size=12,
)


def run(
    placement: PlacementName, requests: list[tuple[str, Any, int]], lose_after: int
) -> list[tuple[str, str, str]]:
    """Return all placements on three engines, of which one is lost on the way."""
    scheduler = Scheduler(SchedulerConfig(placement=placement), PrefixIndexConfig())
    for name in "abc":
        scheduler.add_engine(make_engine(name, capacity_tokens=1000, max_requests=3), 0.0)
    made: list[tuple[str, str, str]] = []
    for number, (session, chain, need) in enumerate(requests):
        asked = make_request(f"r{number}", order=number, need_tokens=need, prefixes=chain)
        asked.session = SessionId(session)
        scheduler.enqueue(asked)
        before = {e.id: (e.used_tokens, len(e.running)) for e in scheduler.engines.values()}
        for placement_ in scheduler.schedule(0.0, lambda r: AttemptId(f"{r.id}~1")):
            made.append((placement_.request.id, placement_.engine, placement_.reason))
            tokens, running = before[placement_.engine]
            assert running == 0 or (tokens < 1000 and running < 3)
        for state in scheduler.engines.values():
            assert len(state.running) <= 3
            assert state.used_tokens <= 1000 or len(state.running) == 1
        if number == lose_after:
            scheduler.remove_engine(EngineId("a"))
    return made


@pytest.mark.parametrize("placement", BLIND)
@examples(25)
@given(requests=REQUESTS, lose_after=st.integers(0, 12))
def test_only_engines_with_room_are_chosen_and_equal_histories_choose_alike(
    placement: PlacementName, requests: list[tuple[str, Any, int]], lose_after: int
) -> None:
    first = run(placement, requests, lose_after)
    assert first == run(placement, requests, lose_after)
    gone = [engine for name, engine, _ in first if int(name[1:]) > lose_after]
    assert "a" not in gone
    assert all(reason for _, _, reason in first)


@pytest.mark.parametrize("placement", BLIND)
def test_the_scheduler_keeps_the_memory_up_to_date(placement: PlacementName) -> None:
    made = run(placement, [("s", P, 100), ("t", (), 100), ("s", P, 100)], lose_after=9)
    where = {name: engine for name, engine, _ in made}
    together = {"session_affinity", "cache_aware", "kv_exact", "fcfs"}
    if placement in together:
        assert where["r0"] == where["r2"]
    if placement == "round_robin":
        assert [where[f"r{i}"] for i in range(3)] == ["a", "b", "c"]
