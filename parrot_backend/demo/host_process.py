"""Starts the host as a process of its own, talks to it, and leaves nothing of it behind.

The host leads its own process group, and its engine's processes end with it. It also ends by
itself when its standard input closes, so that it cannot outlive a demo that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The end takes as long as vLLM takes to stop its processes.
_STOP_TIMEOUT_S = 20.0

_LOG_TAIL_LINES = 12


class HostFailed(Exception):  # noqa: N818 - says what happened
    """The host did not start, or has ended; the message says why."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """Where a running host listens, and what it serves."""

    parrot_url: str
    vllm_url: str
    model: str
    pid: int


class Host:
    """A running host; made by :func:`start_host`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, info: HostInfo) -> None:
        self.info = info
        self._process = process
        self._log = log

    async def reset_prefix_cache(self) -> None:
        """Empty the engine's prefix cache.

        Raises:
            HostFailed: It could not, or is gone.
        """
        assert self._process.stdin is not None, "started with a pipe"
        self._process.stdin.write(b"reset\n")
        reply = await _read_reply(self._process, self._log)
        if reply.get("event") != "reset":
            raise HostFailed(f"the prefix cache was not reset: {reply}")


@asynccontextmanager
async def start_host(
    arguments: Sequence[str],
    log: Path,
    *,
    module: str = "parrot_backend.demo.host",
    stop_timeout_s: float = _STOP_TIMEOUT_S,
) -> AsyncIterator[Host]:
    """Start a host, yield it when it serves, and end it with all its processes.

    Args:
        arguments: Its command line.
        log: Gets everything that vLLM and Parrot log.
        module: What runs as the host.
        stop_timeout_s: A host that has not ended after this is killed.

    Raises:
        HostFailed: It ended before it served.
    """
    with log.open("wb") as log_file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,
        )
    try:
        ready = await _read_reply(process, log)
        if ready.get("event") != "ready":
            raise HostFailed(f"the engine did not start: {ready.get('message')}")
        info = HostInfo(ready["parrot_url"], ready["vllm_url"], ready["model"], process.pid)
        yield Host(process, log, info)
    finally:
        await _stop(process, stop_timeout_s)


async def _read_reply(process: asyncio.subprocess.Process, log: Path) -> dict[str, Any]:
    assert process.stdout is not None, "started with a pipe"
    line = await process.stdout.readline()
    if not line:
        raise HostFailed(f"the server process has ended; its log ends with:\n{_tail(log)}")
    reply: dict[str, Any] = json.loads(line)
    return reply


async def _stop(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    """Ask the host to end, wait, and kill what is left of its process group."""
    assert process.stdin is not None, "started with a pipe"
    process.stdin.close()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await process.wait()
    finally:
        # A group outlives its leader as long as it has members.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LOG_TAIL_LINES:])
