"""The server as a process: uvicorn, signals, and one line that says where it listens.

The first SIGINT or SIGTERM drains and then ends the process with code 0; a second one ends it at
once. No child process stays behind.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from parrot_backend.server.app import create_app
from parrot_backend.server.config import ConfigError, ServerSettings
from parrot_backend.server.exposure import exposure_problem, exposure_warning
from parrot_backend.server.service import Service
from parrot_backend.server.supervisor import EngineSlot

logger = logging.getLogger(__name__)

#: Exit status of a process that a second signal ended (128 + SIGINT, as shells have it).
_EXIT_FORCED = 130

#: Longer than clients keep idle connections, so that it is they who close them.
_KEEP_ALIVE_S = 75

#: How long replies may take to reach their clients when all work is done.
_FLUSH_TIMEOUT_S = 5


def serve(
    settings: ServerSettings, slots: Sequence[EngineSlot], announce: Callable[[str], None]
) -> None:
    """Serve until a signal comes.

    Args:
        settings: Where to listen, and limits.
        slots: The engines.
        announce: Gets a line for people when the server is ready, and warnings before.

    Raises:
        ConfigError: Others could reach the server without keys, and nobody said that they may.
        KeyFileError: What should be the file of API keys is none.
        OSError: The address cannot be bound, or a file cannot be used.
    """
    has_keys = settings.api_keys is not None
    problem = exposure_problem(settings.host, has_keys=has_keys, no_auth=settings.no_auth)
    if problem is not None:
        raise ConfigError((problem,))
    with _bind(settings.host, settings.port) as sock:
        warning = exposure_warning(settings.host, has_keys=has_keys)
        if warning is not None:
            announce(warning)
        app = create_app(settings, slots)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_FLUSH_TIMEOUT_S,
        )
        server = _DrainingServer(config, app.state.service)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(server, app.state.service, sock, announce))


async def _run(
    server: _DrainingServer,
    service: Service,
    sock: socket.socket,
    announce: Callable[[str], None],
) -> None:
    announcing = asyncio.create_task(_announce_ready(service, sock, announce))
    try:
        await server.serve(sockets=[sock])
    finally:
        announcing.cancel()


async def _announce_ready(
    service: Service, sock: socket.socket, announce: Callable[[str], None]
) -> None:
    await service.supervisor.joined()
    host, port = sock.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    models = {m: None for e in service.coordinator.engines.values() for m in e.info.models}
    announce(f"Parrot is ready at http://{host}:{port} (model: {', '.join(models)})")


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


class _DrainingServer(uvicorn.Server):
    """Uvicorn that drains the service before it closes its connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._has_been_told = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, end at the second."""
        if self._has_been_told:
            _end_at_once()
        self._has_been_told = True
        assert self._loop is not None, "signals are caught while serving only"
        self._loop.call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        logger.info("shutting down; a second signal ends the server at once")
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self._service.drain()
        finally:
            self.should_exit = True


def _end_at_once() -> None:
    for child in multiprocessing.active_children():
        child.kill()
    # Nothing is awaited any more, but what was to be cleaned up at exit still is.
    atexit._run_exitfuncs()
    os._exit(_EXIT_FORCED)
