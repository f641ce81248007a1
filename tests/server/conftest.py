"""Fixtures: a whole server in process, over ASGI or over a real loopback connection."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.service import Service
from parrot_backend.server.supervisor import EngineSlot
from tests.server.toy_engine import ToyPlan


@dataclass
class RunningServer:
    """A server, and a client that talks to it."""

    app: FastAPI
    client: httpx.AsyncClient

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    async def submit(self, **body: Any) -> httpx.Response:
        return await self.client.post("/v1/submit", json=body)


StartServer = Callable[..., Awaitable[RunningServer]]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PARROT_"):
            monkeypatch.delenv(name)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(stack: AsyncExitStack) -> StartServer:
    """Start a server in process; its engine has joined when this returns."""

    async def start(*plans: ToyPlan, **settings: Any) -> RunningServer:
        app = make_app(*plans, **settings)
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app)
        client = httpx.AsyncClient(transport=transport, base_url="http://parrot")
        await stack.enter_async_context(client)
        return await _when_joined(RunningServer(app, client))

    return start


@pytest.fixture
def start_listening(stack: AsyncExitStack) -> StartServer:
    """Start a server that listens on a loopback port."""

    async def start(*plans: ToyPlan, **settings: Any) -> RunningServer:
        app = make_app(*plans, **settings)
        url = await stack.enter_async_context(_listening(app))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=10))
        return await _when_joined(RunningServer(app, client))

    return start


def make_app(*plans: ToyPlan, **settings: Any) -> FastAPI:
    quick = {"drain_timeout_s": 0, "engine_restart_delay_s": 0.01, "engine_close_timeout_s": 0.2}
    slots = [
        EngineSlot(f"toy-{number}", plan.create)
        for number, plan in enumerate(plans or (ToyPlan(),))
    ]
    return create_app(ServerSettings(**{**quick, **settings}), slots)


async def _when_joined(server: RunningServer) -> RunningServer:
    async with asyncio.timeout(5):
        await server.service.supervisor.joined()
    return server


@asynccontextmanager
async def _listening(app: FastAPI) -> AsyncIterator[str]:
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Return when a condition holds; tests alone may look again and again."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
