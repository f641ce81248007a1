"""Engines for benchmarks of the plug-in: with it and without it, in one process, in one run.

Each engine has one reader, and a client whose calls return what was measured of them. An engine
that has nothing to do takes no time, so engines of several kinds stand side by side and trials
alternate between them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from parrot_backend.core.criteria import UNANNOTATED, Objective
from parrot_backend.core.events import (
    EngineReported,
    RequestFailed,
    RequestFinished,
    RequestUsage,
    TokensGenerated,
)
from parrot_backend.core.ids import AttemptId, EngineId, SessionId
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.vllm import VllmConfig, VllmEngine
from parrot_backend.models import TINY_MODEL_NAME, tiny_model_path

_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
    "from",
    "have",
    "or",
    "by",
    "one",
    "had",
    "not",
    "but",
    "what",
    "all",
    "were",
    "when",
    "we",
    "there",
    "can",
    "an",
    "your",
    "which",
    "their",
    "said",
    "if",
    "do",
    "will",
    "each",
    "about",
]

#: All requests of the clients belong to one session: the engine does not care.
_SESSION = SessionId("bench")


def words(count: int, seed: object) -> str:
    """Return a text of so many words, always the same for a seed; about 1.3 tokens a word."""
    return " ".join(random.Random(repr(seed)).choices(_WORDS, k=count))


@dataclass(slots=True)
class Sample:
    """What was measured of one call; times on one clock.

    Attributes:
        token_s: When each piece of text came.
    """

    begin_s: float
    token_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    usage: RequestUsage | None = None

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.token_s[0] - self.begin_s

    @property
    def tpot_s(self) -> float:
        """Mean time per token after the first."""
        return (self.token_s[-1] - self.token_s[0]) / max(1, len(self.token_s) - 1)

    @property
    def normalised_s(self) -> float:
        """Whole time divided by the tokens generated."""
        assert self.usage is not None
        return (self.end_s - self.begin_s) / self.usage.completion_tokens


class LabEngine:
    """An engine with a reader of its outputs.

    Attributes:
        step_time: The latest model of its steps, if it publishes one.
    """

    def __init__(self, name: str, config: VllmConfig) -> None:
        self.engine = VllmEngine(EngineId(name), config)
        self.step_time: StepTimeModel | None = None
        self._waiting: dict[AttemptId, tuple[Sample, asyncio.Future[Sample]]] = {}
        self._numbers = itertools.count()
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the engine."""
        await self.engine.open()
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """End the engine."""
        await self.engine.close()

    async def forget(self) -> None:
        """Begin with an empty prefix cache."""
        await self.engine.drain()
        await self.engine.reset_prefix_cache()

    async def generate(
        self,
        texts: Sequence[str],
        max_tokens: int,
        objective: Objective = UNANNOTATED,
        **fields: Any,
    ) -> Sample:
        """Run a call that generates exactly ``max_tokens``, and return what was measured.

        Args:
            texts: Parts of the prompt.
            max_tokens: Length of the output.
            objective: What is wanted of it.
            **fields: Further fields of the request.
        """
        attempt = AttemptId(f"{_SESSION}.c{next(self._numbers)}#0~1")
        done: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting[attempt] = (Sample(time.perf_counter()), done)
        sampling = Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        parts = tuple(PromptPart(PartKind.CONSTANT, text) for text in texts)
        request = EngineRequest(attempt, _SESSION, None, parts, sampling, objective)
        self.engine.start(replace(request, **fields) if fields else request)
        return await done

    async def _read(self) -> None:
        async for output in self.engine.outputs():
            if isinstance(output, EngineReported):
                self.step_time = output.step_time or self.step_time
                continue
            sample, done = self._waiting[output.attempt]
            now_s = time.perf_counter()
            if isinstance(output, TokensGenerated):
                sample.token_s.append(now_s)
            elif isinstance(output, RequestFailed):
                done.set_exception(RuntimeError(output.message))
            elif isinstance(output, RequestFinished):
                sample.end_s, sample.usage = now_s, output.usage
                done.set_result(sample)


def tiny_config(**fields: Any) -> VllmConfig:
    """Return the tiny model's configuration with some fields changed."""
    plain = VllmConfig(
        model=str(tiny_model_path()),
        served_model_name=TINY_MODEL_NAME,
        max_model_len=4096,
        max_num_seqs=32,
        kv_cache_bytes=128 * 2**20,
    )
    return replace(plain, **fields)


@asynccontextmanager
async def engines(**configs: VllmConfig) -> AsyncIterator[dict[str, LabEngine]]:
    """Open engines by name, one after the other; close them at the end."""
    opened: dict[str, LabEngine] = {}
    try:
        for name, config in configs.items():
            opened[name] = LabEngine(name, config)
            await opened[name].open()
        yield opened
    finally:
        for engine in opened.values():
            await engine.close()


def shared_arguments(parser: argparse.ArgumentParser, repeat: int) -> None:
    """Add the arguments that all benchmarks of the plug-in have."""
    parser.add_argument("--repeat", type=int, default=repeat, help="trials of each variant")
    parser.add_argument("--save", action="store_true", help="append the rows to results/")


def alternate(names: Sequence[str], repeat: int) -> list[str]:
    """Return the order of trials: round by round, each round beginning with another variant."""
    order: list[str] = []
    for number in range(repeat):
        shift = number % len(names)
        order += [*names[shift:], *names[:shift]]
    return order


async def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition by looking every 10 ms; return whether it came true in time."""
    deadline_s = time.perf_counter() + timeout_s
    while not condition():
        if time.perf_counter() > deadline_s:
            return False
        await asyncio.sleep(0.01)
    return True
