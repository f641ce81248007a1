"""What running attempts hold together: the tree of their prefixes, against a plain model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.discovery.beginnings import Beginning
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.prefix import PrefixChain
from parrot_backend.core.working_set import WorkingSet
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import (
    make_chain,
    make_engine_state,
    make_request,
)

A = make_chain(("s", 100), ("sa", 160))
B = make_chain(("s", 100), ("sb", 300))
SHORT = make_chain(("x", 31))


@pytest.mark.parametrize(
    ("used", "asked", "tokens"),
    [
        ([], A, 0),
        ([A], A, 160),
        ([A], B, 100),
        ([B], (), 0),
        ([SHORT], SHORT, 0),
        ([make_chain(("s", 90))], A, 90),  # as it was taken for when it came into use
    ],
    ids=["nothing", "all", "the beginning", "no prompt", "too short", "other estimate"],
)
def test_shared_tokens(used: list[PrefixChain], asked: PrefixChain, tokens: int) -> None:
    working_set = WorkingSet(min_tokens=32)
    for chain in used:
        working_set.enter(chain)
    assert working_set.shared_tokens(asked) == tokens


def test_prefix_stays_in_use_until_its_last_user_has_left() -> None:
    working_set = WorkingSet(min_tokens=32)
    working_set.enter(A)
    working_set.enter(B)
    assert working_set.leave(A) == 100
    assert working_set.leave(B) == 0


def counting_engine() -> EngineState:
    """Return an idle engine of 1000 tokens whose room is counted by the working set."""
    engine = make_engine_state(capacity_tokens=1000)
    engine.working_set = WorkingSet(min_tokens=32)
    return engine


def start(engine: EngineState, name: str, need_tokens: int, chain: PrefixChain) -> None:
    request = make_request(name, need_tokens=need_tokens, prefixes=chain)
    added = engine.added_tokens(request, resident_tokens=0)
    engine.add(AttemptId(name), added, is_latency=False, now_s=0.0, chain=chain)


def test_prefix_counts_once_and_as_long_as_somebody_holds_it() -> None:
    engine = counting_engine()
    start(engine, "a", 170, A)
    start(engine, "b", 310, B)
    assert engine.used_tokens == 170 + 310 - 100
    engine.remove(AttemptId("a"))
    assert engine.used_tokens == 310  # who paid for the prefix has left; it is still there
    engine.remove(AttemptId("b"))
    assert engine.used_tokens == 0


def test_what_is_only_cached_takes_room_once_it_is_used() -> None:
    engine = counting_engine()
    request = make_request(need_tokens=170, prefixes=A)
    assert engine.added_tokens(request, resident_tokens=160) == 170


@st.composite
def prompts(draw: st.DrawFn) -> PrefixChain:
    """Draw a path in a small tree whose lengths are estimates that differ a little."""
    path, tokens, boundaries = "", 0, []
    for letter in draw(st.text("ab", max_size=3)):
        path += letter
        tokens += 50 + draw(st.integers(0, 9))
        boundaries.append((path, tokens))
    return make_chain(*boundaries)


@examples(200)
@given(chains=st.lists(prompts(), min_size=1, max_size=8), order=st.randoms(use_true_random=False))
def test_account_is_that_of_the_tree_and_ends_empty(chains: list[PrefixChain], order) -> None:
    engine = counting_engine()
    left = {f"r{number}": chain for number, chain in enumerate(chains)}
    for name, chain in left.items():
        start(engine, name, (chain[-1].tokens if chain else 0) + 20, chain)
    names = list(left)
    order.shuffle(names)
    for name in names:
        tree = {boundary.hash for chain in left.values() for boundary in chain}
        # Every edge is 50 to 59 tokens, and an estimate may be off by as much at each level.
        assert abs(engine.used_tokens - 20 * len(left) - 54.5 * len(tree)) <= 30 * len(chains)
        engine.remove(AttemptId(name))
        del left[name]
    assert engine.used_tokens == 0


def test_found_beginnings_do_not_count() -> None:
    # Sessions cut them as they happen to have them: what one gave back, another did not take.
    engine = counting_engine()
    start(engine, "held", 300, A)
    request = make_request("found", need_tokens=200, prefixes=make_chain(("f", 150)))
    request.beginnings = (Beginning(A[0], part=0, offset=100),)
    assert engine.added_tokens(request, resident_tokens=0) == 200


def test_estimates_about_the_least_length_leave_nothing_behind() -> None:
    engine = counting_engine()
    start(engine, "long", 40, make_chain(("x", 32), ("xy", 40)))
    start(engine, "short", 45, make_chain(("x", 31), ("xz", 45)))
    engine.remove(AttemptId("short"))
    engine.remove(AttemptId("long"))
    assert engine.used_tokens == 0


#: The same tree as prompts of another rate of tokens per character have it.
_PATHS = ("", "a", "b", "ab", "aba", "abb", "ba", "bab")


@examples(200)
@given(
    history=st.lists(
        st.tuples(st.sampled_from(_PATHS), st.integers(20, 45), st.integers(0, 7)), max_size=20
    )
)
def test_nothing_is_left_behind_whatever_lengths_were_estimated(
    history: list[tuple[str, int, int]],
) -> None:
    engine = counting_engine()
    running = list[AttemptId]()
    for number, (path, edge_tokens, leaves) in enumerate(history):
        lengths = range(edge_tokens, edge_tokens * (len(path) + 1), edge_tokens)
        chain = make_chain(*((path[: i + 1], tokens) for i, tokens in enumerate(lengths)))
        start(engine, f"r{number}", edge_tokens * len(path) + 20, chain)
        running.append(AttemptId(f"r{number}"))
        if leaves < len(running):
            engine.remove(running.pop(leaves))
    for attempt in running:
        engine.remove(attempt)
    assert (engine.used_tokens, engine.full_tokens) == (0, 0)
