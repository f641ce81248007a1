"""An engine without a model: its replies are a function of the prompt and the sampling.

It stands in for a real engine where speed and meaning do not matter (tests, benchmarks of
everything else): takes rendered requests, gives words. It imitates time, batch size, a prefix cache
and faults as far as its configuration says; with no delays it answers within ``start``. One word
is one token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from parrot_backend.core.events import (
    EngineInfo,
    RequestFailed,
    RequestFinished,
    RequestUsage,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.engines.attempts import AttemptTasks, check_model, fit_output
from parrot_backend.engines.base import EngineLoad, EngineOutput, EngineRequest
from parrot_backend.engines.life_signs import LifeSigns
from parrot_backend.engines.output_stream import OutputStream
from parrot_backend.engines.prefix_set import Boundary, PrefixSet
from parrot_backend.engines.scripted_chat import FormatError, make_chat_reply
from parrot_backend.engines.scripted_reply import Reply, render
from parrot_backend.engines.unhinted import UnhintedEngine

__all__ = ["ScriptedConfig", "ScriptedEngine", "render"]


@dataclass(frozen=True, slots=True)
class ScriptedConfig:
    """What the engine pretends to be.

    Attributes:
        models: Names it serves; the first is its default.
        prefill_s_per_token: Time per prompt token that is not in the prefix cache.
        token_s: Time per generated token.
        max_requests: Requests that run at once; more wait in order of arrival. Matters only with
            delays.
        capacity_tokens: See ``EngineInfo``; the KV use it reports is relative to this.
        latency_capacity_tokens: See ``EngineInfo``.
        max_model_len: Longest prompt plus output, in tokens.
        has_prefix_cache: Whether prefixes that were seen cost no time again.
        fail_on: Requests with this in their rendered prompt fail.
        fail_is_retryable: Whether that failure is one that another engine might not have.
    """

    models: tuple[str, ...] = ("scripted",)
    prefill_s_per_token: float = 0.0
    token_s: float = 0.0
    max_requests: int = 64
    capacity_tokens: int = 524_288
    latency_capacity_tokens: int = 6_144
    max_model_len: int = 8_192
    has_prefix_cache: bool = True
    fail_on: str | None = None
    fail_is_retryable: bool = False


class ScriptedEngine(UnhintedEngine):
    """An ``Engine`` that makes its replies up; see the module.

    Args:
        engine_id: Id of this incarnation.
        config: What it pretends to be.
    """

    def __init__(self, engine_id: EngineId, config: ScriptedConfig | None = None) -> None:
        self._id = engine_id
        self._config = config or ScriptedConfig()
        self._stream = OutputStream()
        self._signs = LifeSigns(engine_id, self._stream.put)
        self._tasks = AttemptTasks(self._stream)
        self._slots = asyncio.Semaphore(self._config.max_requests)
        self._prefixes = PrefixSet()
        self._takes_time = bool(self._config.prefill_s_per_token or self._config.token_s)
        self._awake = asyncio.Event()
        self._awake.set()
        self._num_running = 0
        self._running_tokens = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._generated_tokens = 0

    async def open(self) -> EngineInfo:
        """Return what the configuration says."""
        config = self._config
        return EngineInfo(
            engine=self._id,
            models=config.models,
            max_model_len=config.max_model_len,
            capacity_tokens=config.capacity_tokens,
            latency_capacity_tokens=config.latency_capacity_tokens,
            max_requests=config.max_requests,
        )

    def start(self, request: EngineRequest) -> None:
        """Begin an attempt; without delays it is finished when this returns."""
        boundaries = self._boundaries(request, request.parts)
        plan = self._plan(request, boundaries)
        if self._takes_time or not self._awake.is_set():
            self._tasks.start(request.attempt, self._run(request, plan, boundaries))
        elif isinstance(plan, RequestFailed):
            self._stream.put(plan)
        else:
            cached_tokens = self._begin_prefill(boundaries)
            self._say(request, "".join(plan.pieces), plan.num_tokens)
            self._finish(request, plan, boundaries, _usage(plan, boundaries, cached_tokens))

    def abort(self, attempt: AttemptId) -> None:
        """Stop an attempt and say nothing more of it."""
        self._tasks.abort(attempt)

    def outputs(self) -> AsyncIterator[EngineOutput]:
        """Yield what happens, until ``close`` or a scripted death."""
        return self._stream.read()

    def load(self) -> EngineLoad:
        """Return the present load."""
        return EngineLoad(
            running=self._num_running,
            waiting=len(self._tasks) - self._num_running,
            kv_usage=min(1.0, self._running_tokens / self._config.capacity_tokens),
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
        )

    async def drain(self) -> None:
        """Return when no attempt is running any more."""
        await self._tasks.drain()

    async def close(self) -> None:
        """Stop everything and end ``outputs``."""
        self._stream.end()
        await self._tasks.cancel_all()

    def die(self, reason: str = "scripted death") -> None:
        """Fault: raise ``EngineDied`` out of ``outputs``."""
        self._stream.die(reason)

    def hang(self) -> None:
        """Fault: go on with nothing and say nothing, although requests are still taken."""
        self._awake.clear()

    def _boundaries(
        self, request: EngineRequest, parts: Sequence[PromptPart]
    ) -> tuple[Boundary, ...]:
        in_front = request.chat.prompt_text
        return self._prefixes.boundaries(request.cache_salt, parts, in_front)

    def _plan(
        self, request: EngineRequest, boundaries: tuple[Boundary, ...]
    ) -> Reply | RequestFailed:
        failure = check_model(request, self._config.models)
        if failure is not None:
            return failure
        prompt = render(request.parts)
        if self._config.fail_on is not None and self._config.fail_on in prompt:
            return RequestFailed(
                request.attempt,
                "engine_failed",
                "a scripted failure",
                self._config.fail_is_retryable,
            )
        prompt_tokens = boundaries[-1].num_tokens if boundaries else 0
        max_tokens = fit_output(request, prompt_tokens, self._config.max_model_len)
        if isinstance(max_tokens, RequestFailed):
            return max_tokens
        try:
            return make_chat_reply(request.parts, request.chat, request.sampling, max_tokens)
        except FormatError as exc:
            return RequestFailed(request.attempt, "invalid_format", str(exc))

    async def _run(
        self, request: EngineRequest, plan: Reply | RequestFailed, boundaries: tuple[Boundary, ...]
    ) -> None:
        if isinstance(plan, RequestFailed):
            await self._awake.wait()
            self._stream.put(plan)
            return
        loop = asyncio.get_running_loop()
        queued_s = loop.time()
        kv_tokens = boundaries[-1].num_tokens + plan.num_tokens
        async with self._slots:
            self._num_running += 1
            self._running_tokens += kv_tokens
            try:
                with self._signs.during(request):
                    cached_tokens, first_s = await self._generate(request, plan, boundaries)
            finally:
                self._num_running -= 1
                self._running_tokens -= kv_tokens
        now_s = loop.time()
        times_s = (now_s - queued_s, now_s - first_s)
        self._finish(request, plan, boundaries, _usage(plan, boundaries, cached_tokens, *times_s))

    async def _generate(
        self, request: EngineRequest, reply: Reply, boundaries: tuple[Boundary, ...]
    ) -> tuple[int, float]:
        """Say the reply in its time.

        Returns:
            How many prompt tokens were cached, and when the first token was there.
        """
        cached_tokens = self._begin_prefill(boundaries)
        num_uncached = boundaries[-1].num_tokens - cached_tokens
        await asyncio.sleep(num_uncached * self._config.prefill_s_per_token)
        await self._awake.wait()
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        first_s = due_s + self._config.token_s
        for piece in (*reply.pieces, *("" for _ in reply.hidden_pieces)):
            due_s += self._config.token_s
            await asyncio.sleep(due_s - loop.time())
            await self._awake.wait()
            self._say(request, piece, 1)
            self._signs.progress()
        return cached_tokens, first_s

    def _begin_prefill(self, boundaries: tuple[Boundary, ...]) -> int:
        """Return how many tokens of the prompt are in the cache, and put the prompt there.

        Requests of one batch share a prefix that the first of them computes, as in an engine.
        """
        num_tokens = boundaries[-1].num_tokens
        self._prompt_tokens += num_tokens
        if not self._config.has_prefix_cache:
            return 0
        cached_tokens = self._prefixes.cached_tokens(boundaries)
        self._prefixes.remember(boundaries)
        self._cached_tokens += cached_tokens
        return cached_tokens

    def _say(self, request: EngineRequest, text: str, num_tokens: int) -> None:
        self._generated_tokens += num_tokens
        if (text or num_tokens) and not request.quiet:
            self._stream.put(TokensGenerated(request.attempt, text, num_tokens))

    def _finish(
        self,
        request: EngineRequest,
        reply: Reply,
        boundaries: tuple[Boundary, ...],
        usage: RequestUsage,
    ) -> None:
        text = "".join(reply.pieces)
        if self._config.has_prefix_cache:
            parts = (*request.parts, PromptPart(PartKind.VALUE, text))
            self._prefixes.remember(self._boundaries(request, parts)[-1:])
        reason, details = reply.finish_reason, reply.details
        finished = RequestFinished(request.attempt, text, None, reason, usage, details=details)
        self._stream.put(finished)


def _usage(
    reply: Reply,
    boundaries: tuple[Boundary, ...],
    cached_tokens: int,
    engine_s: float = 0.0,
    decode_s: float = 0.0,
) -> RequestUsage:
    prompt_tokens = boundaries[-1].num_tokens
    return RequestUsage(prompt_tokens, reply.num_tokens, cached_tokens, engine_s, decode_s)
