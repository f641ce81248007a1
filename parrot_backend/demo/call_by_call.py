"""The model calls of an ordinary program: each is one request to vLLM's own OpenAI server."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, nullcontext

import httpx
from pydantic import BaseModel

from parrot_backend.demo.programs import DemoProgram
from parrot_backend.demo.records import CallRecord, Mode, Phase, PhaseKind, RunRecord
from parrot_backend.demo.transport import DelayingTransport
from parrot_integrations import Sampling

_MS = 1e-3

#: Longest silence of the server, for slow machines and large models.
_READ_TIMEOUT_S = 600.0

_MAX_REASON_CHARS = 500


class _CachedTokens(BaseModel):
    cached_tokens: int


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _CachedTokens


class _EngineTimes(BaseModel):
    """vLLM's own times of one request (``--enable-per-request-metrics``)."""

    queue_time_ms: float
    time_to_first_token_ms: float
    generation_time_ms: float


class _Choice(BaseModel):
    text: str


class _Completion(BaseModel):
    """What is read of a reply of ``/v1/completions``."""

    choices: tuple[_Choice, ...]
    usage: _Usage
    metrics: _EngineTimes


class OpenAICaller:
    """Runs programs call by call.

    Args:
        base_url: Address of vLLM's server.
        model: Name of the model there.
        transport: The network between; closed with this.
        max_concurrent: Most requests at once, as a client limits them that wants each of its calls
            to be quick; None sets no limit.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        transport: DelayingTransport,
        max_concurrent: int | None = None,
    ) -> None:
        self._transport = transport
        self._http = httpx.AsyncClient(
            base_url=base_url, transport=transport, timeout=_READ_TIMEOUT_S
        )
        self._model = model
        self._gate: AbstractAsyncContextManager[object] = nullcontext()
        if max_concurrent is not None:
            self._gate = asyncio.Semaphore(max_concurrent)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, program: DemoProgram) -> RunRecord:
        """Run a program and return its record.

        Raises:
            httpx.HTTPError: A call failed.
        """
        calls: dict[str, CallRecord] = {}
        trips_before = self._transport.round_trips
        start_s = time.perf_counter()

        async def ask(name: str, prompt: str) -> str:
            async with self._gate:
                sent_s = time.perf_counter() - start_s
                reply = await self._complete(prompt, program.sampling)
                calls[name] = self._record(name, reply, sent_s, time.perf_counter() - start_s)
            return reply.choices[0].text

        text = await program.call_by_call(ask)
        return RunRecord(
            mode=Mode.CALL_BY_CALL,
            e2e_s=time.perf_counter() - start_s,
            round_trips=self._transport.round_trips - trips_before,
            calls=tuple(calls[name] for name in program.call_names),
            text=text,
        )

    async def _complete(self, prompt: str, sampling: Sampling) -> _Completion:
        body = sampling.model_dump(include={"max_tokens", "temperature", "ignore_eos"})
        response = await self._http.post(
            "/v1/completions", json={"model": self._model, "prompt": prompt, **body}
        )
        if response.is_error:
            reason = f"vLLM answered {response.status_code}: {response.text[:_MAX_REASON_CHARS]}"
            raise httpx.HTTPStatusError(reason, request=response.request, response=response)
        return _Completion.model_validate_json(response.content)

    def _record(
        self, name: str, reply: _Completion, sent_s: float, received_s: float
    ) -> CallRecord:
        usage, times = reply.usage, reply.metrics
        arrived_s = sent_s + self._transport.one_way_s
        left_s = received_s - self._transport.one_way_s
        decoding_s = left_s - times.generation_time_ms * _MS
        queued_s = arrived_s + times.queue_time_ms * _MS
        engine_ms = times.queue_time_ms + times.time_to_first_token_ms + times.generation_time_ms
        return CallRecord(
            name=name,
            phases=(
                Phase(PhaseKind.REQUEST_TRAVELS, sent_s, arrived_s),
                Phase(PhaseKind.QUEUE, arrived_s, queued_s),
                Phase(PhaseKind.PREFILL, queued_s, decoding_s),
                Phase(PhaseKind.DECODE, decoding_s, left_s),
                Phase(PhaseKind.REPLY_TRAVELS, left_s, received_s),
            ),
            needs=(),
            engine_s=engine_ms * _MS,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.prompt_tokens_details.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )
