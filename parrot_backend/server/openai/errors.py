"""Errors as OpenAI's API tells them: our codes in, statuses and bodies out. Pure.

The codes stay ours, except where clients branch on one of OpenAI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from pydantic_core import to_json

from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.errors import CapacityError, EngineError, Failure, ParrotError, RequestError


@dataclass(frozen=True, slots=True)
class _Told:
    """How an error is told; None says what the kind of error says."""

    status: int | None = None
    code: str | None = None
    field: str | None = None


_TOLD = {
    "unknown_model": _Told(404, "model_not_found", "model"),
    "prompt_too_long": _Told(400, "context_length_exceeded"),
    "invalid_format": _Told(400, "invalid_json_schema", "response_format"),
    "format_too_large": _Told(400, field="response_format"),
    "tools_too_large": _Told(400, field="tools"),
    "tools_unsupported": _Told(400, field="tool_choice"),
    "engine_rejected": _Told(400),
    "empty_prompt": _Told(400, field="prompt"),
    "body_too_large": _Told(413),
    "saturated": _Told(429, "rate_limit_exceeded"),
    "no_engine": _Told(503),
    "shutting_down": _Told(503),
    "cancelled": _Told(503),
}

#: Failures of a call that are the caller's fault.
_CALLERS_FAULT = frozenset(
    ("prompt_too_long", "invalid_format", "engine_rejected", "tools_unsupported", "unknown_model")
)

#: Failures of a call that another try may not have.
_BUSY = frozenset(("no_engine", "cancelled", "saturated"))

_NO_ENGINE_RETRY_S = 5.0


#: Paths of this API; models have paths below theirs.
_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models")


def is_path(path: str) -> bool:
    """Tell whether errors on a path are told in the form of this API."""
    return path.startswith(_PATHS)


def status_of(error: ParrotError) -> int:
    """Return the HTTP status of an error on the routes of this API; never 422."""
    told = _TOLD.get(error.code, _Told())
    if told.status is not None:
        return told.status
    if isinstance(error, RequestError):
        return error.status if error.status in (404, 405, 413) else 400
    if isinstance(error, CapacityError):
        return error.status
    return error.status if error.status == HTTPStatus.GATEWAY_TIMEOUT else 500


def body_of(error: ParrotError) -> bytes:
    """Return the body of an error reply, which is also the data of an error event."""
    told = _TOLD.get(error.code, _Told())
    content = {
        "message": error.message,
        "type": _type_of(status_of(error)),
        "param": error.context.get("field", told.field),
        "code": told.code or error.code,
    }
    return to_json({"error": content})


def raise_failure(answer: AnswerWaiter, prompt_field: str) -> None:
    """Raise what an answer without a value means to the caller.

    Args:
        answer: The answer.
        prompt_field: The field of the request that its prompt stands in.

    Raises:
        ParrotError: The call failed.
    """
    if answer.failure is not None:
        raise error_of_failure(answer.failure, prompt_field)


def timed_out() -> ParrotError:
    """Return the error of a request that took too long."""
    return EngineError("timed_out", "the model was not done in the longest time a request may take")


def error_of_failure(failure: Failure, prompt_field: str) -> ParrotError:
    """Return the error of a call that failed."""
    if failure.code == "prompt_too_long":
        return RequestError(failure.code, failure.message, field=prompt_field)
    if failure.code in _CALLERS_FAULT:
        return RequestError(failure.code, failure.message)
    if failure.code in _BUSY:
        return CapacityError(failure.code, failure.message, retry_after_s=_NO_ENGINE_RETRY_S)
    return EngineError(failure.code, failure.message)


def _type_of(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
