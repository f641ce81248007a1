"""Settings of the engine behind HTTP, and the HTTP client that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True, slots=True)
class OpenAIConfig:
    """The server and what it can carry.

    Attributes:
        base_url: URL up to and including ``/v1``.
        api_key: Bearer token, or None. It is not part of the representation and is never logged.
        model: Default model; None takes the first that the server lists.
        max_model_len: Longest prompt plus output in tokens, where the server does not list it.
        capacity_tokens: See ``EngineInfo``.
        latency_capacity_tokens: See ``EngineInfo``.
        max_requests: Requests that may run at once; each holds a connection.
        connect_timeout_s: Longest wait for a connection.
        silence_timeout_s: Longest wait for the next piece of a reply, the first included.
        probe_interval_s: Time between two health probes.
        probe_timeout_s: A probe without an answer after this is a miss.
        sends_cache_salt: Send ``cache_salt`` (vLLM), which keeps the caches of tenants apart.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    max_model_len: int = 8_192
    capacity_tokens: int = 65_536
    latency_capacity_tokens: int = 6_144
    max_requests: int = 64
    connect_timeout_s: float = 5.0
    silence_timeout_s: float = 120.0
    probe_interval_s: float = 5.0
    probe_timeout_s: float = 5.0
    sends_cache_salt: bool = True


def create_client(
    config: OpenAIConfig, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """Return a client for the server.

    Args:
        config: The server.
        transport: How to reach it; None makes ordinary connections.
    """
    headers = {} if config.api_key is None else {"Authorization": f"Bearer {config.api_key}"}
    connections = config.max_requests + 2
    return httpx.AsyncClient(
        base_url=config.base_url,
        headers=headers,
        transport=transport,
        timeout=httpx.Timeout(config.silence_timeout_s, connect=config.connect_timeout_s),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )
