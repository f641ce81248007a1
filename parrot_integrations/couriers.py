"""Who carries a program's traffic: threads with a blocking client, or tasks with an awaiting one.

Both read the stream of each shipment to its end and report what happens to the outbox, which
decides everything. ``aget`` and its like work with threads too; ``get`` and its like need them,
because a task cannot run while its own event loop is blocked.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import aclosing, closing, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.client import ParrotClient
from parrot_integrations.errors import ParrotError, ProgramError, ServerFailed, SessionReplaced
from parrot_integrations.settings import ClientSettings, resolve_settings
from parrot_integrations.shipment import Shipment

if TYPE_CHECKING:
    from parrot_integrations.outbox import Outbox


class Courier(Protocol):
    """Carries shipments and single requests to the server."""

    def connect(self) -> None:
        """Make sure that there is a server to talk to.

        Raises:
            NotConfigured: No server is known.
        """

    def check_blocking(self) -> None:
        """Make sure that the caller may block.

        Raises:
            ProgramError: ``use_async``.
        """

    def start(self, outbox: Outbox, shipment: Shipment) -> None:
        """Begin to send a shipment and return at once."""

    def set_variable(self, variable_id: str, value: str) -> None:
        """Set a variable, blocking."""

    def cancel(self, session_id: str, variables: tuple[str, ...]) -> None:
        """Cancel variables, blocking."""

    def close_session(self, session_id: str) -> None:
        """Close a session, blocking."""

    async def aset_variable(self, variable_id: str, value: str) -> None:
        """Set a variable."""

    async def acancel(self, session_id: str, variables: tuple[str, ...]) -> None:
        """Cancel variables."""

    async def aclose_session(self, session_id: str) -> None:
        """Close a session."""


class ThreadCourier:
    """Blocking client; one daemon thread per stream.

    Args:
        client: None takes one that all programs of the process share, made on first use from
            ``PARROT_BASE_URL`` and ``PARROT_API_KEY``.
    """

    def __init__(self, client: ParrotClient | None = None) -> None:
        self._own = client

    @property
    def _client(self) -> ParrotClient:
        if self._own is None:
            self._own = _shared_client(resolve_settings(), os.getpid())
        return self._own

    def connect(self) -> None:
        """Make the shared client if there is none yet."""
        _ = self._client

    def check_blocking(self) -> None:
        """Threads may always block."""

    def start(self, outbox: Outbox, shipment: Shipment) -> None:
        """Start a thread that reads the stream."""
        threading.Thread(
            target=self._carry, args=(outbox, shipment), name="parrot-reader", daemon=True
        ).start()

    def set_variable(self, variable_id: str, value: str) -> None:
        """Set a variable."""
        self._client.set_variable(variable_id, value)

    def cancel(self, session_id: str, variables: tuple[str, ...]) -> None:
        """Cancel variables."""
        self._client.cancel(session_id, variables)

    def close_session(self, session_id: str) -> None:
        """Close a session."""
        self._client.close_session(session_id)

    async def aset_variable(self, variable_id: str, value: str) -> None:
        """Set a variable from a thread."""
        await asyncio.to_thread(self._client.set_variable, variable_id, value)

    async def acancel(self, session_id: str, variables: tuple[str, ...]) -> None:
        """Cancel variables from a thread."""
        await asyncio.to_thread(self._client.cancel, session_id, variables)

    async def aclose_session(self, session_id: str) -> None:
        """Close a session from a thread."""
        await asyncio.to_thread(self._client.close_session, session_id)

    def _carry(self, outbox: Outbox, shipment: Shipment) -> None:
        error: ParrotError | None = None
        try:
            request = shipment.request()
            with closing(self._client.submit_stream(request, stop=shipment.stop)) as events:
                for event in events:
                    outbox.receive(shipment, event)
        except ParrotError as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001 - outermost loop: whoever waits must be answered
            error = _reader_failed(exc)
        outbox.finish(shipment, error)
        if isinstance(error, SessionReplaced):
            with suppress(ParrotError):
                self._client.close_session(error.session_id)


class TaskCourier:
    """Awaiting client; one task per stream, in the event loop of whoever asks.

    Args:
        client: Used by this program alone or shared with others of the same event loop.
    """

    def __init__(self, client: AsyncParrotClient) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self) -> None:
        """Nothing to do: the client is there."""

    def check_blocking(self) -> None:
        """Refuse: blocking the event loop would stop the reader that is waited for."""
        raise ProgramError(
            "use_async",
            "this program belongs to an event loop: await aget, astream, aset or acancel instead",
        )

    def start(self, outbox: Outbox, shipment: Shipment) -> None:
        """Start a task that reads the stream."""
        task = asyncio.get_running_loop().create_task(self._carry(outbox, shipment))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def set_variable(self, variable_id: str, value: str) -> None:
        """Refuse to block."""
        self.check_blocking()

    def cancel(self, session_id: str, variables: tuple[str, ...]) -> None:
        """Refuse to block."""
        self.check_blocking()

    def close_session(self, session_id: str) -> None:
        """Refuse to block."""
        self.check_blocking()

    async def aset_variable(self, variable_id: str, value: str) -> None:
        """Set a variable."""
        await self._client.set_variable(variable_id, value)

    async def acancel(self, session_id: str, variables: tuple[str, ...]) -> None:
        """Cancel variables."""
        await self._client.cancel(session_id, variables)

    async def aclose_session(self, session_id: str) -> None:
        """Close a session."""
        await self._client.close_session(session_id)

    async def stop(self, *, close_client: bool) -> None:
        """End all readers."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if close_client:
            await self._client.aclose()

    async def _carry(self, outbox: Outbox, shipment: Shipment) -> None:
        error: ParrotError | None = None
        try:
            async with aclosing(self._client.submit_stream(shipment.request())) as events:
                async for event in events:
                    outbox.receive(shipment, event)
        except ParrotError as exc:
            error = exc
        except asyncio.CancelledError:
            outbox.finish(shipment, ProgramError("program_closed", "the program was closed"))
            raise
        except Exception as exc:  # noqa: BLE001 - outermost loop: whoever waits must be answered
            error = _reader_failed(exc)
        outbox.finish(shipment, error)
        if isinstance(error, SessionReplaced):
            with suppress(ParrotError):
                await self._client.close_session(error.session_id)


@lru_cache(maxsize=8)
def _shared_client(settings: ClientSettings, _pid: int) -> ParrotClient:
    # Keyed by process, because connections must not be shared across a fork.
    return ParrotClient(settings=settings)


def _reader_failed(exc: Exception) -> ParrotError:
    error = ServerFailed("reader_failed", f"reading the stream failed: {exc!r}")
    error.__cause__ = exc
    return error
