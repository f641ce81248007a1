"""Every error reply of the server: exceptions in, ``ErrorReply`` bodies out.

On the routes of OpenAI's API they have its form instead. The status of a ``ParrotError`` is its
own; FastAPI's and Starlette's exceptions are mapped to it here. Anything else is a defect of ours:
it is logged once, and the client learns no details.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parrot_backend.errors import CapacityError, InternalError, ParrotError, RequestError
from parrot_backend.metrics.prometheus import PrometheusMetrics
from parrot_backend.server.openai import errors as openai
from parrot_backend.server.views import error_to_reply

logger = logging.getLogger(__name__)

_MAX_PROBLEMS_TOLD = 5

#: Codes of the errors that the HTTP framework raises by itself; all others are ``malformed_json``.
_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed"}


def install_error_handlers(app: FastAPI, metrics: PrometheusMetrics) -> None:
    """Answer all errors of an app with ``ErrorReply``, and count them."""

    async def answer(request: Request, exc: Exception) -> Response:
        error = to_parrot_error(exc, request.headers.get("content-type"))
        metrics.count_error(error.code)
        if isinstance(error, InternalError):
            logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
        headers = exc.headers if isinstance(exc, HTTPException) else None
        return error_response(error, request.url.path, headers)

    for kind in (ParrotError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def error_response(
    error: ParrotError, path: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the reply of an error to a request for a path."""
    is_openai = openai.is_path(path)
    response = Response(
        openai.body_of(error) if is_openai else error_to_reply(error).model_dump_json(),
        status_code=openai.status_of(error) if is_openai else error.status,
        headers=headers,
        media_type="application/json",
    )
    if isinstance(error, CapacityError):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return response


def to_parrot_error(exc: Exception, content_type: str | None = None) -> ParrotError:
    """Return what an exception means to the client."""
    if isinstance(exc, ParrotError):
        return exc
    if isinstance(exc, RequestValidationError):
        return _validation_error(exc.errors(), content_type)
    if isinstance(exc, HTTPException):
        code = _CODE_OF_STATUS.get(exc.status_code, "malformed_json")
        return RequestError(code, str(exc.detail)).with_status(exc.status_code)
    return InternalError("internal", "the server failed; its log has the details")


def _validation_error(
    problems: Sequence[Mapping[str, Any]], content_type: str | None
) -> ParrotError:
    fields = [_field(problem) for problem in problems]
    if fields[0] == "body" and "json" not in (content_type or ""):
        return RequestError(
            "invalid_request", "send the body with the header Content-Type: application/json"
        )
    told = [
        f"{field}: {problem['msg']}"
        for field, problem in zip(fields, problems[:_MAX_PROBLEMS_TOLD], strict=False)
    ]
    # A bad value in a segment is reported for the other forms of a prompt, too.
    is_sampling = any("sampling" in problem["loc"] for problem in problems)
    return RequestError(
        "invalid_sampling" if is_sampling else "invalid_request",
        "; ".join(told),
        field=fields[0],
        num_problems=len(problems),
    )


def _field(problem: Mapping[str, Any]) -> str:
    """Return where in the request a problem is, such as ``nodes.0.call.sampling.top_p``."""
    steps = [str(step) for step in problem["loc"]]
    return ".".join(steps[1:]) or steps[0]


class InternalErrors:
    """Middleware: answers 500 for exceptions nobody expected, and logs each once."""

    def __init__(self, app: ASGIApp, metrics: PrometheusMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer for it if it breaks before its answer has begun."""
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as exc:
            if scope["type"] != "http":
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            error = to_parrot_error(exc)
            self._metrics.count_error(error.code)
            if not has_begun:
                await error_response(error, scope["path"])(scope, receive, send)
