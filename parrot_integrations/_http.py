"""What the two clients configure alike: connections, retries, long polls."""

from __future__ import annotations

import math
import ssl
from typing import Any, TypedDict
from urllib.request import getproxies

import httpx

from parrot_backend.protocol import VariableView, WireCriteria
from parrot_integrations import _wire
from parrot_integrations._wire import Call
from parrot_integrations.deadline import Deadline
from parrot_integrations.errors import ConnectionFailed
from parrot_integrations.settings import ClientSettings

#: The server takes only positive timeouts.
_MIN_POLL_S = 0.001


class HttpOptions(TypedDict):
    """Keyword arguments that ``httpx.Client`` and ``httpx.AsyncClient`` share."""

    base_url: str
    headers: dict[str, str]
    timeout: httpx.Timeout
    limits: httpx.Limits
    verify: ssl.SSLContext | bool


class RetryOptions(TypedDict):
    """Keyword arguments that stamina's callers share."""

    attempts: int
    timeout: float


def http_options(settings: ClientSettings) -> HttpOptions:
    """Return how to connect."""
    headers = {} if settings.api_key is None else {"Authorization": f"Bearer {settings.api_key}"}
    return {
        "base_url": settings.base_url,
        "headers": headers,
        "timeout": httpx.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
        # A stream holds its connection while it waits. With a limit, the request that would end
        # the wait (a set, a cancel) could be queued behind it.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=32),
        "verify": _verification(settings.base_url),
    }


def _verification(base_url: str) -> ssl.SSLContext | bool:
    """Return how certificates are checked.

    To load the authorities takes longer than a call, and without TLS nobody asks for them; a
    context without any trusts nobody.
    """
    needs_none = base_url.startswith("http://") and not getproxies()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if needs_none else True


def retry_options(settings: ClientSettings) -> RetryOptions:
    """Return how often to try."""
    return {"attempts": settings.max_attempts, "timeout": settings.retry_timeout_s}


def build_request(http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
    """Turn a call into a request of one client."""
    content = call.content()
    timeout = http.timeout
    if call.read_timeout_s is not None:
        read_s = None if math.isinf(call.read_timeout_s) else call.read_timeout_s
        timeout = httpx.Timeout(timeout.write, connect=timeout.connect, read=read_s)
    return http.build_request(
        call.method,
        call.path,
        content=content,
        params=dict(call.params),
        headers={} if content is None else {"Content-Type": "application/json"},
        timeout=timeout,
    )


def stream_ended() -> ConnectionFailed:
    """Return the error of a stream that stopped before its last event."""
    return ConnectionFailed("stream_ended", "the stream stopped before its last event")


class Polls:
    """The long polls of one wait: each short enough for proxies, together as long as asked."""

    def __init__(
        self, variable_id: str, timeout_s: float | None, criteria: WireCriteria | None
    ) -> None:
        self._variable_id = variable_id
        self._deadline = Deadline(timeout_s)
        self._criteria = criteria
        self._num_polls = 0

    def peek(self) -> Call[VariableView]:
        """Return a request that does not wait."""
        return _wire.get_variable(self._variable_id, None, self._criteria)

    def next_call(self) -> Call[VariableView]:
        """Return the next request of the wait; only the first states the criteria.

        Raises:
            WaitTimeout: The time is up.
        """
        if self._num_polls:
            self._deadline.check(self._variable_id)
        remaining_s = self._deadline.remaining_s()
        wait_s = _wire.LONG_POLL_S if remaining_s is None else min(_wire.LONG_POLL_S, remaining_s)
        criteria = None if self._num_polls else self._criteria
        self._num_polls += 1
        return _wire.get_variable(self._variable_id, max(wait_s, _MIN_POLL_S), criteria)
