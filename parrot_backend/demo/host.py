"""The server process of the demonstration: one vLLM engine, and two doors to it.

Parrot's application and vLLM's own OpenAI server listen on a loopback port each, in one event
loop, on the same ``AsyncLLM``. Whoever started the process talks to it by lines:

    standard output   one JSON object when it serves (``ready``) or cannot (``failed``), and one in
                      answer to each command
    standard input    ``reset`` empties the prefix cache; the end of the input ends the process

Logs go to standard error. Nothing here is part of the public server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import IO

import uvicorn
from fastapi import FastAPI

from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.vllm import VllmConfig, VllmEngine
from parrot_backend.errors import ParrotError
from parrot_backend.models import TINY_MODEL_NAME, tiny_model_path
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot
from parrot_backend.vllm_compat.openai_app import create_vllm_app

#: A host that was told to end and is still there after this kills its whole process group.
_END_TIMEOUT_S = 15.0


#: No connection is closed between two runs, however long the pause.
_KEEP_ALIVE_S = 600


class SharedEngine(VllmEngine):
    """A vLLM engine that is opened before the server that drives it, and that tells its client."""

    _info: EngineInfo | None = None

    async def open(self) -> EngineInfo:
        """Start the engine; the second time, just say again what it is."""
        if self._info is None:
            self._info = await super().open()
        return self._info


class Commands:
    """Lines from standard input, read by a thread, so that the end is noticed at any time.

    Attributes:
        ended: There is no more input.
        is_serving: There is something to end in good order; before that, the end of the input
            kills the process group at once, in the middle of vLLM's start.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = asyncio.Event()
        self.is_serving = False
        self._loop = loop
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            yield await self._lines.get()

    def _read(self) -> None:
        for line in sys.stdin:
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line.strip())
        patience_s = _END_TIMEOUT_S if self.is_serving else 0.0
        watchdog = threading.Timer(patience_s, os.killpg, (os.getpgrp(), signal.SIGKILL))
        watchdog.daemon = True
        watchdog.start()
        self._loop.call_soon_threadsafe(self.ended.set)


class _Server(uvicorn.Server):
    """A server that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="model path or name; the bundled tiny model by default")
    arguments = parser.parse_args()
    replies = _private_stdout()
    logging.basicConfig(level=logging.INFO)
    # The end comes by standard input; a Ctrl-C in the terminal is for whoever started this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop_factory = uvicorn.Config("unused").get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            runner.run(_host(arguments.model, replies))
        except ParrotError as exc:
            _reply(replies, event="failed", message=str(exc))
            sys.exit(1)


def _private_stdout() -> IO[str]:
    """Keep standard output for replies; what anybody else prints there goes to the log."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _reply(replies: IO[str], **fields: object) -> None:
    replies.write(json.dumps(fields) + "\n")
    replies.flush()


async def _host(model: str | None, replies: IO[str]) -> None:
    commands = Commands(asyncio.get_running_loop())
    work = asyncio.create_task(_serve(model, commands, replies))
    end = asyncio.create_task(commands.ended.wait())
    await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def _serve(model: str | None, commands: Commands, replies: IO[str]) -> None:
    engine = SharedEngine(EngineId("vllm"), _engine_config(model))
    # A second incarnation would be this very engine again.
    settings = ServerSettings(drain_timeout_s=0, engine_restarts_per_hour=0, api_keys=None)
    try:
        info = await engine.open()
        vllm_app = await create_vllm_app(engine.client, info.models[0])
        parrot_app = create_app(settings, [EngineSlot("vllm", lambda _: engine)])
        async with _listening(vllm_app) as vllm_url, _listening(parrot_app) as parrot_url:
            await parrot_app.state.service.supervisor.joined()
            urls = {"vllm_url": vllm_url, "parrot_url": parrot_url}
            commands.is_serving = True
            _reply(replies, event="ready", model=info.models[0], **urls)
            async for command in commands:
                await _obey(command, engine, replies)
    finally:
        await engine.close()


def _engine_config(model: str | None) -> VllmConfig:
    if model is not None:
        return VllmConfig(model)
    return VllmConfig(str(tiny_model_path()), served_model_name=TINY_MODEL_NAME)


async def _obey(command: str, engine: SharedEngine, replies: IO[str]) -> None:
    if command != "reset":
        _reply(replies, event="failed", message=f"unknown command {command!r}")
    elif await engine.reset_prefix_cache():
        _reply(replies, event="reset")
    else:
        _reply(replies, event="failed", message="blocks of the cache are in use")


@contextlib.asynccontextmanager
async def _listening(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application on a free loopback port; yield its address."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


if __name__ == "__main__":
    main()
