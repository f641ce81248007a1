"""Clients that adapters share."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import weakref

import pytest

from parrot_integrations import AsyncParrotClient
from parrot_integrations.planning import clients
from parrot_integrations.planning.clients import (
    Connection,
    shared_async_client,
    shared_client,
)
from parrot_integrations.settings import ClientSettings

ONE, TWO = ClientSettings("http://one.test", api_key="k"), ClientSettings("http://two.test")


def test_a_process_has_one_blocking_client_for_a_server() -> None:
    assert shared_client(ONE) is shared_client(ClientSettings("http://one.test", api_key="k"))
    assert shared_client(ONE) is not shared_client(TWO)


def test_another_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = shared_client(ONE)
    monkeypatch.setattr(os, "getpid", lambda: 0)
    assert shared_client(ONE) is not ours


def test_a_blocking_client_that_nobody_uses_is_closed() -> None:
    clients._client_of_process.cache_clear()
    client = shared_client(TWO)
    http, found = client._http, weakref.ref(client)
    clients._client_of_process.cache_clear()
    assert not http.is_closed
    del client
    gc.collect()
    assert found() is None
    assert http.is_closed


async def _client() -> AsyncParrotClient:
    first, second = await asyncio.gather(shared_async_client(ONE), shared_async_client(ONE))
    assert first is second
    assert await shared_async_client(TWO) is not first
    return first


def test_an_event_loop_has_its_own_client_which_ends_with_it() -> None:
    first, second = asyncio.run(_client()), asyncio.run(_client())
    assert first is not second
    assert first._http.is_closed
    assert second._http.is_closed
    assert not any(clients._kept.values())


def test_a_loop_that_ended_otherwise_is_forgotten() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(shared_async_client(ONE))
    loop.close()
    asyncio.run(_client())
    assert loop not in clients._kept


def test_a_client_that_no_loop_closes_ends_in_silence() -> None:
    """The loop of ``nest_asyncio`` is never closed."""
    keeper = clients._keep(AsyncParrotClient(settings=ONE), {}, ONE)
    with pytest.raises(StopIteration):
        keeper.__anext__().send(None)
    del keeper
    # What goes wrong in a generator that is collected is a warning, and warnings are errors.
    gc.collect()


def test_a_loop_that_does_not_look_for_generators_closes_its_client() -> None:
    async def use() -> AsyncParrotClient:
        sys.set_asyncgen_hooks(None, None)
        return await shared_async_client(ONE)

    assert asyncio.run(use())._http.is_closed


async def test_own_clients_win() -> None:
    client, own = shared_client(ONE), AsyncParrotClient(settings=ONE)
    connection = Connection(TWO, client, own)
    assert connection.client() is client
    assert await connection.async_client() is own
    await own.aclose()


def test_a_connection_does_not_show_the_key() -> None:
    assert "'k'" not in repr(Connection(ONE, shared_client(ONE)))


class _Vanishing:
    """A loop that another thread forgets while this one looks at it."""

    def is_closed(self) -> bool:
        clients._kept.pop(self, None)  # type: ignore[call-overload]
        return True


def test_loops_are_forgotten_by_several_threads_at_once() -> None:
    loop = _Vanishing()
    clients._kept[loop] = {}  # type: ignore[index]
    clients._forget_closed_loops()
    assert clients._kept.get(loop) is None  # type: ignore[call-overload]
