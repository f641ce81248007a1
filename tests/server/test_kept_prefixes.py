"""What engines are asked to keep for calls of OpenAI's API that are only forecast."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.scripted import ScriptedEngine
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot

MANUAL = "The harbour lies in a bay that opens to the north, and ships come in with the tide. " * 8
NUM_STAGES = 4


class KeepingEngine(ScriptedEngine):
    """Says that it keeps prefixes, and notes which."""

    def __init__(self) -> None:
        super().__init__(EngineId("keeper"))
        self.given: list[EngineRequest] = []
        self.kept: dict[bytes, int] = {}

    async def open(self) -> EngineInfo:
        return replace(await super().open(), keeps_prefixes=True)

    def start(self, request: EngineRequest) -> None:
        self.given.append(request)
        self.kept |= dict.fromkeys(request.retain, len(self.given))
        super().start(request)

    def retain(self, key: bytes, attempt: AttemptId | None) -> None:
        self.kept[key] = len(self.given)

    def release(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            del self.kept[key]


@asynccontextmanager
async def running(
    **settings: Any,
) -> AsyncIterator[tuple[KeepingEngine, httpx.AsyncClient]]:
    engine = KeepingEngine()
    slot = EngineSlot("keeper", lambda _: engine)
    app = create_app(ServerSettings(drain_timeout_s=0, **settings), [slot])
    async with LifespanManager(app):
        await asyncio.wait_for(app.state.service.supervisor.joined(), 10)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://parrot") as client:
            yield engine, client


async def run(client: httpx.AsyncClient, name: str, *, delete: bool = True) -> str:
    """Let agents do their work one after the other; return the session."""
    said, session = "nothing", ""
    for number in range(NUM_STAGES):
        text = f"{MANUAL}What was said before: {said}\nNow do step {number}."
        body = {
            "model": "scripted",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 40,
            "parrot": {"app": "harbour", "session": name},
        }
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        session = reply.headers["x-parrot-session-id"]
        said = f"{reply.json()['choices'][0]['message']['content']} And quay {number} is mended."
    if delete:
        (await client.delete(f"/v1/sessions/{session}")).raise_for_status()
    return session


async def test_the_second_run_keeps_what_its_calls_have_in_common():
    async with running() as (engine, client):
        await run(client, "one")
        assert not any(request.retain for request in engine.given)
        await run(client, "two")
        _, *later = engine.given[NUM_STAGES:]
        for request in later[:-1]:
            (key,) = request.retain
            (beginning,) = (b for b in request.beginnings if b.boundary.hash == key)
            kept = request.parts[beginning.part].text[: beginning.offset]
            assert kept.startswith(MANUAL)
        assert engine.kept == {}


async def test_the_session_says_what_is_kept():
    async with running() as (_, client):
        await run(client, "one")
        session = await run(client, "two", delete=False)
        nodes = (await client.get(f"/v1/sessions/{session}")).json()["nodes"]
        told = [node["found"]["kept_tokens"] for node in nodes]
        assert (told[0], told[-1]) == (0, 0)
        assert all(tokens > len(MANUAL) / 10 for tokens in told[1:-1])


@pytest.mark.parametrize("switch", ["retain_prefixes", "discovery_learns", "discovery"])
async def test_switched_off_nothing_is_kept(switch: str):
    async with running(**{switch: False}) as (engine, client):
        for name in ("one", "two"):
            await run(client, name)
        assert len(engine.given) == 2 * NUM_STAGES
        assert not any(request.retain for request in engine.given)
        assert engine.kept == {}
