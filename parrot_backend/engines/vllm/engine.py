"""vLLM behind the engine seam: requests in, token ids to ``AsyncLLM``, its steps as outputs.

vLLM itself is in ``compat``, its processes in ``processes``, prompts in ``prompt``; this
module joins them and owns the life of the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from parrot_backend.core.events import EngineInfo, RequestFailed
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.prompt import PromptPart
from parrot_backend.engines.attempts import AttemptTasks, check_model, fit_output
from parrot_backend.engines.base import EngineLoad, EngineOutput, EngineRequest
from parrot_backend.engines.output_stream import OutputStream
from parrot_backend.engines.vllm import compat, processes
from parrot_backend.engines.vllm.config import VllmConfig
from parrot_backend.engines.vllm.processes import CoreProcesses
from parrot_backend.engines.vllm.prompt import PromptEncoder, PromptError
from parrot_backend.engines.vllm.records import CoreDead, LoadRecord, Rejected
from parrot_backend.engines.vllm.reply import Reply
from parrot_backend.errors import EngineError

#: Longer prompts are tokenised in a thread, because the event loop would stand still meanwhile:
#: about 3 ms for so many characters.
_LONG_PROMPT_CHARS = 10_000


class VllmEngine:
    """An ``Engine`` on ``AsyncLLM``; see the module.

    Args:
        engine_id: Id of this incarnation.
        config: The engine.
    """

    def __init__(self, engine_id: EngineId, config: VllmConfig) -> None:
        self._id = engine_id
        self._config = config
        self._cores = CoreProcesses(is_forked=processes.is_cpu_build())
        self._record = LoadRecord()
        self._stream = OutputStream()
        self._tasks = AttemptTasks(self._stream)
        self._building: asyncio.Future[Any] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._client: Any = None
        self._encoder: PromptEncoder | None = None
        self._max_model_len = 0

    @property
    def client(self) -> Any:
        """The ``AsyncLLM``, for whoever wants vLLM's own server on the same engine."""
        if self._client is None:
            raise EngineError("engine_start_failed", "the engine is not open")
        return self._client

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the processes that compute."""
        return self._cores.pids

    async def open(self) -> EngineInfo:
        """Load the model; the event loop goes on meanwhile.

        Raises:
            EngineError: ``engine_start_failed`` with the cause.
        """
        processes.prewarm(self._config)
        # A thread cannot be cancelled; if this is, ``close`` ends what the thread waits for.
        self._building = asyncio.ensure_future(asyncio.to_thread(self._build))
        await asyncio.wait({self._building})
        _raise_start_failure(self._building.exception())
        self._client = self._building.result()
        handler = await compat.begin(self._client)
        self._watch = asyncio.create_task(self._await_death(handler), name=f"watch {self._id}")
        self._max_model_len, capacity_tokens = compat.limits(self._client)
        return EngineInfo(
            engine=self._id,
            models=(self._config.model_name,),
            max_model_len=self._max_model_len,
            capacity_tokens=capacity_tokens,
            latency_capacity_tokens=self._config.latency_capacity_tokens,
            max_requests=self._config.max_num_seqs,
        )

    def start(self, request: EngineRequest) -> None:
        """Begin an attempt and return at once."""
        failure = check_model(request, (self._config.model_name,))
        if failure is not None:
            self._stream.put(failure)
            return
        self._tasks.start(request.attempt, self._run(request))

    def abort(self, attempt: AttemptId) -> None:
        """Stop an attempt, in vLLM too, and say nothing more of it."""
        self._tasks.abort(attempt)

    def outputs(self) -> AsyncIterator[EngineOutput]:
        """Yield what happens, until ``close`` or the death of vLLM's core."""
        return self._stream.read()

    def load(self) -> EngineLoad:
        """Return the load after the latest step, with what others run on the same engine."""
        if self._client is None:
            return self._record.load(0)
        return self._record.load(compat.num_unfinished(self._client))

    async def drain(self) -> None:
        """Return when no attempt is running any more."""
        await self._tasks.drain()

    async def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; False if running requests hold some."""
        return await compat.reset_prefix_cache(self.client)

    async def close(self) -> None:
        """End the engine and its processes, also when they hang, and end ``outputs``."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"close {self._id}")
        await asyncio.shield(self._closing)

    # --- life --------------------------------------------------------------------------------

    def _build(self) -> Any:
        """Return the client. Runs in a thread, since it imports vLLM and waits for its core."""
        compat.check_version()
        client = compat.create_client(self._config, self._record, self._cores)
        self._encoder = PromptEncoder(client.get_tokenizer())
        return client

    async def _await_death(self, handler: asyncio.Task[None]) -> None:
        # It ends when the core's process does, idle or not: vLLM watches that process.
        await asyncio.wait({handler})
        self._die("it gives no more output")

    def _die(self, reason: str) -> None:
        code = self._cores.exit_code()
        self._stream.die(
            f"vLLM's core cannot go on: {reason}"
            if code is None
            else f"vLLM's core has ended with exit code {code}"
        )

    async def _close(self) -> None:
        self._stream.end()
        if self._watch is not None:
            self._watch.cancel()
        await self._tasks.cancel_all()
        try:
            if self._building is not None:
                await self._end_client(self._building)
        finally:
            await asyncio.to_thread(self._cores.kill)

    async def _end_client(self, building: asyncio.Future[Any]) -> None:
        if not building.done():
            await asyncio.to_thread(self._cores.kill)
            await asyncio.wait({building})
        if building.exception() is None:
            timeout_s = self._config.close_timeout_s
            await asyncio.to_thread(compat.shut_down, building.result(), timeout_s)

    # --- one attempt -------------------------------------------------------------------------

    async def _run(self, request: EngineRequest) -> None:
        try:
            await self._generate(request)
        except PromptError as exc:
            self._stream.put(RequestFailed(request.attempt, "engine_rejected", str(exc)))
        except Rejected as exc:
            self._stream.put(RequestFailed(request.attempt, exc.code, str(exc), exc.is_retryable))
        except CoreDead as exc:
            self._die(str(exc))

    async def _generate(self, request: EngineRequest) -> None:
        assert self._encoder is not None, "open"
        prompt_ids = await _encode(self._encoder, request.parts)
        max_tokens = fit_output(request, len(prompt_ids), self._max_model_len)
        if isinstance(max_tokens, RequestFailed):
            self._stream.put(max_tokens)
            return
        reply = Reply(request.attempt, len(prompt_ids), self._encoder.decode)
        steps = compat.generate(
            self._client,
            request.attempt,
            prompt_ids,
            request.sampling,
            max_tokens,
            request.objective.objective_class,
            request.cache_salt,
        )
        async for step in steps:
            for output in reply.add(step):
                self._stream.put(output)


async def _encode(encoder: PromptEncoder, parts: Sequence[PromptPart]) -> list[int]:
    if sum(len(part.text) for part in parts) > _LONG_PROMPT_CHARS:
        return await asyncio.to_thread(encoder.encode, parts)
    return encoder.encode(parts)


def _raise_start_failure(cause: BaseException | None) -> None:
    if isinstance(cause, EngineError):
        raise cause
    if cause is not None:
        message = f"vLLM did not start: {type(cause).__name__}: {cause}"
        raise EngineError("engine_start_failed", message) from cause
