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


def _book(*ended: tuple[str, SessionId], max_places: int = 100) -> ConversationBook:
    book = ConversationBook(max_places)
    for text, session in ended:
        *turns, reply = _turns(text)
        book.end("t", turns, [reply], session)
    return book


def _found(book: ConversationBook, text: str, tenant: str = "t") -> SessionId | None:
    stand = book.find(tenant, _turns(text))
    return None if stand is None else stand.session


def _goes_on(book: ConversationBook, text: str) -> SessionId | None:
    stand = book.find("t", _turns(text))
    if stand is None:
        return None
    session = stand.session
    stand.use()
    return session


def test_a_call_goes_on_with_the_session_whose_words_it_repeats() -> None:
    book = _book(("sA uHi aHello", S), ("sA uBye aSo_long", T))
    assert _found(book, "sA uHi aHello uHow?") == S
    assert _found(book, "sA uBye aSo_long uStay uPlease") == T


def test_what_differs_anywhere_goes_on_with_nothing() -> None:
    book = _book(("sA uHi aHello", S))
    others = ("sB uHi aHello uHow?", "sA uHi aHallo uHow?", "sA uHi", "sA uHi aHello", "uHello")
    assert [book.find("t", _turns(text)) for text in others] == [None] * 5
    assert book.find("other", _turns("sA uHi aHello uHow?")) is None
    with_tool = [*_turns("sA uHi"), Turn("a", "Hello", "calls f()"), Turn("u", "How?")]
    assert book.find("t", with_tool) is None


def test_the_longest_common_conversation_wins() -> None:
    book = _book(("uHi aHello", S), ("uHi aHello uHow? aWell", T))
    assert _found(book, "uHi aHello uHow? aWell uFine") == T
    assert _found(book, "uHi aHello uWhy? aWell uFine") == S


def test_looking_changes_nothing() -> None:
    book = _book(("uHi aHello", S))
    assert [_found(book, "uHi aHello uHow?") for _ in range(3)] == [S] * 3


def test_a_place_is_used_up_by_what_goes_on_from_it() -> None:
    book = _book(("uHi aHello", S))
    assert _goes_on(book, "uHi aHello uHow?") == S
    assert [_goes_on(book, f"uHi aHello u{text}") for text in ("How?", "Why?")] == [None] * 2
    book.end("t", _turns("uHi aHello uHow?"), [Turn("a", "Well")], S)
    book.end("t", _turns("uHi aHello uWhy?"), [Turn("a", "Because")], T)
    assert _goes_on(book, "uHi aHello uHow? aWell uFine") == S
    assert _goes_on(book, "uHi aHello uWhy? aBecause uFine") == T


def test_a_place_that_several_came_to_is_nobodys() -> None:
    book = _book(("uHi aHello", S), ("uHi aHello", T))
    assert _found(book, "uHi aHello uHow?") is None
    book.end("t", _turns("uHi"), [Turn("a", "Hello")], U)
    assert _found(book, "uHi aHello uHow?") is None


def test_a_place_that_was_used_up_stays_so() -> None:
    book = _book(("uHi aHello", S))
    assert _goes_on(book, "uHi aHello uHow?") == S
    book.end("t", _turns("uHi"), [Turn("a", "Hello")], T)
    assert _found(book, "uHi aHello uHow?") is None


def test_a_longer_place_that_is_nobodys_is_not_passed_over() -> None:
    book = _book(("uHi aHello uHow? aWell", S), ("uHi aHello uHow? aWell", T), ("uHi aHello", U))
    assert _found(book, "uHi aHello uHow? aWell uFine") is None
    assert _found(book, "uHi aHello uWhy?") == U


def test_of_several_replies_one_is_gone_on_from() -> None:
    book = ConversationBook()
    book.end("t", _turns("uHi"), [Turn("a", "1"), Turn("a", "2"), Turn("a", "1")], S)
    assert len(book) == 2
    assert _found(book, "uHi a2 u!") == S
    assert _goes_on(book, "uHi a1 u!") == S
    assert _goes_on(book, "uHi a2 u!") is None


def test_white_space_that_clients_strip_does_not_matter() -> None:
    book = ConversationBook()
    book.end("t", [Turn("u", "Hi")], [Turn("a", " Hello\n")], S)
    stand = book.find("t", [Turn("u", "Hi\n"), Turn("a", "Hello"), Turn("u", "!")])
    assert stand is not None
    assert stand.session == S


def test_what_was_longest_ago_is_forgotten() -> None:
    book = _book(("uA a1", S), ("uB a1", T), max_places=2)
    assert _found(book, "uA a1 u!") == S
    book.end("t", _turns("uC"), [Turn("a", "1")], U)
    assert len(book) == 2
    assert [_found(book, f"u{x} a1 u!") for x in "ABC"] == [S, None, U]


@examples(100)
@given(st.lists(st.lists(st.sampled_from(["uA", "aA", "uB", "aB"]), min_size=1), max_size=8))
def test_a_session_is_found_exactly_when_its_words_alone_begin_the_call(
    words: list[list[str]],
) -> None:
    book = _book(*((" ".join(w), SessionId(str(n))) for n, w in enumerate(words)))
    ask = [*words[0], "uA"] if words else ["uA"]
    beginnings = [n for n, w in enumerate(words) if len(w) < len(ask) and ask[: len(w)] == w]
    longest = max((len(words[n]) for n in beginnings), default=0)
    standing = [str(n) for n in beginnings if len(words[n]) == longest]
    assert _found(book, " ".join(ask)) == (standing[0] if len(standing) == 1 else None)
