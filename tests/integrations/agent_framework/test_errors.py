"""Errors belong to both trees."""

from __future__ import annotations

import logging
import pickle

import pytest
from agent_framework.exceptions import (
    AgentFrameworkException,
    ChatClientException,
    ChatClientInvalidAuthException,
    ChatClientInvalidRequestException,
    ResponseInvalidatedException,
    SettingNotFoundError,
)

import parrot_integrations as P
from parrot_integrations.agent_framework.errors import framework_errors, to_framework_error

TABLE = [
    (P.NotConfigured("no_base_url", "m"), SettingNotFoundError),
    (P.RequestRejected("http_401", "m"), ChatClientInvalidAuthException),
    (P.RequestRejected("http_403", "m"), ChatClientInvalidAuthException),
    (P.RequestRejected("unknown_model", "m"), ChatClientInvalidRequestException),
    (P.RequestRejected("invalid_request", "m", {"field": "x"}), ChatClientInvalidRequestException),
    (P.Saturated("saturated", "m", None, 3.0), ChatClientException),
    (P.Saturated("no_engine", "m"), ChatClientException),
    (P.ConnectionFailed("connection_failed", "m", None, False), ChatClientException),
    (P.ServerFailed("internal", "m"), ChatClientException),
    (P.WaitTimeout("wait_timeout", "m"), ChatClientException),
    (P.StreamRestarted("stream_restarted", "m"), ResponseInvalidatedException),
    (P.ValueFailed("prompt_too_long", "m", "a", ("a", "b")), ChatClientInvalidRequestException),
    (P.ValueFailed("invalid_format", "m", "a", ("a",)), ChatClientInvalidRequestException),
    (P.ValueFailed("engine_lost", "m", "a", ("a",)), ChatClientException),
    (P.ValueCancelled("cancelled", "m", "a", ("a",)), ChatClientException),
]


@pytest.mark.parametrize(("error", "kind"), TABLE, ids=lambda value: getattr(value, "code", ""))
def test_an_error_keeps_its_class_and_gets_the_frameworks(
    error: P.ParrotError, kind: type[AgentFrameworkException]
) -> None:
    found = to_framework_error(error)
    assert isinstance(found, kind)
    assert isinstance(found, type(error))
    assert (found.args, found.code, str(found)) == (error.args, error.code, str(error))
    assert vars(found) == vars(error)
    assert to_framework_error(found) is found


@pytest.mark.parametrize(("error", "kind"), TABLE, ids=lambda value: getattr(value, "code", ""))
def test_an_error_crosses_processes(
    error: P.ParrotError, kind: type[AgentFrameworkException]
) -> None:
    found = pickle.loads(pickle.dumps(to_framework_error(error)))
    assert isinstance(found, kind)
    assert (found.args, str(found)) == (error.args, str(error))


def test_an_error_is_logged_as_the_frameworks_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "agent_framework"):
        to_framework_error(P.ServerFailed("internal", "the server broke", {"limit": 1}))
    assert [record.message for record in caplog.records] == ["the server broke"]


def test_what_the_framework_has_no_word_for_stays_as_it_is() -> None:
    error = P.ProgramError("wrong", "m")
    with pytest.raises(P.ProgramError) as caught, framework_errors():
        raise error
    assert caught.value is error


def test_the_cause_is_kept() -> None:
    error = P.ServerFailed("internal", "m")
    with pytest.raises(ChatClientException) as caught, framework_errors():
        raise error
    assert caught.value.__cause__ is error
