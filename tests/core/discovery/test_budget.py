"""What one call may cost, whatever its texts are made of."""

from __future__ import annotations

import random
import string
from itertools import pairwise

import pytest

from parrot_backend.core.discovery import matching
from parrot_backend.core.discovery.budget import COMPARISON_COST, MAX_CHARS_READ, Budget
from parrot_backend.core.discovery.pieces import Fresh, Pieces, Reference
from parrot_backend.core.discovery.structure import RunStructure
from parrot_backend.core.discovery.text_book import TextBook
from parrot_backend.core.ids import VariableId
from tests.helpers.compiled import needs_python

_RNG = random.Random(3)
_SNIPPETS = ["".join(_RNG.choices(string.ascii_lowercase, k=20)) for _ in range(64)]


def _full_of_snippets(rng: random.Random) -> str:
    """Return a value in which each snippet stands where the index has it."""
    snippets = rng.sample(_SNIPPETS, len(_SNIPPETS))
    return "".join(one + "".join(rng.choices(string.ascii_uppercase, k=12)) for one in snippets)


def _costly() -> RunStructure:
    """Return a run in which each snippet has as many places as are followed."""
    rng, run = random.Random(4), RunStructure()
    for number in range(16):
        run.set_input(VariableId(f"v{number}"), _full_of_snippets(rng))
    return run


def _costly_text(rng: random.Random, num_snippets: int) -> str:
    return "".join(rng.choices(_SNIPPETS, k=num_snippets))


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often two texts are compared."""
    needs_python("functions cannot be replaced")
    counted: list[int] = []
    real = matching._Search._extend

    def extend(self: matching._Search, place: int, number: int, offset: int) -> matching.Match:
        counted.append(place)
        return real(self, place, number, offset)

    monkeypatch.setattr(matching._Search, "_extend", extend)
    return counted


@pytest.mark.parametrize(("num_texts", "num_snippets"), [(1, 2_000), (200, 15), (1_000, 15)])
def test_all_texts_of_a_call_have_one_budget(
    num_texts: int, num_snippets: int, comparisons: list[int]
) -> None:
    run, rng = _costly(), random.Random(5)
    texts = [_costly_text(rng, num_snippets) for _ in range(num_texts)]
    num_chars = min(sum(map(len, texts)), MAX_CHARS_READ)
    run.begin(texts)
    # Each has its own cost and that of the few characters compared.
    most = 256 + num_chars // 32
    assert most // 2 < len(comparisons) <= most


def test_what_cannot_be_paid_for_is_plain() -> None:
    value, rng = "".join(random.Random(6).choices(string.ascii_letters, k=200)), random.Random(7)
    costly = [_costly_text(rng, 1_000) for _ in range(2)]
    for texts, is_found in (([value, *costly], True), ([*costly, "Read: " + value], False)):
        run = _costly()
        run.set_input(VariableId("v"), value)
        assert ("v" in run.begin(texts).reads) is is_found


def test_a_smaller_budget_leaves_more_plain() -> None:
    """The budget is what ends the search, and nothing else."""
    text = _costly_text(random.Random(8), 1_000) + "READ: "
    value = "".join(random.Random(9).choices(string.ascii_letters, k=200))
    whole = Budget.of([text + value])
    found: list[bool] = []
    for share in (1, 100):
        book = TextBook()
        rng = random.Random(4)
        for number in range(16):
            book.add_value(VariableId(f"w{number}"), _full_of_snippets(rng))
        book.add_value(VariableId("v"), value)
        pieces = book.read(text + value, Budget(whole.work_left * 100 // share))
        found.append(any(isinstance(piece, Reference) for piece in pieces))
    assert found == [True, False]


def _words(seed: int, num_chars: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_lowercase + " ", k=num_chars))


def test_only_so_many_characters_of_a_call_are_read() -> None:
    book, value = TextBook(), _words(0, 500)
    book.add_value(VariableId("v"), value)
    texts = [_words(seed, MAX_CHARS_READ // 3) for seed in range(1, 5)]
    before = book.num_chars
    read = book.read_call(["First: " + value, *texts, "Last: " + value])
    assert [isinstance(pieces[-1], Reference) for pieces in read] == [True, *[False] * 4, True]
    assert book.num_chars == before + 2 * len(texts[0])
    longer = value + _words(9, MAX_CHARS_READ)
    assert book.read(longer) == (Fresh(0, len(longer)),)
    assert book.num_chars == before + 2 * len(texts[0])


def test_texts_that_are_known_cost_little() -> None:
    book = TextBook()
    turns = [_words(seed, 1000) for seed in range(300)]
    for start in range(0, 300, 100):
        book.read_call(turns[start : start + 100])
    book.add_value(VariableId("v"), _words(1_000, 500))
    read = book.read_call([*turns, "Now read: " + _words(1_000, 500)])
    assert isinstance(read[-1][-1], Reference)


def test_many_short_texts_are_read_up_to_a_number() -> None:
    book = TextBook()
    read = book.read_call([_words(number, 60) for number in range(5_000)])
    assert len(read) == 5_000
    assert 1_000 < len(book._known) < 3_000


def test_empty_texts_have_no_pieces_however_many_there_are() -> None:
    read: tuple[Pieces, ...] = TextBook().read_call([""] * 20_000)
    assert not any(read)


def test_a_call_is_read_once_for_all_its_choices() -> None:
    book, value = TextBook(), _words(0, 500)
    book.add_value(VariableId("v"), value)
    texts = ["System.", "Read: " + value + _words(1, 300)]
    reads = [book.read_call(texts) for _ in range(3)]
    assert all(one is other for one, other in pairwise(reads))
    book.add_value(VariableId("w"), "More: " + value)
    assert book.read_call(texts) is not reads[0]


def test_nothing_is_read_once_all_comparisons_are_spent() -> None:
    assert Budget(COMPARISON_COST).may_read(1)
    assert not Budget(0).may_read(1)
