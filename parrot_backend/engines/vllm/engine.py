"""vLLM behind the engine seam: requests in, token ids to ``AsyncLLM``, its steps as outputs.

vLLM itself is in ``compat``, its processes in ``processes``, prompts in ``prompt``; this
module joins them and owns the life of the engine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from parrot_backend.core.criteria import Objective
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.engines.attempts import AttemptTasks, check_model
from parrot_backend.engines.base import EngineLoad, EngineOutput, EngineRequest
from parrot_backend.engines.life_signs import LifeSigns
from parrot_backend.engines.output_stream import OutputStream
from parrot_backend.engines.vllm import processes
from parrot_backend.engines.vllm.config import VllmConfig
from parrot_backend.engines.vllm.generation import Generation
from parrot_backend.engines.vllm.load import load_of
from parrot_backend.engines.vllm.plugin_side import PluginSide
from parrot_backend.engines.vllm.processes import CoreProcesses
from parrot_backend.engines.vllm.prompt import PromptEncoder
from parrot_backend.errors import EngineError
from parrot_backend.vllm_compat import client as compat
from parrot_backend.vllm_compat.output_parsers import OutputParsers
from parrot_backend.vllm_compat.records import CoreDead, LoadRecord
from parrot_backend.vllm_compat.version import check_version

logger = logging.getLogger(__name__)

#: Pause after a call to the plug-in that failed.
_CALL_RETRY_S = 1.0


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
        self._stream = OutputStream()
        self._signs = LifeSigns(engine_id, self._stream.put)
        self._record = LoadRecord(self._signs.progress)
        self._tasks = AttemptTasks(self._stream)
        self._building: asyncio.Future[Any] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._client: Any = None
        self._encoder: PromptEncoder | None = None
        self._parsers: OutputParsers | None = None
        self._generation: Generation | None = None
        self._plugin: PluginSide | None = None
        self._plugin_tasks: list[asyncio.Task[None]] = []

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
        limits = compat.limits(self._client)
        plugin = await self._open_plugin() if self._config.is_extended else {}
        assert self._encoder is not None, "made with the client"
        assert self._parsers is not None, "made with the client"
        self._generation = Generation(
            self._client,
            self._encoder,
            self._parsers,
            limits.max_model_len,
            self._stream,
            self._plugin,
        )
        self._generation.can_splice = plugin.get("splices", False)
        return EngineInfo(
            engine=self._id,
            models=(self._config.model_name,),
            max_model_len=limits.max_model_len,
            capacity_tokens=limits.capacity_tokens,
            latency_capacity_tokens=self._config.latency_capacity_tokens,
            max_requests=self._config.max_num_seqs,
            keeps_prefixes=plugin.get("keeps_prefixes", False),
            splices=plugin.get("splices", False),
            takes_updates=self._config.is_extended,
            finds_tool_calls=self._parsers.finds_tool_calls,
            block_tokens=limits.block_tokens,
            max_step_tokens=limits.max_step_tokens,
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

    def update(self, attempt: AttemptId, objective: Objective, remaining: int) -> None:
        """Change the hints of an attempt."""
        if self._generation is not None and attempt in self._tasks:
            self._generation.update(attempt, objective, remaining)

    def retain(self, key: bytes, attempt: AttemptId | None) -> None:
        """Keep a prefix until ``release``, within the plug-in's limits."""
        if self._plugin is not None:
            self._plugin.retain(key, attempt)

    def release(self, keys: Sequence[bytes]) -> None:
        """Keep prefixes no longer."""
        if self._plugin is not None:
            self._plugin.release(keys)

    async def plugin_state(self) -> dict[str, Any]:
        """Return what is inside the plug-in, for tests and for people."""
        state: dict[str, Any] = await compat.call_plugin(self.client, "state", [])
        return state

    async def configure_plugin(self, **options: bool | float) -> None:
        """Change options of the plug-in while it runs, to compare them."""
        await compat.call_plugin(self.client, "configure", [options])
        if self._generation is not None:
            self._generation.can_splice = (await self.plugin_state())["splices"]

    def outputs(self) -> AsyncIterator[EngineOutput]:
        """Yield what happens, until ``close`` or the death of vLLM's core."""
        return self._stream.read()

    def load(self) -> EngineLoad:
        """Return the load after the latest step, with what others run on the same engine."""
        if self._client is None:
            return load_of(self._record, 0)
        load = load_of(self._record, compat.num_unfinished(self._client))
        return load if self._plugin is None else self._plugin.add_figures(load)

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
        check_version()
        client = compat.create_client(
            self._config, self._record, self._cores.owning, processes.core_context
        )
        self._encoder = PromptEncoder(client.get_tokenizer())
        config = self._config
        try:
            self._parsers = OutputParsers(client, config.tool_call_parser, config.reasoning_parser)
        except EngineError:
            compat.shut_down(client, config.close_timeout_s)
            raise
        return client

    async def _open_plugin(self) -> dict[str, Any]:
        """Begin to talk with the plug-in; return its state."""
        call = partial(compat.call_plugin, self._client)
        self._plugin = plugin = PluginSide(self._id, call, self._stream.put)
        for work in (plugin.send_orders, plugin.read_reports):
            task = asyncio.create_task(self._until_death(work), name=f"plugin {self._id}")
            self._plugin_tasks.append(task)
        return await self.plugin_state()

    async def _until_death(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do work that has no end; begin it anew when a call fails, as long as the core lives."""
        while True:
            try:
                await work()
            except CoreDead as exc:
                self._die(str(exc))
                return
            except Exception:
                # Hints and reports are wishes and news: without them the engine still serves.
                logger.exception("engine=%s: a call to its plug-in failed", self._id)
                await asyncio.sleep(_CALL_RETRY_S)

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
        for task in (self._watch, *self._plugin_tasks):
            if task is not None:
                task.cancel()
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

    async def _run(self, request: EngineRequest) -> None:
        assert self._generation is not None, "open"
        try:
            with self._signs.during(request):
                await self._generation.run(request)
        except CoreDead as exc:
            self._die(str(exc))


def _raise_start_failure(cause: BaseException | None) -> None:
    if isinstance(cause, EngineError):
        raise cause
    if cause is not None:
        message = f"vLLM did not start: {type(cause).__name__}: {cause}"
        raise EngineError("engine_start_failed", message) from cause
