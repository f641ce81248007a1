"""Errors belong to both trees."""

from __future__ import annotations

import pickle

import pytest
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)

import parrot_integrations as P
from parrot_integrations.langchain.errors import langchain_errors, to_langchain_error

TABLE = [
    (P.RequestRejected("http_401", "m"), ModelAuthenticationError),
    (P.RequestRejected("http_403", "m"), ModelPermissionDeniedError),
    (P.RequestRejected("unknown_model", "m"), ModelNotFoundError),
    (P.RequestRejected("prompt_too_long", "m"), ContextOverflowError),
    (P.RequestRejected("invalid_request", "m", {"field": "x"}), ModelInvalidRequestError),
    (P.Saturated("saturated", "m", None, 3.0), ModelRateLimitError),
    (P.Saturated("no_engine", "m"), ModelAPIError),
    (P.ConnectionFailed("connection_failed", "m", None, False), ModelConnectionError),
    (P.ServerFailed("internal", "m"), ModelAPIError),
    (P.WaitTimeout("wait_timeout", "m"), ModelTimeoutError),
    (P.StreamRestarted("stream_restarted", "m"), ModelAPIError),
    (P.ValueFailed("prompt_too_long", "m", "a", ("a", "b")), ContextOverflowError),
    (P.ValueFailed("engine_rejected", "m", "a", ("a",)), ModelInvalidRequestError),
    (P.ValueFailed("invalid_format", "m", "a", ("a",)), ModelInvalidRequestError),
    (P.ValueFailed("engine_lost", "m", "a", ("a",)), ModelAPIError),
    (P.ValueCancelled("cancelled", "m", "a", ("a",)), ModelAPIError),
]


@pytest.mark.parametrize(("error", "kind"), TABLE, ids=lambda value: getattr(value, "code", ""))
def test_an_error_keeps_its_class_and_gets_langchain_s(
    error: P.ParrotError, kind: type[ModelError]
) -> None:
    found = to_langchain_error(error)
    assert isinstance(found, kind)
    assert isinstance(found, type(error))
    assert (found.args, found.code, str(found)) == (error.args, error.code, str(error))
    assert vars(found) == vars(error)
    assert to_langchain_error(found) is found


@pytest.mark.parametrize(("error", "kind"), TABLE, ids=lambda value: getattr(value, "code", ""))
def test_an_error_crosses_processes(error: P.ParrotError, kind: type[ModelError]) -> None:
    found = pickle.loads(pickle.dumps(to_langchain_error(error)))
    assert isinstance(found, kind)
    assert str(found) == str(error)


def test_what_langchain_has_no_word_for_stays_as_it_is() -> None:
    error = P.NotConfigured("no_base_url", "m")
    with pytest.raises(P.NotConfigured) as caught, langchain_errors():
        raise error
    assert caught.value is error


def test_only_what_may_work_later_is_retryable() -> None:
    retryable = [e.code for e, _ in TABLE if getattr(to_langchain_error(e), "is_retryable", False)]
    assert "saturated" in retryable
    assert "connection_failed" in retryable
    assert "invalid_request" not in retryable
    assert "prompt_too_long" not in retryable


def test_the_cause_is_kept() -> None:
    error = P.ServerFailed("internal", "m")
    with pytest.raises(ModelAPIError) as caught, langchain_errors():
        raise error
    assert caught.value.__cause__ is error
