"""The one error tree of the server, its stable codes and its HTTP status numbers.

    ParrotError
    ├── RequestError     the caller's fault            4xx
    ├── CapacityError    busy or not ready, try later  429, 503
    ├── EngineError      a backend failed              502
    └── InternalError    a defect in Parrot            500

Clients branch on ``code``; ``message`` says what to do next; ``context`` names the things
involved. Every code is listed in docs/http_api.md. This module imports nothing of ours, so that
the core may raise these errors too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

#: Extra facts about an error: names, limits, sizes. Values must be JSON scalars.
Context = str | int | float | bool | None


class ParrotError(Exception):
    """Base of all errors that a client may see.

    Args:
        code: Stable machine-readable name, one of :data:`STATUS_OF_CODE`.
        message: One sentence for a person: what is wrong and what to do.
        context: Names, limits and sizes that belong to the error.
    """

    default_status: ClassVar[int] = 500

    def __init__(self, code: str, message: str, **context: Context) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.context = context
        self._status: int | None = None

    @property
    def status(self) -> int:
        """HTTP status number of this error."""
        return self._status or STATUS_OF_CODE.get(self.code, self.default_status)

    def with_status(self, status: int) -> Self:
        """Set a status other than the code's usual one, and return the error.

        A missing variable is 404 in a path but 422 inside a graph.
        """
        self._status = status
        return self


class RequestError(ParrotError):
    """The caller sent something that cannot be served as it stands."""

    default_status = 422


class CapacityError(ParrotError):
    """The server is busy or has no engine; the same request may work later.

    Args:
        code: Stable machine-readable name.
        message: One sentence for a person.
        retry_after_s: When to try again, for the ``Retry-After`` header.
        context: Names, limits and sizes that belong to the error.
    """

    default_status = 503

    def __init__(
        self, code: str, message: str, *, retry_after_s: float = 1.0, **context: Context
    ) -> None:
        super().__init__(code, message, **context)
        self.retry_after_s = retry_after_s


class EngineError(ParrotError):
    """An engine failed to do its work."""

    default_status = 502


class InternalError(ParrotError):
    """A defect in Parrot itself."""

    default_status = 500


#: HTTP status of the codes whose class default does not fit.
STATUS_OF_CODE: dict[str, int] = {
    "malformed_json": 400,
    "invalid_api_key": 401,
    "unknown_session": 404,
    "unknown_variable": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "variable_already_set": 409,
    "variable_has_producer": 409,
    "session_closed": 409,
    "session_exists": 409,
    "idempotency_conflict": 409,
    "body_too_large": 413,
    "graph_too_large": 413,
    "session_too_large": 413,
    "format_too_large": 413,
    "tools_too_large": 413,
    "saturated": 429,
    "timed_out": 504,
}


#: A chain of n failed calls would otherwise hold n * n names.
_MAX_PATH = 32


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a variable has no value: the root cause and the way it travelled.

    Attributes:
        code: Stable code of the root cause.
        message: The root cause in one sentence.
        origin: Name of the variable at which it first went wrong.
        path: Names of the variables from the origin to this one, both included; of a long way the
            middle is left out.
    """

    code: str
    message: str
    origin: str
    path: tuple[str, ...]

    def extended(self, name: str) -> Failure:
        """Return the same failure as seen by a dependant called ``name``."""
        path = (*self.path, name)
        if len(path) > _MAX_PATH:
            half = _MAX_PATH // 2
            path = (*path[:half], "...", *path[-half + 1 :])
        return Failure(self.code, self.message, self.origin, path)
