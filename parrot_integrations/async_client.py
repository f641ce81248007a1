"""The awaiting HTTP client: the methods of ``client.py`` for use in an event loop.

Retries and resumption are as described there; only the waiting differs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
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

T = TypeVar("T")


class AsyncParrotClient:
    """Awaiting client; belongs to the event loop it is used in.

    Args:
        base_url: Address of the server; None takes ``PARROT_BASE_URL``.
        api_key: None takes ``PARROT_API_KEY``; without one, requests carry no credentials.
        settings: All settings at once; replaces both of the above.
        transport: Replaces the network, for example ``httpx.ASGITransport(app)``. That one hands
            over a stream only when it is complete.

    Raises:
        NotConfigured: No usable address is known.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        settings: ClientSettings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings or resolve_settings(base_url, api_key)
        self._http = httpx.AsyncClient(transport=transport, **http_options(self._settings))
        self._retrying = stamina.AsyncRetryingCaller(**retry_options(self._settings))

    @property
    def settings(self) -> ClientSettings:
        """Where the server is, and how patiently it is asked."""
        return self._settings

    async def submit(self, request: SubmitRequest) -> SubmitReply:
        """Submit a graph and wait as the request says."""
        return await self._send(_wire.submit(_wire.with_key(request)))

    def submit_stream(self, request: SubmitRequest) -> AsyncGenerator[StreamEvent, None]:
        """Submit a graph and yield what happens to the wanted outputs, until all are settled."""
        request = _wire.with_key(request.model_copy(update={"stream": True}))
        return self._stream(_wire.submit(request))

    async def get_variable(
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
            view = await self._send(polls.next_call() if wait else polls.peek())
            if not wait or is_settled(view):
                return view

    def stream_variable(
        self, variable_id: str, criteria: WireCriteria | None = None
    ) -> AsyncGenerator[StreamEvent, None]:
        """Yield a variable's text as it is generated, and its view when it is settled."""
        return self._stream(_wire.stream_variable(variable_id, criteria))

    async def set_variable(self, variable_id: str, value: str) -> None:
        """Set an external variable."""
        await self._send(_wire.set_variable(variable_id, value))

    async def cancel(self, session_id: str, variables: tuple[str, ...] | None = None) -> None:
        """Cancel variables by name; None cancels everything unfinished in the session."""
        await self._send(_wire.cancel(session_id, variables))

    async def get_session(self, session_id: str) -> SessionView:
        """Return a session with its graph, states and timings."""
        return await self._send(_wire.get_session(session_id))

    async def close_session(self, session_id: str) -> None:
        """End a session; the server forgets it."""
        await self._send(_wire.close_session(session_id))

    async def get_timeline(self, session_id: str) -> object:
        """Return a session's timeline as the server exports it."""
        return await self._send(_wire.get_timeline(session_id))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.aclose()

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"AsyncParrotClient({self._settings.public_url!r})"

    async def _send(self, call: Call[T]) -> T:
        response = await self._retrying(backoff(call), self._send_once, call, False)
        return call.read(response)

    async def _send_once(self, call: Call[Any], is_stream: bool) -> httpx.Response:
        try:
            response = await self._http.send(build_request(self._http, call), stream=is_stream)
            if response.status_code >= 300:
                await response.aread()
        except httpx.RequestError as exc:
            raise connection_error(exc) from exc
        check_status(response)
        return response

    async def _stream(self, call: Call[Any]) -> AsyncGenerator[StreamEvent, None]:
        progress = StreamProgress()
        while True:
            response = await self._retrying(backoff(call), self._send_once, call, True)
            broken = stream_ended()
            try:
                async with aclosing(EventSource(response).aiter_sse()) as raws:
                    async for raw in raws:
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
                await response.aclose()
            for reset in progress.resume(broken):
                yield reset
