"""A real server with the scripted engine, in a thread, and what can be seen of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.service import Service
from parrot_backend.server.supervisor import EngineSlot


@dataclass
class ScriptedServer:
    """A running server.

    Attributes:
        url: Its address.
        app: The application.
        requests: Method and path of each request, in order.
    """

    url: str
    app: FastAPI = field(repr=False)
    requests: list[tuple[str, str]] = field(default_factory=list, repr=False)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """Keep what Hypothesis prints short."""
        printer.text("server")

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    def count(self, method: str, path: str) -> int:
        return sum(m == method and p.startswith(path) for m, p in self.requests)

    @property
    def num_submits(self) -> int:
        return self.count("POST", "/v1/submit")

    @property
    def num_sets(self) -> int:
        return self.count("PUT", "/v1/variables")

    def wait_until_idle(self, timeout_s: float = 5.0) -> None:
        """Wait until no call is unfinished."""
        deadline_s = time.monotonic() + timeout_s
        while self.service.coordinator.num_unfinished_calls:
            assert time.monotonic() < deadline_s, "calls are left on the server"
            time.sleep(0.005)

    def wait_until_empty(self, timeout_s: float = 5.0) -> None:
        """Wait until no session is open."""
        deadline_s = time.monotonic() + timeout_s
        while any(not session.is_closed for session in list(self.service.coordinator.sessions)):
            assert time.monotonic() < deadline_s, "sessions are left on the server"
            time.sleep(0.005)


class _Recording:
    """Notes requests on their way to the application."""

    def __init__(self, app: ASGIApp, requests: list[tuple[str, str]]) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._requests.append((scope["method"], scope["path"]))
        await self._app(scope, receive, send)


@contextmanager
def scripted_server(
    config: ScriptedConfig | None = None, *, port: int = 0, **settings: object
) -> Iterator[ScriptedServer]:
    """Run a server until the block ends."""
    engine_config = config or ScriptedConfig()
    slots = [EngineSlot("scripted-0", lambda engine_id: ScriptedEngine(engine_id, engine_config))]
    app = create_app(ServerSettings(drain_timeout_s=0, **settings), slots)  # type: ignore[arg-type]
    requests: list[tuple[str, str]] = []
    server = uvicorn.Server(
        uvicorn.Config(_Recording(app, requests), log_config=None, timeout_graceful_shutdown=2)
    )
    sock = socket.create_server(("127.0.0.1", port))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        _await_ready(url)
        requests.clear()
        yield ScriptedServer(url, app, requests)
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


def _await_ready(url: str) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            if httpx.get(f"{url}/ready").status_code < 300:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.01)
    raise AssertionError("the server did not get ready")
