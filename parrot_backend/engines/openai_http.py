"""An engine behind HTTP: any server that speaks OpenAI's API (``vllm serve``, SGLang, a cloud).

Takes requests, streams completions, gives outputs. What crosses the wire is in ``openai_wire``. The
server gets no objectives and returns no token ids, and its own time is not known; a chunk counts as
one token while it streams, and the usage at its end is the truth. Quiet requests are streamed like
all others: each chunk is a sign that the server lives, and nothing else would be. Capacities are
what the configuration says, because the API does not tell them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from parrot_backend.core.events import (
    EngineInfo,
    RequestFailed,
    RequestUsage,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.engines.attempts import AttemptTasks, check_model
from parrot_backend.engines.base import EngineLoad, EngineOutput, EngineRequest
from parrot_backend.engines.openai_config import OpenAIConfig, create_client
from parrot_backend.engines.openai_reply import RemoteReply
from parrot_backend.engines.openai_wire import Refusal, parse_chunk, path_and_body, refusal
from parrot_backend.engines.output_stream import OutputStream
from parrot_backend.engines.unhinted import UnhintedEngine
from parrot_backend.errors import EngineError

logger = logging.getLogger(__name__)

#: So many probes in a row without an answer mean that the server is gone.
_MISSES_UNTIL_DEAD = 3


__all__ = ["OpenAIConfig", "OpenAIEngine"]


class OpenAIEngine(UnhintedEngine):
    """An ``Engine`` that drives a remote server; see the module.

    Args:
        engine_id: Id of this incarnation.
        config: The server and what it can carry.
        transport: How to reach it; None makes ordinary connections.
    """

    def __init__(
        self,
        engine_id: EngineId,
        config: OpenAIConfig,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._id = engine_id
        self._config = config
        self._client = create_client(config, transport)
        self._stream = OutputStream()
        self._tasks = AttemptTasks(self._stream)
        self._probe: asyncio.Task[None] | None = None
        self._models: tuple[str, ...] = ()
        self._max_model_len = config.max_model_len
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._generated_tokens = 0

    async def open(self) -> EngineInfo:
        """Ask the server for its models.

        Raises:
            EngineError: ``engine_start_failed``: it cannot be reached or lists no usable model.
        """
        models = await self._list_models()
        names = tuple(str(model["id"]) for model in models)
        first = self._config.model or (names[0] if names else "")
        if first not in names:
            raise EngineError(
                "engine_start_failed",
                f"{self._config.base_url} does not serve {first or 'any model'!r}; it lists "
                f"{', '.join(names) or 'none'}",
            )
        self._models = (first, *(name for name in names if name != first))
        listed = models[names.index(first)].get("max_model_len")
        self._max_model_len = int(listed or self._config.max_model_len)
        self._probe = asyncio.create_task(self._watch(), name=f"probe {self._id}")
        return EngineInfo(
            engine=self._id,
            models=self._models,
            max_model_len=self._max_model_len,
            capacity_tokens=self._config.capacity_tokens,
            latency_capacity_tokens=self._config.latency_capacity_tokens,
            max_requests=self._config.max_requests,
        )

    def start(self, request: EngineRequest) -> None:
        """Begin an attempt and return at once."""
        failure = check_model(request, self._models)
        if failure is not None:
            self._stream.put(failure)
            return
        self._tasks.start(request.attempt, self._run(request))

    def abort(self, attempt: AttemptId) -> None:
        """Stop an attempt: its connection is closed, so that the server stops, too."""
        self._tasks.abort(attempt)

    def outputs(self) -> AsyncIterator[EngineOutput]:
        """Yield what happens, until ``close`` or until the server is gone."""
        return self._stream.read()

    def load(self) -> EngineLoad:
        """Return what is known on this side; the server's queue and memory are not."""
        return EngineLoad(
            running=len(self._tasks),
            waiting=0,
            kv_usage=0.0,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
        )

    async def drain(self) -> None:
        """Return when no attempt is running any more."""
        await self._tasks.drain()

    async def close(self) -> None:
        """Close the connections and end ``outputs``; the server itself is not ours to end."""
        self._stream.end()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait({self._probe})
        await self._tasks.cancel_all()
        await self._client.aclose()

    # --- health ------------------------------------------------------------------------------

    async def _list_models(self) -> list[dict[str, Any]]:
        try:
            response = await self._client.get("models")
            response.raise_for_status()
            models: list[dict[str, Any]] = response.json()["data"]
        except (httpx.HTTPError, ValueError, KeyError) as exc:
            url = f"{self._config.base_url}/models"
            raise EngineError("engine_start_failed", f"{url}: {_describe(exc)}") from exc
        return models

    async def _watch(self) -> None:
        misses = 0
        while misses < _MISSES_UNTIL_DEAD:
            await asyncio.sleep(self._config.probe_interval_s)
            problem = await self._probe_once()
            misses = 0 if problem is None else misses + 1
            if problem is not None:
                logger.warning("engine=%s misses a probe: %s", self._id, problem)
        self._stream.die(f"{self._config.base_url} does not answer: {problem}")

    async def _probe_once(self) -> str | None:
        """Return what is wrong with the server, None if nothing is."""
        try:
            response = await self._client.get("models", timeout=self._config.probe_timeout_s)
        except httpx.HTTPError as exc:
            return _describe(exc)
        return f"HTTP {response.status_code}" if response.is_server_error else None

    # --- one attempt -------------------------------------------------------------------------

    async def _run(self, request: EngineRequest) -> None:
        limit_tokens = request.sampling.max_tokens
        max_tokens = min(limit_tokens or self._max_model_len, self._max_model_len)
        reply = RemoteReply(request)
        refused = await self._try(request, max_tokens, reply)
        if refused is not None and refused.room_tokens is not None and refused.room_tokens > 0:
            # Servers other than vLLM refuse a request that asks for more than fits.
            refused = await self._try(request, refused.room_tokens, reply)
        if refused is not None:
            self._stream.put(
                RequestFailed(request.attempt, refused.code, refused.message, refused.is_retryable)
            )
        else:
            self._count(reply.usage)
            self._stream.put(reply.finished())

    async def _try(
        self, request: EngineRequest, max_tokens: int, reply: RemoteReply
    ) -> Refusal | None:
        """Run the request once; return why it failed, or None."""
        model = request.model or self._models[0]
        path, body = path_and_body(request, model, max_tokens, self._config.sends_cache_salt)
        try:
            async with self._client.stream("POST", path, json=body) as response:
                if response.is_error:
                    return refusal(response.status_code, (await response.aread()).decode())
                return await self._receive(response, reply)
        except (httpx.HTTPError, SSEError, ValueError) as exc:
            return Refusal("engine_failed", _describe(exc), is_retryable=True)

    async def _receive(self, response: httpx.Response, reply: RemoteReply) -> Refusal | None:
        async for event in EventSource(response).aiter_sse():
            if event.data == "[DONE]":
                break
            chunk = parse_chunk(event.data)
            if chunk.error is not None:
                return Refusal("engine_failed", chunk.error, is_retryable=True)
            for output in reply.add(chunk):
                self._stream.put(output)
        if not reply.is_complete:
            message = "the reply ended without a finish reason and usage"
            return Refusal("engine_failed", message, is_retryable=True)
        return None

    def _count(self, usage: RequestUsage | None) -> None:
        assert usage is not None, "checked when the reply ended"
        self._prompt_tokens += usage.prompt_tokens
        self._cached_tokens += usage.cached_tokens
        self._generated_tokens += usage.completion_tokens


def _describe(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
