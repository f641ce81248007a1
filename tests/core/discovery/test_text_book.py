from __future__ import annotations

import json
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.discovery.anchors import AnchorIndex
from parrot_backend.core.discovery.budget import Budget
from parrot_backend.core.discovery.matching import MIN_CHARS, Match, find_matches
from parrot_backend.core.discovery.pieces import Fresh, Piece, Reference, Repeated
from parrot_backend.core.discovery.selection import Claim, select_passages
from parrot_backend.core.discovery.text_book import TextBook
from parrot_backend.core.ids import VariableId
from tests.core.hypothesis_settings import examples


def _passage(seed: int, length: int = 120) -> str:
    """Return text that has nothing in common with that of another seed."""
    word = "".join(chr(97 + (seed * 7 + i * i) % 26) for i in range(8))
    return " ".join(f"{word}{i}.{seed}" for i in range(length // 8))[:length]


A, B, C, D = (_passage(seed, 200 + 10 * seed) for seed in range(4))


def _text(book: TextBook, prompt: str, pieces: Iterable[Piece]) -> str:
    return "".join(
        prompt[p.start : p.end] if isinstance(p, Fresh) else book.text_of(p) for p in pieces
    )


def _edges(pieces: Iterable[Piece]) -> list[tuple[str, bool]]:
    return [(p.variable, p.is_whole) for p in pieces if isinstance(p, Reference)]


def _book(**values: str) -> TextBook:
    book = TextBook()
    for name, value in values.items():
        book.add_value(VariableId(name), value)
    return book


V1 = A + B + C
V2 = A + "x" + B + C


@pytest.mark.parametrize(
    ("values", "prompt", "edges"),
    [
        ({"v": A}, A, [("v", True)]),
        ({"v": A}, "Look: " + A + " What now?", [("v", True)]),
        ({"v": "\n " + A + " \n"}, "Look: " + A + ".", [("v", True)]),
        ({"v": "```python\n" + A + "\n```\nDone."}, "Look: " + A + ".", [("v", False)]),
        ({"v": A, "w": B}, B + " and " + A, [("w", True), ("v", True)]),
        ({"v": A}, A[: MIN_CHARS - 1], []),
        ({"v": A[: MIN_CHARS - 1]}, A[: MIN_CHARS - 1], []),
        ({"v": " " * 100}, " " * 100, []),
        # Versions: each is told from the other by the whole, or by where they differ ...
        ({"v1": V1, "v2": V2}, "Code: " + V1, [("v1", True)]),
        ({"v1": V1, "v2": V2}, "Code: " + V2 + "!", [("v2", True)]),
        ({"v1": "1\n" + V1 + "\n1", "v2": "2\n" + V2 + "\n2"}, V2, [("v2", False)]),
        # ... and by nothing else: neither age nor order.
        ({"v1": "1\n" + V1 + "\n1", "v2": "2\n" + V2 + "\n2"}, "Code: " + C, []),
        ({"v1": A, "v2": A}, "Code: " + A, []),
        ({"v1": A, "v2": " " + A}, "Code: " + A, []),
        ({"v1": A, "v2": A + " \n"}, "Code: " + A + " \n", []),
        # What quotes a value is not where it comes from, unless more of it is there.
        ({"v": A, "quotes": "I say: " + A + "! Yes."}, "Code: " + A + "!", [("v", True)]),
        ({"v": A, "quotes": "I say: " + A + B}, "I say: " + A + B, [("quotes", True)]),
        ({"v": A, "quotes": "so " + A + B + C}, "Code: " + A + B, [("quotes", False)]),
        # Text of both, with the longer one in full.
        ({"v": A + B, "w": B + C + D}, A + B + C + D, [("v", False), ("w", True)]),
    ],
)
def test_edges(values: dict[str, str], prompt: str, edges: list[tuple[str, bool]]) -> None:
    book = _book(**values)
    pieces = book.read(prompt)
    assert _edges(pieces) == edges
    assert _text(book, prompt, pieces) == prompt


def test_a_part_that_others_may_have_unseen_is_no_edge() -> None:
    """The anchors of A are in too many texts; those of the part's own end tell it from others."""
    values = {f"v{n}": f"{n}\n" + A + _passage(n + 20, 90) for n in range(20)}
    assert _edges(_book(**values).read("Code: " + A)) == []
    assert _edges(_book(**values).read("Code: " + A + _passage(27, 70))) == [("v7", False)]
    values["w"] = "w\n" + A + _passage(27, 90)
    assert _edges(_book(**values).read("Code: " + A + _passage(27, 70))) == []


def test_a_newer_version_is_seen_after_a_text_was_read() -> None:
    long_a = "".join(_passage(seed, 400) for seed in range(10, 14))
    book = _book(old="1 " + long_a + "old")
    assert _edges(book.read(long_a + B + "?")) == [("old", False)]
    book.add_value(VariableId("new"), "2 " + long_a + "new")
    assert _edges(book.read(long_a + B + "!")) == []


def test_a_newer_version_of_what_others_follow_is_seen_too() -> None:
    long_a = "".join(_passage(seed, 400) for seed in range(10, 14))
    book = _book(old="1 " + long_a + "old", b=B)
    assert _edges(book.read(long_a + B + "one?")) == [("old", False), ("b", True)]
    book.add_value(VariableId("new"), "2 " + long_a + "new")
    assert _edges(book.read(long_a + B + "two!")) == [("b", True)]


def test_lines_of_an_escaped_value_are_found() -> None:
    value = "\n".join((A, B, C))
    pieces = _book(v=value).read("As JSON: " + json.dumps(value))
    assert _edges(pieces) == [("v", False)] * 3


def test_what_a_prompt_said_before_is_repeated_and_no_edge() -> None:
    book = TextBook()
    assert book.read(A + B) == (Fresh(0, len(A + B)),)
    first, second = book.read(A + C)
    assert isinstance(first, Repeated)
    assert first.end == len(A)
    assert isinstance(second, Fresh)


def test_a_value_that_echoes_an_earlier_prompt_is_no_source_of_it() -> None:
    book = TextBook()
    book.read("Task: " + A + "\nOutline the files.")
    book.add_value(VariableId("echoes"), "You want: " + A + "\n\n" + B)
    assert _edges(book.read("Task: " + A + "\n\nNow write them.")) == []
    assert _edges(book.read("You said: " + B)) == [("echoes", False)]


def test_a_value_that_is_an_earlier_prompt_is_no_source_of_it() -> None:
    book = TextBook()
    book.read(A)
    book.add_value(VariableId("echoes"), A)
    assert _edges(book.read("Task: " + A)) == []


def test_a_beginning_that_was_read_before_gives_the_same_pieces() -> None:
    long_a = "".join(_passage(seed, 400) for seed in range(10, 14))
    book = _book(a=long_a, b=B, c=C)
    book.read("Head. " + long_a + B + "one")
    again = book.read("Head. " + long_a + B + "two and " + C)
    assert _edges(again) == [("a", True), ("b", True), ("c", True)]
    book.add_value(VariableId("rival"), B)
    last = book.read("Head. " + long_a + B + "three " + C)
    assert _edges(last) == [("a", True), ("c", True)]
    assert _text(book, "Head. " + long_a + B + "three " + C, last).endswith("three " + C)


def test_a_value_that_an_earlier_text_had_in_part_may_go_on() -> None:
    long_a = "".join(_passage(seed, 400) for seed in range(10, 14))
    book = _book(b=B)
    assert _edges(book.read(long_a + B[:100])) == [("b", False)]
    assert _edges(book.read(long_a + B)) == [("b", True)]


def test_what_an_earlier_text_began_with_may_be_forgotten() -> None:
    long_a = "".join(_passage(seed, 400) for seed in range(10, 14))
    book = TextBook(max_chars=4000)
    book.add_value(VariableId("a"), long_a)
    book.add_value(VariableId("b"), B)
    assert _edges(book.read(long_a + B + "?")) == [("a", True), ("b", True)]
    for seed in range(20, 26):
        book.read(_passage(seed, 600))
    pieces = book.read(long_a + B + "!")
    assert _edges(pieces) == [("b", True)]
    assert pieces[0] == Fresh(0, len(long_a))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("offset", range(32))
def test_a_passage_is_found_wherever_it_lies(offset: int, place: int) -> None:
    passage = _passage(3, MIN_CHARS)
    book = _book(v="<" * offset + passage + "<" * 40)
    pieces = book.read(">" * place + passage + ">" * 40)
    assert [(p.start, p.end) for p in pieces if isinstance(p, Reference)] == [
        (place, place + MIN_CHARS)
    ]


def test_matches_whose_rivals_may_be_unseen_for_lack_of_time_do_not_count() -> None:
    index = AnchorIndex()
    index.add(0, A)
    assert find_matches(A, {0: A}, index, Budget(work_left=1)) == []


def test_what_was_not_used_for_the_longest_is_forgotten() -> None:
    book = TextBook(max_chars=len(A) + len(B) + len(C))
    for name, value in (("a", A), ("b", B), ("c", C)):
        book.add_value(VariableId(name), value)
    assert _edges(book.read(A)) == [("a", True)]
    book.add_value(VariableId("d"), D)
    assert book.num_chars <= len(A) + len(B) + len(C)
    assert [_edges(book.read(text)) for text in (A, D)] == [[("a", True)], [("d", True)]]
    assert _edges(book.read(B)) == []


def test_a_book_that_forgets_all_holds_nothing() -> None:
    index = AnchorIndex()
    texts = [A + B, B + A, "ab" * 500, "x" * 900, A]
    for number, text in enumerate(texts):
        index.add(number, text)
    for number, text in enumerate(texts):
        index.remove(number, text)
    assert index.positions == {}


def test_longer_texts_than_a_session_may_have_are_not_kept() -> None:
    book = TextBook(max_chars=100)
    book.add_value(VariableId("a"), A)
    assert _edges(book.read(A)) == []
    assert book.num_chars == 0


_BLOCKS = st.lists(
    st.sampled_from([_passage(seed, 30 + 9 * seed) for seed in range(7)]), max_size=9
)
_TEXTS = st.lists(st.one_of(_BLOCKS.map("".join), st.text("ab \n", max_size=120)), max_size=6)


def _all_matches(prompt: str, texts: dict[int, str]) -> Iterable[Match]:
    """Return all passages that cannot be made longer, found by comparing each with each."""
    for number, text in texts.items():
        for diagonal in range(-len(text), len(prompt)):
            run = max(0, diagonal)
            end = min(len(prompt), diagonal + len(text))
            for place in range(run, end + 1):
                if place == end or prompt[place] != text[place - diagonal]:
                    if place - run >= MIN_CHARS:
                        yield Match(run, place, number, run - diagonal)
                    run = place + 1


_FEW = st.lists(st.sampled_from([_passage(seed, 30 + 9 * seed) for seed in range(5)]), max_size=5)


def _agrees_with_comparing_everything(prompt: str, texts: dict[int, str]) -> None:
    index = AnchorIndex()
    for number, text in texts.items():
        index.add(number, text)
    kinds = [Claim.EARLIER_PROMPT, Claim.PART_OF_VALUE]

    def claim_of(match: Match) -> Claim:
        if match.end - match.start == len(texts[match.number]):
            return Claim.WHOLE_VALUE
        return kinds[match.number % 2]

    found = select_passages(
        prompt, find_matches(prompt, texts, index, Budget.of([prompt])), claim_of
    )
    wanted = select_passages(prompt, _all_matches(prompt, texts), claim_of)
    shape = [(p.start, p.end, p.claim, p.is_ambiguous) for p in found]
    assert shape == [(p.start, p.end, p.claim, p.is_ambiguous) for p in wanted]


@given(blocks=st.lists(_FEW.map("".join), max_size=3), prompt=_FEW.map("".join))
@examples(100)
def test_the_search_finds_what_comparing_everything_finds(blocks: list[str], prompt: str) -> None:
    _agrees_with_comparing_everything(prompt, dict(enumerate(dict.fromkeys(blocks))))


_POOL = [_passage(seed, 250) for seed in range(4)]
_POOL += ["def f(x):\n    return x\n\n" * 6, "    self.value = value\n" * 8]


def _tangle(rng: random.Random, most: int) -> str:
    """Return pieces of texts, cut anywhere."""
    pieces: list[str] = []
    for _ in range(rng.randrange(1, most)):
        text = rng.choice(_POOL)
        start = rng.randrange(len(text))
        pieces.append(text[start : start + rng.randrange(20, 160)])
        if rng.random() < 0.3:
            pieces.append(rng.choice([" ", "\n", "xx", "```\n"]))
    return "".join(pieces)


# The large ones are those of thousands in which a rival shows only beyond the first period, or
# begins before the end of what is found first.
@pytest.mark.parametrize("seed", [*range(12), 576, 740, 1117, 1213, 1680])
def test_the_search_finds_all_in_tangled_texts(seed: int) -> None:
    rng = random.Random(seed)
    texts = dict(enumerate(dict.fromkeys(_tangle(rng, 4) for _ in range(rng.randrange(1, 6)))))
    prompt = _tangle(rng, 3)
    for _ in range(3):
        prompt += rng.choice(list(texts.values())) if rng.random() < 0.5 else _tangle(rng, 2)
    _agrees_with_comparing_everything(prompt, texts)


@examples(100)
@given(values=_TEXTS, prompts=_TEXTS, max_chars=st.integers(60, 900))
def test_the_pieces_give_the_prompt(values: list[str], prompts: list[str], max_chars: int) -> None:
    book = TextBook(max_chars)
    for number, value in enumerate(values):
        book.add_value(VariableId(f"v{number}"), value)
    for prompt in prompts:
        known = {n: k.text for n, k in book._known.items()}
        pieces = book.read(prompt)
        assert [p.start for p in pieces] == [0, *(p.end for p in pieces)][: len(pieces)]
        assert (pieces[-1].end if pieces else 0) == len(prompt)
        for piece in pieces:
            if not isinstance(piece, Fresh):
                offset, length = piece.offset, piece.end - piece.start
                text = known[piece.text][offset : offset + length]
                assert text == prompt[piece.start : piece.end]
        assert book.num_chars <= max_chars


def _de_bruijn(length: int) -> str:
    """Return text of two letters in which a window is as seldom repeated as it can be."""
    state, letters = 1, []
    for _ in range(length):
        letters.append("ab"[state & 1])
        state = (state >> 1) ^ (0xB400 if state & 1 else 0)
    return "".join(letters)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 20_000,
        "ab" * 10_000,
        (A[:31] * 700)[:20_000],
        (A + B) * 50,
        _de_bruijn(20_000),
        "".join("a" * i + "b" for i in range(200)),
    ],
    ids=["one letter", "two letters", "odd period", "long period", "de bruijn", "growing"],
)
def test_texts_made_to_cost_time_are_compared_a_bounded_number_of_times(text: str) -> None:
    texts = {number: text[number:] + str(number) for number in range(20)}
    index = AnchorIndex()
    for number, known in texts.items():
        index.add(number, known)
    budget = Budget.of([text])
    found = find_matches(text, texts, index, budget)
    assert budget.work_left > -2 * len(text) - 10_000
    assert len(found) <= 2 * len(text)
