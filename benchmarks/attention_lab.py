"""An engine of real vLLM with random weights, whose requests decode side by side."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.attention_shapes import Model, Shape
from parrot_backend.engines.vllm import VllmConfig, processes
from parrot_backend.vllm_compat import client as vllm_client


class Ticks:
    """When the tokens of one request came."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self._next = asyncio.Event()

    def tick(self) -> None:
        """Note a token."""
        self.times_s.append(time.perf_counter())
        self._next.set()

    async def wait_for(self, count: int) -> None:
        """Return when there are so many more."""
        wanted = len(self.times_s) + count
        while len(self.times_s) < wanted:
            self._next.clear()
            await self._next.wait()


class Lab:
    """One engine.

    Args:
        client: vLLM's ``AsyncLLM``.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._number = 0

    @asynccontextmanager
    async def decoding(self, shape: Shape, num_tokens: int) -> AsyncIterator[Ticks]:
        """Let all requests of a batch decode; yield one's tokens once each has its first.

        Args:
            shape: The batch. What is shared is computed beforehand, by itself.
            num_tokens: Most tokens of each request; they are cut short at the end.
        """
        for prefix in shape.prefixes():
            await self._generate(prefix, 1, Ticks())
        ticks = [Ticks() for _ in range(shape.num_requests)]
        running = [
            asyncio.create_task(self._generate(prompt, num_tokens, ticks[number]))
            for number, prompt in enumerate(shape.prompts())
        ]
        try:
            await asyncio.gather(*(clock.wait_for(1) for clock in ticks))
            yield ticks[-1]
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call the plug-in inside the engine."""
        return await vllm_client.call_plugin(self.client, name, list(arguments))

    async def attention(self) -> dict[str, Any]:
        """Return what the plug-in counted of attention.

        Raises:
            RuntimeError: Requests cannot share reads on this engine.
        """
        found: dict[str, Any] = (await self.call("state"))["attention"]
        if found["state"] not in ("on", "off"):
            raise RuntimeError(f"attention is not shared on this engine: {found['state']}")
        return found

    async def _generate(self, prompt: list[int], max_tokens: int, ticks: Ticks) -> None:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        self._number += 1
        parameters = SamplingParams(
            max_tokens=max_tokens,
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        name = f"bench-{self._number}"
        async for _ in self.client.generate(tokens_input(prompt), parameters, name):
            ticks.tick()


@asynccontextmanager
async def lab(
    model: Model, config: VllmConfig, more: Mapping[str, Any] | None = None
) -> AsyncIterator[Lab]:
    """Start an engine with random weights.

    Args:
        model: Its model.
        config: The engine; its model is replaced.
        more: Arguments of ``AsyncEngineArgs`` that the configuration does not have.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(model.config()))
        config = replace(config, model=folder)
        processes.prewarm(config)
        is_cpu = processes.is_cpu_build()
        cores = processes.CoreProcesses(is_forked=is_cpu)
        arguments = config.engine_arguments(is_cpu) | dict(more or {})
        client = await asyncio.to_thread(_start, arguments, cores)
        try:
            await vllm_client.begin(client)
            yield Lab(client)
        finally:
            await asyncio.to_thread(vllm_client.shut_down, client, 3.0)
            await asyncio.to_thread(cores.kill)


def _start(arguments: Mapping[str, Any], cores: processes.CoreProcesses) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    made = AsyncEngineArgs(**arguments, load_format="dummy", skip_tokenizer_init=True)
    config = made.create_engine_config()
    is_async = bool(config.scheduler_config.async_scheduling)
    config.scheduler_config.scheduler_cls = vllm_client.SCHEDULER_CLASSES[is_async]
    vllm_client._make_processes_in(processes.core_context)
    with cores.owning():
        return AsyncLLM.from_vllm_config(config)
