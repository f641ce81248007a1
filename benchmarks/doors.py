"""Doors to engines of one kind for comparisons: call by call as with stock vLLM, and Parrot's.

* ``vllm``: a vLLM engine with its own scheduler behind vLLM's own OpenAI server, and one with
  Parrot's plug-in behind a Parrot server.
* ``scripted``: two engines as in ``gpu_like``. There is no OpenAI server but Parrot's for these:
  call by call is one with policy ``fcfs``, without discovery, splicing and kept prefixes. Calls
  run in order of arrival, as many as the engine has slots and KV memory for.

All stand in one process and one event loop; what is not in use takes no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import uvicorn
from fastapi import FastAPI

from benchmarks.gpu_like import GpuLike, GpuLikeEngine
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.vllm import VllmConfig, VllmEngine
from parrot_backend.models import TINY_MODEL_NAME, tiny_model_path
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot
from parrot_backend.vllm_compat.openai_app import create_vllm_app

_OPEN_TIMEOUT_S = 120.0

#: A Parrot server that does what stock vLLM's does.
FIRST_COME: Mapping[str, Any] = {
    "placement": "fcfs",
    "ordering": "fcfs",
    "discovery": False,
    "splice": False,
    "retain_prefixes": False,
}


@dataclass(frozen=True, slots=True)
class Door:
    """A server of OpenAI's API.

    Attributes:
        is_parrot: It understands hints.
    """

    url: str
    model: str
    is_parrot: bool
    engine: VllmEngine | GpuLikeEngine

    async def forget(self) -> None:
        """Begin with an empty prefix cache."""
        await self.engine.drain()
        await self.engine.reset_prefix_cache()


@dataclass(frozen=True, slots=True)
class Doors:
    """Both."""

    stock: Door
    parrot: Door


class _OpenedEngine(VllmEngine):
    """An engine that was opened before the server that drives it."""

    info: EngineInfo | None = None

    async def open(self) -> EngineInfo:
        """Start the engine; the second time, just say again what it is."""
        if self.info is None:
            self.info = await super().open()
        return self.info


class _Server(uvicorn.Server):
    """A server that leaves signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application on a free loopback port; yield its address."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_keep_alive=600, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def scripted_doors(gpu: GpuLike) -> AsyncIterator[Doors]:
    """Pretend two engines."""
    stock, parrot = (GpuLikeEngine(EngineId(name), gpu) for name in ("stock", "parrot"))
    async with (
        _parrot("stock", stock, FIRST_COME) as stock_url,
        _parrot("parrot", parrot, {}) as url,
    ):
        yield Doors(
            Door(stock_url, "scripted", is_parrot=False, engine=stock),
            Door(url, "scripted", is_parrot=True, engine=parrot),
        )


@asynccontextmanager
async def vllm_doors(config: VllmConfig) -> AsyncIterator[Doors]:
    """Start two engines.

    Args:
        config: Of the engine with the plug-in; the other one differs in its scheduler only.
    """
    stock = _OpenedEngine(EngineId("stock"), stock_of(config))
    parrot = VllmEngine(EngineId("parrot"), config)
    info = await stock.open()
    try:
        app = await create_vllm_app(stock.client, info.models[0])
        async with listening(app) as stock_url, _parrot("parrot", parrot, {}) as url:
            # vLLM's own server takes the calls; nobody reads the outputs of our requests.
            yield Doors(
                Door(stock_url, info.models[0], is_parrot=False, engine=stock),
                Door(url, info.models[0], is_parrot=True, engine=parrot),
            )
    finally:
        await stock.close()


def stock_of(config: VllmConfig) -> VllmConfig:
    """Return the same engine with vLLM's own scheduler."""
    return replace(config, scheduler="vllm")


def vllm_config(
    model: str | None, kv_tokens: int, max_requests: int, latency_capacity_tokens: int = 6_144
) -> VllmConfig:
    """Return a small engine: the tiny model's keys and values take 1 KiB a token."""
    sizes: dict[str, Any] = {
        "max_num_seqs": max_requests,
        "latency_capacity_tokens": latency_capacity_tokens,
    }
    if model is not None:
        return VllmConfig(model, **sizes)
    return VllmConfig(
        str(tiny_model_path()),
        served_model_name=TINY_MODEL_NAME,
        kv_cache_bytes=kv_tokens * 1024,
        **sizes,
    )


@asynccontextmanager
async def _parrot(
    name: str, engine: VllmEngine | GpuLikeEngine, settings: Mapping[str, Any]
) -> AsyncIterator[str]:
    full = ServerSettings(
        drain_timeout_s=0, engine_restarts_per_hour=0, merge_calls=False, **settings
    )
    app = create_app(full, [EngineSlot(name, lambda _: engine)])
    async with listening(app) as url:
        await asyncio.wait_for(app.state.service.supervisor.joined(), _OPEN_TIMEOUT_S)
        yield url
