"""The clients that adapters share: one for each server and process, one for each event loop.

A blocking client is closed when nobody uses it any more, an awaiting one when its event loop ends:
``asyncio.run`` and its like close every asynchronous generator that is still open, and one of
those holds the client.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.client import ParrotClient
from parrot_integrations.settings import ClientSettings

_Kept = dict[ClientSettings, tuple[AsyncParrotClient, AsyncGenerator[None, None]]]

_lock = threading.Lock()
_kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Kept] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Connection:
    """A server, and who talks to it.

    Attributes:
        settings: Where the server is.
        own_client: Replaces the shared blocking client.
        own_async_client: Replaces the shared awaiting client; belongs to one event loop.
    """

    settings: ClientSettings
    own_client: ParrotClient | None = None
    own_async_client: AsyncParrotClient | None = None

    def client(self) -> ParrotClient:
        """Return the blocking client."""
        return self.own_client or shared_client(self.settings)

    async def async_client(self) -> AsyncParrotClient:
        """Return the awaiting client for the running event loop."""
        return self.own_async_client or await shared_async_client(self.settings)


def shared_client(settings: ClientSettings) -> ParrotClient:
    """Return this process's blocking client for a server."""
    # Connections must not be shared across a fork.
    return _client_of_process(settings, os.getpid())


@lru_cache(maxsize=64)
def _client_of_process(settings: ClientSettings, _pid: int) -> ParrotClient:
    client = ParrotClient(settings=settings)
    # Not `client.close`, which would keep the client alive. One that was pushed out of the cache
    # stays open as long as a call still uses it.
    weakref.finalize(client, client._http.close)
    return client


async def shared_async_client(settings: ClientSettings) -> AsyncParrotClient:
    """Return the running event loop's client for a server."""
    loop = asyncio.get_running_loop()
    with _lock:
        clients = _kept.setdefault(loop, {})
    found = clients.get(settings)
    if found is not None:
        return found[0]
    _forget_closed_loops()
    client = AsyncParrotClient(settings=settings)
    keeper = _keep(client, clients, settings)
    clients[settings] = (client, keeper)
    # From its first step on, the loop knows the generator and closes it at its own end.
    with _generators_known_to(loop):
        await anext(keeper)
    return client


@contextmanager
def _generators_known_to(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Tell a loop of new generators, which ``nest_asyncio`` keeps from it; not across a wait."""
    hooks = sys.get_asyncgen_hooks()
    if hooks.firstiter is None and isinstance(loop, asyncio.BaseEventLoop):
        sys.set_asyncgen_hooks(
            loop._asyncgen_firstiter_hook,  # type: ignore[attr-defined]
            loop._asyncgen_finalizer_hook,  # type: ignore[attr-defined]
        )
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)


async def _keep(
    client: AsyncParrotClient, clients: _Kept, settings: ClientSettings
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        clients.pop(settings, None)
        if asyncio._get_running_loop() is not None:
            # Else it is collected at the end of the process: its loop was never closed, as with
            # ``nest_asyncio``, and nothing can be awaited any more.
            await client.aclose()


def _forget_closed_loops() -> None:
    """Drop clients whose loop ended without its generators being closed."""
    with _lock:
        for loop in list(_kept):
            if loop.is_closed():
                # It may have been collected since.
                _kept.pop(loop, None)
