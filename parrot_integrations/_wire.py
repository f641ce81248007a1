"""The requests of the HTTP interface as data: what both clients send, and how to read the reply.

Pure: no I/O, no clock. A request says itself whether it may be repeated, so that retrying is
decided in one place.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from parrot_backend.protocol import (
    CancelRequest,
    SessionView,
    SetVariableRequest,
    SubmitReply,
    SubmitRequest,
    VariableView,
    WireCriteria,
    WireModel,
)
from parrot_integrations.errors import RequestRejected, ServerFailed

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

#: Longest single wait of a long poll, below the idle limits of common proxies (60 s).
LONG_POLL_S = 30.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP request and how to read its reply.

    Attributes:
        is_repeatable: The server does the same work once however often it is asked.
        read_timeout_s: Longest silence until the reply; None takes the client's.
        has_timeout: The caller limited how long a stream may last.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    is_repeatable: bool = True
    body: WireModel | None = None
    params: Mapping[str, str | float] = field(default_factory=dict)
    read_timeout_s: float | None = None
    has_timeout: bool = False

    def content(self) -> bytes | None:
        """Return the JSON body.

        Raises:
            RequestRejected: It cannot be written as JSON.
        """
        return None if self.body is None else to_json(self.body)


def to_json(model: BaseModel) -> bytes:
    """Return a wire model as JSON.

    Raises:
        RequestRejected: A text of it is no Unicode.
    """
    try:
        return model.model_dump_json().encode()
    except PydanticSerializationError as exc:
        raise RequestRejected(
            "invalid_text",
            "The request cannot be written as JSON: a text holds a lone surrogate, which is no "
            "character.",
        ) from exc


def read_model(model: type[M]) -> Callable[[httpx.Response], M]:
    """Return a reader that parses a reply's body as one wire model."""

    def read(response: httpx.Response) -> M:
        try:
            return model.model_validate_json(response.content)
        except ValidationError as exc:
            raise ServerFailed("bad_reply", f"the reply is not a {model.__name__}") from exc

    return read


def _read_nothing(_response: httpx.Response) -> None:
    return None


def _read_json(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError as exc:
        raise ServerFailed("bad_reply", "the reply is not JSON") from exc


def with_key(request: SubmitRequest) -> SubmitRequest:
    """Return the submit with an idempotency key, which makes repeating it safe."""
    if request.idempotency_key is not None:
        return request
    return request.model_copy(update={"idempotency_key": uuid.uuid4().hex})


def submit(request: SubmitRequest) -> Call[SubmitReply]:
    """Submit a graph; the caller has put a key on it."""
    read_timeout_s = None
    if request.wait and not request.stream:
        # The server is silent until all wanted outputs are settled, however long that takes.
        wait_s = math.inf if request.timeout_s is None else request.timeout_s
        read_timeout_s = wait_s + LONG_POLL_S
    return Call(
        "POST",
        "/v1/submit",
        read_model(SubmitReply),
        body=request,
        read_timeout_s=read_timeout_s,
        has_timeout=request.timeout_s is not None,
    )


def get_variable(
    variable_id: str, wait_s: float | None, criteria: WireCriteria | None
) -> Call[VariableView]:
    """Ask for a variable, waiting up to ``wait_s`` seconds (None: not at all)."""
    params: dict[str, str | float] = _criteria_params(criteria)
    if wait_s is not None:
        params |= {"wait": "true", "timeout_s": wait_s}
    return Call("GET", f"/v1/variables/{variable_id}", read_model(VariableView), params=params)


def stream_variable(variable_id: str, criteria: WireCriteria | None) -> Call[None]:
    """Stream a variable while it is generated."""
    params = {"stream": "true"} | _criteria_params(criteria)
    return Call("GET", f"/v1/variables/{variable_id}", _read_nothing, params=params)


def set_variable(variable_id: str, value: str) -> Call[None]:
    """Set an external variable; a second time is an error, so it is not repeatable."""
    path = f"/v1/variables/{variable_id}"
    body = SetVariableRequest(value=value)
    return Call("PUT", path, _read_nothing, is_repeatable=False, body=body)


def cancel(session_id: str, variables: tuple[str, ...] | None) -> Call[None]:
    """Cancel some variables of a session, or everything unfinished."""
    body = CancelRequest(variables=variables)
    return Call("POST", f"/v1/sessions/{session_id}/cancel", _read_nothing, body=body)


def get_session(session_id: str) -> Call[SessionView]:
    """Ask for a session with its graph."""
    return Call("GET", f"/v1/sessions/{session_id}", read_model(SessionView))


def close_session(session_id: str) -> Call[None]:
    """Close a session; a second time it is unknown, so it is not repeatable."""
    return Call("DELETE", f"/v1/sessions/{session_id}", _read_nothing, is_repeatable=False)


def get_timeline(session_id: str) -> Call[object]:
    """Ask for a session's timeline."""
    return Call("GET", f"/v1/sessions/{session_id}/timeline", _read_json)


def _criteria_params(criteria: WireCriteria | None) -> dict[str, str | float]:
    if criteria is None:
        return {}
    targets = criteria.model_dump(exclude={"kind"}, exclude_none=True)
    return {"criteria": criteria.kind, **targets}
