"""Errors belong to both trees."""

from __future__ import annotations

import pickle

import pytest
from pydantic import TypeAdapter
from semantic_kernel.exceptions import (
    KernelException,
    ServiceException,
    ServiceInitializationError,
    ServiceInvalidAuthError,
    ServiceInvalidRequestError,
    ServiceInvalidResponseError,
    ServiceResponseException,
)

import parrot_integrations as P
from parrot_integrations.semantic_kernel.errors import service_errors, to_service_error

TABLE = [
    (P.RequestRejected("http_401", "m"), ServiceInvalidAuthError),
    (P.RequestRejected("http_403", "m"), ServiceInvalidAuthError),
    (P.RequestRejected("unknown_model", "m"), ServiceInvalidRequestError),
    (P.RequestRejected("invalid_request", "m", {"field": "x"}), ServiceInvalidRequestError),
    (P.Saturated("saturated", "m", None, 3.0), ServiceResponseException),
    (P.Saturated("no_engine", "m"), ServiceResponseException),
    (P.ConnectionFailed("connection_failed", "m", None, False), ServiceResponseException),
    (P.NotConfigured("no_base_url", "m"), ServiceInitializationError),
    (P.ServerFailed("bad_reply", "m"), ServiceInvalidResponseError),
    (P.WaitTimeout("wait_timeout", "m"), ServiceResponseException),
    (P.StreamRestarted("stream_restarted", "m"), ServiceResponseException),
    (P.ValueFailed("prompt_too_long", "m", "a", ("a", "b")), ServiceInvalidRequestError),
    (P.ValueFailed("engine_rejected", "m", "a", ("a",)), ServiceInvalidRequestError),
    (P.ValueFailed("invalid_format", "m", "a", ("a",)), ServiceInvalidRequestError),
    (P.ValueFailed("engine_lost", "m", "a", ("a",)), ServiceResponseException),
    (P.ValueCancelled("cancelled", "m", "a", ("a",)), ServiceResponseException),
]
table = pytest.mark.parametrize(
    ("error", "kind"), TABLE, ids=lambda value: getattr(value, "code", "")
)


@table
def test_an_error_keeps_its_class_and_gets_the_framework_s(
    error: P.ParrotError, kind: type[ServiceException]
) -> None:
    found = to_service_error(error)
    assert isinstance(found, kind)
    assert isinstance(found, type(error))
    assert isinstance(found, KernelException)
    assert (found.args, found.code, str(found)) == (error.args, error.code, str(error))
    assert vars(found) == vars(error)
    assert to_service_error(found) is found


@table
def test_an_error_crosses_processes(error: P.ParrotError, kind: type[ServiceException]) -> None:
    found = pickle.loads(pickle.dumps(to_service_error(error)))
    assert isinstance(found, kind)
    assert str(found) == str(error)


def test_what_has_no_counterpart_stays_as_it_is() -> None:
    error = P.ProgramError("x", "m")
    with pytest.raises(P.ProgramError) as caught, service_errors():
        raise error
    assert caught.value is error


def test_the_cause_is_kept() -> None:
    error = P.ServerFailed("internal", "m")
    with pytest.raises(ServiceInvalidResponseError) as caught, service_errors():
        raise error
    assert caught.value.__cause__ is error


def test_a_request_that_cannot_be_made_is_the_framework_s_error() -> None:
    with pytest.raises(ServiceInvalidRequestError), service_errors():
        TypeAdapter(int).validate_python("x")
