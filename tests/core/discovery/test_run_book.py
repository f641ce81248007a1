from __future__ import annotations

from parrot_backend.core.discovery.run_book import RunBook
from parrot_backend.core.ids import NodeId, SessionId, VariableId

_A, _B = SessionId("a"), SessionId("b")
_VALUE = "The keeper of the harbour writes down each arrival, the cargo and the captain's name."
_OTHER = "Ships that come in winter wait outside of the bay until the pilot has boarded them all."


def say(
    book: RunBook, session: SessionId, name: str, text: str, value: str | None = None
) -> list[str]:
    """Play one call, which fails without a value; return what it reads."""
    call = book.begin(session, NodeId(name), [text])
    if value is None:
        book.end(session, NodeId(name), None, "")
    else:
        book.end(session, NodeId(name), VariableId(name), value)
    return list(call.reads)


def test_the_first_call_costs_nothing_until_there_is_a_second() -> None:
    book = RunBook(10_000)
    assert say(book, _A, "1", "Write a log.", _VALUE) == []
    assert book.num_chars == 0
    assert book.shape(_A)[0].width == 1
    assert say(book, _A, "2", f"Sum up: {_VALUE}", _OTHER) == ["1"]
    assert book.num_chars > 0
    assert [stage.width for stage in book.shape(_A)] == [1, 1]


def test_a_first_call_that_runs_still_is_read_when_it_has_ended() -> None:
    book = RunBook(10_000)
    book.begin(_A, NodeId("1"), ["Write a log."])
    assert say(book, _A, "2", f"Sum up: {_VALUE}", _OTHER) == []
    book.end(_A, NodeId("1"), VariableId("1"), _VALUE)
    assert say(book, _A, "3", f"{_OTHER} {_VALUE[:-1]}", "yes") == ["2"]
    assert say(book, _A, "4", f"And {_OTHER}", "yes") == ["2"]


def test_a_call_that_failed_is_read_by_none() -> None:
    for number_of_the_failed in (0, 1):
        book = RunBook(10_000)
        values: list[str | None] = ["a", "b"]
        values[number_of_the_failed] = None
        for number, value in enumerate(values):
            say(book, _A, str(number), f"Write {number}.", value)
        assert say(book, _A, "2", _VALUE, "c") == []


def test_sessions_know_nothing_of_each_other() -> None:
    book = RunBook(10_000)
    say(book, _A, "1", "Write.", _VALUE)
    say(book, _B, "2", "Go on.", "x")
    assert say(book, _B, "3", _VALUE, "y") == []


def test_a_session_that_is_forgotten_for_room_begins_anew_and_teaches_nothing() -> None:
    book = RunBook(300)
    say(book, _A, "1", "Write.", _VALUE)
    assert say(book, _A, "2", f"Sum up: {_VALUE}", "x") == ["1"]
    say(book, _B, "3", "Write.", _OTHER)
    assert say(book, _B, "4", f"{_OTHER} {_OTHER[::-1]} {_VALUE[::-1]}", "x") == ["3"]
    assert book.num_chars <= 300
    assert say(book, _A, "5", f"Sum up: {_VALUE}", "x") == []
    say(book, _A, "6", "Go on.", "x")
    assert book.forget(_A) == []
    book.forget(_B)
    assert (len(book), book.num_chars) == (0, 0)


def test_the_session_that_was_heard_of_last_is_kept() -> None:
    book = RunBook(300)
    for session in (_A, _B, _A):
        say(book, session, f"{session}1", f"Write for {session}.", f"{session}: {_VALUE}")
        say(book, session, f"{session}2", "Go on.", "x")
    say(book, SessionId("c"), "c1", "Write.", _OTHER * 2)
    say(book, SessionId("c"), "c2", "Go on.", "x")
    assert say(book, _A, "a3", f"Sum up: a: {_VALUE}", "x") == ["a1"]
    assert say(book, _B, "b3", f"Sum up: b: {_VALUE}", "x") == []


def test_a_call_that_ends_after_its_session_was_forgotten_is_no_more() -> None:
    book = RunBook(300)
    say(book, _A, "1", "Write.", _VALUE)
    book.begin(_A, NodeId("2"), [f"Sum up: {_VALUE}"])
    say(book, _B, "3", "Write.", _OTHER)
    say(book, _B, "4", f"{_OTHER} {_OTHER[::-1]} {_VALUE[::-1]}", "x")
    book.end(_A, NodeId("2"), VariableId("2"), _VALUE)
    assert book.num_chars <= 300
    book.forget(_A)
    book.end(_A, NodeId("2"), VariableId("2"), _VALUE)
    assert len(book) == 1


def test_a_single_call_teaches_nothing() -> None:
    book = RunBook(300)
    say(book, _A, "1", "Write.", _VALUE)
    assert book.forget(_A) == []
    assert book.forget(_B) == []


def test_nothing_is_left_of_sessions_that_were_forgotten() -> None:
    book = RunBook(10_000)
    for session in (_A, _B):
        say(book, session, f"{session}1", "Write.", _VALUE)
        say(book, session, f"{session}2", f"Sum up: {_VALUE}", "x")
        book.forget(session)
    assert (len(book), book.num_chars, len(book._by_use)) == (0, 0, 0)
