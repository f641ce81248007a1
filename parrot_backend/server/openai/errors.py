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


@dataclass(frozen=True, slots=True)
class FormField:
    """The field of a request that binds its output to a form.

    Attributes:
        name: Its name.
        code: What a form is told as that cannot be followed.
    """

    name: str
    code: str = "invalid_json_schema"


#: Tools' parameters are the form of forced calls.
TOOLS_FIELD = FormField("tools", "invalid_function_parameters")


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of a request that a call may fail for.

    Attributes:
        prompt: What the prompt stands in.
        form: What the form of the output stands in, None if it has none.
    """

    prompt: str
    form: FormField | None

    def name_form(self, error: RequestError) -> None:
        """Let an error of a submit name the field that has the form, if that is wrong."""
        if error.code == "format_too_large" and self.form is not None:
            error.context["field"] = self.form.name


_TOLD = {
    "unknown_model": _Told(404, "model_not_found", "model"),
    "prompt_too_long": _Told(400, "context_length_exceeded"),
    "invalid_format": _Told(400),
    "format_too_large": _Told(400),
    "tools_too_large": _Told(400, field="tools"),
    "tools_unsupported": _Told(400, field="tool_choice"),
    "engine_rejected": _Told(400),
    "empty_prompt": _Told(400, field="prompt"),
    "body_too_large": _Told(413),
    "invalid_api_key": _Told(401),
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
_STOPPING_RETRY_S = 5.0

#: Errors repeat what was sent, which may be as long as a body.
_MAX_MESSAGE_CHARS = 800
_MAX_PARAM_CHARS = 200

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
    param = error.context.get("field", told.field)
    content = {
        "message": _cut(error.message, _MAX_MESSAGE_CHARS),
        "type": _type_of(status_of(error)),
        "param": None if param is None else _cut(str(param), _MAX_PARAM_CHARS),
        "code": told.code or error.code,
    }
    return to_json({"error": content})


def raise_failure(answer: AnswerWaiter, fields: Fields, *, is_stopping: bool = False) -> None:
    """Raise what an answer without a value means to the caller.

    Args:
        answer: The answer.
        fields: The fields of its request.
        is_stopping: The server is shutting down, which gives up what is unfinished.

    Raises:
        ParrotError: The call failed.
    """
    if answer.failure is not None:
        if is_stopping and answer.failure.code == "cancelled":
            message = "the server is shutting down"
            raise CapacityError("shutting_down", message, retry_after_s=_STOPPING_RETRY_S)
        raise error_of_failure(answer.failure, fields)


def timed_out() -> ParrotError:
    """Return the error of a request that took too long."""
    return EngineError("timed_out", "the model was not done in the longest time a request may take")


def error_of_failure(failure: Failure, fields: Fields) -> ParrotError:
    """Return the error of a call that failed."""
    if failure.code == "prompt_too_long":
        return RequestError(failure.code, failure.message, field=fields.prompt)
    if failure.code == "invalid_format" and fields.form is not None:
        return RequestError(fields.form.code, failure.message, field=fields.form.name)
    if failure.code in _CALLERS_FAULT:
        return RequestError(failure.code, failure.message)
    if failure.code in _BUSY:
        return CapacityError(failure.code, failure.message, retry_after_s=_NO_ENGINE_RETRY_S)
    return EngineError(failure.code, failure.message)


def _cut(text: str, max_chars: int) -> str:
    """Return a text without its middle, if it is long."""
    if len(text) <= max_chars:
        return text
    half = max_chars // 2
    return f"{text[:half]} ... {text[-half:]}"


def _type_of(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
