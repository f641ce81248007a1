"""Finding sessions, and finding again what was submitted before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parrot_backend.core.events import GraphSubmitted
from parrot_backend.core.ids import SessionId, VariableId
from parrot_backend.core.session import Session
from parrot_backend.core.session_book import SessionBook
from parrot_backend.errors import RequestError
from tests.helpers.builders import SESSION, make_step, make_submission, var

KEYED = make_submission(idempotency_key="key", digest="body")
OTHER = SessionId("other")


def accept(book: SessionBook, submission: GraphSubmitted, now_s: float = 0.0) -> Session:
    session = book.prepare(submission, now_s)
    session.graph.apply(session.graph.plan(submission, 100), now_s)
    book.accept(session, submission)
    return session


def code_of(book: SessionBook, submission: GraphSubmitted) -> str:
    with pytest.raises(RequestError) as caught:
        book.prepare(submission, 0.0)
    return caught.value.code


def test_new_book_is_empty() -> None:
    assert list(SessionBook()) == []


def test_prepared_session_is_not_in_the_book_yet() -> None:
    book = SessionBook()
    book.prepare(make_submission(), 0.0)
    assert len(book) == 0


def test_accepted_session_is_found() -> None:
    book = SessionBook()
    session = accept(book, make_submission())
    assert book.find(SESSION) is session


def test_accepted_session_is_listed() -> None:
    book = SessionBook()
    accept(book, make_submission())
    accept(book, make_submission(session=OTHER))
    assert [session.id for session in book] == [SESSION, OTHER]


def test_sessions_are_numbered_in_order_of_arrival() -> None:
    book = SessionBook()
    assert accept(book, make_submission()).order == 0
    assert accept(book, make_submission(session=OTHER)).order == 1


def test_numbers_are_not_used_again() -> None:
    book = SessionBook()
    book.forget(accept(book, make_submission()))
    assert accept(book, make_submission(session=OTHER)).order == 1


def test_new_session_carries_what_the_submit_says() -> None:
    submission = GraphSubmitted(SESSION, True, "tenant", "app", (("run", 7),))
    session = accept(SessionBook(), submission, now_s=3.0)
    assert (session.tenant, session.app, session.metadata) == ("tenant", "app", (("run", 7),))
    assert (session.created_s, session.touched_s) == (3.0, 3.0)


def test_live_session_is_prepared_for_more() -> None:
    book = SessionBook()
    session = accept(book, make_submission())
    assert book.prepare(make_submission(is_new=False), 1.0) is session


def test_unknown_session_takes_nothing() -> None:
    assert code_of(SessionBook(), make_submission(is_new=False)) == "unknown_session"


def test_session_of_another_tenant_seems_unknown() -> None:
    book = SessionBook()
    accept(book, make_submission(tenant="one"))
    assert code_of(book, make_submission(tenant="two", is_new=False)) == "unknown_session"


def test_closed_session_takes_nothing() -> None:
    book = SessionBook()
    accept(book, make_submission()).is_closed = True
    assert code_of(book, make_submission(is_new=False)) == "session_closed"


def test_session_cannot_be_opened_twice() -> None:
    book = SessionBook()
    accept(book, make_submission())
    assert code_of(book, make_submission()) == "session_exists"


def test_unknown_session_is_not_found() -> None:
    with pytest.raises(RequestError) as caught:
        SessionBook().find(SESSION)
    assert (caught.value.code, caught.value.status) == ("unknown_session", 404)


def test_absent_session_is_none() -> None:
    assert SessionBook().get(SESSION) is None


def test_variable_is_found_with_its_session() -> None:
    book = SessionBook()
    session = accept(book, make_submission(make_step("a")))
    found_session, variable = book.find_variable(var("a"))
    assert (found_session, variable.name) == (session, "a")


@pytest.mark.parametrize(
    ("variable", "code"),
    [
        (var("b"), "unknown_variable"),
        (var("a", OTHER), "unknown_session"),
        (VariableId("s"), "unknown_variable"),
        (VariableId(""), "unknown_session"),
        (VariableId("s."), "unknown_variable"),
    ],
)
def test_variable_is_not_found(variable: VariableId, code: str) -> None:
    book = SessionBook()
    accept(book, make_submission(make_step("a")))
    with pytest.raises(RequestError) as caught:
        book.find_variable(variable)
    assert (caught.value.code, caught.value.status) == (code, 404)


# --- repeats ---------------------------------------------------------------------------------


def test_submit_without_key_has_no_earlier_one() -> None:
    book = SessionBook()
    accept(book, make_submission())
    assert book.earlier_submit(make_submission()) is None


def test_first_submit_with_a_key_has_no_earlier_one() -> None:
    assert SessionBook().earlier_submit(KEYED) is None


def test_repeat_finds_the_first_ones_session() -> None:
    book = SessionBook()
    session = accept(book, KEYED)
    assert book.earlier_submit(replace(KEYED, session=OTHER)) is session


def test_key_with_another_body_is_a_conflict() -> None:
    book = SessionBook()
    accept(book, KEYED)
    with pytest.raises(RequestError) as caught:
        book.earlier_submit(replace(KEYED, digest="another body"))
    assert (caught.value.code, caught.value.status) == ("idempotency_conflict", 409)


def test_keys_of_tenants_are_apart() -> None:
    book = SessionBook()
    accept(book, KEYED)
    assert book.earlier_submit(replace(KEYED, tenant="another")) is None


def test_session_of_a_key_is_found() -> None:
    book = SessionBook()
    accept(book, KEYED)
    assert book.session_of_key("default", "key") == SESSION


@pytest.mark.parametrize(("tenant", "key"), [("another", "key"), ("default", "another")])
def test_session_of_an_unknown_key_is_none(tenant: str, key: str) -> None:
    book = SessionBook()
    accept(book, KEYED)
    assert book.session_of_key(tenant, key) is None


def test_keys_of_a_forgotten_session_are_forgotten() -> None:
    book = SessionBook()
    book.forget(accept(book, KEYED))
    assert book.session_of_key("default", "key") is None
    assert book.earlier_submit(KEYED) is None


def test_keys_of_other_sessions_are_kept() -> None:
    book = SessionBook()
    session = accept(book, KEYED)
    accept(book, replace(KEYED, session=OTHER, idempotency_key="second"))
    book.forget(session)
    assert book.session_of_key("default", "second") == OTHER


def test_each_submit_of_a_session_has_its_key() -> None:
    book = SessionBook()
    session = accept(book, KEYED)
    more = replace(KEYED, is_new=False, idempotency_key="more", digest="other")
    book.accept(book.prepare(more, 0.0), more)
    assert book.earlier_submit(KEYED) is session
    assert book.earlier_submit(more) is session
