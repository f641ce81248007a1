"""Parrot servers for benchmarks of the plug-in, each with one engine, all in one process.

Requests go to the application without a socket, so that what is measured is scheduling and the
engine, not the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from asgi_lifespan import LifespanManager

from parrot_backend.core.ids import EngineId
from parrot_backend.engines.vllm import VllmConfig, VllmEngine
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot

_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class LabServer:
    """A server, its only engine, and a client for it."""

    engine: VllmEngine
    client: httpx.AsyncClient

    async def submit(
        self,
        nodes: Sequence[Mapping[str, Any]],
        outputs: Sequence[str],
        *,
        variables: Sequence[Mapping[str, Any]] = (),
        wait: bool = True,
    ) -> str:
        """Submit a program and return the id of its session."""
        body = {
            "nodes": list(nodes),
            "variables": list(variables),
            "outputs": [{"variable": name} for name in outputs],
            "wait": wait,
        }
        reply = await self.client.post("/v1/submit", json=body)
        reply.raise_for_status()
        session: str = reply.json()["session_id"]
        return session

    async def set(self, session: str, name: str, value: str) -> None:
        """Set an external variable."""
        reply = await self.client.put(f"/v1/variables/{session}.{name}", json={"value": value})
        reply.raise_for_status()

    async def wait(self, session: str, name: str) -> None:
        """Wait for a variable."""
        reply = await self.client.get(f"/v1/variables/{session}.{name}", params={"wait": True})
        reply.raise_for_status()

    async def end(self, session: str) -> list[dict[str, Any]]:
        """End a session and return what was measured of its calls, in order."""
        reply = await self.client.get(f"/v1/sessions/{session}")
        reply.raise_for_status()
        nodes: list[dict[str, Any]] = reply.json()["nodes"]
        (await self.client.delete(f"/v1/sessions/{session}")).raise_for_status()
        return nodes

    async def forget(self) -> None:
        """Begin with an empty prefix cache."""
        await self.engine.drain()
        await self.engine.reset_prefix_cache()


@asynccontextmanager
async def servers(
    **specs: tuple[VllmConfig, ServerSettings],
) -> AsyncIterator[dict[str, LabServer]]:
    """Start servers by name, one after the other; end them at the end."""
    async with AsyncExitStack() as stack:
        started: dict[str, LabServer] = {}
        for name, (config, settings) in specs.items():
            started[name] = await stack.enter_async_context(_server(name, config, settings))
        yield started


@asynccontextmanager
async def _server(
    name: str, config: VllmConfig, settings: ServerSettings
) -> AsyncIterator[LabServer]:
    engine = VllmEngine(EngineId(name), config)
    app = create_app(settings, [EngineSlot(name, lambda _: engine)])
    async with LifespanManager(app, startup_timeout=_START_TIMEOUT_S, shutdown_timeout=30):
        await asyncio.wait_for(app.state.service.supervisor.joined(), _START_TIMEOUT_S)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://lab", timeout=_START_TIMEOUT_S
        ) as client:
            yield LabServer(engine, client)


def call(name: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """Return a call node that generates exactly ``max_tokens``."""
    sampling = {"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True}
    return {"kind": "call", "name": name, "prompt": prompt, "sampling": sampling}
