"""The blocking HTTP client: thin, typed, and patient with a network that fails.

``AsyncParrotClient`` has the same methods, awaited; what each sends and reads is defined once, in
``_wire.py`` and ``_replies.py``. The transport can be replaced, so that a client talks to
``httpx.MockTransport`` or to an ASGI application.

Connection errors and 429/503 are retried (with the server's ``Retry-After``) when repeating is
safe. A submit always is, because it carries an idempotency key. A stream that breaks off is opened
again and goes on: text that was cut off is announced as void by a ``StreamReset``.
"""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import stamina
from httpx_sse import EventSource

from parrot_backend.protocol import (
    SessionView,
    SubmitReply,
    SubmitRequest,
    VariableView,
    WireCriteria,
)
from parrot_integrations import _wire
from parrot_integrations._http import (
    Polls,
    build_request,
    http_options,
    retry_options,
    stream_ended,
)
from parrot_integrations._replies import (
    StreamEnd,
    StreamEvent,
    StreamProgress,
    backoff,
    check_status,
    connection_error,
    is_settled,
    read_event,
)
from parrot_integrations._wire import Call
from parrot_integrations.settings import ClientSettings, resolve_settings
from parrot_integrations.stopping import StreamStop

T = TypeVar("T")


class ParrotClient:
    """Blocking client; safe to share between threads.

    Args:
        base_url: Address of the server; None takes ``PARROT_BASE_URL``.
        api_key: None takes ``PARROT_API_KEY``; without one, requests carry no credentials.
        settings: All settings at once; replaces both of the above.
        transport: Replaces the network.

    Raises:
        NotConfigured: No usable address is known.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        settings: ClientSettings | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = settings or resolve_settings(base_url, api_key)
        self._http = httpx.Client(transport=transport, **http_options(self._settings))
        self._retrying = stamina.RetryingCaller(**retry_options(self._settings))

    @property
    def settings(self) -> ClientSettings:
        """Where the server is, and how patiently it is asked."""
        return self._settings

    def submit(self, request: SubmitRequest) -> SubmitReply:
        """Submit a graph and wait as the request says."""
        return self._send(_wire.submit(_wire.with_key(request)))

    def submit_stream(
        self, request: SubmitRequest, *, stop: StreamStop | None = None
    ) -> Generator[StreamEvent, None, None]:
        """Submit a graph and yield what happens to the wanted outputs, until all are settled.

        Args:
            request: What to submit.
            stop: Ends the stream before.
        """
        request = _wire.with_key(request.model_copy(update={"stream": True}))
        return self._stream(_wire.submit(request), stop or StreamStop())

    def get_variable(
        self,
        variable_id: str,
        *,
        wait: bool = True,
        timeout_s: float | None = None,
        criteria: WireCriteria | None = None,
    ) -> VariableView:
        """Return a variable: once it is settled, or (``wait`` False) as it is now.

        Raises:
            WaitTimeout: It was not settled within ``timeout_s`` seconds.
        """
        polls = Polls(variable_id, timeout_s, criteria)
        while True:
            view = self._send(polls.next_call() if wait else polls.peek())
            if not wait or is_settled(view):
                return view

    def stream_variable(
        self, variable_id: str, criteria: WireCriteria | None = None
    ) -> Generator[StreamEvent, None, None]:
        """Yield a variable's text as it is generated, and its view when it is settled."""
        return self._stream(_wire.stream_variable(variable_id, criteria), StreamStop())

    def set_variable(self, variable_id: str, value: str) -> None:
        """Set an external variable."""
        self._send(_wire.set_variable(variable_id, value))

    def cancel(self, session_id: str, variables: tuple[str, ...] | None = None) -> None:
        """Cancel variables by name; None cancels everything unfinished in the session."""
        self._send(_wire.cancel(session_id, variables))

    def get_session(self, session_id: str) -> SessionView:
        """Return a session with its graph, states and timings."""
        return self._send(_wire.get_session(session_id))

    def close_session(self, session_id: str) -> None:
        """End a session; the server forgets it."""
        self._send(_wire.close_session(session_id))

    def get_timeline(self, session_id: str) -> object:
        """Return a session's timeline as the server exports it."""
        return self._send(_wire.get_timeline(session_id))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"ParrotClient({self._settings.public_url!r})"

    def _send(self, call: Call[T]) -> T:
        response = self._retrying(backoff(call), self._send_once, call, False)
        return call.read(response)

    def _send_once(self, call: Call[Any], is_stream: bool) -> httpx.Response:
        try:
            response = self._http.send(build_request(self._http, call), stream=is_stream)
            if response.status_code >= 300:
                response.read()
        except httpx.RequestError as exc:
            raise connection_error(exc) from exc
        check_status(response)
        return response

    def _stream(self, call: Call[Any], stop: StreamStop) -> Generator[StreamEvent, None, None]:
        progress = StreamProgress()
        while not stop.is_set:
            response = self._retrying(backoff(call), self._send_once, call, True)
            broken = stream_ended()
            stop.watch(response)
            try:
                for raw in EventSource(response).iter_sse():
                    event = read_event(raw.event, raw.data)
                    if event is StreamEnd.DONE:
                        return
                    if event is StreamEnd.TIMEOUT:
                        progress.time_is_up(call)
                        break
                    progress.observe(event)
                    yield event
            except httpx.RequestError as exc:
                broken = connection_error(exc)
            finally:
                stop.watch(None)
                response.close()
            if not stop.is_set:
                yield from progress.resume(broken)
