"""Reference counts of prefixes that requests to come will read, and what engines are told."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.commands import Command, ReleasePrefixes, RetainPrefix
from parrot_backend.core.ids import AttemptId, EngineId, NodeId
from parrot_backend.core.prefix import PrefixChain, PrefixIndex, PrefixIndexConfig
from parrot_backend.core.retention import Retention
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_chain

A, B = EngineId("a"), EngineId("b")
R, S, T = NodeId("r"), NodeId("s"), NodeId("t")
DONE = AttemptId("r~1")
P = make_chain(("p", 40))
PQ = make_chain(("p", 40), ("pq", 90))
PX = make_chain(("p", 40), ("px", 90))


class World:
    """A retention, the index it looks at, and what it said since it was last asked."""

    def __init__(self, *engines: EngineId) -> None:
        self.index = PrefixIndex(PrefixIndexConfig(min_tokens=32))
        for engine in engines or (A, B):
            self.index.add_engine(engine)
        self._said: list[Command] = []
        self.retention = Retention(self.index, 32, self._said.append)

    def expect(self, node: NodeId, chain: PrefixChain, *keepers: EngineId) -> None:
        self.retention.expect(node, chain, keepers or (A, B))

    def said(self) -> list[Command]:
        said = list(self._said)
        self._said.clear()
        return said


# --- counts ----------------------------------------------------------------------------------


def test_prefix_counts_who_wants_it() -> None:
    world = World()
    world.expect(R, PQ)
    world.expect(S, PX)
    assert {key: world.retention.count(key) for key in (b"p", b"pq", b"px", b"other")} == {
        b"p": 2,
        b"pq": 1,
        b"px": 1,
        b"other": 0,
    }
    assert len(world.retention) == 3


def test_prefix_that_becomes_known_bit_by_bit_counts_once() -> None:
    world = World()
    world.expect(R, PQ[:1])
    world.expect(R, PQ[1:])
    assert (world.retention.count(b"p"), world.retention.count(b"pq")) == (1, 1)


@pytest.mark.parametrize(("tokens", "count"), [(31, 0), (32, 1)])
def test_short_prefix_is_not_worth_keeping(tokens: int, count: int) -> None:
    world = World()
    world.expect(R, make_chain(("p", tokens)))
    assert world.retention.count(b"p") == count


def test_request_that_has_ended_counts_no_more() -> None:
    world = World()
    world.expect(R, PQ)
    world.expect(S, PX)
    world.retention.forget(R)
    assert (world.retention.count(b"p"), world.retention.count(b"pq")) == (1, 0)
    world.retention.forget(S)
    assert len(world.retention) == 0


def test_request_that_was_never_expected_may_end() -> None:
    world = World()
    world.retention.forget(R)
    assert world.said() == []


# --- retaining -------------------------------------------------------------------------------


def test_engine_that_holds_what_becomes_wanted_is_told_once() -> None:
    world = World()
    world.index.record(A, P)
    world.expect(R, P)
    assert world.said() == [RetainPrefix(A, b"p", None)]
    world.expect(S, P)
    assert world.said() == []


def test_all_engines_that_hold_it_are_told() -> None:
    world = World()
    world.index.record(B, P)
    world.index.record(A, P)
    world.expect(R, P)
    assert world.said() == [RetainPrefix(A, b"p", None), RetainPrefix(B, b"p", None)]


def test_engine_that_keeps_nothing_is_not_told() -> None:
    world = World()
    world.index.record(A, P)
    world.index.record(B, P)
    world.expect(R, P, B)
    assert world.said() == [RetainPrefix(B, b"p", None)]


@pytest.mark.parametrize(
    ("others", "num_readers", "kept"),
    [
        ([], 1, ()),
        ([], 0, (b"p", b"pq")),
        ([PX], 1, (b"p",)),
        ([PQ], 1, (b"p", b"pq")),
        ([PX], 0, (b"p", b"pq")),
    ],
)
def test_engine_is_to_keep_what_others_want(
    others: list[PrefixChain], num_readers: int, kept: tuple[bytes, ...]
) -> None:
    world = World()
    world.expect(R, PQ)
    for number, chain in enumerate(others):
        world.expect(NodeId(f"other{number}"), chain)
    assert world.retention.to_keep(PQ, A, num_readers) == kept


def test_what_an_engine_is_to_keep_it_is_not_told_again() -> None:
    world = World()
    world.expect(R, P)
    world.expect(S, P)
    world.retention.to_keep(P, A, 1)
    world.index.record(A, P)
    world.expect(T, P)
    assert world.said() == []


def test_continuation_that_is_wanted_is_kept() -> None:
    world = World()
    world.expect(S, PQ)
    world.retention.continued(b"pq", A, DONE)
    world.retention.continued(b"pq", A, DONE)
    assert world.said() == [RetainPrefix(A, b"pq", DONE)]


def test_continuation_that_nobody_wants_is_not_kept() -> None:
    world = World()
    world.expect(S, P)
    world.retention.continued(b"pq", A, DONE)
    assert world.said() == []


# --- releasing -------------------------------------------------------------------------------


def test_prefix_is_let_go_when_the_last_who_wanted_it_has_ended() -> None:
    world = World()
    world.index.record(A, P)
    world.expect(R, P)
    world.expect(S, P)
    world.said()
    world.retention.forget(R)
    assert world.said() == []
    world.retention.forget(S)
    assert world.said() == [ReleasePrefixes(A, (b"p",))]
    world.retention.forget(S)
    assert world.said() == []


def test_prefixes_of_one_engine_are_let_go_together() -> None:
    world = World()
    world.expect(R, PQ)
    world.retention.to_keep(PQ, A, 0)
    world.retention.to_keep(P, B, 0)
    world.retention.forget(R)
    assert world.said() == [ReleasePrefixes(A, (b"p", b"pq")), ReleasePrefixes(B, (b"p",))]


def test_prefix_that_no_engine_keeps_needs_no_letting_go() -> None:
    world = World()
    world.expect(R, P)
    world.retention.forget(R)
    assert world.said() == []


def test_prefix_that_is_wanted_anew_is_kept_anew() -> None:
    world = World()
    world.index.record(A, P)
    world.expect(R, P)
    world.retention.forget(R)
    world.said()
    world.expect(S, P)
    assert world.said() == [RetainPrefix(A, b"p", None)]


def test_engines_let_go_in_an_order_that_is_always_the_same() -> None:
    engines = [EngineId(f"e{number:02d}") for number in range(32)]
    world = World(*engines)
    world.expect(R, P, *engines)
    for engine in reversed(engines):
        world.retention.to_keep(P, engine, 0)
    world.retention.forget(R)
    assert world.said() == [ReleasePrefixes(engine, (b"p",)) for engine in engines]


def test_engine_that_is_gone_lets_nothing_go() -> None:
    world = World()
    world.expect(R, P)
    world.retention.to_keep(P, A, 0)
    world.retention.to_keep(P, B, 0)
    world.retention.lose_engine(A)
    world.retention.forget(R)
    assert world.said() == [ReleasePrefixes(B, (b"p",))]


def test_engine_that_is_back_is_told_again() -> None:
    world = World()
    world.expect(R, P)
    world.retention.to_keep(P, A, 0)
    world.retention.lose_engine(A)
    world.index.record(A, P)
    world.expect(S, P)
    assert world.said() == [RetainPrefix(A, b"p", None)]


# --- any order -------------------------------------------------------------------------------

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["expect", "end", "compute", "record", "continue", "lose"]),
        st.integers(0, 4),
        st.integers(0, 5),
        st.sampled_from([A, B]),
    ),
    max_size=40,
)


def chain_of(number: int) -> PrefixChain:
    return make_chain(("p", 40), (f"p{number % 3}", 60), (f"p{number % 3}{number}", 80))


@examples(200)
@given(_STEPS)
def test_engines_keep_only_what_is_wanted_and_hear_everything_once(
    steps: list[tuple[str, int, int, EngineId]],
) -> None:
    world = World()
    wanted: dict[NodeId, list[bytes]] = {}
    kept: dict[EngineId, set[bytes]] = {A: set(), B: set()}
    for kind, who, number, engine in steps:
        node, chain = NodeId(f"n{who}"), chain_of(number)
        if kind == "expect" and node not in wanted:
            world.expect(node, chain)
            wanted[node] = [boundary.hash for boundary in chain]
        elif kind == "end":
            world.retention.forget(node)
            wanted.pop(node, None)
        elif kind == "compute":
            kept[engine].update(world.retention.to_keep(chain, engine, who % 2))
        elif kind == "record":
            world.index.record(engine, chain)
        elif kind == "continue":
            world.retention.continued(chain[-1].hash, engine, DONE)
        elif kind == "lose":
            world.retention.lose_engine(engine)
            kept[engine].clear()
        for command in world.said():
            if isinstance(command, RetainPrefix):
                assert command.key not in kept[command.engine]
                kept[command.engine].add(command.key)
            else:
                assert isinstance(command, ReleasePrefixes)
                assert kept[command.engine] >= set(command.keys)
                kept[command.engine] -= set(command.keys)
        counts = Counter(key for keys in wanted.values() for key in keys)
        assert len(world.retention) == len(counts)
        assert all(world.retention.count(key) == number for key, number in counts.items())
        assert kept[A] | kept[B] <= set(counts)
