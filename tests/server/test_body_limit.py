from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.programs import one_call

LIMIT_BYTES = 1000
JSON = {"Content-Type": "application/json"}


async def test_a_body_over_the_limit_is_refused_by_its_announced_length(start: StartServer):
    server = await start(max_body_bytes=LIMIT_BYTES)

    reply = await server.submit(**one_call("x" * LIMIT_BYTES))

    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")
    assert reply.json()["error"]["context"] == {"limit_bytes": LIMIT_BYTES}


async def test_a_chunked_body_over_the_limit_is_refused(start_listening: StartServer):
    server = await start_listening(max_body_bytes=LIMIT_BYTES)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    reply = await server.client.post("/v1/submit", content=chunks(), headers=JSON)

    assert "content-length" not in reply.request.headers
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


async def test_a_body_that_passes_the_limit_in_its_last_chunk_is_refused_at_once(
    start: StartServer,
):
    server = await start(max_body_bytes=LIMIT_BYTES)
    scope = {"type": "http", "method": "POST", "path": "/v1/submit", "headers": []}
    messages = [{"type": "http.request", "body": b"x" * (LIMIT_BYTES + 1), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(1):
        await server.app(scope, receive, send)

    assert sent[0]["status"] == 413


async def test_a_chunked_body_within_the_limit_is_taken(start_listening: StartServer):
    server = await start_listening(max_body_bytes=LIMIT_BYTES)

    async def chunks() -> AsyncIterator[bytes]:
        body = json.dumps(one_call()).encode()
        yield body[:10]
        yield body[10:]

    reply = await server.client.post("/v1/submit", content=chunks(), headers=JSON)

    assert reply.json()["variables"]["out"]["value"] == "<hi>"


async def test_an_absurd_length_is_refused(start: StartServer):
    server = await start()

    reply = await server.client.post(
        "/v1/submit", content=b"", headers={**JSON, "Content-Length": "9" * 5000}
    )

    assert reply.status_code == 413


@pytest.mark.parametrize("path", ["/v1/submit", "/v1/chat/completions"])
async def test_a_client_that_leaves_before_the_end_of_its_body_is_no_error(
    start_listening: StartServer, path: str, caplog: pytest.LogCaptureFixture
):
    server = await start_listening()
    url = server.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    assert await reader.read() == b""
    # What follows on the same loop has been served when the other request is over.
    await server.client.get("/health")
    await asyncio.sleep(0.05)

    metrics = (await server.client.get("/metrics")).text
    assert 'code="internal"' not in metrics
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
