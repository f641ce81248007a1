"""A server with keys, and clients of several tenants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from parrot_backend.server.api_keys import add_key
from tests.server.conftest import RunningServer, StartServer
from tests.server.toy_engine import ToyPlan


@dataclass
class TenantServer:
    """A server that wants keys.

    Attributes:
        server: It; its client has no key.
        path: The file of keys.
        keys: One key of each tenant.
    """

    server: RunningServer
    path: Path
    keys: dict[str, str]

    def headers(self, tenant: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[tenant]}"}

    async def ask(self, tenant: str, method: str, path: str, **request: Any) -> httpx.Response:
        return await self.server.client.request(
            method, path, headers=self.headers(tenant), **request
        )

    async def submit(self, tenant: str, **body: Any) -> dict[str, Any]:
        reply = await self.ask(tenant, "POST", "/v1/submit", json=body)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found


async def serve_tenants(
    start: StartServer, folder: Path, *plans: ToyPlan, **settings: Any
) -> TenantServer:
    """Start a server for alice and bob."""
    path = folder / "keys.json"
    keys = {tenant: add_key(path, tenant) for tenant in ("alice", "bob")}
    return TenantServer(await start(*plans, api_keys=path, **settings), path, keys)
