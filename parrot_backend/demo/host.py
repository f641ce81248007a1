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
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import IO

import uvicorn
from fastapi import FastAPI

from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import EngineId
from parrot_backend.demo.vllm_server import create_vllm_app
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.errors import ParrotError
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot

#: A host that was told to end and is still there after this kills its whole process group.
_END_TIMEOUT_S = 15.0

#: No connection is closed between two runs, however long the pause.
_KEEP_ALIVE_S = 600


class _Commands:
    """Lines from standard input, read by a thread, so that a busy event loop hears of the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    async def next(self) -> str | None:
        """Return the next command; None at the end of the input."""
        return await self._lines.get()

    def _read(self) -> None:
        for line in sys.stdin:
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line.strip())
        watchdog = threading.Timer(_END_TIMEOUT_S, _kill_group)
        watchdog.daemon = True
        watchdog.start()
        self._loop.call_soon_threadsafe(self._lines.put_nowait, None)


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
    # The end comes by standard input; a Ctrl-C in the terminal is for whoever started this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop_factory = uvicorn.Config("", loop="auto").get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            runner.run(_host(arguments.model, replies))
        except ParrotError as exc:
            _reply(replies, event="failed", message=str(exc))
            sys.exit(1)


async def _host(model: str | None, replies: IO[str]) -> None:
    commands = _Commands(asyncio.get_running_loop())
    engine = VllmEngine(EngineId("vllm"), model=model)
