"""Parrot's errors as LangChain knows them: each class belongs to both trees.

    except ParrotError            as everywhere else in the client
    except ContextOverflowError   as with every other LangChain model

So ``with_fallbacks(exceptions_to_handle=...)`` and ``with_retry(retry_if_exception_type=...)`` work
with LangChain's classes. An error keeps its own class, code, message and context.
"""

from __future__ import annotations

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

from parrot_integrations.errors import (
    ConnectionFailed,
    RequestRejected,
    Saturated,
    ServerFailed,
    StreamRestarted,
    ValueCancelled,
    ValueFailed,
    WaitTimeout,
)
from parrot_integrations.planning.error_kinds import REFUSED, ErrorKinds


class InvalidRequest(RequestRejected, ModelInvalidRequestError):  # noqa: N818 - as its bases
    """The server refused the request."""


class NotAuthenticated(RequestRejected, ModelAuthenticationError):  # noqa: N818
    """The key is missing or wrong."""


class NotPermitted(RequestRejected, ModelPermissionDeniedError):  # noqa: N818
    """The key does not allow it."""


class UnknownModel(RequestRejected, ModelNotFoundError):  # noqa: N818
    """No engine serves the model."""


class PromptRejected(RequestRejected, ContextOverflowError):  # noqa: N818
    """The prompt leaves no room in the model's context."""


class RateLimited(Saturated, ModelRateLimitError):  # noqa: N818
    """The server holds as many calls as it takes."""


class NotReady(Saturated, ModelAPIError):  # noqa: N818
    """The server has no engine, or is about to end."""


class Unreachable(ConnectionFailed, ModelConnectionError):  # noqa: N818
    """The server could not be reached, or the connection broke off."""


class ServerDefect(ServerFailed, ModelAPIError):  # noqa: N818
    """The server failed."""


class TimedOut(WaitTimeout, ModelTimeoutError):  # noqa: N818
    """The reply was not there within ``timeout``."""


class RestartedStream(StreamRestarted, ModelAPIError):  # noqa: N818
    """The call ran again, and what was streamed is void."""


class PromptTooLong(ValueFailed, ContextOverflowError):  # noqa: N818
    """The prompt leaves no room in the model's context."""


class CallRefused(ValueFailed, ModelInvalidRequestError):  # noqa: N818
    """The engine refused the call; another try would not help."""


class CallFailed(ValueFailed, ModelAPIError):  # noqa: N818
    """The call failed on the server."""


class CallCancelled(ValueCancelled, ModelAPIError):  # noqa: N818
    """The call was given up."""


_KINDS = ErrorKinds(
    framework=ModelError,
    rejected={
        "http_401": NotAuthenticated,
        "unauthorized": NotAuthenticated,
        "http_403": NotPermitted,
        "forbidden": NotPermitted,
        "unknown_model": UnknownModel,
        "prompt_too_long": PromptRejected,
    },
    otherwise_rejected=InvalidRequest,
    failed={
        **dict.fromkeys(REFUSED, CallRefused),
        "prompt_too_long": PromptTooLong,
    },
    otherwise_failed=CallFailed,
    not_ready=NotReady,
    busy=RateLimited,
    others={
        ConnectionFailed: Unreachable,
        ServerFailed: ServerDefect,
        WaitTimeout: TimedOut,
        StreamRestarted: RestartedStream,
        ValueCancelled: CallCancelled,
    },
)

#: Returns an error as a member of both trees; one that LangChain has no word for as it is.
to_langchain_error = _KINDS.translated

#: Lets errors of a block leave it as members of both trees.
langchain_errors = _KINDS.translating
