"""Prompts as pieces: what they shared, they share, and nothing is told of their texts."""

from __future__ import annotations

from itertools import combinations, takewhile

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.sim.program import Constant, Output, Piece
from parrot_backend.sim.shared_beginnings import PieceLengths, RecordedPart
from tests.core.hypothesis_settings import examples

SYSTEM = "You answer briefly. " * 20
OTHER = "You answer at length. " * 20


def constant(text: str) -> tuple[RecordedPart, ...]:
    return (RecordedPart(text),)


def tokens_of(pieces: tuple[Piece, ...], made: dict[str, int]) -> int:
    return sum(p.tokens if isinstance(p, Constant) else made[p.call] for p in pieces)


def num_shared(left: tuple[Piece, ...], right: tuple[Piece, ...]) -> int:
    """Return how many tokens two prompts begin with alike; outputs are not counted."""
    alike = 0
    for one, other in zip(left, right, strict=False):
        if one != other or isinstance(one, Output):
            break
        alike += one.tokens
    return alike


def test_prompts_are_cut_where_they_part() -> None:
    prompts = [constant(SYSTEM + end) for end in ("Who was it?", "What was that then?")]
    prompts += [constant(OTHER + "Who was it?")]
    texts = PieceLengths(prompts)
    who, what, other = (texts.pieces(each, 110, {}, "s") for each in prompts)
    assert 100 <= num_shared(who, what) < 110
    assert num_shared(who, other) == 0
    assert [tokens_of(each, {}) for each in (who, what, other)] == [110, 110, 110]


def test_values_stand_where_they_stood() -> None:
    prompt = (RecordedPart(SYSTEM), RecordedPart("a value", "a"), RecordedPart(" Go on."))
    pieces = PieceLengths([prompt]).pieces(prompt, 130, {"a": 20}, "s")
    assert [isinstance(piece, Output) for piece in pieces] == [False, True, False]
    assert tokens_of(pieces, {"a": 20}) == 130


def test_a_value_that_no_call_made_is_a_text() -> None:
    prompt = (RecordedPart(SYSTEM), RecordedPart("from the client", "x"))
    pieces = PieceLengths([prompt]).pieces(prompt, 50, {"a": 20}, "s")
    assert all(isinstance(piece, Constant) for piece in pieces)
    assert tokens_of(pieces, {}) == 50


def test_lengths_that_contradict_each_other_give_nothing() -> None:
    prompt = (RecordedPart("short"), RecordedPart("a value", "a"))
    assert PieceLengths([prompt]).pieces(prompt, 10, {"a": 20}, "s") == ()


def test_names_tell_nothing_of_texts() -> None:
    secret = "the password is swordfish, " * 3
    prompts = [constant(secret + end) for end in ("a", "b")]
    texts = PieceLengths(prompts)
    told = repr([texts.pieces(each, 30, {}, "s") for each in prompts])
    assert not [word for word in secret.split() if len(word) > 2 and word in told]


_PHRASES = st.lists(st.sampled_from(["x" * 40, "y" * 40, "yes " * 10, "no"]), max_size=5)
_PROMPTS = st.lists(
    st.lists(st.tuples(_PHRASES.map("".join), st.sampled_from([None, "a", "b"])), min_size=1),
    min_size=1,
    max_size=6,
)


@examples(200)
@given(_PROMPTS)
def test_what_prompts_have_in_common_they_keep(
    drawn: list[list[tuple[str, str | None]]],
) -> None:
    made = {"a": 7, "b": 9}
    prompts = [tuple(RecordedPart(text, source) for text, source in parts) for parts in drawn]
    lengths = [
        sum(made[p.source] if p.source else len(p.text) // 4 for p in prompt) + 8
        for prompt in prompts
    ]
    texts = PieceLengths(prompts)
    found = [
        texts.pieces(prompt, tokens, made, f"s{number}")
        for number, (prompt, tokens) in enumerate(zip(prompts, lengths, strict=True))
    ]
    for prompt, tokens, pieces in zip(prompts, lengths, found, strict=True):
        if pieces:
            assert tokens_of(pieces, made) == tokens
            read = [part.source for part in prompt if part.source]
            assert [piece.call for piece in pieces if isinstance(piece, Output)] == read
    for (one, a), (other, b) in combinations(zip(prompts, found, strict=True), 2):
        if not (a and b):
            continue
        first, second = one[0], other[0]
        if first.source or second.source:
            continue
        alike = takewhile(
            lambda pair: pair[0] == pair[1], zip(first.text, second.text, strict=False)
        )
        chars = len(list(alike))
        ends_there = chars in (len(first.text), len(second.text))
        if chars >= 32 and not ends_there and len(a) > 1 and len(b) > 1:
            assert a[0] == b[0]
