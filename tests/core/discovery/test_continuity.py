from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.discovery.continuity import ConversationBook, Turn
from parrot_backend.core.ids import SessionId
from tests.core.hypothesis_settings import examples

S, T, U = (SessionId(name) for name in "stu")


def _turns(text: str) -> list[Turn]:
    """Read ``sA uHi aHello``: a letter for the role, then the text."""
    return [Turn(word[0], word[1:]) for word in text.split()]


def _book(*ended: tuple[str, SessionId], max_calls: int = 100) -> ConversationBook:
    book = ConversationBook(max_calls)
    for text, session in ended:
        *turns, reply = _turns(text)
        book.end("t", turns, reply, session)
    return book


def test_a_call_goes_on_with_the_session_whose_words_it_repeats() -> None:
    book = _book(("sA uHi aHello", S), ("sA uBye aSo_long", T))
    assert book.continued_by("t", _turns("sA uHi aHello uHow?")) == S
    assert book.continued_by("t", _turns("sA uBye aSo_long uStay uPlease")) == T


def test_what_differs_anywhere_goes_on_with_nothing() -> None:
    book = _book(("sA uHi aHello", S))
    others = ("sB uHi aHello uHow?", "sA uHi aHallo uHow?", "sA uHi", "sA uHi aHello", "uHello")
    assert [book.continued_by("t", _turns(text)) for text in others] == [None] * 5
    assert book.continued_by("other", _turns("sA uHi aHello uHow?")) is None
    with_tool = [*_turns("sA uHi"), Turn("a", "Hello", "calls f()"), Turn("u", "How?")]
    assert book.continued_by("t", with_tool) is None


def test_the_longest_common_conversation_wins() -> None:
    book = _book(("uHi aHello", S), ("uHi aHello uHow? aWell", T))
    assert book.continued_by("t", _turns("uHi aHello uHow? aWell uFine")) == T
    assert book.continued_by("t", _turns("uHi aHello uWhy? aWell uFine")) == S


def test_of_sessions_that_are_alike_each_gets_one_call() -> None:
    book = _book(("uHi aHello", S), ("uHi aHello", T), ("uHi aHello", U))
    found = [book.continued_by("t", _turns("uHi aHello uHow?")) for _ in range(5)]
    assert found == [U, T, S, S, S]


def test_white_space_that_clients_strip_does_not_matter() -> None:
    book = ConversationBook()
    book.end("t", [Turn("u", "Hi")], Turn("a", " Hello\n"), S)
    assert book.continued_by("t", [Turn("u", "Hi\n"), Turn("a", "Hello"), Turn("u", "!")]) == S


def test_what_was_longest_ago_is_forgotten() -> None:
    book = _book(("uA a1", S), ("uB a1", T), max_calls=2)
    assert book.continued_by("t", _turns("uA a1 u!")) == S
    book.end("t", _turns("uC"), Turn("a", "1"), U)
    assert len(book) == 2
    found = [book.continued_by("t", _turns(f"u{x} a1 u!")) for x in "ABC"]
    assert found == [S, None, U]


@examples(100)
@given(st.lists(st.lists(st.sampled_from(["uA", "aA", "uB", "aB"]), min_size=1), max_size=8))
def test_a_session_is_found_exactly_when_its_words_begin_the_call(words: list[list[str]]) -> None:
    book = _book(*((" ".join(w), SessionId(str(n))) for n, w in enumerate(words)))
    ask = [*words[0], "uA"] if words else ["uA"]
    beginnings = [w for w in words if len(w) < len(ask) and ask[: len(w)] == w]
    found = book.continued_by("t", _turns(" ".join(ask)))
    if found is None:
        assert not beginnings
    else:
        assert len(words[int(found)]) == max(map(len, beginnings))
        assert words[int(found)] in beginnings
