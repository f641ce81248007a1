"""Prefix hashes at segment boundaries, and the guess of what engines hold."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parrot_backend.core.ids import EngineId
from parrot_backend.core.prefix import (
    PrefixBoundary,
    PrefixChain,
    PrefixHasher,
    PrefixIndex,
    PrefixIndexConfig,
    prefix_chain,
)
from parrot_backend.core.prompt import PartKind, PromptPart
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import make_chain

A, B, C = EngineId("a"), EngineId("b"), EngineId("c")


def const(text: str) -> PromptPart:
    return PromptPart(PartKind.CONSTANT, text)


def value(text: str) -> PromptPart:
    return PromptPart(PartKind.VALUE, text)


def role(name: str) -> PromptPart:
    return PromptPart(PartKind.ROLE, name)


def hashes(*parts: PromptPart, seed: str = "seed") -> list[bytes]:
    return [boundary.hash for boundary in prefix_chain(seed, parts, 1.0)]


# --- chains ----------------------------------------------------------------------------------


def test_prompt_without_parts_has_no_boundary() -> None:
    assert prefix_chain("seed", (), 1.0) == ()


def test_every_text_ends_at_a_boundary() -> None:
    chain = prefix_chain("seed", (const("abc"), value("de"), const("f")), 1.0)
    assert [boundary.tokens for boundary in chain] == [3, 5, 6]


def test_role_is_covered_by_the_text_that_follows() -> None:
    chain = prefix_chain("seed", (role("user"), const("abc")), 1.0)
    assert [boundary.tokens for boundary in chain] == [7]


def test_length_is_estimated_from_characters() -> None:
    chain = prefix_chain("seed", (const("x" * 100),), 0.25)
    assert chain[0].tokens == 25


@pytest.mark.parametrize(
    ("one", "other", "num_shared"),
    [
        ([const("a"), const("b")], [const("a"), const("b")], 2),
        ([const("a"), const("b")], [const("a"), const("c")], 1),
        ([const("a"), const("b")], [const("b"), const("a")], 0),
        ([const("a")], [const("a"), const("b")], 1),
        ([const("ab")], [const("a"), const("b")], 0),
        ([const("a"), const("bc")], [const("ab"), const("c")], 0),
        ([const("a"), value("b")], [const("a"), const("b")], 2),
        ([role("user"), const("a")], [role("user"), const("a")], 1),
        ([role("user"), const("a")], [role("system"), const("a")], 0),
        ([role("user"), const("a")], [const("user"), const("a")], 0),
        ([const("a"), role("user"), const("b")], [const("a"), const("b")], 1),
        ([const(""), const("a")], [const("a")], 0),
        ([const("é")], [const("e\u0301")], 0),
    ],
)
def test_prompts_share(one: list[PromptPart], other: list[PromptPart], num_shared: int) -> None:
    assert len(set(hashes(*one)) & set(hashes(*other))) == num_shared


def test_generated_text_is_shared_like_a_constant() -> None:
    assert hashes(const("a"), value("made"), const("x"))[:2] == hashes(const("a"), value("made"))


def test_tokens_that_are_reused_do_not_change_the_hash() -> None:
    with_tokens = PromptPart(PartKind.VALUE, "made", (1, 2))
    assert hashes(with_tokens) == hashes(value("made"))


def test_another_seed_shares_nothing() -> None:
    assert set(hashes(const("a"), seed="s")).isdisjoint(hashes(const("a"), seed="t"))


def test_half_a_surrogate_pair_has_a_hash() -> None:
    assert len(hashes(value("\ud800"))) == 1


_PARTS = st.lists(
    st.builds(PromptPart, st.sampled_from(PartKind), st.text("ab", max_size=3)), max_size=5
).map(tuple)


def leading(parts: tuple[PromptPart, ...]) -> list[tuple[tuple[bool, str], ...]]:
    """Return what stands before each boundary: texts with whether they are roles."""
    plain = [(part.kind is PartKind.ROLE, part.text) for part in parts]
    return [tuple(plain[: i + 1]) for i, (is_role, _) in enumerate(plain) if not is_role]


@examples(300)
@given(_PARTS, _PARTS)
def test_boundaries_are_equal_exactly_when_all_before_them_is(
    one: tuple[PromptPart, ...], other: tuple[PromptPart, ...]
) -> None:
    of_one = dict(zip(leading(one), hashes(*one), strict=True))
    of_other = dict(zip(leading(other), hashes(*other), strict=True))
    for parts, key in of_one.items():
        assert {p for p, k in of_other.items() if k == key} == ({parts} & set(of_other))


@examples(100)
@given(_PARTS, st.floats(0.01, 2.0))
def test_boundaries_never_get_shorter(parts: tuple[PromptPart, ...], rate: float) -> None:
    tokens = [boundary.tokens for boundary in prefix_chain("seed", parts, rate)]
    assert tokens == sorted(tokens)


@examples(100)
@given(_PARTS, st.text(max_size=4), st.text(max_size=4))
def test_different_seeds_never_share(
    parts: tuple[PromptPart, ...], seed: str, other_seed: str
) -> None:
    assume(seed != other_seed)
    assert set(hashes(*parts, seed=seed)).isdisjoint(hashes(*parts, seed=other_seed))


def test_seed_is_kept_apart_from_the_first_part() -> None:
    # "t1:x" is how a part "x" may be written behind the seed.
    one = hashes(const("x"), const("y"), seed="seed")
    other = hashes(const("y"), seed="seedt1:x")
    assert set(one).isdisjoint(other)


@examples(100)
@given(_PARTS, st.lists(st.integers(0, 5), max_size=3), st.floats(0.01, 2.0))
def test_boundaries_of_a_prompt_that_becomes_known_bit_by_bit_are_those_of_the_whole(
    parts: tuple[PromptPart, ...], cuts: list[int], rate: float
) -> None:
    hasher = PrefixHasher("seed")
    bounds = [0, *sorted(min(cut, len(parts)) for cut in cuts), len(parts)]
    found: list[PrefixBoundary] = []
    for start, end in itertools.pairwise(bounds):
        found += hasher.extend(parts[start:end], rate)
    assert tuple(found) == prefix_chain("seed", parts, rate)


@examples(100)
@given(_PARTS, _PARTS, _PARTS)
def test_copy_of_a_hasher_goes_on_by_itself(
    before: tuple[PromptPart, ...], one: tuple[PromptPart, ...], other: tuple[PromptPart, ...]
) -> None:
    hasher = PrefixHasher("seed")
    known = hasher.extend(before, 1.0)
    copied = hasher.copy()
    assert known + copied.extend(other, 1.0) == prefix_chain("seed", before + other, 1.0)
    assert known + hasher.extend(one, 1.0) == prefix_chain("seed", before + one, 1.0)


def test_nothing_more_is_no_further_boundary() -> None:
    hasher = PrefixHasher("seed")
    hasher.extend([const("a")], 1.0)
    assert hasher.extend([], 1.0) == ()


def test_lengths_of_a_prompt_never_fall_when_the_estimate_does() -> None:
    hasher = PrefixHasher("seed")
    (first,) = hasher.extend([const("a" * 400)], 0.25)
    (second,) = hasher.extend([const("b")], 0.2)
    assert first.tokens <= second.tokens


# --- the index -------------------------------------------------------------------------------


def make_index(max_prefixes: int = 100, engines: tuple[EngineId, ...] = (A, B)) -> PrefixIndex:
    index = PrefixIndex(PrefixIndexConfig(min_tokens=32, max_prefixes_per_engine=max_prefixes))
    for engine in engines:
        index.add_engine(engine)
    return index


SHORT = make_chain(("p", 40))
LONG = make_chain(("p", 40), ("pq", 90))
OTHER = make_chain(("p", 40), ("pr", 70))


def test_new_engine_holds_nothing() -> None:
    assert make_index().engines_with(LONG) == ()


def test_recorded_prefix_is_found() -> None:
    index = make_index()
    index.record(A, LONG)
    assert index.engines_with(LONG) == (A,)


def test_part_of_a_recorded_prefix_is_found() -> None:
    index = make_index()
    index.record(A, LONG)
    assert index.engines_with(OTHER) == (A,)


def test_engines_with_the_longest_prefix_are_found() -> None:
    index = make_index()
    index.record(A, SHORT)
    index.record(B, LONG)
    assert index.engines_with(LONG) == (B,)


def test_engines_with_one_prefix_are_found_in_order_of_record() -> None:
    index = make_index()
    index.record(B, SHORT)
    index.record(A, SHORT)
    assert index.engines_with(SHORT) == (B, A)


@pytest.mark.parametrize(
    ("recorded", "asked", "tokens"),
    [(LONG, LONG, 90), (LONG, OTHER, 40), (SHORT, LONG, 40), (LONG, make_chain(("x", 50)), 0)],
)
def test_length_of_the_longest_prefix_held(
    recorded: PrefixChain, asked: PrefixChain, tokens: int
) -> None:
    index = make_index()
    index.record(A, recorded)
    assert index.resident_tokens(A, asked) == tokens


def test_other_engine_holds_nothing() -> None:
    index = make_index()
    index.record(A, LONG)
    assert index.resident_tokens(B, LONG) == 0


def test_short_prefix_is_not_recorded() -> None:
    index = make_index()
    index.record(A, make_chain(("p", 31)))
    assert index.engines_with(make_chain(("p", 31))) == ()


def test_prefix_of_the_least_length_is_recorded() -> None:
    index = make_index()
    index.record(A, make_chain(("p", 32)))
    assert index.engines_with(make_chain(("p", 32))) == (A,)


def test_lost_engine_holds_nothing() -> None:
    index = make_index()
    index.record(A, LONG)
    index.record(B, SHORT)
    index.remove_engine(A)
    assert index.engines_with(LONG) == (B,)


def test_unknown_engine_may_be_removed() -> None:
    make_index().remove_engine(C)


def test_engine_that_joins_again_begins_empty() -> None:
    index = make_index()
    index.record(A, LONG)
    index.remove_engine(A)
    index.add_engine(A)
    assert index.resident_tokens(A, LONG) == 0


def test_least_recently_used_prefix_is_forgotten() -> None:
    index = make_index(max_prefixes=2)
    for name in ("p", "q", "r"):
        index.record(A, make_chain((name, 40)))
    held = [name for name in "pqr" if index.resident_tokens(A, make_chain((name, 40)))]
    assert held == ["q", "r"]


def test_prefix_used_again_is_kept() -> None:
    index = make_index(max_prefixes=2)
    for name in ("p", "q", "p", "r"):
        index.record(A, make_chain((name, 40)))
    held = [name for name in "pqr" if index.resident_tokens(A, make_chain((name, 40)))]
    assert held == ["p", "r"]


def test_forgotten_prefix_is_found_on_no_engine() -> None:
    index = make_index(max_prefixes=1)
    index.record(A, make_chain(("p", 40)))
    index.record(A, make_chain(("q", 40)))
    assert index.engines_with(make_chain(("p", 40))) == ()


def test_one_engine_forgets_for_itself_alone() -> None:
    index = make_index(max_prefixes=1)
    index.record(A, make_chain(("p", 40)))
    index.record(B, make_chain(("p", 40)))
    index.record(A, make_chain(("q", 40)))
    assert index.engines_with(make_chain(("p", 40))) == (B,)


_RECORDS = st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 6)), max_size=30)


@examples(100)
@given(_RECORDS, st.integers(1, 4))
def test_index_is_the_last_prefixes_of_each_engine(
    records: list[tuple[EngineId, int]], limit: int
) -> None:
    index = make_index(max_prefixes=limit)
    expected: dict[EngineId, list[int]] = {A: [], B: []}
    for engine, number in records:
        index.record(engine, make_chain((str(number), 40)))
        expected[engine] = [n for n in expected[engine] if n != number] + [number]
        expected[engine] = expected[engine][-limit:]
    for number in range(7):
        chain = make_chain((str(number), 40))
        holders = {engine for engine, held in expected.items() if number in held}
        assert set(index.engines_with(chain)) == holders
        assert {e for e in (A, B) if index.resident_tokens(e, chain)} == holders


# --- what engines report ---------------------------------------------------------------------


def test_reported_prefix_is_held() -> None:
    index = make_index()
    index.report(A, LONG, [])
    assert (index.holds(A, b"pq"), index.holds(B, b"pq")) == (True, False)
    assert index.engines_holding(b"pq") == (A,)
    assert index.engines_with(LONG) == (A,)


def test_prefix_that_nobody_holds_is_on_no_engine() -> None:
    assert make_index().engines_holding(b"p") == ()


def test_engines_that_hold_one_prefix_are_in_order_of_record() -> None:
    index = make_index()
    index.record(B, SHORT)
    index.report(A, SHORT, [])
    assert index.engines_holding(b"p") == (B, A)


def test_short_prefix_is_held_if_the_engine_says_so() -> None:
    index = make_index()
    index.report(A, make_chain(("p", 16)), [])
    assert index.resident_tokens(A, SHORT) == 16


def test_exact_length_counts_and_not_the_estimate() -> None:
    index = make_index()
    index.report(A, make_chain(("p", 48)), [])
    assert index.resident_tokens(A, SHORT) == 48
    index.record(A, LONG)
    assert index.resident_tokens(A, SHORT) == 48
    assert index.resident_tokens(A, LONG) == 90


def test_later_report_corrects_the_length() -> None:
    index = make_index()
    index.report(A, make_chain(("p", 48)), [])
    index.report(A, make_chain(("p", 32)), [])
    assert index.resident_tokens(A, SHORT) == 32


def test_lost_prefix_is_not_held() -> None:
    index = make_index()
    index.record(A, LONG)
    index.record(B, LONG)
    index.report(A, [], [b"pq"])
    assert index.engines_holding(b"pq") == (B,)
    assert index.resident_tokens(A, LONG) == 40


def test_loss_of_what_is_not_held_is_ignored() -> None:
    index = make_index()
    index.record(A, SHORT)
    index.report(A, [], [b"pq", b"unknown"])
    assert index.resident_tokens(A, LONG) == 40


def test_prefix_that_was_lost_and_is_held_again_is_held() -> None:
    index = make_index()
    index.record(A, SHORT)
    index.report(A, SHORT, [b"p"])
    assert index.holds(A, b"p")


def test_snapshot_is_all_that_is_held() -> None:
    index = make_index()
    index.record(A, LONG)
    index.record(B, LONG)
    index.report_all(A, make_chain(("pr", 64)))
    assert index.resident_tokens(A, LONG) == 0
    assert index.resident_tokens(A, OTHER) == 64
    assert index.engines_with(LONG) == (B,)


def test_reports_are_bounded_like_records() -> None:
    index = make_index(max_prefixes=2)
    index.report(A, make_chain(("p", 40), ("q", 40), ("r", 40)), [])
    assert [index.holds(A, key) for key in (b"p", b"q", b"r")] == [False, True, True]


_NUMBERS = st.lists(st.integers(0, 6), max_size=4, unique=True)
_REPORTS = st.lists(
    st.tuples(st.sampled_from(["record", "report", "all"]), _NUMBERS, _NUMBERS), max_size=20
)


@examples(200)
@given(_REPORTS)
def test_index_holds_what_was_recorded_or_reported_since_it_was_lost(
    reports: list[tuple[str, list[int], list[int]]],
) -> None:
    index = make_index()
    index.record(B, SHORT)
    expected: dict[bytes, int] = {}
    for kind, held, lost in reports:
        chain = make_chain(*((str(number), 64 + number) for number in held))
        keys = [str(number).encode() for number in lost]
        if kind == "record":
            index.record(A, make_chain(*((str(number), 40) for number in held)))
            for boundary in chain:
                expected.setdefault(boundary.hash, 40)
            continue
        if kind == "report":
            index.report(A, chain, keys)
            expected = {k: tokens for k, tokens in expected.items() if k not in keys}
        else:
            index.report_all(A, chain)
            expected = {}
        expected.update(chain)
    found = {
        str(n).encode(): index.resident_tokens(A, make_chain((str(n), 40)))
        for n in range(7)
        if index.holds(A, str(n).encode())
    }
    assert found == expected
    assert all(index.engines_holding(key) == (A,) for key in expected)
    assert index.engines_holding(b"p") == (B,)


# --- many engines ------------------------------------------------------------------------------


def test_holders_are_in_order_of_record_until_they_let_go() -> None:
    index, (p,) = (
        make_index(
            engines=(
                A,
                B,
                C,
            )
        ),
        make_chain(("p", 40)),
    )
    for engine in (B, A, C, A):
        index.record(engine, (p,))
    assert tuple(index.holders_of(p.hash)) == (B, A, C)
    for engine, left in ((A, (B, C)), (B, (C,)), (C, ())):
        index.report(engine, (), [p.hash])
        assert tuple(index.holders_of(p.hash)) == left


@pytest.mark.parametrize(
    ("reported", "most"),
    [({}, 40), ({A: 50}, 50), ({A: 30}, 40), ({B: 60}, 60), ({A: 45, B: 44}, 45)],
)
def test_no_engine_holds_more_of_a_prefix_than_the_bound(
    reported: dict[EngineId, int], most: int
) -> None:
    index, (p,) = (
        make_index(
            engines=(
                A,
                B,
                C,
            )
        ),
        make_chain(("p", 40)),
    )
    for engine in (A, B):
        index.record(engine, (p,))
    for engine, tokens in reported.items():
        index.report(engine, make_chain(("p", tokens)), ())
    assert index.most_tokens(p) == most
    assert max(index.resident_tokens(engine, (p,)) for engine in (A, B)) <= most


def test_the_bound_of_a_prefix_nobody_holds_is_its_own_length() -> None:
    (p,) = make_chain(("p", 40))
    assert make_index(engines=(A,)).most_tokens(p) == 40


def test_a_prefix_one_engine_reported_is_bounded_by_that() -> None:
    index, (p,) = make_index(engines=(A,)), make_chain(("p", 40))
    index.report(A, make_chain(("p", 70)), ())
    assert index.most_tokens(p) == 70


def test_what_changes_nothing_is_no_change() -> None:
    index, chain = make_index(engines=(A,)), make_chain(("p", 40))
    index.record(A, chain)
    before = index.num_changes
    index.record(A, chain)
    index.report(A, (), [b"unknown"])
    assert index.num_changes == before
    index.report(A, chain, ())
    assert index.num_changes > before
