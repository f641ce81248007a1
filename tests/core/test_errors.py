"""The error tree: codes, statuses, and the way of a failure."""

from __future__ import annotations

import pytest

from parrot_backend.errors import (
    STATUS_OF_CODE,
    CapacityError,
    EngineError,
    Failure,
    InternalError,
    ParrotError,
    RequestError,
)

STATUSES: list[tuple[ParrotError, int]] = [
    (RequestError("cycle_in_graph", "m"), 422),
    (RequestError("unknown_session", "m"), 404),
    (RequestError("unknown_variable", "m"), 404),
    (RequestError("variable_already_set", "m"), 409),
    (RequestError("variable_has_producer", "m"), 409),
    (RequestError("session_closed", "m"), 409),
    (RequestError("session_exists", "m"), 409),
    (RequestError("idempotency_conflict", "m"), 409),
    (RequestError("malformed_json", "m"), 400),
    (RequestError("graph_too_large", "m"), 413),
    (CapacityError("saturated", "m"), 429),
    (CapacityError("no_engine", "m"), 503),
    (EngineError("engine_lost", "m"), 502),
    (InternalError("bug", "m"), 500),
]


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=[e.code for e, _ in STATUSES])
def test_status_of_error(error: ParrotError, status: int) -> None:
    assert error.status == status


def test_status_can_be_changed_for_one_error() -> None:
    assert RequestError("unknown_variable", "m").with_status(422).status == 422


def test_statuses_are_those_of_http_errors() -> None:
    assert all(400 <= status < 600 for status in STATUS_OF_CODE.values())


def test_error_carries_its_message_as_text() -> None:
    assert str(RequestError("c", "what to do")) == "what to do"


def test_error_carries_its_context() -> None:
    assert RequestError("c", "m", limit=3).context == {"limit": 3}


def test_capacity_error_says_when_to_come_again() -> None:
    assert CapacityError("saturated", "m", retry_after_s=2.5).retry_after_s == 2.5


def test_failure_is_extended_by_the_dependant() -> None:
    failure = Failure("code", "message", "a", ("a",))
    assert failure.extended("b") == Failure("code", "message", "a", ("a", "b"))


def test_extended_failure_leaves_the_first_as_it_was() -> None:
    failure = Failure("code", "message", "a", ("a",))
    failure.extended("b")
    assert failure.path == ("a",)
