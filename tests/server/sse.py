"""Reading server-sent events in tests."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from httpx_sse import aconnect_sse

from tests.server.programs import Body


async def stream_submit(
    client: httpx.AsyncClient, body: Body
) -> AsyncGenerator[tuple[str, Any], None]:
    """Yield (event, data) of a streaming submit."""
    request = {**body, "stream": True}
    async with aconnect_sse(client, "POST", "/v1/submit", json=request) as source:
        async for event in source.aiter_sse():
            yield event.event, json.loads(event.data)


async def stream_variable(
    client: httpx.AsyncClient, variable: str, **options: Any
) -> AsyncGenerator[tuple[str, Any], None]:
    """Yield (event, data) of a variable's stream."""
    url = f"/v1/variables/{variable}"
    params = {"stream": "true", **options}
    async with aconnect_sse(client, "GET", url, params=params) as source:
        async for event in source.aiter_sse():
            yield event.event, json.loads(event.data)
