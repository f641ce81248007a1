"""Parrot's errors as Semantic Kernel knows them: each class belongs to both trees.

    except ParrotError        as everywhere else in the client
    except ServiceException   as with every other Semantic Kernel service

An error keeps its own class, code, message and context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from semantic_kernel.exceptions.service_exceptions import (
    ServiceException,
    ServiceInitializationError,
    ServiceInvalidAuthError,
    ServiceInvalidExecutionSettingsError,
    ServiceInvalidRequestError,
    ServiceInvalidResponseError,
    ServiceResponseException,
)

from parrot_integrations.errors import (
    ConnectionFailed,
    NotConfigured,
    ProgramError,
    RequestRejected,
    Saturated,
    ServerFailed,
    StreamRestarted,
    ValueCancelled,
    ValueFailed,
    WaitTimeout,
)
from parrot_integrations.planning.error_kinds import REFUSED, ErrorKinds


class NoServer(NotConfigured, ServiceInitializationError):  # noqa: N818 - as its bases
    """No usable address of a server is known."""


class InvalidSettings(ProgramError, ServiceInvalidExecutionSettingsError):  # noqa: N818
    """An execution setting has a wrong value, or does not go with another one."""


class InvalidHistory(ProgramError, ServiceInvalidRequestError):  # noqa: N818
    """A chat history is empty, or holds something that is not text."""


class InvalidRequest(RequestRejected, ServiceInvalidRequestError):  # noqa: N818
    """The server refused the request, or it could not be made."""


class NotAuthenticated(RequestRejected, ServiceInvalidAuthError):  # noqa: N818
    """The key is missing or wrong, or does not allow it."""


class ServerBusy(Saturated, ServiceResponseException):
    """The server holds as many calls as it takes, or cannot work at the moment."""


class Unreachable(ConnectionFailed, ServiceResponseException):
    """The server could not be reached, or the connection broke off."""


class ServerDefect(ServerFailed, ServiceInvalidResponseError):  # noqa: N818
    """The server failed, or answered something that is not Parrot's protocol."""


class TimedOut(WaitTimeout, ServiceResponseException):
    """The reply was not there within ``timeout_s``."""


class RestartedStream(StreamRestarted, ServiceResponseException):
    """The call ran again, and what was streamed is void."""


class CallRefused(ValueFailed, ServiceInvalidRequestError):  # noqa: N818
    """The engine refused the call; another try would not help."""


class CallFailed(ValueFailed, ServiceResponseException):
    """The call failed on the server."""


class CallCancelled(ValueCancelled, ServiceResponseException):
    """The call was given up."""


_KINDS = ErrorKinds(
    framework=ServiceException,
    rejected={
        "http_401": NotAuthenticated,
        "unauthorized": NotAuthenticated,
        "http_403": NotAuthenticated,
        "forbidden": NotAuthenticated,
    },
    otherwise_rejected=InvalidRequest,
    failed=dict.fromkeys(REFUSED, CallRefused),
    otherwise_failed=CallFailed,
    not_ready=ServerBusy,
    busy=ServerBusy,
    others={
        ConnectionFailed: Unreachable,
        NotConfigured: NoServer,
        ServerFailed: ServerDefect,
        WaitTimeout: TimedOut,
        StreamRestarted: RestartedStream,
        ValueCancelled: CallCancelled,
    },
)


#: Returns an error as a member of both trees; one without a counterpart as it is.
to_service_error = _KINDS.translated


@contextmanager
def service_errors() -> Iterator[None]:
    """Let errors of a block leave it as members of both trees.

    One of pydantic's is about the request that is made of what the user gave.
    """
    try:
        with _KINDS.translating():
            yield
    except ValidationError as exc:
        raise InvalidRequest("invalid_request", str(exc)) from exc
