"""Parrot's errors as Agent Framework knows them: each class belongs to both trees.

    except ParrotError           as everywhere else in the client
    except ChatClientException   as with every other chat client

An error keeps its own class, code, message and context.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent_framework.exceptions import (
    AgentFrameworkException,
    ChatClientException,
    ChatClientInvalidAuthException,
    ChatClientInvalidRequestException,
    ResponseInvalidatedException,
    SettingNotFoundError,
)

from parrot_backend.protocol import Scalar
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


class _Arguments(Exception):  # noqa: N818 - not an error of its own
    """Stands between the trees, because their constructors take different arguments."""

    def __init__(self, code: str, message: str, context: Mapping[str, Scalar] | None = None):
        assert isinstance(self, AgentFrameworkException)
        AgentFrameworkException.__init__(self, message)
        self.args = (code, message, context)


class NoServerKnown(NotConfigured, _Arguments, SettingNotFoundError):  # noqa: N818 - as its bases
    """No usable address of a server is known."""


class InvalidOptions(ProgramError, _Arguments, ChatClientInvalidRequestException):  # noqa: N818
    """An option, or the chat itself, is something that Parrot cannot do."""


class InvalidRequest(RequestRejected, _Arguments, ChatClientInvalidRequestException):
    """The server refused the request."""


class NotPermitted(RequestRejected, _Arguments, ChatClientInvalidAuthException):
    """The key is missing or wrong, or does not allow it."""


class Busy(Saturated, _Arguments, ChatClientException):
    """The server holds as many calls as it takes, has no engine, or is about to end."""


class Unreachable(ConnectionFailed, _Arguments, ChatClientException):
    """The server could not be reached, or the connection broke off."""


class ServerDefect(ServerFailed, _Arguments, ChatClientException):
    """The server failed."""


class TimedOut(WaitTimeout, _Arguments, ChatClientException):
    """The reply was not there within ``timeout_s``."""


class RestartedStream(StreamRestarted, _Arguments, ResponseInvalidatedException):
    """The call ran again, and what was streamed is void."""


class CallRefused(ValueFailed, _Arguments, ChatClientInvalidRequestException):
    """The engine refused the call; another try would not help."""


class CallFailed(ValueFailed, _Arguments, ChatClientException):
    """The call failed on the server."""


class CallCancelled(ValueCancelled, _Arguments, ChatClientException):
    """The call was given up."""


_KINDS = ErrorKinds(
    framework=AgentFrameworkException,
    rejected=dict.fromkeys(("http_401", "unauthorized", "http_403", "forbidden"), NotPermitted),
    otherwise_rejected=InvalidRequest,
    failed=dict.fromkeys(REFUSED, CallRefused),
    otherwise_failed=CallFailed,
    not_ready=Busy,
    busy=Busy,
    others={
        NotConfigured: NoServerKnown,
        ConnectionFailed: Unreachable,
        ServerFailed: ServerDefect,
        WaitTimeout: TimedOut,
        StreamRestarted: RestartedStream,
        ValueCancelled: CallCancelled,
    },
)

#: Returns an error as a member of both trees; one without a counterpart as it is.
to_framework_error = _KINDS.translated

#: Lets errors of a block leave it as members of both trees.
framework_errors = _KINDS.translating
