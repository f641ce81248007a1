"""Replies, errors and stream events as typed values; when to retry, and when to go on.

Pure: no I/O, no clock. Both clients read everything the server says through this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import httpx
from pydantic import ValidationError

from parrot_backend.protocol import (
    ErrorReply,
    StreamReset,
    StreamToken,
    SubmitReply,
    VariableView,
)
from parrot_integrations._wire import Call
from parrot_integrations.errors import (
    ConnectionFailed,
    RequestRejected,
    Saturated,
    ServerFailed,
    WaitTimeout,
)

#: What a stream yields: ``SubmitReply`` once at the start of a submit, text and resets while a
#: variable is generated, and a ``VariableView`` for each wanted variable when it is settled.
StreamEvent = SubmitReply | StreamToken | StreamReset | VariableView

#: A server that asks for more patience than this is reported to the caller as saturated.
MAX_RETRY_AFTER_S = 30.0
#: A stream that breaks this often in a row without any news is given up.
MAX_STREAM_BREAKS = 3

_SETTLED = frozenset({"ready", "failed", "cancelled"})
_EVENTS: dict[str, type[SubmitReply | StreamToken | StreamReset | VariableView]] = {
    "session": SubmitReply,
    "token": StreamToken,
    "reset": StreamReset,
    "variable": VariableView,
}


def is_settled(view: VariableView) -> bool:
    """Tell whether the state will not change any more."""
    return view.state in _SETTLED


class StreamEnd(Enum):
    """How a stream ends: all is settled, or its time is up."""

    DONE = "done"
    TIMEOUT = "timeout"


def read_event(name: str, data: str) -> StreamEvent | StreamEnd:
    """Parse one server-sent event.

    Raises:
        ServerFailed: Not an event of the protocol.
    """
    if name in ("done", "timeout"):
        return StreamEnd(name)
    model = _EVENTS.get(name)
    if model is None:
        raise ServerFailed("bad_reply", f"unknown event {name!r} in a stream")
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        raise ServerFailed("bad_reply", f"event {name!r} is not a {model.__name__}") from exc


def check_status(response: httpx.Response) -> None:
    """Raise the error that a reply with a bad status stands for; its body has been read."""
    status = response.status_code
    if status < 300:
        return
    code, message, context = f"http_{status}", f"the server answered {status}", None
    try:
        error = ErrorReply.model_validate_json(response.content).error
        code, message, context = error.code, error.message, error.context
    except ValidationError:
        # A proxy's page: the status is all there is to know.
        pass
    if status in (429, 503):
        raise Saturated(code, message, context, _retry_after_s(response))
    if 400 <= status < 500:
        raise RequestRejected(code, message, context)
    raise ServerFailed(code, message, context)


def connection_error(exc: httpx.RequestError) -> ConnectionFailed:
    """Translate a failure of the transport."""
    never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    reason = str(exc) or type(exc).__name__
    url = exc.request.url
    # Credentials may be part of the address.
    server = f"{url.scheme}://{url.netloc.decode()}"
    return ConnectionFailed(
        "connection_failed",
        f"no connection to {server}: {reason}",
        {"server": server},
        was_sent=not isinstance(exc, never_sent),
    )


def backoff(call: Call[Any]) -> Callable[[Exception], bool | float]:
    """Return stamina's hook: whether, and after how many seconds, to try ``call`` again."""

    def hook(error: Exception) -> bool | float:
        if isinstance(error, ConnectionFailed):
            return call.is_repeatable or not error.was_sent
        if isinstance(error, Saturated):
            wait_s = error.retry_after_s
            return True if wait_s is None else (wait_s <= MAX_RETRY_AFTER_S and wait_s)
        return False

    return hook


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


@dataclass(slots=True)
class StreamProgress:
    """Decides whether a broken stream is opened again, and what is void then."""

    _partial: set[str] = field(default_factory=set)
    _num_breaks: int = 0

    def observe(self, event: StreamEvent) -> None:
        """Note an event: any news but a greeting shows that the stream gets on."""
        if isinstance(event, StreamToken):
            self._partial.add(event.variable)
        elif isinstance(event, VariableView):
            self._partial.discard(event.name)
        if not isinstance(event, SubmitReply):
            self._num_breaks = 0

    def time_is_up(self, call: Call[Any]) -> None:
        """Note that the server ended the stream in order, having waited as long as it does.

        Raises:
            WaitTimeout: It waited as long as the caller asked.
        """
        if call.has_timeout:
            raise WaitTimeout("stream_timeout", "the submit's timeout_s passed; its work goes on")
        self._num_breaks = 0

    def resume(self, cause: ConnectionFailed) -> list[StreamReset]:
        """Return resets for the texts that were cut off.

        Raises:
            ConnectionFailed: It broke too often in a row.
        """
        self._num_breaks += 1
        if self._num_breaks >= MAX_STREAM_BREAKS:
            raise cause
        cut_off = [StreamReset(variable=name) for name in sorted(self._partial)]
        self._partial.clear()
        return cut_off
