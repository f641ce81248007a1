"""The side of vLLM that sends requests: ``AsyncLLM`` and what it says.

vLLM is imported inside functions, so that this module can be imported without.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import fields
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from parrot_backend.core.sampling import Sampling
from parrot_backend.errors import EngineError
from parrot_backend.vllm_compat.records import (
    UNCONSTRAINED,
    Constraint,
    CoreDead,
    Limits,
    LoadRecord,
    Rejected,
    Step,
)
from parrot_backend.vllm_compat.sampling import sampling_params, step_of

#: By whether the engine's steps overlap.
SCHEDULER_CLASSES = {
    False: "parrot_backend.vllm_plugin.ParrotScheduler",
    True: "parrot_backend.vllm_plugin.ParrotAsyncScheduler",
}

_SAMPLING_NAMES = frozenset(field.name for field in fields(Sampling)) - {"response_format"}


class EngineArguments(Protocol):
    """What an engine is to be."""

    @property
    def model(self) -> str:
        """Folder or name of the model."""
        ...

    @property
    def is_extended(self) -> bool:
        """Whether Parrot's policy runs inside."""
        ...

    def engine_arguments(self, is_cpu: bool) -> dict[str, Any]:
        """Return the arguments of ``AsyncEngineArgs``."""
        ...


def create_client(
    config: EngineArguments,
    record: LoadRecord,
    owning: Callable[[], AbstractContextManager[None]],
    context: Callable[[], BaseContext | None],
) -> Any:
    """Start an engine and return its ``AsyncLLM``. Blocks; for a thread without an event loop.

    Args:
        config: The engine.
        record: From then on, it tells the engine's load.
        owning: Processes that are made within belong to whoever gave this.
        context: Returns the context in which processes are made now; None for vLLM's own.
    """
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    _make_processes_in(context)
    is_cpu = current_platform.is_cpu()
    if is_cpu:
        _inspect_in_process(config)
    given = config.engine_arguments(is_cpu)
    if "structured_outputs_config" in given:
        given["structured_outputs_config"] = StructuredOutputsConfig(
            **given["structured_outputs_config"]
        )
    arguments = AsyncEngineArgs(**given)
    vllm_config = arguments.create_engine_config()
    if config.is_extended:
        is_async = vllm_config.scheduler_config.async_scheduling
        vllm_config.scheduler_config.scheduler_cls = SCHEDULER_CLASSES[bool(is_async)]
    with owning():
        return AsyncLLM.from_vllm_config(
            vllm_config, stat_loggers=[_stat_logger_factory(record)], disable_log_stats=True
        )


def _make_processes_in(context: Callable[[], BaseContext | None]) -> None:
    # vLLM offers no other way to say how its core starts: its setting knows spawn and fork only.
    launcher: Any = importlib.import_module("vllm.v1.engine.utils")
    own = getattr(launcher.get_mp_context, "replaced", launcher.get_mp_context)

    def get_mp_context() -> Any:
        return context() or own()

    get_mp_context.replaced = own  # type: ignore[attr-defined]
    launcher.get_mp_context = get_mp_context


async def begin(client: Any) -> asyncio.Task[None]:
    """Let a client work in this event loop; return the task that ends when the engine does.

    Raises:
        EngineError: ``engine_start_failed``: the engine ended before it began.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    client._run_output_handler()
    try:
        await client.get_supported_tasks()
    except EngineDeadError as exc:
        raise EngineError("engine_start_failed", f"vLLM's core died at once: {exc}") from exc
    handler: asyncio.Task[None] = client.output_handler
    return handler


def limits(client: Any) -> Limits:
    """Return what an engine can hold and do at once."""
    config = client.vllm_config
    cache = config.cache_config
    block_tokens = int(cache.block_size)
    return Limits(
        int(config.model_config.max_model_len),
        (int(cache.num_gpu_blocks) - 1) * block_tokens,  # one block is never used
        block_tokens,
        int(config.scheduler_config.max_num_batched_tokens),
    )


def num_unfinished(client: Any) -> int:
    """Return how many requests the engine has not finished."""
    return int(client.get_num_unfinished_requests())


async def generate(
    client: Any,
    attempt: str,
    prompt_ids: list[int],
    sampling: Sampling,
    max_tokens: int,
    priority: int,
    cache_salt: str | None,
    hints: dict[str, Any] | None = None,
    constraint: Constraint = UNCONSTRAINED,
    *,
    quiet: bool = False,
) -> AsyncGenerator[Step]:
    """Run a request; to cancel it aborts it.

    Args:
        client: The ``AsyncLLM``.
        attempt: Id of the request.
        prompt_ids: The prompt.
        sampling: How to sample.
        max_tokens: Replaces the one in ``sampling``.
        priority: A smaller number is served first.
        cache_salt: Keeps the prefix caches of tenants apart.
        hints: For the plug-in.
        constraint: What the output must be, and how it is read.
        quiet: One step tells it all, at the end.

    Raises:
        CoreDead: The engine is gone.
        Rejected: It does not take this request.
    """
    from vllm.exceptions import GracefulHTTPError, VLLMClientError
    from vllm.inputs import tokens_input
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    try:
        outputs = client.generate(
            tokens_input(prompt_ids, cache_salt=cache_salt),
            sampling_params(sampling, max_tokens, hints, constraint, quiet=quiet),
            attempt,
            priority=priority,
            **constraint.reasoning,
        )
        async with aclosing(outputs):
            async for output in outputs:
                yield step_of(output, sampling.logprobs)
    except EngineDeadError as exc:
        raise CoreDead(str(exc)) from exc
    except EngineGenerateError as exc:
        if client.errored:
            raise CoreDead(str(exc.__cause__)) from exc
        if isinstance(exc.__cause__, ValueError):
            raise Rejected("engine_rejected", str(exc.__cause__)) from exc
        raise Rejected("engine_failed", repr(exc.__cause__), is_retryable=True) from exc
    except GracefulHTTPError as exc:
        raise Rejected("engine_failed", str(exc), is_retryable=True) from exc
    except (VLLMClientError, ValueError) as exc:
        is_sampling = getattr(exc, "parameter", None) in _SAMPLING_NAMES
        other = "engine_rejected" if constraint.structured is None else "invalid_format"
        raise Rejected("invalid_sampling" if is_sampling else other, str(exc)) from exc


async def call_plugin(client: Any, name: str, arguments: list[Any]) -> Any:
    """Ask Parrot's policy inside the engine; see ``vllm_plugin.calls``.

    Raises:
        CoreDead: The engine is gone.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        return await client.engine_core.call_utility_async("parrot_call", name, arguments)
    except EngineDeadError as exc:
        raise CoreDead(str(exc)) from exc


async def reset_prefix_cache(client: Any) -> bool:
    """Forget all cached prefixes; False if running requests hold some."""
    return bool(await client.reset_prefix_cache())


def shut_down(client: Any, timeout_s: float) -> None:
    """End a client and its processes. Blocks.

    Args:
        client: The ``AsyncLLM``.
        timeout_s: Processes that have not ended after this are killed.
    """
    handler: asyncio.Task[None] | None = client.output_handler
    if handler is not None and num_unfinished(client) == 0:
        # It would log an error about the end that is wanted; and there is nobody to tell of it.
        handler.get_loop().call_soon_threadsafe(handler.cancel)
    client.shutdown(timeout=timeout_s)


def _inspect_in_process(config: EngineArguments) -> None:
    """Look at the model's class here rather than in a process of its own, as vLLM does.

    vLLM keeps CUDA out of this process that way; without CUDA it only costs seconds.
    """
    from vllm import ModelRegistry
    from vllm.transformers_utils.config import get_config

    for architecture in get_config(config.model, trust_remote_code=False).architectures or ():
        model = ModelRegistry.models.get(architecture)
        if model is not None:
            ModelRegistry.register_model(architecture, model.load_model_cls())


def _stat_logger_factory(record: LoadRecord) -> Any:
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Recorder(StatLoggerBase):
        """Writes what vLLM tells after each step into the record."""

        def __init__(self, *_: Any) -> None:
            """Take what vLLM gives every logger."""

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            """Note the load after one step."""
            if scheduler_stats is not None:
                record.running = scheduler_stats.num_running_reqs
                record.waiting = (
                    scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
                )
                record.kv_usage = scheduler_stats.kv_cache_usage
            if iteration_stats is not None:
                record.prompt_tokens += iteration_stats.prompt_token_stats.total
                record.cached_tokens += iteration_stats.prompt_token_stats.cached_tokens
                record.generated_tokens += iteration_stats.num_generation_tokens
                if iteration_stats.num_generation_tokens:
                    record.progress()

        def log_engine_initialized(self) -> None:
            """Say nothing."""

    return Recorder
